"""Published and independently computed values of epsilon, delta and noise; each row names where it comes from.

Poisson rows: Opacus' accountant tests, TensorFlow Privacy's statement tests, De et al. 2022, recomputed with
dp-accounting's default grid and orders. RDP to 1e-5 relative, PLD and calibrations to 1e-3.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from vambrace.privacy.dp.accounting import delta, epsilon
from vambrace.privacy.dp.calibration import calibrate
from vambrace.privacy.dp.charges import Charge, Spent
from vambrace.privacy.dp.events import Event
from vambrace.privacy.dp.rdp import curve

# noise, rate, steps, delta, RDP or None, PLD
ROWS = [
    (1.5, 0.04, 2250, 1e-5, 7.329335, 6.768787),
    (0.8, 0.001, 100, 1e-6, None, 0.260339),
    (1.5, 0.05, 100, 1e-6, None, 1.943736),
    (3.0, 0.2, 100, 1e-6, None, 3.371055),
    (2.0, 0.2, 100, 1e-6, 6.124960, 5.661788),
    (0.8, 0.05, 100, 1e-6, None, 6.730629),
    (0.8, 0.2, 100, 1e-6, None, 24.322620),
    (0.8, 0.001, 1000, 1e-6, None, 0.467695),
    (1.5, 0.05, 1000, 1e-6, 6.667952, 6.199695),
    (0.8, 0.05, 1000, 1e-6, None, 19.515033),
    (0.8, 0.001, 20000, 1e-6, 1.897196, 1.286152),
    (3.0, 0.05, 20000, 1e-6, None, 13.950657),
    (1.5, 0.05, 50000, 1e-6, None, 73.184963),
    (0.8, 0.05, 20000, 1e-6, None, 140.644560),
    (0.8, 0.05, 50000, 1e-6, None, 291.374992),
    (1.3, 150 / 60000, 6000, 1e-5, 0.7242234026109595, 0.640111),
    (1.0, 0.001, 30000, 1e-7, 1.4154988495444842, 1.098200),
    (0.7, 0.01, 120, 1e-5, 3.2392676, 2.4612381),
    (0.35, 0.01, 120, 1e-5, 22.6248601, 18.6977407),
    (2.0, 0.0064, 782, 1e-6, 0.433359, 0.393742),
    (1.1, 256 / 60000, 14040, 1e-5, 2.594363, 2.379644),
    (1.1, 256 / 60000, 3515, 1e-5, 1.281144, 1.133745),
    (1.0, 0.01, 1000, 1e-5, 2.101367, 1.828244),
    (3.0, 4096 / 50000, 2468, 1e-5, 7.045766, 6.529288),
]


@pytest.mark.parametrize(("noise", "rate", "steps", "at", "rdp", "pld"), ROWS)
def test_poisson_gaussian(noise: float, rate: float, steps: int, at: float, rdp: float | None, pld: float) -> None:
    tight = epsilon(noise_multiplier=noise, sample_rate=rate, steps=steps, delta=at)
    loose = epsilon(noise_multiplier=noise, sample_rate=rate, steps=steps, delta=at, accountant="rdp")
    assert tight.value == pytest.approx(pld, rel=1e-3)
    assert rdp is None or loose.value == pytest.approx(rdp, rel=1e-5)
    assert tight.value < loose.value
    assert (tight.accountant, loose.accountant, tight.notes, loose.notes) == ("pld", "rdp", (), ())


def test_rows_printed_to_three_digits() -> None:
    """TensorFlow Privacy's statement for noise 2 with micro-batches, which is noise 1."""
    for accountant, wanted in (("pld", 1.199), ("rdp", 1.616)):
        found = epsilon(noise_multiplier=1.0, sample_rate=0.0064, steps=782, delta=1e-6, accountant=accountant)
        assert found.value == pytest.approx(wanted, abs=6e-4)


def test_a_row_where_the_default_grid_is_too_coarse() -> None:
    """Opacus gives 0.443672 with 0.010 added for the error of its method, so 0.43367; the default grid of dp-accounting
    gives 0.436890, because a step's loss spreads over three of its cells. A finer one agrees with Opacus."""
    found = epsilon(noise_multiplier=3.0, sample_rate=0.001, steps=100000, delta=1e-6).value
    assert found == pytest.approx(0.443672 - 0.010, rel=1e-3)
    assert found < 0.436890


def test_gdp() -> None:
    """Opacus' own test, which runs 90 // 0.04 = 2249 steps and not 2250: the quotient is a float below it."""
    found = epsilon(noise_multiplier=1.5, sample_rate=0.04, steps=2249, delta=1e-5, accountant="gdp")
    assert 6.59 < found.value < 6.60
    assert not found.upper_bound


@pytest.mark.parametrize(
    ("noise", "steps", "at", "wanted"),
    [
        (1.0, 1, 1e-5, 4.377178095681),
        (4.0, 1, 1e-5, 0.926341503999),
        (0.5, 1, 0.1, 3.807884542),
        (3.0, 1, 1e-3, 0.833528101804),
        (10.0, 100, 1e-5, 4.377178095681),
        (1.0, 5, 1e-6, 12.595246735507),
        (0.7, 2, 1e-5, 10.122494583908),
        (0.35, 2, 1e-5, 24.716077859910),
        (4.224678889, 1, 1e-6, 1.0),
        (3.730631635, 1, 1e-5, 1.0),
        (0.600229072, 1, 1e-5, 8.0),
    ],
)
def test_unsampled_gaussians_are_exact(noise: float, steps: int, at: float, wanted: float) -> None:
    for sampling, many in (("full", steps), ("shuffle", 93 * steps)):
        rate = None if sampling == "full" else 1 / 93
        for accountant in ("pld", "gdp"):
            found = epsilon(
                noise_multiplier=noise,
                sample_rate=rate,
                steps=many,
                delta=at,
                sampling=sampling,
                accountant=accountant,
            )
            assert found.value == pytest.approx(wanted, rel=2e-9)
            assert found.upper_bound
            back = delta(
                noise_multiplier=noise,
                sample_rate=rate,
                steps=many,
                epsilon=found.value,
                sampling=sampling,
                accountant=accountant,
            )
            assert back.value == pytest.approx(at, rel=1e-8)


def test_unsampled_by_rdp() -> None:
    found = epsilon(noise_multiplier=10.0, steps=100, delta=1e-5, sampling="full", accountant="rdp")
    assert found.value == pytest.approx(4.728507, rel=1e-5)
    found = epsilon(noise_multiplier=4.530877117, steps=1, delta=1e-6, sampling="full", accountant="rdp")
    assert found.value == pytest.approx(1.0, rel=1e-5)


def test_deltas() -> None:
    """dp-accounting's own test: three Gaussians of noise sqrt(3) are one of mu = 1."""
    assert delta(noise_multiplier=math.sqrt(3), steps=3, epsilon=1.0, sampling="full").value == pytest.approx(
        0.126936, rel=1e-5
    )
    found = delta(noise_multiplier=0.5, sample_rate=0.2, steps=3, epsilon=1.0)
    assert found.value == pytest.approx(0.15594, rel=1e-3)


def laplace(scale: float, steps: int, rate: float = 1.0) -> tuple[Charge, int]:
    sampling = "poisson" if rate < 1 else "full"
    return Charge(mechanism="laplace", noise_multiplier=scale, sampling=sampling, sample_rate=rate), steps


@pytest.mark.parametrize(
    ("charges", "at", "accountant", "wanted", "within"),
    [
        ([laplace(1.0, 3), laplace(2.0, 2)], 1e-9, "pld", 4.0, 1e-3),
        ([laplace(0.5, 3, 0.2)], 1e-9, "pld", 2.46964, 1e-3),
        ([laplace(10.0, 100)], 1e-5, "pld", 4.220347, 1e-3),
        ([laplace(10.0, 100)], 1e-5, "rdp", 4.532686, 1e-5),
        ([laplace(1.0, 100, 0.01)], 1e-5, "pld", 0.330477, 1e-3),
    ],
)
def test_laplace(charges: list, at: float, accountant: str, wanted: float, within: float) -> None:
    found = epsilon(Spent(charges), delta=at, accountant=accountant)
    assert found.value == pytest.approx(wanted, rel=within)
    assert found.accountant == accountant


def test_renyi_vector() -> None:
    """dp-accounting's own test, with fractional orders; ours are its default orders."""
    from dp_accounting.rdp import RdpAccountant

    event = Event("gaussian", 2.5, "poisson", 0.01)
    ours = dict(zip(RdpAccountant().orders, 50 * curve(event, "add_or_remove_one"), strict=True))
    wanted = {1.5: 6.70579741e-4, 2.5: 1.08548710e-3, 5.0: 2.18075656e-3, 50.0: 2.38460375e-2}
    for order, value in wanted.items():
        assert ours[order] == pytest.approx(value, rel=1e-5)
    assert np.isfinite(list(ours.values())).all()


@pytest.mark.parametrize(
    ("target", "rate", "steps", "accountant", "wanted"),
    [
        (8.0, 0.04, 2250, "rdp", 1.415874),
        (8.0, 0.04, 2250, "pld", 1.345899),
        (8.0, 0.04, 2250, "gdp", 1.32324),
        (8.0, 0.04, 2000, "rdp", 1.3562),
        (3.0, 256 / 60000, 14040, "rdp", 1.013536),
        (3.0, 256 / 60000, 14040, "pld", 0.967991),
        (1.0, 0.01, 1000, "rdp", 1.513132),
        (1.0, 0.01, 1000, "pld", 1.414632),
    ],
)
def test_calibrated_noise(target: float, rate: float, steps: int, accountant: str, wanted: float) -> None:
    found = calibrate(epsilon=target, delta=1e-5, sample_rate=rate, steps=steps, accountant=accountant)
    assert found.noise_multiplier == pytest.approx(wanted, rel=1e-3)
    assert found.guarantee.epsilon <= target


@pytest.mark.parametrize(
    ("target", "at", "accountant", "wanted"),
    [
        (1.0, 1e-6, "pld", 4.224678889),
        (1.0, 1e-6, "rdp", 4.530877117),
        (1.0, 1e-5, "pld", 3.730631635),
        (8.0, 1e-5, "pld", 0.600229072),
    ],
)
def test_calibrated_noise_without_sampling(target: float, at: float, accountant: str, wanted: float) -> None:
    found = calibrate(epsilon=target, delta=at, steps=1, sampling="full", accountant=accountant)
    assert wanted <= found.noise_multiplier <= 1.0001 * wanted


def test_calibrated_laplace() -> None:
    """Smallest scale for epsilon 3 over 10 queries of sensitivity 21, by pure composition: 70."""
    found = calibrate(epsilon=3.0, delta=1e-12, steps=10, sampling="full", mechanism="laplace")
    assert 21 * found.noise_multiplier <= 70 * 1.001
