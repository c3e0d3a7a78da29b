"""Examples made on surrogates and judged on the model: what an attacker does who has other networks, and one guess.

    out = MDIFGSM(eps=8 / 255)(model, inputs, labels, surrogates=[one, another])

The attack runs on the mean logits of the surrogates. An attack of a fixed radius that searches by steps runs all of
them: that the surrogates are fooled early is no reason to stop, for a point that fools them clearly is likelier to
fool the model. Where it restarts, the point of the highest margin on the surrogates is the one judged. Attacks that
make the change small, and ensembles of attacks, stop on the surrogates as they always do, but not at an input that the
surrogates get wrong already, which says little about the model. Such a sample goes on until its margin has risen by as
much again as it was above zero (`Beyond`): as far as one goes that they get right by as much. Where that is further
than `eps`, the point is moved back.

The model is asked once for each sample, about the point as it will be saved (twice where it gives labels only), so it
may give as little as labels; nothing else of it is used, and no gradient. With `quantised`, a point counts only where
it lies on the levels of 8-bit images.

Reference: Papernot, McDaniel, Goodfellow 2016, arXiv 1605.07277; Dong et al. 2018, arXiv 1710.06081, section 3.3.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

from vambrace.core.access import Access, require_access
from vambrace.core.findings import Cost
from vambrace.core.goals import Goal
from vambrace.core.progress import silent
from vambrace.models.ensemble import Ensemble, require_alike
from vambrace.models.expectation import calls_a_row
from vambrace.ops.grid import fitted, on_grid
from vambrace.ops.projections import tighten
from vambrace.ops.rows import spread
from vambrace.search.judge import Oracle, Verdicts, judge
from vambrace.search.outcome import Attacked
from vambrace.search.pace import choose_pace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.core.progress import Progress
    from vambrace.models.contract import Model
    from vambrace.search.problem import Problem

__all__ = ["Beyond", "Crafting", "judged", "transferred"]

_NAMING: dict[str, object] = {"targets": None, "confidence": 0.0}
"""Options that need a goal which names classes, and what turns them off."""


class Crafting(Protocol):
    """The part of an attack that makes points on a model it is given."""

    name: ClassVar[str]
    """Registered name."""
    needs: ClassVar[Access]
    """What the model must give on which it runs."""

    @property
    def eps(self) -> float | None:
        """Within which a success counts; None: anywhere."""
        ...

    def run(self, problem: Problem, *, progress: Progress) -> Attacked:
        """Attack the samples of a checked problem."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Beyond(Goal):
    """A goal reached with some margin to spare. `floor`: (n,), above which its margin counts."""

    goal: Goal
    floor: Tensor

    @property
    def size(self) -> int:
        """As of the goal."""
        return self.goal.size

    def margin(self, logits: Tensor) -> Tensor:
        """The goal's own above the floor."""
        return self.goal.margin(logits) - self.floor

    def reached(self, predictions: Tensor) -> Tensor:
        """As the goal: classes say nothing about margins."""
        return self.goal.reached(predictions)

    def take(self, index: Tensor) -> Beyond:
        """As the base class."""
        return Beyond(self.goal.take(index), self.floor[index])


def transferred(
    attack: Crafting,
    problem: Problem,
    surrogates: Sequence[Model],
    *,
    withheld: bool,
    progress: Progress = silent,
) -> Attacked:
    """Run an attack on surrogates and judge what it made on the model of the problem.

    Args:
        attack: what makes the points.
        problem: checked arguments; its model is only asked to judge.
        surrogates: one or more models that give what the attack needs and take what the model takes.
        withheld: whether a success on the surrogates ends no search; else only one at the input itself ends none, and
            a forward more for each sample tells which these are.
        progress: told how many samples are made.

    Returns:
        Forwards and backwards are rows of the surrogates, each of which is asked so many (the most, where some of them
        are expectations); verifications of what was found on them are forwards. Verifications, queries, success and
        margin are the model's; margin is NaN where it gives labels only.

    Raises:
        AccessError: E110, for a surrogate that gives less than the attack needs.
        ConfigError: E121, for surrogates that take other inputs or know other classes than the model.
    """
    for surrogate in surrogates:
        require_access(surrogate, attack.needs, method=attack.name)
    ensemble = Ensemble(surrogates)
    require_alike(problem.model, ensemble)
    crafting = dataclasses.replace(problem, model=ensemble, withheld=withheld)
    calls = max(calls_a_row(surrogate) for surrogate in surrogates)
    if withheld or not len(problem.inputs):
        return judged(problem, attack.run(crafting, progress=progress).charged(calls))
    clean = _clean(crafting)
    right, wrong = ((clean.won == won).nonzero().squeeze(1) for won in (False, True))
    parts: list[tuple[Tensor, Attacked]] = []
    if len(right):
        parts.append((right, attack.run(crafting.take(right), progress=progress)))
    if len(wrong):
        onward, part = _beyond(attack, crafting.take(wrong), clean.margin[wrong])
        parts.append((wrong, _nearer(onward.run(part, progress=progress), part, attack.eps)))
    return judged(problem, _joined(parts).charged(calls))


def judged(problem: Problem, crafted: Attacked) -> Attacked:
    """The points of an outcome on other models, as the model of the problem sees them; see `transferred`."""
    if not len(problem.inputs):
        return crafted
    device = problem.inputs.device.type
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
        if problem.model.access < Access.SCORES:
            won, margin, finite = _by_labels(problem, crafted.adversarial)
            asked, pads = 2, 0
        else:
            won, margin, finite, pads = _by_scores(problem, crafted.adversarial)
            asked = 1
    success = won & crafted.finite & _saved(problem, crafted)
    forwards = crafted.forwards + crafted.verifications
    calls = calls_a_row(problem.model)
    checks = torch.full_like(forwards, asked * calls)
    queries = checks if problem.model.access < Access.GRADIENTS else torch.zeros_like(checks)
    before, spent = crafted.cost, int(checks.sum())
    cost = dataclasses.replace(
        before,
        forwards=before.forwards + before.verifications,
        verifications=spent,
        queries=int(queries.sum()),
        padding_forwards=before.padding_forwards + pads * calls,
    )
    return dataclasses.replace(
        crafted,
        success=success,
        margin=margin,
        forwards=forwards,
        verifications=checks,
        queries=queries,
        first_success=torch.where(success, forwards, -1),
        finite=finite & crafted.finite,
        cost=cost,
        parts=(),
        by=None,
        allowance=None,
    )


def _clean(problem: Problem) -> Verdicts:
    """What the surrogates say of the inputs themselves."""
    oracle = Oracle(problem.model, problem.most_class)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(problem.inputs.device.type, enabled=False):
        logits = torch.cat([oracle.logits(part, exact=True) for part in _split(problem.inputs, problem.batch_size)])
        return judge(logits, problem.goal.margin(logits))


def _beyond(attack: Crafting, problem: Problem, margin: Tensor) -> tuple[Crafting, Problem]:
    """The attack and the problem of samples that reach the goal at the input already, by a `margin` (m,) above 0."""
    named = {name: off for name, off in _NAMING.items() if hasattr(attack, name)}
    floor = 2.0 * margin + float(getattr(attack, "confidence", 0.0))
    return dataclasses.replace(cast("Any", attack), **named), dataclasses.replace(
        problem, goal=Beyond(problem.goal, floor)
    )


def _nearer(found: Attacked, problem: Problem, eps: float | None) -> Attacked:
    """The outcome with points no further than `eps`, moved toward the input where they are."""
    if eps is None:
        return found
    norm, inputs, bounds = found.norm, problem.inputs, problem.model.bounds
    points, distance = tighten(found.adversarial, inputs, eps, norm, bounds)
    if problem.quantised and bounds is not None:
        saved, size = fitted(points, inputs, eps, norm, bounds)
        points = torch.where(spread(size.isfinite(), points), saved, points)
        distance = torch.where(size.isfinite(), size, distance)
    return dataclasses.replace(found, adversarial=points, distance=distance)


def _joined(parts: Sequence[tuple[Tensor, Attacked]]) -> Attacked:
    """The outcome of several runs, each over the samples at its rows, and of the forward of every input before them."""
    rows, runs = zip(*parts, strict=True)
    order = torch.cat(rows).argsort()
    names = [field.name for field in dataclasses.fields(Attacked) if isinstance(getattr(runs[0], field.name), Tensor)]
    whole = {name: torch.cat([getattr(run, name) for run in runs])[order] for name in names}
    whole["forwards"] = whole["forwards"] + 1
    return dataclasses.replace(runs[0], **whole, cost=sum((run.cost for run in runs), Cost(forwards=len(order))))


def _saved(problem: Problem, crafted: Attacked) -> Tensor:
    """Which points lie on the levels that they must lie on, bool (n,): all where it does not matter."""
    points, bounds = crafted.adversarial, problem.model.bounds
    if not problem.quantised or bounds is None:
        return torch.ones_like(crafted.success)
    levels = on_grid(points, problem.inputs, math.inf, crafted.norm, bounds)
    return (levels == points).flatten(1).all(dim=1)


def _by_labels(problem: Problem, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two predictions of every point, both of which must reach the goal."""
    model, won = problem.model, torch.ones(len(points), dtype=torch.bool, device=points.device)
    for _ in range(2):
        parts = [model.predict(part.to(model.dtype, copy=True)) for part in _split(points, problem.batch_size)]
        won &= problem.goal.reached(torch.cat(parts))
    unknown = torch.full((len(points),), float("nan"), device=points.device)
    return won, unknown, torch.ones_like(won)


def _by_scores(problem: Problem, points: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """One forward of every point in calls of fixed shape; with the rows that filled the last one."""
    oracle = Oracle(problem.model, problem.most_class)
    pace = choose_pace(problem.model, points.device.type, problem.batch_size)
    found: list[Verdicts] = []
    pads = 0
    for first, part in enumerate(_split(points, pace.confirm_rows)):
        missing = pace.confirm_rows - len(part) if pace.padded else 0
        asked = torch.cat((part, part[-1:].expand(missing, *part.shape[1:])))
        logits = oracle.logits(asked, pads=missing, exact=True)[: len(part)]
        begin = first * pace.confirm_rows
        index = torch.arange(begin, begin + len(part), device=points.device)
        found.append(judge(logits, problem.goal.take(index).margin(logits)))
        pads += missing
    margin, won, finite = (torch.cat(column) for column in zip(*found, strict=True))
    return won, margin.float(), finite, pads


def _split(points: Tensor, rows: int) -> Sequence[Tensor]:
    return [points[first : first + rows] for first in range(0, len(points), rows)]
