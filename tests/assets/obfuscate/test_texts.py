"""No text of the original is left in what comes out: every string field of the whole message is looked at."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exact_nets import differences, images, random_net
from vambrace.assets.obfuscate.passes.metadata import Metadata
from vambrace.assets.obfuscate.passes.phantoms import Phantoms
from vambrace.assets.obfuscate.pipeline import onnx_model, undo

SECRET = "secret"
# What these say belongs to ONNX, to the operator, or to the data.
MEANT = {
    ("NodeProto", "op_type"),
    ("NodeProto", "domain"),
    ("OperatorSetIdProto", "domain"),
    ("AttributeProto", "name"),
    ("AttributeProto", "s"),
    ("AttributeProto", "strings"),
    ("TensorProto", "string_data"),
}
PASSES = ("metadata", Phantoms(fewest=30, times=0), "order", "names")


def strings(message: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(kind of message, field, text) of everything inside a message."""
    kind = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for each in values:
            if field.message_type is not None:
                yield from strings(each, f"{path}/{field.name}")
            elif isinstance(each, str | bytes) and field.name != "raw_data":
                text = each if isinstance(each, str) else each.decode("utf-8", "replace")
                yield kind, field.name, text


def fill(message: Any, number: list[int]) -> None:
    """Write a text into every field for one that is empty and that no meaning hangs on, in every message inside."""
    kind = message.DESCRIPTOR.name
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            if field.name == "metadata_props":
                message.metadata_props.add(key=f"{SECRET}{number[0]}", value=f"{SECRET}{number[0]}v")
            value = getattr(message, field.name)
            for each in value if field.is_repeated else [value] if message.HasField(field.name) else []:
                if kind != "StringStringEntryProto":
                    fill(each, number)
        elif field.type == field.TYPE_STRING and not field.is_repeated and (kind, field.name) not in MEANT | FIXED:
            if kind == "Dimension" and message.WhichOneof("value") == "dim_value":
                continue
            if not getattr(message, field.name):
                number[0] += 1
                setattr(message, field.name, f"{SECRET}{number[0]}")


# Changing these would make another model, or an invalid one.
FIXED = {
    ("AttributeProto", "ref_attr_name"),
    ("FunctionProto", "domain"),
    ("FunctionProto", "overload"),
    ("NodeProto", "overload"),
    ("StringStringEntryProto", "key"),
    ("StringStringEntryProto", "value"),
}


def rich() -> onnx.ModelProto:
    """Functions, branches, tensors in attributes, sparse weights, annotations, free sizes."""
    model = onnx.parser.parse_model(
        """<ir_version: 11, opset_import: ["" : 18, "secretdomain" : 1]>
        secretgraph (float[secretbatch, 4] image) => (float[secretrows, 4] answer) {
            secretconstant = Constant <value = float[4] {1, 2, 3, 4}> ()
            secretsum = Add (image, secretconstant)
            secretmean = ReduceMean <keepdims = 0> (secretsum)
            secretgo = Greater (secretmean, secretlevel)
            secretchosen = If (secretgo) <
                then_branch = secretthen () => (float[secretn, 4] secretp) { secretp = Mul (secretsum, secretweight) },
                else_branch = secretelse () => (float[secretn, 4] secretq) { secretq = Neg (secretsum) }>
            secrettwice = secretdomain.secrettwice <secretfactor = 2.0> (secretchosen)
            secretmade = MatMul (secrettwice, secretsparse)
            answer = Relu (secretmade)
        }
        <domain: "secretdomain", opset_import: ["" : 18]> secrettwice <secretfactor> (secreta) => (secretb) {
            secretc = Constant <value_float: float = @secretfactor> ()
            secretm = ReduceMean <keepdims = 0> (secreta)
            secretgo = Greater (secretm, secretm)
            secretb = If (secretgo) <
                then_branch = secrett () => (float[secretk] secretd) { secretd = Mul (secreta, secretc) },
                else_branch = secrete () => (float[secretk] secretf) { secretf = Mul (secreta, secretc) }>
        }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("secretweight", (4,)), ("secretlevel", ())):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(rng.normal(size=shape), np.float32), name))
    values = helper.make_tensor("secretsparse", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    indices = helper.make_tensor("secretindices", TensorProto.INT64, [3], [0, 5, 10])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 4]))
    annotation = model.graph.quantization_annotation.add(tensor_name="secretsum")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="secretlevel")
    model.graph.value_info.append(helper.make_tensor_value_info("secretsum", TensorProto.FLOAT, ["secretbatch", 4]))
    model.graph.value_info.append(helper.make_tensor_value_info("secrettwice", TensorProto.FLOAT, ["secretu", 4]))
    fill(model, [0])
    for each in [*model.graph.input, *model.graph.output]:
        each.type.denotation = f"{SECRET}type"
        each.type.tensor_type.shape.dim[0].denotation = f"{SECRET}size"
    for node in model.graph.node:
        for number in range(2):
            node.metadata_props.add(key=f"{SECRET}.trace{number}", value=f"{SECRET} line")
    return model


def test_there_is_much_to_hide() -> None:
    found = {(kind, field) for kind, field, text in strings(rich()) if SECRET in text}
    assert {
        *(("ModelProto", field) for field in ("producer_name", "producer_version", "domain", "doc_string")),
        *(("GraphProto", field) for field in ("name", "doc_string")),
        *(("NodeProto", field) for field in ("name", "doc_string", "input", "output", "op_type", "domain")),
        *(("TensorProto", field) for field in ("name", "doc_string")),
        *(("FunctionProto", field) for field in ("name", "doc_string", "input", "output", "attribute")),
        *(("ValueInfoProto", field) for field in ("name", "doc_string")),
        *(("AttributeProto", field) for field in ("name", "doc_string", "ref_attr_name")),
        *(("StringStringEntryProto", field) for field in ("key", "value")),
        *(("Dimension", field) for field in ("dim_param", "denotation")),
        ("TensorAnnotation", "tensor_name"),
        ("TypeProto", "denotation"),
    } <= found


@pytest.mark.parametrize("passes", [PASSES, None])
def test_no_text_is_left_anywhere(passes: Any) -> None:
    model = rich()
    onnx.checker.check_model(model)
    done = onnx_model(model, passes=passes, seed=1)
    left = [(kind, field, text) for kind, field, text in strings(done.model) if SECRET in text]
    assert left == []
    assert SECRET.encode() not in done.model.SerializeToString()
    assert {each.name for each in [*done.model.graph.input, *done.model.graph.output]} == {"image", "answer"}
    undone = undo(done.model, done.map).model
    # What tensors that stand as weights say beside their names is not kept.
    for each in model.graph.initializer:
        each.ClearField("doc_string")
        each.ClearField("metadata_props")
    assert onnx.printer.to_text(undone) == onnx.printer.to_text(model)


def test_the_model_still_computes_the_same() -> None:
    model = random_net(12)
    fill(model, [0])
    onnx.checker.check_model(model)
    done = onnx_model(model, passes=PASSES, seed=1)
    assert differences(model, done.model, {"plain": images(0)["plain"]}) == []
    # Inputs and outputs keep the names that callers use; these were called by numbers from the start.
    kept = {each.name for each in [*done.model.graph.input, *done.model.graph.output]}
    assert [text for _, _, text in strings(done.model) if SECRET in text and text not in kept] == []


def test_without_the_pass_texts_are_left() -> None:
    done = onnx_model(rich(), passes=["names"], seed=1)
    assert any(SECRET in text for _, _, text in strings(done.model))
    assert Metadata().name == "metadata"


@pytest.mark.parametrize("dynamo", [False, True])
def test_exported_networks_tell_nothing(dynamo: bool) -> None:
    import torch

    class Secretnet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.secretlayer = torch.nn.Linear(6, 8)
            self.secretblocks = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(2))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            image = torch.relu(self.secretlayer(image))
            for block in self.secretblocks:
                image = image + torch.nn.functional.gelu(block(image))
            return image

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            Secretnet().eval(), (torch.zeros(2, 6),), None if dynamo else buffer, dynamo=dynamo, verbose=False
        )
        if made is not None:
            made.save(buffer)
    model = onnx.load_from_string(buffer.getvalue())
    before = {text for _, _, text in strings(model) if len(text) > 3}
    assert any(SECRET in text for text in before)
    done = onnx_model(model, seed=1)
    kept = {each.name for each in [*model.graph.input, *model.graph.output]}
    meant = {text for kind, field, text in strings(model) if (kind, field) in MEANT}
    left = {text for _, _, text in strings(done.model)} & before - kept - meant
    assert left == set()
