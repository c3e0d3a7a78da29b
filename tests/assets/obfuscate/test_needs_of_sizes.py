"""A wrong key never ends in an error, or in answers of other sizes, where weights become sizes, indices or regions.

Before there was `needs`, many of these nets failed for some of 50 keys, or ran for ever.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_nets import net
from vambrace.assets.obfuscate.locking import lock
from vambrace.assets.obfuscate.roles import held_tensors
from vambrace.errors import ConfigError
from wrong_keys import KEY, at, checked, of

PICK = "(float[n,8] x) => (float[n,8] y) {{ {index} m = MatMul (x, w) y = Gather <axis = 1> (m, i) }}"
TABLES = "(float[n,8] x) => (float[k,l] y) {{ c = MatMul (x, w) {step} }}"


SIZES: dict[str, tuple[str, dict[str, Any], int]] = {
    "gather": (PICK.format(index="i = Cast <to = 7> (a)"), {"a": of(3, 1, 0, 2, 7, 5, 6, 4)}, 18),
    "gather of a sum": (
        PICK.format(index="f = Add (a, c) i = Cast <to = 7> (f)"),
        {"a": of(3, 1, 0, 2, 7, 5, 6, 4), "c": of(*[0] * 8)},
        18,
    ),
    "slice": (
        TABLES.format(step="i = Cast <to = 7> (a) y = Slice (c, i, e, o)"),
        {"a": of(1, 0), "e": at(9, 9), "o": at(0, 1)},
        18,
    ),
    "reshape": (
        TABLES.format(step="h = Mul (a, two) i = Cast <to = 7> (h) y = Reshape (c, i)"),
        {"a": of(1.5, 4), "two": np.float32(2)},
        18,
    ),
    "expand": (TABLES.format(step="i = Cast <to = 7> (a) y = Expand (c, i)"), {"a": of(3, 8)}, 18),
    "tile": (TABLES.format(step="i = Cast <to = 7> (a) y = Tile (c, i)"), {"a": of(1, 2)}, 18),
    "top k": (
        TABLES.format(
            step="k = ReduceMax <keepdims = 0> (a) k1 = Unsqueeze (k, o) i = Cast <to = 7> (k1) y, j = TopK (c, i)"
        ),
        {"a": of(5, -2), "o": at(0)},
        18,
    ),
    "range": (
        TABLES.format(
            step="k = ReduceSum <keepdims = 0> (a) r = Range (z, k, one) u = Unsqueeze (r, o) y = Mul (c, u)"
        ),
        {"a": of(5, 3), "z": np.float32(0), "one": np.float32(1), "o": at(0)},
        18,
    ),
    "one hot": (
        TABLES.format(
            step=(
                "g = ArgMax <axis = 1, keepdims = 0> (c) k = ReduceSum <keepdims = 0> (a) y0 = OneHot (g, k, "
                "v) y = Mul (y0, c)"
            )
        ),
        {"a": of(5, 3), "v": of(0, 1)},
        18,
    ),
    "axes": (
        TABLES.format(step="f = Add (a, e) i = Cast <to = 7> (f) y = ReduceSum (c, i)"),
        {"a": of(1), "e": of(0)},
        18,
    ),
    "two axes": (
        (
            "(float[n,8,2] x) => (float[n] y) { c = MatMul (x, w2) f = Add (a, e) i = Cast <to = 7> (f) "
            "y = ReduceSum <keepdims = 0> (c, i) }"
        ),
        {"a": of(1, 1), "e": of(0, 1), "w2": (2, 8)},
        18,
    ),
    "lengths": (
        (
            "(float[5,3,8] x) => (float[5,3,8] y) { c = MatMul (x, w) f = Mul (a, e) i = Cast <to = 7> "
            "(f) y = ReverseSequence (c, i) }"
        ),
        {"a": of(1, 2, 5), "e": of(1, 1, 1)},
        18,
    ),
    "diagonal": (
        TABLES.format(
            step=("k = ReduceMax <keepdims = 0> (a) i = Cast <to = 7> (k) t = Trilu (w, i) y = MatMul (c, t)")
        ),
        {"a": of(1, -2, 0)},
        18,
    ),
    "pad": (
        TABLES.format(step="f = Mul (a, two) i = Cast <to = 7> (f) y = Pad (c, i)"),
        {"a": of(0, 0.5, 0, 1), "two": np.float32(2)},
        18,
    ),
    "split": (
        TABLES.format(step="f = Mul (a, e) i = Cast <to = 7> (f) u, v = Split <axis = 1> (c, i) y = Neg (u)"),
        {"a": of(1.5, 2.5), "e": of(2, 2)},
        18,
    ),
    "filled": (
        TABLES.format(step="f = Mul (a, e) i = Cast <to = 7> (f) h = ConstantOfShape (i) y = Add (c, h)"),
        {"a": of(8), "e": of(1)},
        18,
    ),
    "resize": (
        "(float[1,2,4,4] x) => (float[1,2,k,l] y) { c = Conv (x, k1) f = Mul (a, e) y = Resize (c, , f) }",
        {"k1": (2, 2, 1, 1), "a": of(1, 1, 2, 2), "e": of(1, 1, 1, 2)},
        18,
    ),
    "upsample": (
        "(float[1,2,4,4] x) => (float[1,2,k,l] y) { c = Conv (x, k1) f = Mul (a, e) y = Upsample (c, f) }",
        {"k1": (2, 2, 1, 1), "a": of(1, 1, 2, 2), "e": of(1, 1, 1, 2)},
        9,
    ),
    "regions": (
        (
            "(float[1,2,8,8] x) => (float[k,2,4,4] y) { c = Conv (x, k1) f = Add (a, e) y = RoiAlign "
            "<output_height = 4, output_width = 4, sampling_ratio = 2> (c, f, o) }"
        ),
        {"k1": (2, 2, 1, 1), "a": of(0, 0, 6, 6)[None], "e": of(1, 1, 1, 1)[None], "o": at(0)},
        18,
    ),
    "pooled regions": (
        (
            "(float[1,2,8,8] x) => (float[k,2,4,4] y) { c = Conv (x, k1) f = Mul (a, e) y = MaxRoiPool "
            "<pooled_shape = [4, 4]> (c, f) }"
        ),
        {"k1": (2, 2, 1, 1), "a": of(0, 0, 0, 6, 6)[None], "e": of(1, 1, 1, 1, 1)[None]},
        18,
    ),
    "thresholds": (
        (
            "(float[1,9,4] p, float[1,2,9] q) => (float[k] y) { f = Gather (a, z) g = Gather (a, o) n = "
            "NonMaxSuppression (p, q, e, f, g) h = Cast <to = 1> (n) r = ReduceMean <keepdims = 0> (h) y "
            "= Mul (r, v) }"
        ),
        {"a": of(0.5, 0.1), "z": at(0), "o": at(1), "e": at(5), "v": (9,)},
        18,
    ),
    "chosen ones": (
        TABLES.format(
            step="h = Mul (a, e) z = NonZero (h) i = Squeeze (z, o) g = Gather <axis = 1> (c, i) y = MatMul (g, v)"
        ),
        {"a": np.arange(8, dtype=np.float32) % 2, "e": of(*[1] * 8), "o": at(0), "v": (4, 3)},
        18,
    ),
    "compressed": (
        TABLES.format(step="h = Greater (a, e) g = Compress <axis = 1> (c, h) y = MatMul (g, v)"),
        {"a": np.arange(8, dtype=np.float32) % 2, "e": of(*[0.5] * 8), "v": (4, 3)},
        18,
    ),
    "branch": (
        TABLES.format(
            step=(
                "r = ReduceMax <keepdims = 0> (a) h = Greater (r, z) y = If (h) <then_branch = t () => "
                "(float[n,8] p) { p = MatMul (c, w) }, else_branch = e () => (float[n,4] q) { q = MatMul (c, "
                "v) }>"
            )
        ),
        {"a": of(0.1, 0.5), "z": np.float32(0.2), "v": (8, 4)},
        18,
    ),
    "loops": (
        TABLES.format(
            step=(
                "f = Mul (a, e) k = ReduceSum <keepdims = 0> (f) i = Cast <to = 7> (k) y = Loop (i, , c) "
                "<body = b (int64 j, bool c0, float[n,8] s) => (bool c1, float[n,8] u) { c1 = Identity (c0) "
                "u = MatMul (s, w) }>"
            )
        ),
        {"a": of(1, 1.5), "e": of(1, 1)},
        18,
    ),
    "while": (
        TABLES.format(
            step=(
                "z = Constant <value_float = 0.0> () yes = Constant <value = bool {1}> () q, y = Loop (, "
                "yes, z, c) <body = b (int64 j, bool c0, float g, float[n,8] s) => (bool c1, float g1, "
                "float[n,8] u) { k = Mul (a, e) k1 = ReduceSum <keepdims = 0> (k) g1 = Add (g, k1) c1 = Less "
                "(g1, top) u = MatMul (s, w) }>"
            )
        ),
        {"a": of(*[0.1] * 8), "e": of(*[1] * 8), "top": np.float32(3)},
        18,
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_indices_and_regions_from_floating_numbers(name: str) -> None:
    body, weights, opset = SIZES[name]
    held = weights if "k1" in weights or "w2" in weights or name == "thresholds" else {"w": (8, 8), **weights}
    found = checked(body, held, opset=opset)
    assert found["a"] is None
    assert found.get("e") is None
    assert "signed" in found.values()


LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "index": (
        "f = Add (a, e) i = Cast <to = 7> (f) y = Gather <axis = 1> (c, i)",
        {"a": of(*[3] * 40), "e": of(*[0] * 40)},
    ),
    "size": (
        "f = Mul (a, e) k = ReduceSum <keepdims = 0> (f) r = Range (z, k, o) u = Unsqueeze (r, j) y = Mul (c, u)",
        {"a": of(*[0.5] * 32), "e": of(*[0.5] * 32), "z": np.float32(0), "o": np.float32(1), "j": at(0)},
    ),
    "unbounded": (
        (
            "h = MatMul (c, v) f = Add (h, a) i = Cast <to = 7> (f) m = Mul (c, c) z = Gather <axis = 1> "
            "(m, i) y = ReduceMax <keepdims = 0> (z, two)"
        ),
        {"v": np.zeros((8, 20), np.float32), "a": of(*[3] * 20), "two": at(1)},
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_many_numbers_of_that_kind_are_refused_with_a_reason(name: str) -> None:
    step, weights = LARGE[name]
    model = net(TABLES.format(step=step), weights={"w": (8, 8), **weights})
    with pytest.raises(ConfigError, match=r"E857.*an input of (Gather|Range) that may decide how it runs"):
        lock(model, KEY)


@pytest.mark.parametrize("bound", ["r = Clip (h, lo, hi)", "u = Sigmoid (h) r = Mul (u, hi)"])
def test_an_index_within_bounds_lets_weights_be_locked(bound: str) -> None:
    step = (
        f"h0 = MatMul (c, v) h = Add (h0, b) {bound} i = Cast <to = 7> (r) g = Gather <axis = 1> (c, "
        f"i) y = ReduceMax <keepdims = 0> (g, j)"
    )
    weights = {"w": (8, 8), "v": (8, 20), "b": (20,), "lo": np.float32(0), "hi": np.float32(7), "j": at(1)}
    found = checked(TABLES.format(step=step), weights)
    assert found["w"] == found["v"] == found["b"] == "signed"


def test_regions_of_any_size_are_fine_where_the_number_of_samples_is_set() -> None:
    body = """(float[1,2,8,8] x) => (float[k,2,4,4] y) {{
        g = GlobalAveragePool (x)
        f = Reshape (g, sizes)
        r = MatMul (f, w)
        y = RoiAlign <output_height = 4, output_width = 4, sampling_ratio = {ratio}> (x, r, o)
    }}"""
    weights = {"w": (2, 16), "sizes": at(1, 2), "o": at(0)}
    roles = {}
    for ratio in (0, 2):
        model = net(
            body.format(ratio=ratio).replace("MatMul (f, w)", "MatMul (f, w4)"), weights={"w4": (2, 4), **weights}
        )
        roles[ratio] = {each.name: each.role for each in held_tensors(model)}["w4"]
    assert roles == {0: None, 2: "signed"}
