"""Calibration: never beyond the target, and close to it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vambrace.errors import ConfigError
from vambrace.privacy.dp.accounting import charge_of, epsilon
from vambrace.privacy.dp.calibration import Calibration, calibrate
from vambrace.privacy.dp.charges import Spent
from vambrace.privacy.dp.edges import fitting, rounded

ACCOUNTANTS = st.sampled_from(["rdp", "zcdp", "gdp"])
COMMON = {"delta": 1e-5, "sampling": "poisson"}


def cost(found: Calibration, accountant: Any, **changed: Any) -> float:
    fields = {
        "noise_multiplier": found.noise_multiplier,
        "sample_rate": found.sample_rate,
        "steps": found.steps,
        "delta": found.guarantee.delta,
        **changed,
    }
    return epsilon(accountant=accountant, **fields).epsilon


@given(
    target=st.floats(0.2, 20.0),
    rate=st.floats(1e-3, 0.5),
    steps=st.integers(1, 20_000),
    delta=st.sampled_from([1e-3, 1e-6]),
    by=ACCOUNTANTS,
)
@settings(max_examples=15, deadline=None)
def test_noise(target: float, rate: float, steps: int, delta: float, by: Any) -> None:
    found = calibrate(epsilon=target, delta=delta, sample_rate=rate, steps=steps, accountant=by)
    assert found.guarantee.epsilon == cost(found, by) <= target
    assert cost(found, by, noise_multiplier=found.noise_multiplier * (1 - 3e-4)) > target
    assert rounded(found.noise_multiplier, up=True) == found.noise_multiplier


@given(
    target=st.floats(0.5, 10.0),
    noise=st.floats(0.6, 5.0),
    rate=st.floats(1e-3, 0.1),
    by=st.sampled_from(["rdp", "gdp"]),
)
@settings(max_examples=15, deadline=None)
def test_steps(target: float, noise: float, rate: float, by: Any) -> None:
    if epsilon(noise_multiplier=noise, sample_rate=rate, steps=1, delta=1e-5, accountant=by).epsilon > target:
        with pytest.raises(ConfigError, match="even one step"):
            calibrate(epsilon=target, delta=1e-5, noise_multiplier=noise, sample_rate=rate, accountant=by)
        return
    found = calibrate(epsilon=target, delta=1e-5, noise_multiplier=noise, sample_rate=rate, accountant=by)
    assert found.guarantee.epsilon == cost(found, by) <= target < cost(found, by, steps=found.steps + 1)


@pytest.mark.parametrize("by", ["rdp", "gdp", pytest.param("pld", marks=pytest.mark.slow)])
def test_batch(by: Any) -> None:
    given = {"epsilon": 2.0, "delta": 1e-5, "noise_multiplier": 1.1, "steps": 500, "accountant": by}
    found = calibrate(dataset_size=5000, **given)
    assert found.sample_rate == found.batch_size / 5000
    assert cost(found, by) <= 2.0 < cost(found, by, sample_rate=(found.batch_size + 1) / 5000)
    rate = calibrate(**given)
    assert cost(rate, by) <= 2.0 < cost(rate, by, sample_rate=rate.sample_rate * 1.0005)
    assert found.sample_rate <= rate.sample_rate <= (found.batch_size + 1) / 5000
    assert (rate.batch_size, found.guarantee.accountant) == (0, by)


def test_a_batch_of_everything() -> None:
    given = {"epsilon": 8.0, "delta": 1e-5, "noise_multiplier": 50.0, "steps": 10, "accountant": "rdp"}
    assert calibrate(dataset_size=300, **given).batch_size == 300
    assert calibrate(**given).sample_rate == 1.0


@pytest.mark.parametrize("seek", ["noise_multiplier", "steps"])
def test_by_pld(seek: str) -> None:
    given: dict[str, Any] = {"noise_multiplier": 1.2, "steps": 400, "sample_rate": 0.02}
    del given[seek]
    tight = calibrate(epsilon=2.0, delta=1e-5, **given)
    loose = calibrate(epsilon=2.0, delta=1e-5, accountant="rdp", **given)
    assert 0.99 * 2.0 < cost(tight, "pld") <= 2.0
    if seek == "steps":
        assert tight.steps > loose.steps
        assert cost(tight, "pld", steps=tight.steps + 1) > 2.0
    else:
        assert tight.noise_multiplier < loose.noise_multiplier
        assert cost(tight, "pld", noise_multiplier=tight.noise_multiplier * (1 - 3e-4)) > 2.0


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": "fixed_size", "batch_size": 20, "dataset_size": 500},
        {"sampling": "shuffle", "batch_size": 20, "dataset_size": 500},
        {"sampling": "full"},
        {"sampling": "poisson", "sample_rate": 0.1, "mechanism": "laplace"},
        {"sampling": "poisson", "sample_rate": 0.1, "mechanism": "discrete_gaussian"},
        pytest.param(
            {"sampling": "truncated_poisson", "sample_rate": 0.05, "batch_size": 60, "dataset_size": 500},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda fields: f"{fields['sampling']}-{fields.get('mechanism', 'gaussian')}",
)
def test_noise_for_every_sampler(fields: dict[str, Any]) -> None:
    found = calibrate(epsilon=2.0, delta=1e-5, steps=60, **fields)
    charge = charge_of(noise_multiplier=found.noise_multiplier, **fields)
    assert epsilon(Spent([(charge, 60)]), delta=1e-5) == found.guarantee
    assert 1.9 < found.guarantee.epsilon <= 2.0


def test_the_clip_norm_that_a_noise_is_enough_for() -> None:
    found = calibrate(epsilon=3.0, delta=1e-5, sample_rate=0.01, steps=100, accountant="rdp")
    assert found.clip_norm(2.0) * found.noise_multiplier == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({"noise_multiplier": 1.0, "steps": 10, "sample_rate": 0.1}, "nothing left out"),
        ({"steps": 10}, "noise_multiplier and the batch left out"),
        ({"steps": 10, "batch_size": 10}, "noise_multiplier and the batch left out"),
        ({"sample_rate": 0.1}, "noise_multiplier and steps left out"),
        ({"epsilon": 0.0, "steps": 10, "sample_rate": 0.1}, "epsilon 0.0"),
        ({"delta": 1.0, "steps": 10, "sample_rate": 0.1}, "delta 1.0"),
        ({"steps": 0, "sample_rate": 0.1}, "steps 0"),
        ({"steps": 1.5, "sample_rate": 0.1}, "steps 1.5"),
        ({"noise_multiplier": 0.0, "steps": 10}, "noise_multiplier 0.0"),
        ({"noise_multiplier": 0.1, "sample_rate": 0.9}, "even one step exceeds"),
        ({"noise_multiplier": 0.02, "steps": 10, "dataset_size": 10}, "even a batch of one sample"),
        ({"epsilon": 1e-9, "delta": 1e-12, "steps": 10**9, "sampling": "full"}, "even a noise multiplier of"),
    ],
)
def test_questions_without_an_answer_are_refused(fields: dict[str, Any], seen: str) -> None:
    with pytest.raises(ConfigError, match=seen) as caught:
        calibrate(**{"epsilon": 1.0, "delta": 1e-5, "accountant": "rdp", **fields})
    assert caught.value.code == "E144"


@given(st.floats(1e-9, 1e9), st.integers(1, 8))
def test_rounding_goes_the_way_it_says(value: float, digits: int) -> None:
    low, high = rounded(value, up=False, digits=digits), rounded(value, up=True, digits=digits)
    assert low * (1 - 1e-5) <= value <= high * (1 + 1e-5)
    assert high - low <= 1.001 * 10.0 ** (1 - digits + math.floor(math.log10(value)))
    assert float(f"{value:.{digits - 1}e}") in (low, high)


@pytest.mark.parametrize("root", [0.123, 3.0, 777.7])
@pytest.mark.parametrize("safe_side", [1, -1])
def test_fitting_stays_on_the_safe_side(root: float, safe_side: int) -> None:
    def excess(point: float) -> float:
        return safe_side * (root - point)

    broken, safe = (root / 2, root * 2)[::safe_side]
    found = fitting(excess, broken, safe)
    assert excess(found) <= 0
    assert found == pytest.approx(root, rel=1e-4)
