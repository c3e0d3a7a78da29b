"""Where the sign of a zero can change an answer, no sign is turned."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.signs import Signs
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.assets.obfuscate.zeros import divisors_of_either_sign

MATTERS = {
    "reciprocal": "y = Reciprocal (m)",
    "division": "y = Div (one, m)",
    "root": "s = Sqrt (m) y = Div (one, s)",
    "negative power": "y = Pow (m, below)",
    "unknown power": "e = ReduceMean <keepdims = 0> (x) y = Pow (m, e)",
    "moved": "s = Transpose (m) r = Reciprocal (s) y = Transpose (r)",
    "sum with a zero": "s = Add (m, none) y = Div (one, s)",
    "product": "s = Mul (m, a) y = Div (one, s)",
    "clipped below zero": "s = Clip (m, minus, one) y = Div (one, s)",
}
HARMLESS = {
    "nothing": "y = Identity (m)",
    "constant": "y = Div (m, one)",
    "input": "s = ReduceSum <keepdims = 1> (x) y = Div (m, s)",
    "square": "s = Mul (m, m) y = Div (one, s)",
    "even power": "s = Pow (m, two) y = Div (one, s)",
    "power": "y = Pow (m, two)",
    "norm": "q = Pow (m, two) r = ReduceMean <axes = [1]> (q) e = Add (r, small) s = Sqrt (e) y = Div (m, s)",
    "size": "s = Abs (m) y = Div (m, s)",
    "clipped": "s = Clip (m, small, one) y = Div (one, s)",
    "largest": "s = Max (m, small) y = Div (one, s)",
    "softmax": "s = Softmax (m) y = Div (one, s)",
}


def model(tail: str) -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 6] x) => (float[n, 16] y)
        <float one = {{1}}, float two = {{2}}, float below = {{-1}}, float none = {{0}}, float small = {{0.001}},
        float minus = {{-1}}> {{ a = MatMul (x, w) t = Tanh (a) m = Mul (t, c) {tail} }}"""
    found = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, sizes in {"w": (6, 16), "c": (16,)}.items():
        found.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=sizes).astype(np.float32), name))
    return found


@pytest.mark.parametrize("case", [*MATTERS, *HARMLESS])
def test_divisors_that_may_be_a_zero_of_either_sign(case: str) -> None:
    net = Net.load(model((MATTERS | HARMLESS)[case]))
    assert (divisors_of_either_sign(net) > 0) == (case in MATTERS)


@pytest.mark.parametrize("case", ["reciprocal", "division", "root", "negative power", "nothing", "norm", "size"])
def test_zeros_give_the_same_infinities(case: str) -> None:
    original = model((MATTERS | HARMLESS)[case])
    made = onnx_model(original, passes=["signs"], seed=1)
    rows = {"x": np.vstack([np.zeros((1, 6)), np.random.default_rng(1).normal(size=(3, 6))]).astype(np.float32)}
    before, after = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, rows)[0] for each in (original, made.model)
    )
    assert np.array_equal(before, after, equal_nan=True)
    entry = next(each for each in made.map.passes if each.name == Signs.name)
    assert (entry.done > 0) == (case in HARMLESS)
