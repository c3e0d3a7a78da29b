"""Values that answers depend on and gradients do not, and values that only look like that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vambrace import models
from vambrace.assess.constancy import OTHER_CALL
from vambrace.assess.probes import Probe
from vambrace.assess.slopes import ZERO, gradient_flags
from vambrace.attacks import PGD
from vambrace.testing.hostile import build

SIZE = 32


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


def flags_of(function, batch, **options):
    model = models.from_torch(Function(function).eval(), **options)
    probe = Probe.ask(model, batch.inputs, batch.labels, size=SIZE, batch=32)
    return {flag.code: flag for flag in gradient_flags(model, probe)[0]}


def first(inputs, count=1):
    """Which values are the first `count` ones."""
    return (torch.arange(inputs[0].numel()) < count).view(inputs.shape[1:])


def cut(inputs, count):
    return torch.where(first(inputs, count), inputs.detach(), inputs)


@pytest.mark.parametrize("samples", [1, 5, 40])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
def test_a_detached_half(net, digits, samples, bounds):
    flag = flags_of(lambda inputs: net(cut(inputs, 32)), digits.read(range(samples)), bounds=bounds)["E439"]
    assert (flag.level, flag.families) == ("unreliable", ("adversarial",))
    assert "32 of the 64 values" in flag.text


@pytest.mark.parametrize(("values", "level"), [(6, "warn"), (7, "unreliable")])
def test_a_tenth_of_the_values_just_under_and_just_over(net, digits, values, level):
    """All values of a sample have the weight of a few, so that none of them changes a class."""
    assert (values / 64 > ZERO) is (level == "unreliable")

    def answer(inputs):
        blind = torch.where(first(inputs, values), inputs, 0.0).flatten(1).sum(dim=1, keepdim=True).detach()
        return net(torch.where(first(inputs, values), 0.0, inputs)) + 0.1 * blind * torch.eye(10)[0]

    flag = flags_of(answer, digits.read(range(40)))["E439"]
    assert flag.level == level
    assert f"{values} of the 64 values" in flag.text


@pytest.mark.parametrize(("threshold", "level"), [(0.95, "warn"), (0.8, "unreliable")])
def test_a_tenth_of_the_classes_just_under_and_just_over(net, digits, threshold, level):
    """One value decides, where it exceeds a threshold: in so many of the points that are tried."""

    def answer(inputs):
        logits = net(cut(inputs, 1))
        return torch.where(inputs.flatten(1)[:, :1] > threshold, logits.roll(1, dims=1), logits)

    assert flags_of(answer, digits.read(range(40)))["E439"].level == level


@pytest.mark.parametrize(("factor", "flagged"), [(0.5, False), (2.0, True)])
def test_a_move_of_the_answers_just_under_and_just_over(net, digits, factor, flagged):
    batch = digits.read(range(32))
    logits = net(torch.where(first(batch.inputs), 0.0, batch.inputs)).detach()
    spread = float((logits - logits.mean(dim=1, keepdim=True)).abs().max())

    def answer(inputs):
        move = (inputs.flatten(1)[:, :1] > 0).float() * factor * OTHER_CALL * spread * torch.eye(10)[0]
        return net(torch.where(first(inputs), 0.0, inputs)) + move

    assert ("E439" in flags_of(answer, batch)) is flagged


@pytest.mark.parametrize("gate", [0.1, 0.5, 0.9])
def test_a_slope_that_is_zero_on_all_samples_and_not_elsewhere_is_honest(net, digits, gate):
    """The first column of digits is dark, and behind a ReLU with a threshold it has no slope there."""
    batch = digits.read(range(40))
    batch.inputs[..., 0] = 0

    def gated(inputs):
        seen = net(nn.functional.pad(inputs[..., 1:], (1, 0)))
        return seen + 5 * (inputs[..., 0] - gate).relu().sum(dim=(1, 2))[:, None] * torch.eye(10)[3]

    assert flags_of(gated, batch) == {}


def test_values_that_nothing_depends_on_are_none(net, digits):
    """A network that crops its input."""
    cropped = flags_of(lambda inputs: net(torch.where(first(inputs, 20), 0.0, inputs)), digits.read(range(40)))
    assert cropped == {}


def test_a_rounded_value_is_blind_and_one_with_a_stand_in_is_not(net, digits):
    batch = digits.read(range(40))

    def rounded(inputs):
        return net(torch.where(first(inputs, 32), (inputs * 4).round() / 4, inputs))

    def stand_in(inputs):
        return net(inputs + ((inputs * 4).round() / 4 - inputs).detach())

    assert "E439" in flags_of(rounded, batch)
    assert flags_of(stand_in, batch) == {}


def test_a_model_that_refuses_other_values_is_not_asked_for_more(net, digits):
    def strict(inputs):
        grid = (inputs.detach() * 16 - (inputs.detach() * 16).round()).abs().amax()
        assert torch.is_grad_enabled() or float(grid) < 1e-3
        return net(cut(inputs, 32))

    assert "E439" not in flags_of(strict, digits.read(range(40)))


def test_what_the_flag_is_for(net, digits):
    """The same network with half of its input hidden from the gradient loses far less to an attack that follows it."""
    batch = digits.read(range(100))
    left: list[int] = []
    for module in (net, build("half_detached", net)):
        model = models.from_torch(module)
        kept = model.predict(batch.inputs) == batch.labels
        found = PGD(eps=0.1, steps=20)(model, batch.inputs[kept], batch.labels[kept], rng=0)
        left.append(int((~found.success).sum()))
    assert left[1] > left[0] + 10
