"""The counter at which black-box attacks ask: queries counted by sample, the closest success kept, claims verified.

A black-box attack walks many samples in lock step, each by its own state. It hands over rows of points with the sample
that each belongs to, and gets back which of them reach the goal. `Desk` splits the rows into calls of at most one
physical batch, charges every row to its sample, and remembers for each sample the closest point that ever reached the
goal; the attack decides where to ask next and stops asking about samples whose budget is spent. Nothing at the desk
depends on who asks beside a sample, nor on how rows are cut into calls.

    def work(desk: Desk) -> None:
        desk.ask_inputs()
        while len(live := desk.live()):
            desk.reached(propose(desk.inputs[live]), live)
            desk.settle()

    outcome = serve(problem, work, norm="l2", budget=1000, name="mine")

When not: attacks that need gradients, and attacks of a fixed number of steps, run on `vambrace.search.loop`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vambrace.core.access import Access
from vambrace.core.findings import Cost
from vambrace.core.progress import silent
from vambrace.ops.grid import fitted
from vambrace.ops.norms import distances
from vambrace.ops.projections import inner_box
from vambrace.search.judge import Oracle, judge, pushes
from vambrace.search.outcome import Attacked
from vambrace.search.pace import choose_pace
from vambrace.search.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from vambrace.core.options import Norm
    from vambrace.core.progress import Progress
    from vambrace.search.problem import Problem

__all__ = ["Desk", "serve"]

_BATCHES, _ELEMENTS = 4, 1 << 20  # of one request at most


def serve(
    problem: Problem,
    work: Callable[[Desk], None],
    *,
    norm: Norm,
    budget: int,
    enough: float = 0.0,
    name: str = "search",
    progress: Progress = silent,
) -> Attacked:
    """Run an attack on every sample, in groups of at most one physical batch, so that its state stays that large.

    Args:
        problem: checked arguments, from `vambrace.search.problem.pose`.
        work: one attack; asks the desk it is given until no sample is live or it has nothing more to ask.
        norm: what distances are measured in.
        budget: queries a sample, >= 1; verifications come on top.
        enough: a sample is done once a verified success lies within this distance.
        name: for `progress`.
        progress: told how many samples are done.
    """
    count, device = len(problem.inputs), problem.inputs.device
    if not count:
        return Tally(problem).outcome(norm, forwards=0, backwards=0, padding=(0, 0))
    found: list[Attacked] = []
    # What the caller has switched on around the call (inference mode, autocast) must not reach the search.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        progress.start(name, count)
        try:
            for first in range(0, count, problem.batch_size):
                index = torch.arange(first, min(first + problem.batch_size, count), device=device)
                desk = Desk(problem.take(index), norm=norm, budget=budget, enough=enough)
                work(desk)
                found.append(desk.outcome())
                progress.advance(name, len(index))
        finally:
            progress.finish(name)
    return _joined(found)


class Desk:
    """Queries about n samples of one problem.

    Rows of a call belong to samples by `owner`, int64 (q,), which must not decrease. What an attack may read:

    Attributes:
        problem: of these n samples.
        norm: of distances.
        enough: distance at which a verified success ends a sample; at 0 only an input that is wrong already does.
        low: smallest valid value, broadcasting against a sample.
        high: largest valid value.
        left: int64 (n,), queries that a sample may still ask; 0 once it is done or not finite.
        closest: (n, ...), the closest point so far that reached the goal; the input where none did.
        distance: float64 (n,), of `closest` from the input as measured on the points as saved; inf where none did.
        finite: bool (n,), False once any logit of a sample was NaN or infinite.
    """

    def __init__(self, problem: Problem, *, norm: Norm, budget: int, enough: float = 0.0) -> None:
        inputs = problem.inputs
        count = len(inputs)
        self.problem = problem
        self.norm: Norm = norm
        self.enough = enough
        self.low, self.high = inner_box(problem.model.bounds, inputs)
        # Numbers where one serves all elements: clamping by tensors costs ten times as much.
        self._ends = (self.low, self.high) if self.low.dim() else (float(self.low), float(self.high))
        self.left = torch.full((count,), budget, dtype=torch.int64, device=inputs.device)
        self.closest = inputs.clone()
        self.distance = torch.full((count,), math.inf, dtype=torch.float64, device=inputs.device)
        self.finite = torch.ones(count, dtype=torch.bool, device=inputs.device)
        self._oracle = Oracle(problem.model, problem.most_class)
        self._scored = problem.model.access >= Access.SCORES
        self._pace = choose_pace(problem.model, inputs.device.type, problem.batch_size)
        self._asked = 0  # rows asked by `predict`, which the oracle does not see
        self._tally = Tally(problem)
        self._tally.adversarial.copy_(inputs)
        # The first point that reached the goal lies deepest behind the decision: what verification falls back on.
        self._first = inputs.clone()
        self._seen = torch.full((2, count), -1, dtype=torch.int64, device=inputs.device)  # of the first, of the closest
        self._unopened = True  # whether any sample has no first point yet
        self._done = torch.zeros(count, dtype=torch.bool, device=inputs.device)

    @property
    def inputs(self) -> Tensor:
        """(n, ...), the samples as they came."""
        return self.problem.inputs

    @property
    def rows(self) -> int:
        """How many rows an attack should make and ask about at once.

        More than a physical batch where samples are small, since each request has a price of its own beside the model.
        """
        batch = self.problem.batch_size
        return max(batch, min(_BATCHES * batch, _ELEMENTS // max(1, self.inputs[:1].numel())))

    def live(self) -> Tensor:
        """The samples that may still ask: int64 (m,), ascending."""
        return (self.left > 0).nonzero().squeeze(1)

    def ask_inputs(self) -> Tensor:
        """Ask about the inputs themselves, one query a sample: bool (n,), whether the goal is reached there already."""
        everyone = torch.arange(len(self.inputs), device=self.inputs.device)
        if not self._scored:
            return self.reached(self.inputs.clone(), everyone)
        logits = self.logits(self.inputs.clone(), everyone)
        verdicts = judge(logits, self.problem.goal.margin(logits))
        self._tally.margin.copy_(torch.where(verdicts.finite, verdicts.margin, math.nan))
        return verdicts.won

    def reached(self, points: Tensor, owner: Tensor) -> Tensor:
        """Whether each point reaches the goal of its sample: bool (q,).

        By the predicted class on a model of LABELS access, else by a margin clearly above zero (`search.judge`).

        Args:
            points: (q, ...), like the inputs; clamped to the model's bounds in place.
            owner: int64 (q,), ascending, of samples with that many queries left.

        Raises:
            ModelMisbehaved: E401 to E404, for answers of the wrong form.
        """
        return self._ask(points, owner)[0]

    def measured(self, points: Tensor, owner: Tensor) -> Tensor:
        """How far from its input each point lies that reaches its goal, inf for others: float64 (q,); as `reached`."""
        return self._ask(points, owner)[2]

    def logits(self, points: Tensor, owner: Tensor) -> Tensor:
        """The model's logits (q, k) at each point; arguments as `reached`. Needs SCORES."""
        logits = self._ask(points, owner)[1]
        return points.new_zeros((0, 2)) if logits is None else logits

    def settle(self) -> None:
        """Verify the samples whose closest success is close enough; a verified one is done, a refused one goes on.

        To be called at moments that are a sample's own, such as the end of a step, and not between parts of one.
        """
        claims = self._claims(self.enough)
        if len(claims):
            self._confirm(claims, self.enough)
            self._forget(claims[~self._done[claims]])

    def outcome(self) -> Attacked:
        """What was found; verifies what is not verified yet. Censored samples come back as their input."""
        self.settle()
        claims = self._claims(torch.finfo(torch.float64).max)
        if len(claims):
            self._confirm(claims, math.inf)
        self._tally.finite.copy_(self.finite)
        physical = self._oracle.forwards + self._asked
        padding = (self._oracle.forward_pads, 0)
        return self._tally.outcome(self.norm, forwards=physical, backwards=0, padding=padding)

    def _claims(self, within: float) -> Tensor:
        """Samples with a success no further away than `within` that is not verified: int64 (m,)."""
        return ((self.distance <= within) & ~self._done & self.finite).nonzero().squeeze(1)

    def _ask(self, points: Tensor, owner: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Which points reach their goals, the logits where there are any, and how far those that do lie (else inf).

        All is charged and the closest kept.
        """
        counts = torch.bincount(owner, minlength=len(self.left))
        beyond = counts > self.left
        # A sample that met NaN has nothing left, but may be in the middle of questions that it could pay for.
        if bool(beyond.any()) and bool((beyond & self.finite).any()):
            raise RuntimeError("a sample was asked about beyond its budget")
        self._clip(points)
        points = points.to(self.inputs.dtype)  # what is judged is what is kept
        goal, logits = self.problem.goal.take(owner), None
        parts = _split(points, self.problem.batch_size)
        size = torch.full((len(points),), math.inf, dtype=torch.float64, device=owner.device)
        if not parts:
            return size < math.inf, None, size
        if self._scored:
            logits = _whole([self._oracle.logits(part) for part in parts])
            _, won, finite = judge(logits, goal.margin(logits))
            if not bool(finite.all()):
                self.finite[owner[~finite]] = False
        else:
            won = goal.reached(_whole([self._predict(part) for part in parts]))
        rows = won.nonzero().squeeze(1)
        if len(rows):
            if self._unopened:
                self._open(points, owner, rows)
            self._keep(points, owner, rows, size)
        self._tally.forwards += counts
        self.left -= counts
        self.left.masked_fill_(~self.finite, 0)
        return won, logits, size

    def _clip(self, points: Tensor) -> None:
        low, high = self._ends
        points.clamp_(low, high)  # type: ignore[arg-type]

    def _predict(self, points: Tensor) -> Tensor:
        self._asked += len(points)
        return self.problem.model.predict(points.to(self.problem.model.dtype, copy=True))

    def _open(self, points: Tensor, owner: Tensor, rows: Tensor) -> None:
        """Take over the first point that reached the goal, for samples that had none."""
        new = rows[_firsts(owner[rows]) & (self._seen[0, owner[rows]] < 0)]
        if len(new):
            who = owner[new]
            self._first[who] = points[new]
            self._seen[0, who] = self._number(owner, new)
            self._unopened = bool((self._seen[0] < 0).any())

    def _keep(self, points: Tensor, owner: Tensor, rows: Tensor, size: Tensor) -> None:
        """Put how far the points at `rows`, all of which reached the goal, lie into `size`; take over closer ones."""
        who = owner.index_select(0, rows)
        found = distances(points.index_select(0, rows), self.inputs.index_select(0, who), self.norm)
        size.index_copy_(0, rows, found)
        before = self.distance.index_select(0, who)
        self.distance.scatter_reduce_(0, who, found, "amin")
        best = ((found == self.distance.index_select(0, who)) & (found < before)).nonzero().squeeze(1)
        best = best[_firsts(who[best])]
        who, rows = who.index_select(0, best), rows.index_select(0, best)
        self.closest.index_copy_(0, who, points.index_select(0, rows))
        self._seen[1, who] = self._number(owner, rows)

    def _number(self, owner: Tensor, rows: Tensor) -> Tensor:
        """How many-eth query of its sample a row is: those of earlier requests, and its place in this one."""
        who = owner[rows]
        return self._tally.forwards[who] + rows - torch.searchsorted(owner, who) + 1

    def _forget(self, index: Tensor) -> None:
        """Let refused samples go on as if nothing had been found yet."""
        self.closest[index] = self.inputs[index]
        self.distance[index] = math.inf
        self._seen[:, index] = -1
        self._unopened = True

    def _confirm(self, index: Tensor, within: float) -> None:
        """Verify the closest point of the samples at `index`, pushed outward where that fails, and then the first."""
        centre = self.inputs[index].double()
        for kept, name in ((self.closest, 1), (self._first, 0)):
            change = kept[index].double() - centre
            for push in (0.0, *pushes(quantised=self.problem.quantised)):
                rows = (~self._done[index] & self.finite[index]).nonzero().squeeze(1)
                if not len(rows):
                    return
                points = kept[index[rows]]
                if push:
                    points = (centre[rows] + change[rows] * (1.0 + push)).to(points.dtype)
                    self._clip(points)
                size = distances(points, self.inputs[index[rows]], self.norm)
                if self.problem.quantised and self.problem.model.bounds is not None:
                    box = self.problem.model.bounds
                    points, size = fitted(points, self.inputs[index[rows]], math.inf, self.norm, box)
                # An input that is wrong already cannot be pushed anywhere.
                sensible = (size <= within) & ((size > 0) | (push == 0))
                rows, points, size = rows[sensible], points[sensible], size[sensible]
                if len(rows):
                    self._verify(index[rows], points, size, self._seen[name, index[rows]])

    def _verify(self, index: Tensor, points: Tensor, size: Tensor, seen: Tensor) -> None:
        """Ask anew about `points` of the samples at `index`, and write down those that reach their goal again."""
        tally, goal = self._tally, self.problem.goal.take(index)
        if self._scored:
            tally.verifications[index] += 1
            logits = _whole([self._asked_alone(part) for part in _split(points, self._pace.confirm_rows)])
            margin, won, finite = judge(logits, goal.margin(logits))
            self.finite[index[~finite]] = False
            tally.margin[index[won]] = margin[won].float()
        else:
            won = torch.ones_like(index, dtype=torch.bool)
            for _ in range(2):
                rows = won.nonzero().squeeze(1)
                tally.verifications[index[rows]] += 1
                parts = [self._predict(part) for part in _split(points[rows], self.problem.batch_size)]
                won[rows] = goal.take(rows).reached(_whole(parts)) if parts else won[rows]
        index = index[won]
        tally.adversarial[index] = points[won]
        tally.distance[index] = size[won]
        tally.success[index] = True
        tally.first_success[index] = seen[won]
        self._done[index] = True
        self.left.masked_fill_(self._done | ~self.finite, 0)

    def _asked_alone(self, points: Tensor) -> Tensor:
        """Logits at points in a call of fixed shape, filled up with copies unless the model counts queries."""
        missing = self._pace.confirm_rows - len(points) if self._pace.padded else 0
        asked = torch.cat((points, points[-1:].expand(missing, *points.shape[1:])))
        return self._oracle.logits(asked, pads=missing, exact=True)[: len(points)]


def _firsts(values: Tensor) -> Tensor:
    """Where ascending values (m,) differ from the one before: bool (m,)."""
    return torch.diff(values, prepend=values.new_full((1,), -1)) != 0


def _split(points: Tensor, size: int) -> tuple[Tensor, ...]:
    return cast("tuple[Tensor, ...]", points.split(size)) if len(points) else ()


def _whole(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined(parts: list[Attacked]) -> Attacked:
    """The outcome over all groups, in their order."""
    names = [field.name for field in dataclasses.fields(Attacked) if isinstance(getattr(parts[0], field.name), Tensor)]
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    cost = sum((part.cost for part in parts), Cost())
    return dataclasses.replace(parts[0], **whole, cost=cost)
