"""The conformance kit can fail: every mutant of a good attack breaks one promise, and the kit names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vambrace.attacks import PGD
from vambrace.core.goals import Untargeted, as_goal
from vambrace.search.outcome import Attacked
from vambrace.testing.attacks import check_attack, curved_problem
from vambrace.testing.counting import CountingModel

GOOD = PGD(eps=0.1, steps=8)
Change = Callable[[Attacked, Tensor], Attacked]


class Mutant:
    """A good attack whose outcome is changed afterwards."""

    def __init__(self, change: Change) -> None:
        self.norm, self.eps, self._change = GOOD.norm, GOOD.eps, change

    def __call__(self, model, inputs: Tensor, goal, **how) -> Attacked:
        return self._change(GOOD(model, inputs, goal, **how), inputs)


def no_op(out: Attacked, inputs: Tensor) -> Attacked:
    nothing = torch.zeros_like(out.success)
    return dataclasses.replace(
        out, adversarial=inputs, success=nothing, distance=out.distance * 0, first_success=out.first_success * 0 - 1
    )


def constant_success(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, success=out.success | True, first_success=out.forwards)


def success_at_the_input(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(constant_success(out, inputs), adversarial=inputs, distance=out.distance * 0)


def outside_the_ball(out: Attacked, inputs: Tensor) -> Attacked:
    points = (inputs + (out.adversarial - inputs) * 1.001).clamp(min=0.0)
    return dataclasses.replace(out, adversarial=points, distance=(points - inputs).abs().flatten(1).amax(1))


def another_distance(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, distance=out.distance * 0.9)


def one_forward_too_few(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, forwards=out.forwards - 1)


def cost_without_idle_rows(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, cost=dataclasses.replace(out.cost, idle_forwards=0, padding_forwards=0))


def depends_on_position(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, first_success=torch.where(out.success, torch.arange(len(inputs)) + 1, -1))


def moves_the_generator(out: Attacked, inputs: Tensor) -> Attacked:
    torch.rand(1)
    return out


def writes_into_the_inputs(out: Attacked, inputs: Tensor) -> Attacked:
    if not inputs.is_inference():
        inputs += 0.0 if torch.equal(out.adversarial, inputs) else 1e-9
    return out


def calls_everything_finite(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, finite=out.finite | True)


def single_precision(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, adversarial=out.adversarial.float())


MUTANTS = [
    (no_op, "is not found"),
    (constant_success, "does not reach the goal"),
    (success_at_the_input, "does not reach the goal"),
    (outside_the_ball, "further than eps"),
    (another_distance, "distance is not"),
    (one_forward_too_few, "add up to"),
    (cost_without_idle_rows, "accounted for"),
    (depends_on_position, "first_success is another one"),
    (moves_the_generator, "global random state"),
    (writes_into_the_inputs, "."),
    (calls_everything_finite, "NaN logits count as measured"),
    (single_precision, "dtype"),
]


def test_the_good_attack_passes() -> None:
    check_attack(Mutant(lambda out, inputs: out))


@pytest.mark.parametrize(("change", "words"), MUTANTS, ids=lambda each: getattr(each, "__name__", ""))
def test_mutants_fail(change: Change, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_attack(Mutant(change))


def test_an_attack_that_ignores_its_target_fails() -> None:
    """MindArmour's targeted PGD and APGD only flee the label."""

    class Untargetable(Mutant):
        def __call__(self, model, inputs: Tensor, goal, **how) -> Attacked:
            goal = as_goal(goal)
            if isinstance(goal, Untargeted):
                return super().__call__(model, inputs, goal, **how)
            fled = GOOD(model, inputs, Untargeted(goal.classes), **how)
            reached = model(fled.adversarial).argmax(1) == goal.classes
            return dataclasses.replace(fled, success=reached, first_success=torch.where(reached, fled.forwards, -1))

    with pytest.raises(AssertionError, match="come nearer"):
        check_attack(Untargetable(lambda out, inputs: out))


def test_an_attack_that_depends_on_its_company_fails() -> None:
    class Crowded(Mutant):
        def __call__(self, model, inputs: Tensor, goal, *, rng=0, ids=None, batch_size=None) -> Attacked:
            return GOOD(model, inputs, goal, rng=rng, batch_size=batch_size)

    with pytest.raises(AssertionError, match="in another order"):
        check_attack(Crowded(lambda out, inputs: out))


def test_the_problems_have_both_outcomes() -> None:
    function, bounds, inputs, labels = curved_problem(0.1)
    model = CountingModel(function, bounds=bounds, dtype=torch.float64)
    assert 3 <= int(GOOD(model, inputs, labels).success.sum()) <= 21
    assert ((inputs == 0) | (inputs == bounds.high)).any()


def test_counting_model_counts() -> None:
    model = CountingModel(torch.nn.Linear(4, 3), num_classes=3)
    points = torch.rand(5, 4, requires_grad=True)
    logits = model(points)
    torch.autograd.grad(logits.sum(), points)
    model.predict(points[:2])
    with torch.no_grad():
        model(points[:1])
    assert (model.forward_rows, model.backward_rows, model.calls) == (8, 5, [5, 2, 1])
    assert model.num_classes == 3
    assert model.identity is None
    assert model.outputs == "logits"
