"""Every claimed success survives being saved as an 8-bit image and read again, where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vambrace.attacks import APGD, DDN, FAB, FGSM, PGD, Adaptive, HopSkipJump, RayS, Square
from vambrace.core.access import Access, Bounds
from vambrace.errors import ConfigError
from vambrace.ops.norms import distances
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
    again = torch.from_numpy(saved.astype(np.float32) / np.float32(255))
    assert torch.equal(again[out.success], out.adversarial[out.success])
    assert (function(again).argmax(1) != labels)[out.success].all()
    size = distances(again, inputs, attack.norm)
    torch.testing.assert_close(size[out.success], out.distance[out.success])
    if attack.eps is not None:
        assert (size[out.success] <= attack.eps).all()


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
