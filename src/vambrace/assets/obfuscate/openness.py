"""What a lock leaves in clear, and what of it may be a weight.

Decoys that obfuscation has put into a model are locked like its own weights, and nobody can tell them apart from the
file. So that something is locked says nothing, nor does the share of it: what counts is that nothing is left open but
sizes, indices, bounds, single numbers and what no operator uses.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.graph import bodies_of
from vambrace.assets.obfuscate.roles import held_tensors
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OpenTensor", "as_tensors", "open_tensors"]

_MOST_SETTINGS = 16
"""Numbers of an attribute that are taken to say how an operator runs: slopes of recurrent layers, scales of axes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenTensor:
    """Numbers of a model that stay in clear when it is locked, and may be weights.

    Attributes:
        name: of their value, or of the operator and its attribute.
        elements: how many they are.
        why: they are not locked.
    """

    name: str
    elements: int
    why: str


def open_tensors(model: Any) -> tuple[OpenTensor, ...]:  # noqa: ANN401  onnx.ModelProto
    """The largest first."""
    onnx = onnx_package()
    found = [
        OpenTensor(name=each.name, elements=math.prod(each.tensor.dims), why=each.why)
        for each in held_tensors(model)
        if each.role is None and not each.harmless
    ]
    for graph in (model.graph, *model.functions):
        found += _others(graph, onnx)
    return tuple(sorted(found, key=lambda each: -each.elements))


def as_tensors(model: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """Rewrite constants that state a list of floating numbers as ones that state a tensor, which can be locked."""
    onnx = onnx_package()
    for graph in (model.graph, *model.functions):
        _rewrite(graph, onnx)


def _rewrite(graph: Any, onnx: Any) -> None:  # noqa: ANN401
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value_floats" and len(attribute.floats) > 1:
                numbers = list(attribute.floats)
                tensor = onnx.helper.make_tensor("", onnx.TensorProto.FLOAT, [len(numbers)], numbers)
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))
        for body in bodies_of(node):
            _rewrite(body, onnx)


def _others(graph: Any, onnx: Any) -> Iterator[OpenTensor]:  # noqa: ANN401
    """Numbers that are in no tensor, or only in a sparse one."""
    for each in getattr(graph, "sparse_initializer", ()):
        yield OpenTensor(name=each.values.name, elements=math.prod(each.values.dims), why="sparse")
    for node in graph.node:
        for attribute in node.attribute:
            name = f"{node.op_type}.{attribute.name}"
            sparse = [attribute.sparse_tensor] if attribute.type == onnx.AttributeProto.SPARSE_TENSOR else []
            for each in [*sparse, *attribute.sparse_tensors]:
                yield OpenTensor(name=name, elements=math.prod(each.values.dims), why="sparse")
            if len(attribute.floats) > _MOST_SETTINGS:
                yield OpenTensor(name=name, elements=len(attribute.floats), why=f"an attribute of {node.op_type}")
        for body in bodies_of(node):
            yield from _others(body, onnx)
