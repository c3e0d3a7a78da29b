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
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch

from vambrace.attacks.between import narrow
from vambrace.attacks.fixed import require_option
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.opening import opened, require_start
from vambrace.attacks.steps import areas, stepped
from vambrace.core.access import Access
from vambrace.core.options import Norm, Ratio
from vambrace.ops.norms import lengths
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
_GRAIN = 1 << 12
_SPHERICAL = (0.2, 0.5)  # a share of successes outside of this changes the length
_SOURCE = (0.1, 0.25)
_ASIDE = 64.0  # roundings: noise that leaves the way by no more than these is taken to lie on it


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
        won = _round(desk, owner, points, sizes, count, turn, probing=probing)
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
) -> Tensor:
    """Ask about `count` proposals of each sample: how many reached the goal; unless `probing`, move to the nearest."""
    won, stream = torch.zeros_like(count), desk.problem.rng.child("boundary", "steps", turn)
    # All ask equally often, but for those whose budget ends.
    for each in sorted(set(cast("list[int]", count.tolist()))):
        asking = (count == each).nonzero().squeeze(1)
        for rows in cast("tuple[Tensor, ...]", asking.split(max(1, desk.rows // each))):
            who, here, source = owner[rows], points.index_select(0, rows).to(_wide(points)), sizes[1, rows]
            number = torch.arange(each, device=owner.device)
            whose, step = who.repeat_interleave(each), number.repeat(len(who))
            shape, inputs = tuple(points.shape[1:]), desk.inputs.index_select(0, who)
            change = here - inputs
            noise = stepped(stream, desk.problem.ids[whose], step=step, shape=shape, coarse=True)
            noise = noise.to(here.dtype).view(len(who), each, *shape).mul_(areas(change).unsqueeze(1))
            inward = torch.zeros_like(source) if probing else source
            asked = propose(inputs, here, noise, sizes[0, rows], inward).to(points.dtype).flatten(0, 1)
            size = desk.measured(asked, whose).view(len(who), each)
            won[rows] = (size < math.inf).sum(dim=1)
            if probing:
                continue
            # All proposals that the box leaves alone are equally far: in sizes so coarse that rounding does not choose
            # between them, the first one of the smallest wins.
            wanted = lengths(change, "l2") * (1.0 - source)
            least, place = ((size / wanted.unsqueeze(1) * _GRAIN).round() * each + number).min(dim=1)
            moved = (least < math.inf).nonzero().squeeze(1)
            points.index_copy_(0, rows[moved], asked.index_select(0, moved * each + place[moved]))
    return won


def _wide(points: Tensor) -> torch.dtype:
    """Half precision squares whole numbers of noise, and the lengths of large images, to infinity."""
    return torch.promote_types(points.dtype, torch.float32)


def propose(inputs: Tensor, points: Tensor, noise: Tensor, spherical: Tensor, source: Tensor) -> Tensor:
    """Steps on the sphere around the input through the point, then inward.

    Args:
        inputs: (m, ...).
        points: (m, ...), elsewhere, in float32 or wider.
        noise: (m, k, ...), directions of any length, in the dtype of the points.
        spherical: (m,), length of the first step as a share of the distance.
        source: (m,), by what share the second one shortens the distance.

    Returns:
        (m, k, ...), at (1 - source) times the distance of the point from its input, up to rounding; noise that lies on
        the way gives a step inward alone.
    """
    centre = inputs.flatten(1).unsqueeze(1)
    way, flat = points.flatten(1).unsqueeze(1) - centre, noise.flatten(2)
    kind = torch.finfo(way.dtype)
    squared = lengths(way, "l2").unsqueeze(1).square_().clamp_(min=kind.tiny)
    # What of the noise goes along the way is taken off by a little less of the way itself.
    product = flat * way
    along = product.sum(dim=2)
    noisy = lengths(flat.flatten(0, 1), "l2").view(along.shape).square_()
    across = noisy - along.square() / squared
    # Noise that goes along the way alone, as it often does between few features, leaves no direction to step in.
    aside = across > _ASIDE * kind.eps * noisy
    spherical = torch.where(aside, spherical.to(way.dtype).unsqueeze(1), 0.0)
    shrink = (1.0 - source).to(way.dtype).unsqueeze(1) / (1.0 + spherical.square()).sqrt()
    share = spherical * (squared / torch.where(aside, across, 1.0)).sqrt() * shrink
    found = torch.addcmul(centre, way, (shrink - share * along / squared).unsqueeze(2), out=product)
    return found.addcmul_(flat, share.unsqueeze(2)).view_as(noise)


def adapted(sizes: Tensor, tries: Tensor, hits: Tensor, share: tuple[float, float]) -> Tensor:
    """Lengths (m,) made longer where more than the upper share of enough tries hit, shorter where less than the lower.

    >>> adapted(torch.full((3,), 0.3), torch.tensor([20, 20, 4]), torch.tensor([20, 1, 0]), (0.2, 0.5))
    tensor([0.4500, 0.2000, 0.3000])
    """
    rate, full = hits / tries.clamp(min=1), tries >= _WINDOW
    longer = torch.where(full & (rate > share[1]), sizes * _FACTOR, sizes)
    return torch.where(full & (rate < share[0]), sizes / _FACTOR, longer).clamp(max=0.9)
