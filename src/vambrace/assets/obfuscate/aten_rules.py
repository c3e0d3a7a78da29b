"""How operators of aten are drawn with those of ONNX: one rule each, which draws or says that it cannot."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import torch

from vambrace.assets.obfuscate.aten_layout import LAYOUT, same_value
from vambrace.assets.obfuscate.aten_parts import Given, Rule, data_of, dtype_of, first_of, for_each_axis
from vambrace.assets.obfuscate.programs import is_tensor

if TYPE_CHECKING:
    from torch import fx

    from vambrace.assets.obfuscate.aten import Canvas

__all__ = ["rule_for"]


def rule_for(node: fx.Node) -> Rule | None:
    """The rule of a node that calls a function, by the operator's name without its overload."""
    if node.target is operator.getitem:
        # Drawn together with what it takes its value from.
        return None
    if not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return _sizes if not is_tensor(node) else None
    namespace, _, name = node.target.name().partition("::")
    if namespace != "aten":
        return None
    return _RULES.get(name.split(".")[0])


def _sizes(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    """Arithmetic on sizes reads no values."""
    del given
    return not any(canvas.known(each) or each.op == "get_attr" for each in node.all_input_nodes)


def _measured(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    canvas.emit("Shape", [canvas.name(given["self"])], canvas.inner())
    return not is_tensor(node)


def _unary(op: str, *, exact: bool = False) -> Rule:
    """An operator of one value; `exact` where vectors and single numbers are computed alike to the bit."""

    def draw(canvas: Canvas, node: fx.Node, given: Given) -> bool:
        value = data_of(given)
        if not canvas.known(value):
            return False
        if canvas.wary and not exact:
            # A join of one value: what is behind must be in order, and what is before may move.
            canvas.emit("Concat", [canvas.name(value)], node, axis=0)
            return True
        if op == "Swish":
            shares = canvas.emit("Sigmoid", [canvas.name(value)], canvas.inner())
            canvas.emit("Mul", [canvas.name(value), shares], node)
            return True
        canvas.emit(op, [canvas.name(value)], node, **_settings(op, given))
        return True

    return draw


def _settings(op: str, given: Given) -> dict[str, Any]:
    if op == "HardSigmoid":
        return {"alpha": 1 / 6}
    if op == "LeakyRelu":
        return {"alpha": float(given["negative_slope"])}
    return {"axis": int(given["dim"])} if op in {"Softmax", "LogSoftmax"} else {}


def _dropout(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    return not given["train"] and same_value(canvas, node, given)


def _clip(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    low, high = given.get("min_val", given.get("min")), given.get("max_val", given.get("max"))
    if len(given) == 1:
        low, high = 0.0, 6.0  # relu6
    if not canvas.known(given["self"]) or any(isinstance(each, torch.fx.Node) for each in (low, high)):
        return False
    dtype = dtype_of(node)
    bounds = ["" if each is None else canvas.constant(each, dtype) for each in (low, high)]
    canvas.emit("Clip", [canvas.name(given["self"]), *bounds], node)
    return True


def _binary(op: str) -> Rule:
    def draw(canvas: Canvas, node: fx.Node, given: Given) -> bool:
        if given.get("alpha", 1) != 1 or given.get("rounding_mode") is not None:
            return False
        names: list[str] = []
        operands: list[Any] = [given["self"], given["other"]]
        for each in operands:
            if type(each) in {int, float}:
                names.append(canvas.constant(each, dtype_of(node)))
            elif canvas.known(each) and each.meta["val"].dtype == node.meta["val"].dtype:
                names.append(canvas.name(each))
            else:
                return False
        canvas.emit(op, names, node)
        return True

    return draw


def _conv(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    value, weight, bias = given["input"], given["weight"], given["bias"]
    if not canvas.known(value, weight) or (bias is not None and not canvas.known(bias)):
        return False
    rank = weight.meta["val"].ndim - 2
    if value.meta["val"].ndim != rank + 2:
        return False
    padding = given["padding"]
    attributes: dict[str, Any] = {
        "group": int(given["groups"]),
        "strides": for_each_axis(given["stride"], rank),
        "dilations": for_each_axis(given["dilation"], rank),
    }
    if padding == "same":
        attributes["auto_pad"] = "SAME_UPPER"
    elif padding != "valid":
        attributes["pads"] = for_each_axis(padding, rank) * 2
    turned = bool(given.get("transposed")) or "conv_transpose" in str(node.target)
    if turned:
        attributes["output_padding"] = for_each_axis(given["output_padding"], rank)
    inputs = [canvas.name(value), canvas.name(weight), *([canvas.name(bias)] if bias is not None else [])]
    canvas.emit("ConvTranspose" if turned else "Conv", inputs, node, **attributes)
    return True


def _linear(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    value, weight, bias = given["input"], given["weight"], given["bias"]
    if not canvas.known(value, weight) or (bias is not None and not canvas.is_weight(bias)):
        return False
    matrix = canvas.turned(weight)
    if matrix is None:
        matrix = canvas.emit("Transpose", [canvas.name(weight)], canvas.inner(), perm=[1, 0])
    return _product(canvas, node, canvas.name(value), matrix, bias)


def _product(canvas: Canvas, node: fx.Node, value: str, matrix: str, bias: fx.Node | None) -> bool:
    made = canvas.emit("MatMul", [value, matrix], node if bias is None else canvas.inner())
    if bias is not None:
        canvas.emit("Add", [made, canvas.name(bias)], node)
    return True


def _matmul(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    first, second = given["self"], given["mat2" if "mat2" in given else "other"]
    if not canvas.known(first, second):
        return False
    canvas.emit("MatMul", [canvas.name(first), canvas.name(second)], node)
    return True


def _addmm(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    bias, first, second = given["self"], given["mat1"], given["mat2"]
    if given["beta"] != 1 or given["alpha"] != 1 or not canvas.known(first, second) or not canvas.is_weight(bias):
        return False
    return _product(canvas, node, canvas.name(first), canvas.name(second), bias)


def _batch_norm(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    parts = [given["input"], given["weight"], given["bias"], given["running_mean"], given["running_var"]]
    if given.get("training") or not canvas.known(*parts):
        return False
    output = first_of(node)
    if output is None:
        return False
    canvas.emit("BatchNormalization", [canvas.name(each) for each in parts], output, epsilon=float(given["eps"]))
    return True


def _layer_norm(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    parts = [each for each in (given["input"], given["weight"], given["bias"]) if each is not None]
    output = first_of(node)
    if given["weight"] is None or not canvas.known(*parts) or output is None:
        return False
    axis = -len(given["normalized_shape"])
    names = [canvas.name(each) for each in parts]
    canvas.emit("LayerNormalization", names, output, axis=axis, epsilon=float(given["eps"]))
    return True


def _group_norm(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    parts = [given["input"], given["weight"], given["bias"]]
    if not canvas.known(*parts):
        return False
    names = [canvas.name(each) for each in parts]
    canvas.emit("GroupNormalization", names, node, num_groups=int(given["num_groups"]), epsilon=float(given["eps"]))
    return True


def _pool(op: str) -> Rule:
    def draw(canvas: Canvas, node: fx.Node, given: Given) -> bool:
        value, output = given["self"], first_of(node)
        kernel = given["kernel_size"]
        rank = value.meta["val"].ndim - 2
        if not canvas.known(value) or output is None or rank < 1 or given.get("divisor_override") is not None:
            return False
        if len(kernel) not in {1, rank}:
            return False
        attributes: dict[str, Any] = {
            "kernel_shape": for_each_axis(kernel, rank),
            "strides": for_each_axis(given["stride"] or kernel, rank),
            "pads": for_each_axis(given["padding"], rank) * 2,
            "ceil_mode": int(given["ceil_mode"]),
        }
        if "dilation" in given:
            attributes["dilations"] = for_each_axis(given["dilation"], rank)
        if "count_include_pad" in given:
            attributes["count_include_pad"] = int(given["count_include_pad"])
        canvas.emit(op, [canvas.name(value)], output, **attributes)
        return True

    return draw


def _global_pool(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    value = given["self"]
    if not canvas.known(value) or any(size != 1 for size in given["output_size"]):
        return False
    if value.meta["val"].ndim != len(given["output_size"]) + 2:
        return False
    canvas.emit("GlobalAveragePool", [canvas.name(value)], node)
    return True


def _reduce(op: str) -> Rule:
    def draw(canvas: Canvas, node: fx.Node, given: Given) -> bool:
        value, axes = given["self"], given.get("dim")
        if not canvas.known(value) or not axes or value.meta["val"].dtype != node.meta["val"].dtype:
            return False
        names = [canvas.name(value), canvas.constant(list(axes))]
        canvas.emit(op, names, node, keepdims=int(bool(given.get("keepdim"))))
        return True

    return draw


def _embedding(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    if not canvas.known(given["weight"], given["indices"]):
        return False
    canvas.emit("Gather", [canvas.name(given["weight"]), canvas.name(given["indices"])], node, axis=0)
    return True


def _attention(canvas: Canvas, node: fx.Node, given: Given) -> bool:
    """softmax(q k^T * scale + mask) v, as torch documents it."""
    query, key, value, mask = given["query"], given["key"], given["value"], given["attn_mask"]
    asked = [query, key, value, *([mask] if mask is not None else [])]
    plain = given["dropout_p"] == 0 and not given.get("enable_gqa") and canvas.known(*asked)
    if not plain or query.meta["val"].dtype not in {torch.float32, torch.float64}:
        return False
    if mask is not None and mask.meta["val"].dtype != query.meta["val"].dtype:
        return False
    rank = query.meta["val"].ndim
    order = [*range(rank - 2), rank - 1, rank - 2]
    turned = canvas.emit("Transpose", [canvas.name(key)], canvas.inner(), perm=order)
    scores = canvas.emit("MatMul", [canvas.name(query), turned], canvas.inner())
    scale = given["scale"] or 1.0 / math.sqrt(query.meta["val"].shape[-1])
    scores = canvas.emit("Mul", [scores, canvas.constant(scale, dtype_of(node))], canvas.inner())
    if given["is_causal"]:
        sizes = [query.meta["val"].shape[-2], key.meta["val"].shape[-2]]
        scores = canvas.emit("Add", [scores, canvas.outside(sizes)], canvas.inner())
    if mask is not None:
        scores = canvas.emit("Add", [scores, canvas.name(mask)], canvas.inner())
    shares = canvas.emit("Softmax", [scores], canvas.inner(), axis=-1)
    canvas.emit("MatMul", [shares, canvas.name(value)], node)
    return True


_ROUNDED = {
    **{"erf": "Erf", "tanh": "Tanh", "sigmoid": "Sigmoid", "gelu": "Gelu", "silu": "Swish", "mish": "Mish"},
    **{"elu": "Elu", "selu": "Selu", "celu": "Celu", "softplus": "Softplus", "exp": "Exp", "log": "Log"},
    **{"sin": "Sin", "cos": "Cos", "tan": "Tan", "sinh": "Sinh", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh"},
    **{"sqrt": "Sqrt", "reciprocal": "Reciprocal", "hardswish": "HardSwish", "hardsigmoid": "HardSigmoid"},
    **{"softmax": "Softmax", "_softmax": "Softmax", "log_softmax": "LogSoftmax", "_log_softmax": "LogSoftmax"},
}
_BITWISE = {"abs": "Abs", "leaky_relu": "LeakyRelu", "neg": "Neg", "relu": "Relu", "sign": "Sign"}
_RULES: dict[str, Rule] = {
    **LAYOUT,
    **{name: _unary(op) for name, op in _ROUNDED.items()},
    **{name: _unary(op, exact=True) for name, op in _BITWISE.items()},
    **dict.fromkeys(("clamp", "hardtanh", "relu6"), _clip),
    **{"add": _binary("Add"), "sub": _binary("Sub"), "mul": _binary("Mul"), "div": _binary("Div")},
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    "linear": _linear,
    **dict.fromkeys(("bmm", "matmul", "mm"), _matmul),
    "addmm": _addmm,
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), _layer_norm),
    "group_norm": _group_norm,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices"), _pool("MaxPool")),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _pool("AveragePool")),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"), _global_pool),
    **{"mean": _reduce("ReduceMean"), "sum": _reduce("ReduceSum"), "amax": _reduce("ReduceMax")},
    "embedding": _embedding,
    "dropout": _dropout,
    "scaled_dot_product_attention": _attention,
    "sym_size": _measured,
}
