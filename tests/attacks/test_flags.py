"""Flags, just under and just over their thresholds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vambrace.attacks import DDN, FAB, FMN, PGD, SIFGSM, VMIFGSM, DeepFool
from vambrace.attacks.flags import blind_flag, flags, not_finite_flag
from vambrace.core.findings import Cost
from vambrace.core.intervals import wilson
from vambrace.explain import page
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel


@pytest.mark.parametrize("survivors", [10, 300, 829, 10_000])
def test_blind_just_under_and_just_over(survivors: int) -> None:
    over = next(blind for blind in range(survivors + 1) if wilson(blind, survivors).low > 0.01)
    assert over >= 1
    assert blind_flag(over - 1, survivors) is None
    raised = blind_flag(over, survivors)
    assert raised.level == "unreliable"
    assert f"{over:,} of {survivors:,}" in raised.text
    assert raised.concerns("adversarial")
    assert not raised.concerns("clean")


def test_nothing_to_say_about_no_one() -> None:
    assert blind_flag(0, 0) is None
    assert not_finite_flag(0, 0) is None
    assert not_finite_flag(0, 5) is None
    assert not_finite_flag(1, 10_000).code == "E410"


@pytest.mark.parametrize(("dead_steps", "raised"), [(4, False), (5, True), (10, True)])
def test_half_of_the_steps_make_a_sample_blind(dead_steps: int, raised: bool) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    choosing = 1 if inputs.device.type == "cpu" else 0  # the first call asks for the memory format
    calls = []

    def fading(points: Tensor) -> Tensor:
        calls.append(len(points))
        dead = len(calls) > choosing + 10 - dead_steps
        seen = points.detach() + 0.0 * points if dead else points
        return function(seen)

    model = CountingModel(fading, bounds=bounds, dtype=torch.float64)
    out = PGD(eps=1e-4, steps=10)(model, inputs, labels)
    assert not out.success.any()
    assert out.zero_gradients.tolist() == [dead_steps] * 40
    assert [flag.code for flag in flags(out)] == (["E464"] if raised else [])


@pytest.mark.parametrize("attack", [DDN(steps=6), FMN(norm="linf", steps=6), DeepFool(steps=4), FAB(steps=4)])
def test_a_curve_off_one_search_is_blind_at_every_radius(attack) -> None:
    """And what a sample cost is counted where it was spent: nothing beyond the smallest radius, in any column."""
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    inputs = (inputs * 50).round() / 50

    def stairs(points: Tensor) -> Tensor:
        return function((points * 50).round() / 50 + 0 * points)

    wanted = (1e-4, 2e-4, 3e-4)
    for seen, code in ((stairs, "E464"), (function, None)):
        labels = seen(inputs).argmax(1)
        model = CountingModel(seen, bounds=bounds, dtype=torch.float64)
        curve = attack.curve(model, inputs, labels, eps=wanted)
        for outcome in curve.outcomes:
            assert ([flag.code for flag in flags(outcome)] == [code]) == bool(code)
        assert all(outcome.cost == Cost() for outcome in curve.outcomes[1:])
        cost = curve.cost
        assert model.forward_rows == cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards


def test_logits_without_numbers_are_flagged() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 40)

    def broken(points: Tensor) -> Tensor:
        near = ((points - inputs[3]).abs().flatten(1) <= 0.2).all(dim=1, keepdim=True)
        return torch.where(near, float("inf"), function(points))

    model = CountingModel(broken, bounds=bounds, dtype=torch.float64)
    raised = flags(PGD(eps=0.1, steps=3)(model, inputs, labels))
    assert [flag.code for flag in raised] == ["E410"]
    assert "1 of 40" in raised[0].text
    assert all(page(flag.code) for flag in raised)


def test_an_honest_outcome_has_no_flags() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    model = CountingModel(function, bounds=bounds, dtype=torch.float64)
    assert flags(PGD(eps=0.1, steps=10)(model, inputs, labels)) == ()


def test_a_step_of_several_gradients_is_as_blind_as_one() -> None:
    """What is counted is what backwards count, whatever the views and slopes of a step."""
    weight = torch.linspace(-1, 1, 12).reshape(4, 3)
    inputs = torch.full((60, 4), 0.5) + torch.arange(60).unsqueeze(1) * 1e-3

    def stairs(points: torch.Tensor) -> torch.Tensor:
        return (points * 4).round() / 4 @ weight + 0 * points.sum(1, keepdim=True)

    labels = stairs(inputs).argmax(1)
    for attack in (VMIFGSM(eps=0.002, steps=4), SIFGSM(eps=0.002, steps=4), FMN(norm="l2", steps=6)):
        out = attack(CountingModel(stairs), inputs, labels)
        left = ~out.success
        assert left.sum() > 40
        assert out.finite.all()
        assert (2 * out.zero_gradients >= out.backwards)[left].all()
        assert "E464" in {flag.code for flag in flags(out)}
