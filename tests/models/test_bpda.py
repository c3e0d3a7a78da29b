"""Exact values, another gradient; and a defence by rounding that falls once its gradient is approximated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vambrace.attacks import PGD
from vambrace.errors import ConfigError
from vambrace.models import from_torch
from vambrace.models.bpda import BPDA


def levels(images: Tensor) -> Tensor:
    return (images * 7).round() / 7


class Small(nn.Module):
    """A network behind a part that may be exact or approximated."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.part, self.first, self.last = part, nn.Linear(16, 24, bias=False), nn.Linear(24, 3, bias=False)
        with torch.no_grad():
            for layer in (self.first, self.last):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(self.part(inputs).flatten(1) - 0.5)))


class Levels(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return levels(images)


def test_values_are_exact_and_gradients_are_of_the_other() -> None:
    inputs = torch.rand(5, 1, 4, 4, requires_grad=True)
    part = BPDA(levels, lambda images: images**3)
    assert torch.equal(part(inputs), levels(inputs))
    weights = torch.rand(5, 1, 4, 4)
    (gradient,) = torch.autograd.grad((part(inputs) * weights).sum(), inputs)
    torch.testing.assert_close(gradient, weights * 3 * inputs.detach() ** 2)
    (plain,) = torch.autograd.grad((BPDA(levels)(inputs) * weights).sum(), inputs)
    assert torch.equal(plain, weights), "the identity"
    with torch.no_grad():
        assert torch.equal(part(inputs), levels(inputs))


def test_values_are_exact_bit_for_bit_at_any_scale() -> None:
    """Adding a difference to the stand-in would round."""
    inputs = torch.rand(1000, 4, requires_grad=True)
    part = BPDA(lambda points: points * 1e-8, lambda points: points * 1e8)
    assert torch.equal(part(inputs), inputs.detach() * 1e-8)


def test_parts_may_change_shape_together_only() -> None:
    inputs = torch.rand(3, 8, requires_grad=True)
    halves = BPDA(lambda points: points[:, ::2].round(), lambda points: points[:, ::2])
    (gradient,) = torch.autograd.grad(halves(inputs).sum(), inputs)
    assert gradient[:, ::2].eq(1).all()
    assert gradient[:, 1::2].eq(0).all()
    with pytest.raises(ConfigError, match="E122"):
        BPDA(lambda points: points[:, ::2])(inputs)


def test_a_part_that_works_in_place_changes_nothing_else() -> None:
    inputs = torch.rand(3, 4, requires_grad=True)
    kept = inputs.detach().clone()
    out = BPDA(lambda points: points.mul_(2).round_(), lambda points: points * 2)(inputs)
    assert torch.equal(inputs.detach(), kept)
    assert torch.equal(out, (kept * 2).round())


def test_modules_inside_are_part_of_the_module() -> None:
    part = BPDA(nn.Linear(4, 4), nn.Linear(4, 4))
    assert len(list(part.parameters())) == 4
    assert not part.eval().exact.training


def test_rounding_hides_a_gradient_and_bpda_brings_it_back() -> None:
    inputs = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    defended = from_torch(Small(Levels()).eval())
    labels = defended.predict(inputs)
    attack = PGD(eps=0.15, steps=15, random_start=False)
    blind = attack(defended, inputs, labels)
    assert not blind.success.any()
    assert torch.equal(blind.zero_gradients, blind.backwards)
    seeing = attack(from_torch(Small(BPDA(levels)).eval()), inputs, labels)
    assert seeing.success.double().mean() > 0.3
    assert (seeing.zero_gradients == 0).all()
    assert torch.equal(defended.predict(seeing.adversarial) != labels, seeing.success), "of the model as it is"


def test_a_stand_in_that_lies_about_values_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong on purpose: the values of the stand-in, too."""
    monkeypatch.setattr(BPDA, "forward", lambda self, inputs: inputs if self.like is None else self.like(inputs))
    with pytest.raises(AssertionError):
        test_rounding_hides_a_gradient_and_bpda_brings_it_back()
    with pytest.raises(AssertionError):
        test_values_are_exact_and_gradients_are_of_the_other()
