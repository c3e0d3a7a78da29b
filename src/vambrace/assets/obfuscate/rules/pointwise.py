"""Operators that work on each element, with broadcasting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.assets.obfuscate.axes import Axis, stiffen, tie
from vambrace.assets.obfuscate.rules.view import Rule

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.graph import Node
    from vambrace.assets.obfuscate.rules.view import View

__all__ = ["POINTWISE"]

_CURVES = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip", "Cos"),
    *("Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN"),
    *("LeakyRelu", "Log", "Mish", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin"),
    *("Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
_PAIRS = (
    *("And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Greater", "GreaterOrEqual", "Less"),
    *("LessOrEqual", "Max", "Min", "Mod", "Or", "PRelu", "Pow", "Where", "Xor"),
)


def _same(node: Node, view: View) -> list[list[Axis]]:
    return [view.of(node, 0)]


def _curve(node: Node, view: View) -> list[list[Axis]]:
    stiffen(*view.of(node, 0))
    return [view.of(node, 0)]


def _all(node: Node, view: View) -> list[list[Axis]]:
    return [view.broadcast([view.axes[name] for name in node.inputs], linear=False)]


def _added(node: Node, view: View) -> list[list[Axis]]:
    return [view.broadcast([view.axes[name] for name in node.inputs], linear=True)]


def _multiplied(node: Node, view: View) -> list[list[Axis]]:
    """Linear in an axis that only one factor has; of a quotient, only in axes of its numerator."""
    first, second = view.of(node, 0), view.of(node, 1)
    rank = max(len(first), len(second))
    made: list[Axis] = []
    for place in range(rank, 0, -1):
        a = first[-place] if place <= len(first) and first[-place].size != 1 else None
        b = second[-place] if place <= len(second) and second[-place].size != 1 else None
        if b is not None and (a is not None or node.op == "Div"):
            stiffen(b)
        if a is not None and b is not None:
            tie(a, b)
        made.append(a or b or Axis.leaf(1))
    return [made]


POINTWISE: dict[str, Rule] = {
    **{op: Rule(_curve, 1) for op in _CURVES},
    **{op: Rule(_all) for op in _PAIRS},
    **{op: Rule(_added) for op in ("Add", "Sub", "Sum", "Mean")},
    **{op: Rule(_multiplied) for op in ("Mul", "Div")},
    **{op: Rule(_same, 1) for op in ("Identity", "Neg")},
}
