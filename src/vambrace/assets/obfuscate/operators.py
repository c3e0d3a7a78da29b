"""What operators of ONNX do with each of their inputs: pass it on, compute with it, or run as it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = [
    "ABOVE",
    "BLIND",
    "BOUNDED",
    "COMPARES",
    "DELICATE",
    "GATHERING",
    "KEEPS_SIGN",
    "LINEAR",
    "ORDERED",
    "OWN",
    "PARTS",
    "SIGNED",
    "SQUARES",
    "STANDARD",
    "SUMS",
    "VARIANCE",
    "adds_products",
    "counts",
    "decides",
    "is_in",
    "moved",
    "moved_on",
    "outputs",
    "passed",
    "shapes",
]

OWN = frozenset({"", "ai.onnx"})
STANDARD = OWN | {"ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.training", "com.microsoft"}
"""Domains that everybody knows, so that their names tell nothing."""
_ALL = range(1 << 31)
_MOVES = frozenset(
    {"Cast", "Concat", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity", "Neg", "Pad", "Reshape"}
    | {"Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
    | {"CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "DepthToSpace", "GatherElements", "GatherND"}
    | {"Optional", "OptionalGetElement", "ReverseSequence", "SequenceAt", "SequenceConstruct", "SpaceToDepth"}
    | {"SplitToSequence", "Trilu"}
)
_MAPS = frozenset(
    {"Acos", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "BitwiseNot", "CastLike", "Ceil", "Celu", "Clip", "Cos"}
    | {"CumProd", "CumSum", "Det", "DFT", "Dropout", "DynamicQuantizeLinear", "Elu", "Erf", "Floor", "Gelu"}
    | {"GlobalAveragePool", "GlobalMaxPool", "GridSample", "HardSwish", "LRN", "LeakyRelu", "Log", "LogSoftmax"}
    | {"LpNormalization", "MaxPool", "MeanVarianceNormalization", "Mish", "Pow", "QuantizeLinear", "Reciprocal"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu"}
    | {"Resize", "Round", "STFT", "Selu", "Shrink", "Sign", "Sin", "Sinh", "Softsign", "Sqrt", "Swish", "Tan", "Tanh"}
    | {"ThresholdedRelu", "TopK", "Upsample"}
)
ABOVE = frozenset({"Cosh", "Exp", "Sigmoid", "Softmax", "Softplus"})
"""Of these every answer is above zero."""

SQUARES = frozenset(
    {"Abs", "Acosh", "GlobalLpPool", "HardSigmoid", "Hardmax", "IsInf", "IsNaN", "LpPool", "Not", "ReduceL1"}
    | {"ReduceL2", "ReduceSumSquare"}
)
"""Of these none is below zero."""

KEEPS_SIGN = frozenset(
    (_MOVES - {"Neg"})
    | {"AveragePool", "Ceil", "CumProd", "CumSum", "Erf", "Floor", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
    | {"Pow", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Round", "Sqrt", "Tanh"}
    | {"TopK"}
)
"""Of these none is below zero where nothing that they take is."""

GATHERING = frozenset(
    {"AveragePool", "Col2Im", "CumProd", "CumSum", "Det", "DFT", "GlobalAveragePool", "GlobalLpPool", "GridSample"}
    | {"GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin", "TopK"}
    | {"LogSoftmax", "LpNormalization", "LpPool", "LRN", "MeanVarianceNormalization", "ReduceL1", "ReduceL2"}
    | {"ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Resize"}
    | {"Softmax", "STFT", "Upsample"}
)
"""Of these one answer is made of several elements."""

PARTS = frozenset(
    {"CenterCropPad", "Compress", "Gather", "GatherElements", "GatherND", "Pad", "SequenceAt", "Slice", "Split"}
    | {"SplitToSequence", "Trilu"}
)
"""Of these one answer may be some elements and not all of them."""

COMPARES = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_PASSED: dict[str, Container[int]] = {
    **dict.fromkeys(("Concat", "SequenceConstruct"), _ALL),
    **dict.fromkeys(("And", *COMPARES, "Or", "Xor"), frozenset({0, 1})),
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), frozenset({0, 2})),
    "OneHot": frozenset({2}),
    "SequenceInsert": frozenset({0, 1}),
}
"""Positions of what is passed on, where it is not the first input alone."""

_FIRST_ONLY = frozenset({"MaxPool", "TopK"})
"""Of these the other outputs are indices, which are in their range whatever the values."""

BLIND = frozenset({"Shape", "SequenceLength", "Size"})
"""Operators to which values are nothing."""

BOUNDED = frozenset(
    {"Clip", "Cos", "HardSigmoid", "Hardmax", "IsInf", "IsNaN", "Mod", "Sigmoid", "Sign", "Sin", "Softmax", "Tanh"}
    | {"And", "Not", "Or", "Xor"}
    | COMPARES
)
"""What comes out of these is in a range that no weight moves, so that what is indexed by it is there."""

SUMS = frozenset({"Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum", "Where"})
_RECURRENT = frozenset({0, 1, 2, 3, 5, 6, 7})
SIGNED: dict[str, Container[int]] = {
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
    **dict.fromkeys(SUMS, _ALL),
    "Where": frozenset({0, 1, 2}),
}
"""Positions of inputs that are computed with, by operator."""

LINEAR = frozenset(
    {"BatchNormalization", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"}
    | {"MatMulInteger", "Mod", "PRelu"}
)
"""Of SIGNED, those whose answers grow with what they take, so that a weight may move them anywhere."""

_PRODUCTS: dict[str, Container[int]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), frozenset({0, 1, 2})),
    **dict.fromkeys(("Einsum", "MatMul"), _ALL),
}
"""Sums of products: none is below zero where nothing that they take is."""

VARIANCE: dict[str, Container[int]] = {"BatchNormalization": frozenset({4})}
ORDERED: dict[str, Container[int]] = {
    **VARIANCE,
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
DELICATE: dict[str, Container[int]] = {
    **VARIANCE,
    **dict.fromkeys(("Acos", "Acosh", "Asin", "Atanh", "Bernoulli", "Log", "ReduceLogSum", "Sqrt"), frozenset({0})),
}
"""What is not defined for all numbers."""

_SETTINGS = {
    **{"Clip": 1, "Expand": 1, "NonMaxSuppression": 2, "OneHot": 1, "Pad": 1, "Range": 0, "Reshape": 1, "Resize": 1},
    **{"Slice": 1, "Tile": 1, "TopK": 1, "Upsample": 1, "RoiAlign": 1, "MaxRoiPool": 1, "Col2Im": 1, "MaxUnpool": 1},
    **{"Dropout": 1, "DFT": 1, "MelWeightMatrix": 0},
}
"""Inputs that are numbers of how an operator runs, such as sizes and bounds, by the first of them."""

_HARMLESS_SETTINGS = frozenset({"Clip", "Dropout", "NonMaxSuppression"})
"""Of these any number will do: answers have the same sizes, or sizes that depend on data anyway."""

_INDEXED = {
    **{"Gather": 1, "GatherElements": 1, "GatherND": 1, "ScatterElements": 1, "ScatterND": 1, "TensorScatter": 2},
    **{"AffineGrid": 1, "CenterCropPad": 1, "ConstantOfShape": 0, "Loop": 0, "Split": 1, "SplitToSequence": 1},
    **dict.fromkeys(("CumProd", "CumSum", "ReverseSequence", "SequenceAt", "SequenceErase", "Squeeze", "Trilu"), 1),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"), 1),
    **dict.fromkeys(("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Scatter", "STFT", "Unsqueeze"), 1),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), 1),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), 0),
    **{"GRU": 4, "LSTM": 4, "RNN": 4, "SequenceInsert": 2, "Attention": 6, "RotaryEmbedding": 3},
}
"""Positions of indices and of sizes, by operator."""

_DECIDING = {"Compress": 1, "If": 0, "Loop": 1, "NonZero": 0, "Unique": 0}
"""Positions of what decides which elements there are, or which graph runs."""


def counts(node: Any, position: int) -> bool:  # noqa: ANN401  onnx.NodeProto
    """Whether an input is sizes, indices or other numbers of how an operator runs."""
    if node is None or node.domain not in OWN:
        return False
    return position >= _SETTINGS.get(node.op_type, position + 1) or _INDEXED.get(node.op_type) == position


def shapes(node: Any, position: int) -> bool:  # noqa: ANN401  onnx.NodeProto
    """Whether an operator may fail, or run for ever, for a number that it does not know how to take."""
    if node.op_type == "Loop" and position == 1:
        return not node.input[0]
    if node.op_type == "RoiAlign" and position == 1:  # of a region it takes as many samples as its size asks for
        return not any(each.name == "sampling_ratio" and each.i > 0 for each in node.attribute)
    filling = node.op_type in {"OneHot", "Pad"} and position == 2
    return counts(node, position) and node.op_type not in _HARMLESS_SETTINGS and not filling


def decides(node: Any, position: int) -> bool:  # noqa: ANN401  onnx.NodeProto
    """Whether an input decides which elements there are, or which graph runs."""
    return _DECIDING.get(node.op_type) == position


def is_in(node: Any, position: int, table: dict[str, Container[int]]) -> bool:  # noqa: ANN401
    """Whether a table names this input of an operator."""
    return node is not None and node.domain in OWN and position in table.get(node.op_type, ())


def passed(node: Any, position: int) -> bool:  # noqa: ANN401
    """Whether answers are computed from this input alone, or select by it."""
    op = node.op_type
    known = op in _MOVES or op in _MAPS or op in ABOVE or op in SQUARES or op in _PASSED
    return node.domain in OWN and known and position in _PASSED.get(op, (0,))


def adds_products(node: Any, position: int) -> bool:  # noqa: ANN401
    """Whether answers are sums of products of this input's elements, with no factor below zero beside them."""
    factors = [each.f for each in node.attribute if each.name in {"alpha", "beta"}]
    return is_in(node, position, _PRODUCTS) and all(factor >= 0 for factor in factors)


def moved(node: Any, position: int) -> bool:  # noqa: ANN401
    """Whether the very elements of this input come out, but for their type and sign."""
    return node.op_type in _MOVES and passed(node, position)


def moved_on(_: str, node: Any, position: int) -> tuple[int, ...]:  # noqa: ANN401
    """Outputs that hold the very elements of this input, as `Flows` asks for them."""
    return outputs(node) if moved(node, position) else ()


def outputs(node: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Those outputs of a node that are no indices of its own."""
    return (0,) if node.op_type in _FIRST_ONLY else tuple(range(len(node.output)))
