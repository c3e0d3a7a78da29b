"""Operators that mix channels by weights, and those that normalise them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.axes import Axis, pin, stiffen, tie
from vambrace.assets.obfuscate.rules.view import Rule

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.rules.view import View

__all__ = ["LINEAR"]


def _conv(node: Node, view: View) -> list[list[Axis]] | None:
    """X (n, g * c, ...), W (g * m, c, ...), B (g * m) to (n, g * m, ...)."""
    data, weight = view.of(node, 0), view.of(node, 1)
    groups = int(node.value("group", 1))
    taken, made = weight[1], Axis.leaf(weight[0].size // groups)
    return _convolved(node, view, taken=taken, made=made, stored=weight[0], data=data, groups=groups)


def _conv_transpose(node: Node, view: View) -> list[list[Axis]] | None:
    """X (n, g * c, ...), W (g * c, m, ...), B (g * m) to (n, g * m, ...)."""
    data, weight = view.of(node, 0), view.of(node, 1)
    groups = int(node.value("group", 1))
    taken, made = Axis.leaf(weight[0].size // groups), weight[1]
    return _convolved(node, view, taken=taken, made=made, stored=weight[0], data=data, groups=groups)


def _convolved(
    node: Node, view: View, *, taken: Axis, made: Axis, stored: Axis, data: list[Axis], groups: int
) -> list[list[Axis]] | None:
    shape = view.shape(node.outputs[0])
    if shape is None:
        return None
    weight = view.of(node, 1)
    group = Axis.leaf(groups)
    stiffen(group)
    channels, results = Axis.product([group, taken]), Axis.product([group, made])
    tie(stored, results if node.op == "Conv" else channels)
    tie(data[1], channels)
    if view.has(node, 2):
        tie(view.of(node, 2)[0], results)
    pin(*data[2:], *weight[2:])
    return [[data[0], results, *(Axis.leaf(size, pinned=True) for size in shape[2:])]]


def _gemm(node: Node, view: View) -> list[list[Axis]]:
    first, second = view.of(node, 0), view.of(node, 1)
    rows, inner = first[::-1] if node.value("transA", 0) else first
    same, columns = second[::-1] if node.value("transB", 0) else second
    tie(inner, same)
    made = [rows, columns]
    if view.has(node, 2):
        made = view.broadcast([made, view.of(node, 2)], linear=True)
    return [made]


def _matmul(node: Node, view: View) -> list[list[Axis]]:
    first, second = view.of(node, 0), view.of(node, 1)
    tie(first[-1], second[-2] if len(second) > 1 else second[0])
    outer_first, outer_second = first[:-2], second[:-2]
    outer = view.broadcast([outer_first, outer_second], linear=False) if outer_first or outer_second else []
    rows = [first[-2]] if len(first) > 1 else []
    columns = [second[-1]] if len(second) > 1 else []
    return [[*outer, *rows, *columns]]


def _einsum(node: Node, view: View) -> list[list[Axis]] | None:
    terms, arrow, result = str(node.value("equation")).replace(" ", "").partition("->")
    if "." in terms or not arrow:
        return None
    letters: dict[str, Axis] = {}
    operands = terms.split(",")
    for term, name in zip(operands, node.inputs, strict=True):
        for letter, axis in zip(term, view.axes[name], strict=True):
            tie(letters.setdefault(letter, axis), axis)
    for letter, axis in letters.items():
        times = sum(term.count(letter) for term in operands)
        # Linear: one operand has it and the result too, or two that are multiplied and summed over it.
        if (times, letter in result) not in {(1, True), (2, False)} or any(term.count(letter) > 1 for term in operands):
            stiffen(axis)
    return [[letters[letter] for letter in result]]


def _batch_norm(node: Node, view: View) -> list[list[Axis]]:
    """Scale, bias, mean and variance stand one for each channel."""
    data = view.of(node, 0)
    for position in range(1, len(node.inputs)):
        tie(data[1], view.of(node, position)[0])
    stiffen(*data)
    return [data]


def _group_norm(node: Node, view: View) -> list[list[Axis]] | None:
    data = view.of(node, 0)
    groups = int(node.value("num_groups"))
    if data[1].size % groups:
        return None
    parts = Axis.product([Axis.leaf(groups), Axis.leaf(data[1].size // groups)])
    tie(data[1], parts)
    for position in (1, 2):
        (axis,) = view.of(node, position)
        if axis.size == data[1].size:
            tie(axis, parts)
        else:
            pin(axis, parts)
    stiffen(*data)
    return [data]


def _layer_norm(node: Node, view: View) -> list[list[Axis]]:
    """Normalised over the axes from `axis` on, of which scale and bias have the last ones."""
    data = view.of(node, 0)
    for position in range(1, len(node.inputs)):
        if view.has(node, position):
            view.broadcast([data, view.of(node, position)], linear=False)
    stiffen(*data)
    return [data]


def _same_order(node: Node, view: View) -> list[list[Axis]]:
    """Softmax and its like treat all elements of an axis alike."""
    stiffen(*view.of(node, 0))
    return [view.of(node, 0)]


def _neighbours(node: Node, view: View) -> list[list[Axis]]:
    """Local response normalisation: a channel's neighbours count."""
    data = view.of(node, 0)
    pin(data[1])
    stiffen(*data)
    return [data]


def _rescaled(node: Node, view: View) -> list[list[Axis]] | None:
    """QuantizeLinear and DequantizeLinear, with one scale for all or one for each element of an axis."""
    data = view.of(node, 0)
    if node.value("block_size", 0):
        return None
    place = int(node.value("axis", 1))
    for position in (1, 2):
        axes = view.of(node, position)
        if len(axes) == 1 and axes[0].size != 1:
            tie(data[place], axes[0])
    stiffen(*data)
    return [data]


LINEAR: dict[str, Rule] = {
    "Conv": Rule(_conv, 3),
    "ConvTranspose": Rule(_conv_transpose, 3),
    "Gemm": Rule(_gemm, 3),
    "MatMul": Rule(_matmul, 2),
    "Einsum": Rule(_einsum),
    "BatchNormalization": Rule(_batch_norm, 5),
    "InstanceNormalization": Rule(_batch_norm, 3),
    "GroupNormalization": Rule(_group_norm, 3),
    "LayerNormalization": Rule(_layer_norm, 3),
    "RMSNormalization": Rule(_layer_norm, 2),
    "LRN": Rule(_neighbours, 1),
    "DequantizeLinear": Rule(_rescaled, 3),
    "QuantizeLinear": Rule(_rescaled, 3),
    **{op: Rule(_same_order, 1) for op in ("Softmax", "LogSoftmax")},
}
