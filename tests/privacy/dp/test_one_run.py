"""Bounds of an audit: golden rows, the definition taken literally, claims that hold, counts that prove nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privacy.dp.hull import hull_bound
from vambrace.errors import ConfigError
from vambrace.privacy.dp.accounting import epsilon
from vambrace.privacy.dp.guessing import Bound, audit_bound, count_correct
from vambrace.privacy.dp.one_run import Method, as_epsilon, lower_bound, one_run_p_value, refutes
from vambrace.privacy.dp.power import AuditDesign, canaries_needed, power

HALF = 10_000


def quantiles(shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of as many canaries that are out as in, at the middles of 10,000 equal parts of a normal each."""
    out = stats.norm.ppf((np.arange(HALF) + 0.5) / HALF)
    return np.concatenate([out, out + shift]), np.arange(2 * HALF) >= HALF


@pytest.mark.parametrize(
    ("method", "shift", "expected"),
    [
        ("one_run", 0, 0.0),
        ("one_run", 1, 1.13346),
        ("one_run", 2, 2.311945),
        ("one_run", 4, 4.395568),
        ("f_dp", 0, 0.0),
        ("f_dp", 1, 2.164749),
        ("f_dp", 2, 4.7218075),
        ("f_dp", 4, 9.133752),
    ],
)
def test_golden_rows(method: Method, shift: float, expected: float) -> None:
    """Those of jax_privacy's auditing_test.py: error 0.05, delta 1e-6."""
    assert hull_bound(*quantiles(shift), delta=1e-6, method=method) == pytest.approx(expected, rel=1e-4, abs=1e-12)


def literal(m: int, r: int, v: int, eps: float, delta: float) -> float:
    """Theorem 5.2 as its authors wrote it down."""
    heads = 1 / (1 + math.exp(-eps))
    beta = float(stats.binom.sf(v - 1, r, heads))
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += float(stats.binom.pmf(v - i, r, heads))
        alpha = max(alpha, total / i)
    return min(1.0, beta + alpha * delta * 2 * m)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_p_value_is_the_theorem(data: st.DataObject) -> None:
    m = data.draw(st.integers(1, 300))
    r = data.draw(st.integers(0, m))
    v = data.draw(st.integers(0, r))
    eps, delta = data.draw(st.floats(0, 6)), data.draw(st.sampled_from([0.0, 1e-9, 1e-5, 1e-3, 0.1]))
    assert one_run_p_value(m, r, v, eps, delta) == pytest.approx(literal(m, r, v, eps, delta), rel=1e-9, abs=1e-12)


def literal_f_dp(m: int, c_cap: int, c: int, mu: float, tau: float) -> bool:
    """Algorithms 2 and 3 of 2410.22235 with k = 2: whether the curve passes the audit."""
    threshold = tau * c_cap / m
    r, h = [0.0] * (c + 1), [0.0] * (c + 1)
    r[c], h[c] = threshold * c / c_cap, threshold * (c_cap - c) / c_cap
    for i in range(c - 1, -1, -1):
        h[i] = max(h[i + 1], float(stats.norm.cdf(stats.norm.ppf(r[i + 1]) - mu)))
        r[i] = min(1.0, r[i + 1] + i / (c_cap - i) * (h[i] - h[i + 1]))
    return r[0] + h[0] <= c_cap / m


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_curve_is_the_algorithm(data: st.DataObject) -> None:
    m = data.draw(st.integers(1, 120))
    r = data.draw(st.integers(1, m))
    v = data.draw(st.integers(0, r))
    mu, tau = data.draw(st.floats(0.01, 4)), data.draw(st.sampled_from([0.01, 0.05, 0.3]))
    assert refutes("f_dp", m, r, v, mu, 1e-5, tau) is not literal_f_dp(m, r, v, mu, tau)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bounds_rise_with_what_proves_them(data: st.DataObject) -> None:
    method: Method = data.draw(st.sampled_from(["one_run", "f_dp"]))
    m = data.draw(st.integers(2, 1500))
    r = data.draw(st.integers(1, m))
    v = data.draw(st.integers(0, r - 1))
    known = {"canaries": m, "guesses": r, "delta": data.draw(st.sampled_from([1e-9, 1e-5, 3e-4]))}
    confidence = data.draw(st.floats(0.5, 0.999))
    found = lower_bound(method, correct=v, confidence=confidence, **known)
    assert 0 <= found <= lower_bound(method, correct=v + 1, confidence=confidence, **known) + 1e-6
    assert found <= lower_bound(method, correct=v, confidence=confidence / 2, **known) + 1e-6


def test_the_bound_is_the_edge() -> None:
    """What it names is ruled out, what is hardly more is not."""
    found = lower_bound("one_run", canaries=2000, guesses=400, correct=330, delta=1e-5, confidence=0.95)
    assert one_run_p_value(2000, 400, 330, found, 1e-5) <= 0.05 < one_run_p_value(2000, 400, 330, found + 1e-6, 1e-5)
    assert found < lower_bound("one_run", canaries=2000, guesses=400, correct=330, delta=1e-9, confidence=0.95)


def test_guessing_proves_nothing() -> None:
    for correct in (0, 100, 200):
        for method in ("one_run", "f_dp"):
            assert (
                lower_bound(method, canaries=1000, guesses=400, correct=correct, delta=1e-5, confidence=0.95)  # pyright: ignore[reportArgumentType]
                == 0
            )
    assert lower_bound("one_run", canaries=1, guesses=0, correct=0, delta=1e-5, confidence=0.95) == 0


@pytest.mark.statistical
@pytest.mark.parametrize("eps", [0.5, 1.0, 3.0])
def test_a_claim_that_holds_is_refuted_no_more_often_than_said(eps: float) -> None:
    """Randomised response is as bad as a claim allows: 95 % bounds exceed it in nearly 5 % of runs, and not in more."""
    rng = np.random.default_rng(3)
    runs, canaries = 1000, 1000
    right = rng.binomial(canaries, 1 / (1 + math.exp(-eps)), size=runs)
    wrong = sum(one_run_p_value(canaries, canaries, int(v), eps, 1e-9) <= 0.05 for v in right)
    assert 0.02 * runs < wrong <= stats.binom.ppf(0.9999, runs, 0.05)
    less = sum(one_run_p_value(canaries, canaries, int(v), eps - 0.4, 1e-9) <= 0.05 for v in right)
    assert less > 0.5 * runs  # the control: a claim that is too small does not stand


@pytest.mark.statistical
def test_a_curve_that_holds_is_refuted_no_more_often_than_said() -> None:
    rng = np.random.default_rng(4)
    mu, runs, found = 0.5, 300, {"true": 0, "false": 0}
    for _ in range(runs):
        coins = rng.random(1000) < 0.5
        correct = count_correct(rng.normal(size=1000) + mu * coins, coins, 200)
        found["true"] += refutes("f_dp", 1000, 200, correct, mu, 1e-5, 0.05)
        found["false"] += refutes("f_dp", 1000, 200, correct, mu / 2, 1e-5, 0.05)
    assert found["true"] <= stats.binom.ppf(0.9999, runs, 0.05)
    assert found["false"] > 0.2 * runs


def test_the_curve_names_the_epsilon_of_its_gaussian() -> None:
    one = epsilon(noise_multiplier=2.0, steps=1, sampling="full", delta=1e-5).epsilon
    assert as_epsilon("f_dp", 0.5, 1e-5) == pytest.approx(one, rel=1e-6)
    assert as_epsilon("f_dp", 0.0, 1e-5) == 0


def test_the_ends_of_the_scores_are_guessed() -> None:
    scores = np.array([0.0, 5.0, 1.0, 4.0, 2.0, 3.0])
    coins = np.array([False, True, True, True, False, False])
    assert [count_correct(scores, coins, guesses) for guesses in range(7)] == [0, 1, 2, 3, 3, 3, 4]
    found = audit_bound(scores, coins, guesses=2, delta=1e-5, confidence=0.5)
    assert (found.canaries, found.guesses, found.correct) == (6, 2, 2)
    assert found == Bound.of(canaries=6, guesses=2, correct=2, delta=1e-5, confidence=0.5, method="one_run")


def test_equal_scores_prove_nothing() -> None:
    coins = np.random.default_rng(0).random(2000) < 0.5
    assert audit_bound(np.zeros(2000), coins, guesses=400, delta=1e-5).epsilon == 0
    assert hull_bound(np.zeros(2000), coins, delta=1e-5) == 0


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"scores": np.array([1.0, np.nan])}, "not all finite"),
        ({"scores": np.zeros(3)}, "scores"),
        ({"included": np.array([0, 1])}, "included"),
        ({"included": np.zeros((2, 1), dtype=bool)}, "included"),
        ({"scores": np.zeros(0), "included": np.zeros(0, dtype=bool)}, "scores"),
        ({"guesses": 3}, "guesses 3"),
        ({"guesses": -1}, "guesses -1"),
        ({"delta": 0.0}, "delta 0.0"),
        ({"delta": 0.3}, "delta 0.3"),
        ({"confidence": 1.0}, "confidence 1.0"),
        ({"confidence": float("nan")}, "confidence nan"),
    ],
)
def test_what_proves_nothing_is_refused(change: dict[str, object], seen: str) -> None:
    world = {"scores": np.zeros(2), "included": np.array([True, False]), "guesses": 1, "delta": 1e-5, **change}
    with pytest.raises(ConfigError, match="E159") as error:
        audit_bound(world.pop("scores"), world.pop("included"), **world)  # pyright: ignore[reportArgumentType]
    assert seen in str(error.value)


@pytest.mark.statistical
@pytest.mark.parametrize(
    "how", [{}, {"sample_rate": 0.05, "steps": 10, "noise_multiplier": 0.9}], ids=["every sample", "seldom drawn"]
)
def test_power_says_what_happens(how: dict[str, Any]) -> None:
    """The share of simulated audits that find what the calculation says they will."""
    rng = np.random.default_rng(5)
    design = AuditDesign(epsilon=1.0, delta=1e-5, **how)
    claim = power(design, canaries=1000, guesses=100)
    found = np.zeros(2)
    for _ in range(400):
        coins = rng.random(1000) < 0.5
        drawn = rng.binomial(design.steps, design.sample_rate, size=1000) * coins
        noise = rng.normal(size=1000) * design.noise * math.sqrt(design.steps)
        right, wrong = (count_correct(drawn + noise / less, coins, 100) for less in (1, 4))
        found += (
            one_run_p_value(1000, 100, right, 0.0, 1e-5) <= 0.05,
            one_run_p_value(1000, 100, wrong, 1, 1e-5) <= 0.05,
        )
    assert found / 400 == pytest.approx([claim.above_zero, claim.fault_seen], abs=0.06)
    assert 0.2 < claim.above_zero < 0.9  # not at an end, where any calculation is right


def test_power_grows_and_says_how_many_are_enough() -> None:
    found = canaries_needed(AuditDesign(epsilon=1.0, delta=1e-5), among=(500, 1000, 2000))
    assert [row.least for row in found.rows] == sorted(row.least for row in found.rows)
    assert found.enough == found.rows[2]
    assert "needed for 99 % of audits: 2,000 canaries" in str(found)
    few = canaries_needed(AuditDesign(epsilon=0.1, delta=1e-5), among=(1000,))
    assert few.enough is None
    assert "more than 1,000 canaries" in str(few)


@pytest.mark.parametrize("eps", [0.05, 8.0, 40.0])
def test_power_of_extreme_claims_is_a_chance(eps: float) -> None:
    found = power(AuditDesign(epsilon=eps, delta=1e-5), canaries=2000)
    assert 0 <= found.above_zero <= 1
    assert 0 <= found.fault_seen <= 1


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": 0.0},
        {"fault": 1.0},
        {"delta": 0.0},
        {"steps": 0},
        {"sample_rate": 1.5},
        {"noise_multiplier": 0.0},
        {"confidence": 1.0},
    ],
)
def test_a_design_of_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="E159"):
        AuditDesign(**{"epsilon": 1.0, "delta": 1e-5, **change})


@pytest.mark.parametrize("change", [{"canaries": 0}, {"guesses": 1001}, {"canaries": 60_000}])
def test_power_of_nonsense_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="E159"):
        power(AuditDesign(epsilon=1.0, delta=1e-5), **{"canaries": 1000, **change})
