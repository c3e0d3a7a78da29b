"""Builders of hostile array files: npy, npz, idx."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

from data.hostile.samples import Case, pixels, put

CANARY = "canary"


class Touch:
    """An object whose unpickling creates the canary file."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / CANARY)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def _header(text: str) -> bytes:
    raw = text.encode("latin1")
    raw += b" " * (-(len(raw) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw


def _objects(folder: Path) -> np.ndarray:
    array = np.empty(3, object)
    array[:] = [Touch(folder), 1, 2]
    return array


def _zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def npy_object_array(folder: Path) -> Case:
    labels = put(folder / "y.npy", _npy(np.zeros(3, np.int64)))
    return Case(put(folder / "x.npy", _npy(_objects(folder), allow_pickle=True)), {"labels": labels})


def npy_pickle_in_labels(folder: Path) -> Case:
    labels = put(folder / "labels.npy", _npy(_objects(folder), allow_pickle=True))
    return Case(put(folder / "x.npy", _npy(pixels(0, (3, 8, 8)))), {"labels": labels})


def npz_object_array(folder: Path) -> Case:
    members = {"x.npy": _npy(_objects(folder), allow_pickle=True), "y.npy": _npy(np.zeros(3, np.int64))}
    return Case(_zip(folder / "set.npz", members))


def npz_bomb(folder: Path) -> Case:
    np.savez_compressed(folder / "set.npz", x=np.zeros((64, 1024, 1024), np.uint8), y=np.zeros(64, np.int64))
    return Case(folder / "set.npz")


def npz_huge_declared(folder: Path) -> Case:
    with zipfile.ZipFile(folder / "set.npz", "w") as archive:
        archive.writestr("x.npy", _npy(pixels(0, (3, 8, 8))))
        archive.filelist[0].file_size = 8 * 2**30
    return Case(folder / "set.npz")


def npz_lying_header(folder: Path) -> Case:
    lying = _header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000), }") + bytes(64)
    return Case(_zip(folder / "set.npz", {"x.npy": lying, "y.npy": _npy(np.zeros(3, np.int64))}))


def npy_truncated(folder: Path) -> Case:
    labels = put(folder / "y.npy", _npy(np.zeros(3, np.int64)))
    return Case(put(folder / "x.npy", _npy(pixels(0, (3, 8, 8)))[:-40]), {"labels": labels})


def npy_nested_header(folder: Path) -> Case:
    labels = put(folder / "y.npy", _npy(np.zeros(3, np.int64)))
    deep = "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 4000 + ")" * 4000 + "}"
    return Case(put(folder / "x.npy", _header(deep) + bytes(64)), {"labels": labels})


def npy_structured(folder: Path) -> Case:
    labels = put(folder / "y.npy", _npy(np.zeros(3, np.int64)))
    return Case(put(folder / "x.npy", _npy(np.zeros(3, [("a", "<f4"), ("b", "<i4")]))), {"labels": labels})


def torch_file(folder: Path) -> Case:
    members = {"net/data.pkl": pickle.dumps(Touch(folder)), "net/version": b"3", "net/data/0": bytes(64)}
    return Case(_zip(folder / "net.npz", members))


def bare_pickle(folder: Path) -> Case:
    return Case(put(folder / "data.npy", pickle.dumps(Touch(folder))))


def npy_without_labels(folder: Path) -> Case:
    return Case(put(folder / "x.npy", _npy(pixels(0, (3, 8, 8)))))


def npz_without_labels(folder: Path) -> Case:
    np.savez(folder / "set.npz", x=pixels(0, (3, 8, 8)))
    return Case(folder / "set.npz")


def _idx(shape: tuple[int, ...], body: bytes) -> bytes:
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + body


_IMAGES = "t10k-images-idx3-ubyte"


def _with_labels(folder: Path, name: str, data: bytes) -> Case:
    put(folder / "t10k-labels-idx1-ubyte", _idx((3,), bytes((0, 1, 2))))
    return Case(put(folder / name, data))


def idx_without_labels(folder: Path) -> Case:
    return Case(put(folder / _IMAGES, _idx((3, 4, 4), bytes(48))))


def idx_lying_header(folder: Path) -> Case:
    return _with_labels(folder, _IMAGES, _idx((4_000_000_000, 28, 28), bytes(100)))


def idx_trailing_bytes(folder: Path) -> Case:
    return _with_labels(folder, _IMAGES, _idx((3, 4, 4), bytes(49)))


def idx_gzip_bomb(folder: Path) -> Case:
    return _with_labels(folder, _IMAGES + ".gz", gzip.compress(_idx((2_000_000, 28, 28), bytes(10**7))))


def idx_gzip_longer(folder: Path) -> Case:
    return _with_labels(folder, _IMAGES + ".gz", gzip.compress(_idx((3, 4, 4), bytes(5 * 10**7))))


def idx_gzip_truncated(folder: Path) -> Case:
    return _with_labels(folder, _IMAGES + ".gz", gzip.compress(_idx((3, 16, 16), bytes(pixels(0, (768,)))))[:-100])
