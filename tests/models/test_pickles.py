import contextlib
import io
import os
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vambrace.models import pickles as module
from vambrace.models.pickles import Scan, UnreadablePickle, scan_pickle


class Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self.made = function, arguments

    def __reduce__(self) -> object:
        return self.made


def scan(data: bytes) -> Scan:
    return scan_pickle(io.BytesIO(data))


def saved(value: object) -> bytes:
    """The pickle inside what torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream)
    with zipfile.ZipFile(stream) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, f"{os.name}.system"), (eval, "builtins.eval"), (getattr, "builtins.getattr"), (sys.exit, "sys.exit")],
)
def test_functions_are_named_in_every_protocol(protocol: int, function: object, name: str) -> None:
    found = scan(pickle.dumps({"a": [1, Calls(function, "x")]}, protocol=protocol))
    assert name.replace("nt.", "posix.") in {part.replace("nt.", "posix.") for part in found.dangerous}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "value",
    [
        1,
        "x",
        [1, (2, {"a": None})],
        {1, 2},
        b"bytes",
        bytearray(b"x"),
        1j,
        OrderedDict(a=1),
        torch.float32,
        torch.Size([1]),
    ],
)
def test_plain_values_are_data(protocol: int, value: object) -> None:
    assert scan(pickle.dumps(value, protocol=protocol)).dangerous == ()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e5m2]
)
def test_tensors_are_data(dtype: torch.dtype) -> None:
    assert scan(saved({"a": torch.zeros(2, dtype=dtype), "b": nn.Parameter(torch.zeros(1))})).foreign == ()


def test_whole_networks_are_foreign_not_dangerous() -> None:
    found = scan(saved(nn.Sequential(nn.Linear(1, 1), nn.ReLU())))
    assert "torch.nn.modules.linear.Linear" in found.foreign
    assert found.dangerous == ()


@pytest.mark.parametrize(
    "name", ["load", "hub.load", "jit.load", "serialization.load", "utils.cpp_extension.load", "compile"]
)
def test_functions_of_torch_itself_are_dangerous(name: str) -> None:
    where, _, function = f"torch.{name}".rpartition(".")
    assert scan(f"c{where}\n{function}\n(tR.".encode()).dangerous == (f"torch.{name}",)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x93.",
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93.",
        b"\x80\x04\x8c\x01x\x94\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x04X\x02\x00\x00\x00os\x8d\x06\x00\x00\x00\x00\x00\x00\x00system\x93.",
        b"\x80\x02cos\nsystem\n.",
        b"(ios\nsystem\n.",
        b"\x80\x04\x95\x0d\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
    ],
)
def test_ways_to_spell_a_name(data: bytes) -> None:
    assert "os.system" in scan(data).dangerous


@pytest.mark.parametrize(
    "data", [b"\x80\x04]\x8c\x06system\x93.", b"\x80\x04\x93.", b"\x80\x02\x82\x01.", b"\x80\x04h\x05\x8c\x01a\x93."]
)
def test_names_that_are_computed_are_dangerous(data: bytes) -> None:
    assert scan(data).dangerous == ("a computed name",)


def test_a_broken_pickle_says_what_it_would_have_run() -> None:
    with pytest.raises(UnreadablePickle) as caught:
        scan(b"\x80\x02cos\nsystem\nX")
    assert caught.value.scan.dangerous == ("os.system",)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for start in (b"", b"\x80\x04"):
        with contextlib.suppress(UnreadablePickle):
            scan(start + data)


@given(
    st.recursive(st.none() | st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner) | st.tuples(inner))
)
def test_nothing_is_named_where_nothing_is(value: object) -> None:
    assert scan(pickle.dumps(value)).names == ()


def test_long_programs_are_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OPCODES", 50)
    with pytest.raises(UnreadablePickle, match="more than 50"):
        scan(pickle.dumps(list(range(100))))


def test_one_pickle_of_several_is_read() -> None:
    stream = io.BytesIO(pickle.dumps(1) + pickle.dumps(Calls(eval, "x")))
    assert scan_pickle(stream).names == ()
    assert scan_pickle(stream).dangerous == ("builtins.eval",)


def test_escapes_that_are_none_warn_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scan_pickle(io.BytesIO(b"c\\oa\nb\n.")).names
