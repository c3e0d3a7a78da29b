"""HopSkipJump: walk along the decision of a model that gives labels only, always nearer to the input.

    >>> from vambrace.attacks import HopSkipJump
    >>> HopSkipJump(norm="linf", budget=1000).initial_queries
    100

Needs LABELS. At a point on the decision, the share of small random steps that stay across it tells the direction in
which it lies; a step that way, as long as it stays across, and a binary search back to the input give the next point.

Differences from the paper: the random steps are cheap near-normal whole numbers (`draws.bell`) for both norms, not
vectors of exactly one length, so that sums over them are exact; elements that lie at an end of the box are only moved
inward, and the estimate counts the step as it was made; every binary search is at least as fine as 1/1024 of the way.

References: Chen, Jordan, Wainwright 2020, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack",
arXiv 1904.02144, algorithm 2; estimate and baseline: sections III.B and III.C; choice of sizes: section III.D.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from vambrace.attacks.between import narrow
from vambrace.attacks.fixed import require_option
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.opening import opened, require_start
from vambrace.core.access import Access
from vambrace.core.options import Norm
from vambrace.ops import draws
from vambrace.ops.norms import distances, steepest
from vambrace.ops.rows import spread
from vambrace.search.desk import Desk, serve

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.progress import Progress
    from vambrace.core.rng import Streams
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem

__all__ = ["HopSkipJump", "MOST", "estimate", "leap"]

MOST = 65793
"""Random steps of one estimate at most: sums of more are not exact."""

_COARSEST = 2.0**-10
_HALVINGS = 24
_FIRST_SIZE = 0.1
_NO_END = 256.0  # beyond what `draws.bell` gives


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJump(Nearest):
    """The nearest point across the decision that a budget of queries finds.

    Attributes:
        norm: "l2" or "linf".
        eps: a verified success within this radius ends a sample's search; None: all of the budget is spent.
        budget: queries a sample; verifications come on top.
        initial_queries: random steps of the first estimate; the t-th one takes sqrt(t) times as many.
    """

    name: ClassVar[str] = "hop_skip_jump"
    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    budget: int = 5000
    initial_queries: int = 100

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.budget >= 1, "budget", self.budget, "1 or more")
        require_option(1 <= self.initial_queries <= MOST, "initial_queries", self.initial_queries, f"1 to {MOST}")

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """Serve every sample at the desk."""
        require_start(problem)
        work = functools.partial(_walk, initial_queries=self.initial_queries)
        return serve(
            problem, work, norm=self.norm, budget=self.budget, enough=self.enough, name=self.name, progress=progress
        )


def _walk(desk: Desk, *, initial_queries: int) -> None:
    """All turns of all samples at one desk, in lock step."""
    stream = desk.problem.rng.child("hop_skip_jump")
    features = math.prod(desk.inputs.shape[1:])
    tolerance = min(features ** (-1.5 if desk.norm == "l2" else -2.0), _COARSEST)
    owner, far = opened(desk, stream.child("opening"))
    points = narrow(desk, owner, far, tolerance)
    size = torch.full_like(points.flatten(1)[:, 0], _FIRST_SIZE * _span(desk) * _unit(desk.norm, features))
    turn = 0
    while True:
        desk.settle()
        kept = (desk.left[owner] > 0).nonzero().squeeze(1)
        if not len(kept):
            return
        owner, points, size = owner[kept], points[kept], size[kept]
        turn += 1
        wanted = min(int(initial_queries * math.sqrt(turn)), MOST)
        slope = estimate(desk, owner, points, desk.left[owner].clamp(max=wanted), size, stream.child("steps", turn))
        far = leap(desk, owner, points, slope, turn)
        size = distances(far, desk.inputs[owner], desk.norm).to(points.dtype) / features
        points = narrow(desk, owner, far, tolerance)


def _span(desk: Desk) -> float:
    bounds = desk.problem.model.bounds
    return 1.0 if bounds is None else bounds.span


def _unit(norm: Norm, features: int) -> float:
    """A step of Euclidean length about 1, in the norm."""
    return 1.0 if norm == "l2" else math.sqrt(6.0 / features)


def estimate(desk: Desk, owner: Tensor, points: Tensor, count: Tensor, size: Tensor, stream: Streams) -> Tensor:
    """The direction in which the decision is crossed, from random steps around points that lie on it.

    The mean over steps u of (s - mean s) u, with s = 1 where the goal is reached and -1 elsewhere; where all answers
    are equal, of s u. u are the whole numbers of `draws.bell`, so all sums are exact and any split gives the same.

    Args:
        desk: where to ask.
        owner: int64 (m,), ascending, distinct: whose points these are.
        points: (m, ...), inside the box.
        count: int64 (m,), steps of each, from 1 to 65,793, as many as its budget still allows.
        size: (m,), how long a step is in the desk's norm, about (l2) or at most (linf).
        stream: of the draws; one for each turn.

    Returns:
        (m, ...), of any length, in the dtype of the points.
    """
    shape, features = points.shape, math.prod(points.shape[1:])
    divisor = draws.BELL_SIZE * math.sqrt(features) if desk.norm == "l2" else 255.0
    # Steps that drown in the rounding of the points tell nothing.
    least = 32 * torch.finfo(points.dtype).eps * _span(desk)
    scale = (size / divisor).clamp(min=least / draws.BELL_SIZE)
    # What an end of the box holds back is no part of the step.
    floor = torch.where(points <= desk.low, 0.0, -_NO_END).float()
    ceiling = torch.where(points >= desk.high, 0.0, _NO_END).float()
    signed, plain = torch.zeros((2, len(owner), features), device=points.device)
    crossed = torch.zeros(len(owner), device=points.device)
    place = torch.arange(len(owner), device=points.device).repeat_interleave(count)
    number = torch.arange(len(place), device=points.device) - (count.cumsum(0) - count)[place]
    for first in range(0, len(place), desk.rows):
        rows, step = place[first : first + desk.rows], number[first : first + desk.rows]
        who = owner[rows]
        noise = draws.bell(stream, desk.problem.ids[who], step=step, shape=tuple(shape[1:]))
        noise.clamp_(floor.index_select(0, rows), ceiling.index_select(0, rows))
        asked = (noise * spread(scale[rows], noise)).add_(points.index_select(0, rows))
        sign = desk.reached(asked, who).float().mul_(2.0).sub_(1.0)
        low, high = int(rows[0]), int(rows[-1]) + 1
        own = (rows == torch.arange(low, high, device=rows.device).unsqueeze(1)).float()
        signed[low:high] += (own * sign) @ noise.flatten(1)
        plain[low:high] += own @ noise.flatten(1)
        crossed[low:high] += own @ sign
    share = crossed.double() / count
    share = torch.where(share.abs() == 1.0, 0.0, share).unsqueeze(1)
    return ((signed.double() - share * plain.double()) / count.unsqueeze(1)).to(points.dtype).reshape(shape)


def leap(desk: Desk, owner: Tensor, points: Tensor, slope: Tensor, turn: int) -> Tensor:
    """Step up `slope`, half as far each time until the goal stays reached; the point itself where nothing is found.

    Args:
        desk: where to ask.
        owner: int64 (m,), ascending, distinct.
        points: (m, ...), where the goal is reached.
        slope: (m, ...), as `estimate` gives it.
        turn: number of this step, from 1; the first try is the distance from the input over its root.

    Returns:
        (m, ...), points that were asked about and reach their goals, or those of `points`.
    """
    norm = "linf" if desk.norm == "linf" else "l2"
    direction, found = steepest(slope, norm), points.clone()
    reach = distances(points, desk.inputs[owner], norm).to(points.dtype) / math.sqrt(turn)
    pending = torch.arange(len(owner), device=owner.device)
    for _ in range(_HALVINGS):
        pending = pending[desk.left[owner[pending]] > 0]
        if not len(pending):
            break
        asked = direction[pending].mul_(spread(reach[pending], points)).add_(points[pending])
        won = desk.reached(asked, owner[pending])
        found[pending[won]] = asked[won]
        reach /= 2
        pending = pending[~won]
    return found
