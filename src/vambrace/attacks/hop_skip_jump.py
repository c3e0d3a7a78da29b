"""HopSkipJump: walk along the decision of a model that gives labels only, always nearer to the input.

    >>> from vambrace.attacks import HopSkipJump
    >>> HopSkipJump(norm="linf", budget=1000).initial_queries
    20

Needs LABELS. At a point on the decision, the share of small random steps that stay across it tells the direction in
which it lies; a step that way, as long as it stays across, and a binary search back to the input give the next point.

Differences from the paper. Most of them save queries:

- An estimate goes on from those before it, whose weight falls by a tenth each turn. So a turn needs few random steps,
  and a budget buys many turns.
- In l2 each element of the estimate is shrunk by the share of noise in it, as far as that can be told (`trusted`), and
  the step and the way back are one binary search, along half a circle (`turned`): so a step is as long as its estimate
  is good.
- In the first eight turns the random steps on images are partly coarse (`attacks.steps`).
- Random steps are ten times as long as in the paper, and the binary searches as much less fine.
- The random steps are cheap near-normal whole numbers for both norms, not vectors of exactly one length, so that sums
  over them are exact; elements that lie at an end of the box are only moved inward, and the estimate counts the step as
  it was made.

References: Chen, Jordan, Wainwright 2020, "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack",
arXiv 1904.02144, algorithm 2; estimate and baseline: sections III.B and III.C; choice of sizes: section III.D.
Estimates that go on from earlier ones: Ilyas, Engstrom, Madry 2018, "Prior Convictions: Black-Box Adversarial Attacks
with Bandits and Priors", arXiv 1807.07978 (time-dependent priors). The half circle: Reza, Rahmati, Wu, Dai 2023, "CGBA:
Curvature-aware Geometric Black-box Attack", arXiv 2308.03163.
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
from vambrace.attacks.steps import LARGEST, deviation, smoothed, stepped
from vambrace.core.access import Access
from vambrace.core.options import Norm
from vambrace.ops import draws
from vambrace.ops.norms import distances, lengths, steepest
from vambrace.ops.rows import spread
from vambrace.search.desk import Desk, serve

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.progress import Progress
    from vambrace.core.rng import Streams
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem

__all__ = ["HopSkipJump", "estimate", "leap", "trusted", "turned"]

_COARSEST = 2.0**-10
_HALVINGS = 24
_FIRST_SIZE = 0.1
_LONGER = 10.0  # random steps and tolerances than in the paper
_COARSE_TURNS = 8
_KEPT = 0.9
_WINDOW = 5  # pixels along a side, over which energy is averaged
_LEAST = 0.1  # of the mean energy that an element is taken to have
_PEAK = 255.0 / draws.BELL_SIZE  # of `draws.bell`, in standard deviations
_AT_ONCE = 8192  # rows whose sums are exact in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJump(Nearest):
    """The nearest point across the decision that a budget of queries finds.

    Attributes:
        norm: "l2" or "linf".
        eps: a verified success within this radius ends a sample's search; None: all of the budget is spent.
        budget: queries a sample; verifications come on top.
        initial_queries: random steps of the first turn; the t-th one takes sqrt(t) times as many.
    """

    name: ClassVar[str] = "hop_skip_jump"
    needs: ClassVar[Access] = Access.LABELS
    norms: ClassVar[tuple[Norm, ...]] = ("l2", "linf")
    budget: int = 5000
    initial_queries: int = 20

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(self.budget >= 1, "budget", self.budget, "1 or more")
        require_option(self.initial_queries >= 1, "initial_queries", self.initial_queries, "1 or more")

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
    # As fine as the part across the decision of a random step is large.
    tolerance = min(_LONGER * features**-1.5, _COARSEST)
    owner, far = opened(desk, stream.child("opening"))
    points = narrow(desk, owner, far, tolerance)
    size = torch.full_like(owner, 1, dtype=torch.float64).mul_(_FIRST_SIZE * _span(desk) * _unit(desk.norm, features))
    slopes, noise = torch.zeros_like(points, dtype=_wide(points)), torch.zeros_like(size)
    turn = 0
    while True:
        desk.settle()
        kept = (desk.left[owner] > 0).nonzero().squeeze(1)
        if not len(kept):
            return
        owner, points, size, slopes, noise = owner[kept], points[kept], size[kept], slopes[kept], noise[kept]
        turn += 1
        count = desk.left[owner].clamp(max=int(initial_queries * math.sqrt(turn)))
        coarse = turn <= _COARSE_TURNS
        more, chance = estimate(desk, owner, points, count, size, stream.child("steps", turn), coarse=coarse)
        slopes, noise = slopes.mul_(_KEPT).add_(more), noise.mul_(_KEPT**2).add_(chance)
        if desk.norm == "l2":
            points = turned(desk, owner, points, slopes * trusted(slopes, noise), tolerance)
        else:
            points = narrow(desk, owner, leap(desk, owner, points, slopes, turn), tolerance)
        size = distances(points, desk.inputs[owner], desk.norm) * (_LONGER / features)


def _span(desk: Desk) -> float:
    bounds = desk.problem.model.bounds
    return 1.0 if bounds is None else bounds.span


def _unit(norm: Norm, features: int) -> float:
    """A step of Euclidean length about 1, in the norm."""
    return 1.0 if norm == "l2" else math.sqrt(6.0 / features)


def _wide(points: Tensor) -> torch.dtype:
    return torch.promote_types(points.dtype, torch.float32)


def estimate(
    desk: Desk, owner: Tensor, points: Tensor, count: Tensor, size: Tensor, stream: Streams, *, coarse: bool
) -> tuple[Tensor, Tensor]:
    """The direction in which the decision is crossed, from random steps around points that lie on it.

    The sum over steps u of (s - mean s) u, with s = 1 where the goal is reached and -1 elsewhere; where all answers
    are equal, of s u. u are the whole numbers of `stepped`, by their standard deviation; what adds up are the whole
    numbers, so all sums are exact and any split gives the same.

    Args:
        desk: where to ask.
        owner: int64 (m,), ascending, distinct: whose points these are.
        points: (m, ...), inside the box.
        count: int64 (m,), steps of each, 1 or more, as many as its budget still allows.
        size: float64 (m,), about how long a step is (l2), or about the largest that an element of it is (linf).
        stream: of the draws; one for each turn.
        coarse: whether there is coarse noise in the steps.

    Returns:
        Sums (m, ...), in float32 or wider; and float64 (m,), the variance of an element of them, were all answers
        chance.
    """
    shape, features = tuple(points.shape[1:]), math.prod(points.shape[1:])
    unit = deviation(shape, coarse=coarse)
    # Steps that drown in the rounding of the points tell nothing.
    least = 32 * torch.finfo(points.dtype).eps * _span(desk)
    scale = (size / (math.sqrt(features) if desk.norm == "l2" else _PEAK)).clamp(min=least).div(unit).to(_wide(points))
    # What an end of the box holds back is no part of the step.
    floor = torch.where(points <= desk.low, 0.0, -LARGEST).float()
    ceiling = torch.where(points >= desk.high, 0.0, LARGEST).float()
    signed, plain = torch.zeros((2, len(owner), features), dtype=torch.float64, device=points.device)
    crossed = torch.zeros(len(owner), dtype=torch.float64, device=points.device)
    place = torch.arange(len(owner), device=points.device).repeat_interleave(count)
    number = torch.arange(len(place), device=points.device) - (count.cumsum(0) - count)[place]
    at_once = min(desk.rows, _AT_ONCE)
    for first in range(0, len(place), at_once):
        rows, step = place[first : first + at_once], number[first : first + at_once]
        who = owner[rows]
        noise = stepped(stream, desk.problem.ids[who], step=step, shape=shape, coarse=coarse)
        noise.clamp_(floor.index_select(0, rows), ceiling.index_select(0, rows))
        asked = (noise * spread(scale[rows], noise)).add_(points.index_select(0, rows))
        sign = desk.reached(asked, who).float().mul_(2.0).sub_(1.0)
        low, high = int(rows[0]), int(rows[-1]) + 1
        own = (rows == torch.arange(low, high, device=rows.device).unsqueeze(1)).float()
        signed[low:high] += (own * sign) @ noise.flatten(1)
        plain[low:high] += own @ noise.flatten(1)
        crossed[low:high] += own @ sign
    share = crossed / count
    share = torch.where(share.abs() == 1.0, 0.0, share)
    sums = (signed - share.unsqueeze(1) * plain) / unit
    return sums.to(_wide(points)).reshape(points.shape), count * (1.0 - share.square())


def trusted(slopes: Tensor, noise: Tensor) -> Tensor:
    """By what to multiply the elements of noisy slopes, so that they come nearest to the true ones: from 0 to 1.

    The share of the signal in the energy that is seen (Wiener's filter). The energy of an element is the mean around
    it and over all channels, on images, drawn toward the mean of the whole sample by as much as chance alone makes
    these energies differ (James and Stein's estimator): where nothing stands out, all elements are treated alike.

    Args:
        slopes: (m, ...), signal and noise.
        noise: float64 (m,), variance of the noise of an element, above 0.

    Returns:
        (m, ...), or (m, 1, h, w) for images.
    """
    chance = spread(noise.to(slopes.dtype), slopes)
    signal, averaged = slopes.square() - chance, 1
    if slopes.dim() == 4:
        signal, averaged = smoothed(signal, _WINDOW), _WINDOW**2 * slopes.shape[1]
    flat = signal.flatten(1)
    mean = spread(flat.mean(dim=1).clamp_(min=0.0), signal)
    # The square of a normal number of variance v has variance 2 v**2.
    told = 1.0 - (2.0 / averaged) * noise.square().to(flat.dtype) / flat.var(dim=1, correction=0).clamp_(min=1e-30)
    signal = (mean + (signal - mean) * spread(told.clamp_(min=0.0), signal)).clamp_(min=0.0) + mean * _LEAST
    return torch.where(mean > 0, signal / (signal + chance), 1.0)


def turned(desk: Desk, owner: Tensor, points: Tensor, slope: Tensor, tolerance: float) -> Tensor:
    """Turn the way from the input to the point toward `slope`, as far as the goal stays reached, and shorten it.

    The search is along half a circle from the point to the input, in the plane of the way and the slope: at the angle
    a lies the point whose distance is cos a times as large. Where the decision is flat, the circle crosses it at the
    nearest point of the plane.

    Args:
        desk: where to ask; in l2.
        owner: int64 (m,), ascending, distinct.
        points: (m, ...), where the goal is reached.
        slope: (m, ...), of any length, in float32 or wider.
        tolerance: of the angle, above 0.

    Returns:
        (m, ...), the last points that were asked about and reach their goals, or those of `points`.
    """
    inputs, found = desk.inputs[owner], points.clone()
    way = points.to(slope.dtype) - inputs
    # Slopes may be of any size: what is squared is of length 1.
    slope, ahead = steepest(slope, "l2"), steepest(way, "l2")
    across = slope - ahead * spread((slope * ahead).flatten(1).sum(dim=1), ahead)
    across = steepest(across, "l2") * spread(lengths(way, "l2"), way)
    low = torch.zeros(len(owner), dtype=torch.float64, device=owner.device)
    high = torch.full_like(low, math.pi / 2)
    for _ in range(math.ceil(math.log2(math.pi / 2 / tolerance))):
        rows = (desk.left[owner] > 0).nonzero().squeeze(1)
        if not len(rows):
            break
        angle = (low[rows] + high[rows]) / 2
        cosine, sine = (spread(each.to(way.dtype), way) for each in (angle.cos(), angle.sin()))
        asked = (way[rows] * cosine + across[rows] * sine).mul_(cosine).add_(inputs[rows]).to(points.dtype)
        won = desk.reached(asked, owner[rows])
        low[rows] = torch.where(won, angle, low[rows])
        high[rows] = torch.where(won, high[rows], angle)
        found[rows[won]] = asked[won]
    return found


def leap(desk: Desk, owner: Tensor, points: Tensor, slope: Tensor, turn: int) -> Tensor:
    """Step up `slope` in linf, half as far each time until the goal stays reached; the point itself where it never is.

    Args:
        desk: where to ask; in linf.
        owner: int64 (m,), ascending, distinct.
        points: (m, ...), where the goal is reached.
        slope: (m, ...), of any length, in float32 or wider.
        turn: number of this step, from 1; the first try is the distance from the input over its root.

    Returns:
        (m, ...), points that were asked about and reach their goals, or those of `points`.
    """
    direction, found = slope.sign().to(points.dtype), points.clone()
    reach = distances(points, desk.inputs[owner], "linf").to(points.dtype) / math.sqrt(turn)
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
