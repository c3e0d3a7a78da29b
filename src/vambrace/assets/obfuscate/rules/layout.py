"""Operators that move elements without changing them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.axes import Axis, pin, stiffen, tie
from vambrace.assets.obfuscate.rules.view import Rule

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.rules.view import View

__all__ = ["LAYOUT"]


def _reshape(node: Node, view: View) -> list[list[Axis]] | None:
    """The smallest runs of axes with as many elements before as after are joined and cut again."""
    data, shape = view.of(node, 0), view.shape(node.outputs[0])
    # Sizes that were assumed for free axes may not go with those that a file states behind them.
    if shape is None or 0 in shape or math.prod(axis.size for axis in data) != math.prod(shape):
        return None
    made: list[Axis] = []
    old, new = data[::-1], list(shape)[::-1]
    while old or new:
        taken = [old.pop()] if old else []
        sizes = [new.pop()] if new else []
        while (before := math.prod(axis.size for axis in taken)) != (after := math.prod(sizes)):
            if before < after:
                taken.append(old.pop())
            else:
                sizes.append(new.pop())
        if len(taken) == 1 and len(sizes) == 1:
            made.extend(taken)
            continue
        cut = [Axis.leaf(size) for size in sizes]
        tie(Axis.product(taken), Axis.product(cut))
        made.extend(cut)
    return [made]


def _transpose(node: Node, view: View) -> list[list[Axis]]:
    data = view.of(node, 0)
    places = node.value("perm") or range(len(data) - 1, -1, -1)
    return [[data[int(place)] for place in places]]


def _concat(node: Node, view: View) -> list[list[Axis]]:
    many = [view.axes[name] for name in node.inputs]
    place = int(node.value("axis", 1)) % len(many[0])
    for axes in many[1:]:
        for at, (one, other) in enumerate(zip(many[0], axes, strict=True)):
            if at != place:
                tie(one, other)
    made = list(many[0])
    made[place] = Axis.sum([axes[place] for axes in many])
    return [made]


def _split(node: Node, view: View) -> list[list[Axis]] | None:
    data = view.of(node, 0)
    place = int(node.value("axis", 0)) % len(data)
    shapes = [view.shape(name) for name in node.outputs]
    if any(shape is None for shape in shapes):
        return None
    pieces = [Axis.leaf(shape[place]) for shape in shapes if shape is not None]
    tie(data[place], Axis.sum(pieces))
    return [[*data[:place], piece, *data[place + 1 :]] for piece in pieces]


def _slice(node: Node, view: View) -> list[list[Axis]] | None:
    data, shape = view.of(node, 0), view.shape(node.outputs[0])
    starts, ends = view.integers(node, 1, "starts"), view.integers(node, 2, "ends")
    if shape is None or starts is None or ends is None:
        return None
    places: list[int] | None = list(range(len(starts)))
    if "axes" in node.attributes or view.has(node, 3):
        places = view.integers(node, 3, "axes")
    steps = view.integers(node, 4, "steps") if view.has(node, 4) else [1] * len(starts)
    if places is None or steps is None:
        return None
    made = list(data)
    for start, end, place, step in zip(starts, ends, places, steps, strict=True):
        at = place % len(data)
        size = data[at].size
        begin, stop, _ = slice(start, end, step).indices(size)
        if step == 1 and (begin, stop) == (0, size):
            continue
        if step != 1 or stop <= begin:
            pin(data[at])
            made[at] = Axis.leaf(shape[at], pinned=True)
            continue
        made[at] = Axis.leaf(stop - begin)
        tie(data[at], Axis.sum([Axis.leaf(begin), made[at], Axis.leaf(size - stop)]))
    return [made]


def _gather(node: Node, view: View) -> list[list[Axis]]:
    """Rows are chosen by number, so their order stays."""
    data, indices = view.of(node, 0), view.of(node, 1)
    place = int(node.value("axis", 0)) % len(data)
    pin(data[place])
    stiffen(*indices)
    return [[*data[:place], *indices, *data[place + 1 :]]]


def _flatten(node: Node, view: View) -> list[list[Axis]]:
    data = view.of(node, 0)
    place = int(node.value("axis", 1))
    place = place + len(data) if place < 0 else place
    return [[Axis.product(data[:place]), Axis.product(data[place:])]]


def _squeeze(node: Node, view: View) -> list[list[Axis]] | None:
    data = view.of(node, 0)
    if "axes" in node.attributes or view.has(node, 1):
        places = view.integers(node, 1, "axes")
        if places is None:
            return None
        gone = {place % len(data) for place in places}
    else:
        gone = {at for at, axis in enumerate(data) if axis.size == 1}
    return [[axis for at, axis in enumerate(data) if at not in gone]]


def _unsqueeze(node: Node, view: View) -> list[list[Axis]] | None:
    data, places = view.of(node, 0), view.integers(node, 1, "axes")
    if places is None:
        return None
    rank = len(data) + len(places)
    new, old = {place % rank for place in places}, iter(data)
    return [[Axis.leaf(1) if at in new else next(old) for at in range(rank)]]


def _expand(node: Node, view: View) -> list[list[Axis]] | None:
    """What is repeated may take any order, but only an order: all elements are equal."""
    data, shape = view.of(node, 0), view.shape(node.outputs[0])
    if shape is None:
        return None
    made: list[Axis] = []
    for at, size in enumerate(shape):
        place = at - len(shape) + len(data)
        if place >= 0 and data[place].size == size:
            made.append(data[place])
        else:
            fresh = Axis.leaf(size)
            stiffen(fresh)
            made.append(fresh)
    return [made]


def _tile(node: Node, view: View) -> list[list[Axis]] | None:
    data, shape = view.of(node, 0), view.shape(node.outputs[0])
    times = view.constant(node, 1)
    if shape is None or times is None:
        return None
    made: list[Axis] = []
    for axis, count in zip(data, times.reshape(-1).tolist(), strict=True):
        if count == 1:
            made.append(axis)
            continue
        copies = Axis.leaf(int(count))
        stiffen(copies, axis)
        made.append(Axis.product([copies, axis]))
    return [made]


def _measured(node: Node, view: View) -> list[list[Axis]] | None:
    """Shape and Size tell nothing of the order of elements."""
    shape = view.shape(node.outputs[0])
    return None if shape is None else [[Axis.leaf(size, pinned=True) for size in shape]]


LAYOUT: dict[str, Rule] = {
    "Concat": Rule(_concat),
    "Constant": Rule(_measured),
    "ConstantOfShape": Rule(_measured, 0),
    "Expand": Rule(_expand, 1),
    "Flatten": Rule(_flatten, 1),
    "Gather": Rule(_gather, 2),
    "Reshape": Rule(_reshape, 1),
    "Shape": Rule(_measured, 1),
    "Size": Rule(_measured, 1),
    "Slice": Rule(_slice, 1),
    "Split": Rule(_split, 1),
    "Squeeze": Rule(_squeeze, 1),
    "Tile": Rule(_tile, 1),
    "Transpose": Rule(_transpose, 1),
    "Unsqueeze": Rule(_unsqueeze, 1),
}
