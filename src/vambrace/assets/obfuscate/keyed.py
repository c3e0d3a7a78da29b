"""Choices that only the holder of a key can repeat: a deterministic generator from 32 bytes and a path of names.

HKDF-SHA256 (RFC 5869) over the length-prefixed path gives the key of a ChaCha20 key stream (RFC 8439, 2.4; nonce and
counter zero), which every draw reads on from where the last one stopped. A child is derived from the key and the path
alone, so what one pass draws never moves what another one gets.

`vambrace.core.rng.Streams` is not for secrets and this is not for measurements.

    >>> Stream(bytes(32), "order").permutation(4).tolist() == Stream(bytes(32)).child("order").permutation(4).tolist()
    True
    >>> Stream(bytes(32))
    Stream()
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Stream", "as_key", "fingerprint"]

KEY_BYTES = 32

_T = TypeVar("_T")
_STREAM = b"vambrace/keyed/1"
_SEED = b"vambrace/keyed/seed/1"
_CUSTOMER = b"vambrace/keyed/customer/1"


class Stream:
    """One stream of draws.

    Args:
        key: 32 bytes.
        path: names that set this stream apart from every other one of the same key.

    Raises:
        ConfigError: E800, for a key of another length.
    """

    __slots__ = ("_cipher", "_key", "path")

    def __init__(self, key: bytes, *path: str | int) -> None:
        _check(key)
        self.path = tuple(str(name) for name in path)
        self._key = key
        derived = _derive(key, _STREAM, *self.path)
        self._cipher = Cipher(algorithms.ChaCha20(derived, bytes(16)), mode=None).encryptor()

    def __repr__(self) -> str:
        return f"Stream({', '.join(map(repr, self.path))})"

    def child(self, *path: str | int) -> Stream:
        """The stream under this one called `path`; it does not depend on what was drawn here."""
        return Stream(self._key, *self.path, *path)

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes of the key stream."""
        return self._cipher.update(bytes(count))

    def integers(self, low: int, high: int, shape: tuple[int, ...] = ()) -> NDArray[np.int64]:
        """Whole numbers low <= x < high, int64, each equally likely (64-bit words, rejected beyond a multiple).

        Raises:
            ConfigError: E800, for an empty range.
        """
        span = high - low
        if not 1 <= span <= 2**63:
            raise _wrong_seed(f"a range from {low} to {high}")
        size = math.prod(shape)
        words = self._words(size)
        # The largest word of a whole multiple of `span`; words above it would favour small numbers.
        last = np.uint64(2**64 - 2**64 % span - 1)
        while (again := np.flatnonzero(words > last)).size:
            words[again] = self._words(again.size)
        return ((words % np.uint64(span)).astype(np.int64) + low).reshape(shape)

    def permutation(self, count: int) -> NDArray[np.int64]:
        """0 to count - 1 in an order of which each is equally likely: sorted by distinct random words."""
        while True:
            words = self._words(count)
            order = np.argsort(words, kind="stable")
            # Equal words would leave their order to the sort; they come once in 2**64 / count**2 draws.
            if count < 2 or bool(np.all(np.diff(words[order]) > 0)):
                return order.astype(np.int64)

    def pick(self, items: Sequence[_T]) -> _T:
        """One of the items."""
        return items[int(self.integers(0, len(items)))]

    def some(self, count: int, share: float) -> NDArray[np.int64]:
        """Which of `count` places are taken, ascending: share * count of them, rounded up where share is above 0."""
        taken = min(count, math.ceil(share * count - 1e-9))
        return np.sort(self.permutation(count)[:taken])

    def signs(self, count: int) -> NDArray[np.int8]:
        """-1 or 1, int8 (count,)."""
        return (self.integers(0, 2, (count,)) * 2 - 1).astype(np.int8)

    def powers(self, low: int, high: int, count: int) -> NDArray[np.int64]:
        """Exponents k of factors 2**k, low <= k <= high, int64 (count,)."""
        return self.integers(low, high + 1, (count,))

    def uniform(self, shape: tuple[int, ...] = ()) -> NDArray[np.float64]:
        """Multiples of 2**-53, 0 <= x < 1, float64."""
        return (self._words(math.prod(shape)) >> np.uint64(11)).astype(np.float64).reshape(shape) * np.float64(2.0**-53)

    def normal(self, shape: tuple[int, ...] = ()) -> NDArray[np.float64]:
        """Standard normal, float64 (Box and Muller 1958); the last bits may differ between machines."""
        size = math.prod(shape)
        half = -(-size // 2)
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform((half,))))
        angle = 2.0 * math.pi * self.uniform((half,))
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return both[:size].reshape(shape)

    def _words(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(self.bytes(8 * count), dtype="<u8").astype(np.uint64)


def as_key(seed: int | bytes | None) -> bytes:
    """The 32 bytes that a seed stands for.

    Args:
        seed: 32 bytes as they are; a whole number 0 <= seed < 2**64 for work that others should repeat, which hides
            nothing from whoever tries small numbers; None for fresh bytes of the operating system.

    Raises:
        ConfigError: E800, for anything else.
    """
    if seed is None:
        return os.urandom(KEY_BYTES)
    if isinstance(seed, bytes) and len(seed) == KEY_BYTES:
        return seed
    if type(seed) is int and 0 <= seed < 2**64:
        return _derive(seed.to_bytes(KEY_BYTES, "big"), _SEED)
    seen = f"{len(seed)} bytes" if isinstance(seed, bytes) else f"a {type(seed).__name__}"
    raise _wrong_seed(f"the seed {seed}" if type(seed) is int else seen)


def fingerprint(customer: str, key: bytes) -> bytes:
    """The 32 bytes that choose everything in the copy of one customer.

    Args:
        customer: his name; any text but the empty one.
        key: 32 secret bytes of the owner, the same for all customers.

    Raises:
        ConfigError: E800, for no name or a key of another length.
    """
    if not customer:
        raise _wrong_seed("a customer without a name")
    _check(key)
    return _derive(key, _CUSTOMER, customer)


def _derive(key: bytes, purpose: bytes, *path: str) -> bytes:
    info = purpose
    for name in path:
        raw = name.encode("utf-8", "surrogatepass")
        info += len(raw).to_bytes(8, "little") + raw
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)


def _check(key: object) -> None:
    if not (isinstance(key, bytes) and len(key) == KEY_BYTES):
        raise _wrong_seed(f"a key of {len(key)} bytes" if isinstance(key, bytes) else f"a {type(key).__name__}")


def _wrong_seed(seen: str) -> ConfigError:
    return ConfigError(
        "E800",
        seen=seen,
        expected="32 secret bytes, a seed from 0 to 2**64 - 1, or none for fresh bytes of the operating system",
        fix="keep os.urandom(32) in a key file, or give a whole number where others should repeat the work",
    )
