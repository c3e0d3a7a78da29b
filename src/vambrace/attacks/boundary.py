"""The boundary attack: a random walk along the decision of a model that gives labels only, always nearer to the input.

    >>> from vambrace.attacks import Boundary
    >>> Boundary(budget=1000).proposals
    4

Needs LABELS. A proposal goes a little way on the sphere around the input (the spherical step) and a little way inward
(the source step). Both lengths follow each sample's own share of proposals that stay across the decision.

Differences from the paper: a round makes several proposals from one point and goes to the nearest that stays across;
one round in five asks about spherical steps alone, to steer their length; directions are cheap near-normal whole
numbers. On images they are partly coarse, and larger where the change so far is (`attacks.steps`): that comes equally
near for about half of the queries.
When not: where HopSkipJump runs, which comes nearer for the same budget. Euclidean distance only.

References: Brendel, Rauber, Bethge 2018, "Decision-Based Adversarial Attacks: Reliable Attacks Against Black-Box
Machine Learning Models", arXiv 1712.04248, section 2, algorithm 1. Directions on images: Brunner, Diehl, Truong Le,
Knoll 2019, "Guessing Smart: Biased Sampling for Efficient Black-Box Adversarial Attacks", arXiv 1812.09803.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from vambrace.attacks.between import narrow
from vambrace.attacks.fixed import require_option
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.opening import opened, require_start
from vambrace.attacks.steps import areas, stepped
from vambrace.core.access import Access
from vambrace.core.options import Norm, Ratio
from vambrace.ops.norms import lengths
from vambrace.ops.rows import spread
from vambrace.search.desk import Desk, serve

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.progress import Progress
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem

__all__ = ["Boundary", "adapted", "propose"]

_TOLERANCE = 2.0**-10
_PERIOD = 5  # rounds, the last of which asks about spherical steps alone
_WINDOW = 16  # answers after which a length is looked at
_FACTOR = 1.5
_GRAIN, _NO_KEY = 1 << 12, 1 << 62
_SPHERICAL = (0.2, 0.5)  # a share of successes outside of this changes the length
_SOURCE = (0.1, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary(Nearest):
    """The nearest point in Euclidean distance that a random walk along the decision finds.

    Attributes:
        norm: "l2".
        eps: a verified success within this radius ends a sample's search; None: all of the budget is spent.
        budget: queries a sample; verifications come on top.
        proposals: points a sample asks about in one round.
        spherical_step: first length of the step on the sphere, as a share of the distance.
        source_step: first length of the step inward, as a share of the distance.
    """

    name: ClassVar[str] = "boundary"
    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[tuple[Norm, ...]] = ("l2",)
    budget: int = 5000
    proposals: int = 4
    spherical_step: Ratio = 0.05
    source_step: Ratio = 0.05

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.budget >= 1, "budget", self.budget, "1 or more")
        require_option(self.proposals >= 1, "proposals", self.proposals, "1 or more")
        for name in ("spherical_step", "source_step"):
            require_option(0 < getattr(self, name) < 1, name, getattr(self, name), "between 0 and 1")

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """Serve every sample at the desk."""
        require_start(problem)
        work = functools.partial(_walk, options=self)
        return serve(
            problem, work, norm=self.norm, budget=self.budget, enough=self.enough, name=self.name, progress=progress
        )


def _walk(desk: Desk, *, options: Boundary) -> None:
    """All rounds of all samples at one desk, in lock step."""
    stream = desk.problem.rng.child("boundary")
    owner, far = opened(desk, stream.child("opening"))
    points = narrow(desk, owner, far, _TOLERANCE)
    # Rows of both: the spherical step and the source step.
    sizes = torch.tensor([[options.spherical_step], [options.source_step]], dtype=torch.float64, device=owner.device)
    sizes = sizes.repeat(1, len(owner))
    tries = torch.zeros((2, len(owner)), dtype=torch.int64, device=owner.device)
    hits = torch.zeros_like(tries)
    turn = 0
    while True:
        desk.settle()
        left = desk.left[owner]
        if not bool((left > 0).all()):
            kept = (left > 0).nonzero().squeeze(1)
            owner, points, left = owner[kept], points[kept], left[kept]
            sizes, tries, hits = sizes[:, kept], tries[:, kept], hits[:, kept]
        if not len(owner):
            return
        turn += 1
        probing = turn % _PERIOD == 0
        count = left.clamp(max=options.proposals)
        points, won = _round(desk, owner, points, sizes, count, turn, probing=probing)
        kind = 0 if probing else 1
        tries[kind] += count
        hits[kind] += won
        if turn % _PERIOD in (0, _PERIOD - 1):
            sizes[kind] = adapted(sizes[kind], tries[kind], hits[kind], _SPHERICAL if probing else _SOURCE)
            full = tries[kind] >= _WINDOW
            tries[kind].masked_fill_(full, 0)
            hits[kind].masked_fill_(full, 0)


def _round(
    desk: Desk, owner: Tensor, points: Tensor, sizes: Tensor, count: Tensor, turn: int, *, probing: bool
) -> tuple[Tensor, Tensor]:
    """Ask about `count` proposals of each sample: the points to go on from, and how many proposals reached the goal."""
    best, won = points.clone(), torch.zeros_like(count)
    # Half precision squares such whole numbers, and the lengths of large images, to infinity.
    wide = torch.promote_types(points.dtype, torch.float32)
    change = points.to(wide) - desk.inputs[owner]
    wanted, where = lengths(change, "l2") * (1.0 - sizes[1]).to(wide), areas(change)
    best_key = torch.full_like(count, _NO_KEY)
    place = torch.arange(len(owner), device=owner.device).repeat_interleave(count)
    number = torch.arange(len(place), device=owner.device) - (count.cumsum(0) - count)[place]
    stream = desk.problem.rng.child("boundary", "steps", turn)
    for first in range(0, len(place), desk.rows):
        rows, step = place[first : first + desk.rows], number[first : first + desk.rows]
        who = owner[rows]
        noise = stepped(stream, desk.problem.ids[who], step=step, shape=tuple(points.shape[1:]), coarse=True).to(wide)
        noise.mul_(where.index_select(0, rows))
        inputs = desk.inputs.index_select(0, who)
        source = torch.zeros_like(sizes[1]) if probing else sizes[1]
        asked = propose(inputs, points.index_select(0, rows).to(wide), noise, sizes[0][rows], source[rows])
        asked = asked.to(points.dtype)
        reached = desk.reached(asked, who)
        won.index_add_(0, rows, reached.long())
        if probing:
            continue
        # All proposals that the box leaves alone are equally far: in sizes so coarse that rounding does not choose
        # between them, the first one of the smallest wins.
        share = lengths(asked.to(wide) - inputs, "l2") / wanted[rows]
        key = ((share * _GRAIN).round().long() * len(place) + step).masked_fill_(~reached, _NO_KEY)
        least = best_key.scatter_reduce(0, rows, key, "amin")
        better = ((key == least[rows]) & (key < best_key[rows])).nonzero().squeeze(1)
        best[rows[better]] = asked[better]
        best_key = least
    return best, won


def propose(inputs: Tensor, points: Tensor, noise: Tensor, spherical: Tensor, source: Tensor) -> Tensor:
    """A step on the sphere around the input through the point, then one inward.

    Args:
        inputs: (m, ...).
        points: (m, ...), elsewhere, in float32 or wider.
        noise: (m, ...), directions of any length, in the dtype of the points; overwritten.
        spherical: (m,), length of the first step as a share of the distance.
        source: (m,), by what share the second one shortens the distance.

    Returns:
        (m, ...), at (1 - source) times the distance of the point from its input, up to rounding.
    """
    change = points - inputs
    flat, way = noise.flatten(1), change.flatten(1)
    tiny = torch.finfo(way.dtype).tiny
    squared = lengths(way, "l2").square_().clamp_(min=tiny)
    # What of the noise goes along the way is taken off by a little less of the way itself.
    along = (flat * way).sum(dim=1)
    across = (lengths(flat, "l2").square_() - along.square() / squared).clamp_(min=tiny)
    spherical = spherical.to(way.dtype)
    shrink = (1.0 - source).to(way.dtype) / (1.0 + spherical.square()).sqrt()
    share = spherical * (squared / across).sqrt() * shrink
    flat *= share.unsqueeze(1)
    change *= spread(shrink - share * along / squared, change)
    return change.add_(noise).add_(inputs)


def adapted(sizes: Tensor, tries: Tensor, hits: Tensor, share: tuple[float, float]) -> Tensor:
    """Lengths (m,) made longer where more than the upper share of enough tries hit, shorter where less than the lower.

    >>> adapted(torch.full((3,), 0.3), torch.tensor([20, 20, 4]), torch.tensor([20, 1, 0]), (0.2, 0.5))
    tensor([0.4500, 0.2000, 0.3000])
    """
    rate, full = hits / tries.clamp(min=1), tries >= _WINDOW
    longer = torch.where(full & (rate > share[1]), sizes * _FACTOR, sizes)
    return torch.where(full & (rate < share[0]), sizes / _FACTOR, longer).clamp(max=0.9)
