"""An attack at several radii: what a smaller one breaks stays broken and is not paid for twice."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from vambrace.attacks import APGD, FGSM, PGD
from vambrace.attacks.curve import radii
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError
from vambrace.testing.attacks import curved_problem, linear_problem
from vambrace.testing.counting import CountingModel

RADII = (0.02, 0.05, 0.1, 0.2)


def model_of(function, bounds) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64)


@pytest.mark.parametrize("attack", [FGSM(eps=1.0), PGD(eps=1.0, steps=8), APGD(eps=1.0, norm="l2", steps=12)])
def test_curve_is_the_attack_at_each_radius(attack) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    rng, ids = Streams(4), torch.arange(40) * 13 + 1
    model = model_of(function, bounds)
    curve = attack.curve(model, inputs, labels, eps=RADII, rng=rng, ids=ids, batch_size=8)
    assert curve.eps == RADII
    broken = torch.zeros(40, dtype=torch.bool)
    for eps, outcome in zip(curve.eps, curve.outcomes, strict=True):
        alone = dataclasses.replace(attack, eps=eps)(model_of(function, bounds), inputs, labels, rng=rng, ids=ids)
        fresh = ~broken
        for name in ("success", "first_success", "forwards", "backwards", "verifications", "finite"):
            assert getattr(outcome, name)[fresh].tolist() == getattr(alone, name)[fresh].tolist(), name
        torch.testing.assert_close(outcome.adversarial[fresh], alone.adversarial[fresh], rtol=0, atol=1e-9)
        assert outcome.success[broken].all()
        assert (outcome.forwards[broken] == 0).all()
        assert (outcome.first_success[broken] == 0).all()
        assert (outcome.distance <= eps).all()
        broken = outcome.success
    assert torch.equal(curve.broken, broken)
    assert int(broken.sum()) > 0
    cost = curve.cost
    forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    assert forward == model.forward_rows
    assert cost.forwards == sum(int(outcome.forwards.sum()) for outcome in curve.outcomes)
    assert cost.backwards + cost.idle_backwards + cost.padding_backwards == model.backward_rows


def test_radius_is_the_smallest_that_broke_and_censored_else() -> None:
    function, bounds, inputs, labels, away = linear_problem("linf", 0.1)
    curve = PGD(eps=1.0, steps=20).curve(model_of(function, bounds), inputs, labels, eps=(0.05, "0.1", 0.15))
    expected = [0.05 if each <= 0.5 else 0.1 if each <= 1 else 0.15 for each in away.tolist()]
    assert curve.radius.tolist() == expected
    assert torch.equal(curve.broken, away <= 1.5)


def test_adversarial_inputs_of_every_radius_hold() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    curve = PGD(eps=1.0, steps=8).curve(model_of(function, bounds), inputs, labels, eps=RADII)
    for outcome in curve.outcomes:
        assert (function(outcome.adversarial).argmax(1) != labels)[outcome.success].all()


def test_samples_without_a_measurement_are_not_asked_again() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 10)

    def broken(points: Tensor) -> Tensor:
        near = ((points - inputs[3]).abs().flatten(1) <= 0.4).all(dim=1, keepdim=True)
        return torch.where(near, float("nan"), function(points))

    curve = PGD(eps=1.0, steps=4).curve(model_of(broken, bounds), inputs, labels, eps=(0.01, 0.02))
    for outcome in curve.outcomes:
        assert outcome.finite.tolist() == [row != 3 for row in range(10)]
        assert not outcome.success[3]
    assert curve.outcomes[0].forwards[3] == 1
    assert curve.outcomes[1].forwards[3] == 0
    assert not curve.finite[3]


def test_a_step_size_left_out_follows_the_radius() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 10)
    attack = PGD(eps=1.0, steps=1, random_start=False)
    curve = attack.curve(model_of(function, bounds), inputs, labels, eps=(1e-6, 1e-4))
    for eps, outcome in zip(curve.eps, curve.outcomes, strict=True):
        assert (outcome.distance > 0.99 * eps).all()


def test_nothing_left_to_attack() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 6)
    model = model_of(function, bounds)
    curve = FGSM(eps=1.0).curve(model, inputs, (labels + 1) % 3, eps=(0.1, 0.2))
    assert curve.broken.all()
    assert curve.outcomes[1].cost.forwards == 0
    empty = FGSM(eps=1.0).curve(model, inputs[:0], labels[:0], eps=(0.1, 0.2))
    assert empty.radius.shape == (0,)


def test_radii_are_read_and_checked() -> None:
    assert radii(("8/255", 0.1, 0)) == (0.0, 8 / 255, 0.1)
    for wrong in ((), (-0.1,), (0.1, 0.1), (0.1, "1/10")):
        with pytest.raises(ConfigError, match="E140"):
            radii(wrong)
    with pytest.raises(ConfigError, match="E102"):
        radii(("many",))
    for alone in (0.1, "8/255", None, torch.tensor(0.1)):
        with pytest.raises(ConfigError, match="E140"):
            radii(alone)
    function, bounds, inputs, labels = curved_problem(0.1, 4)
    with pytest.raises(ConfigError, match="E139"):
        FGSM(eps=0.1).curve(model_of(function, bounds), inputs, labels, eps=(0.1, 8))
