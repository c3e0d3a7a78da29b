"""The kit of nearest-point attacks can fail: every mutant of a good attack breaks one promise, and the kit names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from vambrace.attacks import FMN
from vambrace.attacks.nearest import Nearest
from vambrace.core.findings import Cost
from vambrace.core.goals import Targeted, Untargeted
from vambrace.search.outcome import Attacked
from vambrace.testing.nearest import check_nearest, nearest_problem

Change = Callable[[Attacked, Tensor], Attacked]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mutant(Nearest):
    """A good attack whose outcome is changed afterwards."""

    name: ClassVar[str] = "mutant"
    change: Change

    def run(self, problem, *, progress) -> Attacked:
        return self.change(FMN(norm="l2", steps=30, eps=self.eps).run(problem, progress=progress), problem.inputs)


def further_out(out: Attacked, inputs: Tensor) -> Attacked:
    points = inputs + (out.adversarial - inputs) * 1.08
    points = points.clamp(min=0.0)
    return dataclasses.replace(out, adversarial=points, distance=(points - inputs).flatten(1).norm(dim=1))


def too_near(out: Attacked, inputs: Tensor) -> Attacked:
    points = inputs + (out.adversarial - inputs) * 0.97
    return dataclasses.replace(out, adversarial=points, distance=(points - inputs).flatten(1).norm(dim=1))


def another_distance(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, distance=out.distance * 0.99)


def gives_up(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, success=out.success & False, first_success=out.first_success * 0 - 1)


def moves_what_is_wrong(out: Attacked, inputs: Tensor) -> Attacked:
    points = torch.where((out.distance == 0).reshape(-1, 1, 1, 1), (inputs + 1e-9).clamp(max=0.5), out.adversarial)
    return dataclasses.replace(out, adversarial=points, distance=(points - inputs).flatten(1).norm(dim=1))


def one_forward_too_few(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, forwards=out.forwards - 1)


def cost_without_idle_rows(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, cost=dataclasses.replace(out.cost, idle_forwards=0, padding_forwards=0))


def depends_on_position(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, first_success=torch.where(out.success, torch.arange(len(inputs)) + 1, -1))


def moves_the_generator(out: Attacked, inputs: Tensor) -> Attacked:
    torch.rand(1)
    return out


def calls_everything_finite(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, finite=out.finite | True)


MUTANTS = [
    (further_out, "is enough"),
    (too_near, "does not reach the goal|nearer than"),
    (another_distance, "distance is not"),
    (gives_up, "are not found"),
    (moves_what_is_wrong, "is changed"),
    (one_forward_too_few, "add up to"),
    (cost_without_idle_rows, "accounted for"),
    (depends_on_position, "first_success is another one"),
    (moves_the_generator, "global random state"),
    (calls_everything_finite, "NaN logits count as measured"),
]


def test_the_good_attack_passes() -> None:
    check_nearest(Mutant(change=lambda out, inputs: out))


@pytest.mark.parametrize(("change", "words"), MUTANTS, ids=lambda each: getattr(each, "__name__", ""))
def test_mutants_fail(change: Change, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_nearest(Mutant(change=change))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heedless(Nearest):
    """Gets its options, or a goal, wrong."""

    name: ClassVar[str] = "heedless"
    how: str

    def run(self, problem, *, progress) -> Attacked:
        eps, steps = self.eps, 30
        if self.how == "runs on":
            eps = None
        if self.how == "flees" and isinstance(problem.goal, Targeted):
            with torch.no_grad():
                labels = problem.model(problem.inputs).argmax(1)
            problem = dataclasses.replace(problem, goal=Untargeted(labels))
        if self.how == "stops too early" and eps is not None:
            steps = 2
        return FMN(norm="l2", steps=steps, eps=eps).run(problem, progress=progress)


@pytest.mark.parametrize(
    ("how", "words"),
    [("runs on", "does not stop early"), ("flees", "does not reach the goal"), ("stops too early", "are lost")],
)
def test_options_that_are_not_heeded(how: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_nearest(Heedless(how=how))


def test_curves_that_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = Nearest.curve

    def twice(self, *arguments, **how):
        found = curve(self, *arguments, **how)
        outcomes = tuple(dataclasses.replace(each, cost=Cost(forwards=1)) for each in found.outcomes)
        return dataclasses.replace(found, outcomes=outcomes)

    monkeypatch.setattr(Nearest, "curve", twice)
    with pytest.raises(AssertionError, match="counted twice"):
        check_nearest(Mutant(change=lambda out, inputs: out))


def test_curves_that_give_a_success_forwards_of_another_radius(monkeypatch: pytest.MonkeyPatch) -> None:
    curve = Nearest.curve

    def late(self, *arguments, **how):
        found = curve(self, *arguments, **how)
        first, *others = found.outcomes
        taken = [dataclasses.replace(each, first_success=first.first_success) for each in others]
        return dataclasses.replace(found, outcomes=(first, *taken))

    monkeypatch.setattr(Nearest, "curve", late)
    with pytest.raises(AssertionError, match="its radius does not have"):
        check_nearest(Mutant(change=lambda out, inputs: out))


@pytest.mark.parametrize("norm", ["l0", "l1", "l2", "linf"])
def test_the_known_distances_are_true(norm: str) -> None:
    """No random change that is smaller reaches the other class; one that is hardly larger does."""
    trial, least = nearest_problem(norm)
    weight = torch.autograd.functional.jacobian(lambda x: trial.network(x)[:, 1].sum(), trial.inputs[:1])[0].flatten()
    generator = torch.Generator().manual_seed(0)
    side = 1.0 - 2.0 * trial.labels.double()
    orders = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}
    for row in range(len(least)):
        given, sign = trial.inputs[row].flatten(), float(side[row])
        if norm == "l0":
            ends = torch.where(sign * weight > 0, trial.bounds.high, trial.bounds.low).double()
            worth = (weight * sign * (ends - given)).sort(descending=True).values
            lead = -sign * float(trial.network(trial.inputs[row : row + 1])[0, 1] * 2)
            count = int(least[row])
            assert float(worth[:count].sum()) * 2 >= lead > float(worth[: count - 1].sum()) * 2
            continue
        noise = torch.randn(2000, 16, generator=generator, dtype=torch.float64)
        noise = noise * (float(least[row]) * 0.999 / torch.linalg.vector_norm(noise, orders[norm], dim=1)).unsqueeze(1)
        steep = {
            "linf": weight.sign(),
            "l2": weight / weight.norm(),
            "l1": weight.sign() * (weight.abs() == weight.abs().max()),
        }[norm]
        tries = given + torch.cat((noise, sign * steep[None] * float(least[row]) * 0.999))
        assert (trial.network(tries.reshape(-1, 1, 4, 4)).argmax(1) == trial.labels[row]).all()
        hit = given + sign * steep * float(least[row]) * 1.001
        assert trial.network(hit.reshape(1, 1, 4, 4)).argmax(1) != trial.labels[row]
