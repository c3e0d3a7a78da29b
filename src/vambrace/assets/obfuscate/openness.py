"""What a lock leaves in clear, and what of it may be a weight.

Decoys that obfuscation has put into a model are locked like its own weights, and nobody can tell them apart from the
file. So that something is locked says nothing, nor does the share of it: what counts is that nothing is left open but
sizes, indices, bounds, truth values that select and single numbers.
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

__all__ = ["OpenTensor", "as_lists", "as_tensors", "open_tensors"]

_MOST_SETTINGS = 16
"""Numbers of an attribute that are taken to say how an operator runs: slopes of recurrent layers, scales of axes."""

_LISTS = {"value_floats": ("floats", "FLOAT"), "value_ints": ("ints", "INT64")}
"""Of attributes of `Constant` that are lists: the field that they are in, and the type of the tensor that they make."""

_MARK = "vambrace."
"""What the name of such a tensor begins with: exporters name tensors too."""

_OWN = frozenset({"", "ai.onnx"})


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
    found += _defaults(model)
    for graph in (model.graph, *model.functions):
        found += _others(graph, onnx)
    return tuple(sorted(found, key=lambda each: -each.elements))


def as_tensors(model: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """Rewrite constants that state a list of numbers as ones that state a tensor, which can be locked.

    The tensor's name tells the attribute, so that `as_lists` finds it.
    """
    onnx = onnx_package()
    for attribute in _stating(model):
        name = attribute.name
        if name in _LISTS and len(numbers := getattr(attribute, _LISTS[name][0])) > 1:
            kind = getattr(onnx.TensorProto, _LISTS[name][1])
            tensor = onnx.helper.make_tensor(_MARK + name, kind, [len(numbers)], list(numbers))
            attribute.ClearField(_LISTS[name][0])
            attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
            attribute.t.CopyFrom(tensor)


def as_lists(model: Any) -> None:  # noqa: ANN401  onnx.ModelProto
    """What `as_tensors` rewrote, as it was."""
    onnx = onnx_package()
    for attribute in _stating(model):
        for name, (field, kind) in _LISTS.items():
            made = attribute.name == "value" and attribute.t.name == _MARK + name and len(attribute.t.dims) == 1
            if made and attribute.t.data_type == getattr(onnx.TensorProto, kind):
                numbers = onnx.numpy_helper.to_array(attribute.t).tolist()
                attribute.ClearField("t")
                attribute.name, attribute.type = name, getattr(onnx.AttributeProto, field.upper())
                getattr(attribute, field).extend(numbers)


def _stating(model: Any) -> Iterator[Any]:  # noqa: ANN401
    """The attributes of all `Constant` nodes."""
    waiting = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            waiting.extend(bodies_of(node))
            if node.op_type == "Constant" and node.domain in _OWN:
                yield from node.attribute


def _defaults(model: Any) -> Iterator[OpenTensor]:  # noqa: ANN401
    """Numbers in defaults of functions' attributes, and in graphs that are for training only."""
    for function in model.functions:
        for attribute in function.attribute_proto:
            tensors = [*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])]
            elements = sum(math.prod(each.dims) for each in tensors) + len(attribute.floats)
            if elements > 1:
                name = f"{function.name}.{attribute.name}"
                yield OpenTensor(name=name, elements=elements, why="a default of an attribute")
    for part in model.training_info:
        for graph in (part.initialization, part.algorithm):
            elements = sum(math.prod(each.dims) for each in graph.initializer)
            if elements > 1:
                yield OpenTensor(name=graph.name, elements=elements, why="a graph for training")


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
            if len(attribute.floats) > (_MOST_SETTINGS if node.domain in _OWN else 1):
                yield OpenTensor(name=name, elements=len(attribute.floats), why=f"an attribute of {node.op_type}")
        for body in bodies_of(node):
            yield from _others(body, onnx)
