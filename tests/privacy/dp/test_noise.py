"""Noise of the right law and size, charged as it is added."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.privacy.dp.charges import Charge
from vambrace.privacy.dp.noise import LEVELS, AdaptiveGaussian, DiscreteGaussian, Gaussian, Laplace, Noise
from vambrace.privacy.dp.sampling import Poisson
from vambrace.privacy.dp.secret import Secret

CLOSE = 1e-4  # the least p-value of a test at a fixed seed; a negative control must fall below it
DECAYS = st.sampled_from(["time", "step", "exponential"])

GAUSSIAN = Gaussian(noise_multiplier=1.5)
ADAPTIVE = AdaptiveGaussian(noise_multiplier=3.0, decay="exponential", rate=0.2)
LAPLACE = Laplace(noise_multiplier=1.5)
DISCRETE = DiscreteGaussian(noise_multiplier=1.5)
EVERY = [GAUSSIAN, ADAPTIVE, LAPLACE, DISCRETE]


def added(noise: Noise, *, step: int = 0, sensitivity: float = 0.2, size: int = 60_000, **words: Any) -> torch.Tensor:
    flat = torch.zeros(size, **words)
    noise.add_(flat, sensitivity, step, Secret(debug_seed=21))
    return flat.cpu()


def law_p(noise: Noise, numbers: torch.Tensor, scale: float) -> float:
    law = "laplace" if isinstance(noise, Laplace) else "norm"
    return float(stats.kstest(numbers.double() / scale, law).pvalue)


@pytest.mark.statistical
@pytest.mark.parametrize("noise", EVERY, ids=lambda noise: type(noise).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_charged_multiplier_and_no_other(noise: Noise, dtype: torch.dtype) -> None:
    for step, sensitivity in ((0, 0.2), (7, 3.0)):
        numbers = added(noise, step=step, sensitivity=sensitivity, dtype=dtype)
        scale = noise.multiplier(step) * sensitivity
        assert law_p(noise, numbers, scale) > CLOSE
        for wrong in (2 / 3, 3 / 2, 1 / math.sqrt(2), math.sqrt(2)):
            assert law_p(noise, numbers, scale * wrong) < CLOSE


@pytest.mark.parametrize("noise", EVERY, ids=lambda noise: type(noise).__name__)
def test_noise_is_added_to_the_sum_and_never_repeats(noise: Noise) -> None:
    secret = Secret()
    first, second = torch.full((500,), 100.0), torch.full((500,), 100.0)
    noise.add_(first, 1.0, 0, secret)
    noise.add_(second, 1.0, 0, secret)
    assert abs(float(first.mean()) - 100) < 1
    assert not bool((first == second).all())
    assert int((first == second).sum()) < 5


@pytest.mark.parametrize("noise", EVERY, ids=lambda noise: type(noise).__name__)
def test_noise_on_a_device(noise: Noise, device: torch.device) -> None:
    assert torch.equal(added(noise, size=1000, device=device), added(noise, size=1000))


@pytest.mark.parametrize("noise", EVERY, ids=lambda noise: type(noise).__name__)
def test_a_charge_is_made_of_the_object_that_adds(noise: Noise) -> None:
    fields = Poisson().charge_fields(1000, 10)
    charge = Charge(mechanism=noise.mechanism, noise_multiplier=noise.multiplier(3), **fields)  # type: ignore[arg-type]
    assert charge.noise_multiplier == noise.multiplier(3)
    names = {
        Gaussian: "gaussian",
        AdaptiveGaussian: "gaussian",
        Laplace: "laplace",
        DiscreteGaussian: "discrete_gaussian",
    }
    assert charge.mechanism == names[type(noise)]
    assert noise.ord == ("l1" if isinstance(noise, Laplace) else "l2")
    assert read(type(noise), noise.as_json()) == noise  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", [Gaussian, Laplace, DiscreteGaussian])
def test_no_noise_is_none_even_without_a_clip_norm(kind: type[Gaussian]) -> None:
    noise = kind(noise_multiplier=0.0)
    flat = torch.ones(5)
    noise.add_(flat, math.inf, 0, Secret())
    assert torch.equal(flat, torch.ones(5))
    assert noise.mechanism == "none"
    assert Charge(mechanism="none", noise_multiplier=noise.multiplier(0), sampling="full", sample_rate=1.0)


# ---- decay -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("time", 2 / 1.5), ("step", 2 * 0.95**10), ("exponential", 2 * math.exp(-0.5))],
)
def test_formulas(decay: Any, expected: float) -> None:
    assert AdaptiveGaussian(noise_multiplier=2.0, decay=decay, rate=0.05).formula(10) == pytest.approx(expected)


@given(DECAYS, st.floats(0.01, 50), st.floats(0, 0.5), st.floats(0.01, 1), st.integers(0, 10_000))
def test_levels_are_few_and_below_the_formula(decay: Any, start: float, rate: float, share: float, step: int) -> None:
    noise = AdaptiveGaussian(noise_multiplier=start, decay=decay, rate=rate, floor=start * share)
    used = noise.multiplier(step)
    exact = noise.formula(step)
    assert noise.multiplier(0) == start
    assert start * share <= used <= start
    assert used <= exact or used == start * share
    assert used >= min(exact, start) * share ** (1 / (LEVELS - 1)) * (1 - 1e-9)
    assert noise.multiplier(step + 1) <= used


@pytest.mark.parametrize("decay", ["time", "step", "exponential"])
def test_at_most_64_multipliers_whatever_the_length(decay: Any) -> None:
    noise = AdaptiveGaussian(noise_multiplier=1.3, decay=decay, rate=0.001)
    used = [noise.multiplier(step) for step in range(20_000)]
    assert len(set(used)) == LEVELS
    assert used[-1] == 1.3 / 10
    assert max(1 - now / noise.formula(step) for step, now in enumerate(used)) < 0.036
    assert (
        len({noise.formula(step) for step in range(20_000)}) == 20_000
    )  # what an accountant would have had to compose


def test_no_decay_is_one_level() -> None:
    assert {AdaptiveGaussian(noise_multiplier=2.0, decay="time", rate=0.0).multiplier(step) for step in range(99)} == {
        2.0
    }
    level = AdaptiveGaussian(noise_multiplier=2.0, decay="time", rate=1.0, floor=2.0)
    assert {level.multiplier(step) for step in range(99)} == {2.0}


# ---- the integer grid --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "sensitivity", "spacing"),
    [(2.0**-20, 1.0, 2.0**-20), (1e-3, 1.0, 2.0**-10), (0.5, 3.0, 1.0), (1.0, 0.1, 0.0625)],
)
def test_spacing_is_a_power_of_two_not_above_what_is_asked(grid: float, sensitivity: float, spacing: float) -> None:
    assert DiscreteGaussian(noise_multiplier=1.0, grid=grid).spacing(sensitivity) == spacing


def test_results_lie_on_the_grid() -> None:
    noise = DiscreteGaussian(noise_multiplier=1.0, grid=2.0**-8)
    flat = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    before = flat.clone()
    noise.add_(flat, 1.0, 0, Secret(debug_seed=1))
    assert torch.equal(flat * 2**8, (flat * 2**8).round())
    assert not torch.equal(before * 2**8, (before * 2**8).round())


@pytest.mark.parametrize(("size", "grid", "sensitivity"), [(10_000, 2.0**-10, 1.0), (4, 2.0**-4, 0.7)])
def test_noise_makes_up_for_rounding(
    size: int, grid: float, sensitivity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def draw(self: Secret, count: int, sigma: float) -> torch.Tensor:
        asked.append(sigma)
        return torch.zeros(count, dtype=torch.int64)

    monkeypatch.setattr(Secret, "discrete_gaussian", draw)
    noise = DiscreteGaussian(noise_multiplier=1.1, grid=grid)
    noise.add_(torch.zeros(size), sensitivity, 0, Secret())
    cells = sensitivity / noise.spacing(sensitivity) + math.sqrt(size)
    assert 1.1 * cells <= asked[0] <= 1.1 * cells * (1 + 1e-12)


@given(st.integers(1, 40), st.floats(0.01, 10), st.integers(0, 12), st.integers(0, 2**32))
def test_rounded_neighbours_are_no_further_apart_than_is_made_up_for(
    size: int, sensitivity: float, bits: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    one = torch.from_numpy(generator.normal(size=size) * 3)
    shift = torch.from_numpy(generator.normal(size=size) * generator.integers(0, 2, size))
    other = one + shift * (sensitivity / max(float(shift.norm()), 1e-9))
    noise = DiscreteGaussian(noise_multiplier=1.0, grid=2.0**-bits)
    spacing = noise.spacing(sensitivity)

    def cells(flat: torch.Tensor) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Secret, "discrete_gaussian", lambda self, count, sigma: torch.zeros(count, dtype=torch.int64))
            noise.add_(rounded := flat.clone(), sensitivity, 0, Secret())
        return rounded / spacing

    assert float((cells(one) - one / spacing).abs().max()) <= 0.5
    moved = float((cells(one) - cells(other)).norm())
    assert moved <= (sensitivity / spacing + math.sqrt(size)) * (1 + 1e-12)


def test_far_sums_are_brought_in_and_chunks_are_joined() -> None:
    flat = torch.full((70_000,), 1e30)
    DISCRETE.add_(flat, 1.0, 0, Secret())
    assert bool((flat == 2.0**51 * 2.0**-20).all())
    flat = torch.arange(70_000).double()
    DiscreteGaussian(noise_multiplier=1e-3).add_(flat, 1.0, 0, Secret())
    assert bool(((flat - torch.arange(70_000)).abs() < 0.02).all())
    assert int((flat == torch.arange(70_000)).sum()) < 200


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(noise_multiplier=-1.0),
        lambda: Laplace(noise_multiplier=math.inf),
        lambda: DiscreteGaussian(noise_multiplier=math.nan),
        lambda: DiscreteGaussian(noise_multiplier=1.0, grid=0.0),
        lambda: DiscreteGaussian(noise_multiplier=1.0, grid=2.0),
        lambda: AdaptiveGaussian(noise_multiplier=0.0, decay="time", rate=0.1),
        lambda: AdaptiveGaussian(noise_multiplier=1.0, decay="cosine", rate=0.1),  # type: ignore[arg-type]
        lambda: AdaptiveGaussian(noise_multiplier=1.0, decay="time", rate=-0.1),
        lambda: AdaptiveGaussian(noise_multiplier=1.0, decay="step", rate=1.0),
        lambda: AdaptiveGaussian(noise_multiplier=1.0, decay="time", rate=0.1, floor=2.0),
        lambda: AdaptiveGaussian(noise_multiplier=1.0, decay="time", rate=0.1, floor=0.0),
        lambda: GAUSSIAN.multiplier(-1),
        lambda: ADAPTIVE.multiplier(-1),
        lambda: GAUSSIAN.add_(torch.zeros(2, 2), 1.0, 0, Secret()),
        lambda: GAUSSIAN.add_(torch.zeros(4, dtype=torch.bfloat16), 1.0, 0, Secret()),
        lambda: GAUSSIAN.add_(torch.zeros(4)[::2], 1.0, 0, Secret()),
        lambda: GAUSSIAN.add_(torch.zeros(4), 0.0, 0, Secret()),
        lambda: GAUSSIAN.add_(torch.zeros(4), math.nan, 0, Secret()),
        lambda: GAUSSIAN.add_(torch.zeros(4), math.inf, 0, Secret()),
        lambda: GAUSSIAN.add_(torch.zeros(4), 1e39, 0, Secret()),
        lambda: DiscreteGaussian(noise_multiplier=1e4, grid=2.0**-30).add_(torch.zeros(4), 1.0, 0, Secret()),
    ],
)
def test_options_and_sums_that_do_not_fit(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == "E146"
