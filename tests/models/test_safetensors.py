import json
import random
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from vambrace.errors import ModelRefused
from vambrace.models.safetensors import MOST_HEADER, Entry, parse_header, read_header, read_safetensors

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool]
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 4), max_size=3)),
    min_size=1,
    max_size=5,
)


def code_of(call, *arguments: object) -> str:
    """The code with which a call is refused; "" where it is not."""
    try:
        call(*arguments)
    except ModelRefused as error:
        return error.code
    return ""


def made(described: dict[str, tuple[torch.dtype, list[int]]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator).mul(9).to(dtype) for name, (dtype, shape) in described.items()}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("st") / "net.safetensors"


@given(TENSORS)
def test_what_the_library_writes_is_read(place: Path, described: dict) -> None:
    tensors = made(described)
    save_file(tensors, place, metadata={"format": "pt"})
    assert same(read_safetensors(place), tensors)
    assert set(read_header(place)) == set(tensors)


@settings(max_examples=150)
@given(TENSORS, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_bytes_never_crash_and_never_load_other_names_or_sizes(
    place: Path, described: dict, changes: list[tuple[float, int]]
) -> None:
    """A changed file is refused with one of our codes, or every byte still belongs to exactly one tensor."""
    data = bytearray(save(made(described)))
    for where, value in changes:
        data[min(int(where * len(data)), len(data) - 1)] = value
    place.write_bytes(data)
    if code := code_of(read_safetensors, place):
        assert code in {"E220", "E221", "E222", "E223"}
        return
    entries, tensors = read_header(place), read_safetensors(place)
    buffer = len(data) - 8 - int.from_bytes(data[:8], "little")
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) == buffer
    for name, entry in entries.items():
        begin = len(data) - buffer + entry.begin
        tensor = tensors[name]
        raw = tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        assert raw == bytes(data[begin : begin + len(raw)])


def _number(rng: random.Random) -> object:
    return rng.choice([0, 1, -1, 8, 2**31, 2**63, 2**64, 10**400, True, None, "8", 1.5, [], {}])


@settings(max_examples=150)
@given(TENSORS, st.randoms(use_true_random=False))
def test_mutated_headers_never_crash(described: dict, rng: random.Random) -> None:
    """One lie put into the structure: refused, unless it happens to be the truth."""
    data = save(made(described))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = rng.choice(sorted(header))
    kind = rng.randrange(5)
    if kind == 0:
        header[name]["dtype"] = rng.choice(["F32", "I8", "F99", None, 4])
    elif kind == 1:
        header[name]["shape"] = [*header[name]["shape"], _number(rng)]
    elif kind == 2:
        header[name]["data_offsets"][rng.randrange(2)] = _number(rng)
    elif kind == 3:
        header[name][rng.choice(["extra", "dtype"])] = _number(rng)
    else:
        header[name] = _number(rng)
    text = json.dumps(header).encode()
    buffer = len(data) - 8 - length
    if code := code_of(parse_header, text, buffer):
        assert code in {"E221", "E222", "E223"}
    else:
        assert sum(entry.end - entry.begin for entry in parse_header(text, buffer).values()) == buffer


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    assert code_of(parse_header, data, 0) in {"", "E221", "E222", "E223"}


@given(st.binary(max_size=40))
def test_any_file(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    assert code_of(read_safetensors, place) in {"", "E220", "E221", "E222", "E223"}


def test_a_header_may_be_padded_and_unordered() -> None:
    text = (
        b'{"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},'
        b'"a":{"data_offsets":[0,4],"shape":[],"dtype":"F32"},"__metadata__":{"x":"y"}}   '
    )
    assert parse_header(text, 5) == {"a": Entry("F32", (), 0, 4), "b": Entry("U8", (1,), 4, 5)}


def test_empty_tensors_take_no_room() -> None:
    entry = {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0]}
    assert len(parse_header(json.dumps({"a": entry, "b": entry}).encode(), 0)) == 2


def test_the_cap_is_checked_before_reading(tmp_path: Path) -> None:
    for size, refused in ((MOST_HEADER, False), (MOST_HEADER + 1, True)):
        text = b"{}" + b" " * (size - 2)
        (tmp_path / "x").write_bytes(struct.pack("<Q", size) + text)
        if refused:
            with pytest.raises(ModelRefused, match="E220"):
                read_header(tmp_path / "x")
        else:
            assert read_header(tmp_path / "x") == {}


WHOLE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    ("change", "buffer", "code"),
    [
        ({}, 8, ""),
        ({}, 9, "E223"),
        ({}, 7, "E223"),
        ({"data_offsets": [1, 9]}, 9, "E223"),
        ({"data_offsets": [8, 0]}, 8, "E223"),
        ({"data_offsets": [0]}, 8, "E223"),
        ({"data_offsets": [0, 8.0]}, 8, "E221"),
        ({"data_offsets": "08"}, 8, "E223"),
        ({"shape": [3]}, 8, "E222"),
        ({"shape": [2**63]}, 8, "E222"),
        ({"shape": [2**40, 2**40, 0], "data_offsets": [0, 0]}, 0, "E222"),
        ({"shape": [0, 2**62, 2], "data_offsets": [0, 0]}, 0, "E222"),
        ({"shape": [2**61, 0, 3], "data_offsets": [0, 0]}, 0, ""),
        ({"shape": [1] * 17}, 8, "E222"),
        ({"shape": [2, -1]}, 8, "E222"),
        ({"shape": None}, 8, "E222"),
        ({"dtype": "f32"}, 8, "E222"),
        ({"dtype": ["F32"]}, 8, "E222"),
        ({"extra": 1}, 8, "E221"),
    ],
)
def test_one_lie_at_a_time(change: dict[str, object], buffer: int, code: str) -> None:
    header = json.dumps({"a": WHOLE["a"] | change}).encode()
    assert code_of(parse_header, header, buffer) == code


@pytest.mark.parametrize(
    "header",
    [b"", b"[]", b" {}", b"{", b"{}x", b'{"a":1}', b'{"a":1,"a":1}', b'{"__metadata__":[]}', b"\xff", b'{"a":1e5}']
    + [b'{"a":' + b"[" * 5000, b'{"a":Infinity}', b'{"__metadata__":{"x":1}}', b'{"a":' + b"9" * 5000 + b"}"],
)
def test_headers_that_are_none(header: bytes) -> None:
    assert code_of(parse_header, header, 0) == "E221"


def test_a_file_that_the_library_reads_differently(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.zeros(2)}, place)
    monkeypatch.setattr("safetensors.torch.load_file", lambda _: {"a": torch.zeros(3)})
    assert code_of(read_safetensors, place) == "E221"
    monkeypatch.setattr("safetensors.torch.load_file", lambda _: Path("/nonexistent").read_bytes())
    assert code_of(read_safetensors, place) == "E221"
