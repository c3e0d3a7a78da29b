from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.hostile.samples import pixels, put
from vambrace.data.idx import is_idx, label_paths, read_idx
from vambrace.errors import DataRefused

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array: np.ndarray) -> bytes:
    head = bytes((0, 0, CODES[array.dtype.str[1:]], array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 2), (0,), (0, 3)])
def test_every_type_plain_and_packed(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    stored = pixels(0, shape).astype(dtype)
    plain, packed = put(tmp_path / "a", idx(stored)), put(tmp_path / "b", gzip.compress(idx(stored)))
    for path in (plain, packed):
        found = read_idx(path)
        assert found.dtype.newbyteorder("=") == stored.dtype
        assert np.array_equal(found, stored)
    assert isinstance(read_idx(plain), np.memmap) == (0 not in shape)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("emnist-letters-test-images-idx3-ubyte.gz", "emnist-letters-test-labels-idx1-ubyte.gz"),
    ],
)
def test_names_of_labels(images: str, expected: str) -> None:
    first, second = label_paths(Path("folder", images))
    assert first == Path("folder", expected)
    assert {first.name, second.name} == {expected.removesuffix(".gz"), expected.removesuffix(".gz") + ".gz"}


def test_no_name_for_labels() -> None:
    assert label_paths(Path("pictures.idx")) == ()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\x08\x03", True),
        (b"\0\0\x0e\x01", True),
        (b"\0\0\x08\x00", False),
        (b"\0\0\x08\x09", False),
        (b"\0\0\x0a\x01", False),
        (b"\0\1\x08\x01", False),
        (b"\0\0\x08", False),
    ],
)
def test_is_idx(head: bytes, expected: bool) -> None:
    assert is_idx(head) is expected


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_files_are_read_or_refused(tmp_path: Path, draw: st.DataObject) -> None:
    data = idx(pixels(0, (3, 4, 4)))
    changed = bytearray(gzip.compress(data) if draw.draw(st.booleans()) else data)
    for _ in range(draw.draw(st.integers(0, 3))):
        changed[draw.draw(st.integers(2, len(changed) - 1))] = draw.draw(st.integers(0, 255))
    path = put(tmp_path / "x", bytes(changed[: draw.draw(st.integers(0, len(changed)))]))
    try:
        array = read_idx(path)
    except DataRefused as error:
        assert error.code in {"E311", "E312"}  # noqa: PT017  either outcome is right
    else:
        assert array.size <= 48
