"""Layers whose weights can take up a factor for each channel: how each kind of them does it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.net import Info

__all__ = ["Part", "Weights", "along", "layer_weights", "numbered"]

_FLOATS = frozenset({"float32", "float64"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One weight of a layer, and which factors it is multiplied with.

    Attributes:
        name: of the weight.
        gives: index of the output channel whose factor each element takes, of a shape that fits the weight's; None
            where output channels do not matter.
        takes: the same for input channels.
        gives_power, takes_power: 1 or -1, the power to which the factor is taken.
        adds: whether it is added rather than multiplied with.
    """

    name: str
    gives: NDArray[np.int64] | None = None
    takes: NDArray[np.int64] | None = None
    gives_power: int = 1
    takes_power: int = -1
    adds: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """The weights of one node, as channels see them.

    Attributes:
        parts: the weights that change with factors; the first one multiplies the input, which is taken to come
            multiplied by its factors already.
        source: which input of the node is the activation.
        axis: of the channels, counted from the end (-1 is the last), in input and output alike.
        takes, gives: how many input and output channels there are.
    """

    parts: tuple[Part, ...]
    source: int
    axis: int
    takes: int
    gives: int


def layer_weights(
    node: Node, constants: Mapping[str, NDArray[Any]], infos: Mapping[str, Info], *, halves: bool = False
) -> Weights | None:
    """How a node takes up factors; None for one that is no layer, whose weights are no constants, or of low precision.

    Half precision has room for signs only, and integers stand for numbers that a scale elsewhere gives.

    Args:
        node: any.
        constants: as `Graph.constants` gives them.
        infos: as `Net.infer` gives them.
        halves: whether weights of half precision count.
    """
    if not node.is_a(*_KINDS) or len([name for name in node.outputs if name]) != 1:
        return None
    if len(node.inputs) < (5 if node.op == "BatchNormalization" else 2):
        return None
    made = _KINDS[node.op](node, constants, infos)
    kinds = _FLOATS | {"float16"} if halves else _FLOATS
    return made if made is not None and all(constants[part.name].dtype.name in kinds for part in made.parts) else None


def numbered(count: int) -> NDArray[np.int64]:
    """0 to count - 1."""
    return np.arange(count, dtype=np.int64)


def along(array: NDArray[Any], axis: int, size: int) -> bool:
    """Whether an array varies along one axis alone, counted from the end, and has that size there."""
    return array.ndim >= -axis and array.shape[axis] == size == array.size


def _divides(groups: int, channels: int) -> bool:
    return groups > 0 and channels % groups == 0


def _conv(node: Node, constants: Mapping[str, NDArray[Any]], _: Mapping[str, Info]) -> Weights | None:
    kernel = constants.get(node.inputs[1])
    if kernel is None or kernel.ndim < 3:
        return None
    groups = int(node.value("group", 1))
    gives, inner = kernel.shape[:2]
    if not _divides(groups, gives):
        return None
    group = numbered(gives) // (gives // groups)
    channels = _spread(numbered(gives)[:, None], kernel)
    sources = _spread(group[:, None] * inner + numbered(inner), kernel)
    first = Part(name=node.inputs[1], gives=channels, takes=sources)
    return _made(node, constants, first, axis=1 - kernel.ndim, takes=inner * groups, gives=gives)


def _conv_transpose(node: Node, constants: Mapping[str, NDArray[Any]], _: Mapping[str, Info]) -> Weights | None:
    kernel = constants.get(node.inputs[1])
    if kernel is None or kernel.ndim < 3:
        return None
    groups = int(node.value("group", 1))
    takes, inner = kernel.shape[:2]
    if not _divides(groups, takes):
        return None
    group = numbered(takes) // (takes // groups)
    channels = _spread(group[:, None] * inner + numbered(inner), kernel)
    sources = _spread(numbered(takes)[:, None], kernel)
    first = Part(name=node.inputs[1], gives=channels, takes=sources)
    return _made(node, constants, first, axis=1 - kernel.ndim, takes=takes, gives=inner * groups)


def _product_of_matrices(node: Node, constants: Mapping[str, NDArray[Any]], _: Mapping[str, Info]) -> Weights | None:
    matrix = constants.get(node.inputs[1])
    if matrix is None or matrix.ndim != 2 or node.value("transA", 0):
        return None
    turned = bool(node.value("transB", 0))
    takes, gives = matrix.shape[::-1] if turned else matrix.shape
    rows, columns = numbered(takes)[:, None], numbered(gives)[None, :]
    first = Part(name=node.inputs[1], gives=columns.T if turned else columns, takes=rows.T if turned else rows)
    return _made(node, constants, first, axis=-1, takes=takes, gives=gives)


def _normalisation(node: Node, constants: Mapping[str, NDArray[Any]], infos: Mapping[str, Info]) -> Weights | None:
    info = infos.get(node.inputs[0])
    if info is None or info.shape is None or len(info.shape) < 2 or node.value("training_mode", 0):
        return None
    if any(name not in constants or constants[name].ndim != 1 for name in node.inputs[1:5]):
        return None
    channels = numbered(constants[node.inputs[1]].size)
    scale, bias, mean, _ = node.inputs[1:5]
    # scale * (x - mean) / sqrt(variance + epsilon) + bias; the variance stays, so that epsilon may.
    parts = (
        Part(name=scale, gives=channels, takes=channels),
        Part(name=bias, gives=channels, adds=True),
        Part(name=mean, takes=channels, takes_power=1, adds=True),
    )
    return Weights(parts=parts, source=0, axis=1 - len(info.shape), takes=channels.size, gives=channels.size)


def _product(node: Node, constants: Mapping[str, NDArray[Any]], _: Mapping[str, Info]) -> Weights | None:
    """A product with, or a division by, one constant a channel."""
    place = 1 if node.inputs[1] in constants else 0
    array = constants.get(node.inputs[place])
    if array is None or node.inputs[1 - place] in constants or array.size < 2 or max(array.shape) != array.size:
        return None
    if node.op == "Div" and place == 0:
        return None
    power = -1 if node.op == "Div" else 1
    channels = numbered(array.size).reshape(array.shape)
    first = Part(name=node.inputs[place], gives=channels, takes=channels, gives_power=power, takes_power=-power)
    axis = array.shape.index(array.size) - array.ndim
    return Weights(parts=(first,), source=1 - place, axis=axis, takes=array.size, gives=array.size)


_KINDS = {
    "BatchNormalization": _normalisation,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _product,
    "Gemm": _product_of_matrices,
    "MatMul": _product_of_matrices,
    "Mul": _product,
}


def _made(
    node: Node, constants: Mapping[str, NDArray[Any]], first: Part, *, axis: int, takes: int, gives: int
) -> Weights | None:
    parts = [first]
    if len(node.inputs) > 2 and node.inputs[2]:
        offset = constants.get(node.inputs[2])
        if offset is None or not along(offset, -1, gives):
            return None
        channels = numbered(gives).reshape(offset.shape)
        parts.append(Part(name=node.inputs[2], gives=channels, adds=True))
    return Weights(parts=tuple(parts), source=0, axis=axis, takes=takes, gives=gives)


def _spread(index: NDArray[np.int64], kernel: NDArray[Any]) -> NDArray[np.int64]:
    """An index over the first two axes of a kernel, for all its positions."""
    return index.reshape(*index.shape, *(1,) * (kernel.ndim - 2))
