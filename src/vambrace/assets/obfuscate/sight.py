"""What there is to know of a model before it runs: where values go, what they are made of, what stands in them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.flows import Flows
from vambrace.assets.obfuscate.graph import bodies_of
from vambrace.assets.obfuscate.operators import (
    ABOVE,
    BLIND,
    KEEPS_SIGN,
    OWN,
    SQUARES,
    SUMS,
    adds_products,
    outputs,
    passed,
)
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["LARGE", "Sight", "masking", "plain"]

LARGE = 1e4
"""What masks add to a score, at least, so that its share is zero."""

_CHANCE = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_DEPTH = 64


@dataclasses.dataclass(slots=True, eq=False)
class Sight:
    """Of a whole model; names of values are those of its `Flows`.

    Attributes:
        flows: where values go.
        numbers: single numbers that stand in it.
        tensors: onnx.TensorProto by the values that they state, of two elements or more.
        makers: the node that makes a value.
        data: values that depend on what the model is given, and not only on its sizes.
        unsized: values that data went into and that become no sizes or indices, as far as was looked.
        masks: values that hold infinities or numbers as large as those of masks, of constants alone.
    """

    flows: Flows
    numbers: Mapping[str, float]
    tensors: Mapping[str, Any]
    makers: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    data: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset()
    unsized: set[str] = dataclasses.field(default_factory=set[str])
    _arrays: dict[str, NDArray[Any]] = dataclasses.field(default_factory=dict[str, "NDArray[Any]"])
    _positive: dict[str, bool] = dataclasses.field(default_factory=dict[str, bool])

    @classmethod
    def of(cls, model: Any, tensors: Iterable[tuple[str, Any]]) -> Sight:  # noqa: ANN401  onnx.ModelProto
        """That of an onnx.ModelProto, whose tensors are given by the values that they state."""
        onnx = onnx_package()
        stated = dict(tensors)
        graphs = [("", model.graph), *((Flows.prefix(each), each) for each in model.functions)]
        single = {name: _number(each, onnx) for name, each in stated.items() if math.prod(each.dims) == 1}
        single |= {prefix + name: number for prefix, graph in graphs for name, number in _stated(graph, onnx)}
        found = cls(Flows.of(model, onnx), single, {name: each for name, each in stated.items() if name not in single})
        chance: list[str] = []
        for prefix, graph in graphs:
            for node in _nodes(graph):
                found.makers |= {prefix + name: node for name in node.output if name}
                if node.op_type in _CHANCE:
                    chance.extend(prefix + name for name in node.output)
        given = {each.name for each in model.graph.input} - stated.keys()
        found.data = found.flows.reached([*given, *chance], _all)
        found.masks = found.flows.reached(found._large(), _mixed) - found.data
        return found

    def array(self, name: str) -> NDArray[Any] | None:
        """The elements of a tensor, None for text, other files and complex numbers."""
        onnx = onnx_package()
        if name not in self._arrays and name in self.tensors and _is_plain(self.tensors[name], onnx):
            self._arrays[name] = onnx.numpy_helper.to_array(self.tensors[name])
        return self._arrays.get(name)

    def others(self, prefix: str, node: Any, position: int) -> list[str]:  # noqa: ANN401
        """What a node takes beside the input at a position."""
        return [prefix + name for at, name in enumerate(node.input) if name and at != position]

    def exponent(self, prefix: str, node: Any) -> float:  # noqa: ANN401
        """Of a `Pow`; not a number where it is not known."""
        return self.numbers.get(prefix + node.input[1], math.nan)

    def squares(self, prefix: str, node: Any) -> bool:  # noqa: ANN401
        """Whether a node gives nothing below zero, whatever it takes."""
        if node.op_type == "Mul":
            return node.input[0] == node.input[1]
        return node.op_type in SQUARES or node.op_type == "Pow" and self.exponent(prefix, node) % 2 == 0

    def never_below_zero(self, name: str, depth: int = 0) -> bool:
        """Whether that can be told of a value, as far back as is looked."""
        if name not in self._positive:
            self._positive[name] = self._never_below_zero(name, depth)
        return self._positive[name]

    def _never_below_zero(self, name: str, depth: int) -> bool:
        if name in self.numbers:
            return self.numbers[name] >= 0
        if name in self.tensors:
            array = self.array(name)
            return array is not None and bool(np.all(plain(array) >= 0))
        node = self.makers.get(name)
        if node is None or node.domain not in OWN or depth > _DEPTH:
            return False
        prefix = name[: name.rfind("\0") + 1]
        if node.op_type in ABOVE or node.op_type == "Relu" or self.squares(prefix, node):
            return True
        taken = [prefix + each for each in node.input if each]
        if node.op_type == "Clip":
            return len(taken) > 1 and self.never_below_zero(taken[1], depth + 1)
        if node.op_type in SUMS - {"Sub"}:
            known = (self.never_below_zero(each, depth + 1) for each in taken[node.op_type == "Where" :])
            return any(known) if node.op_type == "Max" else all(known)
        if adds_products(node, 0):
            weights_first = sorted(taken, key=lambda each: each not in self.tensors)
            return all(self.never_below_zero(each, depth + 1) for each in weights_first)
        if node.op_type in KEEPS_SIGN:
            parts = [prefix + each for at, each in enumerate(node.input) if each and passed(node, at)]
            return bool(parts) and all(self.never_below_zero(each, depth + 1) for each in parts)
        return False

    def _large(self) -> Iterator[str]:
        yield from (name for name, number in self.numbers.items() if not abs(number) < LARGE)
        for name in self.tensors:
            array = self.array(name)
            if array is not None and masking(array).any():
                yield name


def masking(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which floating numbers are none, infinite, or as large as those that masks add."""
    if array.dtype.kind in "iub":
        return np.zeros(array.shape, np.bool_)
    return ~(np.abs(plain(array)) < LARGE)


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in a type of numpy's own; no copy where they are, for weights may be large."""
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _all(_: str, node: Any, __: int) -> tuple[int, ...]:  # noqa: ANN401
    return () if node.op_type in BLIND else tuple(range(len(node.output)))


def _mixed(_: str, node: Any, position: int) -> tuple[int, ...]:  # noqa: ANN401
    return outputs(node) if passed(node, position) or node.domain in OWN and node.op_type in SUMS else ()


def _nodes(graph: Any) -> Iterator[Any]:  # noqa: ANN401
    for node in graph.node:
        yield node
        for body in bodies_of(node):
            yield from _nodes(body)


def _stated(graph: Any, onnx: Any) -> Iterator[tuple[str, float]]:  # noqa: ANN401
    """Single numbers that are no tensors of a value, as a `Constant` or what fills a size may state them."""
    for node in _nodes(graph):
        for attribute in node.attribute if node.domain in OWN else ():
            if node.op_type == "Constant" and attribute.name in {"value_float", "value_int"}:
                yield node.output[0], attribute.f if attribute.name == "value_float" else float(attribute.i)
            if node.op_type == "ConstantOfShape" and attribute.name == "value" and len(attribute.t.dims) == 1:
                yield node.output[0], _number(attribute.t, onnx)


def _number(tensor: Any, onnx: Any) -> float:  # noqa: ANN401
    value = onnx.numpy_helper.to_array(tensor).reshape(-1)[0] if _is_plain(tensor, onnx) else None
    return math.nan if value is None or isinstance(value, complex) else float(value)


def _is_plain(tensor: Any, onnx: Any) -> bool:  # noqa: ANN401
    # What an attribute of a model's function refers to by the name of a parameter has no type here.
    kinds = onnx.TensorProto
    odd = {kinds.STRING, kinds.UNDEFINED, kinds.COMPLEX64, kinds.COMPLEX128}
    return tensor.data_location != kinds.EXTERNAL and tensor.data_type not in odd
