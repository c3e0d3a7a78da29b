"""What private training cost, accounted for again from its ledger, beside how often the model is right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vambrace.assess.checks.base import Measured
from vambrace.assess.checks.standing import standing
from vambrace.assess.checks.words import share
from vambrace.assess.documents import roles_of
from vambrace.core.access import Access
from vambrace.core.findings import Flag
from vambrace.core.intervals import wilson
from vambrace.core.options import Options, Ratio, require
from vambrace.privacy.dp.accounting import check_delta, epsilon
from vambrace.privacy.dp.audited import parse_audit
from vambrace.privacy.dp.edges import rounded
from vambrace.privacy.dp.history import parse

if TYPE_CHECKING:
    from vambrace.assess.checks.base import Context, Record, Reduction
    from vambrace.assess.checks.standing import Standing
    from vambrace.core.findings import Finding
    from vambrace.data.batches import Batch

__all__ = ["DpCheck"]

_LEDGER, _AUDIT = "ledger", "audit"

_MOST_CHARGES = 512  # different ones that "pld" takes, a fraction of a second each; a schedule of noise has 64

_NEIGHBOURS = {
    "add_or_remove_one": "one sample more or less",
    "replace_one": "one sample in place of another",
    "zero_out_one": "one sample that counts or does not",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DpCheck(Options):
    """Account again for what a private training charged; asks the model nothing.

    Metrics: `epsilon`, an upper bound at delta; where an audit is given, `audit_epsilon`, its lower bound. Nothing in a
    ledger says which model it belongs to.

    Attributes:
        ledger: path of the training's ledger; relative to the plan's folder.
        audit: path of the result of an audit of the trainer, see docs/privacy/dp-audit.md; "": there is none.
        delta: for which epsilon is told, above 0, below 1; None: that of the ledger.
        accountant: upper bounds all; where "pld" does not reach, "rdp" is taken.
    """

    ledger: str
    audit: str = ""
    delta: Ratio | None = None
    accountant: Literal["pld", "rdp", "zcdp"] = "pld"

    kind: ClassVar[str] = "dp"
    version: ClassVar[int] = 1
    roles: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[Mapping[str, str]] = {"dp-accounting": "dp"}

    def __post_init__(self) -> None:
        require(bool(self.ledger), seen="ledger = ''", expected="the path of a ledger", fix="name the file")
        if self.delta is not None:
            check_delta(self.delta)

    @property
    def documents(self) -> Mapping[str, str]:
        """The ledger, and the audit where there is one."""
        return {_LEDGER: self.ledger, **({_AUDIT: self.audit} if self.audit else {})}

    @property
    def needs(self) -> Access:
        """The least there is: the model is not asked."""
        return Access.LABELS

    def measure(self, context: Context, batch: Batch) -> Measured:
        """One record a document."""
        read = {_LEDGER: self._ledger, _AUDIT: self._audit}
        return Measured(records=[{"id": name, **read[name](data)} for name, data in context.documents.items()])

    def reduce(self, reduction: Reduction) -> list[Finding]:
        """Epsilon with the accuracy beside it, and the audit's bound."""
        (role,) = roles_of(self)
        records = {record["id"]: record for record in reduction.records.get(role, ())}
        ledger, audit = records.get(_LEDGER), records.get(_AUDIT)
        flags = [*_contradiction(audit), *_large_delta(ledger)]
        state = standing(reduction, family=self.kind, roles=(role,), flags=flags, what="files")
        findings = [self._epsilon(state, ledger, reduction)]
        if self.audit:
            # What was found stands, whatever it says of the claim.
            state = standing(reduction, family=self.kind, roles=(role,), what="files")
            findings.append(self._bound(state, audit))
        return findings

    def _ledger(self, data: bytes) -> dict[str, Any]:
        history = parse(data, name=Path(self.ledger).name)
        terms, spent = history.terms, history.spent
        accountant, delta = self.accountant, terms.delta if self.delta is None else self.delta
        if accountant == "pld" and len(spent.merged().runs) > _MOST_CHARGES:
            accountant = "rdp"
        found = epsilon(spent, delta=delta, accountant=accountant)
        return {
            "steps": spent.steps,
            "epsilon": found.epsilon if math.isfinite(found.epsilon) else None,
            "delta": delta,
            "accountant": found.accountant,
            "relation": found.relation,
            "notes": list(found.notes),
            "dataset_size": terms.dataset_size,
            "sampler": terms.sampler,
            "unit": terms.unit,
            "run": history.run,
            "head": history.chain[-1],
        }

    def _audit(self, data: bytes) -> dict[str, Any]:
        found = parse_audit(data, name=Path(self.audit).name)
        claimed = found.claim.epsilon
        return {**found.bound.as_json(), "claimed": claimed if math.isfinite(claimed) else None, "holds": found.holds}

    def _epsilon(self, state: Standing, ledger: Record | None, reduction: Reduction) -> Finding:
        found: Mapping[str, Any] = ledger or {}
        value, steps = found.get("epsilon"), int(found.get("steps", 0))
        unmeasured = sentence = ""
        if not steps:
            unmeasured = "the ledger charges no step"
        elif value is None:
            unmeasured = f"epsilon is infinite: {' '.join(found['notes'])}"
        else:
            charged = f"Training charged {steps:,} {'step' if steps == 1 else 'steps'}"
            cost = f"epsilon {_up(value)} at delta {found['delta']:g} for {_NEIGHBOURS[found['relation']]}"
            sentence = f"{charged}, which cost {cost}{_beside(reduction.clean)}."
        return state.finding(
            "epsilon",
            value,
            sentence=sentence,
            n=steps,
            unit="epsilon",
            higher_is_better=False,
            parameters={key: each for key, each in found.items() if key not in ("id", "epsilon")},
            unmeasured=unmeasured,
        )

    def _bound(self, state: Standing, audit: Record | None) -> Finding:
        found: Mapping[str, Any] = audit or {}
        value = found.get("epsilon")
        sentence = ""
        if value is not None:
            against = "nothing" if found["claimed"] is None else f"epsilon {_up(found['claimed'])}"
            least = f"epsilon of at least {_down(value)} at delta {found['delta']:g}"
            sure = f"{100 * found['confidence']:g} % confidence"
            right = f"{found['correct']:,} of {found['guesses']:,} guesses were right"
            sentence = (
                f"An audit of the trainer finds an {least} with {sure} ({right}), where its charges claim {against}."
            )
        return state.finding(
            "audit_epsilon",
            value,
            sentence=sentence,
            n=int(found.get("canaries", 0)),
            unit="epsilon",
            higher_is_better=False,
            parameters={key: each for key, each in found.items() if key not in ("id", "epsilon")},
        )


def _up(value: float) -> str:
    """A claim in three digits, rounded against who makes it."""
    return f"{rounded(value, up=True, digits=3):g}"


def _down(value: float) -> str:
    """What was proved, in three digits, rounded to what surely was."""
    return f"{rounded(value, up=False, digits=3):g}"


def _beside(clean: Mapping[str, Record]) -> str:
    """What the privacy was bought with: accuracy on the unchanged samples, "" where it was not asked for."""
    n = len(clean)
    right = sum(bool(record.get("correct")) for record in clean.values())
    return f"; beside it, the model is right on {share(right / n, n, 'samples', wilson(right, n))}" if n else ""


def _contradiction(audit: Record | None) -> list[Flag]:
    """E470 where the audit proves more than the audited training charged."""
    if audit is None or audit["holds"]:
        return []
    text = (
        f"An audit of the trainer proves an epsilon of at least {_down(audit['epsilon'])} where its charges claim "
        f"{_up(audit['claimed'])}: it does not do what it charges for."
    )
    return [Flag(code="E470", level="unreliable", text=text, families=("dp",))]


def _large_delta(ledger: Record | None) -> list[Flag]:
    """E471 where publishing one sample at random would keep the promise."""
    if ledger is None or ledger["delta"] * ledger["dataset_size"] < 1:
        return []
    text = f"Delta is not below one over the {ledger['dataset_size']:,} samples, so epsilon promises nothing to anyone."
    return [Flag(code="E471", level="warn", text=text, families=("dp",))]
