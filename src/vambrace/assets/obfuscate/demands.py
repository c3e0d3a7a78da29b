"""Sizes of a net's inputs that its weights ask for, though the file leaves them open: channels, features, places.

An exporter may name every axis of an input. Behind it, up to operators that change its shape, weights say how long some
axes must be: a convolution has filters for so many channels, a normalisation a scale for each feature, and so on. What
is added or multiplied may also be broadcast, so there a size is the likely one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Net

__all__ = ["demanded"]

_KEEP = frozenset(
    {"Abs", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity"}
    | {
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Reciprocal",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
        "Tanh",
    }
)
_ELEMENTWISE = frozenset({"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"})
_NORMS = frozenset({"BatchNormalization", "InstanceNormalization"})


def demanded(net: Net) -> dict[tuple[str, int], int]:
    """Sizes by input and axis, counted from the front; only those that some weight asks for."""
    constants, readers = net.graph.constants(), net.index().consumers
    found: dict[tuple[str, int], int] = {}
    for value in net.graph.inputs:
        rank = len(value.type.tensor_type.shape.dim)
        waiting, seen = [value.name], {value.name}
        while waiting and rank:
            for node, position in readers.get(waiting.pop(), []):
                sizes = dict(_of(node, position, rank, constants))
                for axis, size in sizes.items():
                    found.setdefault((value.name, axis % rank), size)
                more = node.outputs[0]
                if more not in seen and _keeps(node, position, rank, constants):
                    seen.add(more)
                    waiting.append(more)
    return found


def _of(node: Node, position: int, rank: int, constants: Mapping[str, NDArray[Any]]) -> Iterator[tuple[int, int]]:
    """(axis, size) that a reader asks of a value of a rank."""
    if node.is_a(*_ELEMENTWISE):
        for name in node.inputs:
            if name in constants and constants[name].ndim <= rank:
                yield from (
                    (axis - constants[name].ndim, size) for axis, size in enumerate(constants[name].shape) if size > 1
                )
        return
    weight = constants.get(node.inputs[1]) if len(node.inputs) > 1 and position == 0 else None
    if weight is None or not weight.ndim:
        return
    if node.is_a("Conv") and rank > 1:
        yield 1, weight.shape[1] * int(node.value("group", 1))
    elif node.is_a("ConvTranspose", *_NORMS) and rank > 1:
        yield 1, weight.shape[0]
    elif node.is_a("Gemm") and rank == weight.ndim:
        yield (0 if node.value("transA", 0) else 1), weight.shape[1 if node.value("transB", 0) else 0]
    elif node.is_a("MatMul"):
        yield -1, weight.shape[max(0, weight.ndim - 2)]
    elif node.is_a("LayerNormalization") and weight.ndim <= rank:
        yield from ((axis - weight.ndim, size) for axis, size in enumerate(weight.shape))


def _keeps(node: Node, position: int, rank: int, constants: Mapping[str, NDArray[Any]]) -> bool:
    """Whether what a node makes has the shape of what it reads there."""
    if position < 0:
        return False
    if node.is_a(*_ELEMENTWISE):
        others = [name for place, name in enumerate(node.inputs) if place != position]
        return all(name in constants and constants[name].ndim <= rank for name in others)
    return position == 0 and node.is_a(*_KEEP, *_NORMS, "LayerNormalization")
