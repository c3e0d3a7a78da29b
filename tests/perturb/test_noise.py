"""Gaussian noise: one number a value, of the right size, the sample's own."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from vambrace.core.access import Bounds
from vambrace.perturb import GaussianNoise


def added(severity: int, shape=(20, 3, 32, 32), **options) -> torch.Tensor:
    grey = torch.full(shape, 0.5, dtype=torch.float64)
    return GaussianNoise(**options)(grey, severity=severity, rng=4) - grey


@pytest.mark.statistical
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_noise_is_normal_with_the_published_sigma(severity: int) -> None:
    noise = added(severity).flatten()
    sigma = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    # 61,440 values: the Kolmogorov-Smirnov statistic is below 0.0068 in 99.4 % of draws of the right law.
    assert stats.kstest(noise.numpy() / sigma, "norm").statistic < 0.0068
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(noise.numpy() / (wrong * sigma), "norm").statistic > 0.05


@pytest.mark.statistical
def test_every_value_has_its_own_draw() -> None:
    """MindArmour's region noise drew one number for a whole (1, 28, 28) image."""
    noise = added(2, shape=(3, 1, 28, 28))
    assert all(image.unique().numel() == 784 for image in noise)
    across = torch.corrcoef(torch.cat([noise.flatten(2)[:, 0], noise.roll(1, 3).flatten(2)[:, 0]]))
    off = across - torch.eye(6, dtype=torch.float64)
    assert off.abs().max() < 0.15  # 784 values: four standard errors


def test_severities_share_the_pattern() -> None:
    """Differences between severities are due to strength, not to luck."""
    torch.testing.assert_close(added(5) / 0.10, added(1) / 0.04, atol=1e-9, rtol=0)


def test_seed_and_id_decide() -> None:
    grey = torch.full((2, 1, 8, 8), 0.5)
    perturb = GaussianNoise()
    one = perturb(grey, severity=2, rng=0, ids=torch.tensor([5, 9]))
    assert torch.equal(one.flip(0), perturb(grey, severity=2, rng=0, ids=torch.tensor([9, 5])))
    assert not torch.equal(one, perturb(grey, severity=2, rng=1, ids=torch.tensor([5, 9])))
    assert not torch.equal(one[0], one[1])


def test_sigma_is_a_share_of_the_bounds() -> None:
    grey = torch.full((4, 1, 16, 16), 127.5)
    wide = GaussianNoise()(grey, severity=3, bounds=Bounds(0, 255)) - grey
    narrow = GaussianNoise()(grey / 255, severity=3) - grey / 255
    torch.testing.assert_close(wide / 255, narrow, atol=1e-6, rtol=0)


def test_gradient_is_one_inside_the_bounds() -> None:
    inputs = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    GaussianNoise()(inputs, severity=1).sum().backward()
    assert torch.equal(inputs.grad, torch.ones_like(inputs))


def test_features_are_welcome() -> None:
    assert GaussianNoise()(torch.rand(3, 7), severity=1).shape == (3, 7)
