"""Models with weights that would stay in clear are not locked, however much else of them is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_nets import answers, feeds, net, residual
from vambrace.assets.obfuscate.lock_entry import lock_entry
from vambrace.assets.obfuscate.locking import lock, survey, unlock
from vambrace.assets.obfuscate.openness import OpenTensor, open_tensors
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.errors import ConfigError

KEY = bytes(range(32))


def normal(*sizes: int) -> np.ndarray:
    return np.random.default_rng(len(sizes)).standard_normal(sizes).astype(np.float32)


def foreign() -> onnx.ModelProto:
    """A layer of another domain, whose weight stays in clear, in front of one that is locked."""
    nodes = [
        helper.make_node("FusedMatMul", ["x", "w"], ["a"], domain="com.microsoft"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    values = [helper.make_tensor_value_info("x", 1, ["n", 8]), helper.make_tensor_value_info("y", 1, ["n", 4])]
    tensors = [numpy_helper.from_array(normal(8, 16), "w"), numpy_helper.from_array(normal(16, 4), "v")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets)


def trees() -> onnx.ModelProto:
    """A linear model whose weights are a list in an attribute."""
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=normal(20).tolist(), targets=1
    )
    values = [helper.make_tensor_value_info("x", 1, ["n", 20]), helper.make_tensor_value_info("y", 1, ["n", 1])]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    )


def sparse() -> onnx.ModelProto:
    model = net(
        "(float[n,4] x) => (float[n,3] y) { a = MatMul (x, w) y = Add (a, b) }", weights={"b": (3,), "w": (4, 3)}
    )
    (weight,) = [each for each in model.graph.initializer if each.name == "w"]
    kept = onnx.TensorProto()
    kept.CopyFrom(weight)
    model.graph.initializer.remove(weight)
    kept.CopyFrom(numpy_helper.from_array(normal(5), "w"))
    places = numpy_helper.from_array(np.array([0, 2, 5, 7, 11]), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(kept, places, [4, 3]))
    return model


@pytest.mark.parametrize(
    ("make", "name", "elements"), [(foreign, "w", 128), (trees, "LinearRegressor.coefficients", 20), (sparse, "w", 5)]
)
def test_weights_that_would_stay_in_clear(make: Any, name: str, elements: int) -> None:
    model = make()
    (found,) = open_tensors(model)
    assert (found.name, found.elements) == (name, elements)
    with pytest.raises(ConfigError, match=rf"E857.*{re.escape(name)} of {elements} elements") as caught:
        lock(model, KEY)
    assert "leave_open=True" in str(caught.value)
    assert survey(model).left_open == (found,)
    if make is trees:  # then nothing at all is locked, whatever was asked for
        with pytest.raises(ConfigError, match="E836"):
            lock(model, KEY, leave_open=True)
        return
    locked = lock(model, KEY, leave_open=True)
    assert np.array_equal(answers(unlock(locked, KEY))[0], answers(model)[0])


def test_decoys_do_not_count_as_something_locked() -> None:
    """The only weight of a model cannot be locked, obfuscation adds thousands that can."""
    made = onnx_model(trees(), seed=1, passes=["phantoms"]).model
    decoys = survey(made)
    assert decoys.locked > 10
    assert decoys.elements > 1000
    assert [each.elements for each in decoys.left_open] == [20]
    with pytest.raises(ConfigError, match="E857"):
        lock(made, KEY)


def test_what_obfuscation_adds_can_all_be_locked() -> None:
    for profile in ("exact", "tolerance"):
        made = onnx_model(residual(), seed=2, profile=profile).model
        assert survey(made).left_open == ()
        assert unlock(lock(made, KEY), KEY).graph.initializer == made.graph.initializer


def test_settings_of_operators_are_no_weights() -> None:
    model = net(
        """(float[n,4] x) => (float[n,4] y) {
            a = Resize (x, , scales)
            b = MatMul (a, w)
            y = Clip (b, low, high)
        }""",
        weights={"scales": np.array([1, 1], np.float32), "w": (4, 4), "low": np.float32(-1), "high": np.float32(1)},
    )
    assert open_tensors(model) == ()
    assert lock_entry(lock(model, KEY)).roles == "-s--"


def test_lists_of_constants_become_tensors_that_are_locked() -> None:
    numbers = ", ".join(f"{number:.3f}" for number in normal(12))
    model = net(
        f"""(float[n,4] x) => (float[n,3] y) {{
            list = Constant <value_floats = [{numbers}]> ()
            w = Reshape (list, shape)
            y = MatMul (x, w)
        }}""",
        weights={"shape": np.array([4, 3])},
    )
    locked = lock(model, KEY)
    assert lock_entry(locked).roles == "-s"
    given = feeds(model)
    assert np.array_equal(answers(unlock(locked, KEY), given)[0], answers(model, given)[0])
    assert not np.allclose(answers(locked, given)[0], answers(model, given)[0])
    assert survey(model).elements == 12


def test_the_largest_are_named_and_the_others_counted() -> None:
    model = foreign()
    for number in range(6):
        model.graph.initializer.append(numpy_helper.from_array(normal(8, 2 + number), f"u{number}"))
        model.graph.node.append(
            helper.make_node("FusedMatMul", ["x", f"u{number}"], [f"z{number}"], domain="com.microsoft")
        )
    with pytest.raises(ConfigError, match=r"w of 128 elements .*u5 of 56 .*and 2 more") as caught:
        lock(model, KEY)
    assert "u1" not in str(caught.value)
    assert open_tensors(model)[0] == OpenTensor(
        name="w", elements=128, why="an input of com.microsoft.FusedMatMul, of which nothing is known"
    )


def test_defaults_of_functions_and_graphs_for_training_are_seen() -> None:
    model = net("(float[n,4] x) => (float[n,3] y) { y = MatMul (x, w) }", weights={"w": (4, 3)})
    function = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [])
    function.attribute_proto.append(helper.make_attribute("start", numpy_helper.from_array(normal(20))))
    model.functions.append(function)
    training = model.training_info.add()
    training.algorithm.name = "steps"
    training.algorithm.initializer.append(numpy_helper.from_array(normal(30), "moments"))
    found = [(each.name, each.elements) for each in open_tensors(model)]
    assert found == [("steps", 30), ("F.start", 20)]


def test_few_numbers_in_attributes_of_other_domains_are_weights() -> None:
    """A linear model of four features and three kinds was taken for settings."""
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=normal(12).tolist(), targets=3
    )
    model = net("(float[n,4] x) => (float[n,4] z) { z = MatMul (x, w) }", weights={"w": (4, 4)})
    model.graph.node.append(node)
    assert [(each.name, each.elements) for each in open_tensors(model)] == [("LinearRegressor.coefficients", 12)]


def test_lists_are_lists_again_in_order() -> None:
    """What is unlocked has the bytes that it had, since a map goes with those."""
    model = net(
        """(float[n,6] x) => (float[n,2] y) {
            w = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]> ()
            sizes = Constant <value_ints = [6, 2]> ()
            r = Reshape (w, sizes)
            m = MatMul (x, r)
            whole = Constant <value_ints = [3, 1, 2, 5]> ()
            f = Cast <to = 1> (whole)
            two = Constant <value_ints = [2, 2]> ()
            g = Reshape (f, two)
            y = MatMul (m, g)
        }""",
        weights={},
    )
    locked = lock(model, KEY)
    assert lock_entry(locked).roles == "s-o-"
    assert unlock(locked, KEY).SerializeToString() == model.SerializeToString()
    assert not np.allclose(answers(locked, feeds(model))[0], answers(model, feeds(model))[0])


def test_a_map_leads_a_locked_model_back_whatever_field_its_constants_are_in() -> None:
    weight = helper.make_tensor("", onnx.TensorProto.FLOAT, [4, 3], normal(12).tolist())
    halves = helper.make_tensor("", onnx.TensorProto.FLOAT16, [3], normal(3).tolist())
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Constant", [], ["h"], value=halves),
        helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["h"], ["b"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["a", "b"], ["d"]),
        helper.make_node("Add", ["d", "c"], ["y"]),
    ]
    values = [helper.make_tensor_value_info("x", 1, ["n", 4]), helper.make_tensor_value_info("y", 1, ["n", 3])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    made = onnx_model(model, passes=["names", "metadata"], seed=1)
    again = undo(unlock(lock(made.model, KEY), KEY), made.map)
    assert [each.op_type for each in again.model.graph.node] == [each.op_type for each in nodes]


@pytest.mark.parametrize("name", ["value_floats", "value_ints", "vambrace.value_ints"])
@pytest.mark.parametrize("array", [normal(3), normal(3, 2), normal(3).astype(np.float64), np.arange(3, dtype=np.int32)])
def test_a_tensor_that_its_exporter_named_like_a_list_stays_one(name: str, array: np.ndarray) -> None:
    """It became a list, so that no map led it back, or the right key ended in a TypeError."""
    model = net("(float[n,4] x) => (float[n,3] y) { y = MatMul (x, w) }", weights={"w": (4, 3)})
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(array, name)))
    assert unlock(lock(model, KEY), KEY).SerializeToString() == model.SerializeToString()


def test_lists_of_other_domains_are_left() -> None:
    """Their operators would lack the attribute."""
    node = helper.make_node("Constant", [], ["c"], domain="own", value_ints=[1, 2, 3])
    model = net("(float[n,4] x) => (float[n,3] y) { y = MatMul (x, w) }", weights={"w": (4, 3)})
    model.graph.node.insert(0, node)
    assert lock(model, KEY).graph.node[0] == node
