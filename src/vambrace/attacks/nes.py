"""NES: gradients of scores estimated from queries, for three kinds of black box. Largest change per element.

    >>> from vambrace.attacks import NES
    >>> NES(eps=0.05).needs.name, NES(scene="label").needs.name
    ('SCORES', 'LABELS')

| scene     | needs  | what it uses of an answer    | where it starts, and what eps is                          |
|-----------|--------|------------------------------|-----------------------------------------------------------|
| "query"   | SCORES | all scores                   | at the input, or at `start`; eps, required, is kept fixed |
| "partial" | SCORES | scores of the `top` classes  | at `start`, where the goal is reached; the radius shrinks |
| "label"   | LABELS | the class                    | as "partial"                                              |

With labels alone a point is worth the share of a few random points near it that reach the goal. Its worth is otherwise
the goal's margin, so every goal works; an untargeted one also finds its own start (`vambrace.attacks.opening`).

Differences from the paper: directions are cheap near-normal whole numbers; the value is a margin and not a probability.
Every sample has its own step size and its own noise.

Reference: Ilyas, Engstrom, Athalye, Lin 2018, "Black-box Adversarial Attacks with Limited Queries and Information",
arXiv 1804.08598, sections 2.1 (query), 2.2 with algorithm 1 (partial) and 2.3 (label).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from vambrace.attacks.curve import Curve, radii, trace
from vambrace.attacks.fixed import require_option
from vambrace.attacks.nearest import Nearest, censored
from vambrace.attacks.opening import opened, require_start
from vambrace.core.access import Access
from vambrace.core.options import Norm, Ratio
from vambrace.core.progress import silent
from vambrace.ops import draws
from vambrace.ops.norms import distances
from vambrace.ops.projections import ball_box
from vambrace.ops.rows import spread
from vambrace.search.desk import Desk, serve
from vambrace.search.problem import require_radius

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from vambrace.core.goals import Goal
    from vambrace.core.progress import Progress
    from vambrace.core.rng import Streams
    from vambrace.models.contract import Model
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem

__all__ = ["NES", "Scene", "slope", "top_scores"]

Scene = Literal["query", "partial", "label"]

_MOMENTUM = 0.9
_PLATEAU = 5
_LEAST_STEP = 2.0**-9  # of the first one
_FIRST_CUT, _LEAST_CUT = 0.5, 2.0**-9  # of the radius
_PROPOSALS = 64  # along one estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class NES(Nearest):
    """Steps along the sign of an estimated gradient.

    Attributes:
        norm: "linf".
        eps: "query": the radius of the ball that is searched, required. Else: a verified success within it ends a
            sample's search; None: the radius shrinks until the budget is spent.
        scene: what the model is taken to tell; see the module.
        budget: queries a sample; verifications come on top.
        samples: points of one estimate, in opposite pairs; even.
        sigma: how far they lie from the point (one standard deviation an element), as a share of the box.
        step_size: first length of a step; None: a fifth of eps for "query", else 1 / 20 of the box.
        top: "partial": how many classes come with their scores.
        votes: "label": random points that stand for one value.
        vote_radius: "label": how far these lie from the point at most, as a share of the box.
    """

    name: ClassVar[str] = "nes"
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    norm: Norm = "linf"
    scene: Scene = "query"
    budget: int = 5000
    samples: int = 50
    sigma: Ratio = 1e-2
    step_size: Ratio | None = None
    top: int = 1
    votes: int = 10
    vote_radius: Ratio = 0.05

    def __post_init__(self) -> None:
        Nearest.__post_init__(self)
        require_option(
            self.scene in ("query", "partial", "label"), "scene", self.scene, '"query", "partial" or "label"'
        )
        require_option(self.scene != "query" or bool(self.eps), "eps", self.eps, 'a radius, for scene "query"')
        for name in ("budget", "top", "votes"):
            require_option(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        even = self.samples >= 2 and self.samples % 2 == 0
        require_option(even, "samples", self.samples, "an even number, 2 or more: points come in opposite pairs")
        for name in ("sigma", "vote_radius"):
            require_option(0 < getattr(self, name) < math.inf, name, getattr(self, name), "more than 0")
        require_option(
            self.step_size is None or 0 < self.step_size < math.inf, "step_size", self.step_size, "more than 0"
        )

    @property
    def needs(self) -> Access:  # pyright: ignore[reportIncompatibleVariableOverride]  it depends on the scene
        """LABELS for scene "label", else SCORES."""
        return Access.LABELS if self.scene == "label" else Access.SCORES

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """Serve every sample at the desk."""
        if self.scene == "query":
            work = functools.partial(_climb, options=self)
        else:
            require_start(problem)
            work = functools.partial(_close_in, options=self)
        return serve(
            problem, work, norm=self.norm, budget=self.budget, enough=self.enough, name=self.name, progress=progress
        )

    def curve(
        self,
        model: Model,
        inputs: Tensor,
        goal: Goal | Tensor,
        *,
        eps: Sequence[float | str],
        rng: Streams | int = 0,
        ids: Tensor | None = None,
        start: Tensor | None = None,
        batch_size: int | None = None,
        surrogates: Sequence[Model] | None = None,
        progress: Progress = silent,
    ) -> Curve:
        """See `Nearest.curve`. Scene "query" searches a ball of fixed radius, so each radius has a run of its own."""
        if self.scene != "query":
            return Nearest.curve(
                self,
                model,
                inputs,
                goal,
                eps=eps,
                rng=rng,
                ids=ids,
                start=start,
                batch_size=batch_size,
                surrogates=surrogates,
                progress=progress,
            )
        wanted = radii(eps)
        problem = self._posed(
            model, inputs, goal, rng=rng, ids=ids, start=start, batch_size=batch_size, surrogates=surrogates
        )
        require_radius(wanted[-1], self.norm, model, problem.inputs)

        def attack(part: Problem, radius: float) -> Attacked:
            return censored(dataclasses.replace(self, eps=radius)._ran(part, surrogates, progress), radius)

        return trace(problem, wanted, self.norm, attack)


def _climb(desk: Desk, *, options: NES) -> None:
    """Scene "query": up the margin inside a fixed ball, all samples at one desk in lock step."""
    stream, start = desk.problem.rng.child("nes"), desk.problem.start
    desk.ask_inputs()
    desk.settle()
    owner = desk.live()
    low, high = ball_box(desk.inputs[owner], options.enough, desk.problem.model.bounds)
    points = (desk.inputs if start is None else start)[owner].clamp(low, high)
    first = options.enough / 5 if options.step_size is None else options.step_size
    step = torch.full((len(owner),), first, dtype=torch.float64, device=owner.device)
    push = torch.zeros_like(points, dtype=torch.float64)
    # Margins of the last steps of one size, the newest last.
    past = torch.full((len(owner), _PLATEAU), math.nan, dtype=torch.float64, device=owner.device)
    value = functools.partial(_margin, desk)
    turn = 0
    while True:
        turn += 1
        if turn > 1 or start is not None:
            now = value(points.clone(), owner)
            desk.settle()
            past = torch.cat((past[:, 1:], now.unsqueeze(1)), dim=1)
            worse = past[:, -1] < past[:, 0]  # False while there are too few
            step = torch.where(worse, (step / 2).clamp(min=first * _LEAST_STEP), step)
            past.masked_fill_(worse.unsqueeze(1), math.nan)
        # An estimate is of no use when nothing is left to ask about where it leads.
        kept = (desk.left[owner] >= 3).nonzero().squeeze(1)
        if not len(kept):
            return
        owner, points, low, high = owner[kept], points[kept], low[kept], high[kept]
        step, push, past = step[kept], push[kept], past[kept]
        pairs = ((desk.left[owner] - 1) // 2).clamp(max=options.samples // 2)
        found = slope(desk, owner, points, pairs, options.sigma * _span(desk), stream.child("pairs", turn), value)
        push = push * _MOMENTUM + found * (1.0 - _MOMENTUM)
        points = (push.sign().to(points.dtype) * spread(step.to(points.dtype), points)).add_(points).clamp_(low, high)


def _close_in(desk: Desk, *, options: NES) -> None:
    """Scenes "partial" and "label": from a point that reaches the goal into ever smaller balls around the input."""
    stream, span = desk.problem.rng.child("nes"), _span(desk)
    owner, points = opened(desk, stream.child("opening"))
    first = span / 20 if options.step_size is None else options.step_size
    step = torch.full((len(owner),), first, dtype=torch.float64, device=owner.device)
    cut = torch.full_like(step, _FIRST_CUT)
    price = options.votes if options.scene == "label" else 1
    turn = 0
    while True:
        desk.settle()
        kept = (desk.left[owner] > 2 * price).nonzero().squeeze(1)
        if not len(kept):
            return
        turn += 1
        owner, points, step, cut = owner[kept], points[kept], step[kept], cut[kept]
        pairs = ((desk.left[owner] - 1) // (2 * price)).clamp(max=options.samples // 2)
        if options.scene == "label":
            votes = stream.child("votes", turn)
            value = functools.partial(_vote, desk, stream=votes, votes=price, radius=options.vote_radius * span)
        else:
            value = functools.partial(_margin, desk, top=options.top)
        found = slope(desk, owner, points, pairs, options.sigma * span, stream.child("pairs", turn), value, price)
        way = found.sign().to(points.dtype)
        radius = distances(points, desk.inputs[owner], "linf")
        pending = torch.arange(len(owner), device=owner.device)
        for _ in range(_PROPOSALS):
            pending = pending[desk.left[owner[pending]] > 0]
            if not len(pending):
                break
            inputs = desk.inputs[owner[pending]]
            room = spread((radius[pending] * (1.0 - cut[pending])).to(points.dtype), inputs)
            moved = (way[pending] * spread(step[pending].to(points.dtype), inputs)).add_(points[pending])
            moved = inputs + (moved - inputs).clamp_(-room, room)
            won = desk.reached(moved, owner[pending])
            points[pending[won]] = moved[won]
            step, cut, over = _adjusted(step, cut, pending, won, first)
            pending = pending[~won & ~over]


def _adjusted(step: Tensor, cut: Tensor, pending: Tensor, won: Tensor, first: float) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths of steps (m,) and cuts of the radius (m,) after proposals of the samples `pending`; which gave up.

    After a success both may grow again. After a failure the step is halved; where it is at its least, it starts anew
    with half the cut; where that is nothing already, this estimate leads nowhere.
    """
    length, share = step[pending], cut[pending]
    short = length <= first * _LEAST_STEP * 2
    over = ~won & short & (share == 0.0)
    less = torch.where(share > _LEAST_CUT, share / 2, 0.0)
    grown = (share * 2).clamp(min=_LEAST_CUT, max=_FIRST_CUT)
    share = torch.where(won | over, grown, torch.where(short, less, share))
    length = torch.where(won | short, torch.where(won, length * 2, first).clamp(max=first), length / 2)
    return step.index_copy(0, pending, length), cut.index_copy(0, pending, share), over


def slope(
    desk: Desk,
    owner: Tensor,
    points: Tensor,
    pairs: Tensor,
    sigma: float,
    stream: Streams,
    value: Callable[[Tensor, Tensor], Tensor],
    price: int = 1,
) -> Tensor:
    """The direction in which the value rises: the sum over noise u of (value(x + sigma u) - value(x - sigma u)) u.

    Args:
        desk: gives ids, and how many rows to make at once.
        owner: int64 (m,), ascending, distinct: whose points these are.
        points: (m, ...).
        pairs: int64 (m,), >= 1: how much noise each gets; no two draws are the same.
        sigma: size of the noise, one standard deviation an element.
        stream: of the draws; one for each estimate.
        value: points (q, ...) and their owners (q,) to what is to rise, (q,).
        price: queries of one value.

    Returns:
        float64 (m, ...), of any length.
    """
    total = torch.zeros((len(owner), points[:1].numel()), dtype=torch.float64, device=points.device)
    place = torch.arange(len(owner), device=points.device).repeat_interleave(pairs)
    number = torch.arange(len(place), device=points.device) - (pairs.cumsum(0) - pairs)[place]
    size = max(1, desk.rows // (2 * price))
    for first in range(0, len(place), size):
        rows, step = place[first : first + size], number[first : first + size]
        who = owner[rows]
        noise = draws.bell(stream, desk.problem.ids[who], step=step, shape=tuple(points.shape[1:]))
        change = noise.to(points.dtype) * (sigma / draws.BELL_SIZE)
        centre = points.index_select(0, rows)
        asked = torch.stack((centre + change, centre - change), dim=1).flatten(0, 1)
        worth = value(asked, who.repeat_interleave(2)).double().reshape(-1, 2)
        rise = (worth[:, 0] - worth[:, 1]).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        low, high = int(rows[0]), int(rows[-1]) + 1
        own = (rows == torch.arange(low, high, device=rows.device).unsqueeze(1)).double()
        # In float64, so that how the noise is split into requests does not show.
        total[low:high] += (own * rise) @ noise.flatten(1).double()
    return total.reshape(points.shape)


def top_scores(logits: Tensor, top: int) -> Tensor:
    """Logits (q, k) as the logarithms of probabilities, as far as those of the `top` classes tell of the others.

    No other class can have more than the least of these, nor more than what they leave of 1: that is what it gets.

    >>> top_scores(torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log(), 1).exp()
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    >>> top_scores(torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log(), 1).exp()
    tensor([[0.7000, 0.3000, 0.3000, 0.3000]])
    """
    scores = logits.log_softmax(dim=1)
    if top >= logits.shape[1]:
        return scores
    shown = scores.topk(top, dim=1)
    hidden = torch.ones_like(scores, dtype=torch.bool).scatter_(1, shown.indices, False)
    left = scores.masked_fill(~hidden, -math.inf).logsumexp(dim=1, keepdim=True)
    return torch.where(hidden, left.minimum(shown.values[:, -1:]), scores)


def _margin(desk: Desk, points: Tensor, owner: Tensor, *, top: int | None = None) -> Tensor:
    logits = desk.logits(points, owner).double()
    return desk.problem.goal.take(owner).margin(logits if top is None else top_scores(logits, top))


def _vote(desk: Desk, points: Tensor, owner: Tensor, *, stream: Streams, votes: int, radius: float) -> Tensor:
    """The share of random points near each that reach the goal; the same offsets serve all points of an estimate."""
    near = owner.repeat_interleave(votes)
    step = torch.arange(votes, device=owner.device).repeat(len(owner))
    noise = draws.bell(stream, desk.problem.ids[near], step=step, shape=tuple(points.shape[1:]))
    asked = (noise.to(points.dtype) * (radius / 255.0)).add_(points.repeat_interleave(votes, dim=0))
    return desk.reached(asked, near).double().reshape(-1, votes).mean(dim=1)


def _span(desk: Desk) -> float:
    bounds = desk.problem.model.bounds
    return 1.0 if bounds is None else bounds.span
