"""Keyed draws: the same for the same key and path, apart otherwise, and unbiased."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from vambrace.assets.obfuscate.keyed import Stream, as_key, fingerprint
from vambrace.errors import ConfigError

KEY = bytes(range(32))


def test_bytes_are_hkdf_and_chacha20_by_the_standards() -> None:
    # RFC 5869 by hand: extract with a salt of zeros, one step of expand.
    info = b"vambrace/keyed/1" + (4).to_bytes(8, "little") + b"pass" + (1).to_bytes(8, "little") + b"3"
    prk = hmac.digest(bytes(32), KEY, hashlib.sha256)
    derived = hmac.digest(prk, info + b"\1", hashlib.sha256)
    expected = Cipher(algorithms.ChaCha20(derived, bytes(16)), mode=None).encryptor().update(bytes(100))
    stream = Stream(KEY, "pass", 3)
    assert stream.bytes(60) + stream.bytes(40) == expected


def test_children_do_not_depend_on_draws_and_paths_are_not_glued() -> None:
    drawn = Stream(KEY, "a")
    drawn.integers(0, 10, (100,))
    assert drawn.child("b").bytes(16) == Stream(KEY, "a", "b").bytes(16)
    streams = [Stream(KEY, *path) for path in [(), ("a", "b"), ("ab",), ("a",), ("", "ab"), ("a", 0), ("a", "00")]]
    assert len({stream.bytes(16) for stream in streams}) == len(streams)


@given(low=st.integers(-(2**62), 2**62), span=st.integers(1, 2**62), count=st.integers(0, 20))
def test_integers_lie_in_range(low: int, span: int, count: int) -> None:
    drawn = Stream(KEY, low).integers(low, low + span, (count,))
    assert drawn.shape == (count,)
    assert drawn.dtype == np.int64
    assert all(low <= each < low + span for each in drawn.tolist())


def test_words_that_would_favour_small_numbers_are_rejected() -> None:
    # Of 2**64 words, 3 * 2**61 numbers get two each and the first two thirds a third one: .75 of all without rejection.
    drawn = Stream(KEY).integers(0, 3 * 2**61, (4000,))
    assert abs(float(np.mean(drawn < 2**62)) - 2 / 3) < 0.03


def test_draws_are_uniform() -> None:
    stream = Stream(KEY, "uniform")
    assert chisquare(np.bincount(stream.integers(0, 7, (7000,)), minlength=7)).pvalue > 1e-4
    orders = [tuple(stream.permutation(3).tolist()) for _ in range(3000)]
    assert chisquare(np.unique(orders, axis=0, return_counts=True)[1]).pvalue > 1e-4
    assert kstest(stream.uniform((5000,)), "uniform").pvalue > 1e-4
    assert kstest(stream.normal((5001,)), "norm").pvalue > 1e-4
    assert set(stream.signs(100).tolist()) == {-1, 1}
    assert set(stream.powers(-3, 0, 200).tolist()) == {-3, -2, -1, 0}


def test_some_takes_a_share_rounded_up() -> None:
    stream = Stream(KEY)
    assert [len(stream.some(10, share)) for share in (0.0, 0.01, 0.1, 0.3, 1.0)] == [0, 1, 1, 3, 10]
    assert (np.diff(stream.some(100, 0.6)) > 0).all()
    assert stream.some(0, 1.0).size == 0


def test_seeds() -> None:
    assert as_key(KEY) == KEY
    assert as_key(7) == as_key(7) != as_key(8)
    assert as_key(None) != as_key(None)
    assert len({fingerprint(name, KEY) for name in ("acme", "bolt", "acme ")}) == 3
    assert fingerprint("acme", KEY) == fingerprint("acme", KEY) != fingerprint("acme", bytes(32))


@pytest.mark.parametrize("seed", [-1, 2**64, True, 1.5, "7", b"short", bytes(33)])
def test_other_seeds_are_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="E800") as caught:
        as_key(seed)  # type: ignore[arg-type]
    assert "short" not in str(caught.value)


def test_other_keys_and_ranges_are_refused() -> None:
    for wrong in (b"", bytes(16), "x" * 32):
        with pytest.raises(ConfigError, match="E800"):
            Stream(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="E800"):
        fingerprint("", KEY)
    with pytest.raises(ConfigError, match="E800"):
        Stream(KEY).integers(3, 3)


def test_a_key_is_never_shown() -> None:
    stream = Stream(KEY, "a")
    assert KEY.hex() not in repr(stream)
    assert repr(stream) == "Stream('a')"
