"""A data set that was examined once and is decoded again whenever it is read: `Loaded`.

Loading looks at every selected sample: it decodes it, checks it against the input contract and keeps its content
hash, not its pixels. Reading decodes again and compares hashes, so a file that changed under a run, or a data set
that augments at random, is an error and never a different number.

The content hash is SHA-256 over the type, shape and bytes of the decoded sample and its label: pixels as uint8
before they are scaled into the bounds, everything else as float32. The same picture hashes the same whether it
lies in a PNG, a zip or an array.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from vambrace.data.batches import Batch
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Loaded", "Store", "content_hashes"]


class Store(Protocol):
    """Where decoded samples come from."""

    def decode(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The samples at `positions` of the source, uint8 pixels or float32 (m, ...), in the model's axis order."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Loaded:
    """Samples of one source: a `Batches` that also says what was left out.

    Attributes:
        name: short name for people, without folders.
        class_names: names in label order; empty where unknown.
        labels: the label of every sample.
        ids: the id of every sample, see `sample_id`.
        names: the readable name of every sample.
        hashes: the content hash of every sample.
        shape: of one sample.
        bounds: (low, high) that inputs lie in; pixels 0 and 255 become low and high.
        skipped: (name, reason) of every image that cannot be used.
        ignored: how many hidden and non-image files lay beside the images.
        warnings: sentences about what is allowed but odd.
        store: where samples are decoded from.
        positions: int64 (n,), places in the store.
    """

    name: str
    class_names: tuple[str, ...]
    labels: tuple[int, ...]
    ids: tuple[int, ...]
    names: tuple[str, ...]
    hashes: tuple[str, ...]
    shape: tuple[int, ...]
    bounds: tuple[float, float]
    skipped: tuple[tuple[str, str], ...] = ()
    ignored: int = 0
    warnings: tuple[str, ...] = ()
    store: Store
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many samples each class has, in label order."""
        found = Counter(self.labels)
        return tuple(found[label] for label in range(max(len(self.class_names), max(self.labels, default=-1) + 1)))

    def read(self, index: Sequence[int]) -> Batch:
        """The samples at positions `index`, in that order; inputs float32 (m, *shape), new memory.

        Raises:
            DataRefused: E320, where a sample is not the one that was loaded.
            IndexError: for a position that does not exist.
        """
        places = [range(len(self.labels))[at] for at in index]
        labels = [self.labels[at] for at in places]
        decoded = self.store.decode(self.positions[places]) if places else np.empty((0, *self.shape), np.float32)
        hashes = content_hashes(decoded, labels)
        for at, seen in zip(places, hashes, strict=True):
            if seen != self.hashes[at]:
                raise DataRefused(
                    "E320",
                    seen=f"{self.names[at]} is not what it was when it was loaded",
                    expected="the same sample at every read",
                    fix="leave the files alone during a run; take random augmentation out of the data set",
                )
        return Batch(
            inputs=_within(decoded, self.bounds),
            labels=torch.tensor(labels, dtype=torch.int64),
            ids=torch.tensor([self.ids[at] for at in places], dtype=torch.int64),
            hashes=hashes,
            names=tuple(self.names[at] for at in places),
        )


def content_hashes(decoded: NDArray[Any], labels: Sequence[int]) -> tuple[str, ...]:
    """The content hash of every decoded sample, uint8 or float32 (m, ...), with its label."""
    rows = np.ascontiguousarray(
        decoded if sys.byteorder == "little" else decoded.astype(decoded.dtype.newbyteorder("<"))
    )
    shape = "x".join(str(size) for size in rows.shape[1:])
    found: list[str] = []
    for row, label in zip(rows, labels, strict=True):
        digest = hashlib.sha256(f"vambrace/sample/1 {decoded.dtype.name} {shape} {label}\n".encode())
        digest.update(row.data)
        found.append(digest.hexdigest())
    return tuple(found)


def _within(decoded: NDArray[Any], bounds: tuple[float, float]) -> torch.Tensor:
    """Decoded samples as float32 in `bounds`."""
    if decoded.dtype != np.uint8:
        return torch.from_numpy(np.array(decoded, np.float32))
    inputs = torch.from_numpy(np.ascontiguousarray(decoded)).to(torch.float32)
    low, high = bounds
    if bounds == (0.0, 255.0):
        return inputs
    if bounds == (0.0, 1.0):
        return inputs.div_(255)
    return inputs.mul_((high - low) / 255).add_(low).clamp_(low, high)
