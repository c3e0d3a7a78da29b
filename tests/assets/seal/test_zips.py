"""Zips are read as Python reads them, and hide nothing that it would find."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from assets.seal.payloads import KEY, Runs, written, zipped
from vambrace.assets import seal
from vambrace.assets.seal import zips
from vambrace.assets.seal.payload import kind_of, start_without_pickle
from vambrace.errors import ArtifactRefused
from vambrace.models import formats


def test_of_a_zip_in_a_file_all_members_are_looked_at(tmp_path: Path) -> None:
    """Of a stream those that begin in its first part, as the page says."""
    with zipfile.ZipFile(tmp_path / "late.zip", "w") as archive:
        archive.writestr("noise", os.urandom(100_000))
        archive.writestr("weights", pickle.dumps(Runs()))
    with pytest.raises(ArtifactRefused, match="E761: late.zip is a zip with a pickle in it"):
        seal.save(tmp_path / "late.zip", tmp_path / "y", recipients=[KEY])
    stream = io.BytesIO((tmp_path / "late.zip").read_bytes())
    seal.save_stream(stream, tmp_path / "y", recipients=[KEY])


def test_a_directory_too_long_to_be_read_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of 160,000 tensors was sealed, one of 135,000 refused."""
    monkeypatch.setattr(formats, "_MOST_DIRECTORY", 100)
    torch.save(nn.Linear(200, 200).state_dict(), tmp_path / "many.pt")
    with pytest.raises(ArtifactRefused, match="E761: many.pt is a checkpoint file"):
        seal.save(tmp_path / "many.pt", tmp_path / "y", recipients=[KEY])
    (tmp_path / "cut.zip").write_bytes(zipped("notes.txt")[:-30])
    seal.save(tmp_path / "cut.zip", tmp_path / "y", recipients=[KEY])


def packed(method: int, content: bytes, *, name: str = "member") -> bytes:
    def write(stream: io.BytesIO) -> None:
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr(name, content)

    return written(write)


def test_members_that_are_packed_so_that_nothing_shows_are_refused(tmp_path: Path) -> None:
    """LZMA is not looked into, in streams bzip2 neither; and what unpacks to nothing for long hides something."""
    runs = pickle.dumps(Runs())
    empty = bytes([0, 0, 0, 255, 255]) * 300_000  # stored blocks of no bytes
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    hidden = empty + packer.compress(runs) + packer.flush()
    data = {
        "lzma": packed(zipfile.ZIP_LZMA, runs),
        "bzip2": packed(zipfile.ZIP_BZIP2, runs),
        "hidden": raw_deflate(hidden, runs),
    }
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert archive.read("member") == runs
        for way in (
            lambda: seal.save(tmp_path / name, tmp_path / "y", recipients=[KEY]),  # noqa: B023
            lambda: seal.save_stream(io.BytesIO(content), tmp_path / "y", recipients=[KEY]),  # noqa: B023
        ):
            with pytest.raises(ArtifactRefused, match="E761"):
                way()


def raw_deflate(stream: bytes, plain: bytes) -> bytes:
    """A zip of one member with this deflate stream."""
    whole = packed(zipfile.ZIP_STORED, stream)
    sizes = struct.pack("<3L", zlib.crc32(plain), len(stream), len(plain))
    made = bytearray(whole)
    directory = whole.rindex(b"PK\x01\x02")
    for at, method, crc in ((0, 8, 14), (directory, 10, 16)):
        made[at + method : at + method + 2] = b"\x08\x00"
        made[at + crc : at + crc + 12] = sizes
    return bytes(made)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_inside_of_zips_is_no_error(tmp_path: Path, method: int) -> None:
    """Of a broken LZMA member the error of the decoder came out."""
    rng = np.random.default_rng(0)
    whole = packed(method, b"1,2,3\n" * 500)
    for number in range(200):
        data = bytearray(whole)
        data[int(rng.integers(4, len(data)))] ^= int(rng.integers(1, 256))
        (tmp_path / "z").write_bytes(data)
        try:
            seal.save(tmp_path / "z", tmp_path / f"y{number}", recipients=[KEY])
        except ArtifactRefused as error:
            assert error.code == "E761"  # noqa: PT017


def test_members_are_read_as_python_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "z"
    for _ in range(30):
        with path.open("wb") as file:
            file.write(rng.bytes(int(rng.integers(0, 2)) * 100))
            with zipfile.ZipFile(file, "w") as archive:
                for number in range(int(rng.integers(0, 30))):
                    info = zipfile.ZipInfo(f"n{number}" + "x" * int(rng.integers(0, 50)))
                    info.compress_type = int(rng.choice([0, 8, 12]))
                    info.comment = b"c" * int(rng.integers(0, 99))
                    content = rng.bytes(int(rng.integers(0, 30_000))) if rng.random() < 0.5 else b"ab" * 40_000
                    with archive.open(info, "w", force_zip64=bool(rng.random() < 0.3)) as member:
                        member.write(content)
                archive.comment = b"q" * int(rng.integers(0, 200))
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            wanted = [archive.open(info).read(10_000) for info in archive.infolist()]
            names = [info.filename.encode() for info in archive.infolist()]
            found = list(zips.members(file.fileno(), 10_000))
        assert [name for name, _ in found] == names
        for (_, begin), want in zip(found, wanted, strict=True):
            assert begin is not None
            assert want.startswith(begin)
            assert bool(begin) == bool(want)


def test_a_zip_of_very_many_members_takes_no_memory(tmp_path: Path) -> None:
    """Each had an object, and pickles were looked for though they were allowed."""
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"images/{number:07}.txt", b"one of many")
    tracemalloc.start()
    try:
        assert kind_of(path) == ""
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("last.pkl", pickle.dumps(Runs()))
    assert kind_of(path) == "zip"
    assert kind_of(path, inside=False) == ""


def test_marks_inside_of_the_last_record_hide_no_member(tmp_path: Path) -> None:
    """Python looks at the last 22 bytes first."""
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("noise", os.urandom(70_000))
        archive.writestr("w", pickle.dumps(Runs()))
    data = bytearray((tmp_path / "z").read_bytes())
    data[-18:-14] = b"PK\5\6"
    (tmp_path / "z").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "z") as archive:
        assert archive.namelist() == ["noise", "w"]
    assert kind_of(tmp_path / "z") == "zip"


def test_offsets_that_no_file_has(tmp_path: Path) -> None:
    """Of 2^63 the number that the system takes is exceeded."""
    data = bytearray(zipped("a", content=b"abc"))
    at = data.rindex(b"PK\x01\x02")
    extra = struct.pack("<2HQ", 1, 8, 2**63 + 5)
    data[at + 42 : at + 46] = b"\xff" * 4
    data[at + 30 : at + 32] = struct.pack("<H", len(extra))
    data[at + 47 : at + 47] = extra
    end = data.rindex(b"PK\5\6")
    data[end + 12 : end + 16] = struct.pack("<L", 47 + len(extra))
    (tmp_path / "z").write_bytes(data)
    with (tmp_path / "z").open("rb") as file:
        assert list(zips.members(file.fileno(), 10)) == []
    assert kind_of(tmp_path / "z") == ""


def test_names_that_others_give_too_are_no_proof_of_torch(tmp_path: Path) -> None:
    names = ["paper/README.md", "paper/code/train.py", "mnist/data/7", "data/0", "proj/data/constants/phys.json"]
    (tmp_path / "z").write_bytes(zipped(*names, content=b"text"))
    assert kind_of(tmp_path / "z") == ""
    (tmp_path / "z").write_bytes(zipped(*names, "x/data.pkl", content=b"text"))
    assert kind_of(tmp_path / "z") == "checkpoint"


@pytest.mark.parametrize("field", [28, 30, 32])
def test_lengths_that_run_past_the_directory_hide_no_member(tmp_path: Path, field: int) -> None:
    """Of the last entry there is less than it says, which Python takes as it is."""
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("noise", os.urandom(70_000))
        archive.writestr("w", pickle.dumps(Runs()))
    data = bytearray((tmp_path / "z").read_bytes())
    data[data.rindex(b"PK\x01\x02") + field] += 1
    (tmp_path / "z").write_bytes(data)
    assert kind_of(tmp_path / "z") == "zip"


def test_mutated_zips_hide_nothing_that_python_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "z"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("noise", bytes(70_000))
        archive.writestr("w", b"\x80\x04N.")
        archive.writestr("last", b"text")
    whole = path.read_bytes()
    directory, read = whole.index(b"PK\x01\x02"), 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 3))):
            data[int(rng.integers(directory, len(data)))] = int(rng.choice([0, 1, 8, 80, 255, rng.integers(0, 256)]))
        path.write_bytes(data)
        try:
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(info) for info in archive.infolist()]
        except Exception:  # noqa: S112  nobody reads it
            continue
        if b"\x80\x04N." in contents:
            read += 1
            assert kind_of(path) == "zip", data[directory:]
    assert read > 300


def test_a_zip_behind_a_line_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "app.pyz").write_bytes(b"#!/usr/bin/env python3\n" + zipped("w.pkl", content=pickle.dumps(Runs())))
    with pytest.raises(ArtifactRefused, match="E761: app.pyz is a zip with a pickle"):
        seal.save(tmp_path / "app.pyz", tmp_path / "y", recipients=[KEY])
    (tmp_path / "app.pyz").write_bytes(b"#!/usr/bin/env python3\n" + zipped("__main__.py", content=b"print(1)"))
    seal.save(tmp_path / "app.pyz", tmp_path / "y", recipients=[KEY])


def test_a_second_directory_hides_nothing(tmp_path: Path) -> None:
    """Python reads the one at the end, and torch the one where the record of the end says."""
    path = tmp_path / "two.pt"
    torch.save(Runs(), path)
    whole = path.read_bytes()
    end = whole.rindex(b"PK\5\6")
    count, size = struct.unpack("<HL", whole[end + 10 : end + 16])
    directory = whole.index(b"PK\1\2")
    names = ["a" * 10] * count
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            archive.writestr(name, b"text")
    other = stream.getvalue()
    entries = bytearray(other[other.index(b"PK\1\2") : other.rindex(b"PK\5\6")])
    entries += bytes(size - len(entries)) if size > len(entries) else b""
    path.write_bytes(whole[:end] + entries[:size] + whole[end:])
    assert directory < end
    with pytest.raises(ArtifactRefused, match="E761"):
        seal.save(path, tmp_path / "y", recipients=[KEY])


@pytest.mark.parametrize("before", [save({"w": torch.ones(3)}), b"\x08\x07" + bytes(20), b"\x89PNG" + bytes(20)])
def test_a_zip_behind_data_is_looked_into(tmp_path: Path, before: bytes) -> None:
    (tmp_path / "x").write_bytes(before + zipped("w.pkl", content=pickle.dumps(Runs())))
    assert kind_of(tmp_path / "x") == "zip"


def test_a_directory_of_nothing_hides_no_member(tmp_path: Path) -> None:
    data = zipped("w.pkl", content=pickle.dumps(Runs()))
    empty = data[: data.index(b"PK\1\2")] + b"PK\5\6" + bytes(18)
    (tmp_path / "x").write_bytes(empty)
    assert kind_of(tmp_path / "x") == "zip"


def test_what_breaks_off_behind_a_pickle_shows_it(tmp_path: Path) -> None:
    """Python reads members by pieces, and an unpickler has done its work before the damage."""
    runs = pickle.dumps(Runs())
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = packer.compress(runs + os.urandom(6000)) + packer.flush(zlib.Z_FULL_FLUSH) + b"\x07" * 50
    (tmp_path / "x").write_bytes(raw_deflate(stream, runs))
    assert kind_of(tmp_path / "x") == "zip"
    with pytest.raises(ArtifactRefused, match="E761"):
        start_without_pickle(io.BytesIO((tmp_path / "x").read_bytes()))
