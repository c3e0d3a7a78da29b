"""Hostile ONNX models, rows 22 to 29 and 80 to 95: files outside, code, and size. See `hostile_corpus`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import vambrace
from hostile_corpus import Row

SECRET = bytes(range(48))


def external(location: str, *, offset: int = 0, length: int = 48) -> TensorProto:
    """A float tensor (4, 3) that lies in another file."""
    tensor = TensorProto(name="w", dims=[4, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(nodes: list[onnx.NodeProto], initializers: list[TensorProto], **more: object) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, **more)


def multiply() -> onnx.NodeProto:
    return helper.make_node("MatMul", ["x", "w"], ["y"])


def by_initializer(location: str, **where: int) -> onnx.ModelProto:
    return model([multiply()], [external(location, **where)])


def by_constant(location: str) -> onnx.ModelProto:
    return model([helper.make_node("Constant", [], ["w"], value=external(location)), multiply()], [])


def by_subgraph(location: str) -> onnx.ModelProto:
    """The tensor is a constant inside both branches of an If."""
    output = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3])]
    branch = helper.make_graph([helper.make_node("Constant", [], ["w"], value=external(location))], "b", [], output)
    flag = helper.make_tensor("flag", TensorProto.BOOL, [], [True])
    node = helper.make_node("If", ["flag"], ["w"], then_branch=branch, else_branch=branch)
    return model([node, multiply()], [flag])


def by_function(location: str) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=external(location))
    function = helper.make_function("mine", "Weights", [], ["w"], [constant], [helper.make_opsetid("", 17)])
    return model([helper.make_node("Weights", [], ["w"], domain="mine"), multiply()], [], functions=[function])


def by_sparse(location: str) -> onnx.ModelProto:
    made = model([multiply()], [])
    sparse = made.graph.sparse_initializer.add(dims=[4, 3])
    sparse.values.CopyFrom(external(location))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [12], range(12)))
    return made


def split_in_two(location: str) -> bytes:
    """The attribute's tensor comes in two pieces that a parser merges: neither alone points outside."""
    whole = external(location)
    first = TensorProto(name="w", dims=[4, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    second = TensorProto(external_data=whole.external_data)
    attribute = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR)
    raw = attribute.SerializeToString()
    for piece in (first, second):
        body = piece.SerializeToString()
        raw += bytes([0x2A, len(body)]) + body
    node = onnx.NodeProto(output=["w"], op_type="Constant").SerializeToString() + _field(5, raw)
    graph = model([multiply()], []).graph.SerializeToString()
    return onnx.ModelProto(ir_version=9, opset_import=[helper.make_opsetid("", 17)]).SerializeToString() + _field(
        7, _field(1, node) + graph
    )


def custom() -> onnx.ModelProto:
    return model([helper.make_node("Run", ["x"], ["y"], domain="mine")], [])


def contrib() -> onnx.ModelProto:
    return model([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0)], [])


def nested(size: int) -> bytes:
    """If inside If inside If: about `size` bytes of graph > node > attribute > graph, each level five bytes."""
    core = 2**21  # the innermost graph has a long text, so that every length around it takes four bytes
    inside = _field(10, bytes(core - 4))
    levels = (size - core) // 15 * 3
    lengths = core + 5 * np.arange(levels)
    heads = np.empty((levels, 5), np.uint8)
    heads[:, 0] = np.resize([6 << 3 | 2, 5 << 3 | 2, 1 << 3 | 2], levels)  # attribute.g, node.attribute, graph.node
    for place in range(4):
        heads[:, place + 1] = lengths >> 7 * place & 0x7F | (0x80 if place < 3 else 0)
    return bytes([0x08, 9]) + _field(7, heads[::-1].tobytes() + inside)


def wide(size: int) -> bytes:
    """Nodes of no content, two bytes each."""
    return bytes([0x08, 9]) + _field_head(7, size // 2 * 2) + b"\x0a\x00" * (size // 2)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field_head(number: int, length: int) -> bytes:
    return bytes([number << 3 | 2]) + _varint(length)


def _field(number: int, body: bytes) -> bytes:
    return _field_head(number, len(body)) + body


def place(
    made: Callable[[Path], onnx.ModelProto | bytes], prepare: Callable[[Path], object] = lambda _: None
) -> Callable[[Path], None]:
    """Write the model as in/net.onnx; a secret lies beside that folder."""

    def build(folder: Path) -> None:
        (folder / "in").mkdir()
        (folder / "secret.bin").write_bytes(SECRET)
        prepare(folder)
        given = made(folder)
        (folder / "in" / "net.onnx").write_bytes(given if isinstance(given, bytes) else given.SerializeToString())

    return build


def load(folder: Path) -> object:
    return vambrace.load(folder / "in" / "net.onnx")


def warm(folder: Path) -> None:
    """Good models of each kind, so that imports are not measured and the rows fail for their own reason."""
    for number, make in enumerate((by_initializer, by_constant, by_subgraph, by_function)):
        inner = folder / str(number)
        inner.mkdir()
        place(lambda _, make=make: make("w.bin"), lambda f: (f / "in" / "w.bin").write_bytes(SECRET))(inner)
        found = load(inner)
        answer = found(__import__("torch").ones(2, 4))  # type: ignore[operator]
        expected = np.frombuffer(SECRET, np.float32).reshape(4, 3).sum(axis=0)
        assert np.allclose(answer.numpy()[0], expected)


def refused(
    number: int,
    title: str,
    made: Callable[[Path], onnx.ModelProto | bytes],
    code: str,
    sentence: str,
    prepare: Callable[[Path], object] = lambda _: None,
) -> Row:
    return Row(
        number=number,
        title=title,
        build=place(made, prepare),
        act=load,
        error="ModelRefused",
        exit=3,
        code=code,
        sentence=sentence,
    )


def _linked(folder: Path) -> None:
    (folder / "in" / "w.bin").symlink_to(folder / "secret.bin")


def _hard(folder: Path) -> None:
    os.link(folder / "secret.bin", folder / "in" / "w.bin")


def _linked_folder(folder: Path) -> None:
    (folder / "in" / "sub").symlink_to(folder, target_is_directory=True)


def _marker(folder: Path) -> None:
    (folder / "in" / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (folder / "in" / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(SECRET)


OUTSIDE = "outside the model's folder"

ROWS = [
    refused(22, "external data by ../", lambda _: by_initializer("../secret.bin"), "E232", OUTSIDE),
    refused(23, "external data, absolute", lambda f: by_initializer(str(f / "secret.bin")), "E232", OUTSIDE),
    refused(24, "external data, symlink", lambda _: by_initializer("w.bin"), "E233", "symbolic link", _linked),
    refused(25, "external data, hard link", lambda _: by_initializer("w.bin"), "E233", "2 hard links", _hard),
    refused(26, "in a Constant attribute", lambda _: by_constant("../secret.bin"), "E232", OUTSIDE),
    refused(27, "custom operator", lambda _: custom(), "E235", "custom operator mine:Run"),
    refused(28, "truncated", lambda _: custom().SerializeToString()[:-20], "E230", "no whole ONNX model"),
    refused(29, "50 MB of nesting", lambda _: nested(50_000_000), "E231", "nested more than 60 levels"),
    refused(121, "50 MB of empty nodes", lambda _: wide(50_000_000), "E231", "more than 1000000 messages"),
    refused(122, "in a subgraph", lambda _: by_subgraph("../secret.bin"), "E232", OUTSIDE),
    refused(123, "in a function", lambda _: by_function("../secret.bin"), "E232", OUTSIDE),
    refused(124, "in a sparse tensor", lambda _: by_sparse("../secret.bin"), "E232", OUTSIDE),
    refused(125, "in two pieces", lambda _: split_in_two("../secret.bin"), "E232", OUTSIDE),
    refused(126, "behind a linked folder", lambda _: by_initializer("sub/secret.bin"), "E233", "link", _linked_folder),
    refused(127, "marker for raw memory", lambda _: by_initializer("*/_ORT_MEM_ADDR_/*"), "E232", OUTSIDE, _marker),
    refused(
        128,
        "a device",
        lambda _: by_initializer("w.bin"),
        "E233",
        "no regular file",
        lambda f: os.mkfifo(f / "in" / "w.bin"),
    ),
    refused(
        129,
        "offset behind the end",
        lambda _: by_initializer("w.bin", offset=16),
        "E234",
        "at bytes 16 to 64 of w.bin, which has 48",
        lambda f: (f / "in" / "w.bin").write_bytes(SECRET),
    ),
    refused(
        130, "another length than the shape", lambda _: by_initializer("w.bin", length=40), "E234", "with 40 stored"
    ),
    refused(131, "missing file", lambda _: by_initializer("w.bin"), "E232", "cannot be read"),
    refused(132, "no ONNX at all", lambda _: b"not a model\n", "E230", "no whole ONNX model"),
    refused(133, "operator of one runtime", lambda _: contrib(), "E235", "com.microsoft:EPContext"),
    refused(134, "valid form, invalid graph", lambda _: model([multiply()], []), "E236", "onnxruntime"),
    refused(135, "empty graph", lambda _: bytes([0x08, 9, 0x3A, 0]), "E236", "onnxruntime"),
    refused(
        136,
        "flatbuffer mark inside",
        lambda _: bytes([0x08, 9, 0x12, 4]) + b"ORTM" + b"\x3a\x00",
        "E236",
        "onnxruntime",
    ),
]
