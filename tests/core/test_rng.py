"""Streams: pure, named, independent; the statistical tests must reject a bad hash."""

from __future__ import annotations

import hashlib
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vambrace.core import rng as module
from vambrace.core.rng import GOLDEN_GAMMA, Streams, as_streams, mix64
from vambrace.errors import ConfigError


class TestKeys:
    @given(st.integers(0, 2**63 - 1), st.lists(st.text(max_size=5), max_size=4))
    def test_the_key_is_a_hash_of_the_length_prefixed_path(self, seed, path):
        digest = hashlib.sha256(f"vambrace/streams/1/{seed}".encode())
        for name in path:
            raw = name.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
        assert Streams(seed).child(*path).key == int.from_bytes(digest.digest()[:8], "little")

    def test_known_answers(self):
        """Published numbers: a change here changes every result that anyone ever stored."""
        assert hex(Streams(0).key) == "0xd36fdf78c8f1a9c3"
        assert hex(Streams(20261123).child("pgd", "start").key) == "0x5d2e715bf225308d"
        assert Streams(0).child("bootstrap").integers(1000, shape=(5,)).tolist() == [521, 531, 759, 97, 484]

    def test_names_do_not_run_together(self):
        keys = [Streams(0).child(*path).key for path in (("ab",), ("a", "b"), ("", "ab"), ("ab", ""), ())]
        assert len(set(keys)) == 5
        assert Streams(1).key != Streams(0).child("1").key
        assert Streams(0).child(3).key == Streams(0).child("3").key

    def test_the_root_is_a_value(self):
        assert Streams(3).child("a") == Streams(3, ("a",))
        assert len({Streams(3), Streams(3), Streams(4)}) == 2

    @pytest.mark.parametrize("seed", [-1, 2**63, True, 1.0, "1", None, math.nan, np.int64(3)])
    def test_what_is_no_seed(self, seed):
        with pytest.raises(ConfigError, match="E104"):
            Streams(seed)

    def test_as_streams(self):
        assert as_streams(7) == as_streams(np.int64(7)) == Streams(7)
        stream = Streams(1).child("x")
        assert as_streams(stream) is stream
        with pytest.raises(ConfigError, match="E104"):
            as_streams(1.5)


class TestIntegers:
    def test_pure_and_blind_to_global_state(self):
        first = Streams(5).child("a").integers(10, shape=(3, 4), step=2)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        assert np.array_equal(first, Streams(5).child("a").integers(10, shape=(3, 4), step=2))
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002

    def test_a_longer_draw_begins_with_the_shorter_one(self):
        stream = Streams(5)
        assert stream.integers(99, shape=(10,)).tolist() == stream.integers(99, shape=(20,))[:10].tolist()

    @pytest.mark.parametrize("high", [1, 2, 3, 7, 1000, 2**31, 2**32])
    def test_range(self, high):
        drawn = Streams(1).integers(high, shape=(5000,))
        assert drawn.dtype == np.int64
        assert 0 <= drawn.min() <= drawn.max() < high
        assert high > 100 or set(drawn.tolist()) == set(range(high))

    def test_empty(self):
        assert Streams(1).integers(3, shape=(0, 4)).shape == (0, 4)

    @pytest.mark.parametrize(("high", "step"), [(0, 0), (-1, 0), (2**32 + 1, 0), (3, -1), (3, 2**24)])
    def test_out_of_range(self, high, step):
        with pytest.raises(ConfigError, match="E104"):
            Streams(1).integers(high, shape=(3,), step=step)


def test_mix64_is_the_published_finaliser():
    # SplitMix64 from state 0: the first outputs of the reference implementation.
    counters = np.arange(1, 4, dtype=np.uint64) * np.uint64(GOLDEN_GAMMA)
    assert [hex(int(word)) for word in mix64(counters)] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def no_hash(words):
    """The negative control: counters as they come. Evenly spread, and anything but random."""
    return words


def one_round(words):
    """A weaker one: a single multiplication leaves low bits that depend on few others."""
    return words * np.uint64(module.MIX_1)


def uniformity(draw):
    """Chi-square over 64 cells, for the marginal law."""
    counts = np.bincount(draw(0, "a", 64, 64_000), minlength=64)
    return stats.chisquare(counts).pvalue


def neighbours(draw):
    """Chi-square over pairs of successive draws: independence along a row."""
    drawn = draw(0, "a", 16, 64_000).reshape(-1, 2)
    return stats.chisquare(np.bincount(drawn[:, 0] * 16 + drawn[:, 1], minlength=256)).pvalue


def streams_apart(draw):
    """Two children, position by position."""
    pair = draw(0, "a", 16, 32_000) * 16 + draw(0, "b", 16, 32_000)
    return stats.chisquare(np.bincount(pair, minlength=256)).pvalue


def runs(draw):
    """Lengths of rising runs between independent neighbours follow 1/6 turning points from each side."""
    drawn = draw(3, "c", 2**32, 30_001).astype(float)
    turns = ((drawn[1:-1] - drawn[:-2]) * (drawn[1:-1] - drawn[2:]) > 0).sum()
    mean, variance = 2 * 29_999 / 3, (16 * 30_001 - 29) / 90
    return 2 * stats.norm.sf(abs(turns - mean) / math.sqrt(variance))


def avalanche(mix):
    """The worst deviation, in standard deviations, of "flip one input bit, does this output bit flip" from one half."""
    words = np.random.default_rng(0).integers(0, 2**64, size=4000, dtype=np.uint64)
    worst = 0.0
    for bit in range(64):
        with np.errstate(over="ignore"):
            changed = mix(words) ^ mix(words ^ (np.uint64(1) << np.uint64(bit)))
        flips = np.unpackbits(changed.view(np.uint8)).reshape(4000, 64).mean(axis=0)
        worst = max(worst, float(np.abs(flips - 0.5).max() * 2 * math.sqrt(4000)))
    return worst


def drawing(seed, name, high, size):
    return Streams(seed).child(name).integers(high, shape=(size,))


@pytest.mark.statistical
class TestLaw:
    """Fixed seeds: four p-values that a sound generator keeps above 1e-4 and a bad one does not."""

    @pytest.mark.parametrize("law", [uniformity, neighbours, streams_apart, runs])
    def test_holds(self, law):
        assert law(drawing) > 1e-4

    @pytest.mark.parametrize("law", [neighbours, streams_apart, runs])
    def test_a_bad_hash_is_caught(self, law, monkeypatch):
        monkeypatch.setattr(module, "mix64", no_hash)
        assert law(drawing) < 1e-12

    def test_avalanche(self):
        assert avalanche(mix64) < 6
        assert avalanche(no_hash) > 60
        assert avalanche(one_round) > 60

    def test_steps_are_independent(self):
        pairs = [Streams(0).integers(16, shape=(400,), step=step) for step in range(160)]
        table = np.bincount((np.stack(pairs[:-1]) * 16 + np.stack(pairs[1:])).ravel(), minlength=256)
        assert stats.chisquare(table).pvalue > 1e-4

    def test_seeds_are_independent(self):
        first = np.array([Streams(seed).integers(16, shape=(1,))[0] for seed in range(6400)])
        table = np.bincount(first[:-1] * 16 + first[1:], minlength=256)
        assert stats.chisquare(table).pvalue > 1e-4
