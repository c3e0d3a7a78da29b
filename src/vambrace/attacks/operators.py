"""The moves that the adaptive search chooses among: a short burst of steep steps, and windows put in at random.

Both are rules of the search loop and leave a sample with the point of the highest margin that they met.

`Burst`: few steps of full length first, shrinking along a cosine to a hundredth of it. With a first step of eps a
start is left behind at once, which a search of many short restarts gains from. Optional steps before follow a random
direction of the logits (Tashiro, Song, Ermon 2020, arXiv 2003.06878), which spreads starts in output space.

`Windows`: random search from a good point. A proposal sets a small window to one side of the ball (linf), or adds it
(l1, l2), and stays when the margin rises; after Andriushchenko et al. 2020, arXiv 1912.00049, with windows that stay
small, because the point is good already.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from vambrace.core.goals import Untargeted
from vambrace.ops import draws, losses
from vambrace.ops.rows import assign, spread
from vambrace.search.rule import Plain

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.attacks.ball import Ball
    from vambrace.core.goals import Goal
    from vambrace.core.options import Norm
    from vambrace.core.rng import Streams
    from vambrace.search.rule import Answer, Keeps, Origin, Tensors

__all__ = ["Burst", "Toward", "Windows", "cosine", "windows"]

_LAST = 0.01
_SMALLEST, _LARGEST = 0.002, 0.05  # share of the places of an image that a window covers


@dataclass(frozen=True, slots=True, eq=False)
class Toward(Untargeted):
    """Any class but the true one, sought in the direction of one of them. `targets`: int64 (n,)."""

    targets: Tensor

    def take(self, index: Tensor) -> Toward:
        """As the base class."""
        return Toward(self.labels[index], self.targets[index])


def cosine(steps: int) -> tuple[float, ...]:
    """Step lengths of a burst in parts of the first one: 1 down to a hundredth.

    >>> [round(each, 3) for each in cosine(3)]
    [1.0, 0.505, 0.01]
    """
    turns = [math.pi * step / max(1, steps - 1) for step in range(steps)]
    return tuple(_LAST + (1.0 - _LAST) * (1.0 + math.cos(turn)) / 2.0 for turn in turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst(Plain):
    """Steps of shrinking size up the gradient.

    Attributes:
        ball: where points may be.
        loss: what is ascended; "toward": the logit of the goal's target against that of the label.
        steps: in all, `spreading` ones among them.
        spreading: steps at first that follow a random direction of the logits.
        classes: width of the logits; needed where steps are `spreading`.
        noise: whether a given start is moved by a point drawn from the ball; drawn starts are drawn anyway.
    """

    ball: Ball
    loss: Literal["ce", "margin", "toward"]
    steps: int
    spreading: int = 0
    classes: int = 0
    noise: bool = False

    @property
    def restarts(self) -> int:
        return 1

    @property
    def norm(self) -> Norm:
        return self.ball.norm

    @property
    def eps(self) -> float:
        return self.ball.eps

    @property
    def keeps(self) -> Keeps:
        return "margin"

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        return self.ball.anchor(origin)

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        drawn = replace(origin, start=None)
        if not self.steps:
            point = self.ball.start(origin, anchor, restart, random=False)
        elif origin.start is None or self.noise:
            point = self.ball.start(drawn, anchor, restart, random=True)
            if origin.start is not None:
                point = self.ball.project(anchor, origin.start + (point - origin.inputs))
        else:
            point = self.ball.start(origin, anchor, restart, random=False)
        fresh = {"point": point, "time": torch.zeros_like(restart)}
        if self.spreading:
            stream = origin.rng.child("direction")
            fresh["direction"] = draws.uniform(stream, origin.ids, shape=(self.classes,), low=-1.0, high=1.0)
        return fresh

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        if self.loss == "toward" and isinstance(goal, Toward):
            wanted = torch.zeros_like(logits).scatter_(1, goal.targets.unsqueeze(1), 1.0)
            wanted.scatter_(1, goal.labels.unsqueeze(1), -1.0)
        else:
            wanted = losses.slope("ce" if self.loss == "ce" else "margin", logits, goal)
        if not self.spreading:
            return wanted
        return torch.where((state["time"] < self.spreading).unsqueeze(1), state["direction"].to(wanted), wanted)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        point = state["point"]
        sizes = _sizes(self.eps, self.steps, self.spreading, point.dtype, point.device)
        size = spread(sizes[state["time"].clamp(max=self.steps - 1)], point)
        after = dict(state)
        after["point"] = self.ball.ascend(anchor, point, answer.slope, size)
        after["time"] = state["time"] + 1
        return after


@functools.lru_cache(maxsize=64)
def _sizes(eps: float, steps: int, spreading: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The lengths of a burst's steps; kept, because making a tensor of numbers waits for the device."""
    lengths = [eps] * spreading + [eps * each for each in cosine(steps - spreading)]
    return torch.tensor(lengths, dtype=dtype, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows(Plain):
    """Random windows from the start point given; asks forward only.

    Attributes:
        ball: where points may be.
        steps: proposals.
    """

    ball: Ball
    steps: int
    gradient: ClassVar[bool] = False

    @property
    def restarts(self) -> int:
        return 1

    @property
    def norm(self) -> Norm:
        return self.ball.norm

    @property
    def eps(self) -> float:
        return self.ball.eps

    @property
    def keeps(self) -> Keeps:
        return "margin"

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        return {**self.ball.anchor(origin), "inputs": origin.inputs, "ids": origin.ids}

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        point = self.ball.start(origin, anchor, restart, random=False)
        lowest = torch.full(restart.shape, float("-inf"), dtype=torch.float64, device=point.device)
        return {"point": point, "here": point.clone(), "margin": lowest, "time": torch.zeros_like(restart)}

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        raise NotImplementedError("windows take no gradients")

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        margin = answer.goal.margin(answer.logits).double()
        better = margin > state["margin"]
        here = state["here"]
        assign(here, better, state["point"])
        time = state["time"]
        return {
            "point": self._proposed(anchor, here, answer.rng, time),
            "here": here,
            "margin": torch.where(better, margin, state["margin"]),
            "time": time + 1,
        }

    def _proposed(self, anchor: Tensors, here: Tensor, rng: Streams, time: Tensor) -> Tensor:
        """The points with one more window each."""
        inputs, ids = anchor["inputs"], anchor["ids"]
        inside = windows(rng.child("window"), ids, time, tuple(inputs.shape[1:]))
        channels = inputs.shape[1] if inputs.dim() > 2 else 1
        sign = draws.signs(rng.child("sign"), ids, step=time, shape=(channels,), dtype=here.dtype)
        sign = sign.reshape(len(ids), channels, *[1] * max(0, inputs.dim() - 2))
        if self.norm == "linf":
            ends = torch.where(sign > 0, anchor["high"], anchor["low"])
            return torch.where(inside, ends, here)
        # A bump that alone would be half as long as the radius.
        count = inside.flatten(1).sum(dim=1) * channels
        height = 0.5 * self.eps / (count.sqrt() if self.norm == "l2" else count)
        return self.ball.project(anchor, here + inside * sign * spread(height, here).to(here.dtype))


def windows(stream: Streams, ids: Tensor, time: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Where one random window a sample lies: bool, broadcasting against samples of `shape`.

    Images (c, h, w) get squares over all channels, at least one pixel; other shapes get runs of their first dimension
    when flat, of their last one else. The covered share is drawn from 0.2 % to 5 %, evenly in its logarithm.

    Args:
        stream: what is drawn.
        ids: int64 (m,), for whom.
        time: int64 (m,), how many-eth window of each.
        shape: of one sample.
    """
    ratio = draws.uniform(stream, ids, step=time, shape=(3,), dtype=torch.float64)
    share = _SMALLEST * (_LARGEST / _SMALLEST) ** ratio[:, 0]
    if len(shape) != 3:
        length = shape[-1]
        side = (share * length).round().clamp(min=1)
        low = (ratio[:, 1] * (length - side + 1)).floor()
        at = torch.arange(length, device=ids.device)
        inside = (at >= low.unsqueeze(1)) & (at < (low + side).unsqueeze(1))
        return inside.reshape(len(ids), *[1] * (len(shape) - 1), length)
    height, width = shape[1:]
    side = (share * (height * width)).sqrt().round().clamp(min=1, max=min(height, width))
    rows, columns = (
        (torch.arange(size, device=ids.device) - (ratio[:, place] * (size - side + 1)).floor().unsqueeze(1))
        for place, size in ((1, height), (2, width))
    )
    tall = (rows >= 0) & (rows < side.unsqueeze(1))
    wide = (columns >= 0) & (columns < side.unsqueeze(1))
    return (tall.unsqueeze(2) & wide.unsqueeze(1)).unsqueeze(1)
