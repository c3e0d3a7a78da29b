"""Locks of weights of less than a byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_nets import answers
from vambrace.assets.obfuscate.lock_entry import lock_entry
from vambrace.assets.obfuscate.locking import lock, survey, unlock

KEY = bytes(range(32))
KINDS = {"INT4": (-7, 8), "UINT4": (1, 16), "FLOAT4E2M1": (1, 4), "INT2": (-1, 2), "UINT2": (1, 4)}


def packed(kind: str, values: Any, body: str, *, typed: bool) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 13, opset_import: ["" : 25]> g (float[n,{len(values)}] x) => (float[n,k] y) {{ {body} }}'
    )
    tensor = helper.make_tensor("w", getattr(TensorProto, kind), [len(values)], values)
    if not typed:
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "w")
    model.graph.initializer.extend([tensor, numpy_helper.from_array(np.array(0.5, np.float32), "scale")])
    return model


def words(model: onnx.ModelProto) -> list[float]:
    return numpy_helper.to_array(model.graph.initializer[0]).astype(np.float64).tolist()


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["", "root = Sqrt (part)", "root = Reciprocal (part)"])
def test_an_odd_number_of_them_comes_back(kind: str, step: str, typed: bool) -> None:
    """The last ones in typed fields were lost; divisors and what is under a root ended in an IndexError."""
    body = f"part = DequantizeLinear (w, scale) {step or 'root = Identity (part)'} y = Mul (x, root)"
    values = np.random.default_rng(0).integers(*KINDS[kind], 401)
    values[values == 0] = 1
    values[::9] = 0
    model = packed(kind, values.tolist(), body, typed=typed)
    locked = lock(model, KEY)
    assert words(locked) != words(model)
    assert unlock(locked, KEY).SerializeToString() == model.SerializeToString()
    if step:
        assert lock_entry(locked).roles == "k-"
        # What is no number, or infinite, is so with any key, and at the same places.
        zero = np.array(words(model)) == 0
        for key in range(5):
            found = np.array(words(unlock(locked, key.to_bytes(32))))
            assert np.array_equal(found == 0, zero)
            assert (np.sort(found) == np.sort(words(model))).all()
        pairs = zero[:400].reshape(-1, 2).any(axis=1) if "4" in kind else zero[:400].reshape(-1, 4).any(axis=1)
        assert survey(model).elements == (~pairs).sum() * (2 if "4" in kind else 4)


def test_answers_of_a_divisor_of_four_bits() -> None:
    body = "part = DequantizeLinear (w, scale) y = Div (x, part)"
    values = np.random.default_rng(0).integers(1, 8, 65)
    model = packed("INT4", values.tolist(), body, typed=False)
    locked, given = lock(model, KEY), {"x": np.ones((2, 65), np.float32)}
    assert np.array_equal(answers(unlock(locked, KEY), given)[0], answers(model, given)[0])
    for key in range(10):
        assert np.isfinite(answers(unlock(locked, key.to_bytes(32)), given)[0]).all()


def test_where_no_byte_can_move_the_lock_says_so() -> None:
    values = [0 if place % 2 else 1 + place % 7 for place in range(64)]
    model = packed("INT4", values, "part = DequantizeLinear (w, scale) y = Div (x, part)", typed=False)
    assert [each.elements for each in survey(model).left_open] == [64]


def test_very_large_numbers_of_double_precision_warn_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (double[n,4] x) => (double[n,4] y) { y = Add (x, w) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1e300, 1, 2, 3.0]), "w"))
    assert unlock(lock(model, KEY), KEY).SerializeToString() == model.SerializeToString()
    assert not recwarn.list
