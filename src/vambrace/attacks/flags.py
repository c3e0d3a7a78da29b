"""What an outcome says about itself: reasons not to read "nothing found" as "nothing there".

    flags(PGD(eps=8/255)(model, inputs, labels))

The same that `vambrace assess` puts on its findings, for whoever calls an attack directly. *Unreliable*:

- E464: for too many survivors (a share whose 95 % interval lies above 1 %) the input gradient was zero, or no number,
  at half of their steps or more.
- E410: any logit seen was NaN or infinite.
- E467: black-box attacks broke too many (a share whose 95 % interval lies above 1 %) of those that attacks with
  gradients had left. Those should have seen what these saw: the model's gradients mislead.

*Warn*, E468: they broke some, but fewer.

    >>> blind_flag(13, 300) is None, blind_flag(4, 300) is None
    (False, True)
    >>> black_box_flag(28, 829).level, black_box_flag(13, 868).level, black_box_flag(0, 868)
    ('unreliable', 'warn', None)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.core.findings import Flag
from vambrace.core.intervals import wilson

if TYPE_CHECKING:
    from vambrace.search.outcome import Attacked

__all__ = ["black_box_flag", "blind_flag", "flags", "not_finite_flag"]

_BLIND_SHARE = 0.01
_BLACK_BOX_SHARE = 0.01
_FAMILY = ("adversarial",)


def flags(outcome: Attacked) -> tuple[Flag, ...]:
    """The flags of an outcome; none is good news about the measurement, not about the model."""
    survivors = ~outcome.success & outcome.finite
    raised = (
        blind_flag(int((survivors & outcome.blind).sum()), int(survivors.sum())),
        not_finite_flag(int((~outcome.finite).sum()), len(outcome.finite)),
        black_box_flag(outcome.beyond, outcome.beyond + outcome.left),
    )
    return tuple(flag for flag in raised if flag is not None)


def blind_flag(blind: int, survivors: int) -> Flag | None:
    """E464, when more of the survivors had no gradient to go by than 1 of 100 can explain.

    Args:
        blind: survivors whose input gradient was zero at half of the steps or more.
        survivors: samples that the attack did not break.
    """
    interval = wilson(blind, survivors)
    if interval is None or interval.low <= _BLIND_SHARE:
        return None
    text = f"For {blind:,} of {survivors:,} samples that the attack did not break, the input gradient was zero."
    return Flag(code="E464", level="unreliable", text=text, families=_FAMILY)


def not_finite_flag(broken: int, samples: int) -> Flag | None:
    """E410, when any sample met logits that are NaN or infinite: it is unmeasured, never robust."""
    if not broken:
        return None
    text = f"For {broken:,} of {samples:,} samples the model gave NaN or infinite logits; they are not measured."
    return Flag(code="E410", level="unreliable", text=text, families=_FAMILY)


def black_box_flag(broken: int, survivors: int) -> Flag | None:
    """E467 or E468, when black-box attacks broke what attacks with gradients had left.

    Args:
        broken: samples that only black-box attacks broke.
        survivors: samples that attacks with gradients had left.
    """
    interval = wilson(broken, survivors)
    if interval is None or not broken:
        return None
    misleading = interval.low > _BLACK_BOX_SHARE
    text = f"Without gradients {broken:,} of {survivors:,} samples broke that had survived all attacks with gradients"
    if misleading:
        text += ": gradients mislead here, and attacks that follow them say too little."
        return Flag(code="E467", level="unreliable", text=text, families=_FAMILY)
    return Flag(code="E468", level="warn", text=f"{text}.", families=_FAMILY)
