"""Layers with weights, brought to one form: a channel is a row, whatever operator it belongs to.

| operator | weight in the file | here: (channels, inputs, positions) |
|---|---|---|
| Conv | (out, in/group, *kernel) | as it is, kernel flattened |
| ConvTranspose | (in, out/group, *kernel) | channels first |
| Gemm, MatMul | (in, out) or (out, in) | one position |
| LSTM, GRU, RNN | (directions, gates x hidden, in) | a hidden unit is a channel, its gates are positions |

Only weights that stand in the file as constants are found: what a model computes from others at run time has to be
made constant first, as `vambrace.assets.obfuscate.measure.deobfuscator` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.measure.runtime import constant_array, onnx
from vambrace.assets.obfuscate.measure.structure import inlined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from onnx import ModelProto

__all__ = ["Layer", "read_layers"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer.

    Attributes:
        name: of its weight in the file.
        operator: type.
        weights: (channels, inputs, positions), float64.
        groups: channels of one group share their inputs.
        vector: one number a channel, such as a bias, or None.
        place: 0 to 1: where among the operators of the file.
    """

    name: str
    operator: str
    weights: NDArray[np.float64]
    groups: int
    vector: NDArray[np.float64] | None
    place: float

    @property
    def signature(self) -> tuple[int, ...]:
        """Layers with the same one can be each other."""
        return (*self.weights.shape, self.groups)


def read_layers(model: ModelProto) -> list[Layer]:
    """Every layer of an onnx.ModelProto, bodies of branches included, in the order of the file."""
    whole = inlined(model)
    nodes = list(_nodes(whole.graph, {}))
    found: list[Layer] = []
    for place, (node, constants) in enumerate(nodes):
        read = _read(node, constants)
        if read is not None:
            name, weights, groups, vector = read
            fits = vector is not None and vector.shape == weights.shape[:1]
            found.append(
                Layer(
                    name=name,
                    operator=node.op_type,
                    weights=np.asarray(weights, dtype=np.float64),
                    groups=groups,
                    vector=np.asarray(vector, dtype=np.float64) if fits else None,
                    place=place / max(len(nodes), 1),
                )
            )
    return found


def _nodes(graph: Any, outer: dict[str, NDArray[Any]]) -> Iterator[tuple[Any, dict[str, NDArray[Any]]]]:  # noqa: ANN401
    """Nodes of a graph and its bodies, each with the constants that it can see."""
    to_array = onnx().numpy_helper.to_array
    constants = outer | {tensor.name: to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and (array := constant_array(node)) is not None:
            constants[node.output[0]] = array
    for node in graph.node:
        yield node, constants
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _nodes(body, constants)


def _read(
    node: Any,  # noqa: ANN401  an onnx.NodeProto
    constants: dict[str, NDArray[Any]],
) -> tuple[str, NDArray[Any], int, NDArray[Any] | None] | None:
    operator = node.op_type.removeprefix("Fused")
    given = [constants.get(name) for name in node.input]
    attributes = {each.name: each for each in node.attribute}
    if operator == "MatMul":
        return _product(node, given)
    if operator not in {"Conv", "ConvTranspose", "Gemm", *_GATES} or len(given) < 2 or given[1] is None:
        return None
    name, weights, vector = node.input[1], given[1], given[2] if len(given) > 2 else None
    group = attributes["group"].i if "group" in attributes else 1
    if weights.dtype.kind != "f" or weights.size == 0:
        return None
    if operator == "Conv":
        return name, weights.reshape(*weights.shape[:2], -1), group, vector
    if operator == "ConvTranspose":
        parts = weights.reshape(group, weights.shape[0] // group, weights.shape[1], -1).swapaxes(1, 2)
        return name, parts.reshape(-1, *parts.shape[2:]), group, vector
    if operator == "Gemm":
        turned = weights if "transB" in attributes and attributes["transB"].i else weights.T
        return name, turned[:, :, None], 1, vector if vector is None else vector.reshape(-1)
    gates = _GATES[operator]
    directions, rows, inputs = weights.shape
    parts = weights.reshape(directions, gates, rows // gates, inputs).transpose(0, 2, 3, 1)
    return name, parts.reshape(-1, inputs, gates), 1, None


def _product(
    node: Any,  # noqa: ANN401  an onnx.NodeProto
    given: list[NDArray[Any] | None],
) -> tuple[str, NDArray[Any], int, NDArray[Any] | None] | None:
    for slot, array in enumerate(given):
        if array is not None and array.ndim == 2 and array.dtype.kind == "f" and array.size:
            return node.input[slot], (array.T if slot else array)[:, :, None], 1, None
    return None
