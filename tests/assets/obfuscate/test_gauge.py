"""Factors pass from layer to layer through what lets them through, and through nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from exact_nets import LEVELS, SIZE, Builder, differences, images
from vambrace.assets.obfuscate.gauge import find_gauge
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.pipeline import onnx_model, undo

Middle = Callable[[Builder, str], tuple[str, int]]
C = 8


def _one(op: str, **attributes: Any) -> Middle:
    return lambda b, x: (b.add(op, x, **attributes), C)


def _constant(op: str, array: Any, *, first: bool = False) -> Middle:
    def middle(b: Builder, x: str) -> tuple[str, int]:
        weight = b.weight(np.asarray(array, np.float32))
        return b.add(op, *((weight, x) if first else (x, weight))), C

    return middle


def _residual(b: Builder, x: str) -> tuple[str, int]:
    return b.add("Add", b.conv(b.add("Relu", x), C, C), b.conv(x, C, C)), C


def _same_twice(b: Builder, x: str) -> tuple[str, int]:
    return b.add("Add", b.conv(b.add("Relu", x), C, C), x), C


def _concat(axis: int) -> Middle:
    def middle(b: Builder, x: str) -> tuple[str, int]:
        return b.add("Concat", x, b.conv(x, C, C), axis=axis), C * (2 if axis in {1, -3} else 1)

    return middle


def _split(b: Builder, x: str) -> tuple[str, int]:
    left, right = b.name(), b.name()
    b.nodes.append(onnx.helper.make_node("Split", [x, b.weight(np.array([3, C - 3]))], [left, right], axis=1))
    return b.add("Concat", right, left, axis=1), C


def _slice(starts: list[int], ends: list[int], axes: list[int], steps: list[int], channels: int) -> Middle:
    def middle(b: Builder, x: str) -> tuple[str, int]:
        return b.add("Slice", x, *(b.weight(np.array(each)) for each in (starts, ends, axes, steps))), channels

    return middle


def _gather(b: Builder, x: str) -> tuple[str, int]:
    return b.add("Gather", x, b.weight(np.array([7, 0, 3, 3, 1])), axis=1), 5


def _pad(b: Builder, x: str) -> tuple[str, int]:
    return b.add("Pad", x, b.weight(np.array([0, 0, 1, 2, 0, 0, 2, 1]))), C


def _resize(mode: str) -> Middle:
    def middle(b: Builder, x: str) -> tuple[str, int]:
        return b.add("Resize", x, "", b.weight(np.array([1, 1, 2, 2], np.float32)), mode=mode), C

    return middle


def _transposed_convolution(group: int) -> Middle:
    def middle(b: Builder, x: str) -> tuple[str, int]:
        kernel = b.weight(b.normal(C, 6 // group, 2, 2))
        return b.add("ConvTranspose", x, kernel, b.weight(b.normal(6)), strides=[2, 2], group=group), 6

    return middle


def _transposes(b: Builder, x: str) -> tuple[str, int]:
    return b.add("Transpose", b.add("Relu", b.add("Transpose", x, perm=[0, 2, 3, 1])), perm=[0, 3, 1, 2]), C


def _last_axis(b: Builder, x: str) -> tuple[str, int]:
    y = b.add("Transpose", x, perm=[0, 2, 3, 1])
    y = b.add("Add", b.add("MatMul", y, b.weight(b.normal(C, 5))), b.weight(b.normal(5)))
    return b.add("Transpose", b.add("Relu", y), perm=[0, 3, 1, 2]), 5


def _means(b: Builder, x: str) -> tuple[str, int]:
    return b.add("ReduceMax", b.add("ReduceMean", x, axes=[-1]), axes=[2]), C


def _prelu(b: Builder, x: str) -> tuple[str, int]:
    return b.add("PRelu", x, b.weight(b.normal(C, 1, 1))), C


def _batch_norm(b: Builder, x: str) -> tuple[str, int]:
    return b.add("Relu", b.batch_norm(x, C)), C


def _grouped(group: int) -> Middle:
    return lambda b, x: (b.conv(x, C, 12 if group < C else C, group=group), 12 if group < C else C)


def _gated(b: Builder, x: str) -> tuple[str, int]:
    return b.add("Mul", x, b.add("Sigmoid", x)), C


def _twice(b: Builder, x: str) -> tuple[str, int]:
    return b.add("Mul", x, x), C


POSITIVE: dict[str, Middle] = {
    **{op: _one(op) for op in ("Relu", "LeakyRelu", "Abs", "Neg", "Identity", "Dropout")},
    "PRelu": _prelu,
    "MaxPool": _one("MaxPool", kernel_shape=[2, 2]),
    "AveragePool": _one("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
    "GlobalAveragePool": _one("GlobalAveragePool"),
    "GlobalMaxPool": _one("GlobalMaxPool"),
    "Max with zero": _constant("Max", 0.0),
    "add a constant a channel": _constant("Add", np.arange(1, C + 1).reshape(C, 1, 1)),
    "subtract from a constant": _constant("Sub", np.arange(1, C + 1).reshape(1, C, 1, 1), first=True),
    "multiply by a constant a channel": _constant("Mul", np.arange(1, C + 1).reshape(C, 1, 1)),
    "divide by a constant a channel": _constant("Div", np.arange(1, C + 1).reshape(1, C, 1, 1)),
    "BatchNormalization": _batch_norm,
    "two branches": _residual,
    "a branch and what it comes from": _same_twice,
    "channels beside each other": _concat(1),
    "axis from the end": _concat(-3),
    "rows beside each other": _concat(2),
    "Split": _split,
    "some channels": _slice([6, 2], [0, 9], [1, 2], [-2, 1], 3),
    "some rows": _slice([1], [9], [2], [2], C),
    "Gather": _gather,
    "Pad": _pad,
    "nearest": _resize("nearest"),
    "linear": _resize("linear"),
    "ConvTranspose": _transposed_convolution(1),
    "ConvTranspose in groups": _transposed_convolution(2),
    "Transpose": _transposes,
    "MatMul": _last_axis,
    "means over space": _means,
    "groups": _grouped(4),
    "depthwise": _grouped(C),
}
ODD = {
    **{op: _one(op) for op in ("Tanh", "Erf", "Sin", "Softsign", "Atan", "Sign", "Round", "Identity", "Neg")},
    "AveragePool": POSITIVE["AveragePool"],
    "two branches": lambda b, x: (b.add("Add", b.conv(b.add("Tanh", x), C, C), b.conv(x, C, C)), C),
    "add a constant a channel": POSITIVE["add a constant a channel"],
    "BatchNormalization": lambda b, x: (b.batch_norm(x, C), C),
    "Clip": lambda b, x: (b.add("Clip", x, b.weight(np.float32(-0.7)), b.weight(np.float32(0.7))), C),
    "channels beside each other": POSITIVE["channels beside each other"],
    "groups": POSITIVE["groups"],
    "ConvTranspose": POSITIVE["ConvTranspose"],
}


def _without_axes(op: str) -> Middle:
    """No axes mean all of them, so one number comes out, and is taken from every channel."""

    def middle(b: Builder, x: str) -> tuple[str, int]:
        return b.add("Sub", x, b.add(op, x, b.weight(np.zeros(0, np.int64)))), C

    return middle


NOT_POSITIVE = {
    "sums over no axes": _without_axes("ReduceSum"),
    **{op: _one(op) for op in ("Tanh", "Sigmoid", "Exp", "Elu", "Softplus", "HardSwish", "Round")},
    "Softmax": _one("Softmax", axis=1),
    "Max with one": _constant("Max", 1.0),
    "add one number": _constant("Add", 1.5),
    "x * Sigmoid(x)": _gated,
    "x * x": _twice,
    "cubic": _resize("cubic"),
    "Clip": lambda b, x: (b.add("Clip", x, b.weight(np.float32(0)), b.weight(np.float32(6))), C),
    "pads with ones": lambda b, x: (
        b.add("Pad", x, b.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1])), b.weight(np.float32(1))),
        C,
    ),
    "Flatten of rows": lambda b, x: (b.add("Reshape", x, b.weight(np.array([2, SIZE, SIZE, C]))), SIZE),
}
NOT_ODD = {
    **{op: _one(op) for op in ("Relu", "LeakyRelu", "Abs", "Sigmoid", "Floor", "GlobalMaxPool")},
    "MaxPool": POSITIVE["MaxPool"],
    "divide by a constant a channel": POSITIVE["divide by a constant a channel"],
    "Max with zero": POSITIVE["Max with zero"],
    "Clip": NOT_POSITIVE["Clip"],
    "x * x": _twice,
}


def between(middle: Middle) -> tuple[onnx.ModelProto, str]:
    """A convolution, something, a convolution; and the name of the first kernel."""
    b = Builder(7)
    x = b.conv("image", 3, C)
    first = b.nodes[0].input[1]
    y, channels = middle(b, x)
    return b.model({b.conv(y, channels, 4, 1): (None, 4, None, None)}), first


def scaled(model: onnx.ModelProto, passes: str, name: str) -> tuple[Any, np.ndarray, onnx.ModelProto]:
    """The map's entry, the factor of each row of a weight, and the model."""
    done = onnx_model(model, passes=[passes], seed=3)
    assert undo(done.model, done.map).model == model
    before, after = (Net(each).graph.initialisers[name] for each in (model, done.model))
    return done.map.passes[0], (after / before).reshape(len(before), -1), done.model


@pytest.mark.parametrize("what", POSITIVE)
def test_positive_factors_pass_through(what: str) -> None:
    model, first = between(POSITIVE[what])
    entry, factors, done = scaled(model, "scaling", first)
    assert entry.done > 0
    assert (factors == factors[:, :1]).all()
    assert 1 < len(np.unique(factors)) <= 9
    assert set(np.unique(np.log2(factors))) <= set(range(-8, 1))
    assert differences(model, done, images(1), levels=LEVELS[::3]) == []


@pytest.mark.parametrize("what", ODD)
def test_signs_pass_through(what: str) -> None:
    model, first = between(ODD[what])
    entry, factors, done = scaled(model, "signs", first)
    assert entry.done > 0
    assert (factors == factors[:, :1]).all()
    assert set(np.unique(factors)) == {-1.0, 1.0}
    assert differences(model, done, images(1), levels=LEVELS[::3]) == []


@pytest.mark.parametrize("what", NOT_POSITIVE)
def test_positive_factors_stop_at(what: str) -> None:
    model, first = between(NOT_POSITIVE[what])
    _, factors, _ = scaled(model, "scaling", first)
    assert (factors == 1).all()


@pytest.mark.parametrize("what", NOT_ODD)
def test_signs_stop_at(what: str) -> None:
    model, first = between(NOT_ODD[what])
    _, factors, _ = scaled(model, "signs", first)
    assert (factors == 1).all()


def test_features_of_a_channel_share_its_factor() -> None:
    for op, extra in (("Flatten", []), ("Reshape", [np.array([2, -1])])):
        b = Builder(1)
        x = b.add("Relu", b.conv("image", 3, 4))
        x = b.add(op, x, *map(b.weight, extra))
        matrix = b.weight(b.normal(4 * SIZE * SIZE, 5))
        model = b.model({b.add("MatMul", x, matrix): (2, 5)})
        _, factors, done = scaled(model, "scaling", matrix)
        assert (factors.reshape(4, -1) == factors.reshape(4, -1)[:, :1]).all()
        assert len(np.unique(factors)) > 1
        assert differences(model, done, images(1), levels=LEVELS[::3]) == []


def test_windows_do_not_slide_over_channels() -> None:
    b = Builder(1)
    matrix = b.weight(b.normal(SIZE, 8))
    x = b.add("MaxPool", b.add("MatMul", "image", matrix), kernel_shape=[3, 3], pads=[1] * 4)
    model = b.model({b.add("MatMul", x, b.weight(b.normal(8, 4))): (2, 3, SIZE, 4)})
    _, factors, done = scaled(model, "scaling", matrix)
    assert (factors == 1).all()
    assert differences(model, done, images(1), levels=LEVELS[:1]) == []


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm_both_ways(turned: int) -> None:
    b = Builder(2)
    x = b.add("Flatten", b.add("GlobalAveragePool", "image"))
    for taken, given in ((3, 6), (6, 7), (7, 2)):
        shape = (given, taken) if turned else (taken, given)
        bias = b.weight(b.normal(1, given))
        x = b.add("Relu", b.add("Gemm", x, b.weight(b.normal(*shape)), bias, transB=turned, alpha=0.5, beta=2.0))
    model = b.model({x: (2, 2)})
    done = onnx_model(model, passes=["scaling"], seed=1)
    assert done.map.passes[0].eligible == 13
    assert differences(model, done.model, images(1)) == []
    assert undo(done.model, done.map).model == model


def test_what_others_see_stays() -> None:
    b = Builder(3)
    shared = b.weight(b.normal(C, C, 3, 3))
    seen = b.conv("image", 3, C)
    x = b.add("Conv", b.add("Relu", seen), shared, pads=[1] * 4)
    x = b.add("Conv", b.add("Relu", x), shared, pads=[1] * 4)
    x = b.conv(b.add("Relu", x), C, 4)
    model = b.model({x: (2, 4, SIZE, SIZE), seen: (2, C, SIZE, SIZE)})
    done = onnx_model(model, passes=["scaling"], seed=1)
    assert done.model == model
    assert done.map.passes[0].left == {
        "weights that several nodes share": 2 * C,
        "read by Conv with shared weights": C,
        "read by outputs of the model": 4,
    }


def test_bodies_pin_what_they_read() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 4] image) => (float[2, 4] y) {
        a = MatMul (image, w)  r = Relu (a)
        s = ReduceSum <keepdims = 0> (image)  zero = Constant <value_float = 0.0> ()
        go = Greater (s, zero)
        b = If (go) <then_branch = t () => (float[2, 4] p) { p = Identity (r) },
                     else_branch = e () => (float[2, 4] q) { q = Neg (r) }>
        c = MatMul (r, w2)  y = Add (b, c)
    }"""
    model = onnx.parser.parse_model(text)
    for name in ("w", "w2"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(Builder(1).normal(4, 4), name))
    done = onnx_model(model, passes=["scaling"], seed=1)
    assert done.map.passes[0].done == 0
    assert done.map.passes[0].left["read by If"] == 4


def test_low_precision_has_no_room() -> None:
    b = Builder(4)
    x = b.add("Cast", "image", to=10)
    for _ in range(2):
        kernel = b.weight(b.normal(3, 3, 1, 1).astype(np.float16))
        x = b.add("Relu", b.add("Conv", x, kernel))
    model = b.model({b.add("Cast", x, to=1): (2, 3, SIZE, SIZE)})
    assert onnx_model(model, passes=["scaling", "signs"], seed=1).model == model


def test_double_precision() -> None:
    b = Builder(4)
    x = b.add("Cast", "image", to=11)
    for _ in range(3):
        x = b.add("Relu", b.add("MatMul", x, b.weight(b.normal(SIZE, SIZE).astype(np.float64))))
    model = b.model({b.add("Cast", x, to=1): (2, 3, SIZE, SIZE)})
    done = onnx_model(model, passes=["scaling"], seed=1)
    assert done.map.passes[0].eligible == 2 * SIZE
    assert differences(model, done.model, images(1), levels=LEVELS[:1]) == []


def test_reasons_add_up() -> None:
    model, _ = between(NOT_POSITIVE["Tanh"])
    gauge = find_gauge(Net(model), lambda node: node.op == "Relu", positive=True)
    assert gauge.channels == C + 4
    assert gauge.pins == {"read by Tanh": C, "read by outputs of the model": 4}
    assert len(gauge.free) == 0
