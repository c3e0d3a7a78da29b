"""The check of half precision can fail: attacks that get lost in rounding, each in one way, are told by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from vambrace.attacks import FMN
from vambrace.attacks.nearest import Nearest
from vambrace.search.outcome import Attacked
from vambrace.testing.halves import check_halves, smooth_problem

Change = Callable[[Attacked, Tensor], Attacked]
GOOD = FMN(norm="l2", steps=20)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mutant(Nearest):
    """A good attack, but for what it makes of half precision."""

    name: ClassVar[str] = "mutant"
    change: Change
    least: int = 0

    def run(self, problem, *, progress) -> Attacked:
        out = GOOD.run(problem, progress=progress)
        low = problem.inputs.dtype.itemsize < 4 and problem.inputs[0].numel() >= self.least
        return self.change(out, problem.inputs) if low else out


def blames_the_model(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, finite=out.finite & (torch.arange(len(inputs)) != 2))


def ends_in_nan(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, adversarial=out.adversarial * float("nan"))


def gives_up(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, success=out.success & (torch.arange(len(inputs)) == 0))


def goes_back(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, adversarial=inputs.clone(), distance=out.distance * 0)


def measures_in_half(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, distance=out.distance.half().double())


def stays_far(out: Attacked, inputs: Tensor) -> Attacked:
    points = inputs.double() + (out.adversarial.double() - inputs.double()) * 2.0
    points = points.clamp(0.0, 0.5).to(inputs.dtype)
    return dataclasses.replace(
        out, adversarial=points, distance=(points.double() - inputs.double()).flatten(1).norm(dim=1)
    )


def comes_back_single(out: Attacked, inputs: Tensor) -> Attacked:
    return dataclasses.replace(out, adversarial=out.adversarial.float())


MUTANTS = [
    (blames_the_model, "unmeasured"),
    (ends_in_nan, "not finite"),
    (gives_up, "successes, where"),
    (goes_back, "a success that is none"),
    (measures_in_half, "distance is not"),
    (stays_far, "in the median"),
    (comes_back_single, "adversarial of dtype"),
]


@pytest.mark.parametrize("least", [0, 3072])
@pytest.mark.parametrize(("change", "words"), MUTANTS, ids=lambda each: getattr(each, "__name__", ""))
def test_mutants_fail(change: Change, words: str, least: int) -> None:
    """On all samples, and where only those of the size of images show it."""
    with pytest.raises(AssertionError, match=words):
        check_halves(Mutant(change=change, least=least), eps=0.1)


def test_the_good_attack_passes() -> None:
    check_halves(Mutant(change=lambda out, inputs: out), eps=0.1)
    check_halves(GOOD, eps=0.1, flat=False)


@pytest.mark.parametrize("shape", [(4,), (3, 32, 32)])
def test_the_inputs_are_numbers_of_both_types(shape: tuple[int, ...]) -> None:
    trial = smooth_problem(shape, 0.1)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(trial.inputs.to(dtype).double(), trial.inputs)
    assert trial.bounds.contains(trial.inputs).all()
    assert (trial.inputs == trial.bounds.high).any() or len(shape) == 1
    assert len(trial.labels.unique()) > 1
