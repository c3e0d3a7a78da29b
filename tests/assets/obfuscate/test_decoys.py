"""Decoys have the statistics of what they stand beside, and another function."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from vambrace.assets.obfuscate.decoys import decoy, similar_order, sizes_of
from vambrace.assets.obfuscate.keyed import Stream, as_key

SHAPES = {"matrix": (48, 32), "kernel": (24, 12, 3, 3), "depthwise": (24, 1, 3, 3)}


def trained(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights like those of training, and factors like those of obfuscation, which are in the weights already.

    Rows and columns have different sizes, a few directions are strong, kernels are smooth.
    """
    rng = np.random.default_rng(seed)
    rows, rest = shape[0], int(np.prod(shape[1:]))
    low = rng.standard_normal((rows, 4)) @ rng.standard_normal((4, rest))
    made = (0.5 * low + rng.standard_t(5, (rows, rest))).reshape(shape)
    if len(shape) == 4:
        made = made + np.roll(made, 1, -1) + np.roll(made, 1, -2)
    spatial = (1,) * (len(shape) - 2)
    sizes = np.exp(rng.standard_normal((rows, 1, *spatial)) + 0.5 * rng.standard_normal((1, shape[1], *spatial)))
    factor = np.exp2(rng.integers(-8, 1, (rows, 1, *spatial)) + rng.integers(0, 9, (1, shape[1], *spatial)))
    return (0.05 * made * sizes * factor).astype(np.float32), factor


def arranged(what: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, their decoy, and the factors in both."""
    weights, factor = trained(SHAPES[what], seed)
    stream = Stream(as_key(seed))
    order, _ = similar_order(sizes_of(weights / factor, 0), stream)
    return weights, decoy(weights, factor, order, stream), factor


def statistics(weights: np.ndarray) -> list[float]:
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    rows, columns = np.linalg.norm(flat, axis=1), np.linalg.norm(flat, axis=0)
    spread = flat.std()
    smooth = np.corrcoef(weights[..., :-1].ravel(), weights[..., 1:].ravel())[0, 1]
    values = np.linalg.svd(flat, compute_uv=False)
    return [
        *(np.log(spread), flat.mean() / spread, (flat**4).mean() / spread**4, np.abs(flat).max() / spread),
        *(np.std(np.log(rows)), np.std(np.log(columns)), smooth, values[0] / values.sum()),
        *(np.log(values[0] / values[-1]), (np.abs(flat) < 0.1 * spread).mean()),
    ]


@pytest.mark.parametrize("what", SHAPES)
def test_without_factors_only_the_arrangement_changes(what: str) -> None:
    true, fake, factor = arranged(what, 1)
    true, fake = true / factor, fake / factor
    assert not np.array_equal(true, fake)
    assert np.array_equal(np.sort(true, axis=None), np.sort(fake, axis=None))
    values = [np.linalg.svd(each.sum(axis=tuple(range(2, each.ndim))), compute_uv=False) for each in (true, fake)]
    assert np.allclose(*values)
    for axis in range(2):
        assert np.allclose(*(np.sort(sizes_of(each, axis)) for each in (true, fake)))


@pytest.mark.parametrize("what", ["matrix", "kernel"])
def test_rows_and_columns_fit_their_neighbours(what: str) -> None:
    # What cancels in the layer cancels in the decoy: sizes of rows and columns, factors included, are nearly the same.
    for seed in range(5):
        true, fake, _ = arranged(what, seed)
        for axis in range(2):
            assert spearmanr(sizes_of(true, axis), sizes_of(fake, axis)).statistic > 0.85


@pytest.mark.parametrize("what", ["matrix", "kernel"])
def test_a_classifier_of_statistics_is_at_chance(what: str) -> None:
    """Which of two is the true one? Trained on pairs from 150 layers, asked about 100; a Gaussian decoy is told."""

    def gaussian(seed: int) -> tuple[np.ndarray, np.ndarray]:
        true, _ = trained(SHAPES[what], seed)
        draw = np.random.default_rng(seed)
        return true, (draw.standard_normal(true.shape) * true.std()).astype(np.float32)

    def accuracy(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
        gaps = np.array([np.subtract(statistics(true), statistics(fake)) for true, fake in pairs])
        signs = np.where(np.arange(len(gaps)) % 2, 1, -1)
        features = gaps * signs[:, None] / (gaps.std(axis=0) + 1e-12)
        model = LogisticRegression(C=0.1).fit(features[:150], signs[:150])
        return float(model.score(features[150:], signs[150:]))

    assert accuracy([gaussian(seed) for seed in range(250)]) > 0.95
    # 100 fair coins show 67 or more with a chance of 4e-4.
    assert accuracy([arranged(what, seed)[:2] for seed in range(250)]) < 0.67


def test_channels_of_like_size_change_places() -> None:
    sizes = np.random.default_rng(0).random(50)
    order, blocks = similar_order(sizes, Stream(as_key(1)))
    assert sorted(order) == list(range(50))
    assert sum(blocks) == 50
    assert max(blocks) <= 8
    ranks = np.argsort(np.argsort(sizes))
    assert np.abs(ranks[order] - ranks).max() < 8
    assert (order != np.arange(50)).mean() > 0.6
    assert similar_order(np.zeros(0), Stream(as_key(1)))[0].size == 0


def test_vectors_follow_their_rows() -> None:
    weights = np.arange(1, 7, dtype=np.float32) * np.float32(0.25)
    order = np.array([2, 0, 1, 5, 3, 4])
    assert np.array_equal(decoy(weights, np.full(6, 0.25), order, None), weights[order])
    turned = np.array([-1.0, 1, 1, 1, 1, 1])
    assert decoy(weights, turned, order, None).tolist() == [-0.75, -0.25, 0.5, 1.5, 1.0, 1.25]
