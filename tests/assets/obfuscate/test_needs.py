"""A wrong key never ends in NaN or in an infinite answer, whatever a weight is computed into.

Before there was `needs`, most of these nets answered NaN for some of 50 keys.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_nets import net
from vambrace.assets.obfuscate.locking import survey
from vambrace.assets.obfuscate.operators import adds_products
from vambrace.assets.obfuscate.roles import held_tensors
from wrong_keys import at, checked, of

LOWEST = float(np.finfo(np.float32).min)
ATTENTION = """(float[n,t,8] x) => (float[n,t,8] y) {{
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    kt = Transpose <perm = [0, 2, 1]> (k)
    s = MatMul (q, kt)
    {mask}
    p = Softmax (m)
    y = MatMul (p, x)
}}"""
LAYER = "(float[n,4] x) => (float[n,8] y) {{ {step} z = MatMul (d, w) y = Add (z, b) }}"


def upper(size: int, low: float) -> np.ndarray:
    return np.triu(np.full((size, size), low, np.float32), 1)


MASKS: dict[str, tuple[str, dict[str, Any], dict[str, str | None]]] = {
    "infinite": ("m = Add (s, a)", {"a": upper(4, -np.inf)}, {"a": None}),
    "lowest": ("m = Add (s, a)", {"a": upper(4, LOWEST)}, {"a": None}),
    "two": ("m0 = Add (s, a) m = Add (m0, c)", {"a": upper(4, LOWEST), "c": upper(4, LOWEST)}, {"a": None, "c": None}),
    "with slopes": (
        "m = Add (s, a)",
        {"a": upper(4, -np.inf) - np.abs(np.subtract.outer(np.arange(4), np.arange(4))).astype(np.float32)},
        {"a": "kept"},
    ),
    "logarithm": ("l = Log (a) m = Add (s, l)", {"a": np.tril(np.ones((4, 4), np.float32))}, {"a": None}),
    "equal to zero": (
        "e = Equal (a, zero) m = Where (e, low, s)",
        {"a": np.tril(np.ones((4, 4), np.float32)), "zero": np.float32(0), "low": np.float32(-np.inf)},
        {"a": None},
    ),
    "truth values": (
        "e = Cast <to = 9> (a) m = Where (e, s, low)",
        {"a": np.tril(np.ones((4, 4), np.float32)), "low": np.float32(-np.inf)},
        {"a": None},
    ),
    "positions": (
        "e = Greater (a, c) m = Where (e, low, s)",
        {"a": of(0, 1, 2, 3)[None], "c": of(0, 1, 2, 3)[:, None], "low": np.float32(-np.inf)},
        {"a": None, "c": None},
    ),
    "one minus": (
        "e = Sub (one, a) f = Mul (e, low) m = Add (s, f)",
        {"a": np.tril(np.ones((4, 4), np.float32)), "one": np.float32(1), "low": np.float32(LOWEST)},
        {"a": None},
    ),
    "filled": (
        "e = Greater (a, zero) f = ConstantOfShape <value: tensor = float[1] {-inf}> (four) m = Where (e, s, f)",
        {"a": np.tril(np.ones((4, 4), np.float32)), "zero": np.float32(0), "four": at(4)},
        {"a": None},
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    mask, weights, roles = MASKS[name]
    found = checked(ATTENTION.format(mask=mask), {"wq": (8, 8), "wk": (8, 8), **weights}, free=4)
    assert {each: found[each] for each in roles} == roles
    assert found["wq"] == found["wk"] == "signed"


def test_what_is_left_open_of_masks_is_named() -> None:
    body = ATTENTION.format(mask="m0 = Add (s, a) m = Add (m0, c)")
    slopes = upper(4, -np.inf) - np.arange(4, dtype=np.float32)[:, None]
    model = net(body, weights={"wq": (8, 8), "wk": (8, 8), "a": upper(4, -np.inf), "c": slopes})
    found = survey(model)
    assert found.left == {"a mask": 1, "zeros and numbers of masks in tensors of which the rest is locked": 1}
    assert found.elements == 128 + 9  # of ten slopes one is zero
    assert found.left_open == ()


NUMBERS: dict[str, tuple[str, dict[str, Any], dict[str, str | None]]] = {
    "divisor": ("d = Div (x, a)", {"a": of(1, 2, 3, 4)}, {"a": "kept"}),
    "scaled divisor": (
        "r = Mul (a, c) d = Div (x, r)",
        {"a": of(1, 2, 3, 1), "c": of(2, 1, 3, 2)},
        {"a": "kept", "c": "kept"},
    ),
    "part that divides": (
        "r = Gather <axis = 0> (a, i) d = Div (x, r)",
        {"a": np.stack([of(1, 2, 3, 4), of(-5, -6, -7, -8)]), "i": np.array(0)},
        {"a": "kept"},
    ),
    "part with a logarithm": (
        "g = Gather <axis = 0> (a, i) r = Log (g) d = Mul (x, r)",
        {"a": np.stack([of(1, 2, 3, 4), of(-5, -6, -7, -8)]), "i": np.array(0)},
        {"a": None},
    ),
    "part of what has one sign": (
        "q, s = Split <num_outputs = 2> (a) r = Sqrt (s) d = Mul (x, r)",
        {"a": np.stack([of(1, 2, 3, 4), of(5, 6, 7, 8)])},
        {"a": "kept"},
    ),
    "largest divide": (
        "r = ReduceMax <keepdims = 0> (a, i) d = Div (x, r)",
        {"a": np.stack([of(row, -1, 0, -3) for row in (1, 2, 3, 4)]), "i": at(1)},
        {"a": None},
    ),
    "range": (
        "r = Sub (a, c) e = Sub (x, c) d = Div (e, r)",
        {"a": of(1, 2, 3, 4), "c": of(0, 1, 2, 3)},
        {"a": None, "c": None},
    ),
    "sum of ones": ("r = ReduceSum <keepdims = 0> (a) d = Div (x, r)", {"a": of(1, 1, 1, 1)}, {"a": "kept"}),
    "shares": (
        "r = ReduceSum <keepdims = 1> (a, i) s = Div (a, r) d = MatMul (x, s)",
        {"a": (np.eye(4) * 2 + np.eye(4, k=1)).astype(np.float32), "i": at(1)},
        {"a": "kept"},
    ),
    "norm": (
        "r = ReduceL2 <keepdims = 1> (a, i) s = Div (a, r) d = MatMul (x, s)",
        {"a": (4, 4), "i": at(1)},
        {"a": "apart"},
    ),
    "norm with zeros": (
        "r = ReduceL2 <keepdims = 1> (a, i) s = Div (a, r) d = MatMul (x, s)",
        {"a": np.diag(of(1, -2, 3, 4)), "i": at(1)},
        {"a": "kept"},
    ),
    "bank of filters": (
        "p = Mul (x, x) m = MatMul (p, a) e = Add (m, small) d = Log (e)",
        {"a": np.maximum(1 - np.abs(np.subtract.outer(np.arange(4), np.arange(4))) / 2, 0).astype(np.float32)}
        | {"small": np.float32(1e-6)},
        {"a": "kept"},
    ),
    "root of a mixture": (
        "p = Softplus (x) m = MatMul (p, a) f = Relu (m) h = MatMul (f, c) d = Sqrt (h)",
        {"a": np.ones((4, 4), np.float32), "c": np.arange(1, 17, dtype=np.float32).reshape(4, 4)},
        {"a": "kept", "c": "kept"},
    ),
    "root of a mixture with a bias": (
        "p = Abs (x) d0 = Gemm (p, a, c) d = Sqrt (d0)",
        {"a": np.arange(1, 17, dtype=np.float32).reshape(4, 4), "c": of(1, 2, 3, 4)},
        {"a": "kept", "c": "kept"},
    ),
    "mixture that may be below zero before": (
        "p = Abs (x) m = MatMul (p, a) e = Sub (m, c) f = Abs (e) d = Sqrt (f)",
        {"a": np.arange(1, 17, dtype=np.float32).reshape(4, 4), "c": of(1, 2, 3, 4)},
        {"a": "signed", "c": "signed"},
    ),
    "bank of filters over what is given": (
        "x2 = Mul (x, x) m = MatMul (x2, a) e = Add (m, small) d = Log (e)",
        {"a": np.ones((4, 4), np.float32), "small": np.float32(1e-6)},
        {"a": "kept"},
    ),
    "bank of filters behind what nobody reads": (
        "q = Tanh (x) p = Sub (one, q) m = MatMul (p, a) e = Add (m, small) d = Log (e)",
        {"a": np.arange(1, 17, dtype=np.float32).reshape(4, 4)} | {"small": np.float32(1e-6), "one": np.float32(1)},
        {"a": "kept"},
    ),
    "bank of filters, disguised": (
        "p = Mul (x, x) m = MatMul (p, a) n = Neg (small) e = Sub (m, n) d = Log (e)",
        {"a": np.arange(1, 17, dtype=np.float32).reshape(4, 4), "small": of(1e-6, 1e-6, 1e-6, 1e-6)},
        {"a": "kept"},
    ),
    "bank of filters above a floor": (
        "p = Abs (x) m = MatMul (p, a) e = Sub (m, c) d = Log (e)",
        {"a": np.arange(1, 17, dtype=np.float32).reshape(4, 4), "c": of(0.1, 0.2, 0.3, 0.4)},
        {"a": "kept"},
    ),
    "joined with what may be below zero": (
        "r = Relu (x) t = Tanh (x) j = Concat <axis = 1> (r, t) f = Abs (a) s = Add (j, f) e = Sqrt (s)"
        " d = MatMul (e, back)",
        {"a": of(0.1, 0.1, 0.1, 0.1, 9, 9, 9, 9), "back": (8, 4)},
        {"a": None},
    ),
    "determinant": (
        "g = MatMul (a, c) t = Det (g) l = Log (t) d = Mul (x, l)",
        {"a": (np.eye(4) + np.tri(4)).astype(np.float32), "c": (np.eye(4) + np.tri(4).T).astype(np.float32)},
        {"a": None, "c": None},
    ),
    "negative power": ("r = Pow (a, k) d = Mul (x, r)", {"a": of(1, 2, 3, 1), "k": np.float32(-2)}, {"a": "kept"}),
    "remainder": (
        "r = Mul (a, c) d = Mod <fmod = 1> (x, r)",
        {"a": of(1, 2, 1, 3), "c": of(1, 2, 1, 1)},
        {"a": "kept", "c": "kept"},
    ),
    "root of a sum": (
        "v = Add (a, c) r = Sqrt (v) d = Div (x, r)",
        {"a": of(1, 2, 3, 1), "c": of(1, 2, 3, 4) / 100},
        {"a": "kept", "c": "kept"},
    ),
    "root of a difference": (
        "m = Mul (c, c) v = Sub (a, m) r = Sqrt (v) d = Div (x, r)",
        {"a": of(1, 2, 9, 17), "c": of(0.5, 1, 2.5, 4)},
        {"a": None, "c": None},
    ),
    "root of means": (
        "m = ReduceMean <keepdims = 0> (a, i) r = Sqrt (m) d = Mul (x, r)",
        {"a": of(5, -1, 2, -1, 5, -3, 1, -0.5).reshape(4, 2), "i": at(1)},
        {"a": None},
    ),
    "root of bounded data": (
        "s = Sigmoid (x) t = Add (s, a) v = Sub (t, c) d = Sqrt (v)",
        {"a": of(1, 2, 3, 4), "c": of(1, 2, 3, 4)},
        {"a": None, "c": None},
    ),
    "root of slopes": ("s = PRelu (x, a) d = Sqrt (s)", {"a": of(-0.1, -0.2, -0.3, -0.4)}, {"a": None}),
    "logarithm": (
        "q = Sub (k, a) l = Log (q) d = Add (x, l)",
        {"a": of(0.1, 0.2, 0.3, 0.4), "k": np.float32(1)},
        {"a": "kept"},
    ),
    "exponents": (
        "s = Abs (x) t = Mul (s, c) d = Pow (t, a)",
        {"a": of(2, 0.5, 4, 0.25), "c": of(-1, 1, -1, 1)},
        {"a": None, "c": None},
    ),
    "whole exponents": ("d = Pow (x, a)", {"a": of(2, 1, 3, 2)}, {"a": "kept"}),
    "growth": ("e = Exp (a) d = Mul (x, e)", {"a": of(-100, -200, 0.3, -400)}, {"a": "kept"}),
    "decay": (
        "t = Mul (a, c) e = Exp (t) d = Mul (x, e)",
        {"a": of(0, 100, 400, 700), "c": of(-1, -0.5, -0.2, -0.1)},
        {"a": "kept", "c": "kept"},
    ),
    "guard": ("g = Greater (x, a) r = Sqrt (x) d = Where (g, r, x)", {"a": of(0, 0, 0, 0)}, {"a": None}),
    "clip": (
        "l = Gather (a, i) h = Gather (a, j) d = Clip (x, l, h)",
        {"a": of(-1, 1), "i": np.array(0), "j": np.array(1)},
        {"a": None},
    ),
    "bounds": (
        "e = Max (x, a) g = Min (e, c) d = Sqrt (g)",
        {"a": of(1, 2, 3, 4), "c": of(2, 3, 4, 5)},
        {"a": "kept", "c": "kept"},
    ),
    "arc": ("e = Acos (a) d = Mul (x, e)", {"a": of(0.1, -0.2, 0.3, 0.4)}, {"a": "kept"}),
    "hyperbolic": ("e = Atanh (a) d = Mul (x, e)", {"a": of(0.1, -0.2, 0.3, 0.4)}, {"a": "kept"}),
    "variance": (
        "d = BatchNormalization (x, c, b4, m, a)",
        {"a": of(0.5, 1, 2, 3), "c": (4,), "b4": of(0, 0, 0, 0), "m": (4,)},
        {"a": "variance"},
    ),
    "variance of zero": (
        (
            "f = BatchNormalization <epsilon = 0.0> (x, c, b4, m, v) d = BatchNormalization <epsilon = "
            "0.001> (f, c, b4, m, a)"
        ),
        {"a": of(0, 1, 0, 3), "v": of(0.5, 1, 2, 3), "c": (4,), "b4": of(0, 0, 0, 0), "m": (4,)},
        {"a": "kept", "v": "variance"},
    ),
    "variance of data": (
        (
            "h = Add (x, a) s = Mul (h, h) q = ReduceMean <keepdims = 1> (s, i) u = ReduceMean <keepdims "
            "= 1> (h, i) uu = Mul (u, u) v = Sub (q, uu) e = Add (v, k) r = Sqrt (e) d = Div (h, r)"
        ),
        {"a": of(1, 2, 3, 4), "i": at(1), "k": np.float32(1e-3)},
        {"a": "signed"},
    ),
    "softmax by hand": (
        "h = Add (x, a) e = Exp (h) s = ReduceSum <keepdims = 1> (e, i) d = Div (e, s)",
        {"a": of(1, 2, 3, 4), "i": at(1)},
        {"a": "kept"},
    ),
    "root mean square": (
        (
            "h = Mul (x, a) p = Pow (h, k) m = ReduceMean <keepdims = 1> (p, i) e = Add (m, j) r = Sqrt "
            "(e) q = Reciprocal (r) d = Mul (h, q)"
        ),
        {"a": of(1, 2, 3, 4), "i": at(1), "j": np.float32(1e-6), "k": np.float32(2)},
        {"a": "signed"},
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_operators_that_are_not_defined_for_all_numbers(name: str) -> None:
    step, weights, roles = NUMBERS[name]
    weight = np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32) * 3
    found = checked(LAYER.format(step=step), {"w": weight, "b": np.zeros(8, np.float32), **weights})
    assert {each: found[each] for each in roles} == roles
    assert found["w"] == found["b"] == "signed"


@pytest.mark.parametrize(
    ("factors", "adds"),
    [({}, True), ({"alpha": 0.5, "beta": 2.0}, True), ({"alpha": -1.0}, False), ({"beta": -1.0}, False)],
)
def test_a_factor_below_zero_turns_the_signs_of_sums(factors: dict[str, float], adds: bool) -> None:
    assert adds_products(helper.make_node("Gemm", ["x", "w", "b"], ["y"], **factors), 0) == adds


def test_large_weights_are_looked_at_without_copies_in_double_precision() -> None:
    """Five times their size was taken only to see what may be done to them."""
    model = net("(float[n,1024] x) => (float[n,2048] y) { y = MatMul (x, w) }", weights={"w": (1024, 2048)})
    tracemalloc.start()
    try:
        held_tensors(model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3.5 * model.ByteSize()
