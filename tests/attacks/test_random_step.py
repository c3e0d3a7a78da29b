"""R+FGSM: the gradient is taken at the noisy point. MindArmour added the noise after the gradient."""

from __future__ import annotations

import pickle

import pytest
import torch

from naive_attacks import cross_entropy, direction, project
from vambrace.attacks import FGSM
from vambrace.attacks.random_step import RFGSM, RandomStep
from vambrace.core.registry import ATTACKS, load
from vambrace.core.rng import Streams
from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.ops import draws
from vambrace.testing.attacks import check_attack, curved_problem
from vambrace.testing.counting import CountingModel

N = 40
EVERY = [RFGSM(eps=0.1), RFGSM(eps=0.1, share=0.25, restarts=3), RFGSM(eps=0.5, norm="l2", restarts=2)]


def model_of(function, bounds) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64)


def compare(attack: RFGSM) -> None:
    eps = attack.eps
    function, bounds, inputs, labels = curved_problem(eps if attack.norm == "linf" else eps / 3, N)
    box, ids = (bounds.low, bounds.high), torch.arange(N) * 7 + 1
    out = attack(model_of(function, bounds), inputs, labels, rng=9, ids=ids, batch_size=7)
    for row in range(N):
        forwards = backwards = 0
        label, given, success = labels[row : row + 1], inputs[row], False
        for restart in range(attack.restarts):
            noise = draws.normal(
                Streams(9).child("start"), ids[row : row + 1], step=restart, shape=(1, 4, 4), dtype=torch.float64
            )[0]
            point = project(given + eps * attack.share * direction(noise, attack.norm), given, eps, attack.norm, *box)
            forwards += 1
            if success := bool(function(point[None]).argmax() != label):
                break
            leaf = point[None].requires_grad_()
            (gradient,) = torch.autograd.grad(cross_entropy(function(leaf)[0], int(label)), leaf)
            step = eps * (1 - attack.share) * direction(gradient[0], attack.norm)
            point = project(point + step, given, eps, attack.norm, *box)
            forwards, backwards = forwards + 1, backwards + 1
            if success := bool(function(point[None]).argmax() != label):
                break
        assert [bool(out.success[row]), int(out.forwards[row]), int(out.backwards[row])] == [
            success,
            forwards,
            backwards,
        ]
        torch.testing.assert_close(out.adversarial[row], point, rtol=0, atol=1e-9)
    assert 0 < int(out.success.sum()) < N


@pytest.mark.parametrize("attack", EVERY, ids=lambda each: f"{each.norm}-{each.restarts}")
def test_is_the_naive_one(attack: RFGSM) -> None:
    compare(attack)


@pytest.mark.parametrize("attack", EVERY, ids=lambda each: f"{each.norm}-{each.restarts}")
def test_conforms(attack: RFGSM) -> None:
    # Half of the way leads in a random direction.
    check_attack(attack, strength=0.1 if attack.norm == "l2" else 0.4)


@pytest.mark.parametrize("attack", EVERY, ids=lambda each: f"{each.norm}-{each.restarts}")
def test_options_are_values(attack: RFGSM) -> None:
    assert pickle.loads(pickle.dumps(attack)) == attack == eval(repr(attack))
    assert read(RFGSM, attack.as_json(), where="attack") == attack
    assert load(ATTACKS, "r_fgsm") is RFGSM


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_the_random_step_it_is_its_parent(norm: str) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, N)
    parent = FGSM(eps=0.1, norm=norm)(model_of(function, bounds), inputs, labels)
    without = RFGSM(eps=0.1, norm=norm, share=0.0)(model_of(function, bounds), inputs, labels)
    with_it = RFGSM(eps=0.1, norm=norm)(model_of(function, bounds), inputs, labels)
    for name in ("adversarial", "success", "forwards", "backwards", "first_success"):
        assert torch.equal(getattr(parent, name), getattr(without, name)), name
    assert not torch.allclose(parent.adversarial, with_it.adversarial, rtol=0, atol=1e-3)


def test_a_given_start_replaces_the_first_random_step() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, N)
    attack = RFGSM(eps=0.1, share=0.5)
    given = attack(model_of(function, bounds), inputs, labels, start=inputs)
    assert (given.distance[~given.success] <= 0.05 + 1e-9).all(), "one step of eps / 2 from the input"


@pytest.mark.parametrize(
    "options", [{"share": 1.0}, {"share": -0.1}, {"restarts": 0}, {"share": 0.0, "restarts": 2}, {"loss": "x"}]
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="E130"):
        RFGSM(**{"eps": 0.1} | options)


def test_noise_after_the_gradient_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_the_input(self, origin, anchor, restart, before):
        return {"point": origin.inputs.clone(), "ids": origin.ids}

    def late(self, anchor, state, answer):
        noise = draws.normal(Streams(9).child("start"), state["ids"], shape=(1, 4, 4), dtype=torch.float64)
        noisy = state["point"] + self.first * noise.sign()
        return {"point": self.ball.ascend(anchor, noisy, answer.slope, self.step_size), "ids": state["ids"]}

    monkeypatch.setattr(RandomStep, "start", at_the_input)
    monkeypatch.setattr(RandomStep, "step", late)
    with pytest.raises(AssertionError):
        compare(EVERY[0])
