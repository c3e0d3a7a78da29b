"""What no check of a plan looks at, as lines for "not tested": the kinds of attack and of question that are missing.

A profile says itself what it leaves out. A plan that names its own checks says nothing, and a reader of its report
would not know what else there is. That no attack works without gradients is said of both, because such an attack is
what shows gradients that mislead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.core.access import Access
from vambrace.core.findings import Left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assess.plan import PlannedCheck

__all__ = ["uncovered"]

_NORMS = ("linf", "l2", "l1", "l0")
_FAMILIES = (
    ("adversarial", "attacks", "no check of the plan changes inputs on purpose"),
    ("natural", "everyday changes", "no check of the plan adds noise or blur, turns or compresses"),
    ("membership", "privacy", "no check of the plan asks who was in the training data"),
)


def uncovered(checks: Sequence[PlannedCheck], *, access: Access, named: bool) -> list[Left]:
    """What is not covered, the largest gap first.

    Args:
        checks: of the resolved plan.
        access: what the model gives; what needs more is said elsewhere.
        named: whether the plan named its checks itself.
    """
    kinds = {planned.check.kind for planned in checks}
    left = [Left(name=name, reason=why) for kind, name, why in _FAMILIES if named and kind not in kinds]
    attacks: list[Any] = [getattr(planned.check, "attack", None) for planned in checks]
    attacks = [attack for attack in attacks if attack is not None]
    if not attacks:
        return left
    if access >= Access.GRADIENTS and not any(map(_asks_only, attacks)):
        why = "every attack follows gradients; only one without shows a model whose gradients mislead"
        left.append(Left(name="black-box attacks", reason=why))
    if named:
        norms = {getattr(attack, "norm", "") for attack in attacks}
        others = [norm for norm in _NORMS if norm not in norms]
        if others:
            there = " and ".join(norm for norm in _NORMS if norm in norms) or "a measure of its own"
            left.append(Left(name=f"attacks in {', '.join(others)}", reason=f"the plan attacks in {there} only"))
        if all(_starts(attack) == 1 for attack in attacks):
            left.append(Left(name="more starts", reason="every attack begins once a sample; further starts find more"))
    return left


def _asks_only(attack: object) -> bool:
    """Whether the attack, or a part of it such as a stage of an ensemble, does without gradients."""
    if getattr(attack, "needs", Access.GRADIENTS) < Access.GRADIENTS or getattr(attack, "black_box", False):
        return True
    stages = getattr(attack, "stages", None)
    if not callable(stages):
        return False
    found: Any = stages(10)
    return any(_asks_only(each) for _, each in found)


def _starts(attack: object) -> int:
    """How often the attack begins; more than once for an ensemble, and for one that spends a budget as it sees fit."""
    if callable(getattr(attack, "stages", None)) or hasattr(attack, "budget"):
        return 2
    restarts: Any = getattr(attack, "restarts", 1)
    return int(restarts)
