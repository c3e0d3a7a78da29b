"""The rule behind the momentum family: a step along gradients that were gathered at other places, and before.

What is judged is always the iterate itself. Where gradients are taken elsewhere only (a resized copy, a point further
along), the forward that judges gives none, and a step costs one forward more.

The model's contract is to be asked inside its bounds. So places that lie outside of them are moved to the nearest
point inside, while the gradient passes as if they had not been; "darker" means nearer to zero, or to the end of the
bounds next to it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from vambrace.ops import draws, losses
from vambrace.ops.norms import peaks
from vambrace.ops.placement import place, smooth
from vambrace.ops.projections import inner_box
from vambrace.ops.rows import spread
from vambrace.search.rule import Plain

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.attacks.ball import Ball
    from vambrace.core.goals import Goal
    from vambrace.core.rng import Streams
    from vambrace.search.rule import Answer, Origin, Tensors

__all__ = ["GatheredAscent", "unit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredAscent(Plain):
    """The rule of `MomentumPGD`; the attributes are its options.

    Attributes:
        ball: where points may be.
        loss: what is ascended.
        steps: of the search.
        step_size: length of a step in input units, in the ball's norm.
        decay: what is kept of the momentum at each step; 0: there is none.
        lookahead: whether gradients are taken where the momentum leads.
        diversity: chance that a gradient is taken at a resized copy.
        shrink: smallest share of its side that a copy is resized to.
        kernel: size of the kernel that gradients are smoothed with; 1: they are not.
        scales: copies of halving brightness over which a gradient is averaged.
        neighbours: points around, which tell how gradients vary.
        reach: how far around, in radii of the ball.
    """

    ball: Ball
    loss: losses.Loss
    steps: int
    step_size: float
    decay: float
    lookahead: bool
    diversity: float
    shrink: float
    kernel: int
    scales: int
    neighbours: int
    reach: float

    @property
    def norm(self) -> Literal["l1", "l2", "linf"]:
        return self.ball.norm

    @property
    def eps(self) -> float:
        return self.ball.eps

    @property
    def restarts(self) -> int:
        return 1

    @property
    def views(self) -> int:
        return self.scales * (1 + self.neighbours)

    @property
    def leading(self) -> int:
        return self.scales

    @property
    def sighted(self) -> bool:
        return self.diversity == 0 and not self._ahead

    @property
    def _ahead(self) -> bool:
        return self.lookahead and self.decay > 0

    def anchor(self, origin: Origin) -> dict[str, Tensor]:
        kept = self.ball.anchor(origin)
        if self.views > 1 or not self.sighted:
            one = (len(origin.inputs), *[1] * (origin.inputs.dim() - 1))
            floor, ceiling = inner_box(origin.bounds, origin.inputs)
            for name, end in (("floor", floor), ("ceiling", ceiling)):
                kept[name] = end.expand(one if end.dim() == 0 else origin.inputs.shape).clone()
            kept["ids"] = origin.ids
        return kept

    def start(self, origin: Origin, anchor: Tensors, restart: Tensor, before: Tensors | None) -> dict[str, Tensor]:
        point = self.ball.start(origin, anchor, restart, random=False)
        state = {"point": point, "time": torch.zeros_like(restart)}
        if self.decay:
            state["momentum"] = torch.zeros_like(point)
        if self.neighbours:
            state["variance"] = torch.zeros_like(point)
        return state

    def look(self, anchor: Tensors, state: Tensors, point: Tensor, view: int, rng: Streams) -> Tensor:
        """View 0 is the point, or where the momentum leads; then its darker copies; then the same of each neighbour."""
        place_number, copy = divmod(view, self.scales)
        seen, moves = point, self._moves(anchor, state, place_number, rng)
        if moves:
            here = point.detach()
            there = torch.clamp(functools.reduce(torch.add, moves, here), anchor["floor"], anchor["ceiling"])
            seen = point + (there - here)
        dark = torch.zeros_like(anchor["floor"]).clamp(anchor["floor"], anchor["ceiling"])
        if copy:
            seen = dark + (seen - dark) * 0.5**copy
        if self.diversity:
            seen = dark + self._resized(anchor, state, seen - dark, rng.child("diversity", view))
        return seen

    def _moves(self, anchor: Tensors, state: Tensors, place_number: int, rng: Streams) -> list[Tensor]:
        """Where gradients are taken, as changes from the point."""
        moves: list[Tensor] = []
        if self._ahead:
            # Momentum has a mean size of one an element: as long a step in linf, and sqrt(features) as long in l2.
            length = 1.0 if self.norm == "linf" else math.sqrt(math.prod(state["momentum"].shape[1:]))
            moves.append(state["momentum"] * (self.step_size * self.decay / length))
        if place_number:
            around, stream = replace(self.ball, eps=self.reach * self.eps), rng.child("neighbour", place_number)
            moves.append(around.noise(stream, anchor["ids"], state["time"], like=state["point"]))
        return moves

    def _resized(self, anchor: Tensors, state: Tensors, images: Tensor, stream: Streams) -> Tensor:
        """Some of the images shown smaller at a random place: images (m, c, h, w) to such."""
        shown, size, down, across = draws.uniform(
            stream, anchor["ids"], step=state["time"], shape=(4,), dtype=torch.float64
        ).unbind(dim=1)
        chosen, (height, width) = shown < self.diversity, images.shape[2:]
        tall = torch.where(chosen, self._smaller(height, size), height)
        wide = torch.where(chosen, self._smaller(width, size), width)
        top, left = _below(down, height - tall + 1), _below(across, width - wide + 1)
        return place(images, height=tall, width=wide, top=top, left=left)

    def _smaller(self, side: int, draw: Tensor) -> Tensor:
        """A share of a side in whole pixels, from `shrink` on, less than all of it where that is possible."""
        least = max(1, int(self.shrink * side))
        return least + _below(draw, max(1, side - least))

    def slope(self, anchor: Tensors, state: Tensors, logits: Tensor, goal: Goal) -> Tensor:
        return losses.slope(self.loss, logits, goal)

    def step(self, anchor: Tensors, state: Tensors, answer: Answer) -> dict[str, Tensor]:
        gradient, after = answer.slope, {"time": state["time"] + 1}
        if self.scales > 1:
            gradient = gradient / self.scales
        if answer.others is not None and self.neighbours:
            around = answer.others / (self.scales * self.neighbours)
            after["variance"] = around - gradient
            gradient = gradient + state["variance"]
        if self.kernel > 1:
            gradient = smooth(gradient, self.kernel)
        if self.decay:
            gradient = after["momentum"] = torch.add(unit(gradient), state["momentum"], alpha=self.decay)
        after["point"] = self.ball.ascend(anchor, state["point"], gradient, self.step_size)
        return after


def unit(gradients: Tensor) -> Tensor:
    """Gradients (n, ...) over the mean absolute value of their elements: the l1 norm, but for a factor that is fixed.

    Zero stays zero; sizes far from one neither vanish nor overflow.
    """
    tiny = torch.finfo(gradients.dtype).tiny
    scaled = gradients / spread(peaks(gradients).clamp_(min=tiny), gradients)
    mean = scaled.abs().mean(dim=tuple(range(1, gradients.dim())))
    return scaled.div_(spread(mean.clamp_(min=tiny), gradients))


def _below(shares: Tensor, count: int | Tensor) -> Tensor:
    """Shares (n,) in [0, 1) as whole numbers 0 <= x < count, int64."""
    return (shares * count).long()
