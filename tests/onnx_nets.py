"""Small ONNX networks with random weights, and what they answer, for tests of obfuscation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

_LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def net(
    body: str, *, weights: dict[str, Any], opset: int = 18, ir: int = 8, head: str | None = None
) -> onnx.ModelProto:
    """A model from the text form of a graph, such as `(float[n,4] x) => (float[n,2] y) { y = MatMul(x, w) }`.

    Weights are arrays, or shapes of normal ones scaled to keep variance. A `head` states versions in place of the
    usual one, and operators of other domains are not checked.
    """
    text = head or f'<ir_version: {ir}, opset_import: ["" : {opset}]>'
    model = onnx.parser.parse_model(f"{text}\n g {body}")
    draw = np.random.default_rng(len(body))
    for name, given in weights.items():
        array = np.asarray(given)
        if isinstance(given, tuple):
            spread = math.sqrt(max(1, math.prod(given[1:]) if len(given) > 1 else 1))
            array = (draw.standard_normal(given) / spread).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    return model


def session(model: onnx.ModelProto, level: str = "all") -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = _LEVELS[level]
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feeds(model: onnx.ModelProto, *, rows: int = 3, free: int = 6, seed: int = 0) -> dict[str, Any]:
    """Normal values, or numbers below 8 for whole-number inputs; the first free size is `rows`, others `free`."""
    draw = np.random.default_rng(seed)
    weights = {each.name for each in model.graph.initializer}
    made = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        sizes = [each.dim_value or (free if at else rows) for at, each in enumerate(value.type.tensor_type.shape.dim)]
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        whole = np.issubdtype(kind, np.integer)
        made[value.name] = draw.integers(0, 8, sizes) if whole else draw.standard_normal(sizes).astype(kind)
    return made


def answers(model: onnx.ModelProto, given: dict[str, Any] | None = None, level: str = "all") -> list[np.ndarray]:
    return session(model, level).run(None, feeds(model) if given is None else given)


def apart(original: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The largest difference of a row relative to the largest value in that row."""
    worst = 0.0
    for one, two in zip(original, other, strict=True):
        assert one.shape == two.shape
        assert one.dtype == two.dtype
        a, b = one.reshape(len(one), -1).astype(np.float64), two.reshape(len(two), -1).astype(np.float64)
        worst = max(worst, float((np.abs(a - b).max(axis=1) / np.abs(a).max(axis=1)).max()))
    return worst


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def optimised_operators(model: onnx.ModelProto, folder: Any) -> list[str]:
    """What onnxruntime leaves of a model at its highest level."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return operators(onnx.load(folder / "optimised.onnx"))


def residual() -> onnx.ModelProto:
    """Convolutions with normalisation, a residual sum, a concatenation, pooling, Flatten and two Gemm."""
    positive = np.random.default_rng(3).uniform(0.5, 2.0, (3, 8)).astype(np.float32)
    return net(
        """(float[n,3,8,8] x) => (float[n,5] y) {
            a0 = Conv <pads=[1,1,1,1]> (x, w0)
            a1 = BatchNormalization (a0, s0, b0, m0, v0)
            a2 = Relu (a1)
            c0 = Conv <pads=[1,1,1,1]> (a2, w1)
            c1 = BatchNormalization (c0, s1, b1, m1, v1)
            r0 = Add (c1, a2)
            r1 = Relu (r0)
            d0 = Conv <kernel_shape=[3,3], group=8, pads=[1,1,1,1]> (r1, wd, bd)
            d1 = Conv (r1, wp, bp)
            j0 = Concat <axis=1> (d0, d1)
            p0 = MaxPool <kernel_shape=[2,2], strides=[2,2]> (j0)
            p1 = AveragePool <kernel_shape=[2,2], strides=[2,2]> (p0)
            f0 = Flatten (p1)
            g0 = Gemm <transB=1> (f0, w2, b2)
            g1 = Relu (g0)
            y = Gemm <transB=1> (g1, w3, b3)
        }""",
        weights={
            "w0": (8, 3, 3, 3), "s0": positive[0], "b0": (8,), "m0": (8,), "v0": positive[1],
            "w1": (8, 8, 3, 3), "s1": positive[1], "b1": (8,), "m1": (8,), "v1": positive[2],
            "wd": (8, 1, 3, 3), "bd": (8,), "wp": (6, 8, 1, 1), "bp": (6,),
            "w2": (20, 56), "b2": (20,), "w3": (5, 20), "b3": (5,),
        },
    )  # fmt: skip


def attention() -> onnx.ModelProto:
    """One block of a transformer with 4 heads of width 6, its shapes computed at run time as older exports do."""
    return net(
        """(float[n,t,24] x) => (float[n,5] y) {
            h = LayerNormalization <axis=-1> (x, ls, lb)
            shape = Shape (h)
            front = Slice (shape, zero, two)
            four = Constant <value_ints=[4]> ()
            width = Div (last, four)
            cut = Concat <axis=0> (front, four, width)
            whole = Concat <axis=0> (front, last)
            q0 = MatMul (h, wq)
            q1 = Add (q0, bq)
            q2 = Reshape (q1, cut)
            q3 = Transpose <perm=[0,2,1,3]> (q2)
            k0 = MatMul (h, wk)
            k1 = Add (bk, k0)
            k2 = Reshape (k1, cut)
            k3 = Transpose <perm=[0,2,3,1]> (k2)
            v0 = MatMul (h, wv)
            v1 = Add (v0, bv)
            v2 = Reshape (v1, cut)
            v3 = Transpose <perm=[0,2,1,3]> (v2)
            k4 = Mul (k3, scale)
            a0 = MatMul (q3, k4)
            a1 = Softmax <axis=-1> (a0)
            o0 = MatMul (a1, v3)
            o1 = Transpose <perm=[0,2,1,3]> (o0)
            o2 = Reshape (o1, whole)
            o3 = MatMul (o2, wo)
            o4 = Add (o3, bo)
            r = Add (x, o4)
            m0 = MatMul (r, w1)
            m1 = Add (m0, b1)
            m2 = Relu (m1)
            m3 = MatMul (m2, w2)
            s = Add (r, m3)
            z = ReduceMean <keepdims=0> (s, one)
            y = Gemm (z, wy, by)
        }""",
        weights={
            "ls": (24,), "lb": (24,), "wq": (24, 24), "bq": (24,), "wk": (24, 24), "bk": (24,), "wv": (24, 24),
            "bv": (24,), "wo": (24, 24), "bo": (24,), "w1": (24, 48), "b1": (48,), "w2": (48, 24), "wy": (24, 5),
            "by": (5,), "scale": np.float32(1 / math.sqrt(6)), "zero": np.array([0]), "one": np.array([1]),
            "two": np.array([2]), "last": np.array([24]),
        },
    )  # fmt: skip
