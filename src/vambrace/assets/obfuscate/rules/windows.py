"""Operators over neighbourhoods and along sizes: pooling, padding, resizing, reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.axes import Axis, pin, stiffen, tie
from vambrace.assets.obfuscate.rules.view import Rule

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.rules.view import View

__all__ = ["WINDOWS"]


def _pool(node: Node, view: View) -> list[list[Axis]] | None:
    """Each channel alone; averages are linear in it."""
    data, shape = view.of(node, 0), view.shape(node.outputs[0])
    if shape is None:
        return None
    pin(*data[2:])
    if not node.is_a("AveragePool", "GlobalAveragePool"):
        stiffen(*data[:2])
    return [[*data[:2], *(Axis.leaf(size, pinned=True) for size in shape[2:])]]


def _pad(node: Node, view: View) -> list[list[Axis]] | None:
    data, shape = view.of(node, 0), view.shape(node.outputs[0])
    pads = view.integers(node, 1, "pads")
    if shape is None or pads is None:
        return None
    places = view.integers(node, 3, "axes") if view.has(node, 3) else list(range(len(data)))
    if places is None:
        return None
    moved = {place % len(data) for at, place in enumerate(places) if pads[at] or pads[at + len(places)]}
    filler = node.value("value", 0.0)
    if view.has(node, 2):
        constant = view.constant(node, 2)
        filler = 1.0 if constant is None else float(constant.reshape(-1)[0]) if constant.size else 0.0
    if str(node.value("mode", "constant")) == "constant" and filler:
        stiffen(*data)
    return [
        [_moved(axis, size) if at in moved else axis for at, (axis, size) in enumerate(zip(data, shape, strict=True))]
    ]


def _moved(axis: Axis, size: int) -> Axis:
    pin(axis)
    return Axis.leaf(size, pinned=True)


def _resize(node: Node, view: View) -> list[list[Axis]] | None:
    """Axes whose scale is exactly 1 stay; the others are pinned on both sides."""
    data, shape = view.of(node, 0), view.shape(node.outputs[0])
    if shape is None or str(node.value("coordinate_transformation_mode", "")) == "tf_crop_and_resize":
        return None
    where = 1 if node.op == "Upsample" or view.opset < 11 else 2
    scales = node.value("scales")
    if scales is None and view.has(node, where):
        found = view.constant(node, where)
        scales = None if found is None else found.reshape(-1).tolist()
    places = node.value("axes") or list(range(len(data)))
    if not scales:
        # Sizes are stated instead: an axis of the same size has scale 1.
        still = {at for at, axis in enumerate(data) if axis.size == shape[at]} if view.has(node, 3) else set[int]()
    else:
        moved = {int(place) % len(data) for place, scale in zip(places, scales, strict=True) if float(scale) != 1.0}
        still = set(range(len(data))) - moved
    return [[axis if at in still else _moved(axis, shape[at]) for at, axis in enumerate(data)]]


def _depth_to_space(node: Node, view: View) -> list[list[Axis]] | None:
    """C is block * block * c (or c * block * block in CRD) and becomes c; blocks become places."""
    data, shape, block = view.of(node, 0), view.shape(node.outputs[0]), int(node.value("blocksize"))
    if shape is None or data[1].size % (block * block):
        return None
    rows, columns = Axis.leaf(block, pinned=True), Axis.leaf(block, pinned=True)
    channels = Axis.leaf(data[1].size // block**2)
    parts = [channels, rows, columns] if str(node.value("mode", "DCR")) == "CRD" else [rows, columns, channels]
    tie(data[1], Axis.product(parts))
    pin(*data[2:])
    return [[data[0], channels, *(Axis.leaf(size, pinned=True) for size in shape[2:])]]


def _space_to_depth(node: Node, view: View) -> list[list[Axis]] | None:
    data, block = view.of(node, 0), int(node.value("blocksize"))
    shape = view.shape(node.outputs[0])
    if shape is None:
        return None
    pin(*data[2:])
    joined = Axis.product([Axis.leaf(block, pinned=True), Axis.leaf(block, pinned=True), data[1]])
    return [[data[0], joined, *(Axis.leaf(size, pinned=True) for size in shape[2:])]]


def _reduced(node: Node, view: View) -> list[list[Axis]] | None:
    data = view.of(node, 0)
    stated = "axes" in node.attributes or view.has(node, 1)
    places = view.integers(node, 1, "axes") if stated else []
    if places is None:
        return None
    if not places and node.value("noop_with_empty_axes", 0):
        stiffen(*data)
        return [data]
    gone = {place % len(data) for place in places} if places else set(range(len(data)))
    stiffen(*(data[place] for place in gone))
    if node.op not in {"ReduceSum", "ReduceMean"}:
        stiffen(*data)
    return [_without(data, gone, keep=bool(node.value("keepdims", 1)))]


def _without(data: list[Axis], gone: set[int], *, keep: bool) -> list[Axis]:
    if keep:
        return [Axis.leaf(1) if at in gone else axis for at, axis in enumerate(data)]
    return [axis for at, axis in enumerate(data) if at not in gone]


def _largest(node: Node, view: View) -> list[list[Axis]]:
    """Places of extremes: the order along the axis is in the answer."""
    data = view.of(node, 0)
    place = int(node.value("axis", 0)) % len(data)
    stiffen(*data)
    pin(data[place])
    return [_without(data, {place}, keep=bool(node.value("keepdims", 1)))]


def _running(node: Node, view: View) -> list[list[Axis]] | None:
    data, place = view.of(node, 0), view.constant(node, 1)
    if place is None:
        return None
    pin(data[int(place.reshape(-1)[0]) % len(data)])
    return [data]


WINDOWS: dict[str, Rule] = {
    **{
        op: Rule(_pool, 1)
        for op in ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
    },
    **{
        f"Reduce{how}": Rule(_reduced, 1)
        for how in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    **{op: Rule(_resize, 1) for op in ("Resize", "Upsample")},
    **{op: Rule(_largest, 1) for op in ("ArgMax", "ArgMin")},
    "CumSum": Rule(_running, 1),
    "DepthToSpace": Rule(_depth_to_space, 1),
    "Pad": Rule(_pad, 1),
    "SpaceToDepth": Rule(_space_to_depth, 1),
}
