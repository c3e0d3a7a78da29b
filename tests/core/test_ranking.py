"""Ranking quality against scikit-learn and naive pair counting, at its edges, and by coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from vambrace.core.intervals import wilson
from vambrace.core.ranking import auc, delong_auc, roc_tpr, tpr_at_fpr
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


@given(scores, scores)
def test_auc_is_the_share_of_pairs(members, nonmembers):
    pairs = [(m > n) + 0.5 * (m == n) for m in members for n in nonmembers]
    assert auc(members, nonmembers) == pytest.approx(np.mean(pairs))
    truth = [1] * len(members) + [0] * len(nonmembers)
    assert auc(members, nonmembers) == pytest.approx(roc_auc_score(truth, members + nonmembers))


@given(scores, scores, st.sampled_from([0.001, 0.01, 0.1, 0.29, 0.3, 0.5, 0.999]))
def test_tpr_is_the_best_point_of_the_roc_curve_at_that_rate(members, nonmembers, fpr):
    truth = [1] * len(members) + [0] * len(nonmembers)
    false, true, _ = roc_curve(truth, members + nonmembers, drop_intermediate=False)
    assert roc_tpr(members, nonmembers, fpr) == pytest.approx(true[false <= fpr + 1e-12].max())


def test_a_rate_below_one_sample_flags_nothing_more():
    # A well-known toolkit takes sorted_scores[-int(n * fpr)]: index 0 for a small n, which lets everything through.
    assert roc_tpr([3.0, 1.0], [float(i) for i in range(50)], 0.01) == 0.0
    assert roc_tpr([99.0, 1.0], [float(i) for i in range(50)], 0.01) == 0.5


def test_ties_never_flatter():
    assert roc_tpr([1.0] * 10, [1.0] * 100, 0.1) == 0.0
    assert auc([1.0] * 10, [1.0] * 100) == 0.5


def test_infinite_scores_are_ranked():
    assert auc([math.inf, 0.0], [-math.inf, 0.0]) == pytest.approx(0.875)


@pytest.mark.parametrize(("members", "nonmembers"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0]), ([[1.0]], [1.0])])
@pytest.mark.parametrize("ask", [auc, delong_auc, lambda m, n: roc_tpr(m, n, 0.1)])
def test_what_cannot_be_ranked(members, nonmembers, ask):
    with pytest.raises(ConfigError, match="E106"):
        ask(members, nonmembers)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, math.nan])
def test_impossible_rates(fpr):
    with pytest.raises(ConfigError, match="E106"):
        roc_tpr([1.0], [0.0], fpr)


def naive_delong(members, nonmembers):
    """Variance from the definition: covariance of the structural components."""

    def wins(m, n):
        return 1.0 if m > n else 0.5 if m == n else 0.0

    by_member = [np.mean([wins(m, n) for n in nonmembers]) for m in members]
    by_nonmember = [np.mean([wins(m, n) for m in members]) for n in nonmembers]
    area = np.mean(by_member)
    variance = np.var(by_member, ddof=1) / len(members) + np.var(by_nonmember, ddof=1) / len(nonmembers)
    half = 1.959963984540054 * math.sqrt(variance) / (area * (1 - area))
    centre = math.log(area / (1 - area))
    return tuple(1 / (1 + math.exp(-end)) for end in (centre - half, centre + half))


@pytest.mark.parametrize("seed", range(5))
def test_delong_against_the_definition(seed):
    rng = np.random.default_rng(seed)
    members = rng.integers(0, 9, size=63) + 1.0 * (seed % 2)
    nonmembers = rng.integers(0, 9, size=81).astype(float)
    found = delong_auc(members, nonmembers)
    assert (found.low, found.high) == pytest.approx(naive_delong(members, nonmembers))
    assert found.method == "delong-logit"
    assert found.low < auc(members, nonmembers) < found.high


@pytest.mark.parametrize(
    ("members", "nonmembers", "low", "high"),
    [
        ([2.0] * 20, [1.0] * 30, wilson(20, 20).low, 1.0),
        ([1.0] * 20, [2.0] * 30, 0.0, wilson(0, 20).high),
        ([5.0], [1.0] * 30, wilson(1, 1).low, 1.0),
    ],
)
def test_perfect_ranking_is_not_certainty(members, nonmembers, low, high):
    found = delong_auc(members, nonmembers)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.method == "wilson-auc"


@pytest.mark.parametrize(
    ("members", "nonmembers"),
    [([1.0] * 3, [1.0] * 2), ([1.0] * 400, [1.0] * 400), ([2.0, 1.0, 1.0], [2.0, 1.0, 1.0])],
)
def test_scores_that_tie_are_no_certainty(members, nonmembers):
    """All tied: the area is 0.5 and the variance 0; five samples must not pass a gate of 0.6 by that."""
    found = delong_auc(members, nonmembers)
    assert found.low < 0.5 < found.high
    assert found.high > 0.6 or len(members) > 100


def test_small_groups_cover_what_a_share_of_their_size_would():
    rng = np.random.default_rng(0)
    few, many = rng.normal(2, 1, 5), rng.normal(0, 1, 1000)
    found = delong_auc(few, many)
    share = wilson(5, 5)
    assert found.low <= share.low
    assert found.high - found.low >= 0.3


def test_one_member_says_little():
    found = delong_auc([5.0], [float(i) for i in range(10)])
    assert found.low < 0.1
    assert found.high > 0.9


class TestTprInterval:
    def test_holds_the_number_and_repeats_itself(self):
        rng = np.random.default_rng(0)
        members, nonmembers = rng.normal(1, 1, 200), rng.normal(0, 1, 300)
        found = tpr_at_fpr(members, nonmembers, 0.1, rng=Streams(3))
        assert found == tpr_at_fpr(members, nonmembers, 0.1, rng=Streams(3))
        assert found.low < roc_tpr(members, nonmembers, 0.1) < found.high

    def test_counts_the_doubt_in_the_threshold(self):
        rng = np.random.default_rng(0)
        members, few = rng.normal(1, 1, 3000), rng.normal(0, 1, 60)
        found = tpr_at_fpr(members, few, 0.1, rng=Streams(3))
        fixed = wilson(round(roc_tpr(members, few, 0.1) * 3000), 3000)
        assert found.high - found.low > 3 * (fixed.high - fixed.low)

    def test_no_member_above_is_not_certainty(self):
        found = tpr_at_fpr([0.0] * 40, [1.0] * 40, 0.1, rng=Streams(0))
        assert (found.low, found.high) == pytest.approx((0.0, wilson(0, 40).high))

    def test_against_a_loop(self):
        rng = np.random.default_rng(7)
        members, nonmembers = rng.normal(1, 1, 60), rng.normal(0, 1, 80)
        drawn = [roc_tpr(rng.choice(members, 60), rng.choice(nonmembers, 80), 0.1) for _ in range(4000)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        found = tpr_at_fpr(members, nonmembers, 0.1, rng=Streams(0), resamples=4000)
        fixed = wilson(round(roc_tpr(members, nonmembers, 0.1) * 60), 60)
        assert (found.low, found.high) == pytest.approx((min(low, fixed.low), max(high, fixed.high)), abs=0.04)


@pytest.mark.slow
@pytest.mark.statistical
class TestCoverage:
    """2,000 simulations a point, normal scores: the true values are known."""

    @pytest.mark.parametrize(("n", "m", "shift"), [(50, 50, 0.5), (100, 100, 1.0), (1000, 1000, 0.2), (100, 1000, 2.0)])
    def test_delong(self, n, m, shift):
        rng = np.random.default_rng(0)
        truth = 0.5 * (1 + math.erf(shift / 2))
        found = [delong_auc(rng.normal(shift, 1, n), rng.normal(0, 1, m)) for _ in range(2000)]
        assert 0.93 <= np.mean([end.low <= truth <= end.high for end in found]) <= 0.97

    def test_binomial_interval_of_an_auc_fails(self):
        # The negative control: pairs are not independent trials.
        rng = np.random.default_rng(0)
        truth = 0.5 * (1 + math.erf(0.25))
        inside = []
        for _ in range(500):
            area = auc(rng.normal(0.5, 1, 50), rng.normal(0, 1, 50))
            end = wilson(round(area * 2500), 2500)
            inside.append(end.low <= truth <= end.high)
        assert np.mean(inside) < 0.6

    @pytest.mark.parametrize(
        ("n", "m", "shift", "fpr"), [(100, 100, 1.0, 0.1), (200, 300, 0.2, 0.1), (100, 500, 1.0, 0.02)]
    )
    def test_tpr(self, n, m, shift, fpr):
        from statistics import NormalDist

        rng = np.random.default_rng(1)
        normal = NormalDist()
        truth = 1 - normal.cdf(normal.inv_cdf(1 - fpr) - shift)
        inside, fixed = [], []
        for index in range(2000):
            members, nonmembers = rng.normal(shift, 1, n), rng.normal(0, 1, m)
            end = tpr_at_fpr(members, nonmembers, fpr, rng=Streams(index), resamples=500)
            inside.append(end.low <= truth <= end.high)
            plain = wilson(round(roc_tpr(members, nonmembers, fpr) * n), n)
            fixed.append(plain.low <= truth <= plain.high)
        assert 0.93 <= np.mean(inside) <= 0.975
        assert np.mean(fixed) < 0.93
