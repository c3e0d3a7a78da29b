"""Rewrites of linear layers: scales and permutations go into weights, split layers become one, channels get one size.

Nothing here looks at data: weights are constants of the draft, and a layer is touched only where nobody else sees what
lies between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.measure.runtime import onnx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.measure.draft import Draft

__all__ = ["absorb", "even_out", "merge"]

_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_HOMOGENEOUS = _POOLS | {"Relu", "LeakyRelu", "Identity"}
_UNARY = frozenset({"Relu", "LeakyRelu", "Identity", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu"}) | {
    "Softplus",
    "Clip",
    "Abs",
    "Neg",
    "Erf",
}


@dataclass(slots=True, eq=False)
class _Linear:
    """A node y = W x + b whose weight is a constant; `weight` is (out, in/group, ...)."""

    draft: Draft
    node: Any
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    group: int

    @property
    def axis(self) -> int:
        """Of channels in its output: counted from the end for MatMul."""
        return -1 if self.node.op_type == "MatMul" else 1

    def store(self, weight: NDArray[Any], bias: NDArray[Any] | None) -> None:
        """Give the node another weight and bias."""
        kind = self.node.op_type
        turned = weight.T if kind in {"MatMul", "Gemm"} else weight
        turned = np.swapaxes(weight, 0, 1) if kind == "ConvTranspose" else turned
        self.node.input[1] = self.draft.keep(turned.astype(self.weight.dtype))
        if kind == "Gemm":
            kept = [each for each in self.node.attribute if each.name != "transB"]
            self.node.ClearField("attribute")
            self.node.attribute.extend(kept)
        if bias is not None:
            name = self.draft.keep(bias.astype(self.weight.dtype))
            del self.node.input[2:]
            self.node.input.append(name)
        self.weight, self.bias = weight, bias


def absorb(draft: Draft) -> int:
    """Per-channel products and gathers by constants move up through activations and into the layer before or after."""
    done = 0
    for _ in range(4 * len(draft.nodes) + 4):
        if not _absorbed_one(draft):
            break
        done += 1
    draft.sweep()
    return done


def merge(draft: Draft) -> int:
    """Sums and concatenations of layers that take the same, sums over parts of a split, and products of two layers."""
    done = 0
    for _ in range(len(draft.nodes) + 1):
        if not _merged_one(draft):
            break
        done += 1
    draft.sweep()
    return done


def even_out(draft: Draft) -> int:
    """Give each channel between two layers, nothing but homogeneous operators between them, a norm from 1 to 2.

    By powers of two, so that nothing is rounded: what powers of two did to the channels is gone, whatever they were.
    """
    users, done = draft.users(), 0
    for node in draft.nodes:
        first = _linear(draft, node)
        if first is None:
            continue
        name = node.output[0]
        while len(users.get(name, [])) == 1 and users[name][0] is not None and users[name][0].op_type in _HOMOGENEOUS:
            name = users[name][0].output[0]
        last = users.get(name, [None])
        second = _linear(draft, last[0]) if len(last) == 1 and last[0] is not None else None
        if (
            second is None
            or second.group != 1
            or last[0].input[0] != name
            or second.weight.shape[1] != len(first.weight)
        ):
            continue
        norms = np.sqrt((first.weight.reshape(len(first.weight), -1).astype(np.float64) ** 2).sum(axis=1))
        steps = np.where(norms > 0, -np.floor(np.log2(np.where(norms > 0, norms, 1.0))), 0).astype(int)
        if not steps.any():
            continue
        rows = steps.reshape(-1, *[1] * (first.weight.ndim - 1))
        first.store(np.ldexp(first.weight, rows), None if first.bias is None else np.ldexp(first.bias, steps))
        columns = -steps.reshape(1, -1, *[1] * (second.weight.ndim - 2))
        second.store(np.ldexp(second.weight, columns), second.bias)
        done += 1
    draft.sweep()
    return done


def _linear(draft: Draft, node: Any) -> _Linear | None:  # noqa: ANN401  an onnx.NodeProto
    attributes = {each.name: each for each in node.attribute}
    weight = draft.weights.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"} or weight is None or weight.dtype.kind != "f":
        return None
    bias = draft.weights.get(node.input[2]) if len(node.input) > 2 else None
    if len(node.input) > 2 and node.input[2] and (bias is None or bias.ndim != 1):
        return None
    group = attributes["group"].i if "group" in attributes else 1
    if node.op_type == "ConvTranspose":
        return None if group != 1 else _Linear(draft, node, np.swapaxes(weight, 0, 1), bias, 1)
    if node.op_type == "Gemm":
        plain = all(attributes[name].f == 1 for name in ("alpha", "beta") if name in attributes)
        if not plain or ("transA" in attributes and attributes["transA"].i):
            return None
        return _Linear(draft, node, weight if "transB" in attributes and attributes["transB"].i else weight.T, bias, 1)
    if node.op_type == "MatMul":
        return _Linear(draft, node, weight.T, None, 1) if weight.ndim == 2 else None
    return _Linear(draft, node, weight, bias, group)


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """A per-channel product (`scale`, one number or one a channel) or a gather (`order`) of `source`, by a constant."""

    node: Any
    source: str
    scale: NDArray[Any] | None
    order: NDArray[Any] | None
    axis: int


def _change(draft: Draft, node: Any) -> _Change | None:  # noqa: ANN401  an onnx.NodeProto
    if node.op_type == "Gather":
        order = draft.weights.get(node.input[1])
        axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
        if order is None or order.ndim != 1 or node.input[0] in draft.weights:
            return None
        return _Change(node, node.input[0], None, order, axis)
    if node.op_type not in {"Mul", "Div"}:
        return None
    slots = [slot for slot, name in enumerate(node.input) if name in draft.weights]
    if len(slots) != 1 or (node.op_type == "Div" and slots != [1]):
        return None
    factor = draft.weights[node.input[slots[0]]]
    wide = [place for place, size in enumerate(factor.shape) if size != 1]
    if factor.dtype.kind != "f" or len(wide) > 1:
        return None
    scale = factor.reshape(-1)
    # Counted from the end, as broadcasting does.
    axis = wide[0] - factor.ndim if wide else 0
    return _Change(node, node.input[1 - slots[0]], 1 / scale if node.op_type == "Div" else scale, None, axis)


def _absorbed_one(draft: Draft) -> bool:
    users, producers = draft.users(), draft.producers()
    for node in draft.nodes:
        change = _change(draft, node)
        if change is None:
            continue
        before = producers.get(change.source)
        if before is not None and len(users[change.source]) == 1 and _into_before(draft, change, before):
            return True
        after = users.get(node.output[0], [])
        if len(after) == 1 and after[0] is not None and _into_after(draft, change, after[0]):
            return True
    return False


def _into_before(draft: Draft, change: _Change, before: Any) -> bool:  # noqa: ANN401  an onnx.NodeProto
    layer = _linear(draft, before)
    if layer is not None and _fits(change, layer, len(layer.weight)):
        weight, bias = layer.weight, layer.bias
        if change.order is not None:
            if layer.group != 1:
                return False
            layer.store(weight[change.order], None if bias is None else bias[change.order])
        else:
            rows = change.scale.reshape(-1, *[1] * (weight.ndim - 1)) if change.scale is not None else 1
            layer.store(weight * rows, None if bias is None else bias * change.scale)
        before.output[0] = change.node.output[0]
        draft.nodes = [each for each in draft.nodes if each is not change.node]
        return True
    earlier = _change(draft, before)
    if earlier is not None and change.order is not None and earlier.order is not None and change.axis == earlier.axis:
        change.node.input[0], change.node.input[1] = earlier.source, draft.keep(earlier.order[change.order])
        draft.nodes = [each for each in draft.nodes if each is not before]
        return True
    positive = change.scale is not None and bool((change.scale > 0).all())
    through = _UNARY | (_POOLS if change.axis == 1 else frozenset[str]())
    if before.op_type in (through if change.order is not None else _HOMOGENEOUS if positive else ()):
        _swap(draft, change, before)
        return True
    return False


def _swap(draft: Draft, change: _Change, before: Any) -> None:  # noqa: ANN401  an onnx.NodeProto
    """f(x) then the change becomes the change then f."""
    node, middle = change.node, draft.name()
    end = node.output[0]
    slot = list(node.input).index(change.source)
    node.input[slot], node.output[0] = before.input[0], middle
    before.input[0], before.output[0] = middle, end
    places = [number for number, each in enumerate(draft.nodes) if each is node or each is before]
    draft.nodes[places[0]], draft.nodes[places[1]] = node, before


def _into_after(draft: Draft, change: _Change, after: Any) -> bool:  # noqa: ANN401  an onnx.NodeProto
    layer = _linear(draft, after)
    if layer is None or layer.group != 1 or after.input[0] != change.node.output[0]:
        return False
    inputs = layer.weight.shape[1]
    if not _fits(change, layer, inputs):
        return False
    if change.order is not None:
        if sorted(change.order.tolist()) != list(range(inputs)):
            return False
        weight = np.empty_like(layer.weight)
        weight[:, change.order] = layer.weight
    else:
        assert change.scale is not None
        weight = layer.weight * change.scale.reshape(1, -1, *[1] * (layer.weight.ndim - 2))
    layer.store(weight, layer.bias)
    after.input[0] = change.source
    draft.nodes = [each for each in draft.nodes if each is not change.node]
    return True


def _fits(change: _Change, layer: _Linear, channels: int) -> bool:
    """Whether a change is along the layer's channels."""
    rank = layer.weight.ndim  # of maps for convolutions, 2 for Gemm; a MatMul's own rank is not known here
    if change.scale is not None and change.scale.size == 1:
        return True
    size = change.order.size if change.order is not None else change.scale.size if change.scale is not None else 0
    if size != channels:
        return False
    along = change.axis if layer.node.op_type == "MatMul" or change.axis >= 0 else change.axis + rank
    return along == layer.axis


def _merged_one(draft: Draft) -> bool:
    users, producers = draft.users(), draft.producers()
    for node in draft.nodes:
        if node.op_type in {"Add", "Concat"}:
            layers = [_linear(draft, producers[name]) if name in producers else None for name in node.input]
            alone = all(len(users[name]) == 1 for name in node.input)
            parts = [layer for layer in layers if layer is not None]
            if alone and len(parts) == len(layers) > 1 and _alike(parts) and _join(draft, node, parts, producers):
                return True
        after = _linear(draft, node)
        before: Any = producers.get(node.input[0]) if after is not None else None
        first = _linear(draft, before) if before is not None and len(users[node.input[0]]) == 1 else None
        if (
            after is not None
            and before is not None
            and first is not None
            and {node.op_type, before.op_type} in ({"Gemm"}, {"MatMul"})
        ):
            bias = None if first.bias is None else after.weight @ first.bias + (0 if after.bias is None else after.bias)
            after.store(after.weight @ first.weight, after.bias if first.bias is None else bias)
            node.input[0] = before.input[0]
            draft.nodes = [each for each in draft.nodes if each is not before]
            return True
    return False


def _alike(parts: list[_Linear]) -> bool:
    def told(part: _Linear) -> tuple[str, ...]:
        named = sorted(each.name for each in part.node.attribute if each.name != "transB")
        shown = {each.name: each.SerializeToString() for each in part.node.attribute}
        return (part.node.op_type, str(part.bias is None), *(f"{name}{shown[name]!r}" for name in named))

    return len({told(part) for part in parts}) == 1 and all(part.group == 1 for part in parts)


def _join(draft: Draft, node: Any, parts: list[_Linear], producers: dict[str, Any]) -> bool:  # noqa: ANN401
    """Put one layer in the place of several whose results are added or put side by side."""
    sources = [part.node.input[0] for part in parts]
    source = sources[0]
    total = np.add.reduce
    biases = [part.bias for part in parts if part.bias is not None]
    if node.op_type == "Concat":
        axis = next(each.i for each in node.attribute if each.name == "axis")
        if len(set(sources)) > 1 or axis != parts[0].axis:
            return False
        weight = np.concatenate([part.weight for part in parts])
        bias = np.concatenate(biases) if biases else None
    elif len(set(sources)) == 1:
        if len({part.weight.shape for part in parts}) > 1:
            return False
        weight, bias = total([part.weight for part in parts]), total(biases) if biases else None
    else:
        split: Any = producers.get(source)
        if split is None or split.op_type != "Split":
            return False
        given = list(split.output)
        axis = next((each.i for each in split.attribute if each.name == "axis"), 0)
        if sorted(sources) != sorted(given) or axis != parts[0].axis:
            return False
        placed = sorted(parts, key=lambda part: given.index(part.node.input[0]))
        weight, bias = np.concatenate([part.weight for part in placed], axis=1), total(biases) if biases else None
        source = split.input[0]
    made = onnx().NodeProto.FromString(parts[0].node.SerializeToString())
    made.input[0], made.output[0] = source, node.output[0]
    gone = {id(part.node) for part in parts}
    draft.splice(node, made)
    draft.nodes = [each for each in draft.nodes if id(each) not in gone]
    _Linear(draft, made, weight, bias, 1).store(weight, bias)
    return True
