"""The tree codec: exact round trips, nothing written quietly, nothing read loosely, vectors that stay readable."""

from __future__ import annotations

import base64
import collections
import enum
import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vambrace.core import tree
from vambrace.core.tree import decode, encode
from vambrace.errors import ConfigError

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "tree"
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.bool,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8,
    torch.complex64,
]  # fmt: skip


def same(one, two):
    """Equal in type, value, order of keys and bits of tensors."""
    if isinstance(one, torch.Tensor):
        return (
            type(two) is torch.Tensor
            and (one.dtype, one.shape) == (two.dtype, two.shape)
            and one.detach()
            .contiguous()
            .reshape(-1)
            .view(torch.uint8)
            .equal(two.contiguous().reshape(-1).view(torch.uint8))
        )
    if type(one) is not type(two):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", two) or (math.isnan(one) and math.isnan(two))
    return one == two


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
tensors = st.builds(
    lambda dtype, shape, seed: (
        torch.from_numpy(np.random.default_rng(seed).integers(0, 255, size=(*shape, 8), dtype=np.uint8))
        .contiguous()
        .view(torch.uint8)
        .reshape(-1)[: math.prod(shape)]
        .reshape(shape)
        .to(dtype)
    ),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 100),
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text, tensors)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(text, st.integers()), inner, max_size=3),
    ),
    max_leaves=10,
)


@settings(max_examples=200)
@given(trees)
def test_there_and_back(tree):
    data = encode(tree)
    back = decode(data)
    assert same(tree, back)
    assert encode(back) == data


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_every_type_and_shape(dtype, shape):
    bits = torch.arange(math.prod(shape)).reshape(shape)
    tensor = (
        bits.to(torch.float32).to(dtype) if dtype not in (torch.uint64, torch.uint32, torch.uint16) else bits.to(dtype)
    )
    assert same(tensor, decode(encode({"x": tensor}))["x"])


def test_views_are_written_as_they_look():
    base = torch.arange(12.0).reshape(3, 4)
    for view in (
        base.T,
        base[:, 1:3],
        base[::2],
        base[0].expand(5, 4),
        torch.view_as_complex(base.reshape(6, 2)).conj(),
    ):
        assert same(view.resolve_conj().clone(), decode(encode([view]))[0])


def test_no_more_memory_is_asked_for_than_the_elements_take():
    base = freed(torch.arange(6.0), 20)
    for view in (base[1:5], base[:5:2], base[4].expand(9), base[6:], base.as_strided((0, 9), (9, 1))):
        assert same(view.clone(), decode(encode([view]))[0])


def test_one_tensor_in_two_places_becomes_two():
    shared = torch.ones(2)
    one, two = decode(encode([shared, shared]))
    one += 1
    assert two.tolist() == [1, 1]


def test_parameters_come_back_as_plain_tensors():
    back = decode(encode(torch.nn.Parameter(torch.ones(2))))
    assert type(back) is torch.Tensor
    assert not back.requires_grad


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.Adam(parameters, lr=1e-3, amsgrad=True),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
        lambda parameters: torch.optim.LBFGS(parameters, max_iter=3),
    ],
)
def test_an_optimizer_goes_on_as_if_nothing_happened(make):
    def start():
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
        return module, make(module.parameters())

    def train(module, optimizer, steps):
        inputs = torch.linspace(-1, 1, 32).reshape(8, 4)

        def closure():
            optimizer.zero_grad()
            loss = module(inputs).square().mean()
            loss.backward()
            return loss

        for _ in range(steps):
            optimizer.step(closure)

    module, optimizer = start()
    train(module, optimizer, 3)
    stored = encode({"module": module.state_dict(), "optimizer": optimizer.state_dict()})
    train(module, optimizer, 3)
    again, other = start()
    state = decode(stored)
    again.load_state_dict(state["module"])
    other.load_state_dict(state["optimizer"])
    train(again, other, 3)
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), again.state_dict().values(), strict=True)
    )


class Colour(enum.IntEnum):
    RED = 1


def freed(tensor, left):
    """As sharded training leaves it between steps: its storage has `left` bytes."""
    tensor.untyped_storage().resize_(left)
    return tensor


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024
cycle = []
cycle.append(cycle)


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"a": [1, {2}]}, "tree['a'][1] is a builtins.set"),
        ({3: (b"x",)}, "tree[3][0] is a builtins.bytes"),
        (np.float64(1.0), "tree is a numpy.float64"),
        ([np.ones(2)], "tree[0] is a numpy.ndarray"),
        (Colour.RED, "Colour"),
        (Point(1, 2), "Point"),
        (collections.defaultdict(int), "collections.defaultdict"),
        ({1.5: 0}, "a key of type float"),
        ({True: 0}, "a key of type bool"),
        ({(1, 2): 0}, "a key of type tuple"),
        ({"a": "\ud800"}, "half a character"),
        (1 << 9000, "9001 bits"),
        (1j, "builtins.complex"),
        (cycle, "nesting deeper than 64"),
        ([torch.ones(2, device="meta")], "meta"),
        ([torch.ones(2, 2).to_sparse()], "sparse"),
        ({"w": freed(torch.ones(4), 0)}, "tree['w'] is a tensor whose memory was freed"),
        ([freed(torch.ones(4).bfloat16(), 7)], "freed"),
        ([freed(torch.ones(2, 3).T, 20)], "freed"),
        ([freed(torch.ones(6)[2:], 20)], "freed"),
        ([torch.ones(2, dtype=torch.complex128)], "complex128"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (lambda: 0, "builtins.function"),
        (torch.float32, "torch.dtype"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_tree_is_refused_by_its_path(tree, path):
    with pytest.raises(ConfigError, match="E109") as caught:
        encode(tree)
    assert path in caught.value.seen


def container(skeleton, tensors=None, *, version="vambrace-tree/1", **more):
    """Safetensors bytes as another program would write them."""
    from safetensors.torch import save

    skeleton = skeleton if isinstance(skeleton, str) else json.dumps(skeleton)
    return save(tensors or {}, metadata={version: skeleton} | more)


ONE = {"0": torch.ones(1)}
HOSTILE = {
    "another version": container("null", version="vambrace-tree/2"),
    "no version": container("null", version=""),
    "more metadata": container("null", extra="1"),
    "unknown tag": container({"set": [1]}),
    "python object": container({"__reduce__": ["os.system", "true"]}),
    "two tags": container({"float": "1.0", "int": "1"}),
    "no tag": container({}),
    "tensor twice": container([{"tensor": "0"}, {"tensor": "0"}], ONE),
    "tensor missing": container({"tensor": "0"}),
    "tensor unused": container("null", ONE),
    "tensor under another name": container({"tensor": "a"}, {"a": torch.ones(1)}),
    "tensors out of order": container([{"tensor": "1"}, {"tensor": "0"}], {"0": torch.ones(1), "1": torch.ones(1)}),
    "tensor by number": container({"tensor": 0}, ONE),
    "plain float": container("1.5"),
    "plain exponent": container("1e3"),
    "NaN": container("NaN"),
    "infinity": container("[Infinity]"),
    "float in another form": container({"float": "1"}),
    "float with zeros": container({"float": "1.50"}),
    "float in words": container({"float": "infinity"}),
    "float too large": container({"float": "1e999"}),
    "float as number": container({"float": 1.5}),
    "small int in tagged form": container({"int": "5"}),
    "int with zeros": container({"int": "00000000000000000000099999999999999999999"}),
    "int too long": container({"int": "9" * 3000}),
    "huge plain int": container(str(2**53 + 1)),
    "digits without end": container("1" * 100_000),
    "dict as object": container({"a": 1, "b": 2}),
    "dict with one element pairs": container({"dict": [["a"]]}),
    "dict with a float key": container({"dict": [[{"float": "1.0"}, 1]]}),
    "dict with a bool key": container({"dict": [[True, 1]]}),
    "dict with a key twice": container({"dict": [["a", 1], ["a", 2]]}),
    "tuple of text": container({"tuple": "ab"}),
    "object with a key twice": container('{"float": "1.0", "float": "2.0"}'),
    "nested without end": container("[" * 100_000 + "]" * 100_000),
    "nested too deeply": container("[" * 70 + "]" * 70),
    "no JSON": container("{"),
    "half a character": container('"\\ud800"'),
    "empty": b"",
    "short": b"\x01\x00\x00\x00\x00\x00\x00\x00",
    "header of a terabyte": (1 << 40).to_bytes(8, "little") + b"{}",
    "header that is a list": (2).to_bytes(8, "little") + b"[]",
    "header without metadata": (2).to_bytes(8, "little") + b"{}",
    "header that is not UTF-8": (4).to_bytes(8, "little") + b'{"\xff}',
    "metadata with numbers": (20).to_bytes(8, "little") + b'{"__metadata__":1}  ',
    "text before": b"x" + container("null"),
    "trailing data": container([{"tensor": "0"}], ONE) + b"\x00",
    "truncated": container([{"tensor": "0"}], ONE)[:-1],
    "pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes(name):
    with pytest.raises(ConfigError, match="E111") as caught:
        decode(HOSTILE[name])
    assert len(str(caught.value)) < 500


@settings(max_examples=300)
@given(st.data())
def test_damage_is_named_or_harmless(data):
    """A flipped bit changes a number at most; it never raises anything else, and never crashes."""
    raw = bytearray(encode({"a": torch.arange(4.0), "b": [1, 2.5, "x", (None,)]}))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert outcome(bytes(raw[: data.draw(st.integers(0, len(raw)))])) in {"read", "E111"}


def outcome(data):
    try:
        decode(data)
    except ConfigError as error:
        return error.code
    return "read"


VECTOR_FILES = sorted(VECTORS.glob("*.json"))


@pytest.mark.parametrize("path", VECTOR_FILES, ids=lambda path: path.stem)
def test_vectors(path):
    vector = json.loads(path.read_text())
    data = base64.b64decode(vector["data"], validate=True)
    if "error" in vector["expect"]:
        with pytest.raises(ConfigError, match=vector["expect"]["error"]):
            decode(data)
        return
    tree = decode(data)
    assert described(tree) == vector["expect"]["tree"]
    assert encode(tree) == data, "a published version is written as it was"


def described(value):
    """A tree in words that JSON can hold, for the vectors."""
    if isinstance(value, torch.Tensor):
        raw = value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        return f"tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)} {raw.hex()}"
    if isinstance(value, dict):
        return {"dict": [[described(key), described(each)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [described(each) for each in value]}
    return f"{type(value).__name__} {value!r}"


def test_there_are_vectors():
    assert len(VECTOR_FILES) >= 8


def test_importing_the_codec_does_not_import_torch():
    code = "import sys, vambrace.core.tree; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_more_values_than_a_reader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of 57 MiB of empty lists took gigabytes before it was refused."""
    monkeypatch.setattr(tree, "_MOST_BRACKETS", 100)
    data = tree.encode([[]] * 90)
    assert tree.decode(data) == [[]] * 90
    assert tree.decode(tree.encode("1,2,3," * 1000)) == "1,2,3," * 1000
    with pytest.raises(ConfigError, match="E109: tree is more than a reader takes"):
        tree.encode([0.5] * 100)
    with pytest.raises(ConfigError, match="E109: tree is more than a reader takes"):
        tree.encode([[]] * 100)
    monkeypatch.setattr(tree, "_MOST_BRACKETS", 50)
    with pytest.raises(ConfigError, match="E111: .*too many lists"):
        tree.decode(data)


def test_a_longer_header_than_a_reader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was written, and could never be read."""
    monkeypatch.setattr(tree, "_LARGEST_HEADER", 1000)
    assert tree.decode(tree.encode("x" * 800)) == "x" * 800
    with pytest.raises(ConfigError, match="E109: tree is more than a reader takes"):
        tree.encode("\u0436" * 800)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]},
        {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]},
        {"dtype": "F32", "shape": [0, 2**62, 4], "data_offsets": [0, 0]},
    ],
)
def test_tensors_that_torch_cannot_make_are_damage(entry: dict[str, object]) -> None:
    """Errors of Python and of torch came out."""
    metadata = {"vambrace-tree/1": json.dumps({"tensor": "0"})}
    header = json.dumps({"__metadata__": metadata, "0": entry}).encode()
    with pytest.raises(ConfigError, match="E111"):
        tree.decode(len(header).to_bytes(8, "little") + header + bytes(entry["data_offsets"][1]))
