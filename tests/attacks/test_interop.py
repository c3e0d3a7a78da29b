"""An attack as a harness sees it: a function of a plain module, which gets its module back as it was."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vambrace.attacks import APGD, MDIFGSM, PGD
from vambrace.attacks.hop_skip_jump import HopSkipJump
from vambrace.attacks.interop import as_function
from vambrace.core.goals import Targeted
from vambrace.errors import ConfigError
from vambrace.models import from_torch


def net() -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.Dropout(0.9), nn.Tanh(), nn.Linear(24, 3))
    with torch.no_grad():
        for layer in (layers[1], layers[4]):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / 2)
            layer.bias.zero_()
    return layers


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    model, inputs = net(), torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return model, inputs, model.eval()(inputs).argmax(1)


def global_states() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


@pytest.mark.parametrize(
    "attack", [PGD(eps=0.2, steps=6), MDIFGSM(eps=0.2, steps=3), APGD(eps=0.5, norm="l2", steps=8)]
)
def test_points_are_those_of_the_attack(attack) -> None:
    model, inputs, labels = problem()
    found = attack(from_torch(model), inputs, labels, rng=4)
    points = as_function(attack, rng=4)(model, inputs, labels)
    assert torch.equal(points, found.adversarial)
    with torch.no_grad():
        assert torch.equal(model(points).argmax(1) != labels, found.success)
    assert int(found.success.sum()) > 0


def test_targets_count_only_where_they_are_asked_for() -> None:
    model, inputs, labels = problem()
    attack, targets = PGD(eps=0.3, steps=10), (labels + 1) % 3
    function = as_function(attack)
    away = function(model, inputs, labels)
    assert torch.equal(function(model, inputs, labels, targets), away)
    assert torch.equal(function(model, inputs, labels, targets=targets, targeted=False), away)
    toward = function(model, inputs, labels, targets, True)
    assert torch.equal(toward, attack(from_torch(model), inputs, Targeted(targets)).adversarial)
    assert not torch.equal(toward, away)
    with pytest.raises(ConfigError, match="E108"):
        function(model, inputs, labels, targeted=True)


def test_the_module_comes_back_as_it_was() -> None:
    model, inputs, labels = problem()
    model.train()
    model[3].eval()
    model[1].weight.requires_grad_(False)
    flags = [part.training for part in model.modules()], [each.requires_grad for each in model.parameters()]
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    before = global_states()
    points = as_function(MDIFGSM(eps=0.2, steps=3))(model, inputs.clone().requires_grad_(), labels)
    assert global_states() == before
    assert ([part.training for part in model.modules()], [each.requires_grad for each in model.parameters()]) == flags
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    assert not points.requires_grad
    with torch.no_grad():
        assert torch.equal(as_function(MDIFGSM(eps=0.2, steps=3))(model, inputs, labels), points), "no dropout, no luck"
    with pytest.raises(ConfigError, match="E132"):
        as_function(PGD(eps=0.2))(model, inputs + 1, labels)
    assert [part.training for part in model.modules()] == flags[0]


def test_attacks_that_make_the_change_small_are_functions_too() -> None:
    model, inputs, labels = problem()
    points = as_function(HopSkipJump(budget=200), batch_size=8)(model, inputs, labels)
    with torch.no_grad():
        assert (model(points).argmax(1) != labels).double().mean() > 0.5


def test_functions_travel() -> None:
    model, inputs, labels = problem()
    function = as_function(PGD(eps=0.2, steps=3), rng=3)
    assert torch.equal(pickle.loads(pickle.dumps(function))(model, inputs, labels), function(model, inputs, labels))
