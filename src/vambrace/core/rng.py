"""Randomness as a value: `Streams` names a stream of numbers, and nothing ever advances it.

A draw is a pure function of (seed, path, sample id, step, position): the SplitMix64 finaliser applied
to counters, keyed by SHA-256 of the path. So what happens to a sample does not depend on batch
size, order, company, resume or worker count. Steele, Lea, Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014, section 5, with the constants of Stafford's variant 13.

Here are the keys and the NumPy form, for resampling; `vambrace.ops.draws` is the tensor form and gives
the same integers bit for bit. Secrets (keys, shares, differential-privacy noise) are never drawn from here.

    >>> Streams(0).child("start").key == Streams(0).child("start").key
    True
    >>> Streams(0).child("a", "b").key == Streams(0).child("a").child("b").key
    True
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GOLDEN_GAMMA", "MIX_1", "MIX_2", "Streams", "as_streams", "mix64"]

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB


@dataclass(frozen=True, slots=True)
class Streams:
    """A named stream of random numbers. `child` names a part of it; parts are independent.

    Attributes:
        seed: the run's seed, 0 <= seed < 2**63.
        path: names from the root to this stream.
    """

    seed: int = 0
    path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A float or a bool would name the same run as an integer in one place and another in the next.
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ConfigError(
                "E104",
                seen=f"seed {self.seed!r}",
                expected="an integer from 0 to 2**63 - 1",
                fix="use a seed such as 0",
            )

    def child(self, *names: str | int) -> Streams:
        """The stream under this one called `names`."""
        return Streams(self.seed, (*self.path, *(str(name) for name in names)))

    @property
    def key(self) -> int:
        """64 bits, unsigned: SHA-256 of the seed and the length-prefixed path."""
        digest = hashlib.sha256(f"vambrace/streams/1/{self.seed}".encode())
        for name in self.path:
            raw = name.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
        return int.from_bytes(digest.digest()[:8], "little")

    def integers(self, high: int, *, shape: tuple[int, ...], step: int = 0) -> NDArray[np.int64]:
        """Whole numbers 0 <= x < high, for resampling on the host.

        Multiply-shift on 32 bits: the bias is below high / 2**32.

        Args:
            high: from 1 to 2**32.
            shape: of the result.
            step: draws of different steps are independent; from 0 to 2**24 - 1.

        Raises:
            ConfigError: E104, for a `high` or `step` out of range.
        """
        if not (1 <= high <= 2**32 and 0 <= step < 2**24):
            raise ConfigError(
                "E104",
                seen=f"high {high!r} and step {step!r}",
                expected="1 <= high <= 2**32 and 0 <= step < 2**24",
                fix="draw from fewer values, or from a child stream",
            )
        size = math.prod(shape)
        counters = np.arange(size, dtype=np.uint64) + np.uint64(step << 40)
        with np.errstate(over="ignore"):
            words = mix64(np.uint64(self.key) + counters * np.uint64(GOLDEN_GAMMA))
        return ((words >> np.uint64(32)) * np.uint64(high) >> np.uint64(32)).astype(np.int64).reshape(shape)


def mix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser: two rounds of xor-shift and multiply, then one xor-shift; a bijection on 64 bits."""
    with np.errstate(over="ignore"):
        words = (words ^ (words >> np.uint64(30))) * np.uint64(MIX_1)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(MIX_2)
    return words ^ (words >> np.uint64(31))


def as_streams(rng: Streams | int) -> Streams:
    """An integer (also NumPy's) is the seed of a root stream; a `Streams` is itself.

    Raises:
        ConfigError: E104, for anything else.
    """
    if isinstance(rng, Streams):
        return rng
    return Streams(int(rng) if isinstance(rng, np.integer) else rng)
