"""Which samples make a step's batch, and how that is charged. The two come from one object, so they cannot disagree.

    >>> Poisson().charge_fields(60_000, 240)
    {'sampling': 'poisson', 'sample_rate': 0.004}
    >>> steps_per_epoch(60_000, 256)
    235

Every sampler draws whole sets at once from a `Secret`; none loops over samples. Batches are as they fall: an empty one
is a batch, it gets noise and it is charged. `buckets` cuts a batch into padded pieces for the machine, afterwards.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vambrace.core.options import Options, require
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.privacy.dp.secret import Secret

__all__ = [
    "Everything",
    "FixedSize",
    "Poisson",
    "Sampler",
    "Shuffled",
    "TruncatedPoisson",
    "buckets",
    "steps_per_epoch",
]

SIXTEENTH = 16  # a padded size is a multiple of a sixteenth of the expected one


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler(Options):
    """Base of the ways to choose a batch.

    `n` is the number of samples in the data, `expected_batch_size` a whole number from 1 to n.
    """

    def draw(self, n: int, expected_batch_size: int, secret: Secret, step: int) -> Tensor:
        """The samples of one step.

        Args:
            n: samples in the data.
            expected_batch_size: how many are drawn on average.
            secret: where the randomness comes from.
            step: counted from 0.

        Returns:
            (batch,) int64 on the CPU, all different; possibly empty.

        Raises:
            ConfigError: E147, sizes do not fit, or an epoch's order is not there.
        """
        _require_sizes(n, expected_batch_size)
        _require(step >= 0, "step", step, "0 or more")
        return self._draw(n, expected_batch_size, secret, step)

    def charge_fields(self, n: int, expected_batch_size: int) -> dict[str, str | float | int]:
        """The fields of `Charge` that speak of sampling, for every step drawn with these sizes."""
        _require_sizes(n, expected_batch_size)
        return self._fields(n, expected_batch_size)

    @abstractmethod
    def _draw(self, n: int, expected_batch_size: int, secret: Secret, step: int) -> Tensor: ...

    @abstractmethod
    def _fields(self, n: int, expected_batch_size: int) -> dict[str, str | float | int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson(Sampler):
    """Every sample on its own coin of probability expected_batch_size / n: what amplification results are proved for.

    Drawn as a binomial size and a uniform set of that size, which is the same distribution: Beltran et al. 2024, arXiv
    2406.17298, lemma 1.
    """

    def _draw(self, n: int, expected_batch_size: int, secret: Secret, step: int) -> Tensor:
        return secret.choice(n, secret.binomial(n, expected_batch_size / n))

    def _fields(self, n: int, expected_batch_size: int) -> dict[str, str | float | int]:
        return {"sampling": "poisson", "sample_rate": expected_batch_size / n}


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedPoisson(Sampler):
    """Poisson, and where that gives more than `max_batch_size`, a uniform set of so many of them.

    Attributes:
        max_batch_size: the most samples of a batch, at least the expected number.
    """

    max_batch_size: int

    def __post_init__(self) -> None:
        whole = type(self.max_batch_size) is int and self.max_batch_size >= 1
        _require(whole, "max_batch_size", self.max_batch_size, "a whole number, 1 or more")

    def _draw(self, n: int, expected_batch_size: int, secret: Secret, step: int) -> Tensor:
        self._require_room(expected_batch_size)
        return secret.choice(n, min(self.max_batch_size, secret.binomial(n, expected_batch_size / n)))

    def _fields(self, n: int, expected_batch_size: int) -> dict[str, str | float | int]:
        self._require_room(expected_batch_size)
        sizes = {"dataset_size": n, "batch_size": self.max_batch_size}
        return {"sampling": "truncated_poisson", "sample_rate": expected_batch_size / n, **sizes}

    def _require_room(self, expected_batch_size: int) -> None:
        fits = self.max_batch_size >= expected_batch_size
        _require(
            fits, "max_batch_size", self.max_batch_size, f"at least the expected batch size, {expected_batch_size}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSize(Sampler):
    """Exactly the expected number, without replacement, each set equally likely. Neighbours replace one sample."""

    def _draw(self, n: int, expected_batch_size: int, secret: Secret, step: int) -> Tensor:
        return secret.choice(n, expected_batch_size)

    def _fields(self, n: int, expected_batch_size: int) -> dict[str, str | float | int]:
        sizes = {"dataset_size": n, "batch_size": expected_batch_size}
        return {"sampling": "fixed_size", "sample_rate": expected_batch_size / n, **sizes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffled(Sampler):
    """A new order every epoch, cut into batches; the last one is short where n is no multiple. Each sample once.

    Not amplified: an epoch costs what one step on all samples costs. A step is charged as its share of an epoch, one
    over `steps_per_epoch`. The order is secret and lives in the `Secret`, so an epoch that was cut off cannot go on
    elsewhere: resume at the start of the next one, and charge the rest of the broken one.
    """

    def _draw(self, n: int, expected_batch_size: int, secret: Secret, step: int) -> Tensor:
        epoch, within = divmod(step, steps_per_epoch(n, expected_batch_size))
        order = secret.order(n, epoch, start=within == 0)
        if order is None:
            raise ConfigError(
                "E147",
                seen=f"step {step} in the middle of epoch {epoch}, whose order is gone",
                expected="the first step of an epoch after a start, a fork or a resume",
                fix="go on with the next epoch; charge the rest of this one as if it had run",
            )
        return order[within * expected_batch_size : (within + 1) * expected_batch_size]

    def _fields(self, n: int, expected_batch_size: int) -> dict[str, str | float | int]:
        return {"sampling": "shuffle", "sample_rate": 1 / steps_per_epoch(n, expected_batch_size)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything(Sampler):
    """All samples in every step, whatever the expected batch size says: nothing to hide in, nothing drawn."""

    def _draw(self, n: int, expected_batch_size: int, secret: Secret, step: int) -> Tensor:
        return torch.arange(n)

    def _fields(self, n: int, expected_batch_size: int) -> dict[str, str | float | int]:
        return {"sampling": "full", "sample_rate": 1.0}


def steps_per_epoch(n: int, expected_batch_size: int) -> int:
    """How many batches of the expected size hold n samples, the last one perhaps in part: in whole numbers throughout.

    Raises:
        ConfigError: E147, sizes do not fit.
    """
    _require_sizes(n, expected_batch_size)
    return -(-n // expected_batch_size)


def buckets(count: int, expected: int, *, most: int | None = None) -> list[tuple[int, int, int]]:
    """Cut a batch into pieces of few different sizes, for kernels that like to see the same shape again.

    Pieces are full (`most` rows) but for the last, which is padded to a multiple of a sixteenth of the smaller of
    `expected` and `most`. So padding is below a sixteenth of a full piece, 3 % of the rows on average where one piece
    is expected; no sample is dropped, however many there are.

    Args:
        count: samples in the batch, 0 or more.
        expected: samples in an expected batch, 1 or more.
        most: rows that the machine takes at once, 1 or more; None: all of them.

    Returns:
        (start, stop, padded) of every piece: rows start to stop of the batch, and padded - (stop - start) >= 0 rows of
        padding behind them. No piece for an empty batch.
    """
    _require(count >= 0, "count", count, "0 or more")
    _require(expected >= 1, "expected", expected, "1 or more")
    _require(most is None or most >= 1, "most", most, "1 or more, or None")
    multiple = max(1, (expected if most is None else min(expected, most)) // SIXTEENTH)
    rounded = -(-count // multiple) * multiple
    full = max(rounded, 1) if most is None else most
    pieces: list[tuple[int, int, int]] = []
    for start in range(0, count, full):
        stop = min(start + full, count)
        padded = -(-(stop - start) // multiple) * multiple
        pieces.append((start, stop, min(padded, full)))
    return pieces


def _require_sizes(n: int, expected_batch_size: int) -> None:
    whole = type(n) is int and type(expected_batch_size) is int
    seen = f"expected_batch_size {expected_batch_size!r} of {n!r} samples"
    fix = "choose a smaller expected_batch_size, or check that the data is not empty"
    expected = "whole numbers, 1 <= expected_batch_size <= samples"
    require(whole and 1 <= expected_batch_size <= n, seen=seen, expected=expected, fix=fix, code="E147")


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: {expected}", fix=f"correct {name}", code="E147")
