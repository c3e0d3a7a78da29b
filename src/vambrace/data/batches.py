"""What a model is assessed on: `Batch`, `Batches`, and the ids that make results independent of order.

A sample's id is the first 63 bits of SHA-256 over its path within the source (or its array index),
fixed before any limit or shuffling. Its content hash is separate: it says what the sample is, the id which one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Batch", "Batches", "sample_id"]


def sample_id(name: str) -> int:
    """The id of the sample called `name` (its path within the source with "/" separators, or its index as text).

    >>> 0 <= sample_id("0") < 2**63
    True
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some samples.

    Attributes:
        inputs: float (n, ...), in the units of the input contract.
        labels: int64 (n,).
        ids: int64 (n,), see `sample_id`.
        hashes: n SHA-256 hex digests of the decoded inputs and the label.
        names: n readable names (path within the source, or index), for people.
    """

    inputs: Tensor
    labels: Tensor
    ids: Tensor
    hashes: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return self.labels.shape[0]


class Batches(Protocol):
    """A data set that can be read in any order, a few samples at a time."""

    @property
    def name(self) -> str:
        """Short name for people, without folders."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in label order; empty where unknown."""
        ...

    @property
    def labels(self) -> Sequence[int]:
        """The label of every sample, in order."""
        ...

    @property
    def ids(self) -> Sequence[int]:
        """The id of every sample, in order."""
        ...

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def read(self, index: Sequence[int]) -> Batch:
        """The samples at positions `index`, in that order."""
        ...
