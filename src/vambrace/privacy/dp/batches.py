"""Batches of private training: drawn by the sampler, laid out for the machine, good for one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate  # pyright: ignore[reportUnknownVariableType]

from vambrace.errors import ConfigError
from vambrace.privacy.dp.sampling import buckets

__all__ = ["Batch", "Part", "Source", "flatten", "rebuild"]

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
    """One step's samples. Its size is data-dependent: do not publish it.

    Attributes:
        indices: int64 (k,), which samples; possibly none.
        parts: the samples themselves, collated when they are asked for.
        issuer: who drew it.
        used: whether a step has taken it.
    """

    indices: Tensor
    issuer: object
    _make: Callable[[Tensor], list[Part]]
    used: bool = False

    @property
    def parts(self) -> list[Part]:
        return self._make(self.indices)


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as private training reads it.

    Attributes:
        size: samples.
        take: numbers of samples (k,) to their collated tree.
    """

    size: int
    take: Callable[[Sequence[int]], Tree] = field(repr=False)

    @classmethod
    def of(cls, dataset: object, collate: Callable[[list[Any]], Tree] | None = None) -> Source:
        """A source from tensors, a tuple of tensors, or any data set with `len` and numbers.

        Raises:
            ConfigError: E155, for what has no length or numbers, tensors of unequal length, or no sample at all.
        """
        tensors = dataset.tensors if isinstance(dataset, TensorDataset) else dataset
        if isinstance(tensors, tuple) and tensors and all(isinstance(each, Tensor) for each in tensors):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            found = cast("tuple[Tensor, ...]", tensors)
            if len({len(each) for each in found}) != 1 or not len(found[0]):
                raise _unreadable(f"tensors of lengths {[len(each) for each in found]}")
            return cls(len(found[0]), lambda rows: tuple(each[torch.as_tensor(rows)] for each in found))
        size = len(dataset) if hasattr(dataset, "__len__") else 0  # pyright: ignore[reportArgumentType]
        if size < 1 or not hasattr(dataset, "__getitem__"):
            raise _unreadable(f"a data set of type {type(dataset).__name__} with {size} samples")
        samples = cast("Sequence[Any]", dataset)
        join = cast("Callable[[list[Any]], Tree]", default_collate) if collate is None else collate
        return cls(size, lambda rows: join([samples[row] for row in rows]))

    def parts(self, indices: Tensor, expected: int, most: int | None, device: torch.device) -> list[Part]:
        """The samples of a batch in padded pieces on a device; padding repeats the last sample and does not count."""
        found: list[Part] = []
        for start, stop, padded in buckets(len(indices), expected, most=most):
            rows = cast("list[int]", indices[start:stop].tolist())
            missing = padded - len(rows)
            tree = moved(self.take([*rows, *rows[-1:] * missing]), device)
            mask = None if not missing else torch.arange(padded, device=device) < len(rows)
            found.append(Part(tree, padded, mask))
        return found


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


def rebuild(tree: Tree, leaves: list[Tensor]) -> Tree:
    """A tree of the same form with other tensors, which are taken from the front of `leaves`."""
    if isinstance(tree, Tensor):
        return leaves.pop(0)
    if isinstance(tree, Mapping):
        return {key: rebuild(value, leaves) for key, value in cast("Mapping[Any, Tree]", tree).items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(rebuild(value, leaves) for value in cast("tuple[Tree, ...]", tree)))
    if isinstance(tree, list | tuple):
        return type(tree)(rebuild(value, leaves) for value in cast("Sequence[Tree]", tree))  # pyright: ignore[reportUnknownVariableType]
    return tree


def moved(tree: Tree, device: torch.device) -> Tree:
    """The tree with its tensors on a device."""
    return rebuild(tree, [leaf.to(device) for leaf in flatten(tree)])


def _unreadable(seen: str) -> ConfigError:
    return ConfigError(
        "E155",
        seen=seen,
        expected="a tuple of tensors of one length, or a data set with len() and samples by number",
        fix="give the data set itself, not a loader over it: private training draws its own batches",
    )
