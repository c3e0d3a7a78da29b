"""What can be read of a model: all of itself, nothing of noise, and the same whatever order and names a file has."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from onnx import ModelProto

import disguises
from vambrace.assets.obfuscate.measure.families import variant
from vambrace.assets.obfuscate.measure.names import leaked, texts, words
from vambrace.assets.obfuscate.measure.readability import SIMILARITIES, read_structure
from vambrace.assets.obfuscate.measure.structure import labels, order, read_graph

LAYERS = disguises.weights()
ORIGINAL = disguises.dense(LAYERS)


def shuffled(model: ModelProto, seed: int) -> ModelProto:
    """Nodes in another order that is still one in which each follows what feeds it."""
    rng, copy = np.random.default_rng(seed), ModelProto.FromString(model.SerializeToString())
    waiting, known = (
        list(model.graph.node),
        {each.name for each in [*model.graph.input, *model.graph.initializer]} | {""},
    )
    copy.graph.ClearField("node")
    while waiting:
        ready = [node for node in waiting if set(node.input) <= known]
        node = ready[rng.integers(len(ready))]
        waiting.remove(node)
        copy.graph.node.append(node)
        known |= set(node.output)
    return copy


@pytest.mark.parametrize("family", ["inception", "unet", "transformer", "recurrent"])
def test_a_model_beside_itself_is_read_whole(family: str) -> None:
    model = variant(family, 0)
    for other in (model, disguises.renamed(shuffled(model, 1), 2)):
        found = read_structure(model, other)
        assert [getattr(found, name) for name in SIMILARITIES] == pytest.approx([1.0] * 4)
        assert found.edits == 0
    assert read_structure(model, model).names.leakage == 1.0
    assert not read_structure(model, model).names.clean


def test_other_models_are_less_alike() -> None:
    found = read_structure(variant("resnet_basic", 0), variant("transformer", 0))
    assert max(getattr(found, name) for name in SIMILARITIES) < 0.6


def test_order_depends_on_the_graph_alone() -> None:
    model = variant("inception", 1)
    one, two = (read_graph(each) for each in (model, shuffled(model, 5)))
    assert [one.operators[place] for place in order(one)] == [two.operators[place] for place in order(two)]
    assert sorted(labels(one, 3)[-1]) == sorted(labels(two, 3)[-1])
    assert one.operators != two.operators


def test_slots_that_may_be_swapped_say_nothing() -> None:
    model = variant("resnet_bottleneck", 1)
    other = ModelProto.FromString(model.SerializeToString())
    for node in other.graph.node:
        if node.op_type == "Add":
            node.input[:] = list(node.input)[::-1]
    for seed in range(8):
        one, two = (read_graph(each) for each in (model, shuffled(other, seed)))
        assert [one.operators[place] for place in order(one)] == [two.operators[place] for place in order(two)]
    assert [node.input[0] for node in model.graph.node] != [node.input[0] for node in other.graph.node]


def test_inserted_operators_leave_the_order_and_lower_the_rest() -> None:
    found = read_structure(ORIGINAL, disguises.padded(ORIGINAL))
    assert found.kept_in_order == 1.0
    assert found.edits == 21
    assert found.edit_similarity == 0.25
    assert found.kernel < 0.3


def test_bodies_of_branches_belong_to_the_graph() -> None:
    graph = read_graph(disguises.decoyed(LAYERS))
    assert graph.operators.count("Gemm") == 8
    place = graph.operators.index("If")
    feeding = {graph.operators[source] for source, target, _ in graph.edges if target == place}
    assert feeding == {"GreaterOrEqual", "Gemm"}


def test_constants_count_as_weights_however_they_are_written() -> None:
    import onnx
    from onnx import helper, numpy_helper

    copy = ModelProto.FromString(ORIGINAL.SerializeToString())
    moved = copy.graph.initializer.pop(0)
    node = helper.make_node("Constant", [], [moved.name], value=numpy_helper.from_array(numpy_helper.to_array(moved)))
    copy.graph.node.insert(0, node)
    onnx.checker.check_model(copy)
    found = read_structure(ORIGINAL, copy)
    assert [getattr(found, name) for name in SIMILARITIES] == [1.0] * 4


def test_attributes_show_in_the_detailed_kernel_alone() -> None:
    model = variant("plain", 0)
    other = ModelProto.FromString(model.SerializeToString())
    for node in other.graph.node:
        for attribute in node.attribute:
            if attribute.name == "strides":
                attribute.ints[:] = [3, 3]
    found = read_structure(model, other)
    assert found.kernel == pytest.approx(1.0)
    assert found.kernel_detailed < 0.99


def test_names_of_noise_tell_nothing_even_thousands_of_them() -> None:
    """Random hexadecimal names hold "add", "dec" and "fed" by chance; they must not count as words."""
    noise = ModelProto.FromString(ORIGINAL.SerializeToString())
    noise = disguises.renamed(noise)
    noise.graph.node[0].doc_string = ""
    for _ in range(3000):
        noise.graph.value_info.add(name=secrets.token_hex(8))
    found = leaked(ORIGINAL, noise)
    assert found.clean
    assert 3.9 < found.entropy <= 4.2


def test_a_thousand_short_names_hold_a_word_by_chance_and_a_few_more_do_not() -> None:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    noise = disguises.renamed(ORIGINAL)
    for one in digits:
        for two in digits:
            noise.graph.value_info.add(name=f"n{one}{two}")
    assert "net" in {each.name for each in noise.graph.value_info}
    assert leaked(ORIGINAL, noise).clean
    for word in ("add", "max", "sub", "conv1", "relu2", "pool"):
        noise.graph.value_info.add(name=word)
    assert leaked(ORIGINAL, noise).trade_words >= 6


@pytest.mark.parametrize(
    "where",
    ["producer", "doc", "metadata", "node", "value", "dimension", "function word", "graph", "inner"]
    + ["overload", "overload of a function", "attribute of a function", "imported domain"],
)
def test_every_place_where_text_can_stand_is_read(where: str) -> None:
    other = disguises.renamed(disguises.decoyed(LAYERS))
    assert leaked(ORIGINAL, other).clean
    match where:
        case "producer":
            other.producer_name = "pytorch"
        case "doc":
            other.graph.node[0].doc_string = "attention"
        case "metadata":
            other.metadata_props.add(key="a", value="b")
        case "node":
            other.graph.node[0].name = "x_conv_3"
        case "value":
            other.graph.node[0].output[0] = "fc0.hidden"
        case "dimension":
            other.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
        case "function word":
            other.functions.add(name="EncoderLayer", domain="x")
        case "graph":
            other.graph.name = "main_graph"
        case "overload":
            other.graph.node[0].overload = "conv_layer"
        case "overload of a function":
            other.functions.add(name="a", domain="x", overload="conv_layer")
        case "attribute of a function":
            other.functions.add(name="a", domain="x", attribute=["conv_layer"])
        case "imported domain":
            other.opset_import.add(domain="encoder.attention", version=1)
        case _:
            body = next(a.g for n in other.graph.node for a in n.attribute if a.HasField("g"))
            body.node[0].output[0] = "downsample"
    assert not leaked(ORIGINAL, other).clean


def test_words_are_torn_out_of_names() -> None:
    assert words("layer1_convBN/FooBar2x") == ["layer", "conv", "foo", "bar"]
    assert "fc0.weight" in texts(ORIGINAL)
    assert not any(text == "Gemm" for text in texts(ORIGINAL))


def test_keys_of_the_standard_are_no_documentation() -> None:
    """A model with annotations of its quantisation failed the gate whatever was done to it."""
    other = disguises.renamed(ORIGINAL)
    annotation = other.graph.quantization_annotation.add(tensor_name="n1")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="n2")
    other.opset_import.add(domain="com.microsoft", version=1)
    assert leaked(ORIGINAL, other).clean
    annotation.quant_parameter_tensor_names[0].value = "conv_scale"
    assert not leaked(ORIGINAL, other).clean
