"""What may be done to a weight such that the model still runs, for whoever has the wrong key as well.

Followed from the weight through operators that move, convert, map, sum up or compare elements to those that use it.
Elements of filters, matrices, biases and tables, and whatever else is only computed with, may change places and signs;
those under a root or a logarithm, divisors, variances and scales of quantisation keep their signs; shapes, indices,
bounds and whatever else decides how a model runs is not touched.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

from vambrace.assets.obfuscate.flows import Flows
from vambrace.assets.obfuscate.graph import bodies_of, graphs_of
from vambrace.assets.obfuscate.stored import check_stored
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from vambrace.assets.obfuscate.flows import Passes

__all__ = ["Held", "Role", "held_tensors"]

Role = Literal["signed", "ordered", "variance"]
"""`signed`: elements may change places and signs. `ordered`: places only. `variance`: so too, and all are positive."""

_ALL = range(1 << 31)
_MOVES = frozenset(
    {"Cast", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity", "Neg", "Pad", "Reshape"}
    | {"Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
    | {"CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "DepthToSpace", "GatherElements", "GatherND"}
    | {"Optional", "OptionalGetElement", "ReverseSequence", "SequenceAt", "SequenceConstruct", "SpaceToDepth"}
    | {"SplitToSequence", "Trilu"}
)
# What is none of these three is never below zero.
_TURNING = frozenset(
    {"Acos", "Asin", "Asinh", "Atan", "AveragePool", "CastLike", "Ceil", "Celu", "Clip", "Cos", "CumProd", "CumSum"}
    | {"Det", "DFT", "Dropout", "DynamicQuantizeLinear", "Elu", "Erf", "Floor", "Gelu", "GlobalAveragePool"}
    | {"GlobalMaxPool", "GridSample", "HardSwish", "LRN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization"}
    | {"MaxPool", "MeanVarianceNormalization", "Mish", "Pow", "QuantizeLinear", "Reciprocal", "ReduceLogSum"}
    | {"ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Resize", "Round"}
    | {"STFT", "Selu", "Shrink", "Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"}
    | {"TopK", "Upsample"}
)
_POSITIVE = frozenset(
    {"Abs", "Acosh", "Atanh", "BitwiseNot", "Cosh", "Exp", "GlobalLpPool", "HardSigmoid", "Hardmax", "IsInf", "IsNaN"}
    | {"LpPool", "Not", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Sigmoid", "Softmax", "Softplus"}
)
# Positions of what is passed on, where it is not the first input alone.
_PASSED: dict[str, Container[int]] = {
    **dict.fromkeys(("Concat", "SequenceConstruct"), _ALL),
    **dict.fromkeys(
        ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor"), frozenset({0, 1})
    ),
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), frozenset({0, 2})),
    "OneHot": frozenset({2}),
    "SequenceInsert": frozenset({0, 1}),
}
# Of these the other outputs are indices, which are in their range whatever the values.
_FIRST_ONLY = frozenset({"MaxPool", "TopK"})
_BLIND = frozenset({"Shape", "SequenceLength", "Size"})
"""Operators to which values are nothing."""

_SUMS = frozenset({"Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum", "Where"})
_OWN = frozenset({"", "ai.onnx"})
_RECURRENT = frozenset({0, 1, 2, 3, 5, 6, 7})
# Positions of inputs that are computed with, by operator.
_SIGNED: dict[str, Container[int]] = {
    "AffineGrid": frozenset({0}),
    "ArgMax": frozenset({0}),
    "ArgMin": frozenset({0}),
    "Attention": frozenset({0, 1, 2, 4, 5}),
    "BatchNormalization": frozenset({0, 1, 2, 3}),
    "Conv": frozenset({0, 1, 2}),
    "ConvInteger": frozenset({0, 1}),
    "ConvTranspose": frozenset({0, 1, 2}),
    "DeformConv": frozenset({0, 1, 2, 3, 4}),
    "Einsum": _ALL,
    "GRU": _RECURRENT,
    "Gemm": frozenset({0, 1, 2}),
    "GridSample": frozenset({1}),
    "GroupNormalization": frozenset({0, 1, 2}),
    "InstanceNormalization": frozenset({0, 1, 2}),
    "LSTM": _RECURRENT,
    "LayerNormalization": frozenset({0, 1, 2}),
    "MatMul": frozenset({0, 1}),
    "MatMulInteger": frozenset({0, 1}),
    "MaxRoiPool": frozenset({0}),
    "MaxUnpool": frozenset({0}),
    "Mod": frozenset({0}),
    "NegativeLogLikelihoodLoss": frozenset({0, 2}),
    "NonMaxSuppression": frozenset({0, 1}),
    "PRelu": frozenset({0, 1}),
    "QLinearConv": frozenset({0, 3, 8}),
    "QLinearMatMul": frozenset({0, 3}),
    "RMSNormalization": frozenset({0, 1}),
    "RNN": _RECURRENT,
    "RoiAlign": frozenset({0}),
    "RotaryEmbedding": frozenset({0, 1, 2}),
    "STFT": frozenset({2}),
    "SoftmaxCrossEntropyLoss": frozenset({0, 2}),
    "TensorScatter": frozenset({0, 1}),
    # Elementwise, so what a weight is to them it is to all that follows.
    **dict.fromkeys(_SUMS, _ALL),
    "Where": frozenset({0, 1, 2}),
}
_VARIANCE: dict[str, Container[int]] = {"BatchNormalization": frozenset({4})}
_ORDERED: dict[str, Container[int]] = {
    **_VARIANCE,
    "Attention": frozenset({3}),
    "Bernoulli": frozenset({0}),
    "ConvInteger": frozenset({2, 3}),
    "DequantizeLinear": frozenset({1, 2}),
    "MatMulInteger": frozenset({2, 3}),
    "Mod": frozenset({1}),
    "Multinomial": frozenset({0}),
    "Pow": frozenset({1}),
    "QLinearConv": frozenset({1, 2, 4, 5, 6, 7}),
    "QLinearMatMul": frozenset({1, 2, 4, 5, 6, 7}),
    "QuantizeLinear": frozenset({1, 2}),
}
# What is not defined for values below zero.
_DELICATE: dict[str, Container[int]] = {
    **_VARIANCE,
    **dict.fromkeys(("Acosh", "Bernoulli", "Log", "ReduceLogSum", "Sqrt"), frozenset({0})),
}
# What must not be zero: other tensors may have a zero to give, and all answers would be NaN.
_DIVIDING: dict[str, Container[int]] = {"Div": frozenset({1}), "Reciprocal": frozenset({0})}
# Inputs that are numbers of how an operator runs, such as sizes and bounds, by the first of them.
_SETTINGS = {
    **{"Clip": 1, "Expand": 1, "NonMaxSuppression": 2, "OneHot": 1, "Pad": 1, "Range": 0, "Reshape": 1, "Resize": 1},
    **{"Slice": 1, "Tile": 1, "TopK": 1, "Upsample": 1},
}
_NO_SIGNED_ZERO = frozenset({"FLOAT8E4M3FNUZ", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"})
"""Types in which a zero with its sign turned is no number, or which have no signs."""

_MOST_SETTINGS = 16
"""Elements of the region of a `Resize` of eight axes, the most there is."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A tensor that a model holds.

    Attributes:
        name: of the value; empty for an attribute that no value stands for.
        tensor: onnx.TensorProto, the model's own.
        role: what may be done, or None.
        why: if nothing, the reason.
        harmless: if nothing, whether it is no weight: a single number, or a few that say how operators run.
    """

    name: str
    tensor: Any
    role: Role | None
    why: str = ""
    harmless: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class _Sight:
    """What there is to know of a model: where values go, and single numbers that stand in it."""

    flows: Flows
    numbers: dict[str, float]

    def moved(self, _: str, node: Any, position: int) -> tuple[int, ...]:  # noqa: ANN401
        """Outputs in which the very elements stand, but for their type and sign."""
        return _outputs(node) if node.op_type in _MOVES and _passed(node, position) else ()

    def passed(self, _: str, node: Any, position: int) -> tuple[int, ...]:  # noqa: ANN401
        """Outputs that are computed from what enters there alone, or select by it."""
        return _outputs(node) if _passed(node, position) else ()

    def turned(self, prefix: str, node: Any, position: int) -> tuple[int, ...]:  # noqa: ANN401
        """Outputs that may be below zero because of what enters there."""
        if node.domain not in _OWN or node.op_type in _POSITIVE:
            return ()
        if node.op_type in _SUMS:
            return () if node.op_type == "Mul" and node.input[0] == node.input[1] else (0,)
        even = node.op_type == "Pow" and self.exponent(prefix, node) % 2 == 0
        return self.passed(prefix, node, position) if not even else ()

    def summed(self, prefix: str, node: Any, position: int) -> tuple[int, ...]:  # noqa: ANN401
        """Outputs that are computed from what enters there, also together with others."""
        return (0,) if node.domain in _OWN and node.op_type in _SUMS else self.passed(prefix, node, position)

    def exponent(self, prefix: str, node: Any) -> float:  # noqa: ANN401
        """Of a `Pow`; not a number where it is not known."""
        return self.numbers.get(prefix + node.input[1], math.nan)


def held_tensors(model: Any) -> list[Held]:  # noqa: ANN401  onnx.ModelProto
    """Every tensor of a model, in an order that depends on the file alone.

    Of each graph its initialisers, then tensors and graphs in the attributes of its nodes, node by node; functions of
    the model's own come last.

    Raises:
        ModelRefused: E234, for a tensor that does not hold what its sizes say.
    """
    onnx = onnx_package()
    graphs = [("", model.graph), *((Flows.prefix(each), each) for each in model.functions)]
    found = [(prefix, *each) for prefix, graph in graphs for each in _tensors(graph, onnx)]
    for _, _, tensor, _ in found:
        check_stored(tensor)
    numbers = {prefix + name: _number(tensor, onnx) for prefix, name, tensor, _ in found if math.prod(tensor.dims) == 1}
    numbers |= {prefix + name: number for prefix, graph in graphs for name, number in _stated(graph, onnx)}
    sight = _Sight(Flows.of(model, onnx), numbers)
    return [_held(*each, sight, onnx) for each in found]


def _held(prefix: str, name: str, tensor: Any, inside: str, sight: _Sight, onnx: Any) -> Held:  # noqa: ANN401
    value = prefix + name
    why, harmless = _untouchable(tensor, onnx)
    if why:
        return Held(name, tensor, None, why, harmless)
    role, why, harmless = (None, f"an attribute of {inside}", False) if inside else _role(value, tensor, sight, onnx)
    counted = _counted(value, tensor, sight, onnx)
    if counted and role and _computed(value, sight, onnx):
        role = "ordered"
    elif counted:
        many = counted == _WHOLE and math.prod(tensor.dims) > _FEW
        role, why = None, counted
        harmless = not many or any(_counts(*use) for use in _uses(value, sight, sight.passed))
    return Held(name, tensor, role, why, harmless)


def _tensors(graph: Any, onnx: Any) -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401
    """Names, tensors, and the operator whose attribute it is, where no value stands for it."""
    for tensor in getattr(graph, "initializer", ()):
        yield tensor.name, tensor, ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                is_value = node.op_type == "Constant" and node.domain in _OWN
                yield (node.output[0], attribute.t, "") if is_value else ("", attribute.t, node.op_type)
            for tensor in attribute.tensors:
                yield "", tensor, node.op_type
            for body in graphs_of(attribute):
                yield from _tensors(body, onnx)


def _counts(node: Any, position: int) -> bool:  # noqa: ANN401
    """Whether an input is sizes or indices."""
    if node is None or node.domain not in _OWN:
        return False
    if node.op_type in _SETTINGS:
        return position >= _SETTINGS[node.op_type]
    return _INDEXED.get(node.op_type) == position


def _stated(graph: Any, onnx: Any) -> Iterator[tuple[str, float]]:  # noqa: ANN401
    """Single numbers that are no tensors, as a `Constant` may state them."""
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name in {"value_float", "value_int"}:
                yield node.output[0], attribute.f if attribute.name == "value_float" else float(attribute.i)
        for body in bodies_of(node):
            yield from _stated(body, onnx)


def _number(tensor: Any, onnx: Any) -> float:  # noqa: ANN401
    # What an attribute of a model's function refers to by the name of a parameter has no type here.
    untold = {onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED}
    plain = tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.data_type not in untold
    value = onnx.numpy_helper.to_array(tensor).reshape(-1)[0] if plain else None
    return math.nan if value is None or isinstance(value, complex) else float(value)


def _untouchable(tensor: Any, onnx: Any) -> tuple[str, bool]:  # noqa: ANN401
    """Why nothing may be done to a tensor, whoever reads it, and whether it is no weight."""
    if math.prod(tensor.dims) < 2:
        return "a single number", True
    kinds = onnx.TensorProto
    if tensor.data_type == kinds.STRING:
        return "text", True
    if tensor.data_type in {kinds.COMPLEX64, kinds.COMPLEX128}:
        return "complex numbers", False
    if kinds.DataType.Name(tensor.data_type).startswith("FLOAT6"):
        return "numbers of six bits", False
    return "", False


def _counted(value: str, tensor: Any, sight: _Sight, onnx: Any) -> str:  # noqa: ANN401
    """What a tensor is by its type, where that is none of weights; empty for all others."""
    kinds = onnx.TensorProto
    if tensor.data_type == kinds.BOOL:
        return _TRUTH
    if tensor.data_type in {kinds.INT64, kinds.UINT64, kinds.UINT32}:
        return _WHOLE
    narrow = tensor.data_type in {kinds.INT32, kinds.INT16, kinds.UINT16}
    dequantised = all(
        (node.op_type, position) == ("QLinearConv", 8) or node.op_type == "DequantizeLinear"
        for node, position in sight.flows.readers.get(value, ())
    )
    return _WHOLE if narrow and not dequantised else ""


def _computed(value: str, sight: _Sight, onnx: Any) -> bool:  # noqa: ANN401
    """Whether whole numbers or truth values become floating ones or nothing, and none of them sizes or indices."""
    if not _uses(value, sight, sight.passed):
        return True
    kinds = onnx.TensorProto
    floating = {kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16}
    cast = any(
        node is not None and any(each.name == "to" and each.i in floating for each in node.attribute)
        for _, node, _ in sight.flows.ahead(value, sight.passed)
    )
    return cast and not any(_counts(*use[1:]) for use in sight.flows.ahead(value, sight.summed))


_TRUTH = "truth values that select"
_WHOLE = "whole numbers that may be sizes or indices"
_FEW = 1024
"""Whole numbers that are taken for sizes or indices unseen; more of them may be a table of packed weights."""
_AXES = 16
"""Numbers that may be factors of sizes, one for each axis: with them out of order a model would not run."""
_INDEXED = {
    **{"Gather": 1, "GatherElements": 1, "GatherND": 1, "ScatterElements": 1, "ScatterND": 1, "TensorScatter": 2},
    **{"AffineGrid": 1, "CenterCropPad": 1, "ConstantOfShape": 0, "Loop": 0, "Split": 1, "SplitToSequence": 1},
}
"""Positions of indices and of sizes, by operator."""


def _role(name: str, tensor: Any, sight: _Sight, onnx: Any) -> tuple[Role | None, str, bool]:  # noqa: ANN401
    if math.prod(tensor.dims) <= _AXES and any(_counts(*use[1:]) for use in sight.flows.ahead(name, sight.summed)):
        return None, "a few numbers from which sizes are computed", True
    uses = _uses(name, sight, sight.passed)
    moved = _uses(name, sight, sight.moved)
    if moved and all(_is(node, position, _VARIANCE) for node, position in moved):
        return "variance", "", False
    roles: set[Role] = set()
    blocked: list[tuple[Any, int]] = []
    for node, position in uses:
        if _is(node, position, _ORDERED):
            roles.add("ordered")
        elif node is None or _is(node, position, _SIGNED):
            roles.add("signed")
        else:
            blocked.append((node, position))
    if blocked:
        settings = all(
            node.domain in _OWN and position >= _SETTINGS.get(node.op_type, 99) for node, position in blocked
        )
        return None, _why(blocked[0][0]), settings and math.prod(tensor.dims) <= _MOST_SETTINGS
    unsigned = onnx.TensorProto.DataType.Name(tensor.data_type) in _NO_SIGNED_ZERO
    dividing = any(_is(node, position, _DIVIDING) for node, position in moved)
    ordered = unsigned or dividing or "ordered" in roles or _delicate(name, sight)
    return ("ordered" if ordered else "signed"), "", False


def _why(node: Any) -> str:  # noqa: ANN401
    if node.domain in _OWN:
        return f"an input of {node.op_type} that may decide how it runs"
    return f"an input of {node.domain}.{node.op_type}, of which nothing is known"


def _is(node: Any, position: int, table: dict[str, Container[int]]) -> bool:  # noqa: ANN401
    return node is not None and node.domain in _OWN and position in table.get(node.op_type, ())


def _passed(node: Any, position: int) -> bool:  # noqa: ANN401
    known = node.op_type in _MOVES or node.op_type in _TURNING or node.op_type in _POSITIVE or node.op_type in _PASSED
    return node.domain in _OWN and known and position in _PASSED.get(node.op_type, (0,))


def _outputs(node: Any) -> tuple[int, ...]:  # noqa: ANN401
    return (0,) if node.op_type in _FIRST_ONLY else tuple(range(len(node.output)))


def _uses(name: str, sight: _Sight, passes: Passes) -> list[tuple[Any, int]]:
    """Nodes that use the elements of a value, None for whoever runs the model, behind those that pass them on."""
    return [
        (node, position)
        for prefix, node, position in sight.flows.ahead(name, passes)
        if node is None or not passes(prefix, node, position) and node.op_type not in _BLIND
    ]


def _delicate(name: str, sight: _Sight) -> bool:
    """Whether what may turn negative with a value gets under a root, a logarithm or a power."""
    for prefix, node, position in sight.flows.ahead(name, sight.turned):
        if _is(node, position, _DELICATE):
            return True
        if node is not None and node.op_type == "Pow" and position == 0 and sight.exponent(prefix, node) % 1 != 0:
            return True
    return False
