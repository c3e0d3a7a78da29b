"""The scripted adversary undoes every simple disguise, keeps the function, and leaves alone what holds."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import disguises
from vambrace.assets.obfuscate.measure.alignment import align
from vambrace.assets.obfuscate.measure.deobfuscator import TakenApart, take_apart
from vambrace.assets.obfuscate.measure.draft import Draft
from vambrace.assets.obfuscate.measure.families import FAMILIES, variant
from vambrace.assets.obfuscate.measure.inputs import random_rows, read_rows
from vambrace.assets.obfuscate.measure.linear import even_out
from vambrace.assets.obfuscate.measure.readability import SIMILARITIES, read_structure
from vambrace.assets.obfuscate.measure.runtime import Network, weights_of
from vambrace.assets.obfuscate.passes.phantoms import Phantoms
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.core.rng import Streams

LAYERS = disguises.weights()
ORIGINAL = disguises.dense(LAYERS)


def apart(model: ModelProto, **keys: np.ndarray) -> TakenApart:
    network = Network(model, fixed=keys)
    sizes = [size or 1 for size in network.inputs[0].shape[1:]]
    inputs = np.random.default_rng(0).normal(size=(4, *sizes)).astype(np.float32)
    real = read_rows(inputs, network)
    return take_apart(model, real, random_rows(real, 5, Streams(1)), keys=keys)


def similarities(model: ModelProto) -> list[float]:
    found = read_structure(ORIGINAL, model)
    return [getattr(found, name) for name in SIMILARITIES]


@pytest.mark.parametrize(
    ("obfuscated", "steps"),
    [
        (disguises.padded(ORIGINAL), {"copies"}),
        (disguises.decoyed(LAYERS), {"branches", "constants"}),
        (disguises.split(LAYERS), {"activations", "merged"}),
        (disguises.gathered(LAYERS), {"constants", "absorbed"}),
        (disguises.renamed(disguises.decoyed(LAYERS)), {"branches", "constants"}),
    ],
    ids=["padded", "decoyed", "split", "gathered", "renamed"],
)
def test_simple_disguises_come_off(obfuscated: ModelProto, steps: set[str]) -> None:
    assert min(similarities(obfuscated)) < 0.4
    found = apart(obfuscated)
    assert similarities(found.model) == pytest.approx([1.0] * 4)
    assert align(ORIGINAL, found.model).share == 1.0
    assert found.difference.max_row < 1e-5
    assert {name for name, count in found.steps.items() if count} - {"evened"} == steps
    assert found.seconds > 0


@pytest.mark.parametrize("family", list(FAMILIES))
def test_clean_networks_stay_what_they_compute(family: str) -> None:
    found = apart(variant(family, 3))
    assert found.difference.max_row < 1e-5
    assert found.difference.shapes_apart == 0
    assert read_structure(variant(family, 3), found.model).kernel > 0.9


def test_branches_that_both_run_stay() -> None:
    """A predicate that depends on the sample is no decoy: sign of the mean of the inputs."""
    model = disguises.decoyed(LAYERS)
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and node.input[0] == "square0":
            node.input[0] = "input"
    found = apart(model)
    assert found.steps["branches"] == 3
    assert [node.op_type for node in found.model.graph.node].count("If") == 1
    assert found.difference.exact or found.difference.max_row < 1e-5


def test_a_loop_that_never_runs_goes() -> None:
    beside = Phantoms(fewest=60, times=0, beside=True)
    model = onnx_model(ORIGINAL, passes=[beside], seed=1).model
    assert min(similarities(model)) < 0.4
    found = apart(model)
    assert similarities(found.model) == pytest.approx([1.0] * 4)
    assert found.steps["branches"] + found.steps["copies"] >= 1
    for runs in (True, False):  # one that runs stays, whatever it does
        other = ModelProto.FromString(model.SerializeToString())
        other.graph.node[-1].input[1] = "runs"
        other.graph.initializer.append(numpy_helper.from_array(np.array(runs), "runs"))
        assert ("Loop" in {node.op_type for node in apart(other).model.graph.node}) is runs


def test_branches_inside_branches_come_off_one_after_the_other() -> None:
    inner = disguises.decoyed(LAYERS[:1])
    outer = ModelProto.FromString(inner.SerializeToString())
    ends = [helper.make_tensor_value_info("deep", TensorProto.FLOAT, [None, 24])] * 2
    bodies = []
    for end in ends:
        body = helper.make_graph([*inner.graph.node], "body", [], [end])
        body.node[-1].output[0] = "deep"
        bodies.append(body)
    outer.graph.ClearField("node")
    outer.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["input"], ["top"], keepdims=0),
            helper.make_node("Sub", ["top", "top"], ["flat"]),
            helper.make_node("GreaterOrEqual", ["flat", "nothing"], ["always"]),
            helper.make_node("If", ["always"], ["logits"], then_branch=bodies[0], else_branch=bodies[1]),
        ]
    )
    found = apart(outer)
    assert found.steps["branches"] == 2
    assert [node.op_type for node in found.model.graph.node] == ["Gemm"]
    assert found.difference.max_row < 1e-6


def test_a_stolen_key_becomes_a_constant() -> None:
    keyed = ModelProto.FromString(ORIGINAL.SerializeToString())
    keyed.graph.input.extend([helper.make_tensor_value_info("key", TensorProto.INT64, [24])])
    order = np.random.default_rng(0).permutation(24)
    keyed.graph.node.insert(2, helper.make_node("Gather", ["fc0.relu", "key"], ["back"], axis=1))
    keyed.graph.node[3].input[0] = "back"
    found = apart(keyed, key=order.astype(np.int64))
    assert similarities(found.model) == pytest.approx([1.0] * 4)
    assert found.difference.max_row < 1e-5


def test_products_of_layers_and_parts_of_a_split_become_one() -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": (6, 9), "b": (9, 4), "c": (3, 5), "d": (3, 5), "e": (4, 5)}
    tensors = [numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name) for name, size in arrays.items()]
    nodes = [
        helper.make_node("MatMul", ["input", "a"], ["one"]),
        helper.make_node("MatMul", ["one", "b"], ["two"]),
        helper.make_node("MatMul", ["two", "e"], ["logits"]),
    ]
    chain = disguises.finished(nodes, tensors, ("input", [None, 6]), ("logits", [None, 5]))
    assert [node.op_type for node in apart(chain).model.graph.node] == ["MatMul"]
    nodes = [
        helper.make_node("Split", ["input"], ["left", "right"], axis=1),
        helper.make_node("Gemm", ["right", "d"], ["y"]),
        helper.make_node("Gemm", ["left", "c"], ["x"]),
        helper.make_node("Add", ["y", "x"], ["logits"]),
    ]
    parts = disguises.finished(nodes, tensors, ("input", [None, 6]), ("logits", [None, 5]))
    found = apart(parts)
    assert [node.op_type for node in found.model.graph.node] == ["Gemm"]
    assert found.difference.max_row < 1e-6
    for axis, operator in ((1, "Gemm"), (0, "Concat")):
        nodes = [
            helper.make_node("Gemm", ["input", "a"], ["x"]),
            helper.make_node("Gemm", ["input", "a"], ["y"]),
            helper.make_node("Neg", ["y"], ["z"]),
            helper.make_node("Gemm", ["z", "b"], ["w"]),
            helper.make_node("Gemm", ["z", "b2"], ["v"]),
            helper.make_node("Concat", ["w", "v"], ["logits"], axis=axis),
        ]
        more = [*tensors, numpy_helper.from_array(rng.normal(size=(9, 4)).astype(np.float32), "b2")]
        wide = disguises.finished(nodes, more, ("input", [None, 6]), ("logits", [None, None]))
        found = apart(wide)
        assert found.model.graph.node[-1].op_type == operator
        assert found.difference.max_row < 1e-6


def test_gathers_and_products_before_a_layer_go_into_it() -> None:
    rng = np.random.default_rng(0)
    order, scale = rng.permutation(6), rng.normal(size=(1, 6)).astype(np.float32)
    model = ModelProto.FromString(ORIGINAL.SerializeToString())
    model.graph.initializer.extend([numpy_helper.from_array(order, "order"), numpy_helper.from_array(scale, "scale")])
    model.graph.node[0].input[0] = "scaled"
    model.graph.node.insert(0, helper.make_node("Mul", ["turned", "scale"], ["scaled"]))
    model.graph.node.insert(0, helper.make_node("Gather", ["input", "order"], ["turned"], axis=1))
    found = apart(model)
    assert found.steps["absorbed"] == 2
    assert similarities(found.model) == pytest.approx([1.0] * 4)
    assert found.difference.max_row < 1e-5


def test_a_choice_that_differs_from_place_to_place_stays() -> None:
    model = ModelProto.FromString(ORIGINAL.SerializeToString())
    mixed = numpy_helper.from_array(np.array([[True, False, True, False, True]]), "mixed")
    model.graph.initializer.append(mixed)
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(
        [
            helper.make_node("Neg", ["plain"], ["turned"]),
            helper.make_node("Where", ["mixed", "plain", "turned"], ["logits"]),
        ]
    )
    found = apart(model)
    assert found.steps["branches"] == 0
    assert found.difference.exact


def test_scales_are_gone_after_channels_are_evened_out() -> None:
    """Whatever powers of two channels had, what is left is the same: the original's, evened out as well."""
    hidden = [(weight.copy(), bias.copy()) for weight, bias in LAYERS]
    scale = (2.0 ** np.random.default_rng(0).integers(-5, 6, 24)).astype(np.float32)
    hidden[0] = (hidden[0][0] * scale[:, None], hidden[0][1] * scale)
    hidden[1] = (hidden[1][0] / scale[None], hidden[1][1])
    found = []
    for layers in (LAYERS, hidden):
        draft = Draft(disguises.dense(layers))
        assert even_out(draft) == 3
        found.append(sorted(array.tobytes() for array in weights_of(draft.model()).values()))
    assert found[0] == found[1]
    assert not np.array_equal(hidden[0][0], LAYERS[0][0])


def test_the_order_and_the_names_say_nothing_of_the_file() -> None:
    one, two = (apart(model).model for model in (ORIGINAL, disguises.renamed(ORIGINAL)))
    assert [node.op_type for node in one.graph.node] == [node.op_type for node in two.graph.node]
    assert one.producer_name == ""
    assert [node.name for node in one.graph.node] == [str(place) for place in range(len(one.graph.node))]
