"""Nothing that was named by people keeps its name."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from exact_nets import Builder, differences, images, random_net, session
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.names import Names
from vambrace.assets.obfuscate.pipeline import onnx_model, undo

EVERYTHING = """<ir_version: 10, opset_import: ["" : 18, "secret_domain" : 1]>
secret_graph (float[secret_batch, 4] image) => (float[secret_batch, 4] logits)
<float[4] secret_weight = {1, 2, 3, 4}, float[secret_batch, 4] secret_info>
{
    secret_info = secret_domain.secret_function <secret_attribute = 2.0> (image)
    secret_total = ReduceSum <keepdims = 0> (secret_info)
    secret_zero = Constant <value = float {0.0}> ()
    secret_test = Greater (secret_total, secret_zero)
    logits = If (secret_test) <
        then_branch = secret_then () => (float[secret_batch, 4] secret_a) {
            secret_a = Mul (secret_info, secret_weight)
        },
        else_branch = secret_else () => (float[secret_batch, 4] secret_b) {
            secret_c = Neg (secret_info)
            secret_b = Relu (secret_c)
        }
    >
}
<domain: "secret_domain", opset_import: ["" : 18]>
secret_function <secret_attribute> (secret_in) => (secret_out)
{
    secret_constant = Constant <value_float: float = @secret_attribute> ()
    secret_mean = ReduceMean <keepdims = 0> (secret_in)
    secret_large = Greater (secret_mean, secret_constant)
    secret_out = If (secret_large) <
        then_branch = secret_inner () => (float[secret_n, 4] secret_p) { secret_p = Mul (secret_in, secret_constant) },
        else_branch = secret_other () => (float[secret_n, 4] secret_q) { secret_q = Neg (secret_in) }
    >
}"""

LOOP = """<ir_version: 8, opset_import: ["" : 18]>
g (float[n, 4] image) => (float[n, 4] logits)
<int64 secret_trips = {3}, bool secret_go = {1}>
{
    logits = Loop (secret_trips, secret_go, image) <
        body = secret_body (int64 secret_i, bool secret_in, float[n, 4] secret_x) =>
            (bool secret_on, float[n, 4] secret_y) { secret_on = Identity (secret_in)  secret_y = Sin (secret_x) }
    >
}"""


def words(model: onnx.ModelProto) -> list[str]:
    """Everything in a model that reads like text, its weights left out."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        tensor.raw_data = b""
    return re.findall(r"[A-Za-z_][\w.:/-]*", bare.SerializeToString().decode("latin-1"))


@pytest.mark.parametrize("text", [EVERYTHING, LOOP])
def test_no_name_is_left_and_all_come_back(text: str) -> None:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    assert any("secret" in word for word in words(model))
    done = onnx_model(model, passes=["names"], seed=1)
    assert [word for word in words(done.model) if "secret" in word] == []
    assert differences(model, done.model, images(0, (3, 4))) == []
    assert model == onnx.parser.parse_model(text)
    assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)


def test_inputs_and_outputs_stay_unless_asked_for() -> None:
    model = random_net(1)
    kept, renamed = (onnx_model(model, passes=[Names(interface=flag)], seed=1) for flag in (False, True))
    assert [each.name for each in kept.model.graph.input] == ["image"]
    assert kept.map.passes[0].left == {"inputs and outputs, which callers use": 1 + len(model.graph.output)}
    (new,) = (each.name for each in renamed.model.graph.input)
    assert new != "image"
    assert renamed.map.passes[0].record["values"][new] == "image"
    assert differences(model, renamed.model, images(0)) == []
    assert undo(renamed.model, renamed.map).model == model


def test_new_names_say_nothing_of_order() -> None:
    done = onnx_model(random_net(1), passes=["names"], seed=1).model
    made = [node.output[0] for node in done.graph.node if node.output[0].startswith("n")]
    numbers = [int(name.removeprefix("n"), 36) for name in made]
    rising = sum(a < b for a, b in zip(numbers, numbers[1:], strict=False))
    assert 0.2 < rising / (len(numbers) - 1) < 0.8


def test_nodes_of_the_original_are_not_told_by_having_names() -> None:
    """Those that passes add have none."""
    model = random_net(1)
    assert all(node.name for node in model.graph.node)
    done = onnx_model(model, passes=["phantoms", "names"], seed=1)
    found = [node for graph in Net(done.model).graphs() for node in graph.nodes]
    assert len(found) > 10 * len(model.graph.node)
    assert not any(node.name for node in found)
    assert undo(done.model, done.map).model == model


def test_maps_of_nodes_that_were_renamed_are_still_read() -> None:
    """Once nodes got new names instead of none."""
    model = random_net(1)
    done = onnx_model(model, passes=["names"], seed=1)
    record = dict(done.map.passes[0].record)
    record["nodes"] = {f"n{number}zz": name for number, name in enumerate(record.pop("called").values())}
    for node, name in zip(done.model.graph.node, record["nodes"], strict=True):
        node.name = name
    old = dataclasses.replace(done.map, passes=(dataclasses.replace(done.map.passes[0], record=record),))
    assert undo(done.model, old).model == model


def test_a_kept_name_is_never_given_again() -> None:
    b = Builder(0)
    model = b.model({b.add("Relu", b.add("Tanh", "image")): (2, 3, 12, 12)})
    for name in ("n0", "n1", "n2"):
        model.graph.input[0].name = name
        model.graph.node[0].input[0] = name
        for seed in range(10):
            done = onnx_model(model, passes=["names"], seed=seed).model
            assert name not in {output for node in done.graph.node for output in node.output}
            session(done)


def test_weights_among_the_inputs_are_renamed_too() -> None:
    model = random_net(2)
    for tensor in model.graph.initializer:
        shape = numpy_helper.to_array(tensor).shape
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    done = onnx_model(model, passes=["names"], seed=1)
    assert {word for word in words(done.model) if "layer." in word} == {each.name for each in model.graph.output}
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_quantisation_annotations_follow_their_values() -> None:
    model = random_net(2)
    note = model.graph.quantization_annotation.add(tensor_name=model.graph.node[0].output[0])
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=model.graph.initializer[0].name)
    done = onnx_model(model, passes=["names"], seed=1)
    (after,) = done.model.graph.quantization_annotation
    assert after.tensor_name == done.model.graph.node[0].output[0]
    assert after.quant_parameter_tensor_names[0].value == done.model.graph.initializer[0].name
    assert undo(done.model, done.map).model == model


def test_overloads_and_domains_that_nothing_uses_are_names_too() -> None:
    """They stayed, and the gate for names failed with no way to make it pass."""
    helper = onnx.helper
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function(
        "secret.inner", "Block", ["a"], ["b"], body, [helper.make_opsetid("", 17), helper.make_opsetid("secret.no", 1)]
    )
    other = onnx.FunctionProto.FromString(function.SerializeToString())
    function.overload, other.overload = "secret_one", "secret_two"
    other.node[0].op_type = "Neg"
    nodes = [
        helper.make_node("Block", ["x"], ["h"], domain="secret.inner", overload="secret_one"),
        helper.make_node("Block", ["h"], ["y"], domain="secret.inner", overload="secret_two"),
    ]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    domains = {"": 17, "secret.inner": 1, "secret.unused": 1, "com.microsoft": 1}
    model = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:]),
        functions=[function, other],
        opset_imports=[helper.make_opsetid(name, version) for name, version in domains.items()],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    made = onnx_model(model, passes=[Names()], seed=1)
    onnx.checker.check_model(made.model)
    assert "secret" not in str(made.model)
    assert {"", "com.microsoft"} <= {each.domain for each in made.model.opset_import}
    assert len({each.overload for each in made.model.functions}) == 2
    for each in (model, made.model):
        session = onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
        assert session.run(None, {"x": np.array([-1, 2], np.float32)})[0].tolist() == [0, -2]
    assert undo(made.model, made.map).model.SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )
