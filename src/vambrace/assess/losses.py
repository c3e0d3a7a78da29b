"""How much worse a number became since a baseline run, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vambrace.core import canonical, outcomes
from vambrace.core.findings import Interval
from vambrace.core.intervals import bonett_price, mover

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vambrace.assess.sampled import Sampled
    from vambrace.core.findings import Finding

__all__ = ["Loss", "loss_between"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How much worse a number became.

    Attributes:
        value: > 0 where it became worse, in the unit of the finding.
        interval: 95 %, or None where the numbers have none.
        paired: how many samples of both runs were compared one by one; 0 where none could be.
        same: whether both numbers are of the same samples, all of them.
    """

    value: float
    interval: Interval | None
    paired: int
    same: bool


def loss_between(now: Finding, before: Finding, *, ours: Sampled | None, theirs: Sampled | None) -> Loss | str:
    """The loss from `before` to `now`, or why the two cannot be compared.

    Where both say which samples were right, it is the loss on the samples that both have, pair by pair; else that of
    the two numbers as they stand.

    Args:
        now: a measured finding.
        before: the measured finding of the same name in the baseline.
        ours: the samples of `now`; None where they are not known.
        theirs: those of `before`.
    """
    if (now.unit, now.higher_is_better) != (before.unit, before.higher_is_better):
        return f"the baseline measured it in {before.unit}, this run in {now.unit}"
    if different := _different(now.parameters, before.parameters):
        return f"the baseline measured it with other options: {different}"
    assert now.value is not None and before.value is not None  # noqa: PT018, S101  both are measured
    same = ours is not None and ours == theirs
    pairs = _pairs(now, before, ours, theirs)
    if pairs:
        fell = sum(was and not still for still, was in pairs)
        rose = sum(still and not was for still, was in pairs)
        worse, better = (fell, rose) if now.higher_is_better else (rose, fell)
        interval = bonett_price(worse, better, len(pairs))
        return Loss(value=(worse - better) / len(pairs), interval=interval, paired=len(pairs), same=same)
    value = before.value - now.value if now.higher_is_better else now.value - before.value
    if now.interval is None or before.interval is None:
        return Loss(value=value, interval=None, paired=0, same=same)
    one, two = (before, now) if now.higher_is_better else (now, before)
    assert one.value is not None and two.value is not None  # noqa: PT018, S101  as above
    assert one.interval is not None and two.interval is not None  # noqa: PT018, S101  as above
    return Loss(value=value, interval=mover(one.value, one.interval, two.value, two.interval), paired=0, same=same)


def _pairs(now: Finding, before: Finding, ours: Sampled | None, theirs: Sampled | None) -> Sequence[tuple[bool, bool]]:
    """Outcomes now and before of the samples that both measured; empty where they are not there or fit no number."""
    if ours is None or theirs is None or ours.sources != theirs.sources:
        return ()
    still, was = _by_place(now, ours), _by_place(before, theirs)
    return [(still[place], was[place]) for place in sorted(still.keys() & was.keys())]


def _by_place(finding: Finding, samples: Sampled) -> dict[int, bool]:
    """Place of each measured sample among all of its data, to whether the model was right about it."""
    found = outcomes.unpack(finding.series.get(outcomes.KEY))
    places = [place for mask in samples.chosen.values() for place, taken in enumerate(mask) if taken]
    if not found or len(samples.chosen) != 1 or len(found) != len(places):
        return {}
    if finding.value is None or abs(sum(found) / len(found) - finding.value) > 1e-9:
        return {}
    return dict(zip(places, found, strict=True))


def _different(now: Mapping[str, object], before: Mapping[str, object]) -> str:
    """The first options that differ, in words; "" where none does."""
    names = [name for name in sorted({*now, *before}) if _bytes(now.get(name)) != _bytes(before.get(name))]
    return ", ".join(f"{name} {before.get(name)!r} then, {now.get(name)!r} now" for name in names[:2])


def _bytes(value: object) -> bytes:
    return canonical.dumps(value)
