"""What the numbers do not show: said plainly, for the families that ran and for those that did not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.core.findings import Status

if TYPE_CHECKING:
    from vambrace.core.findings import Results

__all__ = ["limits"]

_SMALL = 200

_RAN = {
    "clean": "Accuracy holds for data like these. Whether real inputs are like these is for people to judge.",
    "adversarial": (
        "Accuracy under attack is an upper bound. A stronger attack, more steps or another starting point can only "
        "lower it; it is no proof. Only changes within the named norm and radius were tried: no stickers, no other "
        "kinds of change."
    ),
    "natural": (
        "The severities 1 to 5 are a convention, the same for every model. They do not say how often such inputs "
        "will occur."
    ),
    "membership": (
        "The privacy figures belong to the attack that ran. Stronger attacks exist, and a value near guessing is no "
        "guarantee; only training with differential privacy gives one."
    ),
    "dp": (
        "Epsilon holds for the training that wrote the ledger. Nothing in a ledger shows that this model came out of "
        "it, or that its data were not used elsewhere."
    ),
}
_DID_NOT = {
    "clean": "Accuracy on unchanged inputs was not measured.",
    "adversarial": "No attack ran: the report says nothing about inputs that someone changes on purpose.",
    "natural": "No everyday changes were tried: the report says nothing about noise, blur, turning or compression.",
    "membership": "No privacy check ran: the report says nothing about what the model gives away of its training data.",
}


def limits(results: Results) -> list[str]:
    """Sentences, the most important first."""
    measured = {finding.family for finding in results.findings if finding.value is not None}
    said: list[str] = []
    if any(finding.status is Status.UNRELIABLE for finding in results.findings):
        said.append("Struck-out numbers are there to be looked into. They are no evidence for or against the model.")
    if results.verdict.exit_code == 0 and results.gates:
        said.append(
            "A verdict of PASS means that the thresholds set beforehand hold. "
            "It does not mean that the model is fit for a purpose."
        )
    said.extend(text for family, text in _RAN.items() if family in measured)
    said.extend(text for family, text in _DID_NOT.items() if family not in measured)
    n = results.data.get("eval", {}).get("n")
    if isinstance(n, int) and 0 < n < _SMALL:
        said.append(f"Only {n} samples were used, so the intervals are wide and small differences mean nothing.")
    said.append("The 95 % intervals cover chance in the choice of samples, and nothing else.")
    return said
