"""Batches of private training: drawn by the sampler, laid out for the machine, good for one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate  # pyright: ignore[reportUnknownVariableType]

from vambrace.errors import ConfigError
from vambrace.privacy.dp.sampling import buckets

__all__ = ["Batch", "Part", "Source", "cut", "flatten", "moved", "rebuild"]

Tree = Any


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that go through the module together.

    Attributes:
        tree: what the data set's samples are, collated: tensors with samples first, in tuples, lists or dicts.
        count: rows, padding included.
        mask: bool (count,), which rows are samples; None: all.
    """

    tree: Tree
    count: int
    mask: Tensor | None


@dataclass(eq=False, slots=True)
class Batch:
    """One step's samples. Its size and its samples are data-dependent: do not publish them.

    Attributes:
        indices: int64 (k,), which samples, with several ranks this rank's; possibly none.
        issuer: who drew it.
        used: whether a step has taken it.
    """

    indices: Tensor
    issuer: object = field(repr=False)
    _make: Callable[[Tensor], Iterator[Part]] = field(repr=False)
    used: bool = False

    def __len__(self) -> int:
        return len(self.indices)

    def parts(self) -> Iterator[Part]:
        """The samples themselves, collated piece by piece as they are asked for."""
        return self._make(self.indices)


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as private training reads it.

    Attributes:
        size: samples.
        take: numbers of samples (k,), k >= 1, to their collated tree.
        read: the number of a sample to the sample, where it comes from a data set, which may change it at random.
        join: samples to their collated tree, where there is `read`.
    """

    size: int
    take: Callable[[Sequence[int]], Tree] = field(repr=False)
    read: Callable[[int], Any] | None = field(repr=False, default=None)
    join: Callable[[list[Any]], Tree] = field(repr=False, default=list)

    @classmethod
    def of(cls, dataset: object, collate: Callable[[list[Any]], Tree] | None = None) -> Source:
        """A source from a tensor, a tuple or a dict of tensors, or any data set with `len` and numbers.

        Raises:
            ConfigError: E155, for what has no length or numbers, for arrays, tensors of unequal length, or no sample.
        """
        tensors = dataset.tensors if isinstance(dataset, TensorDataset) else dataset
        leaves = _leaves(tensors)
        if leaves:
            if len({len(each) for each in leaves}) != 1 or not len(leaves[0]):
                raise _unreadable(f"tensors of lengths {[len(each) for each in leaves]}")
            return cls(len(leaves[0]), lambda rows: _rows(tensors, torch.as_tensor(rows)))
        if (
            isinstance(dataset, Mapping | Tensor)
            or not isinstance(dataset, Sized)
            or not hasattr(dataset, "__getitem__")
        ):
            raise _unreadable(f"a {type(cast('object', dataset)).__name__}")
        size = len(dataset)
        if size < 1:
            raise _unreadable(f"a data set of type {type(dataset).__name__} with {size} samples")
        samples = cast("Sequence[Any]", dataset)
        join = cast("Callable[[list[Any]], Tree]", default_collate) if collate is None else collate
        return cls._read(size, lambda row: samples[row], join)

    @classmethod
    def _read(cls, size: int, read: Callable[[int], Any], join: Callable[[list[Any]], Tree]) -> Source:
        def take(rows: Sequence[int]) -> Tree:
            found = {row: read(row) for row in dict.fromkeys(rows)}  # padding repeats a row, and reads it once
            return join([found[row] for row in rows])

        return cls(size, take, read, join)

    def still(self) -> Source:
        """The same samples, each read once and kept: what a data set changes at random stays as it first was."""
        return self if self.read is None else self._read(self.size, cache(self.read), self.join)

    def parts(self, indices: Tensor, expected: int, most: int | None, device: torch.device) -> Iterator[Part]:
        """The samples of a batch in padded pieces on a device; padding repeats the last sample and does not count."""
        for start, stop, padded in buckets(len(indices), expected, most=most):
            rows = cast("list[int]", indices[start:stop].tolist())
            missing = padded - len(rows)
            tree = moved(self.take([*rows, *rows[-1:] * missing]), device)
            mask = None if not missing else torch.arange(padded, device=device) < len(rows)
            yield Part(tree, padded, mask)


def cut(tree: Tree, most: int | None, first: int, stride: int) -> Iterator[Part]:
    """A collated batch, of which the rows first, first + stride, ... are used, in pieces of at most `most` rows."""
    leaves = flatten(tree)
    kept = range(len(leaves[0]))[first::stride]
    for start in range(0, len(kept), most or max(1, len(kept))):
        rows = kept[start : start + (most or len(kept))]
        chosen = slice(rows.start, rows.stop, rows.step)  # a view: no rows are copied
        yield Part(rebuild(tree, [leaf[chosen] for leaf in leaves]), len(rows), None)


def flatten(tree: Tree) -> tuple[Tensor, ...]:
    """The tensors of a tree, in order."""
    if isinstance(tree, Tensor):
        return (tree,)
    inside: Iterable[Tree] = ()
    if isinstance(tree, Mapping):
        inside = cast("Mapping[Any, Tree]", tree).values()
    elif isinstance(tree, list | tuple):
        inside = cast("Sequence[Tree]", tree)
    return tuple(leaf for value in inside for leaf in flatten(value))


def rebuild(tree: Tree, leaves: Iterable[Tensor]) -> Tree:
    """A tree of the same form with other tensors, one for each of `flatten(tree)`; mappings become dicts."""
    return _rebuilt(tree, iter(leaves))


def moved(tree: Tree, device: torch.device) -> Tree:
    """The tree with its tensors on a device."""
    return rebuild(tree, [leaf.to(device) for leaf in flatten(tree)])


def _rebuilt(tree: Tree, leaves: Iterator[Tensor]) -> Tree:
    if isinstance(tree, Tensor):
        return next(leaves)
    if isinstance(tree, Mapping):
        return {key: _rebuilt(value, leaves) for key, value in cast("Mapping[Any, Tree]", tree).items()}
    if not isinstance(tree, list | tuple):
        return tree
    inside = [_rebuilt(value, leaves) for value in cast("Sequence[Tree]", tree)]
    if isinstance(tree, list):
        return inside
    kind = cast("type[Any]", type(tree))  # pyright: ignore[reportUnknownArgumentType]
    return kind(*inside) if hasattr(kind, "_fields") else tuple(inside)  # named tuples take their fields one by one


def _leaves(tree: object) -> tuple[Tensor, ...]:
    """The tensors of a tensor, a tuple or a dict of nothing but tensors; none for anything else."""
    if isinstance(tree, Tensor):
        return (tree,) if tree.dim() else ()
    values: tuple[object, ...] = ()
    if isinstance(tree, Mapping):
        values = tuple(cast("Mapping[object, object]", tree).values())
    elif isinstance(tree, tuple):
        values = cast("tuple[object, ...]", tree)
    tensors = tuple(value for value in values if isinstance(value, Tensor) and value.dim())
    if values and len(tensors) < len(values) and all(hasattr(value, "shape") for value in values):
        raise _unreadable(f"arrays of type {', '.join(sorted({type(value).__name__ for value in values}))}")
    return tensors if len(tensors) == len(values) else ()


def _rows(tree: Tree, rows: Tensor) -> Tree:
    return rebuild(tree, [leaf[rows] for leaf in flatten(tree)])


def _unreadable(seen: str) -> ConfigError:
    return ConfigError(
        "E155",
        seen=seen,
        expected="a tensor, a tuple or a dict of tensors of one length, or a data set with len() and samples by number",
        fix="give the data set itself, not a loader over it: private training draws its own batches; for arrays, "
        "torch.from_numpy",
    )
