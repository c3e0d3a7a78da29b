"""Draws follow their laws, exactly where that is claimed, and no others."""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vambrace.errors import ConfigError
from vambrace.privacy.dp import binomial, discrete, secret
from vambrace.privacy.dp.normals import FARTHEST, normals_double, normals_single
from vambrace.privacy.dp.secret import Secret

CLOSE = 1e-4  # the least p-value of a test at a fixed seed; a negative control must fall below it


class Scripted(Secret):
    """Gives words that the test chose, then none."""

    __slots__ = ("script",)

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        super().__init__(debug_seed=0)

    def _fill(self, target: Any) -> None:
        target[:] = self.script.pop(0) if target.size else 0


def variance_p(numbers: torch.Tensor, scale: float) -> float:
    """p-value of the sum of squares, for normal numbers of standard deviation `scale` and mean 0."""
    total = float(numbers.double().div(scale).square().sum())
    return float(2 * min(stats.chi2.cdf(total, numbers.numel()), stats.chi2.sf(total, numbers.numel())))


def equally_likely_p(counts: list[int]) -> float:
    return float(stats.chisquare(counts).pvalue)


# ---- normal ------------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_has_its_scale_and_no_other(dtype: torch.dtype) -> None:
    flat = torch.full((200_001,), 5.0, dtype=dtype)
    numbers = Secret(debug_seed=1).add_normal_(flat, 0.37) - 5.0
    assert variance_p(numbers, 0.37) > CLOSE
    for wrong in (2 / 3, 3 / 2, 1 / math.sqrt(2), math.sqrt(2), 0.98, 1.02):
        assert variance_p(numbers, 0.37 * wrong) < CLOSE
    assert abs(float(numbers.double().mean())) < 4 * 0.37 / 200_001**0.5


@pytest.mark.statistical
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_follows_the_normal_law(dtype: torch.dtype) -> None:
    numbers = Secret(debug_seed=2).normal(300_000, dtype=dtype).double().numpy()
    assert stats.kstest(numbers, "norm").pvalue > CLOSE
    assert stats.kstest(numbers * 1.02, "norm").pvalue < CLOSE
    assert abs(stats.kurtosis(numbers)) < 4 * (24 / numbers.size) ** 0.5
    beyond = int((np.abs(numbers) > 4).sum())
    assert stats.binomtest(beyond, numbers.size, 2 * stats.norm.sf(4)).pvalue > CLOSE


@pytest.mark.statistical
def test_both_halves_of_a_pair_are_independent() -> None:
    drawn = Secret(debug_seed=3).normal(2 * secret.PAIRS * 4).view(4, 2, -1).double()
    for change in (lambda x: x, torch.square, torch.abs):
        first, second = change(drawn[:, 0].flatten()), change(drawn[:, 1].flatten())
        assert stats.pearsonr(first, second).pvalue > CLOSE
        assert stats.pearsonr(first[:-1], first[1:]).pvalue > CLOSE
    # A radius used for one number only, or an angle of half a turn, would show:
    radius = drawn.square().sum(1).flatten()
    assert stats.kstest(radius, "chi2", args=(2,)).pvalue > CLOSE
    angle = torch.atan2(drawn[:, 1], drawn[:, 0]).flatten()
    assert stats.kstest(angle, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > CLOSE
    assert stats.kstest(angle.abs(), "uniform", args=(-math.pi, 2 * math.pi)).pvalue < CLOSE


def test_normal_numbers_are_box_and_muller_of_their_words() -> None:
    words = Secret(debug_seed=4).integers(2**32, 3 * 4096).sub(2**31).numpy().astype(np.int32).reshape(3, -1)
    words[0, :8] = [0, 1, -1, 200, -3000, 70_000, 2**31 - 1, -(2**31)]
    got = normals_single(words, np.empty((4, 4096), dtype=np.float32)).reshape(2, -1)
    whole, fine, turn = words.astype(np.float64)
    radius = np.sqrt(-2 * np.log(np.minimum(np.abs(whole + fine * 2**-32) * 2**-31, 1)))
    angle = turn * math.pi * 2**-31
    # Float32 knows u to 2^-25, which matters near u = 1 where the radius is small, and the angle to 2^-23.
    room = 1e-6 + 2**-22 / np.maximum(radius, 2**-12)
    assert (np.abs(got[0] - radius * np.cos(angle)) < room).all()
    assert (np.abs(got[1] - radius * np.sin(angle)) < room).all()
    pairs = Secret(debug_seed=5).integers(2**62, 2 * 512).mul(4).sub(2**63 - 1).numpy().reshape(2, -1)
    exact = normals_double(pairs, np.empty((3, 512))).reshape(2, -1)
    radius = np.sqrt(-2 * np.log(np.abs(pairs[0]) * 2.0**-63))
    np.testing.assert_allclose(exact[0], radius * np.cos(pairs[1] * (math.pi * 2.0**-63)), atol=1e-13)
    np.testing.assert_allclose(exact[1], radius * np.sin(pairs[1] * (math.pi * 2.0**-63)), atol=1e-13)


def test_no_word_makes_a_number_infinite_or_farther_than_stated() -> None:
    edges = np.array([0, 1, -1, 2**31 - 1, -(2**31)], dtype=np.int32)
    words = np.stack([part.ravel() for part in np.meshgrid(edges, edges, edges)])
    got = normals_single(words, np.empty((4, words.shape[1]), dtype=np.float32))
    assert np.isfinite(got).all()
    assert 9.3 < np.abs(got).max() < FARTHEST
    edges = np.array([0, 1, -1, 2**63 - 1, -(2**63)], dtype=np.int64)
    words = np.stack([part.ravel() for part in np.meshgrid(edges, edges)])
    double = normals_double(words, np.empty((3, words.shape[1])))
    assert np.isfinite(double).all()
    assert 9.3 < np.abs(double).max() < FARTHEST


def test_a_pair_whose_u_rounds_to_one_is_not_zero() -> None:
    words = np.array([[2**31 - 1] * 3, [2**31 - 1, 12345, -(2**31)], [2**29] * 3], dtype=np.int32)
    got = np.abs(normals_single(words, np.empty((4, 3), dtype=np.float32)))
    assert (got > 0).all()
    assert (got < 3e-4).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 2 * secret.PAIRS - 1, 2 * secret.PAIRS, 2 * secret.PAIRS + 1])
def test_chunks_leave_no_gap(size: int, dtype: torch.dtype) -> None:
    numbers = Secret(debug_seed=6).normal(size, dtype=dtype)
    assert numbers.shape == (size,)
    assert numbers.dtype == dtype
    assert bool((numbers != 0).all())
    assert len(numbers.unique()) >= size * 0.99  # float32 numbers collide by chance, chunks would all at once


def test_normal_writes_where_it_is_told() -> None:
    out = torch.full((7,), 9.0)
    assert Secret(debug_seed=1).normal(7, out=out) is out
    assert torch.equal(out, Secret(debug_seed=1).normal(7))
    leaf = torch.zeros(4, requires_grad=True)
    Secret(debug_seed=1).add_normal_(leaf, 2.0)
    assert leaf.grad_fn is None
    assert torch.equal(leaf.detach(), 2 * Secret(debug_seed=1).normal(4))


# ---- other continuous laws ---------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_uniform_and_laplace_follow_their_laws() -> None:
    uniform = Secret(debug_seed=7).uniform(100_000)
    assert stats.kstest(uniform, "uniform").pvalue > CLOSE
    assert stats.kstest(uniform**1.02, "uniform").pvalue < CLOSE
    numbers = Secret(debug_seed=8).laplace(100_000)
    assert stats.kstest(numbers, "laplace").pvalue > CLOSE
    for wrong in (2 / 3, 3 / 2, 1.04):
        assert stats.kstest(numbers * wrong, "laplace").pvalue < CLOSE


def test_uniform_and_laplace_stay_inside() -> None:
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert Scripted(ends).uniform(2).tolist() == [2.0**-53, 1 - 2.0**-53]
    ends = np.array([0, -1, -(2**63), 2**63 - 1], dtype=np.int64)
    drawn = Scripted(ends).laplace(4)
    assert drawn.abs().max() == pytest.approx(63 * math.log(2))
    assert drawn.sign().tolist()[::2] == [1, -1]
    assert bool(drawn.isfinite().all())


# ---- coins, whole numbers, sets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1 / 3, 0.5, 1e-3, 256 / 60_000, 1e-12 / 3, 1 - 2**-53, 2.0**-60, 0.0])
def test_a_coin_is_one_word_below_an_exact_threshold(rate: float) -> None:
    threshold = int(Fraction(rate) * 2**64)
    assert 0 <= Fraction(rate) - Fraction(threshold, 2**64) < Fraction(1, 2**64)
    high, low = threshold >> 48, threshold & (2**48 - 1)
    places = [(high, low), (high, 0), (high, 2**48 - 1), (min(high + 1, 2**16 - 1), 0), (max(high - 1, 0), 5)]
    places += [(high, low - 1)] if low else []
    expected = [(first << 48 | rest) < threshold for first, rest in places]
    ties = np.array([rest << 16 | 77 for first, rest in places if first == high], dtype=np.uint64)
    source = Scripted(np.array([first for first, _ in places], dtype=np.uint16), ties)
    assert source.coins(len(places), rate).tolist() == expected


def test_certain_coins() -> None:
    assert bool(Secret().coins(1000, 1.0).all())
    assert not bool(Secret().coins(1000, 0.0).any())


@pytest.mark.statistical
def test_coins_have_their_rate() -> None:
    heads = int(Secret(debug_seed=9).coins(400_000, 0.3).sum())
    assert stats.binomtest(heads, 400_000, 0.3).pvalue > CLOSE
    assert stats.binomtest(heads, 400_000, 0.305).pvalue < CLOSE


@pytest.mark.statistical
def test_integers_are_uniform() -> None:
    drawn = Secret(debug_seed=10).integers(13, 60_000)
    assert equally_likely_p(drawn.bincount(minlength=13).tolist()) > CLOSE


def test_integers_throw_away_the_words_that_would_favour_some() -> None:
    high = 2**62 - 1  # four whole multiples fit, and four words are left
    source = Scripted(
        np.array([2**64 - 4, 2**64 - 5, 2**64 - 1], dtype=np.uint64), np.array([3, 2**64 - 2], np.uint64), [9]
    )
    assert source.integers(high, 3).tolist() == [3, high - 1, 9]
    assert Secret().integers(1, 5).tolist() == [0] * 5


@pytest.mark.parametrize(("n", "rate"), [(20, 0.3), (7, 0.9), (1, 0.5), (30, 2.0**-30), (12, 1 - 2**-53)])
def test_binomial_thresholds_are_exact(n: int, rate: float) -> None:
    q = Fraction(rate)
    lowest, thresholds = binomial._table(n, rate)
    ours = [0] * lowest + thresholds
    ours += [2**128] * (n - len(ours))
    exact = Fraction(0)
    for k in range(n):
        exact += math.comb(n, k) * q**k * (1 - q) ** (n - k)
        assert abs(ours[k] - exact * 2**128) < 2**20
        for word in {max(0, ours[k] - 1), ours[k], 2**128 - 1} - {2**128}:
            assert binomial.size(n, rate, word) == sum(edge <= word for edge in ours)


@pytest.mark.parametrize(("n", "rate"), [(60_000, 256 / 60_000), (100_000, 0.25), (1000, 0.999)])
def test_binomial_agrees_with_scipy(n: int, rate: float) -> None:
    lowest, thresholds = binomial._table(n, rate)
    ours = np.array([float(Fraction(edge, 2**128)) for edge in thresholds])
    theirs = stats.binom.cdf(np.arange(lowest, lowest + len(ours)), n, rate)
    np.testing.assert_allclose(ours, theirs, atol=1e-11)
    assert thresholds == sorted(thresholds)


def test_binomial_ends() -> None:
    source = Secret()
    assert (source.binomial(10, 0.0), source.binomial(10, 1.0), source.binomial(0, 0.5)) == (0, 10, 0)


@pytest.mark.statistical
@pytest.mark.parametrize("size", [2, 4])
def test_every_set_is_equally_likely(size: int) -> None:
    source = Secret(debug_seed=11)
    counts = dict.fromkeys(combinations(range(6), size), 0)
    for _ in range(6000):
        counts[tuple(source.choice(6, size).tolist())] += 1
    assert equally_likely_p(list(counts.values())) > CLOSE


@pytest.mark.statistical
def test_every_order_is_equally_likely() -> None:
    source = Secret(debug_seed=12)
    counts = dict.fromkeys(permutations(range(4)), 0)
    for _ in range(6000):
        counts[tuple(source.permutation(4).tolist())] += 1
    assert equally_likely_p(list(counts.values())) > CLOSE


def test_equal_words_do_not_order_a_permutation() -> None:
    source = Scripted(np.array([5, 1, 5], dtype=np.uint64), np.array([5, 1, 4], dtype=np.uint64))
    assert source.permutation(3).tolist() == [1, 2, 0]
    assert source.script == []


@given(st.integers(0, 300), st.data())
def test_sets_are_sets(n: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, n))
    chosen = Secret().choice(n, size)
    assert chosen.dtype == torch.int64
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == size
    assert all(0 <= each < n for each in chosen.tolist())


def test_an_order_lasts_for_its_epoch() -> None:
    source = Secret()
    assert source.order(50, 0, start=False) is None
    first = source.order(50, 0, start=True)
    assert first is not None
    assert source.order(50, 0, start=False) is first
    assert source.order(50, 0, start=True) is first  # a second start would let a sample come twice
    assert source.order(50, 1, start=False) is None
    second = source.order(50, 1, start=True)
    assert second is not None
    assert not torch.equal(first, second)
    assert source.order(50, 0, start=False) is None
    source.renew()
    assert source.order(50, 1, start=False) is None


# ---- discrete Gaussian -------------------------------------------------------------------------------------------


def mass(sigma: float, reach: int) -> np.ndarray:
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def discrete_p(drawn: np.ndarray, sigma: float) -> float:
    """p-value of counts against the exact law; ends are pooled until five are expected."""
    reach = max(1, math.ceil(12 * sigma))
    law = mass(sigma, reach) * len(drawn)
    counts = np.bincount(drawn + reach, minlength=2 * reach + 1)
    inner = np.flatnonzero(law >= 5)
    first, last = inner[0], inner[-1] + 1
    pooled = [np.concatenate([[each[:first].sum()], each[first:last], [each[last:].sum()]]) for each in (counts, law)]
    keep = pooled[1] > 1e-3
    assert pooled[0][~keep].sum() == 0
    return float(stats.chisquare(pooled[0][keep], pooled[1][keep] * counts.sum() / pooled[1][keep].sum()).pvalue)


@pytest.mark.statistical
@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.0, 3.7, 50.0])
def test_discrete_gaussian_follows_its_exact_law(sigma: float) -> None:
    drawn = Secret(debug_seed=13).discrete_gaussian(40_000, sigma).numpy()
    assert discrete_p(drawn, sigma) > CLOSE
    for wrong in (2 / 3, 3 / 2):
        if sigma > 0.5:
            assert discrete_p(drawn, sigma * wrong) < CLOSE


@pytest.mark.statistical
def test_a_wide_discrete_gaussian_is_normal() -> None:
    drawn = Secret(debug_seed=14).discrete_gaussian(50_000, 2.0**20).double()
    assert stats.kstest(drawn / 2.0**20, "norm").pvalue > CLOSE
    assert variance_p(drawn, 2.0**20) > CLOSE


@pytest.mark.parametrize("sigma", [0.3, 1.0, 17.3, 2.0**20, 2.0**32])
def test_floats_decide_as_decimals_do(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Secret(debug_seed=15).discrete_gaussian(300, sigma)
    monkeypatch.setattr(discrete, "_FEWEST", 2**63)
    monkeypatch.setattr(discrete, "_CHANCE", 2.0)
    assert torch.equal(quick, Secret(debug_seed=15).discrete_gaussian(300, sigma))


def test_words_that_do_not_decide_are_lengthened() -> None:
    given: list[int] = []

    def words(count: int) -> np.ndarray:
        given.append(count)
        return np.full(count, 2**63, dtype=np.uint64)

    edge = Fraction(Context(prec=60).exp(Decimal(-1)))  # the floor of -ln u is 0 above it and 1 below
    place = int(edge * 2**63)
    for near in range(place - 50, place + 50):
        if near != place:
            assert discrete._exact_floor(near, 1, words) == int(near < place)
    assert given == []
    half = Fraction(2 * place + 1, 2**64)  # the word that is given then goes on at the middle of the place
    assert discrete._exact_floor(place, 1, words) == int(half < edge)
    assert given == [1]
    assert discrete._exact_floor(0, 1, words) == 44  # u is 2^-64 and a little more
    assert discrete._exact_below(0, 1000, 1.0, words) is False
    assert discrete._exact_below(int(Fraction(math.exp(-1 / 8)) * 2**64) - 2**20, 0, 1.0, words) is True
    assert discrete._exact_below(int(Fraction(math.exp(-1 / 8)) * 2**64) + 2**20, 0, 1.0, words) is False


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda source: source.normal(-1),
        lambda source: source.normal(3, dtype=torch.float16),
        lambda source: source.normal(3, out=torch.empty(4)),
        lambda source: source.normal(3, out=torch.empty(6)[::2]),
        lambda source: source.add_normal_(torch.empty(2, 2), 1.0),
        lambda source: source.uniform(-1),
        lambda source: source.laplace(-2),
        lambda source: source.coins(3, 1.1),
        lambda source: source.coins(3, math.nan),
        lambda source: source.integers(0, 3),
        lambda source: source.integers(2**63, 3),
        lambda source: source.binomial(3, -0.1),
        lambda source: source.binomial(-3, 0.1),
        lambda source: source.choice(3, 4),
        lambda source: source.choice(3, -1),
        lambda source: source.permutation(-1),
        lambda source: source.discrete_gaussian(3, 0.0),
        lambda source: source.discrete_gaussian(3, 2.0**33),
        lambda source: source.discrete_gaussian(3, math.nan),
    ],
)
def test_arguments_out_of_range(ask: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(Secret())
    assert caught.value.code == "E148"
