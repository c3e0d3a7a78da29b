"""The gradients that one step takes: at one or several views of every row's point, along one or several slopes.

At points of half precision they are taken and added up in single, and handed over in half: float16 ends at 65504 and
has nothing below 6e-8, and what a gradient is worth beside others lies far apart from how large it is. Where its
largest element lies near these ends, a sample's gradients come divided by one power of two.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import torch

from vambrace.ops.norms import peaks
from vambrace.ops.rows import spread
from vambrace.search.rule import Answer

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.rng import Streams
    from vambrace.search.judge import Oracle
    from vambrace.search.rule import Rule
    from vambrace.search.slots import Slots

__all__ = ["Views", "leaf"]

_SMALL, _LARGE = 2.0**-10, 2.0**12
"""Between these the largest element of a gradient in float16 is left as it is."""
_FULL, _MOST = torch.finfo(torch.float16).max, 126.0
"""The largest number of float16, and the largest power of two of float32 that leaves room for what it multiplies."""


class Views:
    """Takes gradients for a rule.

    Attributes:
        forwards: rows that a step asks forward for each sample, that which judges included.
        backwards: rows that a step asks backward for each sample.

    Args:
        oracle: what is asked.
        rule: whose views and slopes.
        rng: the stream of the search.
        watching: whether a look at values is free; elsewhere the host would wait for the device.
    """

    def __init__(self, oracle: Oracle, rule: Rule, rng: Streams, *, watching: bool) -> None:
        self._oracle = oracle
        self._rule = rule
        self._rng = rng
        self._watching = watching
        unseen = rule.gradient and not rule.sighted
        self.forwards = rule.views + unseen if rule.gradient else 1
        self.backwards = rule.views * rule.slopes if rule.gradient else 0

    def answer(
        self,
        slots: Slots,
        goal: Goal,
        logits: Tensor,
        point: Tensor,
        moving: Tensor,
        pads: int,
        *,
        ahead: int = 1,
        margin: Tensor | None = None,
    ) -> Answer:
        """What the rule gets to step with; counts steps without any gradient in `slots.zeros`.

        Args:
            slots: the rows.
            goal: of the rows.
            logits: (m, k) at the points; with the graph of `point` where the rule is sighted.
            point: (m, ...).
            moving: bool (m,), the rows that go on.
            pads: how many of the rows belong to no sample.
            ahead: how many points are wanted.
            margin: float64 (m,), where it is known already.
        """
        rule, known = self._rule, logits.detach() if logits.requires_grad else logits
        first: Tensor | None = None
        others: Tensor | None = None
        for view in range(rule.views if rule.gradient else 0):
            if view or not rule.sighted:
                logits, point = self._look(slots, view, pads)
            found = self._pull(rule.slope(slots.anchor, slots.state, logits.detach(), goal), logits, point, pads)
            if not self._watching or not _is_plain(found, rule.slopes):
                found = found.nan_to_num(nan=0.0)
                if view == 0:
                    stack = found if rule.slopes > 1 else found[None]
                    slots.zeros += (peaks(stack.transpose(0, 1)) == 0) & moving
            if first is None:
                first = found
            elif view < rule.leading:
                first = first + found
            else:
                others = found if others is None else others + found
        first, others = _narrowed(first, others, slots.state["point"].dtype, rule.slopes)
        return Answer(known, goal, first, others, self._rng, ahead, margin)

    def _look(self, slots: Slots, view: int, pads: int) -> tuple[Tensor, Tensor]:
        """Logits at a view of every row, and the points that they depend on."""
        with torch.enable_grad():
            point = leaf(slots.state["point"], True)
            seen = self._rule.look(slots.anchor, slots.state, point, view, self._rng)
            return self._oracle.logits(seen, pads=pads), point

    def _pull(self, slope: Tensor, logits: Tensor, point: Tensor, pads: int) -> Tensor:
        """The gradient (m, ...) along a slope (m, k), or those (s, m, ...) along s of them."""
        if self._rule.slopes == 1:
            return self._oracle.pull_back(logits, slope, point, pads=pads)
        last = len(slope) - 1
        each = [
            self._oracle.pull_back(logits, row, point, pads=pads, keep=place < last) for place, row in enumerate(slope)
        ]
        return torch.stack(each)


def leaf(points: Tensor, graded: bool) -> Tensor:
    """Points (m, ...) apart from any graph, and where they are `graded` a leaf of a new one, in float32 or wider."""
    points = points.detach()
    return points.to(torch.promote_types(points.dtype, torch.float32)).requires_grad_() if graded else points


def _narrowed(
    first: Tensor | None, others: Tensor | None, dtype: torch.dtype, slopes: int
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients in the dtype of the points, divided by one power of two a sample where float16 could not hold them."""
    if first is None or first.dtype == dtype:
        return first, others
    if dtype == torch.float16:
        peak = peaks(first if slopes == 1 else first.transpose(0, 1))
        fits = (peak >= _SMALL) & (peak <= _LARGE)
        by = torch.where(fits | (peak == 0), 1.0, torch.exp2((-peak.log2().floor()).clamp_(max=_MOST)))
        by = spread(by, first if slopes == 1 else first[0])
        first = first * by
        others = None if others is None else (others * by).clamp(-_FULL, _FULL)
    return first.to(dtype), None if others is None else others.to(dtype)


def _is_plain(gradient: Tensor, slopes: int) -> bool:
    """Whether every sample's gradient (m, ...) is surely finite and not zero; where one product cannot tell, False.

    A sum that weighs the elements differently is zero for a zero gradient and no number for one that has any; the
    weights keep opposite elements from cancelling. Divided by itself such a sum is 1, but no number where it is 0 or
    infinite.
    """
    if slopes > 1:
        return False
    rows = gradient.flatten(1)
    sums = rows @ _weights(rows.shape[1], rows.dtype, rows.device)
    return math.isfinite(sums.div_(sums).sum().item())


@functools.lru_cache(maxsize=8)
def _weights(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.linspace(0.5, 1.5, length, dtype=dtype, device=device)
