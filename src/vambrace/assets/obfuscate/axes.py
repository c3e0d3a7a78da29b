"""Axes of tensors, tied where one order of their elements must be the order of all of them.

Channels of a network may be put in another order if everything that reads them follows. Which axes follow which is
found by unification: an axis is a *leaf* of so many elements, a *product* of axes (what Reshape makes when it joins or
cuts axes: heads x width) or a *sum* (what Concat joins and Split cuts). Tying two axes makes them one; a leaf that is
tied to a product or sum takes its form; two forms that do not fit each other are pinned, which keeps their order.

    >>> width = Axis.leaf(12)
    >>> tie(width, Axis.product([Axis.leaf(3), Axis.leaf(4)]))
    >>> [leaf.size for leaf in width.leaves()]
    [3, 4]

Two marks limit what may be done with a leaf. *Pinned*: nothing. *Rigid*: only another order, where otherwise any
orthogonal change of basis would do, since all that touches the axis is linear in it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Axis", "order_of", "pin", "stiffen", "tie", "turned"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


class Axis:
    """An axis of `size` elements; equal axes are one after `found`.

    Attributes:
        size: how many elements.
        kind: "leaf", "product" (first part outermost) or "sum" (first part first).
        parts: what it is made of; empty for a leaf.
        pinned, rigid: marks of a leaf.
    """

    __slots__ = ("_same", "kind", "parts", "pinned", "rigid", "size")

    def __init__(self, size: int, kind: Literal["leaf", "product", "sum"], parts: Sequence[Axis] = ()) -> None:
        self.size = size
        self.kind: Literal["leaf", "product", "sum"] = kind
        self.parts: tuple[Axis, ...] = tuple(parts)
        self.pinned = False
        self.rigid = False
        self._same: Axis | None = None

    @classmethod
    def leaf(cls, size: int, *, pinned: bool = False) -> Axis:
        """An axis of which nothing is known yet."""
        made = cls(size, "leaf")
        made.pinned = pinned
        return made

    @classmethod
    def product(cls, parts: Iterable[Axis]) -> Axis:
        """The axis that joins several, the first outermost; parts of one element are nothing."""
        kept = [part for part in parts if part.size != 1]
        if len(kept) == 1:
            return kept[0]
        return cls(math.prod(part.size for part in kept), "product", kept) if kept else cls.leaf(1)

    @classmethod
    def sum(cls, parts: Iterable[Axis]) -> Axis:
        """One axis after the other; parts of no element are nothing."""
        kept = [part for part in parts if part.size]
        if len(kept) == 1:
            return kept[0]
        return cls(sum(part.size for part in kept), "sum", kept) if kept else cls.leaf(0)

    def found(self) -> Axis:
        """The axis that this one has become."""
        at = self
        while at._same is not None:
            at = at._same
        step = self
        while step._same is not None and step._same is not at:  # next time the way is short
            step._same, step = at, step._same
        return at

    def leaves(self) -> list[Axis]:
        """The leaves it is made of, in order; one may stand in it several times."""
        at = self.found()
        return [at] if at.kind == "leaf" else [leaf for part in at.parts for leaf in part.leaves()]

    def become(self, other: Axis) -> None:
        """From now on be another axis; marks go along."""
        at, other = self.found(), other.found()
        if at is other:
            return
        at._same = other
        if at.pinned:
            pin(other)
        if at.rigid:
            stiffen(other)


def pin(*axes: Axis) -> None:
    """Nothing may be done with any part of these."""
    for axis in axes:
        for leaf in axis.leaves():
            leaf.pinned = True


def stiffen(*axes: Axis) -> None:
    """Only the order may change in any part of these."""
    for axis in axes:
        for leaf in axis.leaves():
            leaf.rigid = True


def tie(first: Axis, second: Axis) -> None:
    """Make two axes one. Where their sizes or forms do not fit, both are pinned, which is always right."""
    a, b = first.found(), second.found()
    if a is b:
        return
    if a.size != b.size or not a.size:
        pin(a, b)
    elif a.kind == "leaf":
        a.become(b)
    elif b.kind == "leaf":
        b.become(a)
    elif a.kind == b.kind and _aligned(a, b):
        a.become(b)
    else:
        pin(a, b)


def _flat(axis: Axis, kind: str) -> list[Axis]:
    """The parts of an axis, parts of parts of the same kind among them."""
    at = axis.found()
    return [each for part in at.parts for each in _flat(part, kind)] if at.kind == kind else [at]


def _aligned(a: Axis, b: Axis) -> bool:
    """Tie the parts of two products or two sums; False where a cut falls inside of what cannot be cut."""
    kind = a.kind
    left, right = _flat(a, kind)[::-1], _flat(b, kind)[::-1]
    while left and right:
        one, other = left.pop().found(), right.pop().found()
        if kind in {one.kind, other.kind}:
            # An earlier tie has cut a part that stands here again.
            left.extend(_flat(one, kind)[::-1])
            right.extend(_flat(other, kind)[::-1])
            continue
        if one.size == other.size:
            tie(one, other)
            continue
        (large, rest), small = ((one, left), other) if one.size > other.size else ((other, right), one)
        if large.kind != "leaf" or (kind == "product" and large.size % small.size):
            return False
        size = large.size // small.size if kind == "product" else large.size - small.size
        first, second = Axis.leaf(small.size), Axis.leaf(size)
        large.become(Axis(large.size, kind, (first, second)))
        rest.append(second)
        tie(first, small)
    return not left and not right


def order_of(axis: Axis, orders: Mapping[Axis, NDArray[np.int64]]) -> NDArray[np.int64] | None:
    """Where each element of an axis is taken from, given it for leaves; None where all stay.

    Args:
        axis: any axis.
        orders: int64 permutations by leaf; leaves left out keep their order.
    """
    at = axis.found()
    if not any(leaf in orders for leaf in at.leaves()):
        return None
    return _order(at, orders)


def _order(axis: Axis, orders: Mapping[Axis, NDArray[np.int64]]) -> NDArray[np.int64]:
    at = axis.found()
    if at.kind == "leaf":
        return orders.get(at, np.arange(at.size, dtype=np.int64))
    if at.kind == "product":
        index = np.zeros(1, dtype=np.int64)
        for part in at.parts:
            index = (index[:, None] * part.size + _order(part, orders)[None, :]).reshape(-1)
        return index
    starts = np.cumsum([0, *(part.size for part in at.parts)])
    return np.concatenate([_order(part, orders) + start for part, start in zip(at.parts, starts, strict=False)])


def turned(
    array: NDArray[_Scalar],
    position: int,
    axis: Axis,
    leaf: Axis,
    change: Callable[[NDArray[_Scalar]], NDArray[_Scalar]],
) -> NDArray[_Scalar]:
    """An array with `change` made wherever a leaf stands in one of its axes.

    Args:
        array: any shape.
        position: which of its axes.
        axis: what that axis is made of.
        leaf: what is changed.
        change: from an array (before, leaf.size, after) to one of the same shape.
    """
    at, wanted = axis.found(), leaf.found()
    if wanted not in at.leaves():
        return array
    shape = array.shape
    if at.kind == "leaf":
        before = math.prod(shape[:position])
        return change(array.reshape(before, at.size, -1)).reshape(shape)
    if at.kind == "product":
        sizes = [part.size for part in at.parts]
        array = array.reshape(*shape[:position], *sizes, *shape[position + 1 :])
        for place, part in enumerate(at.parts):
            array = turned(array, position + place, part, wanted, change)
        return array.reshape(shape)
    cuts = np.cumsum([part.size for part in at.parts])[:-1]
    pieces = np.split(array, cuts, axis=position)
    pieces = [turned(piece, position, part, wanted, change) for piece, part in zip(pieces, at.parts, strict=True)]
    return np.concatenate(pieces, axis=position)
