import contextlib

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from vambrace.models import wire
from vambrace.models.wire import Broken, Layout, TooLarge, layout_of, walk

LAYOUT = layout_of(onnx.ModelProto.DESCRIPTOR)


def model(depth: int = 0) -> onnx.ModelProto:
    """A model with `depth` If nodes inside one another."""
    output = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"], name="z" * 300)], "g", [], output)
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], output, [helper.make_tensor("c", TensorProto.BOOL, [], [True])])
    return helper.make_model(graph)


def counted(message: object) -> tuple[int, int]:
    """Messages below this one, and how deep: the naive recursive way."""
    total, deepest = 0, 1
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if not hasattr(value, "DESCRIPTOR") else [value]:
                below, depth = counted(inner)
                total, deepest = total + 1 + below, max(deepest, 1 + depth)
    return total, deepest


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_equals_a_recursive_walk(depth: int) -> None:
    made = model(depth)
    shape = walk(made.SerializeToString(), LAYOUT)
    assert (shape.messages, shape.depth) == counted(made)
    assert 7 in shape.top


def test_the_layout_knows_every_place_of_a_message() -> None:
    graph = LAYOUT[7]
    attribute = graph[1][5]
    assert attribute[6] is graph
    assert attribute[11] is graph
    assert attribute[5] is graph[5]
    assert LAYOUT[25][7] is graph[1]
    assert LAYOUT[20][1] is graph
    assert 9 not in graph[5], "raw bytes are no message"


@given(st.integers(0, 1000))
def test_every_cut_is_noticed_or_leaves_a_whole_message(place: int) -> None:
    data = model(1).SerializeToString()
    data = data[: place * len(data) // 1000]
    try:
        walk(data, LAYOUT)
    except Broken:
        return
    onnx.ModelProto.FromString(data)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(Broken, TooLarge):
        walk(data, LAYOUT)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_what_passes_here_a_parser_can_take_or_refuse(changes: list[tuple[int, int]]) -> None:
    data = bytearray(model(1).SerializeToString())
    for place, value in changes:
        data[place % len(data)] = value
    try:
        walk(bytes(data), LAYOUT)
    except (Broken, TooLarge):
        return
    with contextlib.suppress(DecodeError):
        onnx.ModelProto.FromString(bytes(data))


def chain(depth: int) -> tuple[bytes, Layout]:
    data, layout = b"", {}
    layout[1] = layout
    for _ in range(depth):
        data = b"\x0a" + bytes([len(data)]) + data
    return data, layout


def test_the_limit_of_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_DEPTH", 20)
    assert walk(*chain(19)).depth == 20
    with pytest.raises(TooLarge, match="20 levels"):
        walk(*chain(20))


def test_the_limits_of_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_FIELDS", 10)
    monkeypatch.setattr(wire, "MOST_MESSAGES", 5)
    assert walk(b"\x08\x00" * 10, {}).fields == 10
    with pytest.raises(TooLarge, match="10 parts"):
        walk(b"\x08\x00" * 11, {})
    assert walk(b"\x0a\x00" * 5, {1: {}}).messages == 5
    with pytest.raises(TooLarge, match="5 messages"):
        walk(b"\x0a\x00" * 6, {1: {}})


@pytest.mark.parametrize(
    "data",
    [
        b"\x0b\x0c",  # a group
        b"\x0f\x00",  # wire type 7
        b"\x02\x00",  # field number 0
        b"\x0a\x05ab",  # longer than its message
        b"\x08",  # no value
        b"\x08\x80",  # half a number
        b"\x09\x00",  # half of eight bytes
        b"\x0d\x00",  # half of four bytes
        b"\x0a" + b"\xff" * 10 + b"\x01",  # a length of more than 64 bits
        b"\x0a\x03\x0a\x02",  # an inner part that reaches out of its message
        b"\x0a\x02\x08\x80\x01",  # an inner number that does
    ],
)
def test_broken_messages(data: bytes) -> None:
    with pytest.raises(Broken):
        walk(data, {1: {1: {}}})
