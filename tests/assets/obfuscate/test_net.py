"""Models taken apart and put together again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exact_nets import Builder, random_net
from onnx_nets import answers, feeds
from vambrace.assets.obfuscate import net as nets
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.errors import ConfigError, ModelRefused

BRANCHES = """<ir_version: 8, opset_import: ["" : 17]>
choose (float[N, 4] x) => (float[N, 4] y) {
    total = ReduceSum <keepdims = 0> (x)
    zero = Constant <value = float {0.0}> ()
    positive = Greater (total, zero)
    y = If (positive) <
        then_branch = up () => (float[N, 4] a) { a = Mul (x, total) },
        else_branch = down () => (float[N, 4] b) { c = Neg (x)  b = Relu (c) }
    >
}"""


def rebuilt(model: onnx.ModelProto) -> onnx.ModelProto:
    return Net(model).model()


def bits(model: onnx.ModelProto) -> dict[str, bytes]:
    return {each.name: numpy_helper.to_array(each).tobytes() for each in model.graph.initializer}


@pytest.mark.parametrize("seed", range(3))
def test_a_model_comes_out_as_it_went_in(seed: int) -> None:
    model = random_net(seed)
    assert rebuilt(model) == model


def test_real_models_come_out_as_they_went_in(shared: Path) -> None:
    paths = [*(shared / "models").glob("*.onnx"), *(shared / "models/locators").glob("*.onnx")]
    assert len(paths) >= 5
    for path in paths:
        before, after = onnx.load(path), Net.load(path).model()
        assert bits(before) == bits(after)
        for each in (before, after):
            del each.graph.initializer[:]
        assert before == after


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int4", "uint4", "float16", "float64", "int8", "bool"])
def test_weights_of_every_type_keep_their_bits(dtype: str) -> None:
    kind = {
        "bfloat16": 16,
        "float8_e4m3fn": 17,
        "int4": 22,
        "uint4": 21,
        "float16": 10,
        "float64": 11,
        "int8": 3,
        "bool": 9,
    }
    numbers = helper.make_tensor("w", kind[dtype], [3], [1, 0, 1])
    node = helper.make_node("Identity", ["w"], ["y"])
    output = helper.make_tensor_value_info("y", kind[dtype], [3])
    graph = helper.make_graph([node], "g", [], [output], [numbers])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    after = rebuilt(model)
    assert after.graph.initializer[0].data_type == kind[dtype]
    assert bits(after) == bits(model)


def test_nan_payloads_and_text_survive() -> None:
    odd = np.array([0x7FC12345, 0xFF800001, 0x80000000, 0x00000001], np.uint32).view(np.float32)
    text = np.array(["a", "", "é"], dtype=object)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g () => (float[4] y, string[3] z) { y = Identity(w) z = Identity(t) }'
    )
    model.graph.initializer.extend([numpy_helper.from_array(odd, "w"), numpy_helper.from_array(text, "t")])
    after = rebuilt(model)
    assert numpy_helper.to_array(after.graph.initializer[0]).tobytes() == odd.tobytes()
    assert numpy_helper.to_array(after.graph.initializer[1]).tolist() == ["a", "", "é"]


def test_bodies_see_the_values_around_them() -> None:
    net = Net(onnx.parser.parse_model(BRANCHES))
    assert onnx.printer.to_text(net.model()) == onnx.printer.to_text(onnx.parser.parse_model(BRANCHES))
    chooser = next(node for node in net.graph.nodes if node.op == "If")
    index = net.index()
    assert [(node.op, place) for node, place in index.consumers["x"]] == [("ReduceSum", 0), ("If", -1)]
    assert index.only_consumer("positive") == (chooser, 0)
    assert index.only_consumer("total") is None
    assert index.only_consumer("y") is None
    assert len(list(net.graphs())) == 3
    net.rewire("total", "sum")
    assert {"sum", "x"} <= {name for body in chooser.graphs() for name in body.reads()}


def test_fresh_names_are_new_in_all_graphs() -> None:
    net = Net(
        onnx.parser.parse_model(BRANCHES.replace("c = Neg (x)", "v12 = Neg (x)").replace("Relu (c)", "Relu (v12)"))
    )
    fresh = net.fresh(20)
    assert len(set(fresh)) == 20
    assert not set(fresh) & net.taken()
    assert not set(net.fresh(5)) & set(fresh)


def test_constants_are_those_of_weights_and_nodes() -> None:
    net = Net(onnx.parser.parse_model(BRANCHES))
    assert net.graph.constants()["zero"].item() == 0.0
    net.graph.set_constant("zero", np.float32(2.5))
    assert Net(net.model()).graph.constants()["zero"].item() == 2.5


@pytest.mark.parametrize("form", ["raw", "typed", "list"])
def test_a_constant_keeps_its_form(form: str) -> None:
    tensor = helper.make_tensor("called", 1, [2], [1.0, 2.0], raw=False)
    if form == "raw":
        tensor = numpy_helper.from_array(np.array([1, 2], np.float32), "called")
    values = {"value_floats": [1.0, 2.0]} if form == "list" else {"value": tensor}
    nodes = [helper.make_node("Constant", [], ["c"], **values), helper.make_node("Identity", ["c"], ["y"])]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", 1, [2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    net = Net(model)
    net.graph.set_constant("c", np.array([3.0, 4.0], np.float32))
    assert net.graph.constants()["c"].tolist() == [3.0, 4.0]
    assert net.model() != model
    net.graph.set_constant("c", np.array([1.0, 2.0], np.float32))
    assert net.model() == model


def test_shapes_are_inferred_without_reading_large_weights() -> None:
    b = Builder(0)
    model = b.model({b.add("Relu", b.conv("image", 3, 64)): (2, 64, 12, 12)})
    infos = Net(model).infer()
    assert infos[model.graph.node[0].output[0]].shape == (2, 64, 12, 12)
    assert infos[model.graph.node[0].input[1]].shape == (64, 3, 3, 3)


def test_functions_stay() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[2] x) => (float[2] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["" : 17]> twice (a) => (b) { b = Add(a, a) }"""
    model = onnx.parser.parse_model(text)
    assert onnx.printer.to_text(rebuilt(model)) == onnx.printer.to_text(model)


def test_external_weights_are_read_in(tmp_path: Path) -> None:
    model = random_net(1)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=64)
    after = Net.load(tmp_path / "net.onnx").model()
    assert bits(after) == bits(random_net(1))
    assert not any(each.external_data for each in after.graph.initializer)
    (tmp_path / "net.bin").unlink()
    with pytest.raises(ModelRefused, match="E232"):
        Net.load(tmp_path / "net.onnx")
    without = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    for source in (without, without.SerializeToString()):
        with pytest.raises(ConfigError, match="E801: a model whose weights lie in other files"):
            Net.load(source)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="E801"):
        Net.load(3)
    with pytest.raises(ModelRefused, match="E230"):
        Net.load(b"no model")
    custom = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "x" : 1]> g (float[2] a) => (float[2] b) { b = x.y(a) }'
    )
    with pytest.raises(ModelRefused, match="E235"):
        Net.load(custom)


def stating_less(field: str, *, inputs: bool) -> onnx.ModelProto:
    model = random_net(3)
    for value in (*model.graph.output, *(model.graph.input if inputs else ())):
        if field == "type":
            value.ClearField("type")
        elif field == "shape":
            value.type.tensor_type.ClearField("shape")
        else:
            for size in value.type.tensor_type.shape.dim:
                size.Clear()
    return model


@pytest.mark.parametrize(
    ("field", "inputs"), [("type", False), ("shape", False), ("shape", True), ("sizes", False), ("sizes", True)]
)
@pytest.mark.parametrize("profile", ["exact", "tolerance"])
def test_models_that_state_no_type_shape_or_sizes(profile: Any, field: str, inputs: bool) -> None:
    """As runtimes take them; what is not stated stays so."""
    model = stating_less(field, inputs=inputs)
    assert rebuilt(model) == model
    made = onnx_model(model, profile=profile, seed=1, ratio="large")
    for before, after in zip(model.graph.output, made.model.graph.output, strict=True):
        assert before.type == after.type
    given = feeds(random_net(3))
    for one, other in zip(answers(model, given), answers(made.model, given), strict=True):
        assert np.array_equal(one, other) if profile == "exact" else np.allclose(one, other, atol=1e-4)
    if profile == "exact":
        assert undo(made.model, made.map).model == model


def test_a_model_that_is_no_longer_valid_does_not_leave() -> None:
    net = Net(random_net(2))
    net.graph.nodes.reverse()
    with pytest.raises(ConfigError, match="E801"):
        net.model()


def test_weights_of_more_than_two_gibibytes_do_not_leave() -> None:
    net = Net(random_net(2))
    net.graph.initialisers["huge"] = np.broadcast_to(np.float32(0), (2**29, 2))
    with pytest.raises(ConfigError, match="2 GiB"):
        net.model()


def test_weights_of_more_than_two_gibibytes_do_not_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before passes have worked on them for long."""
    path = tmp_path / "net.onnx"
    onnx.save(random_net(2), path)
    size = sum(len(each) for each in bits(random_net(2)).values())
    for source in (path, random_net(2), random_net(2).SerializeToString()):
        monkeypatch.setattr(nets, "MOST_BYTES", size)
        Net.load(source)
        monkeypatch.setattr(nets, "MOST_BYTES", size - 1)
        with pytest.raises(ConfigError, match="2 GiB"):
            Net.load(source)


def test_an_operator_that_cannot_be_inferred_is_no_error() -> None:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [value],
    )
    assert Net(helper.make_model(graph)).infer()["x"].shape == (2,)
