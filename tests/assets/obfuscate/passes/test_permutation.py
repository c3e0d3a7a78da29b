"""Channels in another order, with a Gather behind them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from exact_nets import SIZE, Builder, differences, images, random_net, session
from vambrace.assets.obfuscate.keyinput import lock_by_input
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.permutation import Permutation
from vambrace.assets.obfuscate.passes.predicates import Predicates
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.errors import ConfigError

ALL = Permutation(share=1.0, slowdown=1e9)


def test_filters_move_and_results_do_not() -> None:
    b = Builder(0)
    x = b.add("Relu", b.batch_norm(b.conv("image", 3, 16), 16))
    model = b.model({b.conv(x, 16, 4): (2, 4, SIZE, SIZE)})
    done = onnx_model(model, passes=[ALL], seed=1)
    before, after = (Net(each).graph.initialisers for each in (model, done.model))
    first = model.graph.node[0].input[1]
    assert not np.array_equal(before[first], after[first])
    assert sorted(map(bytes, before[first])) == sorted(map(bytes, after[first]))
    assert [node.op_type for node in done.model.graph.node] == [
        *("Conv", "BatchNormalization", "Relu", "Gather", "Conv", "Gather")
    ]
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_groups_keep_their_channels() -> None:
    b = Builder(0)
    x = b.add("Relu", b.conv("image", 3, 12, group=3))
    model = b.model({b.conv(b.conv(x, 12, 12, group=12), 12, 4): (2, 4, SIZE, SIZE)})
    done = onnx_model(model, passes=[ALL], seed=1)
    entry = done.map.passes[0]
    assert entry.left["one channel in a group, or an axis that is not known"] == 1
    (order,) = (place["order"] for place in entry.record["places"] if len(place["order"]) == 12)
    assert [place // 4 for place in order] == [0] * 4 + [1] * 4 + [2] * 4
    assert differences(model, done.model, images(0)) == []


def test_matrix_products_of_any_rank() -> None:
    for shape in ((5, 4), (2, 5, 4), (2, 3, 5, 4)):
        b = Builder(0)
        x = b.add("MatMul", "image", b.weight(b.normal(4, 16)))
        x = b.add("Relu", b.add("Add", x, b.weight(b.normal(16))))
        model = b.model({b.add("MatMul", x, b.weight(b.normal(16, 3))): (*shape[:-1], 3)}, shape)
        done = onnx_model(model, passes=[ALL], seed=1)
        assert done.map.passes[0].done == 2
        assert differences(model, done.model, images(0, shape)) == []
        assert undo(done.model, done.map).model == model


@pytest.mark.parametrize("op", ["Elu", "Mish", "Selu", "Softplus"])
def test_activations_whose_bits_depend_on_the_place_get_channels_in_place(op: str) -> None:
    """The last elements of a tensor are computed by other code than those in its middle."""
    for seed in range(3):
        b = Builder(seed)
        first, second = (b.normal(*size) * 2 for size in ((6, 27), (27, 3)))
        x = b.add(op, b.add("MatMul", "image", b.weight(first)))
        model = b.model({b.add("MatMul", x, b.weight(second)): (None, 3)}, (None, 6), opset=18)
        done = onnx_model(model, passes=[ALL], seed=seed)
        assert done.map.passes[0].done == 2
        inputs = {rows: b.normal(rows, 6) for rows in range(1, 20)}
        assert differences(model, done.model, inputs) == []
        assert undo(done.model, done.map).model == model


def test_old_files_list_the_order_among_their_inputs() -> None:
    b = Builder(0)
    x = b.add("Relu", b.conv("image", 3, 16))
    model = b.model({b.conv(x, 16, 4): (2, 4, SIZE, SIZE)}, opset=9)
    model.ir_version = 3
    for each in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    done = onnx_model(model, passes=[ALL], seed=1)
    assert done.map.passes[0].done == 2
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_an_unknown_rank_waits_for_an_operator_set_that_counts_from_the_end() -> None:
    for opset, done in ((10, 0), (11, 1)):
        text = f"""<ir_version: 6, opset_import: ["" : {opset}]>
        g (float[2, 6] image, int64[k] sizes) => (float[m, 3] y) {{
            x = Reshape (image, sizes)  a = MatMul (x, w)  r = Relu (a)  b = MatMul (r, v)  y = Softmax (b)
        }}"""
        model = onnx.parser.parse_model(text)
        for name, size in (("w", (3, 8)), ("v", (8, 3))):
            model.graph.initializer.append(onnx.numpy_helper.from_array(Builder(0).normal(*size), name))
        after = onnx_model(model, passes=[ALL], seed=1)
        assert after.map.passes[0].done == done
        feeds = {"image": images(0, (2, 6))["plain"], "sizes": np.array([4, 3])}
        assert np.array_equal(*(session(each).run(None, feeds)[0] for each in (model, after.model)))


def test_gathers_of_a_large_activation_are_too_dear() -> None:
    b = Builder(0)
    x = b.add("Relu", b.conv("image", 3, 16, 1))
    model = b.model({b.conv(x, 16, 4, 1): (2, 4, 224, 224)}, (2, 3, 224, 224))
    entry = onnx_model(model, passes=[Permutation(share=1.0)], seed=1).map.passes[0]
    assert entry.done == 0
    assert entry.left["gathers that would take too long"] == entry.eligible == 2


def test_shares_are_bounded() -> None:
    for wrong in ({"share": 1.5}, {"share": -0.1}, {"slowdown": -1.0}):
        with pytest.raises(ConfigError, match="E103"):
            Permutation(**wrong)


@pytest.mark.parametrize("seed", range(4))
def test_whole_networks_with_every_place_taken(seed: int) -> None:
    model = random_net(seed + 10)
    done = onnx_model(model, passes=[ALL], seed=seed)
    assert done.map.passes[0].done > 0
    assert differences(model, done.model, images(seed)) == []
    assert undo(done.model, done.map).model == model


def overridable(ir: int) -> onnx.ModelProto:
    b = Builder(0)
    matrices = [b.weight(b.normal(10, 12)), b.weight(b.normal(10, 10))]
    value = b.add("Relu", b.add("Gemm", "image", matrices[0], transB=1))
    model = b.model({b.add("Gemm", value, matrices[1], transB=1): ("n", 10)}, ("n", 12))
    model.ir_version = ir
    for each in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    return model


def test_matrices_that_callers_may_override_keep_their_order() -> None:
    """They are not laid out in advance, and one row times such a matrix is added up by other code at its end."""
    model = overridable(8)
    done = onnx_model(model, passes=[ALL], seed=1)
    assert done.map.passes[0].left == {"matrices that callers may override": 2}
    assert done.model == model
    with pytest.raises(ConfigError, match="E840"):
        lock_by_input(model, bytes(32))
    listed = overridable(3)
    done = onnx_model(listed, passes=[ALL], seed=1)
    assert done.map.passes[0].done == 2
    for rows in (1, 2, 5):
        assert differences(listed, done.model, images(0, (rows, 12))) == []


def test_one_row_through_matrices_that_callers_may_override() -> None:
    model = overridable(8)
    for seed in range(5):
        done = onnx_model(model, passes=[ALL, Predicates(share=1.0, growth=9.0, slowdown=1e9)], seed=seed)
        assert done.map.passes[1].done == 2
        assert differences(model, done.model, images(0, (1, 12))) == []


def test_convolutions_behind_a_global_pool_keep_their_order() -> None:
    """They give one place alone, and channels at the end are added up by other code then."""
    b = Builder(0)
    x = b.add("Relu", b.conv("image", 3, 16))
    gate = b.add("Relu", b.conv(b.add("GlobalAveragePool", x), 16, 7, size=1))
    gate = b.add("Sigmoid", b.conv(gate, 7, 16, size=1))
    model = b.model({b.add("Mul", x, gate): (2, 16, SIZE, SIZE)})
    for seed in range(3):
        done = onnx_model(model, passes=[ALL], seed=seed)
        assert differences(model, done.model, images(seed)) == []
        assert done.map.passes[0].left["convolutions that may give one place alone"] == 1


def test_convolutions_of_pictures_of_any_size_keep_their_order_unless_no_channel_is_left_over() -> None:
    b = Builder(0)
    x = b.add("Relu", b.conv("image", 3, 16, size=1))
    x = b.add("Relu", b.conv(x, 16, 7, size=1))
    model = b.model({b.conv(x, 7, 4): (2, 4, "h", "w")}, (2, 3, "h", "w"))
    for seed in range(3):
        done = onnx_model(model, passes=[ALL], seed=seed)
        assert differences(model, done.model, images(seed, (2, 3, 1, 1))) == []
        assert done.map.passes[0].left["convolutions that may give one place alone"] == 1
        assert done.map.passes[0].done == 2


def test_layers_of_double_precision_keep_their_order() -> None:
    """Where several threads share a product, channels at the end of a share are added up by other code."""
    b = Builder(0)
    x = b.add("Relu", b.add("MatMul", "image", b.weight(b.normal(300, 40).astype(np.float64))))
    model = b.model(
        {b.add("MatMul", x, b.weight(b.normal(40, 40).astype(np.float64))): (None, 40)}, (None, 300), kind=np.float64
    )
    done = onnx_model(model, passes=[ALL], seed=1)
    inputs = {rows: b.normal(rows, 300).astype(np.float64) for rows in (7, 16, 33)}
    assert differences(model, done.model, inputs, threads=2) == []
    assert done.map.passes[0].left == {"layers of double precision": 2}
