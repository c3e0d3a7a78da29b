"""The loop that drives every iterative attack: active set, refill, verified success, exact ledger.

Samples sit in the rows of one physical batch. A row whose point reaches the goal claims a success and stands still;
once enough rows wait, claims are verified in forwards of fixed shape, verified samples leave, waiting samples take
their rows, and when none waits the batch shrinks. A refused claim goes on from its point. Because a claim stands
still until it is judged, a sample's outcome does not depend on its company or on when the host looks.

Success is read from the forward that also gives the gradient, so a step costs one forward and one backward.

When not: attacks that must look at several samples at once (universal perturbations) need another loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vambrace.core.progress import silent
from vambrace.ops.norms import distances, peaks
from vambrace.ops.projections import tighten
from vambrace.search.judge import Oracle, judge
from vambrace.search.layout import choose_format
from vambrace.search.pace import bucket, choose_pace
from vambrace.search.rule import Origin
from vambrace.search.slots import BROKEN, CLAIMED, ENDED, LIVE, VACANT, Slots
from vambrace.search.tally import Tally

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.progress import Progress
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Rule, Tensors

__all__ = ["search"]


def search(problem: Problem, rule: Rule, *, name: str = "search", progress: Progress = silent) -> Attacked:
    """Search every sample of `problem` for a point that reaches its goal, as `rule` goes about it.

    Args:
        problem: checked arguments, from `vambrace.search.problem.pose`.
        rule: what one attack adds to the loop.
        name: for `progress`.
        progress: told how many samples are done.

    Raises:
        ModelMisbehaved: E405, E406, for a model without gradients or with answers of the wrong form.
    """
    if not len(problem.inputs):
        return Tally(problem).outcome(rule.norm, forwards=0, backwards=0, padding=(0, 0))
    device = problem.inputs.device.type
    # What the caller has switched on around the call (inference mode, autocast) must not reach the search.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        run = _Search(problem, rule)
        progress.start(name, len(problem.inputs))
        try:
            while len(run.slots):
                done = run.turn()
                if done:
                    progress.advance(name, done)
        finally:
            progress.finish(name)
        return run.outcome()


class _Search:
    """One call of `search`: the rows, the samples that wait, and the counts."""

    def __init__(self, problem: Problem, rule: Rule) -> None:
        self._problem = problem
        self._rule = rule
        self._oracle = Oracle(problem.model)
        self._tally = Tally(problem)
        self._device = problem.inputs.device
        self._pace = choose_pace(problem.model, self._device.type, problem.batch_size)
        self._padding = [0, 0]
        self._pads = 0
        self._next = min(problem.batch_size, len(problem.inputs))
        if rule.gradient:
            choose_format(self._oracle, problem.inputs, self._next)
            self._padding = [self._oracle.forwards, self._oracle.backwards]
        self.slots = self._filled(torch.arange(self._next, device=self._device))
        self._goal = problem.goal.take(self.slots.index)
        self._left = rule.steps

    def turn(self) -> int:
        """Step until the host looks, then settle what happened; how many samples are done with."""
        looks = max(1, min(self._pace.look_every, self._left + 1))
        for passed in range(looks):
            self._advance(stepping=passed < self._left)
        return self._settle()

    def outcome(self) -> Attacked:
        """What was found, once no row is left."""
        oracle, (forward_pads, backward_pads) = self._oracle, self._padding
        return self._tally.outcome(
            self._rule.norm,
            forwards=oracle.forwards,
            backwards=oracle.backwards,
            padding=(forward_pads, backward_pads),
        )

    def _advance(self, *, stepping: bool) -> None:
        """Evaluate every row once; step those that go on.

        Args:
            stepping: False where the host knows that no row has a step left.
        """
        slots, rule = self.slots, self._rule
        wants = stepping and rule.gradient
        with torch.set_grad_enabled(wants):
            point = slots.state["point"].detach().requires_grad_(wants)
            logits = self._oracle.logits(point)
            objective = rule.objective(logits, self._goal)
        self._padding[0] += self._pads
        margin, won, finite = judge(logits.detach(), self._goal)
        live = slots.status == LIVE
        counted = live & ~slots.retry
        slots.forwards += counted
        slots.best = torch.where(live & finite, slots.best.fmax(margin), slots.best)
        over = slots.step >= rule.steps
        slots.status.masked_fill_(live & over, ENDED).masked_fill_(counted & won, CLAIMED)
        slots.status.masked_fill_(live & ~finite, BROKEN)
        moving = slots.status == LIVE
        if not stepping or (self._pace.look_every == 1 and not bool(moving.any())):
            return
        gradient = None
        if wants:
            gradient = self._oracle.gradient(objective, point)
            self._padding[1] += self._pads
            slots.backwards += moving
            slots.zeros += moving & (peaks(gradient) == 0)
        risen = objective.detach()
        slots.hold(moving, lambda: rule.step(slots.anchor, slots.state, risen, gradient))
        slots.step += moving
        slots.retry &= ~moving

    def _settle(self) -> int:
        """Verify, restart, retire, refill and shrink, once enough rows wait for it; how many samples are done with."""
        status = self._look()
        waits = self._next < len(self._problem.inputs)
        live, vacant = status.count(LIVE), status.count(VACANT)
        pending = len(status) - live - vacant
        share = self._pace.pending_share if waits else self._pace.vacant_share
        ready = pending if waits else pending + vacant
        if live and (not pending or ready < share * len(status)):
            return 0
        done = self._confirm(self._rows(status, CLAIMED)) + self._end(self._rows(status, ENDED))
        # Verification can meet logits that are not finite, so the broken rows are asked for after it.
        broken = self._rows(self._look(), BROKEN)
        done += self._retire(broken, self._tight(broken))
        self._refill()
        return done

    def _look(self) -> list[int]:
        """The status of every row, on the host; where it waits for the device."""
        slots = self.slots
        status, step = torch.stack((slots.status.long(), slots.step)).tolist()
        pairs = zip(status, step, strict=True)
        self._left = max((self._rule.steps - taken for state, taken in pairs if state == LIVE), default=0)
        return status

    def _rows(self, status: list[int], wanted: int) -> Tensor:
        rows = [row for row, state in enumerate(status) if state == wanted]
        return torch.tensor(rows, dtype=torch.int64, device=self._device)

    def _tight(self, rows: Tensor) -> Tensor:
        """The points of `rows` as they would be handed back."""
        given = self._problem.inputs[self.slots.index[rows]]
        points = self.slots.state["point"][rows]
        return tighten(points, given, self._rule.eps, self._rule.norm, self._problem.model.bounds)

    def _confirm(self, rows: Tensor) -> int:
        """Judge claims at the points as they would be saved; a refused one goes on from where it stood."""
        if not len(rows):
            return 0
        slots, problem = self.slots, self._problem
        index, points = slots.index[rows], self._tight(rows)
        size = self._pace.confirm_rows
        answers: list[Tensor] = []
        for part in points.split(size):
            missing = size - len(part) if self._pace.padded else 0
            self._padding[0] += missing
            asked = torch.cat((part, part[-1:].expand(missing, *part.shape[1:])))
            answers.append(self._oracle.logits(asked)[: len(part)])
        margin, won, finite = judge(torch.cat(answers), problem.goal.take(index))
        passed = won & (distances(points, problem.inputs[index], self._rule.norm) <= self._rule.eps)
        slots.checks[rows] += 1
        slots.retry[rows] = True
        slots.status[rows] = torch.where(finite, LIVE, BROKEN).to(torch.int8)
        slots.best[rows] = torch.where(passed, margin.float(), slots.best[rows])
        return self._retire(rows[passed], points[passed], success=True)

    def _end(self, rows: Tensor) -> int:
        """Start again where a sample has restarts left, and let the others go."""
        slots, rule = self.slots, self._rule
        again = slots.restart[rows] + 1 < rule.restarts
        over, rows = rows[~again], rows[again]
        if len(rows):
            slots.restart[rows] += 1
            slots.step[rows] = 0
            slots.retry[rows] = False
            slots.status[rows] = LIVE
            anchor = {name: tensor[rows] for name, tensor in slots.anchor.items()}
            fresh = rule.start(self._origin(slots.index[rows]), anchor, slots.restart[rows])
            for name, tensor in slots.state.items():
                tensor[rows] = fresh[name]
        return self._retire(over, self._tight(over))

    def _retire(self, rows: Tensor, points: Tensor, *, success: bool = False) -> int:
        """Write down what was found for the samples in `rows`, and free the rows."""
        slots, tally = self.slots, self._tally
        index = slots.index[rows]
        tally.adversarial[index] = points
        tally.success[index] = success
        tally.finite[index] = slots.status[rows] != BROKEN
        tally.margin[index] = slots.best[rows]
        tally.forwards[index] = slots.forwards[rows]
        tally.backwards[index] = slots.backwards[rows]
        tally.verifications[index] = slots.checks[rows]
        tally.zero_gradients[index] = slots.zeros[rows]
        slots.status[rows] = VACANT
        return len(rows)

    def _refill(self) -> None:
        """Give free rows to the samples that wait; shrink the batch when none does."""
        slots = self.slots
        status = self._look()
        free = self._rows(status, VACANT)
        waiting = len(self._problem.inputs) - self._next
        if waiting and len(free):
            free = free[:waiting]
            index = torch.arange(self._next, self._next + len(free), device=self._device)
            self._next += len(free)
            slots.put(free, self._filled(index))
            self._left = self._rule.steps
        if not waiting:
            kept = self._rows(status, LIVE)
            size = bucket(len(kept), len(slots)) if self._pace.padded else len(kept)
            if size < len(slots):
                self._pads = size - len(kept)
                slots.shrink(torch.cat((kept, kept[-1:].expand(self._pads))))
                slots.status[len(kept) :] = VACANT
        self._goal = self._problem.goal.take(slots.index)

    def _filled(self, index: Tensor) -> Slots:
        """Rows that hold the samples at `index` at their first start."""
        origin = self._origin(index)
        anchor = self._laid(self._rule.anchor(origin))
        state = self._rule.start(origin, anchor, torch.zeros_like(index))
        return Slots(index=index, anchor=anchor, state=self._laid(state))

    def _laid(self, tensors: Tensors) -> dict[str, Tensor]:
        """Tensors of the shape of images in the memory format that the model computes in."""
        form = self._oracle.memory_format
        return {
            name: tensor.contiguous(memory_format=form) if tensor.dim() == self._problem.inputs.dim() else tensor
            for name, tensor in tensors.items()
        }

    def _origin(self, index: Tensor) -> Origin:
        problem = self._problem
        return Origin(
            inputs=problem.inputs[index],
            ids=problem.ids[index],
            start=None if problem.start is None else problem.start[index],
            bounds=problem.model.bounds,
            rng=problem.rng,
        )
