"""What is in a stream is looked at where it begins, and nothing of it is lost."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.package.package_exporter import PackageExporter

from assets.seal.payloads import KEY, Runs, written, zipped
from vambrace.assets import seal
from vambrace.assets.seal.payload import kind_of, start_without_pickle
from vambrace.errors import ArtifactRefused, ResourceError

LARGE = nn.Linear(200, 200)  # its weights fill more than is looked at


class Dribble(io.RawIOBase):
    """Gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data, self._most = io.BytesIO(data), most

    def readinto(self, buffer: Any, /) -> int:
        return self._data.readinto(memoryview(buffer)[: self._most])


def packaged(stream: io.BytesIO) -> None:
    with PackageExporter(stream) as package:
        package.extern("**")
        package.save_pickle("model", "model.pkl", LARGE)


PICKLES = {
    **{f"pickle {protocol}": ("pickle", pickle.dumps({"w": [1.0, 2.0]}, protocol)) for protocol in range(6)},
    "short": ("pickle", pickle.dumps(None)),
    "joblib, compressed": ("pickle", gzip.compress(b"anything")),
    "checkpoint": ("checkpoint", written(lambda out: torch.save(LARGE.state_dict(), out))),
    "legacy": ("legacy", written(lambda out: torch.save({}, out, _use_new_zipfile_serialization=False))),
    "tar": ("tar", b"sys_info" + bytes(600)),
    "TorchScript": ("PyTorch", written(lambda out: torch.jit.save(torch.jit.script(LARGE), out))),
    "small TorchScript": ("torchscript", written(lambda out: torch.jit.save(torch.jit.script(nn.ReLU()), out))),
    "package": ("package", written(packaged)),
    "pt2": ("pt2", zipped("net/data/weights/weight_0", "net/archive_format")),
    "old pt2": ("pt2", zipped("serialized_exported_program.json")),
}
DATA = {
    "nothing": b"",
    "one byte": b"\x80",
    "text": b"twenty characters ..",
    "safetensors": save({"w": torch.ones(30_000)}),
    "onnx": b"\x08\x0a\x12\x07pytorch",
    "zip": zipped("notes.txt", "deep/data.txt", content=b"data.pkl"),
    "broken zip": b"PK\x03\x04" * 20_000,
    "a pickle further on": bytes(65_536) + pickle.dumps([1]),
}


def array(*objects: object, **kept: Any) -> bytes:
    held: Any = np.array([*objects], dtype=object) if objects else kept["array"]
    return written(lambda out: np.save(out, held))


def arrays(write: Any, **held: Any) -> bytes:
    return written(lambda out: write(out, **held))


def deflated(content: bytes) -> bytes:
    def write(stream: io.BytesIO) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("notes.txt", "x" * 3000)
            archive.writestr("weights", content)

    return written(write)


OBJECTS: Any = np.array([Runs(), 1], dtype=object)
FIELDS = np.zeros(2, dtype=[("w", "<f4"), ("o", "O")])
INSIDE = {
    "array": ("an array of Python objects", array(Runs())),
    "fields": ("an array of Python objects", array(array=FIELDS)),
    "long header": ("an array of Python objects", array(array=np.zeros(2, [(f"w{at}", "<f4") for at in range(900)]))),
    "damaged header": ("an array of Python objects", b"\x93NUMPY\x01\x00\x10\x00{'descr': [[[[[["),
    "archive": ("a zip with a pickle in it", arrays(np.savez, w=np.ones(3), o=OBJECTS)),
    "compressed archive": ("a zip with a pickle in it", arrays(np.savez_compressed, w=np.ones(3), o=OBJECTS)),
    "zip of any name": ("a zip with a pickle in it", deflated(pickle.dumps(Runs()))),
    "flat": ("a checkpoint file", zipped("data.pkl")),
}
PLAIN = {
    "array": array(array=np.ones((3, 4))),
    "a field called O": array(array=np.zeros(2, dtype=[("O", "<f4")])),
    "texts": array(array=np.array(["a", "O"])),
    "archive": arrays(np.savez, w=np.ones(3), s=np.array("text")),
    "compressed archive": arrays(np.savez_compressed, w=np.ones((300, 300))),
    "zip": deflated(b"{'descr': '|O'}"),
    "encrypted": zipped("a.txt").replace(b"\x14\x00\x00\x00", b"\x14\x00\x01\x00"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_arrays_of_objects_are_pickles_wherever_they_stand(tmp_path: Path, name: str) -> None:
    """They were sealed without a word, as files, in folders and from streams."""
    what, data = INSIDE[name]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "w.npy").write_bytes(data)
    ways: list[Callable[..., object]] = [
        lambda **options: seal.save(tmp_path / "folder" / "w.npy", tmp_path / "y", recipients=[KEY], **options),
        lambda **options: seal.save(tmp_path / "folder", tmp_path / "y", recipients=[KEY], **options),
        lambda **options: seal.save_stream(io.BytesIO(data), tmp_path / "y", recipients=[KEY], **options),
    ]
    for way in ways:
        with pytest.raises(ArtifactRefused, match=f"E761: .*{what}"):
            way()
        assert [each.name for each in tmp_path.iterdir()] == ["folder"]
        way(allow_pickle=True)
        (tmp_path / "y").unlink()


@pytest.mark.parametrize("name", PLAIN)
def test_arrays_of_numbers_and_zips_of_anything_else_are_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "w").write_bytes(PLAIN[name])
    seal.save(tmp_path / "w", tmp_path / "y", recipients=[KEY])
    sealed(PLAIN[name], 2**20, tmp_path / "z")
    assert seal.load(tmp_path / "y", identity=KEY) == seal.load(tmp_path / "z", identity=KEY) == PLAIN[name]


def sealed(data: bytes, most: int, path: Path, **options: Any) -> None:
    seal.save_stream(Dribble(data, most), path, recipients=[KEY], chunk_size=65_536, **options)


@pytest.mark.parametrize("most", [1, 7, 2**20])
@pytest.mark.parametrize("name", PICKLES)
def test_a_stream_that_begins_as_a_pickle_is_refused_unless_asked_for(tmp_path: Path, name: str, most: int) -> None:
    kind, data = PICKLES[name]
    with pytest.raises(ArtifactRefused, match=f"E761: the stream begins as a {kind}\\b.*--allow-pickle"):
        sealed(data, most, tmp_path / "y")
    assert list(tmp_path.iterdir()) == []
    sealed(data, most, tmp_path / "y", allow_pickle=True)
    assert seal.load(tmp_path / "y", identity=KEY) == data


@pytest.mark.parametrize("most", [1, 1000, 2**20])
@pytest.mark.parametrize("name", DATA)
def test_any_other_stream_comes_back_whole(tmp_path: Path, name: str, most: int) -> None:
    sealed(DATA[name], most, tmp_path / "y")
    assert seal.load(tmp_path / "y", identity=KEY) == DATA[name]


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072, 200_001])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_was_looked_at_is_sealed_once(tmp_path: Path, size: int, threads: int) -> None:
    data = b"data: " + os.urandom(size - 6)
    sealed(data, 50_000, tmp_path / "y", threads=threads)
    assert seal.load(tmp_path / "y", identity=KEY) == data


def test_no_more_is_taken_than_is_looked_at() -> None:
    stream = io.BytesIO(bytes(100_000))
    assert len(start_without_pickle(stream)) == stream.tell() == 65_536


def test_a_stream_that_does_not_wait_is_no_end(tmp_path: Path) -> None:
    class Nothing(io.RawIOBase):
        def readinto(self, buffer: Any, /) -> None:
            return None

    with pytest.raises(ResourceError, match="E604"):
        seal.save_stream(Nothing(), tmp_path / "y", recipients=[KEY])
    assert list(tmp_path.iterdir()) == []


def test_refused_in_memory_too() -> None:
    place = seal.Memory()
    with pytest.raises(ArtifactRefused, match="E761"):
        seal.save_stream(io.BytesIO(pickle.dumps([1])), place, recipients=[KEY])
    assert len(place.data) == 0


@pytest.mark.parametrize("suffix", ["", ".onnx", ".safetensors"])
def test_no_name_makes_an_array_of_objects_anything_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"array{suffix}"
    path.write_bytes(array(Runs(), dtype=object))
    with pytest.raises(ArtifactRefused, match="E761: .* is an array of Python objects"):
        seal.save(path, tmp_path / "y", recipients=[KEY])


TEXTS = {
    "labels": "cat\ndog\nhorse\npig\n",
    "two": "chair\ncouch\n",
    "head": "class\ncat\ndog\n",
    "numbers": "id\n0\n1\n2\n",
    "requirements": "click\nnumpy\nrequests\n",
    "many": "cat\ndog\n" * 1000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_words_in_lines_are_no_pickle(tmp_path: Path, name: str) -> None:
    """Every list whose first line is one word with a c or i was refused, and so was its folder or zip."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "labels.txt").write_text(TEXTS[name])
    (tmp_path / "in" / "a.zip").write_bytes(zipped("labels.txt", content=TEXTS[name].encode()))
    seal.save(tmp_path / "in", tmp_path / "y", recipients=[KEY])
    sealed(TEXTS[name].encode(), 2**20, tmp_path / "z")
    assert seal.load(tmp_path / "z", identity=KEY) == TEXTS[name].encode()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_that_begin_at_the_end_of_what_is_seen_are_arrays(tmp_path: Path, save: Any) -> None:
    """Half a header was taken for that of objects: 7 of 100 such files could not be sealed."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        stream = io.BytesIO()
        save(stream, **{f"a{n}": rng.normal(size=int(rng.integers(50, 1000))).astype("f4") for n in range(60)})
        (tmp_path / "z").write_bytes(stream.getvalue())
        assert kind_of(tmp_path / "z") == ""
        start_without_pickle(io.BytesIO(stream.getvalue()))
    for begin in range(65_300, 65_536):
        first = zipped("a", content=b"x" * (begin - 31))[:begin]
        start_without_pickle(io.BytesIO(first + zipped("b.npy", content=written(lambda s: np.save(s, np.ones(9))))))


def test_whole_numbers_of_python_2_are_numbers(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2L,), }".ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + np.ones(2).tobytes()
    (tmp_path / "z.npy").write_bytes(data)
    with pytest.warns(UserWarning, match="created on Python 2"):
        assert np.load(tmp_path / "z.npy").tolist() == [1, 1]
    assert kind_of(tmp_path / "z.npy") == ""
