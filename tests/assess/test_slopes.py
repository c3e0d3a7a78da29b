"""Gradients that are missing, zero, wrong or of another model, and those that are right but look odd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vambrace import models
from vambrace.assess.constancy import OTHER_CALL
from vambrace.assess.probes import Probe
from vambrace.assess.slopes import AGREE, gradient_flags
from vambrace.core.intervals import wilson
from vambrace.testing.hostile import build


def flags_of(module, batch, *, width=32, **options):
    model = models.from_torch(module.eval(), **options)
    probe = Probe.ask(model, batch.inputs, batch.labels, size=32, batch=width)
    return gradient_flags(model, probe)


def codes(module, batch, **options):
    return {flag.code for flag in flags_of(module, batch, **options)[0]}


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


@pytest.mark.parametrize("width", [1, 7, 32])
def test_a_good_network_has_no_flags(net, digits, width):
    flags, seconds = flags_of(net, digits.read(range(40)), width=width)
    assert flags == []
    assert seconds > 0


class PartlyBlind(nn.Module):
    """Cuts the gradient of samples whose first pixel is 1."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        blind = inputs[:, :, :1, :1] == 1
        return self.base(torch.where(blind, inputs.detach(), inputs))


@pytest.mark.parametrize(("blind", "flagged"), [(3, False), (4, True)])
def test_zero_gradients_just_under_and_just_over_a_tenth(blind, flagged, net, digits):
    batch = digits.read(range(32))
    batch.inputs[:, :, 0, 0] = 0
    batch.inputs[:blind, :, 0, 0] = 1
    assert ("E433" in codes(PartlyBlind(net), batch)) is flagged


@pytest.mark.parametrize(("factor", "flagged"), [(0.5, False), (2.0, True)])
def test_another_answer_with_gradients_just_under_and_just_over(factor, flagged, net, digits):
    batch = digits.read(range(32))
    logits = net(batch.inputs).detach()
    spread = float((logits - logits.mean(dim=1, keepdim=True)).abs().max())

    def answer(inputs):
        return net(inputs) + factor * OTHER_CALL * spread * torch.is_grad_enabled()

    assert codes(Function(answer), batch) == ({"E423"} if flagged else set())


class Backwards(torch.autograd.Function):
    """The identity, whose gradient has the wrong sign for some rows."""

    @staticmethod
    def forward(context, inputs, wrong):
        context.wrong = wrong
        return inputs.clone()

    @staticmethod
    def backward(context, gradient):
        sign = torch.where(torch.arange(len(gradient)) < context.wrong, -1.0, 1.0)
        return gradient * sign.view(-1, 1, 1, 1), None


@pytest.mark.parametrize(("wrong", "flagged"), [(6, False), (7, True), (32, True)])
def test_wrong_directions_just_under_and_just_over(wrong, flagged, net, digits):
    """7 of 32 are more than a tenth at 95 %, 6 are not."""
    assert (wilson(32 - wrong, 32).high < AGREE) is flagged
    found = codes(Function(lambda inputs: net(Backwards.apply(inputs, wrong))), digits.read(range(32)))
    assert found == ({"E435"} if flagged else set())


def test_a_rounding_with_a_straight_through_gradient_is_no_lie(net, digits):
    """The gradient is that of a stand-in, but it points the right way at the steps that attacks take."""

    def quantised(inputs):
        return net(inputs + ((inputs * 16).round() / 16 - inputs).detach())

    assert codes(Function(quantised), digits.read(range(40))) == set()


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e4, 1e20])
def test_no_scale_of_logits_looks_like_a_wrong_gradient(net, digits, scale):
    assert codes(Function(lambda inputs: scale * net(inputs)), digits.read(range(40))) == set()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_no_type_looks_like_a_wrong_gradient(net, digits, dtype):
    import copy

    assert codes(copy.deepcopy(net).to(dtype), digits.read(range(40))) == set()


def test_probabilities_and_models_without_bounds(net, digits):
    batch = digits.read(range(40))
    soft = Function(lambda inputs: (0.2 * net(inputs)).softmax(dim=1))
    assert codes(soft, batch, outputs="probabilities") == set()
    assert codes(net, batch, bounds=None) == set()


def test_an_exception_with_gradients_recorded_is_e405(net, digits):
    flags, seconds = flags_of(build("raises_with_gradients", net), digits.read(range(40)))
    assert [flag.code for flag in flags] == ["E405"]
    assert "inference only" in flags[0].text
    assert seconds is None


def test_gradients_that_are_not_numbers(net, digits):
    def rooted(inputs):
        return net(inputs) + 0 * (inputs * 0).sqrt().sum()

    assert "E434" in codes(Function(rooted), digits.read(range(40)))
