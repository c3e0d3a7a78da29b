"""Half precision: found in single precision, judged as it is saved, counted in full, the same in any company."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from vambrace.attacks import DDN, FAB, FMN, CarliniWagner, DeepFool, halves
from vambrace.core.access import Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.ops.norms import distances
from vambrace.search.problem import pose
from vambrace.testing.counting import CountingModel
from vambrace.testing.halves import smooth_problem
from vambrace.testing.promises import Trial, check_company, check_ledger, check_not_finite

TYPES = [torch.float16, torch.bfloat16]
EVERY = [
    DDN(steps=25),
    FMN(norm="l0", steps=20),
    FMN(norm="linf", steps=20),
    FAB(norm="l2", steps=8),
    FAB(norm="l1", steps=8, targets=2),
    DeepFool(norm="linf", steps=15),
    CarliniWagner(steps=25, searches=3, step_size=0.05),
]


def named(attack) -> str:
    return f"{attack.name}-{attack.norm}"


def trial_in(dtype: torch.dtype, n: int = 19) -> Trial:
    whole = smooth_problem((1, 8, 8), 0.1, n)
    return dataclasses.replace(whole, inputs=whole.inputs.to(dtype))


@pytest.mark.parametrize("attack", EVERY, ids=named)
@pytest.mark.parametrize("dtype", TYPES)
def test_rows_are_accounted_for_and_company_does_not_matter(attack, dtype: torch.dtype) -> None:
    trial = trial_in(dtype)
    check_ledger(attack, trial)
    check_company(attack, trial)


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_columns_agree(attack) -> None:
    trial = trial_in(torch.float16)
    out = attack(trial.model, trial.inputs, trial.labels)
    assert out.success.all()
    assert (out.first_success <= out.forwards).all()
    assert (out.verifications >= 2).all(), "one in each search"
    with torch.no_grad():
        margin = Untargeted(trial.labels).margin(trial.network(out.adversarial))
    torch.testing.assert_close(out.margin.double(), margin, rtol=1e-4, atol=1e-6)
    single = attack(trial.model, trial.inputs.float(), trial.labels)
    assert (out.forwards > single.forwards).all()
    assert (out.first_success > single.forwards).all(), "that of the rounded point"
    assert torch.equal(out.backwards, single.backwards)


def test_a_model_without_numbers_is_told() -> None:
    check_not_finite(EVERY[0], trial_in(torch.float16), reach=0.2)


@pytest.mark.parametrize("attack", EVERY, ids=named)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_radius_holds_after_rounding_and_still_stops_early(attack, dtype: torch.dtype) -> None:
    trial = trial_in(dtype)
    free = attack(trial.model, trial.inputs, trial.labels)
    radius = float(free.distance.quantile(0.7)) * (1.0 if attack.norm == "l0" else 1.5)
    near = dataclasses.replace(attack, eps=radius)
    out = near(trial.model, trial.inputs, trial.labels)
    assert (distances(out.adversarial, trial.inputs, attack.norm)[out.success] <= radius).all()
    assert not ((free.distance <= radius) & ~out.success).any()
    if dtype == torch.float16:
        assert out.cost.forwards < free.cost.forwards


def test_what_surely_stays_within_a_radius() -> None:
    """The radius less the most that rounding moves a point of the box; nothing less in l0, no radius without a box."""
    for dtype, grain in ((torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)):
        trial = trial_in(dtype)
        problem = pose(trial.model, trial.inputs, trial.labels, rng=0, ids=None, start=None, batch_size=None)
        high = float(trial.bounds.high)
        for norm, units in (("linf", 1.0), ("l2", 8.0), ("l1", 64.0), ("l0", 0.0)):
            within = halves._stopping_within(FMN(norm=norm, eps=40.0), problem).eps
            assert within == pytest.approx(40.0 - units * grain * high)
        assert halves._stopping_within(FMN(norm="linf", eps=grain * high / 2), problem).eps is None
        assert halves._stopping_within(FMN(norm="linf"), problem).eps is None
        assert halves._stopping_within(FMN(norm="linf", eps=0.0), problem).eps == 0.0
        boxless = CountingModel(trial.network, bounds=None)
        problem = dataclasses.replace(problem, model=boxless)
        assert halves._stopping_within(FMN(norm="linf", eps=0.1), problem).eps is None


def test_an_input_that_reaches_its_goal_is_left_alone() -> None:
    trial = trial_in(torch.bfloat16)
    for attack in EVERY:
        out = attack(trial.model, trial.inputs, (trial.labels + 1) % 3)
        assert torch.equal(out.adversarial, trial.inputs)
        assert not out.distance.any()


def test_confidence_is_asked_of_the_rounded_point() -> None:
    trial = trial_in(torch.bfloat16)
    attack = CarliniWagner(steps=30, searches=4, step_size=0.05, confidence=0.05)
    for goal in (Untargeted(trial.labels), Targeted((trial.labels + 1) % 3)):
        out = attack(trial.model, trial.inputs, goal)
        with torch.no_grad():
            margin = goal.margin(trial.network(out.adversarial))
        assert out.success.double().mean() > 0.6
        assert (margin[out.success] >= 0.05).all()
        torch.testing.assert_close(out.margin[out.success].double(), margin[out.success], rtol=1e-4, atol=1e-6)


def test_8_bit_levels_in_half_precision() -> None:
    trial = trial_in(torch.float16)
    wide = Trial(lambda x: trial.network(x.double() / 2), Bounds(0.0, 1.0), trial.inputs * 2, trial.labels)
    levels = (wide.inputs.double() * 255).round() / 255
    out = FMN(norm="linf", steps=20, quantised=True)(wide.model, levels.half(), trial.labels)
    assert out.success.double().mean() > 0.8
    saved = (out.adversarial.double() * 255).round() / 255
    assert torch.equal(saved.half()[out.success], out.adversarial[out.success])


def steps(points: Tensor) -> Tensor:
    """A decision between two numbers of bfloat16, 2**-10 above one half: the nearest number beyond is 2**-8 above."""
    score = points.double().flatten(1).mean(dim=1) - (0.5 + 2.0**-10)
    return torch.stack((-score, score), dim=1)


def test_a_decision_that_rounding_takes_away_is_sought_further_out() -> None:
    """Rounding puts every element back to one half; the point is moved out until they reach the next number."""
    inputs = torch.full((3, 16), 0.5, dtype=torch.bfloat16)
    model = CountingModel(steps, dtype=torch.float64)
    out = FMN(norm="linf", steps=20)(model, inputs, torch.zeros(3, dtype=torch.int64))
    assert out.success.all()
    assert (out.distance == 2.0**-8).all()


def test_a_search_that_only_rounds_would_lose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "_PUSHES", 0)
    with pytest.raises(AssertionError):
        test_a_decision_that_rounding_takes_away_is_sought_further_out()


def test_pushes_reach_far() -> None:
    assert halves._FIRST_PUSH * halves._GROWTH ** (halves._PUSHES - 1) > 32
    assert math.isclose(halves._FIRST_PUSH, 2**-10)
