"""Intervals against independent references, at their edges, and by what they promise: coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vambrace.core.findings import Interval
from vambrace.core.intervals import (
    bonett_price,
    bootstrap,
    median_interval,
    mover,
    newcombe,
    percentiles,
    resampled,
    student,
    two_sided,
    wilson,
    wilson_clustered,
)
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError


def wald(k: int, n: int) -> Interval:
    """The textbook interval: the negative control that every coverage test must reject."""
    half = 1.96 * math.sqrt(k / n * (1 - k / n) / n)
    return Interval(low=k / n - half, high=k / n + half, method="wald")


def wald_paired(first: int, second: int, n: int) -> Interval:
    half = 1.96 * math.sqrt(max(first + second - (first - second) ** 2 / n, 0)) / n
    return Interval(low=(first - second) / n - half, high=(first - second) / n + half, method="wald")


def score_ends(k: int, n: int) -> tuple[float, float]:
    """Wilson's definition, solved by bisection: the shares that the data does not reject."""

    def rejected(share: float) -> bool:
        return abs(k / n - share) > 1.959963984540054 * math.sqrt(share * (1 - share) / n)

    def edge(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
        return inside

    return edge(k / n, 0.0), edge(k / n, 1.0)


class TestWilson:
    # Newcombe, Statistics in Medicine 17, 1998, "Two-sided confidence intervals for the single proportion", table I.
    @pytest.mark.parametrize(
        ("k", "n", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
    )
    def test_published(self, k, n, low, high):
        found = wilson(k, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)

    @given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_is_the_inverted_score_test(self, counts):
        k, n = counts
        found = wilson(k, n)
        assert 0 <= found.low <= k / n <= found.high <= 1
        assert (found.low, found.high) == pytest.approx(score_ends(k, n), abs=1e-9)

    @pytest.mark.parametrize("n", [1, 2, 7, 10_000])
    def test_none_and_all_are_exact_and_not_certain(self, n):
        assert wilson(0, n).low == 0.0 < wilson(0, n).high
        assert wilson(n, n).high == 1.0 > wilson(n, n).low

    def test_nothing_to_count(self):
        assert wilson(0, 0) is None

    @pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, -1), (math.nan, 3)])
    def test_impossible_counts(self, k, n):
        with pytest.raises(ConfigError, match="E106"):
            wilson(k, n)

    @pytest.mark.parametrize("confidence", [0.0, 1.0, -1, 95, math.nan])
    def test_impossible_confidence(self, confidence):
        with pytest.raises(ConfigError, match="E106"):
            wilson(1, 3, confidence=confidence)

    def test_other_confidence(self):
        assert wilson(5, 10, confidence=0.99).low < wilson(5, 10).low < wilson(5, 10, confidence=0.5).low
        assert wilson(5, 10, confidence=0.99).confidence == 0.99
        assert two_sided(0.95) == pytest.approx(1.959963984540054)


def mean_coverage(make, n):
    """Exact: the chance that the interval holds the share, averaged over shares that a run meets."""
    shares = np.linspace(0.01, 0.99, 197)
    ends = [make(k, n) for k in range(n + 1)]
    chance = stats.binom.pmf(np.arange(n + 1)[:, None], n, shares[None, :])
    holds = np.array([[end.low <= share <= end.high for share in shares] for end in ends])
    return float((chance * holds).sum(0).mean())


@pytest.mark.statistical
@pytest.mark.parametrize("n", [10, 50, 200])
def test_wilson_covers_and_wald_does_not(n):
    assert 0.94 <= mean_coverage(wilson, n) <= 0.97
    assert mean_coverage(wald, n) < mean_coverage(wilson, n) - 0.01


class TestWilsonClustered:
    @given(st.lists(st.booleans(), min_size=1, max_size=60))
    def test_single_answers_are_plain_wilson(self, answers):
        found = wilson_clustered([float(answer) for answer in answers], 1)
        plain = wilson(sum(answers), len(answers))
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-9)

    def test_equal_answers_within_samples_count_once(self):
        few = wilson_clustered([1.0] * 80 + [0.0] * 20, 15)
        assert (few.low, few.high) == pytest.approx((wilson(80, 100).low, wilson(80, 100).high), abs=1e-9)

    def test_independent_answers_count_each(self):
        shares = np.random.default_rng(0).binomial(15, 0.8, size=400) / 15
        width = wilson_clustered(shares, 15)
        exact = wilson(round(shares.sum() * 15), 400 * 15)
        assert (width.high - width.low) == pytest.approx(exact.high - exact.low, rel=0.1)

    def test_edges(self):
        assert wilson_clustered([], 5) is None
        assert wilson_clustered([1.0] * 9, 5).low == pytest.approx(wilson(9, 9).low)
        constant = wilson_clustered([0.8] * 10, 5)
        assert (constant.low, constant.high) == pytest.approx((wilson(40, 50).low, wilson(40, 50).high))
        assert wilson_clustered([0.6], 5).high - wilson_clustered([0.6], 5).low > 0.8

    @pytest.mark.parametrize("shares", [[1.1], [-0.1, 0.5], [math.nan], [[0.5]]])
    def test_what_is_no_share(self, shares):
        with pytest.raises(ConfigError, match="E106"):
            wilson_clustered(shares, 2)


class TestDifferences:
    def test_bonett_price_by_hand(self):
        # 21 children, 1 and 7 discordant: (2 - 8) / 23 +- 1.96 sqrt((10 / 23 - (6 / 23)^2) / 23)
        found = bonett_price(1, 7, 21)
        half = 1.959963984540054 * math.sqrt((10 / 23 - (6 / 23) ** 2) / 23)
        assert (found.low, found.high) == pytest.approx((-6 / 23 - half, -6 / 23 + half))

    @given(st.integers(1, 200), st.data())
    def test_bonett_price_holds_the_difference_and_turns_round(self, n, data):
        first = data.draw(st.integers(0, n))
        second = data.draw(st.integers(0, n - first))
        found, turned = bonett_price(first, second, n), bonett_price(second, first, n)
        assert -1 <= found.low <= (first - second) / n <= found.high <= 1
        assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
        assert found.low < found.high

    def test_agreement_is_not_certainty(self):
        assert bonett_price(0, 0, 1000).high == pytest.approx(0.0028, abs=1e-4)

    @pytest.mark.parametrize(("first", "second", "n"), [(2, 2, 3), (-1, 0, 3), (0, 4, 3)])
    def test_impossible_pairs(self, first, second, n):
        with pytest.raises(ConfigError, match="E106"):
            bonett_price(first, second, n)

    def test_nothing_to_compare(self):
        assert bonett_price(0, 0, 0) is None
        assert newcombe(0, 0, 1, 2) is None
        assert newcombe(1, 2, 0, 0) is None

    # Newcombe, Statistics in Medicine 17, 1998, "Interval estimation for the difference", table II, method 10.
    @pytest.mark.parametrize(
        ("counts", "low", "high"),
        [
            ((56, 70, 48, 80), 0.0524, 0.3339),
            ((9, 10, 3, 10), 0.1705, 0.8090),
            ((5, 56, 0, 29), -0.0381, 0.1926),
            ((0, 10, 0, 20), -0.1611, 0.2775),
            ((10, 10, 0, 10), 0.6075, 1.0),
        ],
    )
    def test_newcombe_published(self, counts, low, high):
        found = newcombe(*counts)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)

    def test_mover_is_at_least_as_wide_as_either(self):
        one, two = Interval(low=0.1, high=0.4, method="x"), Interval(low=0.5, high=0.6, method="x")
        found = mover(0.2, one, 0.55, two)
        assert found.high - 0.2 + 0.55 >= 0.2
        assert (found.low, found.high) == pytest.approx((-0.35 - math.hypot(0.1, 0.05), -0.35 + math.hypot(0.2, 0.05)))

    def test_mover_wants_one_confidence(self):
        with pytest.raises(ConfigError, match="E106"):
            mover(0.2, wilson(1, 5), 0.2, wilson(1, 5, confidence=0.9))


def means(rows):
    return rows.mean(axis=1)


class TestBootstrap:
    def test_repeats_itself_and_depends_on_the_stream(self):
        values = np.random.default_rng(0).normal(size=100)
        assert bootstrap(values, means, rng=Streams(1)) == bootstrap(values, means, rng=Streams(1))
        assert bootstrap(values, means, rng=Streams(1)) != bootstrap(values, means, rng=Streams(2))

    def test_near_the_normal_interval(self):
        values = np.random.default_rng(3).normal(size=400)
        found = bootstrap(values, means, rng=Streams(0), resamples=8000)
        half = 1.96 * values.std() / 20
        assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)

    def test_rows_stay_together(self):
        pairs = np.random.default_rng(1).normal(size=(200, 1)) + np.array([[0.0, 1.0]])
        found = bootstrap(pairs, lambda rows: (rows[:, :, 1] - rows[:, :, 0]).mean(axis=1), rng=Streams(0))
        assert found is None or (found.low, found.high) == pytest.approx((1.0, 1.0))

    def test_no_certainty_from_sameness(self):
        assert bootstrap([1.0] * 50, means, rng=Streams(0)) is None
        assert bootstrap([], means, rng=Streams(0)) is None

    @pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf], 3.0])
    def test_refuses(self, values):
        with pytest.raises(ConfigError, match="E106"):
            bootstrap(values, means, rng=Streams(0))

    def test_a_statistic_that_is_not_finite_gives_none(self):
        assert percentiles(np.array([1.0, math.nan]), "x", 0.95) is None

    def test_blocks_are_fixed_by_n_alone(self):
        n = (1 << 22) // 3
        blocks = list(resampled(Streams(0), n, 4))
        assert [block.shape for block in blocks] == [(3, n), (1, n)]
        assert not np.array_equal(blocks[0][0], blocks[1][0])


def coverage(simulate, simulations: int = 2000) -> float:
    return sum(simulate(index) for index in range(simulations)) / simulations


@pytest.mark.slow
@pytest.mark.statistical
class TestCoverage:
    """2,000 simulations a point; the standard error of a coverage of 95 % is half a point."""

    @pytest.mark.parametrize(("share", "n"), [(0.5, 100), (0.9, 100), (0.2, 1000), (0.98, 1000)])
    def test_wilson(self, share, n):
        # The share moves by up to a point, because the coverage at one share jumps with n, as for every exact count.
        rng = np.random.default_rng(0)
        shares = share + rng.uniform(-0.01, 0.01, 2000)
        ends = [wilson(int(k), n) for k in rng.binomial(n, shares)]
        inside = [end.low <= true <= end.high for end, true in zip(ends, shares, strict=True)]
        assert 0.93 <= np.mean(inside) <= 0.97

    def test_wald_fails_where_few_samples_err(self):
        draws = np.random.default_rng(0).binomial(100, 0.98, size=2000)
        assert np.mean([wald(int(k), 100).low <= 0.98 <= wald(int(k), 100).high for k in draws]) < 0.93

    @pytest.mark.parametrize(
        ("both", "first", "second", "n"),
        [(0.8, 0.1, 0.02, 100), (0.6, 0.3, 0.02, 100), (0.9, 0.05, 0.01, 300), (0.3, 0.2, 0.2, 1000)],
    )
    def test_bonett_price(self, both, first, second, n):
        draws = np.random.default_rng(1).multinomial(n, [both, first, second, 1 - both - first - second], 2000)
        found = [bonett_price(int(b), int(c), n) for _, b, c, _ in draws]
        inside = [end.low <= first - second <= end.high for end in found]
        assert 0.93 <= np.mean(inside) <= 0.97

    def test_wald_fails_where_few_pairs_differ(self):
        draws = np.random.default_rng(1).multinomial(100, [0.94, 0.04, 0.01, 0.01], 2000)
        found = [wald_paired(int(b), int(c), 100) for _, b, c, _ in draws]
        assert np.mean([end.low <= 0.03 <= end.high for end in found]) < 0.93

    @pytest.mark.parametrize(
        ("one", "two", "n", "m"), [(0.5, 0.4, 100, 100), (0.9, 0.8, 60, 300), (0.95, 0.9, 500, 500)]
    )
    def test_newcombe(self, one, two, n, m):
        rng = np.random.default_rng(2)
        pairs = zip(rng.binomial(n, one, 2000), rng.binomial(m, two, 2000), strict=True)
        found = [newcombe(int(k), n, int(j), m) for k, j in pairs]
        assert 0.93 <= np.mean([end.low <= one - two <= end.high for end in found]) <= 0.97

    def test_clustered(self):
        # Shares of 15 answers a sample with strong dependence: Beta(0.8, 0.2)-distributed skill.
        rng = np.random.default_rng(3)
        shares = rng.binomial(15, rng.beta(0.8, 0.2, size=(2000, 150))) / 15
        found = [wilson_clustered(row, 15) for row in shares]
        assert 0.93 <= np.mean([end.low <= 0.8 <= end.high for end in found]) <= 0.97
        naive = [wilson(round(row.sum() * 15), 150 * 15) for row in shares]
        assert np.mean([end.low <= 0.8 <= end.high for end in naive]) < 0.7

    def test_bootstrap(self):
        rng = np.random.default_rng(4)

        def simulate(index):
            found = bootstrap(rng.gamma(4.0, size=100), means, rng=Streams(index), resamples=1000)
            return found.low <= 4.0 <= found.high

        assert 0.93 <= coverage(simulate) <= 0.97


class TestMedian:
    """Order statistics, against the binomial distribution and by what they hold."""

    @pytest.mark.parametrize("n", [*range(6, 40), 101])
    def test_the_widest_that_is_needed(self, n: int) -> None:
        found = median_interval(np.random.default_rng(n).permutation(n))
        assert found is not None
        left = int(found.low)
        assert found.high == n - 1 - left
        holds = 1 - 2 * stats.binom.cdf(left, n, 0.5)
        assert holds >= 0.95 > 1 - 2 * stats.binom.cdf(left + 1, n, 0.5)

    def test_coverage_of_few_sessions(self) -> None:
        """Of groups that differ, the bootstrap of three held three quarters of what it promised."""
        made = np.random.default_rng(0)
        for n in (6, 9, 15):
            found = [median_interval(made.standard_t(3, n)) for _ in range(2000)]
            held = np.mean([each is not None and each.low <= 0 <= each.high for each in found])
            assert held > 0.94

    @pytest.mark.parametrize("values", [[], [1.0], [1, 2, 3, 4, 5], [2.0] * 9])
    def test_none_where_there_is_none(self, values: list[float]) -> None:
        assert median_interval(values) is None

    @pytest.mark.parametrize("values", [[[1, 2]], [math.nan] * 9, [math.inf, *range(9)]])
    def test_refused(self, values: list[float]) -> None:
        with pytest.raises(ConfigError, match="E106"):
            median_interval(values)


class TestStudent:
    @pytest.mark.parametrize("n", [2, 3, 4, 5])
    def test_against_scipy(self, n: int) -> None:
        values = np.random.default_rng(n).normal(5, 2, n)
        found = student(values)
        assert found is not None
        low, high = stats.t.interval(0.95, n - 1, values.mean(), values.std(ddof=1) / math.sqrt(n))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)

    @pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0], [1, 2, 3, 4, 5, 6]])
    def test_none_where_there_is_none(self, values: list[float]) -> None:
        assert student(values) is None

    @pytest.mark.parametrize("values", [[[1, 2]], [math.nan, 1.0]])
    def test_refused(self, values: list[float]) -> None:
        with pytest.raises(ConfigError, match="E106"):
            student(values)
