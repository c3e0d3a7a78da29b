"""RayS: the nearest decision along directions of signs, for models that give labels only. Largest change per element.

    >>> from vambrace.attacks import RayS
    >>> RayS(budget=1000).norm
    'linf'

Needs LABELS. A sample's search is over directions in {-1, 1}: blocks of signs are flipped, first the whole image, then
halves, quarters and so on. A flipped direction is asked about once, at the smallest radius known, and skipped where the
goal is not reached there; else the new radius is found by binary search. Nothing is drawn: the outcome depends on the
model alone.

Differences from the paper: a binary search ends at a share of the radius and not at an absolute length; while no
direction has reached the goal, flips are tried at the widest radius; `start` points give first directions.

Reference: Chen, Gu 2020, "RayS: A Ray Searching Method for Hard-label Adversarial Attack", arXiv 2006.12792,
algorithms 1 to 3.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from vambrace.attacks.fixed import require_option
from vambrace.attacks.nearest import Nearest
from vambrace.core.access import Access
from vambrace.core.options import Norm, Ratio
from vambrace.ops.norms import peaks
from vambrace.search.desk import Desk, serve

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.progress import Progress
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem

__all__ = ["RayS", "blocks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RayS(Nearest):
    """The smallest radius at which a direction of signs crosses the decision.

    Attributes:
        norm: "linf".
        eps: a verified success within this radius ends a sample's search; None: all of the budget is spent.
        budget: queries a sample; verifications come on top.
        tolerance: share of the radius at which a binary search ends.
    """

    name: ClassVar[str] = "rays"
    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    norm: Norm = "linf"
    budget: int = 5000
    tolerance: Ratio = 2**-10

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.budget >= 1, "budget", self.budget, "1 or more")
        require_option(2**-20 <= self.tolerance < 1, "tolerance", self.tolerance, "from 2**-20 to below 1")

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """Serve every sample at the desk."""
        work = functools.partial(_cast, tolerance=self.tolerance)
        return serve(
            problem, work, norm=self.norm, budget=self.budget, enough=self.enough, name=self.name, progress=progress
        )


def _cast(desk: Desk, *, tolerance: float) -> None:
    """All rays of all samples at one desk, one query a sample and round.

    A sample either tries a flip at its radius or, where the flip held, searches between 0 and that radius.
    """
    desk.ask_inputs()
    desk.settle()
    owner = desk.live()
    inputs = desk.inputs[owner].flatten(1)
    signs, radius = _first_rays(desk, owner)
    flip = torch.full((2, len(owner)), -1, dtype=torch.int64, device=owner.device)  # level and block; -1: as it is
    flip[1] = 0
    low = torch.zeros_like(radius)
    high = torch.full_like(radius, -1.0)  # below 0: trying, else searching
    while True:
        desk.settle()
        left = desk.left[owner] > 0
        if not bool(left.all()):
            kept = left.nonzero().squeeze(1)
            owner, inputs, signs, flip = owner[kept], inputs[kept], signs[kept], flip[:, kept]
            radius, low, high = radius[kept], low[kept], high[kept]
        if not len(owner):
            return
        searching = high >= 0
        reach = torch.where(searching, (low + high) / 2, radius)
        ray = signs * blocks(flip[0], flip[1], inputs.shape[1]).to(signs.dtype)
        asked = (ray * reach.to(signs.dtype).unsqueeze(1)).add_(inputs)
        won = desk.reached(asked.reshape(-1, *desk.inputs.shape[1:]), owner)
        low = torch.where(searching & ~won, reach, torch.where(searching, low, 0.0))
        high = torch.where(won, reach, high)
        ends = (high >= 0) & (high - low <= tolerance * high)
        if bool(ends.any()):
            signs = torch.where(ends.unsqueeze(1), ray, signs)
            radius = torch.where(ends, high, radius)
        next_ = ends | (high < 0)
        high = torch.where(ends, -1.0, high)
        flip = torch.where(next_, _after(flip, inputs.shape[1]), flip)


def _first_rays(desk: Desk, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Signs (m, d) and radii float64 (m,) to begin with: to the start points, or up to the widest change."""
    inputs, bounds = desk.inputs[owner], desk.problem.model.bounds
    if desk.problem.start is not None:
        change = desk.problem.start[owner] - inputs
        return torch.where(change < 0, -1.0, 1.0).to(inputs.dtype).flatten(1), peaks(change).double()
    if bounds is None:
        wide = 2.0 * peaks(inputs).double().clamp_(min=1.0)
    else:
        wide = torch.full((len(owner),), bounds.span, dtype=torch.float64, device=owner.device)
    return torch.ones_like(inputs).flatten(1), wide


def blocks(level: Tensor, block: Tensor, features: int) -> Tensor:
    """-1 inside block number `block` (m,) of the 2**level equal ones, and 1 elsewhere: int8 (m, features).

    Below level 0 nothing is flipped.

    >>> blocks(torch.tensor([-1, 0, 2]), torch.tensor([0, 0, 1]), 4).tolist()
    [[1, 1, 1, 1], [-1, -1, -1, -1], [1, -1, 1, 1]]
    """
    size = _size(level, features)
    place = torch.arange(features, device=level.device)
    inside = (place >= (block * size).unsqueeze(1)) & (place < ((block + 1) * size).unsqueeze(1))
    return torch.where(inside & (level >= 0).unsqueeze(1), -1, 1).to(torch.int8)


def _size(level: Tensor, features: int) -> Tensor:
    parts = 2 ** level.clamp(min=0)
    return (features + parts - 1) // parts


def _after(flip: Tensor, features: int) -> Tensor:
    """The flip that follows: the next block, then the next level; after the finest one, level 0 again."""
    level, block = flip
    size = _size(level, features)
    over = (level < 0) | ((block + 1) * size >= features)
    finest = math.ceil(math.log2(features)) if features > 1 else 0
    following = torch.where(level >= finest, 0, level + 1)
    return torch.stack((torch.where(over, following, level), torch.where(over, 0, block + 1)))
