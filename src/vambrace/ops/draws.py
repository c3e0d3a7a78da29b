"""Random tensors that are a pure function of stream, sample id, step and position.

The tensor form of `vambrace.core.rng`: the SplitMix64 finaliser over counters, keyed by the stream, the
sample's id and the step. Nothing is ever advanced, so what a sample draws does not depend on batch size,
order, company or device: the integers are equal bit for bit on CPU and CUDA and to the NumPy form. Floats
built from them by one multiply are equal too; `normal` is equal up to the device's `erfinv`.

Path of the stream = what is drawn, id = for whom, step = how many-eth time. Never for secrets.

    >>> import torch
    >>> from vambrace.core.rng import Streams
    >>> start = Streams(0).child("start")
    >>> both = uniform(start, torch.tensor([7, 9]), shape=(2, 3))
    >>> torch.equal(both[1:], uniform(start, torch.tensor([9]), shape=(2, 3)))
    True

Reference: Steele, Lea, Flood, OOPSLA 2014, section 5 (Stafford's variant 13), see `vambrace.core.rng`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from vambrace.core.rng import GOLDEN_GAMMA, MIX_1, MIX_2

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.rng import Streams

__all__ = ["BELL_SIZE", "ODD_SIZE", "bell", "integers", "normal", "odd", "signs", "uniform"]

BELL_SIZE = math.sqrt(2 * (256**2 - 1) / 12)
"""Standard deviation of `bell`."""

ODD_SIZE = math.sqrt((256**2 - 1) / 3)
"""Standard deviation of `odd`."""

_EVEN_BYTES = 0x00FF00FF00FF00FF


def uniform(
    stream: Streams,
    ids: Tensor,
    *,
    shape: tuple[int, ...],
    step: int | Tensor = 0,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """Uniform values (n, *shape) in [low, high].

    Args:
        stream: what is drawn.
        ids: int64 (n,), for whom.
        shape: of one sample.
        step: how many-eth time; an integer, or int64 (n,) for one of its own per sample.
        low: smallest value; a number, or a tensor that broadcasts against the result.
        high: largest value, of the same kind; reached only by rounding of `low + (high - low) * u`, u < 1.
        dtype: float64 has 53 random bits, anything else 24.
        device: of the result; None: where `ids` lie.
    """
    words = _words(stream, ids, step, shape, device)
    if dtype == torch.float64:
        unit = _shift(words, 11).to(torch.float64).mul_(2.0**-53)
    else:
        unit = _shift(words, 40).to(torch.float32).mul_(2.0**-24)
    return (unit * (high - low) + low).to(dtype)


def normal(
    stream: Streams,
    ids: Tensor,
    *,
    shape: tuple[int, ...],
    step: int | Tensor = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """Standard normal values (n, *shape); arguments as `uniform`. By inversion in float64: finite, |x| < 8.3."""
    words = _words(stream, ids, step, shape, device)
    # 53 signed bits plus one half: odd multiples of 2**-53 inside (-1, 1), symmetric, never 0 or 1.
    centred = (words >> 11).to(torch.float64).add_(0.5).mul_(2.0**-52)
    return centred.erfinv_().mul_(math.sqrt(2.0)).to(dtype)


def bell(
    stream: Streams,
    ids: Tensor,
    *,
    shape: tuple[int, ...],
    step: int | Tensor = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """Whole numbers (n, *shape) from -255 to 255, each the difference of two random bytes; arguments as `uniform`.

    A fifth of the price of `normal`, for searches that need many random directions: one hashed word gives four
    numbers. Mean 0, standard deviation `BELL_SIZE`, excess kurtosis -0.6 (normal: 0), none beyond 2.45 deviations. Up
    to 65,793 of them, with signs or not, add up exactly in float32, whatever the order of summation: so a mean over
    draws does not depend on how they were split into batches.
    """
    size, count = math.prod(shape), -(-math.prod(shape) // 4)
    # Flat, for of no samples rows have strides that cannot be seen as smaller numbers.
    words = _words(stream, ids, step, (count,), device).flatten()
    odd_bytes = (words >> 8).bitwise_and_(_EVEN_BYTES)
    lanes = words.bitwise_and_(_EVEN_BYTES).view(torch.int16).sub_(odd_bytes.view(torch.int16))
    return lanes.view(len(ids), 4 * count)[:, :size].to(dtype).reshape(len(ids), *shape)


def odd(
    stream: Streams,
    ids: Tensor,
    *,
    shape: tuple[int, ...],
    step: int | Tensor = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """Odd whole numbers (n, *shape) from -255 to 255, each as likely; arguments as `uniform`.

    Half the price of `bell`, eight to a hashed word, for what is added up anyway: the sum of three is near normal.
    Mean 0, standard deviation `ODD_SIZE`.
    """
    size, count = math.prod(shape), -(-math.prod(shape) // 8)
    lanes = _words(stream, ids, step, (count,), device).flatten().view(torch.int8).view(len(ids), 8 * count)
    return lanes[:, :size].to(torch.int16).mul_(2).add_(1).to(dtype).reshape(len(ids), *shape)


def integers(
    stream: Streams,
    ids: Tensor,
    *,
    high: int,
    shape: tuple[int, ...],
    step: int | Tensor = 0,
    device: torch.device | None = None,
) -> Tensor:
    """Whole numbers int64 (n, *shape), 0 <= x < high <= 2**31; the bias is below high / 2**32."""
    words = _words(stream, ids, step, shape, device)
    return _shift(words, 32).mul_(high) >> 32


def signs(
    stream: Streams,
    ids: Tensor,
    *,
    shape: tuple[int, ...],
    step: int | Tensor = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """-1 or +1 with equal chance, (n, *shape); arguments as `uniform`."""
    words = _words(stream, ids, step, shape, device)
    return ((words >> 63) | 1).to(dtype)


def _words(
    stream: Streams, ids: Tensor, step: int | Tensor, shape: tuple[int, ...], device: torch.device | None
) -> Tensor:
    """64 random bits per element, int64 (n, *shape)."""
    ids = ids.to(device=device, dtype=torch.int64)
    keys = _mix(ids * _signed(GOLDEN_GAMMA) + _signed(stream.key))
    if isinstance(step, torch.Tensor):
        keys = _mix(keys + step.to(ids) * _signed(GOLDEN_GAMMA))
    else:
        keys = _mix(keys + _signed(step * GOLDEN_GAMMA))
    counters = torch.arange(math.prod(shape), device=ids.device) * _signed(GOLDEN_GAMMA)
    return _mix(keys.unsqueeze(1) + counters).reshape(ids.shape[0], *shape)


def _mix(words: Tensor) -> Tensor:
    """`vambrace.core.rng.mix64` on int64, whose products wrap; in place."""
    words = words.bitwise_xor_(_shift(words, 30)).mul_(_signed(MIX_1))
    words = words.bitwise_xor_(_shift(words, 27)).mul_(_signed(MIX_2))
    return words.bitwise_xor_(_shift(words, 31))


def _shift(words: Tensor, bits: int) -> Tensor:
    # int64 shifts carry the sign in; the mask makes the shift a logical one.
    return (words >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The int64 with the low 64 bits of `word`."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >= 1 << 63 else word
