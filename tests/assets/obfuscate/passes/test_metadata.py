"""What a model says about itself is gone, and comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from exact_nets import Builder, differences, images, random_net
from vambrace.assets.obfuscate.measure.runtime import optimised
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.pipeline import onnx_model, undo


def noted(seed: int) -> onnx.ModelProto:
    model = onnx.shape_inference.infer_shapes(random_net(seed))
    model.producer_version, model.domain, model.doc_string, model.model_version = "v-secret", "org.secret", "secret", 7
    model.graph.doc_string = "secret graph"
    for place in (model, model.graph, model.graph.node[0], model.graph.input[0]):
        place.metadata_props.add(key="secret", value="/home/secret/train.py")
    model.graph.node[0].doc_string = "secret layer"
    model.graph.input[0].doc_string = "secret input"
    return model


def test_nothing_is_said_and_all_comes_back() -> None:
    model = noted(1)
    assert model.graph.value_info
    done = onnx_model(model, passes=["metadata"], seed=1)
    assert b"secret" not in done.model.SerializeToString()
    assert b"trainer" not in done.model.SerializeToString()
    assert len(done.model.graph.value_info) == 0
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model
    entry = done.map.passes[0]
    assert entry.done == entry.eligible > 10


def test_attributes_and_types_are_stripped_too() -> None:
    """Exporters write into the tensor of a constant what it was called."""

    def named(*size: int) -> Any:
        tensor = onnx.numpy_helper.from_array(np.ones(size, np.float32), "secret weight")
        tensor.doc_string = "secret note"
        tensor.metadata_props.add(key="secret", value="secret")
        return tensor

    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[n, 4] x) => (float[n, 3] y) { a = MatMul (x, w) b = Relu (a) m = MatMul (b, v) y = own.f (m) }
        <domain: "own", opset_import: ["" : 17]> f (a) => (d) { d = Add (a, c) }"""
    model = onnx.parser.parse_model(text)
    for name, size, nodes in (
        ("v", (8, 3), model.graph.node),
        ("w", (4, 8), model.graph.node),
        ("c", (3,), model.functions[0].node),
    ):
        nodes.insert(0, onnx.helper.make_node("Constant", [], [name], value=named(*size)))
        nodes[0].attribute[0].doc_string = "secret attribute"
    model.graph.input[0].type.denotation = "secret kind"
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "secret size"
    done = onnx_model(model, passes=["scaling", "metadata"], seed=1)
    assert done.map.passes[0].done > 0
    assert b"secret" not in done.model.SerializeToString()
    assert undo(done.model, done.map).model == Net(model).model()


def test_shapes_that_nobody_could_infer_stay() -> None:
    b = Builder(0)
    sizes = b.add("Cast", b.add("Mul", b.add("ReduceMax", "image", keepdims=0), b.weight(b.normal() * 0 + 4)), to=7)
    shaped = b.add("Reshape", "image", b.add("Max", b.add("Unsqueeze", sizes, b.weight([0])), b.weight([72, 12])))
    last = b.add("Relu", shaped)
    model = b.model({b.add("Flatten", last): (None, None)})
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(shaped, 1, [72, 12]))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(last, 1, [72, 12]))
    done = onnx_model(model, passes=["metadata"], seed=1)
    kept = [each.name for each in done.model.graph.value_info]
    assert shaped in kept
    assert done.map.passes[0].left == {"shapes that inference cannot find again": len(kept)}
    assert undo(done.model, done.map).model == model


def head(asked: str) -> onnx.ModelProto:
    """Behind a Resize, of which ONNX's inference says no batch but makes up a name, as exporters do that call it."""
    text = f"""<ir_version: 8, opset_import: ["" : 13]> g (float[n, 3, h, w] image) => (float[m, k, 2] y)
        <float[2, 3, 1, 1] f = {{0.5, -1, 2, 1, 0.25, -0.5}}, float[4] double = {{1, 1, 2, 2}}, int64[1] ends = {{-1}},
         int64[1] last = {{2}}, int64 first = {{0}}, int64[1] zero = {{0}}> {{
            r = Resize <mode = "nearest"> (image, , double)
            c = Conv (r, f) p = Relu (c) t = Transpose <perm = [0, 2, 3, 1]> (p)
            s = Shape (p) {asked} k = Concat <axis = 0> (u, ends, last) y = Reshape (t, k)
        }}"""
    return onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))


def operators(model: onnx.ModelProto) -> list[str]:
    return sorted(node.op_type for node in optimised(model, "all").graph.node)


def test_names_of_sizes_stay_where_runtimes_leave_operators_out_for_them() -> None:
    """By such a name onnxruntime sees that the size asked for is that of what is shaped, and asks no more."""
    model = head("b = Gather (s, first) u = Unsqueeze (b, zero)")
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    bare.graph.ClearField("value_info")
    assert "Shape" not in operators(model)
    assert "Shape" in operators(bare)
    done = onnx_model(model, passes=["metadata", "order", "names"], seed=1)
    assert operators(done.model) == operators(model)
    (kept,) = done.model.graph.value_info
    # The size alone: channels, and what inference made up for others, are not said.
    batch, *others = kept.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [each.WhichOneof("value") for each in others] == [None] * 3
    assert done.map.passes[0].left == {"names of sizes that operators ask for": 1}
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == Net(model).model()


def test_names_of_sizes_go_where_nothing_asks_or_nothing_stated_them() -> None:
    bare = head("b = Gather (s, first) u = Unsqueeze (b, zero)")
    bare.graph.ClearField("value_info")
    for model in (head("u = Add (zero, zero)"), bare):
        done = onnx_model(model, passes=["metadata"], seed=1)
        assert len(done.model.graph.value_info) == 0
        assert undo(done.model, done.map).model == Net(model).model()
    # A shape may be asked for in part: the first of these sizes is the second of that shape, which is stated.
    bare.opset_import[0].version = 15
    (asks,) = (node for node in bare.graph.node if node.op_type == "Shape")
    asks.attribute.append(onnx.helper.make_attribute("start", 1))
    part = onnx.shape_inference.infer_shapes(bare)
    assert len(onnx_model(part, passes=["metadata"], seed=1).model.graph.value_info) == 0
    # Asked for as a whole, every size counts: the batch, made by Resize, and two that Conv makes.
    every = head("u = Slice (s, zero, last, zero)")
    kept = onnx_model(every, passes=["metadata"], seed=1).model.graph.value_info
    (shape,) = (each.type.tensor_type.shape for each in every.graph.value_info if each.name == "p")
    assert {size.dim_param for each in kept for size in each.type.tensor_type.shape.dim} - {""} == {
        size.dim_param for size in shape.dim if size.dim_param
    }


def test_functions_and_bodies_are_stripped_too() -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
        g (float[2] image) => (float[2] y) { y = own.twice(image) }
        <domain: "own", opset_import: ["" : 18]> twice (a) => (b) {
            m = ReduceMean <keepdims = 0> (a)  go = Greater (m, m)
            b = If (go) <then_branch = t () => (float[2] p) { p = Add (a, a) }, else_branch = e () => (float[2] q) {
                q = Add (a, a) }>
        }"""
    model = onnx.parser.parse_model(text)
    model.functions[0].doc_string = "secret"
    model.functions[0].node[0].doc_string = "secret"
    body = model.functions[0].node[2].attribute[0].g
    body.doc_string = body.node[0].doc_string = "secret"
    done = onnx_model(model, passes=["metadata"], seed=1)
    assert b"secret" not in done.model.SerializeToString()
    assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)


def test_real_models_name_no_producer(shared: Path) -> None:
    for path in (shared / "models").glob("*.onnx"):
        assert onnx.load(path).producer_name == "pytorch"
        assert b"pytorch" not in onnx_model(path, passes=["metadata"], seed=1).model.SerializeToString()
