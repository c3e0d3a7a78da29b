from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data.hostile.samples import encoded, pixels, put
from vambrace import data
from vambrace.core.contract import InputContract
from vambrace.errors import ConfigError, DataRefused


def refused(source: object, **options: object) -> DataRefused:
    with pytest.raises(DataRefused) as caught:
        data.load(source, **options)  # type: ignore[arg-type]
    return caught.value


# ---- what the real files must give ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "count", "first"),
    [
        ("mnist/t10k-images-idx3-ubyte.gz", 10_000, (7, 2, 1, 0, 4)),
        ("mnist/train-images-idx3-ubyte.gz", 60_000, (5, 0, 4, 1, 9)),
        ("fashion-mnist/t10k-images-idx3-ubyte.gz", 10_000, (9, 2, 1, 1, 6)),
    ],
)
def test_mnist(path: str, count: int, first: tuple[int, ...], shared: Path) -> None:
    source = shared / "data" / path
    out = data.load(source)
    assert (len(out), out.shape, out.labels[:5], sum(out.counts)) == (count, (1, 28, 28), first, count)
    labels = source.with_name(source.name.replace("images-idx3", "labels-idx1"))
    assert data.load(source, labels=labels, head=5).labels == first
    raw = np.frombuffer(gzip.decompress(source.read_bytes()), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    index = [0, 1, count // 2, count - 1]
    assert np.array_equal(out.read(index).inputs.numpy(), raw[index].astype(np.float32) / np.float32(255))


def test_first_thousand_of_mnist(shared: Path) -> None:
    source = shared / "data" / "mnist" / "t10k-images-idx3-ubyte.gz"
    head = data.load(source, head=1000)
    assert head.names == tuple(str(at) for at in range(1000))
    assert head.hashes == data.load(source).hashes[:1000]
    spread = data.load(source, limit=1000)
    assert set(data.load(source, limit=100).ids) < set(spread.ids)
    assert sum(spread.counts) == 1000


def test_cifar_zip(shared: Path) -> None:
    out = data.load(shared / "data" / "cifar10-jpeg" / "test.zip", limit=200)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert (out.class_names, out.counts, out.shape) == (names, (20,) * 10, (3, 32, 32))
    assert all(name.startswith(f"test/{names[label]}/") for name, label in zip(out.names, out.labels, strict=True))


def test_cifar_zip_and_lossless_copy_agree(shared: Path) -> None:
    """The third test image is the second ship; its JPEG copy differs from it by compression only."""
    folder = shared / "data" / "cifar10-jpeg"
    lossless = data.load(folder / "test-lossless-first100.npz")
    assert lossless.labels[:10] == (3, 8, 8, 0, 6, 6, 1, 6, 3, 1)
    assert lossless.shape == (3, 32, 32)
    ships = data.load(folder / "test.zip", head=9000)
    second_ship = ships.read([8001]).inputs[0]
    assert ships.names[8001] == "test/ship/0001.jpg"
    assert abs(second_ship - lossless.read([2]).inputs[0]).mean() < 0.05
    assert abs(second_ship - lossless.read([1]).inputs[0]).mean() > 0.1  # negative control: the first ship


@pytest.mark.slow
def test_all_of_cifar_zip(shared: Path) -> None:
    out = data.load(shared / "data" / "cifar10-jpeg" / "test.zip")
    assert (out.counts, out.skipped, out.ignored) == ((1000,) * 10, (), 0)
    assert out.read(range(9990, 10_000)).labels.tolist() == [9] * 10


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("faces-dlib", "E303", "10 images in faces-dlib"),
        ("mnist", "E302", "t10k-images-idx3-ubyte.gz"),
        ("adult/adult.data.gz", "E301", "gzipped, and not idx inside"),
        ("location30/dataset_location.tgz", "E301", "packed tar archive"),
        ("street/rapidocr_text.jpg", "E301", "one JPEG image"),
        ("../models/mnist_cnn_a_fgsm.pth", "E316", "pickled Python objects"),
        ("../models/mnist_fc_256x2.onnx", "E301", "of an unknown type"),
        ("../MANIFEST.md", "E301", "of an unknown type"),
    ],
)
def test_real_files_that_are_no_data(path: str, code: str, says: str, shared: Path) -> None:
    error = refused(shared / "data" / path)
    assert error.code == code
    assert says in error.seen


# ---- telling sources apart -----------------------------------------------------------------------------------------


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    stored = pixels(0, (4, 6, 6))
    np.savez(tmp_path / "set.npz", x=stored, y=np.arange(4))
    np.save(tmp_path / "labels.npy", np.arange(4))
    expected = data.from_arrays(stored, range(4)).hashes
    for name in ("picture.png", "set.zip", "noextension"):
        put(tmp_path / name, (tmp_path / "set.npz").read_bytes())
        assert data.load(tmp_path / name).hashes == expected
    with (tmp_path / "inputs.gz").open("wb") as file:
        np.save(file, stored)
    assert data.load(tmp_path / "inputs.gz", labels=tmp_path / "labels.npy").hashes == expected


def test_labels_from_another_file(tmp_path: Path) -> None:
    stored = pixels(0, (3, 6, 6))
    np.savez(tmp_path / "x.npz", x=stored)
    np.save(tmp_path / "x.npy", stored)
    np.save(tmp_path / "y.npy", np.array([2, 0, 1]))
    put(tmp_path / "y-ubyte.gz", gzip.compress(b"\0\0\x08\x01\0\0\0\3\2\0\1"))
    put(tmp_path / "y.txt", b"2 0 1")
    for source in ("x.npz", "x.npy"):
        for labels in ("y.npy", "y-ubyte.gz"):
            assert data.load(source, labels=labels, base=tmp_path).labels == (2, 0, 1)
    assert refused("x.npy", labels="gone.npy", base=tmp_path).seen == "x.npy and no labels at gone.npy"
    assert refused("x.npy", labels="y.txt", base=tmp_path).code == "E301"
    assert refused("x.npy", labels="x.npz", base=tmp_path).code == "E306"


def test_labels_in_two_places(tmp_path: Path) -> None:
    put(tmp_path / "set" / "cat" / "0.png", encoded(pixels(0)))
    np.save(tmp_path / "y.npy", np.zeros(1, int))
    error = refused(tmp_path / "set", labels=tmp_path / "y.npy")
    assert (error.code, error.fix) == ("E306", "drop --labels")


def test_an_array_without_axes(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.uint8(5), y=np.int64(0))
    assert refused(tmp_path / "set.npz").code == "E307"
    np.savez(tmp_path / "set.npz", x=np.uint8(5), y=np.empty(0, np.int64))
    assert refused(tmp_path / "set.npz").code == "E302"


def test_an_image_and_a_label_file_that_are_swapped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(0, (3, 6, 6)))
    np.save(tmp_path / "y.npy", np.zeros(3, np.int64))
    assert refused(tmp_path / "y.npy", labels=tmp_path / "x.npy").code == "E307"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.bin", b"", "an empty file"),
        ("a.csv", b"1,2,3\n", "a table of text"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("a.parquet", b"PAR1....", "a Parquet file"),
        ("a.gz", b"\x1f\x8b....", "gzipped, and not idx inside"),
        ("a.png", encoded(pixels(0)), "one PNG image"),
    ],
)
def test_other_kinds_are_named(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    error = refused(put(tmp_path / name, content))
    assert error.code == "E301"
    assert says in error.seen


def test_tar(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("cat/0.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"???"))
    error = refused(put(tmp_path / "a.bin", file.getvalue()))
    assert "a tar archive" in error.seen
    assert error.fix == "unpack it, and name the folder"


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "plan" / "digits" / "cat" / "0.png", encoded(pixels(0)))
    monkeypatch.chdir(tmp_path)
    assert data.load("./digits", base=Path("plan")).class_names == ("cat",)
    assert data.load(tmp_path / "plan" / "digits", base=Path("elsewhere")).name == "digits"
    assert len(data.load("digits", base=Path("plan"))) == 1797
    assert refused("val", base=Path("plan")).code == "E300"
    os.mkfifo(tmp_path / "pipe")
    assert refused("pipe").seen == "pipe is no regular file"
    with pytest.raises(ConfigError, match="no data"):
        data.load("")


def test_system_errors_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", pixels(0, (3, 6, 6)))

    def failing(_: Path) -> np.ndarray:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vambrace.data.loading.map_npy", failing)
    assert "Permission denied" in refused(tmp_path / "x.npy").seen

    def starving(_: Path) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr("vambrace.data.loading.map_npy", starving)
    assert refused(tmp_path / "x.npy").code == "E312"


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_max_skipped(share: float) -> None:
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        data.load("digits", max_skipped=share)


def test_large_arrays_are_mapped_and_not_read(tmp_path: Path) -> None:
    """A head of a file of 2 GiB, sparse on disk, costs no memory of that size; `tracemalloc` sees NumPy's memory."""
    import tracemalloc

    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(2**11, 2**10, 2**10))[0, 0, :2] = (7, 255)
    np.save(tmp_path / "y.npy", np.zeros(2**11, np.int64))
    tracemalloc.start()
    out = data.load(path, labels=tmp_path / "y.npy", head=3)
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()
    assert out.read([0]).inputs[0, 0, 0, :2].tolist() == [float(np.float32(7) / np.float32(255)), 1.0]


def test_contract_reaches_every_source(tmp_path: Path) -> None:
    stored = pixels(0, (8, 6))
    put(tmp_path / "set" / "0" / "0.png", encoded(stored))
    np.savez(tmp_path / "set.npz", x=stored[None], y=[0])
    contract = InputContract(size=(4, 4), resize="center", channels=3, bounds=(0, 255))
    one, other = (data.load(tmp_path / name, contract=contract) for name in ("set", "set.npz"))
    assert one.shape == (3, 4, 4)
    assert one.hashes == other.hashes
    assert one.read([0]).inputs.equal(other.read([0]).inputs)


def test_importing_the_package_stays_cheap() -> None:
    """scikit-learn is met only when the digits are asked for."""
    code = "import sys, vambrace.data; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
