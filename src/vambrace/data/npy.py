"""NumPy's files without its trust in them: headers are read from a bounded head and compared with the bytes there are.

`.npy` is mapped, not read. `.npz` members are unpacked into memory within the caps of `expansion`, and only after
their header fits their declared size. Pickled objects are refused by their header, before a byte of them is read.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy_format

from vambrace.data.archive import check_members, open_archive
from vambrace.data.expansion import MAX_UNPACKED, check_expansion
from vambrace.data.labels import names_for_labels
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from pathlib import Path
    from zipfile import ZipFile, ZipInfo

    from numpy.typing import NDArray

__all__ = ["map_npy", "read_npz"]

_HEAD = 2**14
_PAIRS = (("x", "y"), ("inputs", "labels"))
_READERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int


def map_npy(path: Path) -> NDArray[Any]:
    """The array of an `.npy` file, mapped read-only.

    Raises:
        DataRefused: E311 for a broken file, E316 for pickled objects.
    """
    with path.open("rb") as file:
        header = _header(file.read(_HEAD), path.name, path.stat().st_size)
    order = "F" if header.fortran else "C"
    if 0 in header.shape:
        return np.empty(header.shape, header.dtype)
    return np.memmap(path, header.dtype, mode="r", offset=header.offset, shape=header.shape, order=order)


def read_npz(path: Path, *, labels_apart: bool) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Inputs and labels of an `.npz` file, under the keys x and y or inputs and labels.

    Args:
        path: the file.
        labels_apart: labels come from elsewhere, and must not be here.

    Raises:
        DataRefused: E306 for missing or doubled labels, E311, E312, E313, E316.
    """
    with open_archive(path) as archive:
        members = check_members(archive, path)
        found = {info.filename.removesuffix(".npy"): info for info in members}
        pairs = [pair for pair in _PAIRS if pair[0] in found]
        if len(pairs) != 1:
            raise DataRefused(
                "E306",
                seen=f"{path.name} with the keys {', '.join(sorted(found)[:10]) or '(none)'}",
                expected="the keys x and y, or inputs and labels",
                fix="save it again by numpy.savez_compressed(path, x=inputs, y=labels)",
            )
        inputs, labels = pairs[0]
        if labels_apart == (labels in found):
            raise DataRefused(
                "E306",
                seen=f"{path.name} with the key {inputs} and {'also' if labels_apart else 'without'} {labels}",
                expected="labels in exactly one place",
                fix="drop --labels, or save the array alone"
                if labels_apart
                else f"add the key {labels}, or --labels FILE",
            )
        arrays = [_member(archive, found[key], f"{path.name}:{key}") for key in (inputs, labels) if key in found]
    return arrays[0], arrays[1] if len(arrays) == 2 else None


def _member(archive: ZipFile, info: ZipInfo, name: str) -> NDArray[Any]:
    check_expansion(name, packed=info.compress_size, unpacked=info.file_size, most=MAX_UNPACKED)
    try:
        with archive.open(info) as stream:
            header = _header(stream.read(_HEAD), name, info.file_size)
        with archive.open(info) as stream:
            data = stream.read(info.file_size)
    except DataRefused:
        raise
    except Exception as error:  # the errors of zipfile and its decompressors have no common root
        raise _broken(name, f"cannot be unpacked: {error}") from error
    if len(data) != info.file_size:  # zipfile checks only members that it reads to their end
        raise _broken(name, f"holds {len(data)} bytes where {info.file_size} are declared")
    count = math.prod(header.shape)
    flat = np.frombuffer(data, header.dtype, count=count, offset=header.offset)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _header(head: bytes, name: str, size: int) -> _Header:
    """What the header says, once it fits a file of `size` bytes."""
    stream = io.BytesIO(head)
    try:
        reader = _READERS[npy_format.read_magic(stream)]
        shape, fortran, dtype = reader(stream)
    except KeyError as error:
        raise _broken(name, "is of a version of the format that only structured types need") from error
    except Exception as error:  # NumPy parses the header as Python text, which fails in many ways
        raise _broken(name, "has a header that cannot be read") from error
    if dtype.hasobject:
        raise DataRefused(
            "E316",
            seen=f"{name} holds pickled Python objects, which run code when they are read",
            expected="an array of numbers",
            fix="save plain numbers: numpy.save(path, numpy.stack(rows).astype('float32'))",
        )
    if dtype.kind in "US" and not name.endswith((":x", ":inputs")):
        raise names_for_labels(f"{name} with text of type {str(dtype)[:60]}")
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise _broken(name, f"holds values of type {str(dtype)[:60]}")
    if any(length < 0 for length in shape):
        raise _broken(name, f"declares the shape {shape}")
    offset = stream.tell()
    declared = offset + math.prod(shape) * dtype.itemsize
    if declared != size:
        raise _broken(name, f"declares {dtype} values of shape {shape}, {declared} bytes, and has {size}")
    return _Header(shape, fortran, dtype, offset)


def _broken(name: str, seen: str) -> DataRefused:
    return DataRefused(
        "E311",
        seen=f"{name} {seen}",
        expected="a whole NumPy array of integers, booleans or floats (labels: integers)",
        fix="copy the file again, or save the array again",
    )
