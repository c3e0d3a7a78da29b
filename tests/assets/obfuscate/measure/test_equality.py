"""Answers of two models: equal where they should be, and every way of not being equal is seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import disguises
from onnx_nets import net
from vambrace.assets.obfuscate.measure import equality
from vambrace.assets.obfuscate.measure.equality import EqualityOptions, compare_answers
from vambrace.assets.obfuscate.measure.gates import Gates
from vambrace.assets.obfuscate.measure.inputs import Rows, read_rows
from vambrace.assets.obfuscate.measure.judging import judge_equality
from vambrace.assets.obfuscate.measure.runtime import LEVELS, Network, Settings, load
from vambrace.errors import ArtifactRefused, ConfigError

LAYERS = disguises.weights()
ORIGINAL = disguises.dense(LAYERS)
FEW = EqualityOptions(fewer=10, settings=(Settings(), Settings(level="basic")))
EVERYWHERE = ("real", "random", "edge")


@pytest.fixture(scope="module")
def real() -> Rows:
    return read_rows(disguises.inputs(), Network(ORIGINAL))


def changed(name: str, value: float) -> ModelProto:
    copy = ModelProto.FromString(ORIGINAL.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            array.reshape(-1)[0] += value
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return copy


def test_other_names_and_places_are_the_same_function(real: Rows) -> None:
    found = compare_answers(ORIGINAL, disguises.renamed(ORIGINAL), real)
    assert found.worst(*EVERYWHERE, "nan", "infinite", "extreme").exact
    assert found.repeat.exact
    assert {each.settings for each in found.found} == {
        "all, 1 thread",
        "all, 2 threads",
        *(f"{level}, 1 thread" for level in LEVELS if level != "all"),
    }
    assert [each.difference.rows for each in found.found if each.kind == "real"][0] == len(disguises.inputs())


@pytest.mark.parametrize("obfuscated", [disguises.padded(ORIGINAL), disguises.decoyed(LAYERS)])
def test_exact_disguises_differ_in_no_bit(real: Rows, obfuscated: ModelProto) -> None:
    found = compare_answers(ORIGINAL, obfuscated, real, options=FEW)
    assert found.worst(*EVERYWHERE).exact
    assert found.worst("nan", "infinite").nan_apart == 0


def test_a_decoy_that_nan_falls_into_is_caught(real: Rows) -> None:
    """mean(x * x) >= 0 is false for NaN, so the decoy runs: it gives NaN too, unless the decoy swallows it."""
    obfuscated = disguises.decoyed(LAYERS)
    for node in obfuscated.graph.node:
        for attribute in node.attribute:
            if attribute.name == "else_branch":
                inner = attribute.g.node[0]
                swallow = helper.make_node(
                    "Constant", [], ["c"], value=numpy_helper.from_array(np.zeros((1, 1), np.float32))
                )
                widen = helper.make_node("Min", ["swallowed", "swallowed"], [inner.output[0]])
                size = helper.make_node("Shape", ["raw"], ["s"])
                full = helper.make_node("Expand", ["c", "s"], ["swallowed"])
                inner.output[0] = "raw"
                attribute.g.node.extend([swallow, size, full, widen])
    found = compare_answers(ORIGINAL, obfuscated, real, options=FEW)
    assert found.worst(*EVERYWHERE).exact
    assert found.worst("nan", "infinite").nan_apart > 0


@pytest.mark.parametrize("name", ["fc0.weight", "fc3.bias"])
def test_one_weight_by_one_ten_thousandth_is_seen(real: Rows, name: str) -> None:
    worst = compare_answers(ORIGINAL, changed(name, 1e-4), real, options=FEW).worst("real")
    assert not worst.exact
    assert 1e-6 < worst.max_abs < 1e-2


def test_a_wrong_model_decides_otherwise(real: Rows) -> None:
    found = compare_answers(ORIGINAL, disguises.dense(disguises.locked(LAYERS)), real, options=FEW)
    decided = found.decided("real")
    assert decided.top1_of == 50
    assert decided.top1_same < 35


def test_permuted_channels_differ_by_rounding_alone(real: Rows) -> None:
    worst = compare_answers(ORIGINAL, disguises.dense(disguises.gauged(LAYERS)[0]), real, options=FEW).worst("real")
    assert 0 < worst.max_row < 1e-5
    assert worst.top1_same == worst.top1_of


def test_a_model_that_draws_at_random_fails_its_own_control(real: Rows) -> None:
    copy = ModelProto.FromString(ORIGINAL.SerializeToString())
    copy.graph.node[-1].output[0] = "still"
    noise = helper.make_node("RandomNormalLike", ["still"], ["noise"])
    copy.graph.node.extend([noise, helper.make_node("Add", ["still", "noise"], ["logits"])])
    assert not compare_answers(copy, copy, real, options=FEW).repeat.exact


def test_names_of_decisions_must_exist(real: Rows) -> None:
    options = EqualityOptions(decisions=("logits",), fewer=2, settings=(Settings(),))
    assert compare_answers(ORIGINAL, ORIGINAL, real, options=options).decisions == ("logits",)
    with pytest.raises(ArtifactRefused, match="E823"):
        compare_answers(ORIGINAL, ORIGINAL, real, options=EqualityOptions(decisions=("none",), fewer=2))


def test_decisions_may_be_the_callers_own(real: Rows) -> None:
    def above(outputs: list[np.ndarray]) -> np.ndarray:
        return (outputs[0] > 0).astype(np.int64)

    wrong = disguises.dense(disguises.locked(LAYERS))
    same, other = (compare_answers(ORIGINAL, each, real, options=FEW, decide=above) for each in (ORIGINAL, wrong))
    assert same.decisions == ("decision",)
    assert same.decided("real").top1_of == 250
    assert same.decided("real").top1_same == 250
    assert other.decided("real").top1_same < 200
    assert same.relative("output", "real") == 0.0
    assert 0.1 < other.relative("output", "real") < other.relative("sample", "real")


def test_two_models_that_are_no_pair_are_refused(real: Rows) -> None:
    other = ModelProto.FromString(ORIGINAL.SerializeToString())
    other.graph.output.extend([helper.make_tensor_value_info("fc0.hidden", TensorProto.FLOAT, [None, 24])])
    with pytest.raises(ArtifactRefused, match="E823"):
        compare_answers(ORIGINAL, other, real, options=FEW)


def test_inputs_of_the_obfuscated_model_alone_are_given_by_name(real: Rows) -> None:
    keyed = ModelProto.FromString(ORIGINAL.SerializeToString())
    keyed.graph.input.extend([helper.make_tensor_value_info("key", TensorProto.FLOAT, [])])
    keyed.graph.node[-1].output[0] = "still"
    keyed.graph.node.extend([helper.make_node("Mul", ["still", "key"], ["logits"])])
    right, wrong = ({"key": np.array(value, np.float32)} for value in (1.0, 2.0))
    assert compare_answers(ORIGINAL, keyed, real, options=FEW, keys=right).worst("real").exact
    assert not compare_answers(ORIGINAL, keyed, real, options=FEW, keys=wrong).worst("real").exact
    for keys in (None, right | {"none": np.array(1.0, np.float32)}):
        with pytest.raises(ArtifactRefused, match="E823"):
            compare_answers(ORIGINAL, keyed, real, options=FEW, keys=keys)


def test_what_the_runtime_cannot_use_or_run_is_named(real: Rows) -> None:
    broken = ModelProto.FromString(ORIGINAL.SerializeToString())
    broken.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ArtifactRefused, match="E821"):
        compare_answers(ORIGINAL, broken, real, options=FEW)
    fails = ModelProto.FromString(ORIGINAL.SerializeToString())
    fails.graph.initializer.extend([numpy_helper.from_array(np.array([7, 9], np.int64), "sizes")])
    fails.graph.node[-1].output[0] = "still"
    fails.graph.node.extend([helper.make_node("Reshape", ["still", "sizes"], ["logits"])])
    with pytest.raises(ArtifactRefused, match="E82[12]"):
        compare_answers(ORIGINAL, fails, real, options=FEW)


def test_kinds_that_are_not_asked_for_do_not_run(real: Rows) -> None:
    found = compare_answers(ORIGINAL, ORIGINAL, real, options=dataclasses.replace(FEW, kinds=("edge", "real")))
    assert {each.kind for each in found.found} == {"edge", "real"}
    assert found.repeat.rows == len(real)
    assert len(found.drift) == 1


def test_options_out_of_range_are_refused() -> None:
    for make in (
        lambda: Settings(level="most"),  # type: ignore[arg-type]
        lambda: Settings(threads=0),
        lambda: EqualityOptions(rows=0),
        lambda: EqualityOptions(kinds=()),
        lambda: EqualityOptions(kinds=("all",)),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match="E820"):
            make()


def test_weights_beside_the_file_are_read(tmp_path: object) -> None:
    path = f"{tmp_path}/net.onnx"
    onnx.save(ORIGINAL, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    whole = load(path)
    assert not any(tensor.external_data for tensor in whole.graph.initializer)
    assert Network(whole).run([disguises.inputs(2)])[0].shape == (2, 5)


@pytest.mark.parametrize("given", [3, [1, 2], np.ones(3), None])
def test_decisions_are_arrays_of_whole_numbers(given: Any) -> None:
    with pytest.raises(ConfigError, match="E820: decide gave"):
        equality.decisions(lambda _: given, [np.ones((3, 2))])
    assert equality.decisions(lambda each: each[0].argmax(1), [np.ones((3, 2))]).shape == (3,)


def test_decisions_of_a_model_whose_first_output_is_one_number() -> None:
    model = net(
        "(float[n,4] x) => (float y, float[n,3] z) { y = ReduceSum <keepdims=0> (x) z = MatMul (x, w) }",
        weights={"w": (4, 3)},
    )
    rows = read_rows(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), Network(model))
    found = compare_answers(model, model, rows, decide=lambda each: each[1].argmax(1))
    assert found.decided("real").top1_same == found.decided("real").top1_of > 0
    assert found.asked("real") == 20
    (top1,) = (each for each in judge_equality(found, Gates()) if each.gate == "top1")
    assert (top1.word, top1.n) == ("pass", 20)
    assert top1.interval is not None
    assert top1.interval.low == pytest.approx(0.8389, abs=1e-4)  # Wilson, 20 of 20
