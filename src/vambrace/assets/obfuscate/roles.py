"""What may be done to a weight such that the model still runs, for whoever has the wrong key as well.

Followed from the weight through operators that only move or convert elements to those that use it. Elements of filters,
matrices, biases and tables may change places and signs; those under a root or a logarithm, variances and scales of
quantisation keep their signs; shapes, indices, bounds and whatever else decides how a model runs is not touched.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Held", "Role", "held_tensors"]

Role = Literal["signed", "ordered", "variance"]
"""`signed`: elements may change places and signs. `ordered`: places only. `variance`: so too, and all are positive."""

_Readers: TypeAlias = "dict[str, list[tuple[Any, int]]]"

_MOVES = frozenset(
    {"Cast", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity", "Neg", "Pad", "Reshape"}
    | {"Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_SUMS = frozenset({"Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum", "Where"})
_PASSES = _MOVES | _SUMS | {"ReduceMean", "ReduceSum", "GlobalAveragePool", "Clip"}
_OWN = frozenset({"", "ai.onnx"})
_RECURRENT = frozenset({1, 2, 3, 5, 6, 7})
# Positions of inputs that are weights, by operator.
_SIGNED: dict[str, frozenset[int]] = {
    "Attention": frozenset({0, 1, 2}),
    "BatchNormalization": frozenset({1, 2, 3}),
    "Conv": frozenset({0, 1, 2}),
    "ConvInteger": frozenset({1}),
    "ConvTranspose": frozenset({0, 1, 2}),
    "Einsum": frozenset(range(16)),
    "GRU": _RECURRENT,
    "Gemm": frozenset({0, 1, 2}),
    "GroupNormalization": frozenset({1, 2}),
    "InstanceNormalization": frozenset({1, 2}),
    "LSTM": _RECURRENT,
    "LayerNormalization": frozenset({0, 1, 2}),
    "MatMul": frozenset({0, 1}),
    "MatMulInteger": frozenset({0, 1}),
    "PRelu": frozenset({0, 1}),
    "QLinearConv": frozenset({3, 8}),
    "QLinearMatMul": frozenset({3}),
    "RMSNormalization": frozenset({0, 1}),
    "RNN": _RECURRENT,
    # Elementwise, so what a weight is to them it is to all that follows.
    **dict.fromkeys(_SUMS, frozenset(range(16))),
    "Where": frozenset({1, 2}),
}
_VARIANCE = {"BatchNormalization": frozenset({4})}
_ORDERED: dict[str, frozenset[int]] = {
    **_VARIANCE,
    "DequantizeLinear": frozenset({1, 2}),
    "QLinearConv": frozenset({1, 2, 4, 5, 6, 7}),
    "QLinearMatMul": frozenset({1, 2, 4, 5, 6, 7}),
    "QuantizeLinear": frozenset({1, 2}),
}
# What is not defined for values below zero.
_DELICATE: dict[str, frozenset[int]] = {
    **_VARIANCE,
    "Log": frozenset({0}),
    "Sqrt": frozenset({0}),
}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A tensor that a model holds.

    Attributes:
        name: of the value; empty for an attribute that no value stands for.
        tensor: onnx.TensorProto, the model's own.
        role: what may be done, or None.
        why: if nothing, the reason.
    """

    name: str
    tensor: Any
    role: Role | None
    why: str = ""


def held_tensors(model: Any) -> list[Held]:  # noqa: ANN401  onnx.ModelProto
    """Every tensor of a model, in an order that depends on the file alone.

    Of each graph its initialisers, then tensors and graphs in the attributes of its nodes, node by node; functions of
    the model's own come last.
    """
    onnx = onnx_package()
    held: list[Held] = []
    for graph in (model.graph, *model.functions):  # names of functions are their own
        readers: _Readers = {}
        _read(graph, readers, onnx)
        leaves = {getattr(value, "name", value) for value in graph.output}
        for name, tensor in _tensors(graph, onnx):
            why = _untouchable(tensor, onnx) or ("it is an output" if name in leaves else "")
            role, why = (None, why) if why else _role(name, tensor, readers, onnx)
            held.append(Held(name, tensor, role, why))
    return held


def _tensors(graph: Any, onnx: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    for tensor in getattr(graph, "initializer", ()):
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                is_value = node.op_type == "Constant" and node.domain in _OWN
                yield (node.output[0] if is_value else ""), attribute.t
            for tensor in attribute.tensors:
                yield "", tensor
            for body in [*([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else []), *attribute.graphs]:
                yield from _tensors(body, onnx)


def _read(graph: Any, found: _Readers, onnx: Any) -> None:  # noqa: ANN401
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name:
                found.setdefault(name, []).append((node, position))
        for attribute in node.attribute:
            for body in [*([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else []), *attribute.graphs]:
                _read(body, found, onnx)


def _untouchable(tensor: Any, onnx: Any) -> str:  # noqa: ANN401
    """Why nothing may be done to a tensor, whoever reads it."""
    if math.prod(tensor.dims) < 2:
        return "a single number"
    kinds = onnx.TensorProto
    if tensor.data_type in {kinds.STRING, kinds.BOOL, kinds.COMPLEX64, kinds.COMPLEX128}:
        return "truth values, text or complex numbers"
    if tensor.data_type in {kinds.INT64, kinds.UINT64, kinds.UINT32, kinds.INT16, kinds.UINT16}:
        return "whole numbers that may be sizes or indices"
    return ""


def _role(name: str, tensor: Any, readers: _Readers, onnx: Any) -> tuple[Role | None, str]:  # noqa: ANN401
    uses = _uses(name, readers)
    if not uses:
        return None, "no operator uses it"
    if tensor.data_type == onnx.TensorProto.INT32 and not all(
        (node.op_type, position) == ("QLinearConv", 8) or node.op_type == "DequantizeLinear"
        for node, position in readers.get(name, ())
    ):
        return None, "whole numbers that may be sizes or indices"
    if all(_is(node, position, _VARIANCE) for node, position in uses):
        return "variance", ""
    roles: set[Role] = set()
    for node, position in uses:
        if _is(node, position, _ORDERED):
            roles.add("ordered")
        elif _is(node, position, _SIGNED):
            roles.add("signed")
        else:
            return None, f"an input of {node.op_type} that decides how it runs"
    return ("ordered" if "ordered" in roles or _delicate(name, readers) else "signed"), ""


def _is(node: Any, position: int, table: dict[str, frozenset[int]]) -> bool:  # noqa: ANN401
    return node.domain in _OWN and position in table.get(node.op_type, ())


def _uses(name: str, readers: _Readers) -> list[tuple[Any, int]]:
    """Operators that use the elements of a value, found through those that only move them."""
    found: list[tuple[Any, int]] = []
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        value = ahead.pop()
        if value in seen:
            continue
        seen.add(value)
        for node, position in readers.get(value, ()):
            first = position == 0 or node.op_type == "Concat"
            if node.domain in _OWN and node.op_type in _MOVES and first:
                ahead.extend(node.output)
            else:
                found.append((node, position))
    return found


def _delicate(name: str, readers: _Readers) -> bool:
    """Whether what is computed from a value by sums and products alone gets under a root, a logarithm or a power."""
    seen: set[str] = set()
    ahead = [name]
    while ahead:
        value = ahead.pop()
        if value in seen:
            continue
        seen.add(value)
        for node, position in readers.get(value, ()):
            if _is(node, position, _DELICATE):
                return True
            if node.domain in _OWN and node.op_type in _PASSES:
                ahead.extend(node.output)
    return False
