"""How operators of aten that move elements without changing them are drawn with those of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.aten_parts import Given, Rule, data_of, dtype_of, parts_of

if TYPE_CHECKING:
    from torch import fx

    from vambrace.assets.obfuscate.aten import Canvas

__all__ = ["LAYOUT", "same_value"]


def _reshape(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    value, sizes = given["self"], node.meta["val"].shape
    free = [size for size in sizes if not isinstance(size, int)]
    if not canvas.known(value) or len(free) > 1:
        return False
    shape = canvas.constant([size if isinstance(size, int) else -1 for size in sizes])
    canvas.emit("Reshape", [canvas.name(value), shape], node)
    return True


def _permute(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    value = given["self"]
    if not canvas.known(value):
        return False
    rank = value.meta["val"].ndim
    if "dims" in given:
        order = [int(each) % rank for each in given["dims"]]
    else:
        order = list(range(rank))
        one, other = (int(given.get(key, default)) % max(rank, 1) for key, default in (("dim0", 0), ("dim1", -1)))
        if rank:
            order[one], order[other] = order[other], order[one]
    multiplied = all(str(user.target) in _PRODUCTS for user in node.users)
    if order == [1, 0] and multiplied and len(node.users) == 1 and canvas.turned(value) is not None:
        canvas.same(node, value)
        return True
    canvas.emit("Transpose", [canvas.name(value)], node, perm=order)
    return True


def _cat(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    values = given["tensors"]
    if not canvas.known(*values) or any(each.meta["val"].dtype != node.meta["val"].dtype for each in values):
        return False
    canvas.emit("Concat", [canvas.name(each) for each in values], node, axis=int(given["dim"]))
    return True


def _split(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    value, made = given["self"], node.meta["val"]
    axis = int(given["dim"])
    sizes = [each.shape[axis] for each in made]
    outputs = parts_of(node, len(made))
    if not canvas.known(value) or outputs is None or not all(isinstance(size, int) for size in sizes):
        return False
    canvas.emit_many("Split", [canvas.name(value), canvas.constant(sizes)], outputs, axis=axis)
    return True


def _slice(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    start, end = given["start"] or 0, given["end"]
    end = 2**62 if end is None else end
    if not canvas.known(given["self"]) or not all(isinstance(each, int) for each in (start, end, given["step"])):
        return False
    numbers = [canvas.constant([int(each)]) for each in (start, min(end, 2**62), given["dim"], given["step"])]
    canvas.emit("Slice", [canvas.name(given["self"]), *numbers], node)
    return True


def _select(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    if not canvas.known(given["self"]) or not isinstance(given["index"], int):
        return False
    names = [canvas.name(given["self"]), canvas.constant(given["index"])]
    canvas.emit("Gather", names, node, axis=int(given["dim"]))
    return True


def _index_select(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    if not canvas.known(given["self"], given["index"]):
        return False
    names = [canvas.name(given["self"]), canvas.name(given["index"])]
    canvas.emit("Gather", names, node, axis=int(given["dim"]))
    return True


def _squeeze(op: str) -> Rule:
    def draw(canvas: Canvas, node: fx.Node, given: Given) -> bool:
        value, places = given["self"], given.get("dim")
        if not canvas.known(value) or places is None:
            return False
        rank = max(value.meta["val"].ndim, node.meta["val"].ndim)
        listed: list[int] = [places] if isinstance(places, int) else list(places)
        places = [each % rank for each in listed]
        if op == "Squeeze":
            # torch leaves axes alone that have more than one element.
            places = [each for each in places if value.meta["val"].shape[each] == 1]
            if not places:
                return same_value(canvas, node, given)
        canvas.emit(op, [canvas.name(value), canvas.constant(places)], node)
        return True

    return draw


def _expand(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    value, sizes = given["self"], node.meta["val"].shape
    if not canvas.known(value):
        return False
    if list(value.meta["val"].shape) == list(sizes):
        return same_value(canvas, node, given)
    if not all(isinstance(size, int) for size in sizes):
        return False
    canvas.emit("Expand", [canvas.name(value), canvas.constant(list(sizes))], node)
    return True


def _pad(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    value, pads = given["self"], list(given["pad"])
    if not canvas.known(value) or not all(isinstance(each, int) and each >= 0 for each in pads):
        return False
    if given.get("mode", "constant") != "constant":
        return False
    rank = value.meta["val"].ndim
    pairs = [(0, 0)] * (rank - len(pads) // 2) + list(zip(pads[::2], pads[1::2], strict=True))[::-1]
    numbers = canvas.constant([first for first, _ in pairs] + [last for _, last in pairs])
    filler = canvas.constant(given["value"] or 0, dtype_of(node))
    canvas.emit("Pad", [canvas.name(value), numbers, filler], node)
    return True


def same_value(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    """What hands on the values that it gets."""
    value = data_of(given)
    if not canvas.known(value) or value.meta["val"].dtype != node.meta["val"].dtype:
        return False
    canvas.emit("Identity", [canvas.name(value)], node)
    return True


_PRODUCTS = frozenset({"aten.addmm.default", "aten.mm.default", "aten.matmul.default"})
LAYOUT: dict[str, Rule] = {
    **dict.fromkeys(("alias", "clone", "contiguous", "detach", "lift_fresh_copy", "_to_copy", "to"), same_value),
    **dict.fromkeys(("_unsafe_view", "flatten", "reshape", "unflatten", "view"), _reshape),
    **dict.fromkeys(("permute", "t", "transpose"), _permute),
    "cat": _cat,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _split),
    "slice": _slice,
    "select": _select,
    "index_select": _index_select,
    **{"squeeze": _squeeze("Squeeze"), "unsqueeze": _squeeze("Unsqueeze")},
    "expand": _expand,
    **dict.fromkeys(("constant_pad_nd", "pad"), _pad),
}
