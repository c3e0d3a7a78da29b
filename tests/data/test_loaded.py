from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.hostile.samples import encoded, pixels, put
from vambrace import data
from vambrace.core.contract import InputContract
from vambrace.data.loaded import content_hashes
from vambrace.errors import DataRefused

IMAGES = [pixels(seed, (4, 5, 3)) for seed in range(6)]


def as_folder(folder: Path) -> data.Loaded:
    for at, image in enumerate(IMAGES):
        put(folder / "set" / str(at % 2) / f"{at}.png", encoded(image))
    return data.load(folder / "set")


def as_zip(folder: Path) -> data.Loaded:
    import shutil

    as_folder(folder)
    shutil.make_archive(str(folder / "packed"), "zip", folder / "set")
    return data.load(folder / "packed.zip")


def as_npz(folder: Path) -> data.Loaded:
    order = [0, 2, 4, 1, 3, 5]
    np.savez(folder / "set.npz", x=np.stack([IMAGES[at] for at in order]), y=[at % 2 for at in order])
    return data.load(folder / "set.npz")


def as_npy(folder: Path) -> data.Loaded:
    order = [0, 2, 4, 1, 3, 5]
    np.save(folder / "x.npy", np.stack([IMAGES[at] for at in order]).transpose(0, 3, 1, 2))
    np.save(folder / "y.npy", np.array([at % 2 for at in order]))
    return data.load(folder / "x.npy", labels=folder / "y.npy")


SOURCES: list[Callable[[Path], data.Loaded]] = [as_folder, as_zip, as_npz, as_npy]


@pytest.mark.parametrize("make", SOURCES)
def test_the_same_pictures_are_the_same_samples(make: Callable[[Path], data.Loaded], tmp_path: Path) -> None:
    out = make(tmp_path)
    expected = np.stack([IMAGES[at] for at in (0, 2, 4, 1, 3, 5)]).transpose(0, 3, 1, 2)
    batch = out.read(range(6))
    assert batch.inputs.equal(torch.from_numpy(expected).float() / 255)
    assert batch.labels.tolist() == list(out.labels) == [0, 0, 0, 1, 1, 1]
    assert batch.hashes == out.hashes == content_hashes(expected, out.labels)
    assert batch.ids.tolist() == list(out.ids) == [data.sample_id(name) for name in out.names]
    assert (out.shape, out.counts, out.bounds) == ((3, 4, 5), (3, 3), (0.0, 1.0))


@pytest.mark.parametrize("make", SOURCES)
def test_any_order_any_company(make: Callable[[Path], data.Loaded], tmp_path: Path) -> None:
    out = make(tmp_path)
    whole = out.read(range(6))
    part = out.read([5, 0, 5, -2])
    assert part.names == tuple(out.names[at] for at in (5, 0, 5, 4))
    assert part.inputs.equal(whole.inputs[[5, 0, 5, 4]])
    assert part.ids.equal(whole.ids[[5, 0, 5, 4]])
    nothing = out.read([])
    assert (len(nothing), nothing.inputs.shape, nothing.hashes) == (0, (0, 3, 4, 5), ())
    with pytest.raises(IndexError):
        out.read([6])


@pytest.mark.parametrize("make", SOURCES)
def test_a_copy_in_another_process_reads_the_same(make: Callable[[Path], data.Loaded], tmp_path: Path) -> None:
    out = make(tmp_path)
    out.read([0])
    copy = pickle.loads(pickle.dumps(out))
    assert copy.read([4, 1]).inputs.equal(out.read([4, 1]).inputs)


def test_hash_is_the_one_documented() -> None:
    rows = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    text = b"vambrace/sample/1 uint8 3x2x2 7\n" + bytes(range(12, 24))
    assert content_hashes(rows, [0, 7])[1] == hashlib.sha256(text).hexdigest()
    floats = rows.astype(np.float32)
    text = b"vambrace/sample/1 float32 3x2x2 0\n" + np.arange(12, dtype="<f4").tobytes()
    assert content_hashes(floats, [0, 7])[0] == hashlib.sha256(text).hexdigest()


def test_hash_tells_label_shape_type_and_pixels_apart() -> None:
    rows = np.zeros((1, 1, 2, 3), np.uint8)
    changed = rows.copy()
    changed[0, 0, 1, 2] = 1
    others = [(rows, 1), (rows.reshape(1, 1, 3, 2), 0), (rows.astype(np.float32), 0), (changed, 0), (rows, 0)]
    assert len({content_hashes(row, [label])[0] for row, label in others}) == 5


@pytest.mark.parametrize(
    ("bounds", "black", "white"),
    [(None, 0, 1), ((0, 1), 0, 1), ((0, 255), 0, 255), ((-1, 1), -1, 1), ((0.1, 0.7), 0.1, 0.7)],
)
def test_pixels_span_the_bounds(bounds, black: float, white: float, tmp_path: Path) -> None:
    put(tmp_path / "a" / "0.png", encoded(np.array([[0, 255], [51, 102]], np.uint8)))
    out = data.load(tmp_path, contract=InputContract(bounds=bounds))
    inputs = out.read([0]).inputs.flatten()
    expected = torch.tensor([black, white, black + (white - black) * 0.2, black + (white - black) * 0.4])
    assert torch.allclose(inputs, expected, atol=1e-6 * abs(white))
    assert inputs.min() >= np.float32(out.bounds[0])
    assert inputs.max() <= np.float32(out.bounds[1])


@pytest.mark.parametrize("change", ["other pixels", "other size", "gone", "broken"])
def test_files_that_change_under_a_run(change: str, tmp_path: Path) -> None:
    out = as_folder(tmp_path)
    path = tmp_path / "set" / "0" / "2.png"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {
                "other pixels": encoded(pixels(99, (4, 5, 3))),
                "other size": encoded(pixels(0, (5, 4, 3))),
                "broken": b"?",
            }[change]
        )
    out.read([0, 2])
    for index in ([1], [0, 1, 2]):
        with pytest.raises(DataRefused, match="E320"):
            out.read(index)


def test_it_is_batches() -> None:
    """The fields of the protocol, by name."""
    names = {name for name in vars(data.Batches) if not name.startswith("_")} | {"__len__"}
    assert names == {"name", "class_names", "labels", "ids", "read", "__len__"}
    assert all(hasattr(data.load("digits", limit=10), name) for name in names)
    assert all(hasattr(data.subset(data.load("digits", limit=10), [0]), name) for name in names)
