"""Every claimed success survives being saved as an 8-bit image and read again, where that is asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from vambrace.attacks import APGD, DDN, FAB, FGSM, PGD, Adaptive, HopSkipJump, RayS, Square
from vambrace.core.access import Access, Bounds
from vambrace.errors import ConfigError
from vambrace.ops.norms import distances
from vambrace.ops.projections import inner_box
from vambrace.testing.counting import CountingModel

N = 30
ATTACKS = [
    FGSM(eps=0.1, quantised=True),
    PGD(eps=0.02, steps=10, quantised=True),
    PGD(eps=0.15, norm="l2", steps=10, quantised=True),
    PGD(eps=0.8, norm="l1", steps=10, quantised=True),
    APGD(eps=0.02, steps=20, quantised=True),
    Square(eps=0.03, queries=100, quantised=True),
    Adaptive(eps=0.02, budget=150, quantised=True),
    DDN(steps=30, quantised=True),
    FAB(norm="linf", steps=20, quantised=True),
    HopSkipJump(norm="l2", budget=300, quantised=True),
    RayS(norm="linf", budget=300, quantised=True),
]


ODD = {
    "numbers": Bounds(-3.7, 9.1),
    "normalised": Bounds(
        torch.tensor([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], dtype=torch.float64).view(3, 1, 1),
        torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], dtype=torch.float64).view(3, 1, 1),
    ),
}


def pictures() -> tuple[object, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inner = torch.randn(36, 24, generator=generator) / 4
    outer = torch.randn(24, 3, generator=generator) / 3
    inputs = torch.randint(0, 256, (N, 1, 6, 6), generator=generator).float() / 255

    def function(points: Tensor) -> Tensor:
        return torch.tanh((points.flatten(1) - 0.5) @ inner) @ outer

    return function, inputs, function(inputs).argmax(1)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: f"{each.name}-{each.norm}")
def test_saved_and_read_again_it_is_still_a_success(attack) -> None:
    function, inputs, labels = pictures()
    needs = Access(attack.needs)
    out = attack(CountingModel(function, access=needs, bounds=Bounds(0.0, 1.0)), inputs, labels)
    assert out.success.sum() > 2
    saved = (out.adversarial.numpy() * 255).round().astype(np.uint8)
    again = torch.from_numpy(saved.astype(np.float32) / np.float32(255)).to(inputs.device)
    assert torch.equal(again[out.success], out.adversarial[out.success])
    assert (function(again).argmax(1) != labels)[out.success].all()
    size = distances(again, inputs, attack.norm)
    torch.testing.assert_close(size[out.success], out.distance[out.success])
    if attack.eps is not None:
        assert (size[out.success] <= attack.eps).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: f"{each.name}-{each.norm}")
@pytest.mark.parametrize("box", ODD)
@pytest.mark.parametrize("on_levels", [True, False])
def test_boxes_whose_ends_are_no_numbers_of_the_dtype(attack, box: str, on_levels: bool) -> None:
    """Saved as bytes of the box and read again, and measured in double precision."""
    bounds = ODD[box]
    low, high = (torch.as_tensor(end, dtype=torch.float64) for end in (bounds.low, bounds.high))
    least, most = inner_box(bounds, torch.zeros(()))
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(75, 3, generator=generator, dtype=torch.float64) / 8

    def function(points: Tensor) -> Tensor:
        return (torch.tanh(((points.double() - low) / (high - low)).flatten(1) * 2 - 1) @ weights).float()

    levels = torch.randint(-100, 356, (N, 3, 5, 5), generator=generator).clamp(0, 255)  # many at the ends
    inputs = (low + levels * (high - low) / 255).float().clamp(least, most)
    if not on_levels:
        inputs = bounds.to(inputs).clip(inputs + 0.01 * torch.rand(inputs.shape, generator=generator))
        inputs = inputs.clamp(least, most)
    labels = function(inputs).argmax(1)
    if attack.eps is not None:
        attack = dataclasses.replace(attack, eps=attack.eps * bounds.span * 2)
    out = attack(CountingModel(function, access=Access(attack.needs), bounds=bounds), inputs, labels)
    assert out.success.sum() > 2
    points = out.adversarial[out.success]
    assert ((points.double() >= low) & (points.double() <= high)).all()
    saved = ((points.double() - low) / (high - low) * 255).round()
    assert torch.equal((low + saved * (high - low) / 255).float().clamp(least, most), points)
    assert (function(points).argmax(1) != labels[out.success]).all()
    size = distances(points, inputs[out.success], attack.norm)
    assert torch.equal(size, out.distance[out.success])
    if attack.eps is not None:
        assert (size <= attack.eps).all()


@pytest.mark.parametrize("attack", [PGD(eps=0.02, steps=10), DDN(steps=30)], ids=["pgd", "ddn"])
def test_without_asking_some_do_not_survive(attack) -> None:
    """What the option is for: points as found lie between the levels."""
    function, inputs, labels = pictures()
    out = attack(CountingModel(function, bounds=Bounds(0.0, 1.0)), inputs, labels)
    again = (out.adversarial * 255).round() / 255
    assert not torch.equal(again[out.success], out.adversarial[out.success])


def test_a_model_without_bounds_has_no_levels() -> None:
    function, inputs, labels = pictures()
    with pytest.raises(ConfigError, match="E142"):
        PGD(eps=0.02, quantised=True)(CountingModel(function, bounds=None), inputs, labels)
