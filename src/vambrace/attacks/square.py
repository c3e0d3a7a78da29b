"""The Square attack: random search with windows, which asks for scores only.

    >>> from vambrace.attacks import Square
    >>> Square(norm="linf", eps=8 / 255).queries
    5000

It starts from random stripes (linf) or a chequered pattern of hills and valleys (l2, l1) and proposes one change at a
time, inside a window that shrinks while the search goes on; a change stays where it raises the goal's margin. linf: the
window goes to one end of the ball, a side drawn for each channel. l2 and l1: the window gets another hill and valley,
paid for by what lies in a second window, which is given up. Every sample draws windows and sides of its own.

Inputs that are no images are lines of features, and windows runs of them. When not: where gradients are to be had,
they find more for less; what Square adds is that it cannot be misled by them.

References: Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1 to 3; for l1 Croce & Hein 2021, arXiv 2103.01208,
section 4, here with the box kept by clipping and the length that clipping frees spent by the next windows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from vambrace.attacks.ball import Ball
from vambrace.attacks.fixed import FixedRadius, require_option
from vambrace.core.access import Access
from vambrace.core.options import Norm, Ratio
from vambrace.ops import draws
from vambrace.ops.norms import lengths
from vambrace.ops.rows import assign, spread
from vambrace.ops.windows import bump, frame, spans, square_side
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
_BLOCK = 64
"""Proposals that are drawn at once where the host may ask which samples need them; what is drawn is the same."""


def window_sides(steps: int, share: float, *, norm: Norm, height: int, width: int) -> tuple[int, ...]:
    """The side of the window of each proposal: `steps` of them, and the last one empty.

    `share` of the image is covered at first; it is halved at marks that are scaled from the ten thousand proposals of
    the paper. Windows of l2 and l1 have an odd side of at least 3. The last proposal changes nothing, so that a search
    ends at its best point.

        >>> window_sides(10, 0.8, norm="linf", height=28, width=28)
        (9, 6, 6, 4, 4, 3, 3, 2, 2, 0)
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
        return {**self.ball.anchor(origin), "ids": origin.ids}

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        point = self._pattern(origin, restart)
        if origin.start is not None:
            point = torch.where(spread(restart == 0, point), origin.start, point)
        point = self.ball.project(anchor, point)
        rows, (channels, *_) = len(restart), frame(tuple(point.shape[1:]))
        return {
            "point": point,
            "here": point.clone(),
            "margin": torch.full(restart.shape, float("-inf"), dtype=torch.float64, device=point.device),
            "time": torch.zeros_like(restart),
            "first": restart * self.steps,
            "places": restart.new_zeros((rows, _BLOCK, 3 if self.norm == "linf" else 6)),
            "colours": torch.zeros((rows, _BLOCK, channels), dtype=torch.bool, device=point.device),
        }

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        raise NotImplementedError("random search takes no gradients")

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        """Keep the point just evaluated if it is better, and propose the next one."""
        point, here, time = state["point"], state["here"], state["time"]
        margin = answer.goal.margin(answer.logits)
        better = margin > state["margin"]
        assign(here, better, point)
        places, colours = self._drawn(anchor, state, answer.rng, tuple(point.shape[1:]))
        propose = self._to_the_ends if self.norm == "linf" else self._moved
        return {
            **state,
            "point": propose(anchor, here, places, colours),
            "margin": torch.where(better, margin, state["margin"]),
            "time": time + 1,
        }

    def _to_the_ends(self, anchor: Tensors, here: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """linf: each sample's window at the upper or the lower end of the ball."""
        channels, height, width = frame(tuple(here.shape[1:]))
        top, left, side = places.unbind(dim=1)
        if side.device.type == "cpu":
            return self._written(anchor, here, places, colours)
        inside = spans(left, side, width).unsqueeze(1)
        if height > 1:
            inside = inside & spans(top, side, height).unsqueeze(2)
        low, high, flat = (each.view(-1, channels, height, width) for each in (anchor["low"], anchor["high"], here))
        ends = torch.where(colours[:, :, None, None], high, low)
        return torch.where(inside.unsqueeze(1), ends, flat).view(here.shape)

    def _written(self, anchor: Tensors, here: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """As `_to_the_ends`, touching the windows only; the host must see how large the largest one is."""
        channels, height, width = frame(tuple(here.shape[1:]))
        top, left, side = places.unbind(dim=1)
        least, most = (int(each) for each in side.aminmax())
        point = here.clone()
        if not most:
            return point
        # Windows that are smaller than the largest write their last row and column again.
        offset = torch.minimum(torch.arange(most), side.unsqueeze(1) - 1).clamp_(min=0)
        index = left.unsqueeze(1) + offset
        if height > 1:
            index = ((top.unsqueeze(1) + offset) * width).unsqueeze(2) + index.unsqueeze(1)
        index = index.reshape(len(here), 1, -1).expand(-1, channels, -1)
        low, high, flat = (each.view(-1, channels, height * width) for each in (anchor["low"], anchor["high"], point))
        values = torch.where(colours.unsqueeze(2), high.gather(2, index), low.gather(2, index))
        if not least:
            values = torch.where(side.reshape(-1, 1, 1) > 0, values, flat.gather(2, index))
        flat.scatter_(2, index, values)
        return point

    def _moved(self, anchor: Tensors, here: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """l2, l1: one window gets a new bump and the length of another window, which goes back to the input."""
        channels, height, width = frame(tuple(here.shape[1:]))
        top, left, top_2, left_2, side, upright = places.unbind(dim=1)
        flat, centre = (each.view(-1, channels, height, width) for each in (here, anchor["centre"]))
        gains, gives = (
            (spans(row, side, height).unsqueeze(2) & spans(column, side, width).unsqueeze(1)).unsqueeze(1)
            for row, column in ((top, left), (top_2, left_2))
        )
        change = flat - centre
        old = torch.where(gains, change, 0.0)
        spare = self._powers(torch.where(gains | gives, change, 0.0))
        unused = (self.eps**self._power - self._powers(change).sum(dim=1, keepdim=True)).clamp_(min=0.0)
        hill = bump(top, left, side, upright.bool(), height=height, width=width).to(change.dtype).unsqueeze(1)
        signs = torch.where(colours, 1.0, -1.0)[:, :, None, None].to(change.dtype)
        new = self._unit(hill) * signs + self._unit(old)
        new = self._unit(new) * (spare + unused / channels) ** (1.0 / self._power)
        moved = torch.where(gains, centre + new, torch.where(gives, centre, flat))
        low, high = (anchor[end].view(-1, channels, height, width) for end in ("low", "high"))
        return moved.clamp_(low, high).view(here.shape)

    @property
    def _power(self) -> int:
        return 1 if self.norm == "l1" else 2

    def _powers(self, changes: Tensor) -> Tensor:
        """The sum of |x| or x squared over each channel (m, c, h, w): (m, c, 1, 1)."""
        sizes = changes.abs() if self._power == 1 else changes.square()
        return sizes.sum(dim=(2, 3), keepdim=True)

    def _unit(self, changes: Tensor) -> Tensor:
        """Each channel scaled to length 1; zero where it is zero."""
        size = self._powers(changes) ** (1.0 / self._power)
        return changes / size.clamp_(min=torch.finfo(changes.dtype).tiny)

    def _drawn(self, anchor: Tensors, state: Tensors, rng: Streams, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Places (m, p) and colours (m, c) of the next proposals."""
        ids, time, first = anchor["ids"], state["time"], state["first"]
        if time.device.type != "cpu":
            return self._windows(rng, ids, time, first, shape)
        place = time % _BLOCK
        due = (place == 0).nonzero().squeeze(1)
        if len(due):
            block = torch.arange(_BLOCK)
            times = (time[due].unsqueeze(1) + block).reshape(-1)
            spread_out = (each[due].repeat_interleave(_BLOCK) for each in (ids, first))
            ids, first = spread_out
            places, colours = self._windows(rng, ids, times, first, shape)
            state["places"][due] = places.reshape(len(due), _BLOCK, -1)
            state["colours"][due] = colours.reshape(len(due), _BLOCK, -1)
        rows = torch.arange(len(time))
        return state["places"][rows, place], state["colours"][rows, place]

    def _windows(
        self, rng: Streams, ids: Tensor, time: Tensor, first: Tensor, shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """What is drawn for proposals number `time` of restarts that begin at `first`: functions of id and step."""
        channels, height, width = frame(shape)
        step = first + time
        side = _sides(self, height, width, ids.device)[time.clamp(max=self.steps - 1)]
        count = 2 if self.norm == "linf" else 5
        share = draws.uniform(rng.child("window"), ids, step=step, shape=(count,), dtype=torch.float64)
        # How many places there are for the first row and column; as many for an empty window as for the smallest.
        room = torch.stack((height - side, width - side), dim=1).clamp_(min=0) + (side > 0).unsqueeze(1)
        columns = [(share[:, :2] * room).long(), side.unsqueeze(1)]
        if count > 2:
            columns[1:1] = [(share[:, 2:4] * room).long()]
            columns += [(share[:, 4:] < 0.5).long()]
        colours = draws.signs(rng.child("colour"), ids, step=step, shape=(channels,)) > 0
        return torch.cat(columns, dim=1), colours

    def _pattern(self, origin: Origin, restart: Tensor) -> Tensor:
        """First points: stripes (linf), or tiles of bumps that together are eps long (l2, l1)."""
        inputs, stream = origin.inputs, origin.rng.child("start")
        channels, height, width = frame(tuple(inputs.shape[1:]))
        if self.norm == "linf":
            drawn = draws.signs(stream, origin.ids, step=restart, shape=(channels, 1, width), dtype=inputs.dtype)
            return inputs + (drawn * self.eps).expand(-1, -1, height, -1).reshape(inputs.shape)
        tall, wide = max(1, height // _TILES), max(1, width // _TILES)
        rows, columns = -(-height // tall), -(-width // wide)
        drawn = draws.signs(stream, origin.ids, step=restart, shape=(channels, rows, columns), dtype=inputs.dtype)
        signs = drawn.repeat_interleave(tall, dim=2)[:, :, :height].repeat_interleave(wide, dim=3)[:, :, :, :width]
        change = (signs * _tile(tall, wide, height, width, inputs.device).to(inputs.dtype)).reshape(inputs.shape)
        size = lengths(change, self.norm).clamp_(min=torch.finfo(inputs.dtype).tiny)
        return inputs + change * spread(self.eps / size, change)


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
        """One proposal a step."""
        return WindowSearch(
            ball=Ball(norm=self.norm, eps=self.eps),
            steps=self.queries // self.restarts - 1 if self.eps else 0,
            restarts=self.restarts if self.eps else 1,
            share=self.share,
        )


@functools.lru_cache(maxsize=32)
def _sides(rule: WindowSearch, height: int, width: int, device: torch.device) -> Tensor:
    found = window_sides(rule.steps, rule.share, norm=rule.norm, height=height, width=width)
    return torch.tensor(found or (0,), device=device)


@functools.lru_cache(maxsize=16)
def _tile(tall: int, wide: int, height: int, width: int, device: torch.device) -> Tensor:
    """One bump repeated over the image, (height, width)."""
    nought = torch.zeros(1, dtype=torch.int64, device=device)
    one = bump(nought, nought, nought + max(tall, wide), nought == 0, height=tall, width=wide)[0]
    return one.repeat(-(-height // tall), -(-width // wide))[:height, :width].contiguous()
