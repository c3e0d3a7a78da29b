"""The one source of chance for private training: noise, sampling coins, canary coins. Never seeded, never stored.

    >>> secret = Secret()
    >>> secret.normal(3).shape
    torch.Size([3])
    >>> secret.private
    True

Draws come on the CPU, in the order they are asked for, and use nothing of torch's generators. They are as exact as each
method says; the bytes beneath are described in `vambrace.privacy.dp.keystream`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from vambrace.core.options import require
from vambrace.privacy.dp import binomial, discrete
from vambrace.privacy.dp.keystream import Keystream
from vambrace.privacy.dp.normals import normals_double, normals_single

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Secret"]

PAIRS = 2**15  # of normals in a chunk: its words and its rows together fill a second-level cache of 1 MB
_LARGEST_SIZE = 2**62

_T = TypeVar("_T", bound=np.generic)


class Secret(Keystream):
    """Draws from the operating system's randomness, stretched by a counter keystream.

    Sizes are numbers of elements: every tensor is flat. All draws of one object are independent of each other.

    Args:
        debug_seed: None for private training. A whole number, 0 to 2^63 - 1, makes every draw reproducible on the same
            machine and `private` False: for debugging only.

    Raises:
        ConfigError: E145, the object was to be copied, pickled or saved; E148, an argument is out of range.
    """

    __slots__ = ("_order", "_rows", "_words")

    def __init__(self, *, debug_seed: int | None = None) -> None:
        self._order: tuple[int, int, Tensor] | None = None
        self._words: NDArray[np.uint8] | None = None
        self._rows: NDArray[np.float32] | None = None
        super().__init__(debug_seed=debug_seed)

    def renew(self) -> None:
        self._order = None
        super().renew()

    def uniform(self, size: int) -> Tensor:
        """Uniform float64 on the open interval (0, 1): the odd multiples of 2^-53, all equally likely."""
        words = self._draw(_sized(size), np.uint64)
        return torch.from_numpy(((words >> np.uint64(12)) + 0.5) * 2.0**-52)

    def normal(self, size: int, *, out: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers by Box and Muller; `vambrace.privacy.dp.normals` says how far and fine they reach.

        Args:
            size: how many.
            out: a contiguous tensor (size,) on the CPU to write to; its type then counts, and not `dtype`.
            dtype: float32 or float64.
        """
        out = torch.empty(_sized(size), dtype=dtype) if out is None else out
        self._require_flat(out, size)
        return self.add_normal_(out.zero_(), 1.0)

    def add_normal_(self, flat: Tensor, scale: float) -> Tensor:
        """Add independent normal numbers of standard deviation `scale` to a contiguous CPU tensor (n,), in place.

        Float32 in float32, float64 in float64, without a tensor of noise in between.
        """
        self._require_flat(flat, flat.numel())
        with self._locked(), torch.no_grad():
            for where, drawn in self._normals(flat.numel(), flat.dtype):
                flat[where].add_(drawn, alpha=scale)
        return flat

    def laplace(self, size: int) -> Tensor:
        """Laplace numbers of scale 1, float64: density exp(-|z|) / 2, cut at |z| = 63 ln 2, beyond which lies 2^-63."""
        words = self._draw(_sized(size), np.int64)
        negative = words < 0
        drawn = ((words & np.int64(2**63 - 1)) | np.int64(1)) * 2.0**-63
        np.log(drawn, out=drawn)
        np.negative(drawn, out=drawn, where=~negative)
        return torch.from_numpy(drawn)

    def discrete_gaussian(self, size: int, sigma: float) -> Tensor:
        """Whole numbers k, int64, with probability exactly proportional to exp(-k^2 / 2 sigma^2).

        Args:
            size: how many.
            sigma: 2^-32 to 2^32; the exact value of the float is meant.
        """
        _require(discrete.SMALLEST <= sigma <= discrete.LARGEST, "sigma", sigma, "2**-32 to 2**32")
        with self._locked():
            drawn = discrete.discrete_gaussian(_sized(size), sigma, lambda count: self._draw(count, np.uint64))
        return torch.from_numpy(drawn)

    def integers(self, high: int, size: int) -> Tensor:
        """Whole numbers 0 <= x < high, int64, all exactly equally likely; 1 <= high <= 2^62."""
        _require(1 <= high <= _LARGEST_SIZE, "high", high, "1 to 2**62")
        with self._locked():
            return torch.from_numpy(self._below(high, _sized(size)))

    def coins(self, size: int, rate: float) -> Tensor:
        """Independent coins, bool: True with probability `rate`, rounded down to a multiple of 2^-64.

        Args:
            size: how many.
            rate: 0 to 1. It is never rounded up, so a budget charged for `rate` covers the coins that were thrown.
        """
        _require(0 <= rate <= 1, "rate", rate, "0 to 1")
        threshold = int(Fraction(rate) * 2**64)
        if threshold == 2**64:
            return torch.ones(_sized(size), dtype=torch.bool)
        with self._locked():
            # 16 bits decide nearly every coin; only where they tie do 48 more count.
            words = self._draw(_sized(size), np.uint16)
            heads = words < np.uint16(threshold >> 48)
            ties = np.flatnonzero(words == np.uint16(threshold >> 48))
            heads[ties] = self._draw(len(ties), np.uint64) >> np.uint64(16) < np.uint64(threshold & (2**48 - 1))
        return torch.from_numpy(heads)

    def binomial(self, n: int, rate: float) -> int:
        """The number of heads among `n` coins of probability `rate`; total variation from exact below 2^-100."""
        _require(0 <= rate <= 1, "rate", rate, "0 to 1")
        word = self._draw(binomial.WORD_BITS // 8, np.uint8)
        return binomial.size(_sized(n), rate, int.from_bytes(word.tobytes(), "little"))

    def choice(self, n: int, size: int) -> Tensor:
        """A set of `size` different whole numbers below `n`, in rising order, int64: every set equally likely."""
        _require(0 <= size <= _sized(n), "size", size, f"0 to {n}")
        few = min(size, n - size)
        chosen = np.zeros(n, dtype=np.bool_)
        with self._locked():
            missing = few
            while missing:  # as if drawn one by one until there are enough: never more at a time than are missing
                chosen[self._below(n, missing)] = True
                missing = few - int(np.count_nonzero(chosen))
        return torch.from_numpy(np.flatnonzero(chosen if few == size else ~chosen))

    def permutation(self, n: int) -> Tensor:
        """The numbers 0 to n - 1 in an order, int64: every order equally likely."""
        with self._locked():
            while True:
                words = self._draw(_sized(n), np.uint64)
                order = np.argsort(words)
                if not np.any(words[order[1:]] == words[order[:-1]]):  # equal words would favour the order they lie in
                    return torch.from_numpy(order)

    def order(self, n: int, epoch: int, *, start: bool) -> Tensor | None:
        """The permutation of an epoch, the same until another epoch starts.

        Args:
            n: samples.
            epoch: which one.
            start: whether it may be drawn now.

        Returns:
            (n,) int64; None where it was not drawn, or was forgotten: by `renew`, in a forked child, for another epoch.
        """
        with self._locked():
            if start and (self._order is None or self._order[:2] != (n, epoch)):
                self._order = n, epoch, self.permutation(n)
            return self._order[2] if self._order and self._order[:2] == (n, epoch) else None

    def _draw(self, count: int, dtype: type[_T]) -> NDArray[_T]:
        words = np.empty(count, dtype=dtype)
        with self._locked():
            self._fill(words)
        return words

    def _below(self, high: int, count: int) -> NDArray[np.int64]:
        """Words beyond the last whole multiple of `high` are drawn again, or small numbers would be more likely."""
        words = self._draw(count, np.uint64)
        last = np.uint64(2**64 // high * high - 1)
        while len(over := np.flatnonzero(words > last)):
            words[over] = self._draw(len(over), np.uint64)
        return (words % np.uint64(high)).astype(np.int64)

    def _normals(self, count: int, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Chunks of `count` normal numbers, and where they go. A chunk lasts until the next one is asked for."""
        if self._words is None or self._rows is None:
            self._words = np.empty(PAIRS * 12, dtype=np.uint8)
            self._rows = np.empty(PAIRS * 4, dtype=np.float32)
        single = dtype == torch.float32
        most = PAIRS if single else PAIRS // 2
        for start in range(0, count, 2 * most):
            pairs = min(most, (count - start + 1) // 2)
            words = self._words[: pairs * (12 if single else 16)]
            self._fill(words)
            drawn: NDArray[Any]
            if single:
                drawn = normals_single(words.view(np.int32).reshape(3, -1), self._rows[: 4 * pairs].reshape(4, -1))
            else:
                rows = self._rows[: 6 * pairs].view(np.float64).reshape(3, -1)
                drawn = normals_double(words.view(np.int64).reshape(2, -1), rows)
            stop = min(start + 2 * pairs, count)
            yield slice(start, stop), torch.from_numpy(drawn[: stop - start])

    def _require_flat(self, flat: Tensor, size: int) -> None:
        fits = flat.shape == (size,) and flat.is_contiguous() and flat.device.type == "cpu"
        fits = fits and flat.dtype in {torch.float32, torch.float64}
        seen = f"{flat.dtype} {tuple(flat.shape)} on {flat.device}"
        _require(fits, "tensor", seen, f"contiguous float32 or float64 of shape ({size},) on the CPU")


def _sized(size: int) -> int:
    _require(0 <= size <= _LARGEST_SIZE, "size", size, "0 or more")
    return size


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: {expected}", fix=f"correct {name}", code="E148")
