"""Asking ahead: several points of a sample in one forward, so that a few samples fill it as well as many.

A search that stays where it is until an answer is better knows which points it will ask about as long as none is. So
they go along in the same forward. The answers are then read in their order, up to the first that matters; those behind
it belong to points that the search, having moved, never asks about. They count as idle rows, and what happens to a
sample is what would have happened one point at a time: how many go along changes cost and no outcome, like everything
about pace. A model that counts queries is never asked an idle row, hence never asked ahead.

How many pay depends on how often an answer matters, and on what a forward costs beside its rows. Neither is asked of
a clock, since equal searches must ask equal rows: answers that matter are counted as they come, and the price of a
row is the multiplications that the network was seen to do.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vambrace.ops.knots import may_look
from vambrace.ops.rows import spread
from vambrace.search.slots import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.search.judge import Oracle
    from vambrace.search.rule import Rule
    from vambrace.search.slots import Slots

__all__ = ["Ahead", "group_size"]

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
_NEARLY = 0.9
"""Of the sizes that are worth this share of the best one, the smallest is taken: it leaves fewer rows idle."""
_PATIENCE = 16
"""Steps between two choices of a size."""
_LOOK = 4
"""Steps between two counts of the answers that matter."""
_STEP = {"cpu": 6e7}
_STEP_ELSEWHERE = 1e10
"""What a step costs beside its rows, in the multiplications that a device could do in that time.

Most of it is not arithmetic: after a network each operator finds its code gone from the caches of the processor.
"""
_ELEMENT = 250.0
"""What one element of a point costs outside of the network, in multiplications."""


def group_size(rows: int, rate: float, price: float, most: int) -> int:
    """How many points a sample to ask about at once, so that nearly the most answers count for what a step costs.

    Args:
        rows: samples in the batch.
        rate: chance that an answer matters, so that those behind it are idle.
        price: of a step beside its rows, in rows.
        most: rows a forward may have.

        >>> [group_size(rows, 0.15, 8.0, 128) for rows in (100, 16, 4, 1)]
        [1, 1, 3, 6]
        >>> group_size(1, 0.15, 0.01, 128), group_size(1, 0.0, 50.0, 128)
        (1, 16)
    """
    sizes = [size for size in _SIZES if size == 1 or rows * size <= most]
    useful = [sum((1.0 - rate) ** place for place in range(size)) for size in sizes]
    worth = [count / (rows * size + price) for count, size in zip(useful, sizes, strict=True)]
    return next(size for size, each in zip(sizes, worth, strict=True) if each >= _NEARLY * max(worth))


class Ahead:
    """Evaluates groups of points for one search.

    Attributes:
        points: (m, k, ...), the present point of every row and those that come after it as long as no answer matters;
            None where only the present one is known, as after rows have moved.
        calm: whether the host saw that no answer of the last call was a success or not finite; False: it is not known.

    Args:
        oracle: what is asked.
        rule: one that can look `ahead`.
        most: rows a forward may have.
    """

    def __init__(self, oracle: Oracle, rule: Rule, most: int) -> None:
        self.points: Tensor | None = None
        self.calm = False
        self._oracle = oracle
        self._rule = rule
        self._most = most
        self._price: float | None = None  # of a step in rows; None until the first forward
        self._counts = (0.0, 0.0)  # answers that mattered, and all that were read
        self._fresh: list[Tensor] = []
        self._size, self._rows, self._turn = 1, 0, 0
        self._curious = False  # whether a size above 1 could pay at all
        self._wide: tuple[Goal | None, int, Goal | None] = (None, 0, None)

    def wanted(self, rows: int) -> int:
        """How many points a sample the next forward should have, for so many rows."""
        self._turn += 1
        if self._price and (rows != self._rows or self._turn % _PATIENCE == 0):
            if self._fresh:
                mattered, read = cast("list[int]", torch.stack(self._fresh).sum(dim=0).tolist())
                self._counts = (self._counts[0] / 2 + mattered, self._counts[1] / 2 + read)
                self._fresh = []
            self._rows = rows
            rate = (self._counts[0] + 1.0) / (self._counts[1] + 2.0)
            self._size = group_size(rows, rate, self._price, self._most)
            self._curious = group_size(rows, 0.0, self._price, self._most) > 1
        return self._size

    def shrink(self, rows: Tensor) -> None:
        """Keep only the points of the rows `rows`, in that order."""
        if self.points is not None:
            self.points = self.points.index_select(0, rows)

    @property
    def reach(self) -> int:
        """How many steps the rows may take in the next call of `logits`, at most."""
        return 0 if self.points is None else self.points.shape[1] - 1

    def ask(self, slots: Slots, goal: Goal, pads: int, lag: int | None) -> tuple[Tensor, Tensor]:
        """Logits (m, k) and margins, float64 (m,), at the first point of every row whose answer matters, or its last.

        The rows move on to it: their state, and `slots.step`.

        Args:
            slots: the rows.
            goal: of the rows.
            pads: how many of the rows belong to no sample.
            lag: steps of all live rows that `slots.step` does not hold yet; None: all rows are live, none was refused,
                and each has more steps left than `reach`.
        """
        if self.points is None:
            return self._single(slots, goal, pads)
        return self._group(self.points, slots, goal, pads, lag)

    def _single(self, slots: Slots, goal: Goal, pads: int) -> tuple[Tensor, Tensor]:
        """The same for present points, with a look at how many of them matter now and then."""
        point = slots.state["point"]
        if self._price is None:
            with _Counted() as counted:
                logits = self._oracle.logits(point, pads=pads)
            self._price = _price(counted.operations / max(1, len(point)), point)
        else:
            logits = self._oracle.logits(point, pads=pads)
        margin = goal.margin(logits).double()
        self.calm = _is_calm(logits, margin)
        if self._curious and self._turn % _LOOK == 0:
            self._passed(slots, margin.unsqueeze(1), logits)
        return logits, margin

    def _group(self, points: Tensor, slots: Slots, goal: Goal, pads: int, lag: int | None) -> tuple[Tensor, Tensor]:
        """The same for points (m, s, ...)."""
        rows, size = points.shape[:2]
        points = points.flatten(0, 1)
        logits = self._oracle.logits(points, pads=pads * size)
        margin = self._widened(goal, rows, size, points.device).margin(logits).double()
        self.calm = _is_calm(logits, margin)
        passed = self._passed(slots, margin.view(rows, size), logits)
        free = None
        if lag is not None:
            # Rows that wait stand where they are; so do those that were refused, until that is noted.
            free = (slots.status == LIVE) & ~slots.retry
            passed = torch.minimum(passed, self._rule.steps - slots.step - lag) * free
        slots.step += passed
        place = passed + _firsts(rows, size, points.device)
        point = points.index_select(0, place)
        if free is not None:
            point = torch.where(spread(free, point), point, slots.state["point"])
        slots.state = {**self._rule.passed(slots.state, passed), "point": point}
        return logits.index_select(0, place), margin.index_select(0, place)

    def _passed(self, slots: Slots, margin: Tensor, logits: Tensor) -> Tensor:
        """The place of the first answer of each row (m, k) that matters, or of its last: int64 (m,)."""
        matters = self._rule.moves(slots.state, margin)
        if not self.calm:  # a success matters, and so do logits that are not finite
            finite = logits.abs().amax(dim=1) < math.inf
            matters |= ~((margin <= 0) & finite.view(margin.shape))
        found = matters.any(dim=1).sum() if self._turn % _LOOK == 0 else None
        matters.select(1, -1).fill_(True)
        first = matters.max(dim=1).indices
        if found is not None:
            self._fresh.append(torch.stack((found, first.sum() + first.shape[0])))
        return first

    def _widened(self, goal: Goal, rows: int, size: int, device: torch.device) -> Goal:
        """The goal of every point of a group."""
        known, width, wide = self._wide
        if known is not goal or width != size or wide is None:
            wide = goal.take(torch.arange(rows, device=device).repeat_interleave(size))
            self._wide = (goal, size, wide)
        return wide


def _is_calm(logits: Tensor, margin: Tensor) -> bool:
    """Whether the host sees, where a look is free, that no answer is a success and all are finite."""
    return may_look(margin) and math.isfinite(logits.sum().item()) and margin.amax().item() <= 0


@functools.lru_cache(maxsize=64)
def _firsts(rows: int, size: int, device: torch.device) -> Tensor:
    """Where the points of each row begin in those of all."""
    return torch.arange(rows, device=device) * size


class _Counted(TorchFunctionMode):
    """Counts the multiplications of convolutions and matrix products in the calls inside.

    Not by dispatch, whose first use imports the compiler and takes a second. What is not seen makes rows look cheaper.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0.0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the function returns
        found = func(*args, **(kwargs or {}))
        if len(args) > 1 and func in _CONVOLUTIONS:
            self.operations += found.numel() * math.prod(args[1].shape[1:])
        elif len(args) > 1 and func in _PRODUCTS:
            self.operations += found.numel() * args[0].shape[-1]
        return found


_CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d}
_PRODUCTS = {functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.bmm}


def _price(operations: float, points: Tensor) -> float:
    """A step in rows that cost so many multiplications each; none where nothing was seen of what the model does."""
    if not operations:
        return 0.0
    step = _STEP.get(points.device.type, _STEP_ELSEWHERE)
    return step / (operations + _ELEMENT * math.prod(points.shape[1:]))
