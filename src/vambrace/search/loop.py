"""The loop that drives every iterative attack: active set, refill, verified success, exact ledger.

Samples sit in the rows of one physical batch. A row whose point reaches the goal claims a success and stands still;
once enough rows wait, claims are verified in forwards of fixed shape, verified samples leave, waiting samples take
their rows, and when none waits the batch shrinks. A refused claim goes on from its point. Because a claim stands
still until it is judged, a sample's outcome does not depend on its company or on when the host looks.

Success is read from the forward that also gives the gradient, so a step costs one forward and one backward.

When not: attacks that must look at several samples at once (universal perturbations) need another loop.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch

from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.progress import silent
from vambrace.ops.grid import fitted
from vambrace.ops.norms import lengths
from vambrace.ops.projections import tighten
from vambrace.ops.rows import spread
from vambrace.search.ahead import Ahead
from vambrace.search.entry import Entry
from vambrace.search.judge import Oracle, Verdicts, judge, pushes
from vambrace.search.layout import choose_format
from vambrace.search.pace import bucket, choose_pace
from vambrace.search.slots import BROKEN, CLAIMED, ENDED, LIVE, VACANT
from vambrace.search.tally import Tally
from vambrace.search.views import Views, leaf

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.progress import Progress
    from vambrace.search.outcome import Attacked
    from vambrace.search.problem import Problem
    from vambrace.search.rule import Answer, Keeps, Rule, Tensors

__all__ = ["search"]

_NEARER = 1e-6
"""By this share a success must be nearer than the one kept: by less, rounding would decide which of them is."""


def search(problem: Problem, rule: Rule, *, name: str = "search", progress: Progress = silent) -> Attacked:
    """Search every sample of `problem` for a point that reaches its goal, as `rule` goes about it.

    Args:
        problem: checked arguments, from `vambrace.search.problem.pose`.
        rule: what one attack adds to the loop.
        name: for `progress`.
        progress: told how many samples are done.

    Raises:
        ModelMisbehaved: E401 to E405, for answers of the wrong form or without gradients.
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
        # Of several restarts that none may end early, the best point is meant for the other model.
        best = problem.withheld and rule.restarts > 1 and rule.keeps == "last"
        self._keeps: Keeps = "margin" if best else rule.keeps
        self._oracle = Oracle(problem.model, problem.most_class)
        self._tally = Tally(problem)
        self._device = problem.inputs.device
        self._pace = choose_pace(problem.model, self._device.type, problem.batch_size, gradient=rule.gradient)
        self._pads = 0
        self._next = min(problem.batch_size, len(problem.inputs))
        self._watching = self._pace.look_every == 1  # the host may ask about rows at any time
        self._views = Views(self._oracle, rule, problem.rng, watching=self._watching)
        if rule.gradient:
            choose_format(self._oracle, problem.inputs, self._next)
        # Points that are asked about ahead are idle rows when the search has moved: not for models that count.
        able = rule.ahead and not rule.gradient and self._pace.padded
        self._ahead = Ahead(self._oracle, rule, problem.batch_size) if able else None
        self._entry = Entry(problem, rule, self._oracle, keeping=self._keeps != "last")
        self.slots = self._entry.slots(torch.arange(self._next, device=self._device))
        self._goal = problem.goal.take(self.slots.index)
        # Where a goal is about the predicted class alone, the class shows sooner than the margin that nothing is won.
        self._labelled = type(problem.goal).margin in (Untargeted.margin, Targeted.margin)
        self._lag: int = 0  # steps of all live rows that `slots.step` does not hold yet
        # A search of thousands of forwards that carry no gradient makes up for the price of a new shape on CPU.
        self._bucketed = self._pace.padded and (rule.gradient or not self._watching)
        self._idle = 0  # how often rows that wait to be settled went along
        self._look()

    def turn(self) -> int:
        """Step until the host looks, then settle what happened; how many samples are done with."""
        calm, turns = False, max(1, min(self._pace.look_every, self._left + 1))
        for _ in range(turns):
            calm = self._advance()
        self._idle += turns * self._pending
        return 0 if calm and self._idle < self._pace.patience else self._settle()

    def outcome(self) -> Attacked:
        """What was found, once no row is left."""
        oracle = self._oracle
        return self._tally.outcome(
            self._rule.norm,
            forwards=oracle.forwards,
            backwards=oracle.backwards,
            padding=(oracle.forward_pads, oracle.backward_pads),
        )

    def _advance(self) -> bool:
        """Evaluate every row once and step those that go on; True where the host saw that nothing else happened."""
        slots, rule, ahead = self.slots, self._rule, self._ahead
        stepping = self._left > 0
        joined = stepping and rule.gradient and rule.sighted  # the forward that judges also gives a gradient
        if ahead is None:
            with torch.set_grad_enabled(joined):
                point = leaf(slots.state["point"], joined)
                logits, margin = self._oracle.logits(point, pads=self._pads), None
        else:
            self._soon -= ahead.reach
            free = self._watching and not self._waiting and self._soon > 0
            logits, margin = ahead.ask(slots, self._goal, self._pads, None if free else self._lag)
            point = slots.state["point"]
        known = logits.detach() if logits.requires_grad else logits
        plain = self._keeps == "last" and "over" not in slots.state
        calm = self._watching and self._soon > 0 and plain
        calm = calm and ((ahead is not None and ahead.calm) or self._is_calm(known))
        if calm:
            moving, still = self._open, self._still
            self._lag += 1
        else:
            self._catch_up()
            moving = self._note(judge(known, self._goal.margin(known) if margin is None else margin))
            still = (~moving).nonzero().squeeze(1) if self._watching else None
        self._left -= 1
        self._soon -= 1
        if not stepping or (still is not None and still.numel() == len(slots)):
            return False
        count = 1 if ahead is None else min(ahead.wanted(len(slots)), self._left + 1)
        answer = self._views.answer(slots, self._goal, logits, point, moving, self._pads, ahead=count, margin=margin)
        slots.hold(moving, still, lambda: self._stepped(answer))
        if not calm:
            slots.step += moving
            slots.retry &= ~moving
        return calm

    def _stepped(self, answer: Answer) -> Tensors:
        """The state that the rule goes on to; the points that it sees ahead lie with those who ask about them."""
        state = dict(self._rule.step(self.slots.anchor, self.slots.state, answer))
        if self._ahead is not None:
            self._ahead.points = state.pop("ahead", None)
        return state

    def _is_calm(self, logits: Tensor) -> bool:
        """Whether no row that searches can have won or broken; cheap, for it is asked at every step."""
        if not math.isfinite(logits.sum().item()):
            return False
        if self._problem.withheld:
            return True
        near = self._goal.reached(logits.argmax(dim=1)) if self._labelled else self._goal.margin(logits) > 0
        if "outside" in self.slots.state:
            near = near & ~self.slots.state["outside"]
        return not (near & self._open if self._waiting else near).any().item()

    def _note(self, verdicts: Verdicts) -> Tensor:
        """Write down how every row stands after an evaluation; which rows go on."""
        slots, (margin, won, finite) = self.slots, verdicts
        live = slots.status == LIVE
        known = live & finite
        slots.margin = torch.where(known, margin.double(), slots.margin)
        over = slots.step >= self._rule.steps
        if "over" in slots.state:
            over |= slots.state["over"]
        slots.status.masked_fill_(live & over, ENDED)
        claimed = live & won & ~slots.retry & (not self._problem.withheld)
        if "outside" in slots.state:
            claimed, known = claimed & ~slots.state["outside"], known & ~slots.state["outside"]
        if "found" in slots.state:
            slots.state["found"] |= live & won
        if self._keeps != "last":
            claimed = self._keep(known, claimed, margin)
        slots.status.masked_fill_(claimed, CLAIMED)
        slots.status.masked_fill_(live & ~finite, BROKEN)
        return slots.status == LIVE

    def _keep(self, known: Tensor, claimed: Tensor, margin: Tensor) -> Tensor:
        """Remember the points that are better than any before; which of the claims end a search."""
        slots, rule = self.slots, self._rule
        if self._keeps == "margin":
            slots.better(known & (margin > slots.score), margin.double(), self._spent(slots.taken_steps, slots.restart))
            return claimed
        distance = lengths(slots.state["point"] - slots.anchor["inputs"], rule.norm).double()
        # One that ends the search is judged at once; refused, it must not stand in the way of those further out.
        near = distance <= rule.enough
        better = claimed & ~near & (distance < -slots.score * (1.0 - _NEARER))
        slots.better(better, -distance, self._spent(slots.taken_steps, slots.restart))
        return claimed & near

    def _spent(self, steps: Tensor, restart: Tensor) -> Tensor:
        """Logical forwards up to and with the evaluation after `steps` steps in all, in restart number `restart`."""
        return steps * self._views.forwards + restart + 1 + self._rule.clean

    def _catch_up(self) -> None:
        """Add the steps that were taken without a note of them."""
        if self._lag:
            self.slots.step += self._open * self._lag
            self._lag = 0

    def _settle(self) -> int:
        """Verify, restart, retire, refill and shrink, once enough rows wait for it; how many samples are done with."""
        status = self._look()
        waits = self._next < len(self._problem.inputs)
        live, vacant = status.count(LIVE), status.count(VACANT)
        pending = len(status) - live - vacant
        share = self._pace.pending_share if waits else self._pace.vacant_share
        ready = pending if waits else pending + vacant
        if live and (not pending or (ready < share * len(status) and self._idle < self._pace.patience)):
            return 0
        self._idle = 0
        done = self._confirm(self._rows(status, CLAIMED)) + self._end(self._rows(status, ENDED))
        # Verification can meet logits that are not finite, so the broken rows are asked for after it.
        broken = self._rows(self._stand(), BROKEN)
        if len(broken):
            done += self._retire(broken, *self._tight(broken, self.slots.state["point"][broken]))
        if self._ahead is not None and (waits or done < pending):
            self._ahead.points = None  # rows start anew, or go on from where they stood
        self._refill()
        self._look()
        return done

    def _stand(self) -> list[int]:
        """The status of every row, and nothing else of it."""
        return cast("list[int]", self.slots.status.tolist())

    def _look(self) -> list[int]:
        """The status of every row, on the host; where it waits for the device."""
        slots = self.slots
        self._catch_up()
        status, step = cast("list[list[int]]", torch.stack((slots.status.long(), slots.step)).tolist())
        left = [self._rule.steps - taken for state, taken in zip(status, step, strict=True) if state == LIVE]
        self._left, self._soon = max(left, default=0), min(left, default=0)
        self._pending = len(status) - len(left) - status.count(VACANT)
        if self._watching:
            self._open = slots.status == LIVE
            self._still = (~self._open).nonzero().squeeze(1)
            self._waiting = len(self._still)
            if bool((slots.retry & self._open).any()):
                self._soon = 0  # such rows need a note
        return status

    def _rows(self, status: list[int], wanted: int) -> Tensor:
        rows = [row for row, state in enumerate(status) if state == wanted]
        return torch.tensor(rows, dtype=torch.int64, device=self._device)

    def _tight(self, rows: Tensor, points: Tensor, *, claims: bool = False) -> tuple[Tensor, Tensor]:
        """Points of the samples in `rows` as they would be handed back, and their distances."""
        rule, given = self._rule, self._problem.inputs[self.slots.index[rows]]
        eps, bounds = rule.enough if claims and self._keeps == "nearest" else rule.eps, self._problem.model.bounds
        points, distance = tighten(points, given, eps, rule.norm, bounds)
        if self._problem.quantised and bounds is not None:
            saved, size = fitted(points, given, eps, rule.norm, bounds)
            points = torch.where(spread(size.isfinite(), points), saved, points)
            distance = torch.where(size.isfinite(), size, torch.inf if claims else distance)
        return points, distance

    def _confirm(self, rows: Tensor) -> int:
        """Judge claims at the points as they would be saved; a refused one goes on from where it stood."""
        if not len(rows):
            return 0
        slots = self.slots
        points, distance = self._tight(rows, slots.state["point"][rows], claims=True)
        won, finite = self._verified(rows, points)
        passed = won & distance.isfinite()  # no success where the levels of 8-bit images leave no room
        slots.retry[rows] = True
        slots.status[rows] = torch.where(finite, LIVE, BROKEN).to(torch.int8)
        passed_rows = rows[passed]
        slots.met[passed_rows] = self._spent(slots.taken_steps[passed_rows], slots.restart[passed_rows])
        return self._retire(passed_rows, points[passed], distance[passed], success=True)

    def _crown(self, rows: Tensor) -> int:
        """Verify the nearest successes; a point that fails moves away from its input, further each time."""
        slots, done = self.slots, 0
        points, distance = self._tight(rows, slots.best[rows])
        for push in (*pushes(quantised=self._problem.quantised), None):
            won, finite = self._verified(rows, points)
            done += self._retire(rows[won], points[won], distance[won], success=True)
            slots.status[rows[~finite]] = BROKEN
            left = ~won & finite
            rows, points, distance = rows[left], points[left], distance[left]
            if not len(rows) or push is None:
                break
            inputs = slots.anchor["inputs"][rows]
            points, distance = self._tight(rows, inputs + (slots.best[rows] - inputs) * (1.0 + push))
        return done + self._retire(rows, points, distance)

    def _verified(self, rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Ask about points as they would be saved, in forwards of fixed shape: which are successes, which finite."""
        slots, size = self.slots, self._pace.confirm_rows
        answers: list[Tensor] = []
        for first in range(0, len(points), size):
            part = points[first : first + size]
            missing = size - len(part) if self._pace.padded else 0
            asked = torch.cat((part, part[-1:].expand(missing, *part.shape[1:])))
            answers.append(self._oracle.logits(asked, pads=missing, exact=True)[: len(part)])
        logits = torch.cat(answers)
        margin, won, finite = judge(logits, self._problem.goal.take(slots.index[rows]).margin(logits))
        slots.checks[rows] += 1
        slots.margin[rows] = torch.where(finite, margin.double(), slots.margin[rows])
        return won, finite

    def _end(self, rows: Tensor) -> int:
        """Start again where a sample has restarts left, and let the others go."""
        if not len(rows):
            return 0
        slots, rule = self.slots, self._rule
        again = rule.again({name: tensor[rows] for name, tensor in slots.anchor.items()}, slots.restart[rows])
        over, rows = rows[~again], rows[again]
        if len(rows):
            slots.restart[rows] += 1
            slots.past[rows] += slots.step[rows]
            slots.step[rows] = 0
            slots.retry[rows] = False
            slots.status[rows] = LIVE
            anchor, before = slots.taken(rows)
            fresh = rule.start(self._entry.origin(slots.index[rows]), anchor, slots.restart[rows], before)
            for name, tensor in slots.state.items():
                tensor[rows] = fresh[name]
        crowned = over[:0]
        if self._keeps == "nearest":
            found = slots.score[over] > -math.inf
            crowned, over = over[found], over[~found]
        done = self._crown(crowned) if len(crowned) else 0
        return done + self._retire(over, *self._tight(over, self._left_with(over)))

    def _left_with(self, rows: Tensor) -> Tensor:
        """What samples that were not broken are handed back."""
        slots = self.slots
        point = slots.state["point"][rows]
        if self._keeps != "margin":
            return point
        seen = slots.score[rows] > -math.inf
        slots.margin[rows] = torch.where(seen, slots.score[rows], slots.margin[rows])
        return torch.where(spread(seen, point), slots.best[rows], point)

    def _retire(self, rows: Tensor, points: Tensor, distance: Tensor, *, success: bool = False) -> int:
        """Write down what was found for the samples in `rows`, unmeasured ones without a margin, and free the rows."""
        slots, tally = self.slots, self._tally
        index, steps = slots.index[rows], slots.taken_steps[rows]
        tally.adversarial[index] = points
        tally.distance[index] = distance
        tally.success[index] = success
        tally.finite[index] = slots.status[rows] != BROKEN
        tally.margin[index] = slots.margin[rows].float().masked_fill_(~tally.finite[index], math.nan)
        tally.forwards[index] = self._spent(steps, slots.restart[rows])
        tally.backwards[index] = steps * self._views.backwards
        tally.first_success[index] = torch.where(tally.success[index], slots.met[rows], -1)
        tally.verifications[index] = slots.checks[rows]
        tally.zero_gradients[index] = slots.zeros[rows] * self._views.backwards
        slots.status[rows] = VACANT
        return len(rows)

    def _refill(self) -> None:
        """Give free rows to the samples that wait; shrink the batch when none does."""
        slots = self.slots
        waiting = len(self._problem.inputs) - self._next
        free = self._rows(self._stand(), VACANT)[:waiting] if waiting else slots.index[:0]
        if len(free):
            index = torch.arange(self._next, self._next + len(free), device=self._device)
            self._next += len(free)
            slots.put(free, self._entry.slots(index))
        if self._next == len(self._problem.inputs):
            kept = self._rows(self._stand(), LIVE)
            size = bucket(len(kept), len(slots)) if self._bucketed else len(kept)
            if size < len(slots):
                self._pads = size - len(kept)
                rows = torch.cat((kept, kept[-1:].expand(self._pads)))
                slots.shrink(rows)
                if self._ahead is not None:
                    self._ahead.shrink(rows)
                slots.status[len(kept) :] = VACANT
        self._goal = self._problem.goal.take(slots.index)
