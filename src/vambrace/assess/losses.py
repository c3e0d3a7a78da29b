"""How much worse a number became since a baseline run, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vambrace.core import canonical, outcomes
from vambrace.core.findings import Interval
from vambrace.core.intervals import bonett_price, mover

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.core.findings import Finding

__all__ = ["Loss", "loss_between"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How much worse a number became.

    Attributes:
        value: > 0 where it became worse, in the unit of the finding.
        interval: 95 %, or None where the numbers have none.
        paired: whether both were measured on the same samples, and compared sample by sample.
    """

    value: float
    interval: Interval | None
    paired: bool


def loss_between(now: Finding, before: Finding, *, same_samples: bool) -> Loss | str:
    """The loss from `before` to `now`, or why the two cannot be compared.

    Args:
        now: a measured finding.
        before: the measured finding of the same name in the baseline.
        same_samples: whether both runs measured the same samples: equal hash of their data.
    """
    if (now.unit, now.higher_is_better) != (before.unit, before.higher_is_better):
        return f"the baseline measured it in {before.unit}, this run in {now.unit}"
    if different := _different(now.parameters, before.parameters):
        return f"the baseline measured it with other options: {different}"
    assert now.value is not None and before.value is not None  # noqa: PT018, S101  both are measured
    value = before.value - now.value if now.higher_is_better else now.value - before.value
    pairs = _pairs(now, before) if same_samples else None
    if pairs is not None:
        fell = sum(was and not still for still, was in pairs)
        rose = sum(still and not was for still, was in pairs)
        worse, better = (fell, rose) if now.higher_is_better else (rose, fell)
        return Loss(value=value, interval=bonett_price(worse, better, len(pairs)), paired=True)
    if now.interval is None or before.interval is None:
        return Loss(value=value, interval=None, paired=False)
    ordered = (before, now) if now.higher_is_better else (now, before)
    one, two = ordered
    assert one.value is not None and two.value is not None  # noqa: PT018, S101  as above
    assert one.interval is not None and two.interval is not None  # noqa: PT018, S101  as above
    return Loss(value=value, interval=mover(one.value, one.interval, two.value, two.interval), paired=False)


def _pairs(now: Finding, before: Finding) -> Sequence[tuple[bool, bool]] | None:
    """Outcomes of the same samples in both runs, or None where they are not there or do not fit the numbers."""
    ours, theirs = (outcomes.unpack(each.series.get(outcomes.KEY)) for each in (now, before))
    if ours is None or theirs is None or not 0 < len(ours) == len(theirs):
        return None
    for found, finding in ((ours, now), (theirs, before)):
        if finding.value is None or abs(sum(found) / len(found) - finding.value) > 1e-9:
            return None
    return list(zip(ours, theirs, strict=True))


def _different(now: Mapping[str, object], before: Mapping[str, object]) -> str:
    """The first options that differ, in words; "" where none does."""
    names = [name for name in sorted({*now, *before}) if _bytes(now.get(name)) != _bytes(before.get(name))]
    return ", ".join(f"{name} {before.get(name)!r} then, {now.get(name)!r} now" for name in names[:2])


def _bytes(value: object) -> bytes:
    return canonical.dumps(value)
