from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.hostile.samples import pixels, put
from vambrace.data.npy import map_npy, read_npz
from vambrace.errors import DataRefused

FILES = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<f4", ">f8", "<f2", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_arrays_of_every_kind(dtype: str, order: Any, version: Any, tmp_path: Path) -> None:
    stored = np.asarray(pixels(0, (3, 4, 5)).astype(dtype), order=order)
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, stored, version=version, allow_pickle=False)
    mapped = map_npy(path)
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == stored.dtype
    assert np.array_equal(mapped, stored)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0
    np.savez(tmp_path / "s.npz", x=stored, y=np.arange(3))
    np.savez_compressed(tmp_path / "c.npz", inputs=stored, labels=np.arange(3), extra=stored)
    for name in ("s.npz", "c.npz"):
        inputs, labels = read_npz(tmp_path / name, labels_apart=False)
        assert np.array_equal(inputs, stored)
        assert labels is not None
        assert labels.tolist() == [0, 1, 2]


def test_empty_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.empty((0, 28, 28), np.uint8))
    assert map_npy(tmp_path / "x.npy").shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("keys", "apart", "says"),
    [
        (("a", "b"), False, "with the keys a, b"),
        (("x_train", "y_train", "x_test", "y_test"), False, "expected the keys x and y"),
        (("x", "y", "inputs", "labels"), False, "with the keys inputs, labels, x, y"),
        (("x",), False, "without y"),
        (("inputs", "y"), False, "without labels"),
        (("x", "y"), True, "and also y"),
    ],
)
def test_keys(keys: tuple[str, ...], apart: bool, says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **{key: np.arange(3) for key in keys})
    with pytest.raises(DataRefused) as caught:
        read_npz(tmp_path / "set.npz", labels_apart=apart)
    assert caught.value.code == "E306"
    assert says in str(caught.value)


def test_labels_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.arange(3))
    inputs, labels = read_npz(tmp_path / "set.npz", labels_apart=True)
    assert inputs.tolist() == [0, 1, 2]
    assert labels is None


def _mutated(data: bytes, draw: st.DataObject) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):
        changed[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    return bytes(changed[: draw.draw(st.integers(0, len(data)))])


@FILES
@given(st.data())
def test_mutated_npy_is_read_or_refused(tmp_path: Path, draw: st.DataObject) -> None:
    file = io.BytesIO()
    np.save(file, pixels(0, (3, 4)))
    path = put(tmp_path / "x.npy", _mutated(file.getvalue(), draw))
    try:
        array = map_npy(path)
    except DataRefused as error:
        assert error.code in {"E311", "E316"}  # noqa: PT017  either outcome is right
    else:
        assert array.size * array.itemsize <= path.stat().st_size


@FILES
@given(st.data())
def test_mutated_npz_is_read_or_refused(tmp_path: Path, draw: st.DataObject) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, x=pixels(0, (3, 4)), y=np.arange(3))
    path = put(tmp_path / "x.npz", _mutated(file.getvalue(), draw))
    try:
        inputs, _ = read_npz(path, labels_apart=False)
    except DataRefused as error:
        assert error.code in {"E306", "E311", "E312", "E313", "E316"}  # noqa: PT017  either outcome is right
    else:
        assert inputs.size <= 10_000


def test_text_in_the_place_of_labels_is_told_how_to_become_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "y.npz", x=np.zeros((2, 4)), y=np.array(["cat", "dog"]))
    np.save(tmp_path / "y.npy", np.array(["cat", "dog"]))
    np.savez(tmp_path / "x.npz", x=np.array(["cat", "dog"]), y=np.arange(2))
    with pytest.raises(DataRefused, match=r"E307: y.npz:y with text.*return_inverse"):
        read_npz(tmp_path / "y.npz", labels_apart=False)
    with pytest.raises(DataRefused, match=r"E307: y.npy with text"):
        map_npy(tmp_path / "y.npy")
    with pytest.raises(DataRefused, match=r"E311: x.npz:x holds values of type <U3"):
        read_npz(tmp_path / "x.npz", labels_apart=False)
