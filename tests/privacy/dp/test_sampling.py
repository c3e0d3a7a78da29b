"""Batches follow the law that is charged for them."""

from __future__ import annotations

from itertools import combinations
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
from vambrace.privacy.dp.sampling import (
    Everything,
    FixedSize,
    Poisson,
    Sampler,
    Shuffled,
    TruncatedPoisson,
    buckets,
    steps_per_epoch,
)
from vambrace.privacy.dp.secret import Secret

CLOSE = 1e-4  # the least p-value of a test at a fixed seed; a negative control must fall below it
EVERY = [Poisson(), TruncatedPoisson(max_batch_size=12), FixedSize(), Shuffled(), Everything()]


def batches(sampler: Sampler, n: int, size: int, steps: int, seed: int = 31) -> torch.Tensor:
    """(steps, n) membership."""
    secret = Secret(debug_seed=seed)
    inside = torch.zeros(steps, n, dtype=torch.float64)
    for step in range(steps):
        inside[step, sampler.draw(n, size, secret, step)] = 1
    return inside


def marginals_p(inside: torch.Tensor, rate: float) -> float:
    """Whether every sample is in a batch at `rate`."""
    steps, n = inside.shape
    counts = inside.sum(0)
    scores = (counts - steps * rate).square() / (steps * rate * (1 - rate))
    return float(stats.chi2.sf(float(scores.sum()), n))


def pairs_p(inside: torch.Tensor, rate: float) -> float:
    """Whether two samples are in a batch together as often as if they did not know of each other."""
    steps, n = inside.shape
    centred = (inside - rate) / (rate * (1 - rate)) ** 0.5
    scores = (centred.T @ centred)[tuple(torch.triu_indices(n, n, 1))] / steps**0.5
    size = float(centred.sum(1).square().mean()) / n  # 1 where the size has the variance of independent coins
    together = stats.chi2.sf(float(scores.square().sum()), len(scores))
    # The size's square has variance 2 n^2 and a little more, for the coins' own kurtosis.
    return float(min(together, 2 * stats.norm.sf(abs(size - 1) / (2.5 / steps) ** 0.5)))


@pytest.mark.statistical
def test_poisson_has_its_marginals_and_pairs_are_independent() -> None:
    inside = batches(Poisson(), 40, 8, 5000)
    assert marginals_p(inside, 0.2) > CLOSE
    assert pairs_p(inside, 0.2) > CLOSE
    assert marginals_p(inside, 0.23) < CLOSE
    assert pairs_p(batches(FixedSize(), 40, 8, 5000), 0.2) < CLOSE
    assert pairs_p(batches(Poisson(), 40, 8, 5000, seed=35).maximum(inside), 0.36) > CLOSE
    assert pairs_p(torch.cat([inside[:, :20]] * 2, 1), 0.2) < CLOSE  # every coin used twice


@pytest.mark.statistical
def test_size_and_set_are_the_same_as_coins() -> None:
    """Every subset of four samples has its probability, whichever way it is drawn; fixed sizes have not."""
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    law = np.array([0.25 ** bin(each).count("1") * 0.75 ** (4 - bin(each).count("1")) for each in range(16)])
    steps = 12_000
    drawn = batches(Poisson(), 4, 1, steps)
    thrown = Secret(debug_seed=32).coins(4 * steps, 0.25).view(-1, 4).double()
    for inside in (drawn, thrown):
        counts = np.bincount((inside @ weights).long().numpy(), minlength=16)
        assert stats.chisquare(counts, law * steps).pvalue > CLOSE
    fixed = (batches(FixedSize(), 4, 1, 2000) @ weights).long().numpy()
    assert stats.chisquare(np.bincount(fixed, minlength=16), law * 2000).pvalue < CLOSE


@pytest.mark.statistical
def test_batch_sizes_are_binomial_and_empty_ones_come() -> None:
    secret = Secret(debug_seed=33)
    sizes = np.array([len(Poisson().draw(1000, 2, secret, step)) for step in range(4000)])
    counts = np.bincount(sizes, minlength=9)
    law = stats.binom.pmf(np.arange(9), 1000, 0.002) * 4000
    assert counts[0] > 400
    pooled = [np.append(each[:8], each[8:].sum()) for each in (counts, law)]
    assert stats.chisquare(pooled[0], pooled[1] * 4000 / pooled[1].sum()).pvalue > CLOSE


@pytest.mark.statistical
def test_truncation_keeps_a_uniform_set() -> None:
    sampler = TruncatedPoisson(max_batch_size=9)
    inside = batches(sampler, 40, 8, 4000)
    sizes = inside.sum(1)
    assert int(sizes.max()) == 9
    expected = float(np.minimum(stats.binom.pmf(np.arange(41), 40, 0.2) @ np.minimum(np.arange(41), 9), 9))
    assert marginals_p(inside, expected / 40) > CLOSE
    assert marginals_p(inside, 0.2) < CLOSE
    below = np.bincount(sizes.long().numpy(), minlength=10)
    law = stats.binom.pmf(np.arange(10), 40, 0.2)
    law[9] = stats.binom.sf(8, 40, 0.2)
    assert stats.chisquare(below[2:], law[2:] * below[2:].sum() / law[2:].sum()).pvalue > CLOSE


@pytest.mark.statistical
def test_fixed_sizes_are_fixed_and_uniform() -> None:
    inside = batches(FixedSize(), 6, 2, 4500)
    assert bool((inside.sum(1) == 2).all())
    together = [int((inside[:, one] * inside[:, other]).sum()) for one, other in combinations(range(6), 2)]
    assert stats.chisquare(together).pvalue > CLOSE


@pytest.mark.parametrize(("n", "size"), [(10, 3), (12, 4), (5, 5), (7, 1)])
def test_shuffling_gives_every_sample_once_an_epoch(n: int, size: int) -> None:
    secret = Secret()
    steps = steps_per_epoch(n, size)
    epochs = [
        [Shuffled().draw(n, size, secret, step) for step in range(at, at + steps)] for at in (0, steps, 2 * steps)
    ]
    for epoch in epochs:
        assert torch.cat(epoch).sort().values.tolist() == list(range(n))
        assert [len(batch) for batch in epoch[:-1]] == [size] * (steps - 1)
        assert len(epoch[-1]) == (n - 1) % size + 1


@pytest.mark.statistical
def test_orders_differ_between_epochs() -> None:
    inside = batches(Shuffled(), 20, 5, 4000)
    first = inside[::4]
    assert marginals_p(first, 0.25) > CLOSE
    assert bool((inside.view(1000, 4, 20).sum(1) == 1).all())


def test_a_broken_epoch_is_not_continued() -> None:
    secret = Secret()
    Shuffled().draw(10, 5, secret, 0)
    secret.renew()
    for step in (1, 3):
        with pytest.raises(ConfigError, match="E147.*whose order is gone"):
            Shuffled().draw(10, 5, secret, step)
    assert len(Shuffled().draw(10, 5, secret, 2)) == 5
    with pytest.raises(ConfigError, match="E147"):
        Shuffled().draw(10, 5, Secret(), 3)


def test_everything_is_everything() -> None:
    assert Everything().draw(4, 2, Secret(), 9).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sampler", EVERY, ids=lambda sampler: type(sampler).__name__)
def test_a_charge_is_made_of_the_object_that_draws(sampler: Sampler) -> None:
    charge = Charge(mechanism="gaussian", noise_multiplier=1.0, **sampler.charge_fields(93, 7))  # type: ignore[arg-type]
    rates = {"full": 1.0, "shuffle": 1 / 14}
    names = {"Poisson": "poisson", "TruncatedPoisson": "truncated_poisson", "FixedSize": "fixed_size"}
    names |= {"Shuffled": "shuffle", "Everything": "full"}
    assert charge.sampling == names[type(sampler).__name__]
    assert charge.sample_rate == rates.get(charge.sampling, 7 / 93)
    sized = charge.sampling in {"truncated_poisson", "fixed_size"}
    assert charge.dataset_size == (93 if sized else 0)
    assert charge.batch_size == {"truncated_poisson": 12, "fixed_size": 7}.get(charge.sampling, 0)
    assert read(type(sampler), sampler.as_json()) == sampler  # pyright: ignore[reportArgumentType]
    drawn = sampler.draw(93, 7, Secret(), 0)
    assert drawn.dtype == torch.int64
    assert len(drawn.unique()) == len(drawn)


def test_the_rate_of_the_draw_is_the_rate_of_the_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(Secret, "binomial", lambda self, n, rate: asked.append(rate) or 0)
    for sampler in (Poisson(), TruncatedPoisson(max_batch_size=256)):
        sampler.draw(60_000, 256, Secret(), 0)
        assert asked.pop() == sampler.charge_fields(60_000, 256)["sample_rate"]


def test_steps_are_counted_in_whole_numbers() -> None:
    """One over one over n, cut to a whole number, is n - 1 for 1364 of these, and a step of every epoch is lost."""
    sizes = range(1, 20_000)
    assert sum(int(1 / (1 / n)) != n for n in sizes) == 1364
    assert all(steps_per_epoch(n, 1) == n for n in sizes)
    assert [steps_per_epoch(60_000, size) for size in (256, 250, 60_000, 59_999)] == [235, 240, 1, 2]
    assert steps_per_epoch(10**18 + 1, 10) == 10**17 + 1


# ---- buckets -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 3000), st.integers(1, 3000), st.none() | st.integers(1, 600))
def test_pieces_hold_every_sample_once(count: int, expected: int, most: int | None) -> None:
    pieces = buckets(count, expected, most=most)
    rows = [row for start, stop, _ in pieces for row in range(start, stop)]
    assert rows == list(range(count))
    for start, stop, padded in pieces:
        assert padded >= stop - start > 0
        assert most is None or padded <= most
    padding = sum(padded - (stop - start) for start, stop, padded in pieces)
    assert padding < max(1, min(expected, most or expected) // 16)


@pytest.mark.statistical
@pytest.mark.parametrize("expected", [4, 16, 100, 128, 256, 1000])
@pytest.mark.parametrize("most", [None, 64])
def test_padding_is_small_on_average_and_sizes_are_few(expected: int, most: int | None) -> None:
    secret = Secret(debug_seed=34)
    counts = [secret.binomial(60_000, expected / 60_000) for _ in range(2000)]
    pieces = [buckets(count, expected, most=most) for count in counts]
    physical = sum(padded for each in pieces for _, _, padded in each)
    assert sum(counts) <= physical <= 1.05 * sum(counts)
    sizes = {padded for each in pieces for _, _, padded in each}
    assert len(sizes) <= 32
    assert len(sizes) <= len(set(counts))


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", EVERY, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize(("n", "size"), [(0, 0), (10, 0), (10, 11), (0, 1), (10, 2.0), (10.0, 2), (10, True)])
def test_sizes_that_do_not_fit(sampler: Sampler, n: Any, size: Any) -> None:
    for ask in (lambda: sampler.draw(n, size, Secret(), 0), lambda: sampler.charge_fields(n, size)):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert caught.value.code == "E147"


@pytest.mark.parametrize(
    "ask",
    [
        lambda: TruncatedPoisson(max_batch_size=0),
        lambda: TruncatedPoisson(max_batch_size=2.5),  # type: ignore[arg-type]
        lambda: TruncatedPoisson(max_batch_size=5).draw(10, 6, Secret(), 0),
        lambda: TruncatedPoisson(max_batch_size=5).charge_fields(10, 6),
        lambda: Poisson().draw(10, 6, Secret(), -1),
        lambda: steps_per_epoch(0, 1),
        lambda: buckets(-1, 5),
        lambda: buckets(1, 0),
        lambda: buckets(1, 5, most=0),
    ],
)
def test_other_values_that_do_not_fit(ask: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        ask()
    assert caught.value.code == "E147"
