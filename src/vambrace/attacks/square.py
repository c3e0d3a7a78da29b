"""The Square attack: random search with windows, which asks for scores only.

    >>> from vambrace.attacks import Square
    >>> Square(norm="linf", eps=8 / 255).queries
    5000

It starts from random stripes (linf) or a chequered pattern of hills and valleys (l2, l1) and proposes one change at a
time, inside a window that shrinks while the search goes on; a change stays where it raises the goal's margin. linf: the
window goes to one end of the ball, a side drawn for each channel, and to the other ends where it is there already, so
that no query is spent on a point that is known. l2 and l1: the window gets another hill and valley,
paid for by what lies in a second window, which is given up; what the box cuts off is made up for inside of the window,
so that proposals are nearly as long as they may be. Every sample draws windows and sides of its own, and
windows lie anywhere, also at the last row and column, which the authors' code never reaches.

Where few samples are left and the model does not count queries, several proposals of a sample go along in one forward.
They are read in order up to the first that is better, so that what is found, and the number of queries, is as if they
had been asked one by one (`vambrace.search.ahead`).

Inputs that are no images are lines of features, and windows runs of them. When not: where gradients are to be had,
they find more for less; what Square adds is that it cannot be misled by them.

References: Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1 to 3; for l1 Croce & Hein 2021, arXiv 2103.01208,
section 4, here with the box kept by clipping.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch

from vambrace.attacks.ball import Ball
from vambrace.attacks.fixed import FixedRadius, require_option
from vambrace.core.access import Access
from vambrace.core.options import Norm, Ratio
from vambrace.ops import draws
from vambrace.ops.norms import lengths
from vambrace.ops.projections import inner_box
from vambrace.ops.rows import assign_each, spread
from vambrace.ops.windows import bump, frame, move_bumps, put_ends, square_side
from vambrace.search.rule import Plain

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.rng import Streams
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["Square", "WindowSearch", "window_sides"]

_MARKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Proposals, of ten thousand, after which the share that a window covers is halved."""
_TILES = 5
_BLOCK = 128
"""Proposals that are drawn at once where the host may ask which samples need them; what is drawn is the same."""


def window_sides(steps: int, share: float, *, norm: Norm, height: int, width: int) -> tuple[int, ...]:
    """The side of the window of each proposal: `steps` of them, and the last one empty.

    `share` of the image is covered at first; it is halved at marks that are scaled from the ten thousand proposals of
    the paper. Windows of l2 and l1 have an odd side of at least 3. The last proposal changes nothing, so that a search
    ends at its best point.

        >>> window_sides(10, 0.8, norm="linf", height=28, width=28)
        (6, 4, 3, 3, 2, 2, 2, 2, 1, 0)
    """
    sides: list[int] = []
    for proposal in range(1, steps):
        done = proposal * 10_000 // (steps + 1)
        side = square_side(share / 2 ** sum(mark < done for mark in _MARKS), height, width)
        if norm != "linf":
            side = max(side, 3) | 1
        sides.append(min(side, width if height == 1 else min(height, width)))
    return (*sides, 0) if steps else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSearch(Plain):
    """The rule of Square.

    Attributes:
        ball: where points may be.
        steps: proposals of one restart, an empty one at the end.
        restarts: starts a sample gets at most.
        share: of the image, covered by the first windows.
    """

    gradient: ClassVar[bool] = False
    ahead: ClassVar[bool] = True

    ball: Ball
    steps: int
    restarts: int
    share: float

    @property
    def norm(self) -> Norm:
        return self.ball.norm

    @property
    def eps(self) -> float:
        return self.ball.eps

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        """The ball as flat channels; the box as one value a sample, where its ends are numbers."""
        form = _flat(origin.inputs)
        if self.norm != "linf" and (ends := inner_box(origin.bounds, origin.inputs))[0].dim() == 0:
            low, high = (end.expand(form[0], 1, 1).clone() for end in ends)
            return {"centre": origin.inputs.reshape(form), "low": low, "high": high, "ids": origin.ids}
        ends = {name: tensor.reshape(form) for name, tensor in self.ball.anchor(origin).items()}
        return {**ends, "ids": origin.ids}

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        point = self._pattern(origin, restart)
        if origin.start is not None:
            point = torch.where(spread(restart == 0, point), origin.start, point)
        here = self.ball.project(anchor, point.reshape(_flat(point)))
        time, width = restart * self.steps, (2 if self.norm == "linf" else 3) + here.shape[1]
        return {
            "point": here.view(point.shape).clone(),
            "here": here,
            "margin": torch.full(restart.shape, float("-inf"), dtype=torch.float64, device=point.device),
            "time": time,
            "drawn": time.new_zeros((len(time), _BLOCK if time.device.type == "cpu" else 0, width)),
            "since": time - _BLOCK,
        }

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        raise NotImplementedError("random search takes no gradients")

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Keep the point just evaluated if it is better, and propose what comes next."""
        point, here = state["point"], state["here"]
        margin, best = answer.margin, state["margin"]
        assign_each(margin > best, (here, point.view(here.shape)), (best, margin))
        found = self._proposed(anchor, state, answer.rng, tuple(point.shape[1:]), answer.ahead)
        after = {
            **state,
            "point": found.view(point.shape) if answer.ahead == 1 else point,
            "time": state["time"].add_(1),
        }
        if answer.ahead > 1:
            after["ahead"] = found.view(-1, answer.ahead, *point.shape[1:])
            after["point"] = after["ahead"].select(1, 0)
        return after

    def moves(self, state: Tensors, margin: Tensor) -> Tensor:
        """Those that are better than the best point's."""
        return margin > state["margin"].unsqueeze(1)

    def passed(self, state: Tensors, count: Tensor) -> dict[str, Tensor]:
        """Only the number of proposals is another one."""
        return {**state, "time": state["time"].add_(count)}

    def _proposed(self, anchor: Tensors, state: Tensors, rng: Streams, shape: tuple[int, ...], count: int) -> Tensor:
        """The points, as flat channels (m * count, c, l), with one window more: that of each of the next proposals."""
        drawn, width = self._drawn(anchor, state, rng, shape, count), frame(shape)[2]
        here, low, high = state["here"], anchor["low"], anchor["high"]
        windows = 1 if self.norm == "linf" else 2
        side, first, marks = (
            drawn.select(1, 0),
            drawn.narrow(1, 1, windows),
            drawn.narrow(1, 1 + windows, here.shape[1]),
        )
        if self.norm == "linf":
            return put_ends(here, low, high, first=first, side=side, upper=marks > 0, width=width)
        return move_bumps(
            here,
            anchor["centre"],
            low,
            high,
            first=first,
            side=side,
            kinds=marks,
            width=width,
            eps=self.eps,
            power=1 if self.norm == "l1" else 2,
        )

    def _drawn(self, anchor: Tensors, state: Tensors, rng: Streams, shape: tuple[int, ...], count: int) -> Tensor:
        """Windows and colours of the next proposals, int64 (m * count, p), as `_windows` draws them."""
        ids, time, drawn, since = anchor["ids"], state["time"], state["drawn"], state["since"]
        rows, block, width = drawn.shape
        if count > block or time.device.type != "cpu":  # elsewhere, asking which are due would make the host wait
            return self._draw(rng, ids, time, shape, count)
        place = time - since
        places = cast("list[int]", place.tolist())
        if max(places) + count > block:  # all at once: a draw has its price, for however few
            drawn.copy_(self._draw(rng, ids, time, shape, block).view(drawn.shape))
            since.copy_(time)
            place.zero_()
        wanted = place.unsqueeze(1) + _lines(rows, block, count)
        return drawn.view(-1, width).index_select(0, wanted.view(-1))

    def _draw(self, rng: Streams, ids: Tensor, time: Tensor, shape: tuple[int, ...], count: int) -> Tensor:
        """`_windows` of proposals number `time` and those after it, (m * count, p)."""
        times = time.unsqueeze(1) + torch.arange(count, device=time.device)
        return self._windows(rng, ids.repeat_interleave(count), times.flatten(), shape)

    def _windows(self, rng: Streams, ids: Tensor, time: Tensor, shape: tuple[int, ...]) -> Tensor:
        """What is drawn for proposals number `time`, counted through all restarts: functions of id and time.

        The side of the window and the place of its first element. linf: the colour of each channel, -1 or 1; else the
        first place of the second window, and the kind of bump of each channel, as `move_bumps` takes it.
        """
        channels, height, width = frame(shape)
        side = _sides(self, height, width, ids.device)[time % self.steps]
        count = 2 if self.norm == "linf" else 5
        share = draws.uniform(rng.child("window"), ids, step=time, shape=(count,), dtype=torch.float64)
        # How many places there are for the first row and column; as many for an empty window as for the smallest.
        room = torch.stack((height - side, width - side), dim=1).clamp_(min=0) + (side > 0).unsqueeze(1)
        colour = draws.signs(rng.child("colour"), ids, step=time, shape=(channels,), dtype=torch.int64)
        corners = (share[:, : count // 2 * 2].view(len(share), -1, 2) * room.unsqueeze(1)).long()
        first = corners[:, :, 0] * width + corners[:, :, 1]
        marks = colour if count == 2 else (colour > 0) + 2 * (share[:, 4:] < 0.5)
        return torch.cat((side.unsqueeze(1), first, marks), dim=1)

    def _pattern(self, origin: Origin, restart: Tensor) -> Tensor:
        """First points: stripes (linf), or tiles of bumps that together are eps long (l2, l1)."""
        inputs, stream = origin.inputs, origin.rng.child("start")
        channels, height, width = frame(tuple(inputs.shape[1:]))
        if self.norm == "linf":
            drawn = draws.signs(stream, origin.ids, step=restart, shape=(channels, 1, width), dtype=inputs.dtype)
            return inputs + (drawn * self.eps).expand(-1, -1, height, -1).reshape(inputs.shape)
        rows, columns = min(_TILES, height), min(_TILES, width)
        tall, wide = height // rows, width // columns
        signs = draws.signs(stream, origin.ids, step=restart, shape=(channels, rows, columns), dtype=inputs.dtype)
        upright = draws.signs(stream.child("upright"), origin.ids, step=restart, shape=(rows, columns)) > 0
        tiles = _tiles(tall, wide, 1 if self.norm == "l1" else 2, inputs.dtype, inputs.device)[upright.long()]
        # (m, c, rows, columns, tall, wide), laid side by side and put into the middle of the image.
        laid = (signs[..., None, None] * tiles.unsqueeze(1)).transpose(3, 4)
        laid = laid.reshape(-1, channels, rows * tall, columns * wide)
        change = torch.zeros(len(inputs), channels, height, width, dtype=inputs.dtype, device=inputs.device)
        top, left = (height - rows * tall) // 2, (width - columns * wide) // 2
        change[:, :, top : top + rows * tall, left : left + columns * wide] = laid
        size = lengths(change, self.norm).clamp_(min=torch.finfo(inputs.dtype).tiny)
        return inputs + (change * spread(self.eps / size, change)).reshape(inputs.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Square(FixedRadius):
    """Random search with windows, which asks for scores only.

    A sample that is never broken costs `queries` forwards, or as many whole ones as its restarts can share.

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: radius in the units of the inputs.
        queries: what a sample is asked in the search at most, all restarts together; verifications come on top.
        restarts: starts at most, each with an equal part of the queries; a sample stops at its first success.
        share: of the image that the first windows cover; it shrinks as the queries are spent.
    """

    name: ClassVar[str] = "square"
    needs: ClassVar[Access] = Access.SCORES
    norms: ClassVar[tuple[Norm, ...]] = ("l1", "l2", "linf")
    queries: int = 5000
    restarts: int = 1
    share: Ratio = 0.8

    def __post_init__(self) -> None:
        FixedRadius.__post_init__(self)
        require_option(self.restarts >= 1, "restarts", self.restarts, "1 or more")
        least = 2 * self.restarts
        require_option(self.queries >= least, "queries", self.queries, f"{least} or more, two for each restart")
        require_option(0 < self.share <= 1, "share", self.share, "a share, more than 0, at most 1")

    def rule(self) -> WindowSearch:
        """One proposal a query."""
        return WindowSearch(
            ball=Ball(norm=self.norm, eps=self.eps),
            steps=self.queries // self.restarts - 1 if self.eps else 0,
            restarts=self.restarts if self.eps else 1,
            share=self.share,
        )


def _flat(like: Tensor) -> tuple[int, int, int]:
    """The form of samples (m, ...) as flat channels."""
    channels, height, width = frame(tuple(like.shape[1:]))
    return (len(like), channels, height * width)


@functools.lru_cache(maxsize=64)
def _lines(rows: int, block: int, count: int) -> Tensor:
    """The places of the first `count` of each row's `block` in those of all rows: int64 (rows, count)."""
    return torch.arange(rows).unsqueeze(1) * block + torch.arange(count)


@functools.lru_cache(maxsize=32)
def _sides(rule: WindowSearch, height: int, width: int, device: torch.device) -> Tensor:
    found = window_sides(rule.steps, rule.share, norm=rule.norm, height=height, width=width)
    return torch.tensor(found or (0,), device=device)


@functools.lru_cache(maxsize=16)
def _tiles(tall: int, wide: int, power: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bump of a tile, lying and upright: (2, tall, wide)."""
    nought = torch.zeros(2, dtype=torch.int64, device=device)
    upright = torch.arange(2, device=device) > 0
    return bump(nought, nought + max(tall, wide), upright, height=tall, width=wide, power=power, dtype=dtype)
