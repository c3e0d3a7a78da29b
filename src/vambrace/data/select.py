"""Which samples are taken: the first few, a stratified limit, or any positions of a data set.

The limit takes a prefix of one fixed order of all samples, so a smaller limit is always a subset of a larger one and
resumed, extended or compared runs share their samples. Within a class the order is that of the sample ids (a hash,
so it says nothing about the sample). Between classes it is Webster's divisor method (Balinski and Young, "Fair
Representation", 1982, chapter 4) after one seat for every class. Largest remainders would not do: they are not
monotone in the house size (the Alabama paradox), so a larger limit could drop a sample that a smaller one had.

    >>> import numpy as np
    >>> stratified(np.array([0, 0, 0, 0, 1, 1]), np.array([5, 3, 9, 1, 7, 2]), 3).tolist()
    [1, 3, 5]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vambrace.core.options import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.data.batches import Batch, Batches

__all__ = ["Subset", "check_amounts", "choose", "stratified", "subset"]


def stratified(labels: NDArray[np.int64], ids: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Positions of at most `limit` samples, each class by its share, in source order.

    Guarantees: exactly min(limit, n) positions; every class keeps a sample where limit >= number of classes; where
    all shares limit * n_class / n are whole numbers >= 1, the allocation equals them; `limit` a is a subset of
    `limit` b for a <= b.

    Args:
        labels: (n,).
        ids: (n,), the sample ids; they break every tie.
        limit: how many to take.
    """
    if limit >= len(labels):
        return np.arange(len(labels))
    order = np.lexsort((ids, labels))
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(first, sizes)
    seat = (rank + 0.5) / np.repeat(sizes, sizes)
    preferred = order[np.lexsort((ids[order], seat, rank > 0))]
    return np.sort(preferred[:limit])


def choose(
    labels: NDArray[np.int64], ids: NDArray[np.int64], *, head: int | None, limit: int | None
) -> NDArray[np.int64]:
    """Positions of the samples to load: of the first `head` in source order, a stratified `limit`.

    Raises:
        ConfigError: E103, see `check_amounts`.
    """
    check_amounts(head, limit)
    first = len(labels) if head is None else min(head, len(labels))
    return stratified(labels[:first], ids[:first], first if limit is None else limit)


def check_amounts(head: int | None, limit: int | None) -> None:
    """Both are positive whole numbers or None.

    Raises:
        ConfigError: E103, otherwise.
    """
    for name, value in (("head", head), ("limit", limit)):
        require(
            value is None or (type(value) is int and value >= 1),
            seen=f"{name} = {value!r}",
            expected="a positive whole number, or nothing for all samples",
            fix=f"correct {name}",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Some samples of another data set; ids, hashes and names stay theirs.

    Attributes:
        whole: the data set.
        index: positions in it, in the order of this one.
        labels: (n,), see `Batches`.
        ids: (n,), see `Batches`.
    """

    whole: Batches
    index: tuple[int, ...]
    labels: tuple[int, ...]
    ids: tuple[int, ...]

    @property
    def name(self) -> str:
        """That of the whole."""
        return self.whole.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the whole: labels keep their meaning."""
        return self.whole.class_names

    def __len__(self) -> int:
        return len(self.index)

    def read(self, index: Sequence[int]) -> Batch:
        """The samples at positions `index` of this subset, in that order."""
        return self.whole.read([self.index[at] for at in index])


def subset(batches: Batches, index: Sequence[int]) -> Subset:
    """The samples of `batches` at positions `index`, in that order, as a data set.

    Raises:
        IndexError: for a position that does not exist.
    """
    chosen = tuple(range(len(batches))[at] for at in index)
    labels, ids = batches.labels, batches.ids
    return Subset(batches, chosen, tuple(labels[at] for at in chosen), tuple(ids[at] for at in chosen))
