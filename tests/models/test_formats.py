import bz2
import contextlib
import gzip
import io
import lzma
import pickle
import random
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from vambrace.errors import ModelRefused
from vambrace.models.checkpoint import scan_checkpoint
from vambrace.models.formats import identify


def saved(value: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def code_of(call, *arguments: object) -> str:
    """The code with which a call is refused; "" where it is not."""
    try:
        call(*arguments)
    except ModelRefused as error:
        return error.code
    return ""


STATE = {"w": torch.zeros(2)}
OLD = {"_use_new_zipfile_serialization": False}
KINDS = {
    "safetensors": save(STATE),
    "checkpoint": saved(STATE),
    "legacy": saved(STATE, **OLD),
    "onnx": bytes([0x08, 9, 0x3A, 0]),
    "pickle": pickle.dumps(STATE),
    "torchscript": zipped(**{"a/data.pkl": b"", "a/code/x.py": b""}),
    "pt2": zipped(**{"a/archive_format": b"pt2", "a/data/x": b""}),
    "package": zipped(**{"a/.data/extern_modules": b"", "a/data.pkl": b""}),
    "tar": b"sys_info".ljust(512, b"\0"),
}


def _written(data: bytes) -> bytes:
    """A zlib stream without a control character: one stored block, of which three bits say so and five say nothing."""
    size = 0x0920
    return b"x^@" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + data.rjust(size, b"x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["net", "net.pt", "net.bin", "net.zip"])
def test_content_decides(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(KINDS[kind])
    found = identify(tmp_path / name)
    assert found.kind == kind
    assert found.is_executable == (kind in {"pickle", "torchscript", "pt2", "package"})


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_older_checkpoints_of_other_protocols(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "net.pt").write_bytes(saved(STATE, pickle_protocol=protocol, **OLD))
    assert identify(tmp_path / "net.pt").kind == "legacy"


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"safetensors", "onnx"}))
@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".ONNX"])
def test_a_name_may_not_promise_more_than_the_content(tmp_path: Path, kind: str, suffix: str) -> None:
    (tmp_path / f"net{suffix}").write_bytes(KINDS[kind])
    # The oldest format has no mark of its own: under such a name it passes for a data file, and then for a broken one.
    assert code_of(identify, tmp_path / f"net{suffix}") == ("" if kind == "tar" else "E202")


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps({"a": 1}, protocol=0),
        pickle.dumps([1], protocol=1),
        b"cos\nsystem\n(S'x'\ntR.",
        gzip.compress(b"x" * 99, mtime=0),
        bz2.compress(b"x" * 99),
        bz2.compress(b""),
        *(zlib.compress(b"x" * 99, level) for level in (0, 2, 6, 9)),
        b"ZF0x63               " + zlib.compress(b"x" * 99),
        b"ZF" + b"1A".ljust(19) + zlib.compress(b"x" * 99),
        b"ZF" + b"+0X1a".rjust(18) + b" " + zlib.compress(b"x" * 99),
        lzma.compress(
            b"x" * 99,
            format=lzma.FORMAT_ALONE,
            filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 4096}],
        ),
        b"(lp0\n.",
        _written(b"cos\nsystem\n(S'" + b"x" * 2317 + b"'\ntR."),
    ]
    + [pickle.dumps(1, protocol=p) for p in range(2, 6)],
)
def test_pickles_of_every_age_and_compression(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "net.pt").write_bytes(data)
    assert identify(tmp_path / "net.pt").kind == "pickle"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"hello world, this is text\n", "unknown format"),
        (b"x^2 + y^2 = 1\n", "unknown format"),
        ("x^2 ≥ 0, π\n".encode() * 2000, "unknown format"),
        (_written(b"and so on"), "unknown format"),
        (b"tp1\tfp1\n1\t2\n", "unknown format"),
        (b"tp1\nfp1\n", "unknown format"),
        (b"dp1\n", "unknown format"),
        (b"lp0\nlp1\n", "unknown format"),
        (b"ZF Friedrichshafen\n", "unknown format"),
        (b"BZhang, A. et al.\n", "unknown format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(80), "HDF5"),
        (b"GGUF" + bytes(80), "GGUF"),
        (b"\x93NUMPY\x01\x00" + bytes(80), "NumPy"),
        (bytes(4) + b"ORTM" + bytes(80), "flatbuffer"),
        (zipped(**{"arr_0.npy": b""}), "a zip that torch did not write"),
        (zipped(**{"net.safetensors": save(STATE)}), "it holds net.safetensors"),
    ],
)
def test_unknown_formats(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "net.pt").write_bytes(data)
    with pytest.raises(ModelRefused, match=said) as caught:
        identify(tmp_path / "net.pt")
    assert caught.value.code == "E201"


def test_nothing_to_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.pt", tmp_path, Path("a\0b")):
        with pytest.raises(ModelRefused) as caught:
            identify(path)
        assert caught.value.code == "E200"


@given(st.binary(max_size=100), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x08\x01"]), st.integers(0, 2))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes, suffix: int) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{['.pt', '.onnx', '.safetensors'][suffix]}"
    path.write_bytes(head + data)
    assert code_of(identify, path) in {"", "E201", "E202", "E216"}


@given(st.data())
def test_damaged_zips(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path, whole = tmp_path_factory.getbasetemp() / "damaged.pt", bytearray(KINDS["checkpoint"])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    assert code_of(identify, path) in {"", "E201", "E216"}


def test_a_zip64_directory_is_capped_too(tmp_path: Path) -> None:
    """The size that counts is the one that the reader will use."""
    whole = KINDS["checkpoint"]
    at = whole.rindex(b"PK\x05\x06")
    size, start = whole[at + 12 : at + 16], int.from_bytes(whole[at + 16 : at + 20], "little")
    wide = (
        b"PK\x06\x06"
        + (44).to_bytes(8, "little")
        + bytes(28)
        + (2**30).to_bytes(8, "little")
        + start.to_bytes(8, "little")
    )
    locator = b"PK\x06\x07" + bytes(4) + at.to_bytes(8, "little") + (1).to_bytes(4, "little")
    (tmp_path / "net.pt").write_bytes(whole[:at] + wide + locator + whole[at:])
    assert int.from_bytes(size, "little") < 2**20
    with pytest.raises(ModelRefused, match="1073741824 bytes") as caught:
        identify(tmp_path / "net.pt")
    assert caught.value.code == "E216"


def test_large_arrays_are_not_read(tmp_path: Path) -> None:
    """Only the head is looked at: a sparse file of 8 GiB costs nothing."""
    path = tmp_path / "big.npy"
    np.save(path, np.zeros(1))
    with path.open("r+b") as stream:
        stream.truncate(2**33)
    with pytest.raises(ModelRefused, match="NumPy"):
        identify(path)


def test_a_directory_with_offsets_beyond_all_files_is_damage(tmp_path: Path) -> None:
    """Python's own reader of zips raises a ValueError of its own."""
    path = tmp_path / "net.pt"
    torch.save({"w": torch.ones(3)}, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    begin = whole.index(b"PK\x01\x02")
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(begin, len(data))] = rng.choice([0, 1, 8, 0x7F, 0xFF])
        path.write_bytes(data)
        with contextlib.suppress(ModelRefused):
            form = identify(path)
            if form.kind == "checkpoint":
                scan_checkpoint(path, form)


@pytest.mark.parametrize("offset", [2**63, 2**64 - 1])
def test_an_offset_that_no_file_can_have_is_damage(tmp_path: Path, offset: int) -> None:
    """Python's own reader of zips raises an OverflowError."""
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(io.BytesIO(KINDS["checkpoint"])) as read, zipfile.ZipFile(path, "w") as written:
        for each in read.namelist():
            written.writestr(each, read.read(each))
    whole = bytearray(path.read_bytes())
    end, begin = whole.rindex(b"PK\x05\x06"), whole.index(b"PK\x01\x02")
    name, extra = (int.from_bytes(whole[begin + at : begin + at + 2], "little") for at in (28, 30))
    wide = b"\x01\x00\x08\x00" + offset.to_bytes(8, "little")
    size = int.from_bytes(whole[end + 12 : end + 16], "little") + len(wide)
    whole[end + 12 : end + 16] = size.to_bytes(4, "little")
    whole[begin + 30 : begin + 32] = (extra + len(wide)).to_bytes(2, "little")
    whole[begin + 42 : begin + 46] = b"\xff" * 4
    whole[begin + 46 + name : begin + 46 + name] = wide
    path.write_bytes(whole)
    form = identify(path)
    with pytest.raises(ModelRefused, match="E217"):
        scan_checkpoint(path, form)
