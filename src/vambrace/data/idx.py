"""The idx format of MNIST and its relatives, plain (mapped) or gzipped (unpacked within the caps of `expansion`).

Two zero bytes, a type, the number of axes, one big-endian 32-bit length an axis, then the values, big-endian.
See http://yann.lecun.com/exdb/mnist/. The file must hold exactly what its header declares.

    >>> from pathlib import Path
    >>> [path.name for path in label_paths(Path("t10k-images-idx3-ubyte.gz"))]
    ['t10k-labels-idx1-ubyte.gz', 't10k-labels-idx1-ubyte']
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.data.expansion import MAX_UNPACKED, check_expansion, readable_size
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["is_idx", "label_paths", "read_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 8


def is_idx(head: bytes) -> bool:
    """Whether a file that begins with these (unpacked) bytes is idx."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _TYPES and 1 <= head[3] <= _MOST_AXES


def label_paths(images: Path) -> tuple[Path, ...]:
    """Where the labels of an image file lie by the names of MNIST: beside it, gzipped or not."""
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    if name == images.name.removesuffix(".gz"):
        return ()
    names = (name + ".gz", name) if images.name.endswith(".gz") else (name, name + ".gz")
    return tuple(images.with_name(name) for name in names)


def read_idx(path: Path) -> NDArray[Any]:
    """The array of an idx file; bytes as uint8, everything else big-endian as stored.

    Raises:
        DataRefused: E311 for a file that does not hold what its header declares, E312 for one that unpacks to too much.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return _unpacked(path) if packed else _mapped(path)


def _mapped(path: Path) -> NDArray[Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        dtype, shape = _header(file.read(4 + 4 * _MOST_AXES), path.name)
    offset = 4 + 4 * len(shape)
    declared = offset + math.prod(shape) * dtype.itemsize
    if size != declared:
        raise _lies(path.name, shape, f"{readable_size(size)} where the header makes {readable_size(declared)}")
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)


def _unpacked(path: Path) -> NDArray[Any]:
    try:
        with gzip.open(path) as file:
            head = file.read(4)
            head += file.read(4 * head[3]) if is_idx(head) else b""
            dtype, shape = _header(head, path.name)
            size = math.prod(shape) * dtype.itemsize
            check_expansion(path.name, packed=path.stat().st_size, unpacked=size, most=MAX_UNPACKED)
            data = file.read(size)
            longer = bool(file.read(1))
    except (OSError, EOFError, zlib.error) as error:
        raise DataRefused(
            "E311",
            seen=f"{path.name} cannot be unpacked: {error}",
            expected="a whole gzip file",
            fix="copy or download the file again",
        ) from error
    if longer or len(data) != size:
        raise _lies(path.name, shape, f"{'more' if longer else 'fewer'} than the {readable_size(size)} that this makes")
    return np.frombuffer(data, dtype).reshape(shape)


def _header(head: bytes, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if not is_idx(head) or len(head) < 4 + 4 * head[3]:
        raise DataRefused(
            "E311",
            seen=f"{name} has no whole idx header",
            expected="an idx file",
            fix="copy or download the file again",
        )
    return np.dtype(_TYPES[head[2]]), struct.unpack(f">{head[3]}I", head[4 : 4 + 4 * head[3]])


def _lies(name: str, shape: tuple[int, ...], seen: str) -> DataRefused:
    return DataRefused(
        "E311",
        seen=f"{name} declares the shape {shape} and holds {seen}",
        expected="exactly the values that the header declares",
        fix="copy or download the file again",
    )
