"""How channels travel between layers: through operators that have no weights, each with the classes that they hold.

`route` carries what a value holds (an axis, counted from the end, and a class for each channel on it) from the inputs
of a node to its outputs. Where channels meet, their classes are merged. It answers False for whatever it does not know
for certain; the caller then pins all that the node reads.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vambrace.assets.obfuscate.layers import along

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Info

__all__ = ["Held", "Walk", "route"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Held:
    """The channels of one value.

    Attributes:
        axis: where they are, counted from the end.
        classes: (channels,).
    """

    axis: int
    classes: NDArray[np.int64]


class Walk(Protocol):
    """What `route` needs to know and does.

    Attributes:
        constants, infos: as `Graph.constants` and `Net.infer` give them.
        held: what is known of values so far; `route` adds outputs.
        positive: whether all factors are above 0.
        passes_on: whether an operator of one activation has f(c x) = c f(x).
    """

    constants: Mapping[str, NDArray[Any]]
    infos: Mapping[str, Info]
    held: dict[str, Held]
    positive: bool
    passes_on: Callable[[Node], bool]

    def merge(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Make classes one, each with the one at the same place."""
        ...

    def shift(self, node: Node, name: str, held: Held) -> None:
        """A constant is added to channels, so it takes their factors."""
        ...


def route(node: Node, walk: Walk) -> bool:
    """Carry channels through a node; False where it cannot be done."""
    if node.bodies or node.domain not in {"", "ai.onnx"}:
        return False
    if node.op in _ROUTES:
        return _ROUTES[node.op](node, walk)
    if walk.passes_on(node):
        return _same(node, walk)
    return False


def _same(node: Node, walk: Walk) -> bool:
    if any(name and name not in walk.constants for name in node.inputs[1:]):
        return False
    held = walk.held.get(node.inputs[0])
    if held is None or (len([name for name in node.outputs if name]) > 1 and not node.is_a("Dropout")):
        return False
    # Windows slide over all axes behind the second.
    if "Pool" in node.op and held.axis != 1 - _rank(node.inputs[0], walk):
        return False
    walk.held[node.outputs[0]] = held
    return True


def _together(node: Node, walk: Walk) -> bool:
    """Sums, and maxima where factors are positive."""
    if node.op in {"Max", "Min"} and not walk.positive:
        return False
    active = [name for name in node.inputs if name not in walk.constants]
    fixed = [name for name in node.inputs if name in walk.constants]
    first = walk.held.get(active[0]) if active else None
    if first is None:
        return False
    for name in active[1:]:
        held = walk.held.get(name)
        if held is None or held.axis != first.axis or len(held.classes) != len(first.classes):
            return False
    for name in fixed:
        array = walk.constants[name]
        is_zero = not np.any(array) and array.ndim <= _rank(active[0], walk)
        shifts = node.op in {"Add", "Sub"} and along(array, first.axis, len(first.classes))
        if not (is_zero or shifts):
            return False
    for name in active[1:]:
        walk.merge(first.classes, walk.held[name].classes)
    for name in fixed:
        if np.any(walk.constants[name]):
            walk.shift(node, name, first)
    walk.held[node.outputs[0]] = first
    return True


def _concat(node: Node, walk: Walk) -> bool:
    found = [walk.held.get(name) for name in node.inputs]
    rank = _rank(node.inputs[0], walk)
    first = found[0]
    if rank == 0 or first is None or any(held is None or held.axis != first.axis for held in found):
        return False
    parts = [held.classes for held in found if held is not None]
    if int(node.value("axis", 1)) % rank - rank == first.axis:
        walk.held[node.outputs[0]] = Held(first.axis, np.concatenate(parts))
        return True
    if any(len(part) != len(parts[0]) for part in parts):
        return False
    for part in parts[1:]:
        walk.merge(parts[0], part)
    walk.held[node.outputs[0]] = first
    return True


def _flatten(node: Node, walk: Walk) -> bool:
    """Flatten, and a Reshape that does the same: every channel becomes a run of features."""
    held, shape = walk.held.get(node.inputs[0]), _shape(node.inputs[0], walk)
    if held is None or shape is None or len(shape) + held.axis != 1:
        return False
    inner = [size for size in shape[2:] if isinstance(size, int)]
    run = math.prod(inner)
    if len(inner) < len(shape) - 2 or shape[1] != len(held.classes):
        return False
    if node.op == "Flatten":
        if int(node.value("axis", 1)) % len(shape) != 1:
            return False
    else:
        after = _shape(node.outputs[0], walk)
        if after is None or len(after) != 2 or after[1] != len(held.classes) * run:
            return False
    walk.held[node.outputs[0]] = Held(-1, np.repeat(held.classes, run))
    return True


def _transpose(node: Node, walk: Walk) -> bool:
    held, rank = walk.held.get(node.inputs[0]), _rank(node.inputs[0], walk)
    if held is None or rank == 0:
        return False
    order = list(node.value("perm", list(range(rank))[::-1]))
    walk.held[node.outputs[0]] = Held(order.index(held.axis + rank) - rank, held.classes)
    return True


def _reduce(node: Node, walk: Walk) -> bool:
    """Means and sums over other axes than that of the channels, which keep their rank."""
    held, rank = walk.held.get(node.inputs[0]), _rank(node.inputs[0], walk)
    axes = _axes(node, walk)
    if held is None or rank == 0 or axes is None or not node.value("keepdims", 1):
        return False
    if node.op == "ReduceMax" and not walk.positive:
        return False
    if held.axis + rank in {axis % rank for axis in axes}:
        return False
    walk.held[node.outputs[0]] = held
    return True


def _squeeze(node: Node, walk: Walk) -> bool:
    held, rank = walk.held.get(node.inputs[0]), _rank(node.inputs[0], walk)
    axes = _axes(node, walk)
    if held is None or rank == 0 or axes is None:
        return False
    gone = {axis % rank for axis in axes}
    place = held.axis + rank
    if place in gone:
        return False
    walk.held[node.outputs[0]] = Held(held.axis + sum(axis > place for axis in gone), held.classes)
    return True


def _pad(node: Node, walk: Walk) -> bool:
    """Zeros, or copies of what is there, around other axes than that of the channels."""
    held, rank = walk.held.get(node.inputs[0]), _rank(node.inputs[0], walk)
    pads = node.value("pads", node.value("paddings"))
    if pads is None and len(node.inputs) > 1 and node.inputs[1] in walk.constants:
        pads = walk.constants[node.inputs[1]].tolist()
    if held is None or rank == 0 or pads is None or len(pads) != 2 * rank or len(node.inputs) > 3:
        return False
    value = node.value("value", 0.0)
    if len(node.inputs) > 2 and node.inputs[2]:
        value = walk.constants.get(node.inputs[2], np.ones(1)).reshape(-1)[0]
    place = held.axis + rank
    if value != 0 or pads[place] != 0 or pads[place + rank] != 0:
        return False
    walk.held[node.outputs[0]] = held
    return True


def _resize(node: Node, walk: Walk) -> bool:
    """Copies or weighted means over space; the channels must be as many before and after."""
    held = walk.held.get(node.inputs[0])
    before, after = _shape(node.inputs[0], walk), _shape(node.outputs[0], walk)
    if held is None or before is None or after is None or len(before) != len(after):
        return False
    same = before[held.axis] == after[held.axis] == len(held.classes)
    known = node.value("mode", "nearest") in {"nearest", "linear", "bilinear"}
    if not same or not known or node.value("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return False
    walk.held[node.outputs[0]] = held
    return True


def _slice(node: Node, walk: Walk) -> bool:
    held, rank = walk.held.get(node.inputs[0]), _rank(node.inputs[0], walk)
    if held is None or rank == 0:
        return False
    if any(name and name not in walk.constants for name in node.inputs[1:]):
        return False
    starts = _whole(node, 1, walk) or list(node.value("starts", []))
    ends = _whole(node, 2, walk) or list(node.value("ends", []))
    axes = _whole(node, 3, walk) or list(node.value("axes", range(len(starts))))
    steps = _whole(node, 4, walk) or [1] * len(starts)
    classes = held.classes
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis % rank == held.axis + rank:
            classes = classes[start:end:step]
    walk.held[node.outputs[0]] = Held(held.axis, classes)
    return True


def _split(node: Node, walk: Walk) -> bool:
    held, rank = walk.held.get(node.inputs[0]), _rank(node.inputs[0], walk)
    if held is None or rank == 0:
        return False
    if int(node.value("axis", 0)) % rank != held.axis + rank:
        for name in node.outputs:
            walk.held[name] = held
        return True
    sizes = [shape[held.axis] for shape in (_shape(name, walk) for name in node.outputs) if shape is not None]
    if len(sizes) < len(node.outputs) or sum(size for size in sizes if isinstance(size, int)) != len(held.classes):
        return False
    ends = np.cumsum([int(size) for size in sizes if isinstance(size, int)])
    for name, part in zip(node.outputs, np.split(held.classes, ends[:-1]), strict=True):
        walk.held[name] = Held(held.axis, part)
    return True


def _gather(node: Node, walk: Walk) -> bool:
    """Channels in another order."""
    held, rank = walk.held.get(node.inputs[0]), _rank(node.inputs[0], walk)
    order = walk.constants.get(node.inputs[1])
    if held is None or rank == 0 or order is None or order.ndim != 1:
        return False
    if int(node.value("axis", 0)) % rank == held.axis + rank:
        held = Held(held.axis, held.classes[order])
    walk.held[node.outputs[0]] = held
    return True


_ROUTES: dict[str, Callable[[Node, Walk], bool]] = {
    **dict.fromkeys(("Add", "Max", "Mean", "Min", "Sub", "Sum"), _together),
    "Concat": _concat,
    **dict.fromkeys(("Flatten", "Reshape"), _flatten),
    "Gather": _gather,
    "Pad": _pad,
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), _reduce),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
}


def _shape(name: str, walk: Walk) -> tuple[int | str | None, ...] | None:
    return walk.infos[name].shape if name in walk.infos else None


def _rank(name: str, walk: Walk) -> int:
    return len(_shape(name, walk) or ())


def _whole(node: Node, place: int, walk: Walk) -> list[int] | None:
    name = node.inputs[place] if len(node.inputs) > place else ""
    return [int(value) for value in walk.constants[name].reshape(-1)] if name in walk.constants else None


def _axes(node: Node, walk: Walk) -> list[int] | None:
    """None where they are not known, and where none are stated, since that may mean all of them."""
    axes = node.value("axes")
    return (_whole(node, 1, walk) if axes is None else list(axes)) or None
