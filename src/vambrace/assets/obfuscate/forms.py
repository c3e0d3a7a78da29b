"""Other spellings of common operators, each equal to the operator but for rounding.

A form takes the edit, the node and what is known of its input, and writes nodes whose last one makes the node's output.
Forms that onnxruntime 1.32 turns back (Gelu by Erf as exports write it, MatMul and Add for Gemm) are not among them.
Infinities are kept: (x + |x|) / 2 for Relu is none of them, since it makes NaN of -inf.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.edits import Edit
    from vambrace.assets.obfuscate.graph import Node

__all__ = ["FORMS", "Form", "Known", "fits"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a form may rely on.

    Attributes:
        dtype: of the input, float32 or float64.
        rank: of the input.
        features: elements of a row of the input, where the model settles them; None for sizes that calls may choose.
        weights: inputs that are initialisers, by position.
        opset: of the net's own operators.
    """

    dtype: np.dtype[Any]
    rank: int
    features: int | None
    weights: Mapping[int, NDArray[Any]]
    opset: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One spelling.

    Attributes:
        title: what it is written as.
        write: adds the nodes.
        when: whether it can be used for a node.
        since: operator set from which on its operators are there.
        operators: how many it takes that the one did not, with what runtimes fuse no longer.
    """

    title: str
    write: Callable[[Edit, Node, Known], object]
    when: Callable[[Node, Known], bool] = lambda node, known: True
    since: int = 7
    operators: int = 3


def fits(node: Node, known: Known) -> list[Form]:
    """The forms that a node can be written in."""
    if not node.is_a(node.op) or len([name for name in node.outputs if name]) != 1:
        return []
    return [form for form in FORMS.get(node.op, ()) if known.opset >= form.since and form.when(node, known)]


def _clipped(edit: Edit, node: Node, known: Known) -> None:
    edit.clip_below(node.inputs[0], 0.0, known.dtype, to=node.outputs[0])


def _clips(node: Node, known: Known) -> bool:
    """Of double precision, onnxruntime does so from operator set 12 on."""
    return known.dtype == "float32" or known.opset >= 12


def _maximum(edit: Edit, node: Node, known: Known) -> None:
    edit.add("Max", node.inputs[0], edit.scalar(0, known.dtype), to=node.outputs[0])


def _chosen(edit: Edit, node: Node, known: Known) -> None:
    zero = edit.scalar(0, known.dtype)
    edit.add("Where", edit.add("Less", node.inputs[0], zero), zero, node.inputs[0], to=node.outputs[0])


def _by_tanh(edit: Edit, node: Node, known: Known) -> None:
    """1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2."""
    half = edit.scalar(0.5, known.dtype)
    tanh = edit.add("Tanh", edit.add("Mul", node.inputs[0], half))
    edit.add("Add", edit.add("Mul", tanh, half), half, to=node.outputs[0])


def _by_exp(edit: Edit, node: Node, known: Known) -> None:
    below = edit.add("Add", edit.add("Exp", edit.add("Neg", node.inputs[0])), edit.scalar(1, known.dtype))
    edit.add("Reciprocal", below, to=node.outputs[0])


def _by_sigmoid(edit: Edit, node: Node, known: Known) -> None:
    two = edit.scalar(2, known.dtype)
    doubled = edit.add("Mul", edit.add("Sigmoid", edit.add("Mul", node.inputs[0], two)), two)
    edit.add("Sub", doubled, edit.scalar(1, known.dtype), to=node.outputs[0])


def _steeper(edit: Edit, node: Node, known: Known) -> None:
    slope = edit.scalar(float(node.value("alpha", 0.01)), known.dtype)
    edit.add("Max", node.inputs[0], edit.add("Mul", node.inputs[0], slope), to=node.outputs[0])


def _sides(edit: Edit, node: Node, known: Known) -> None:
    """Another slope for what is below 0."""
    value, slope = node.inputs[0], edit.scalar(float(node.value("alpha", 0.01)), known.dtype)
    below = edit.add("Min", value, edit.scalar(0, known.dtype))
    above = edit.add("Max", value, edit.scalar(0, known.dtype))
    edit.add("Add", above, edit.add("Mul", below, slope), to=node.outputs[0])


def _spelled_softmax(edit: Edit, node: Node, known: Known) -> None:
    axis = known.rank - 1
    highest = edit.reduce("ReduceMax", node.inputs[0], [axis], keep=True)
    powers = edit.add("Exp", edit.add("Sub", node.inputs[0], highest))
    edit.add("Div", powers, edit.reduce("ReduceSum", powers, [axis], keep=True), to=node.outputs[0])


def _last_axis(node: Node, known: Known) -> bool:
    axis = int(node.value("axis", -1 if known.opset >= 13 else 1))
    return axis in {-1, known.rank - 1}


def _spelled_gelu(edit: Edit, node: Node, known: Known) -> None:
    """Half of x, and half of x times erf(x / sqrt 2)."""
    half = edit.add("Mul", node.inputs[0], edit.scalar(0.5, known.dtype))
    erf = edit.add("Erf", edit.add("Mul", node.inputs[0], edit.scalar(math.sqrt(0.5), known.dtype)))
    edit.add("Add", half, edit.add("Mul", erf, half), to=node.outputs[0])


def _spelled_swish(edit: Edit, node: Node, known: Known) -> None:
    gate = edit.add("HardSigmoid", node.inputs[0], alpha=1 / 6, beta=0.5)
    edit.add("Mul", gate, node.inputs[0], to=node.outputs[0])


def _summed(edit: Edit, node: Node, known: Known) -> None:
    edit.add("Sum", *node.inputs[::-1], to=node.outputs[0])


def _minus_negative(edit: Edit, node: Node, known: Known) -> None:
    edit.add("Sub", node.inputs[0], edit.add("Neg", node.inputs[1]), to=node.outputs[0])


def _plus_negative(edit: Edit, node: Node, known: Known) -> None:
    edit.add("Add", edit.add("Neg", node.inputs[1]), node.inputs[0], to=node.outputs[0])


def _two_values(node: Node, known: Known) -> bool:
    return not known.weights and len(node.inputs) == 2


def _mean_over_places(edit: Edit, node: Node, known: Known) -> None:
    edit.reduce("ReduceMean", node.inputs[0], list(range(2, known.rank)), keep=True, to=node.outputs[0])


def _reshaped(edit: Edit, node: Node, known: Known) -> None:
    """With both sizes stated: what is left cannot be told where there are no rows."""
    assert known.features is not None
    edit.reshape(node.inputs[0], [0, known.features], to=node.outputs[0])


def _rows(node: Node, known: Known) -> bool:
    """Whether a Flatten keeps the first axis, which must be there, and what it makes of the others is known."""
    return node.value("axis", 1) == 1 and known.rank > 0 and bool(known.features)


def _as_convolution(edit: Edit, node: Node, known: Known) -> None:
    """(n, k) as k channels of one place."""
    stored = bool(node.value("transB", 0))
    matrix = edit.weight(node.inputs[1]) if stored else edit.weight(node.inputs[1]).T
    kernel = edit.instead(node.inputs[1], matrix[:, :, None, None], transposed=not stored)
    bias = [edit.instead(name, edit.weight(name).reshape(-1)) for name in node.inputs[2:3] if name]
    gives, takes = matrix.shape
    made = edit.add("Conv", edit.reshape(node.inputs[0], [0, takes, 1, 1]), kernel, *bias)
    edit.reshape(made, [0, gives], to=node.outputs[0])


def _plain_matrix(node: Node, known: Known) -> bool:
    """Whether a Gemm is x W + b with constant W (k, m) and b (m); onnxruntime convolves no double precision."""
    matrix, bias = known.weights.get(1), known.weights.get(2)
    given = len([name for name in node.inputs if name]) - 1
    factors = (float(node.value("alpha", 1.0)), float(node.value("beta", 1.0)))
    if matrix is None or not matrix.size or set(known.weights) != set(range(1, given + 1)) or factors != (1.0, 1.0):
        return False
    columns = matrix.shape[0 if node.value("transB", 0) else 1]
    return (
        known.rank == 2
        and known.dtype == "float32"
        and not node.value("transA", 0)
        and (bias is None or bias.size == columns)
    )


FORMS: dict[str, tuple[Form, ...]] = {
    "Add": (
        Form(title="Sum", operators=2, write=_summed, when=_two_values, since=8),
        Form(title="Sub of Neg", write=_minus_negative, when=_two_values),
    ),
    "Flatten": (Form(title="Reshape", operators=0, write=_reshaped, when=_rows),),
    "Gelu": (
        Form(
            title="Erf",
            operators=6,
            write=_spelled_gelu,
            when=lambda node, known: node.value("approximate", "none") == "none",
        ),
    ),
    "Gemm": (Form(title="Conv", write=_as_convolution, when=_plain_matrix),),
    "GlobalAveragePool": (Form(title="ReduceMean", operators=1, write=_mean_over_places),),
    "HardSwish": (Form(title="HardSigmoid and Mul", write=_spelled_swish),),
    "LeakyRelu": (
        Form(title="Max", write=_steeper, when=lambda node, known: 0 < float(node.value("alpha", 0.01)) <= 1, since=8),
        Form(title="Min and Max", operators=4, write=_sides, since=8),
    ),
    "Relu": (
        Form(title="Clip", operators=2, write=_clipped, when=_clips),
        Form(title="Max", operators=2, write=_maximum, since=8),
        Form(title="Where", write=_chosen, since=9),
    ),
    "Sigmoid": (Form(title="Tanh", operators=4, write=_by_tanh), Form(title="Exp", operators=5, write=_by_exp)),
    "Softmax": (Form(title="Exp", operators=6, write=_spelled_softmax, when=_last_axis),),
    "Sub": (Form(title="Add of Neg", write=_plus_negative, when=_two_values),),
    "Tanh": (Form(title="Sigmoid", operators=4, write=_by_sigmoid),),
}
"""Forms by operator."""
