"""Predicates have one answer for every input there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from exact_nets import LEVELS, session
from vambrace.assets.obfuscate import cuts
from vambrace.assets.obfuscate import opaque as module
from vambrace.assets.obfuscate.keyed import Stream, as_key
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.opaque import brief, glance, opaque

SHAPES = {"image": (2, 3, 5, 5), "row": (7,), "one": (1, 1), "none": (0, 4)}


def predicate(
    seed: int, opset: int, about: Any, dtype: str = "float32", make: Callable[..., Any] = opaque
) -> tuple[onnx.ModelProto, bool]:
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[dtype]
    value = helper.make_tensor_value_info("x", kind, None)
    graph = helper.make_graph([], "g", [value], [helper.make_tensor_value_info("y", TensorProto.BOOL, [])])
    net = Net(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6))
    nodes, answer, truth = make(net, "x", np.dtype(dtype), about, Stream(as_key(seed)))
    net.graph.nodes.extend(nodes)
    net.graph.outputs[0].name = answer
    model = net._build(onnx, small=False)  # the checker asks for a shape of inputs, which must stay open here
    return model, truth


def values(shape: tuple[int, ...], dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    plain = rng.standard_normal(shape)
    largest = np.finfo(dtype).max
    kinds = [plain * size for size in (0, 1e-300, 1e-40, 1e-3, 1, 1e3, 1e9, 1e19, 1e30)]
    kinds += [
        np.full(shape, value) for value in (np.nan, np.inf, -np.inf, largest, -largest, 0.01, -0.02, 1.0, 2.0**63)
    ]
    kinds += [np.where(rng.random(shape) < 0.3, odd, plain) for odd in (np.nan, np.inf, -np.inf)]
    kinds += [rng.integers(-9, 9, shape).astype(float) for _ in range(10)]
    with np.errstate(over="ignore"):
        return [each.astype(dtype) for each in kinds]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("opset", [9, 13, 18])
def test_the_answer_is_always_the_same(opset: int, dtype: str) -> None:
    truths = set()
    for seed in range(40):
        model, truth = predicate(seed, opset, 1, dtype)
        truths.add(truth)
        run = session(model)
        for name, shape in SHAPES.items():
            for one in values(shape, dtype):
                (answer,) = run.run(None, {"x": one})
                assert answer.shape == ()
                assert bool(answer) is truth, (seed, name, one)
    assert truths == {True, False}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("opset", [9, 13, 18])
@pytest.mark.parametrize("make", [brief, glance])
def test_a_short_one_answers_always_the_same(make: Callable[..., Any], opset: int, dtype: str) -> None:
    truths, operators, compared = set(), set(), set()
    for seed in range(8):
        for name, shape in SHAPES.items():
            sizes = [size if place else None for place, size in enumerate(shape)]
            model, truth = predicate(seed, opset, sizes if make is glance else 1, dtype, make)
            truths.add(truth)
            operators.add(len(model.graph.node))
            compared |= {node.op_type for node in model.graph.node} & {"Equal", "Greater", "Less"}
            run = session(model)
            for one in values(shape, dtype):
                (answer,) = run.run(None, {"x": one})
                assert answer.shape == ()
                assert bool(answer) is truth, (seed, name, one)
    assert truths == {True, False}
    assert operators == ({3, 4} if make is glance else {2, 3})
    assert compared == ({"Greater", "Less"} | ({"Equal"} if opset > 9 else set()))


def test_a_glance_takes_neighbours_from_where_there_are_some() -> None:
    """A look past the end reads nothing, and would not depend on the data."""
    seen = set()
    for seed in range(200):
        model, _ = predicate(seed, 13, (None, 3, 40), make=glance)
        starts, ends = (onnx.numpy_helper.to_array(each) for each in model.graph.initializer[:2])
        assert (starts >= 0).all()
        assert (starts < (1, 3, 40)).all()
        assert (ends <= (1, 3, 40)).all()
        assert (ends[:2] == starts[:2] + 1).all()
        assert 2 <= ends[2] - starts[2] < module._WINDOW
        seen.add((int(starts[1]), int(starts[2])))
    assert {one for one, _ in seen} == {0, 1, 2}
    assert len({two for _, two in seen}) > 10


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("kind", cuts.WHOLE)
@pytest.mark.parametrize(("make", "first"), [(glance, ["Slice", "Cast"]), (opaque, ["Reshape", "Slice", "Cast"])])
def test_of_whole_numbers_a_part_is_taken_first(
    make: Callable[..., Any], first: list[str], kind: int, opset: int
) -> None:
    """Pictures came whole into another type before a few of their numbers were looked at: most of the time it took."""
    value = helper.make_tensor_value_info("x", kind, [1, 9, 8, 40])
    graph = helper.make_graph([], "g", [value], [helper.make_tensor_value_info("y", TensorProto.BOOL, [])])
    net = Net(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6))
    sizes, dtype = (1, 9, 8, 40), np.dtype(np.float32)
    about = sizes if make is glance else math.prod(sizes)
    nodes, answer, truth = make(net, "x", dtype, about, Stream(as_key(1)), whole=True)
    assert [node.op for node in nodes[: len(first)]] == first
    net.graph.nodes.extend(nodes)
    net.graph.outputs[0].name = answer
    given = np.random.default_rng(0).integers(0, 2, sizes).astype(helper.tensor_dtype_to_np_dtype(kind))
    assert bool(session(net.model()).run(None, {"x": given})[0]) is truth


def test_every_form_is_drawn() -> None:
    drawn = {Stream(as_key(seed)).pick(module._FORMS).__name__ for seed in range(100)}
    assert len(drawn) == len(module._FORMS) == 7


def test_remainders_that_no_square_leaves() -> None:
    for prime in module._PRIMES:
        never = module._not_squares(prime)
        assert len(never) == (prime - 1) // 2
        assert not {n * n % prime for n in range(-500, 500)} & set(never)


def test_no_sum_of_whole_numbers_leaves_64_bits() -> None:
    # The largest: n^3 of _fermat, and 47 n^2 + r of _no_square, with n below twice the bound.
    assert (2 * module.BOUND) ** 3 < 2**63
    assert 47 * (2 * module.BOUND) ** 2 < 2**63


def test_no_optimiser_folds_it(tmp_path: object) -> None:
    for seed in range(10):
        model, _ = predicate(seed, 17, 1)
        for level in LEVELS:
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = level
            options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
            options.log_severity_level = 4
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            left = {node.op_type for node in onnx.load(f"{tmp_path}/optimised.onnx").graph.node}
            assert left & {"Equal", "Greater", "Less"}
            assert "Constant" not in left
