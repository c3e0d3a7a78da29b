"""Layers behind predicates on data: the true branch runs, whatever the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from exact_nets import LEVELS, SIZE, Builder, differences, images, random_net
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.predicates import Predicates
from vambrace.assets.obfuscate.passes.scaling import Scaling
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.errors import ConfigError

ALL = Predicates(share=1.0, growth=9.0, slowdown=1e9)


def small(opset: int = 17) -> onnx.ModelProto:
    b = Builder(0)
    x = b.add("Relu", b.conv("image", 3, 16))
    return b.model({b.conv(x, 16, 4): (2, 4, SIZE, SIZE)}, opset=opset)


def branches(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, dict[str, onnx.GraphProto]]]:
    found = [node for node in model.graph.node if node.op_type == "If"]
    return [(node, {each.name: each.g for each in node.attribute}) for node in found]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
def test_both_branches_look_alike_and_the_true_one_runs(opset: int) -> None:
    model = small(opset)
    done = onnx_model(model, passes=[ALL], seed=1)
    assert done.map.passes[0].done == 2
    for _, both in branches(done.model):
        true, fake = both["then_branch"], both["else_branch"]
        assert [node.op_type for node in true.node] == [node.op_type for node in fake.node]
        assert [list(each.dims) for each in true.initializer] == [list(each.dims) for each in fake.initializer]
        assert all(a.raw_data != b.raw_data for a, b in zip(true.initializer, fake.initializer, strict=True))
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_a_decoy_would_be_noticed() -> None:
    done = onnx_model(small(), passes=[ALL], seed=1)
    swapped = onnx.ModelProto()
    swapped.CopyFrom(done.model)
    for node, both in branches(swapped):
        del node.attribute[:]
        other = {"then_branch": "else_branch", "else_branch": "then_branch"}
        node.attribute.extend(helper.make_attribute(other[name], body) for name, body in both.items())
    assert len(differences(small(), swapped, {"plain": images(0)["plain"]})) == len(LEVELS)


def test_the_true_branch_is_not_always_the_same() -> None:
    sides = [onnx_model(small(), passes=[ALL], seed=seed).map.passes[0].record["places"] for seed in range(20)]
    flat = [place["branch"] for places in sides for place in places]
    assert 8 < flat.count("then_branch") < 32


def test_nothing_is_folded_and_no_decoy_is_dropped(tmp_path: Path) -> None:
    import onnxruntime

    done = onnx_model(small(), passes=[ALL], seed=1)
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(done.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        assert len(branches(onnx.load(tmp_path / "optimised.onnx"))) == 2


def test_a_decoy_cancels_the_factors_of_the_layer_before_it_as_well_as_the_layer_does() -> None:
    """Sizes of rows and of the columns that read them fall and rise together; of both branches, either as tightly."""
    tighter = 0
    for seed in range(40):
        b = Builder(seed)
        x = b.add("Relu", b.conv(b.add("Relu", b.conv("image", 3, 64, 1)), 64, 32, 1))
        model = b.model({b.conv(x, 32, 4, 1): (2, 4, SIZE, SIZE)})
        done = onnx_model(model, passes=[Scaling(reach=8), ALL], seed=seed)
        places = {place["given"]: place["branch"] for place in done.map.passes[1].record["places"]}
        kernels = {
            (node.output[0], name): numpy_helper.to_array(each)[:, :, 0, 0]
            for node, both in branches(done.model)
            for name, body in both.items()
            for each in body.initializer
            if len(each.dims) == 4
        }
        true = {kernel.shape: kernel for (node, name), kernel in kernels.items() if places[node] == name}
        fake = {kernel.shape: kernel for (node, name), kernel in kernels.items() if places[node] != name}
        rows = np.log(np.linalg.norm(true[64, 3], axis=1))
        fits = [np.corrcoef(rows, np.log(np.linalg.norm(one[32, 64], axis=0)))[0, 1] for one in (true, fake)]
        assert max(fits) < -0.9
        tighter += fits[0] < fits[1]
    # A fair coin gives 6 to 34 of 40 but for 2 in a million.
    assert 6 <= tighter <= 34


def test_what_others_read_stays_where_it_is() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 4] image) => (float[2, 4] y, float[2, 4] z) {
        w = Constant <value = float[4, 4] {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 8}> ()
        a = MatMul (image, w)  b = Clip (a, low, high)  y = MatMul (b, v)  z = Clip (image, low, high)
    }"""
    model = onnx.parser.parse_model(text)
    for name, array in (("low", np.float32(0)), ("high", np.float32(6)), ("v", Builder(0).normal(4, 4))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    done = onnx_model(model, passes=[ALL], seed=1)
    assert done.map.passes[0].done == 2
    assert {"low", "high"} <= {each.name for each in done.model.graph.initializer}
    assert all(node.op_type != "Constant" for node in done.model.graph.node)
    assert differences(model, done.model, images(0, (2, 4))) == []
    assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)


def test_weights_that_callers_may_override_stay_among_the_inputs() -> None:
    model = small()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    done = onnx_model(model, passes=[ALL], seed=1)
    before, after = ({each.name for each in one.graph.input} for one in (model, done.model))
    assert before < after
    assert len(after) == 2 * len(before) - 1
    assert all(not body.initializer for _, both in branches(done.model) for body in both.values())
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_files_that_list_weights_as_inputs_are_raised_to_a_version_that_does_not() -> None:
    b = Builder(0)
    x = b.add("Relu", b.batch_norm(b.conv("image", 3, 12), 12))
    model = b.model({b.add("Relu", b.conv(x, 12, 16)): (2, 16, SIZE, SIZE)}, opset=11)
    model.ir_version = 3
    for each in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    done = onnx_model(model, passes=[ALL], seed=1)
    assert done.map.passes[0].done == 2
    assert [each.name for each in done.model.graph.input] == ["image"]
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_decoys_have_a_budget() -> None:
    model = small()
    size = sum(len(each.raw_data) for each in model.graph.initializer)
    for growth in (0.0, 0.45, 9.0):
        done = onnx_model(model, passes=[Predicates(share=1.0, growth=growth, slowdown=1e9)], seed=1)
        arrays = [array for graph in Net(done.model).graphs() for array in graph.initialisers.values()]
        added = sum(array.nbytes for array in arrays if array.ndim) - size
        assert added <= growth * size + 16 * len(arrays)
        assert done.map.passes[0].done == {0.0: 0, 0.45: 1, 9.0: 2}[growth]


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("taken", [1, 5])
def test_layers_of_one_output(taken: int, turned: int) -> None:
    """The axis of inputs was taken for that of outputs: an IndexError came out."""
    b = Builder(2)
    x = b.add("Flatten", b.add("GlobalAveragePool", b.conv("image", 3, taken)))
    matrix = b.normal(taken, 1)
    x = b.add("Gemm", x, b.weight(matrix.T if turned else matrix), b.weight(b.normal(1)), transB=turned)
    model = b.model({x: (2, 1)})
    done = onnx_model(model, passes=[Predicates(share=1.0, growth=10.0, slowdown=1e3)], seed=1)
    assert done.map.passes[0].done == (taken > 1)
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_old_operator_sets_are_left_alone() -> None:
    model = small(8)
    done = onnx_model(model, passes=[ALL], seed=1)
    assert done.model == model
    assert done.map.passes[0].left == {"operator sets before 9": 1}


def test_pads_stay_beside_their_convolution() -> None:
    b = Builder(0)
    x = b.add("Pad", "image", b.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    model = b.model({b.conv(x, 3, 4): (2, 4, SIZE + 2, SIZE + 2)})
    entry = onnx_model(model, passes=[ALL], seed=1).map.passes[0]
    assert entry.done == 0
    assert entry.left == {"a layer that runtimes fuse with what stands before it": 1}


def test_shares_are_bounded() -> None:
    for wrong in ({"share": 2.0}, {"growth": -1.0}, {"slowdown": -1.0}):
        with pytest.raises(ConfigError, match="E103"):
            Predicates(**wrong)


@pytest.mark.parametrize("seed", range(4))
def test_whole_networks_with_every_place_taken(seed: int) -> None:
    model = random_net(seed + 20)
    done = onnx_model(model, passes=[ALL], seed=seed)
    assert done.map.passes[0].done > 0
    assert differences(model, done.model, images(seed)) == []
    assert undo(done.model, done.map).model == model
