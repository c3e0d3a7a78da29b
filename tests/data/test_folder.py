from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data.hostile.samples import encoded, pixels, put
from vambrace import data
from vambrace.core.contract import InputContract
from vambrace.data.folder import class_order
from vambrace.errors import DataRefused


def fill(folder: Path, *paths: str, shape: tuple[int, ...] = (4, 4)) -> Path:
    for path in paths:
        put(folder / path, encoded(pixels(len(path), shape)))
    return folder


def refused(folder: Path, **contract) -> DataRefused:
    with pytest.raises(DataRefused) as caught:
        data.load(folder, contract=InputContract(**contract))
    return caught.value


@pytest.mark.parametrize(
    ("folders", "stated", "expected"),
    [
        (["dog", "cat"], (), ("cat", "dog")),
        (["10", "9", "8"], (), ("8", "9", "10")),
        (["1", "10", "2"], (), ("1", "2", "10")),
        (["02", "1", "03"], (), ("1", "02", "03")),
        (["1", "2", "x"], (), ("1", "2", "x")),
        (["b", "B", "a"], (), ("B", "a", "b")),
        (["\u0661", "2"], (), ("2", "\u0661")),
        (["dog", "cat"], ("dog", "cat", "fox"), ("dog", "cat", "fox")),
        ([], (), ()),
    ],
)
def test_class_order(folders, stated, expected) -> None:
    assert class_order(folders, stated)[0] == expected


def test_numbers_with_gaps_warn() -> None:
    assert class_order(["0", "1", "2"], ())[1] == []
    assert class_order(["5", "6"], ())[1] == []
    (warning,) = class_order(["0", "1", "7"], ())[1]
    assert "7 is label 2" in warning


@pytest.mark.parametrize(
    ("folders", "stated", "says"),
    [
        (["cat", "dgo"], ("cat", "dog"), "the folder dgo"),
        (["cat"], ("cat", "dog", "cat"), "the class cat twice"),
        (["x\udce9", "x\\xe9"], (), "twice"),
    ],
)
def test_classes_that_do_not_fit(folders, stated, says) -> None:
    with pytest.raises(DataRefused) as caught:
        class_order(folders, stated)
    assert caught.value.code == "E305"
    assert says in str(caught.value)


def test_stated_classes_keep_their_place(tmp_path: Path) -> None:
    fill(tmp_path, "dog/1.png", "cat/1.png")
    out = data.load(tmp_path, contract=InputContract(classes=("fox", "dog", "cat")))
    assert (out.labels, out.counts, out.names) == ((1, 2), (0, 1, 1), ("dog/1.png", "cat/1.png"))
    assert out.warnings == ("no images of fox",)


def test_an_empty_class_keeps_its_label(tmp_path: Path) -> None:
    root = fill(tmp_path / "set", "cat/1.png", "dog/1.png")
    (root / "bird").mkdir()
    out = data.load(root)
    assert out.class_names == ("bird", "cat", "dog")
    assert out.labels == (1, 2)
    assert out.warnings == ("no images of bird",)
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", root))
    assert data.load(archive).labels == (1, 2)


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    fill(tmp_path, "cat/in/1.png", "cat/out/far/1.png", "cat/2.png", "dog/1.png")
    out = data.load(tmp_path)
    assert out.names == ("cat/2.png", "cat/in/1.png", "cat/out/far/1.png", "dog/1.png")
    assert out.labels == (0, 0, 0, 1)


def test_order_is_by_label_then_path(tmp_path: Path) -> None:
    fill(tmp_path, "10/1.png", "9/2.png", "9/10.png", "10/0.png")
    assert data.load(tmp_path).names == ("9/10.png", "9/2.png", "10/0.png", "10/1.png")


@pytest.mark.parametrize("outer", ["test/", "data/test/"])
def test_a_folder_around_the_classes_is_entered(outer: str, tmp_path: Path) -> None:
    fill(tmp_path, f"{outer}cat/1.png", f"{outer}dog/1.png")
    put(tmp_path / outer / "README.md", b"read me")
    put(tmp_path / "LICENSE", b"free")
    out = data.load(tmp_path)
    assert out.class_names == ("cat", "dog")
    assert out.names == (f"{outer}cat/1.png", f"{outer}dog/1.png")
    assert out.ids == tuple(data.sample_id(name) for name in out.names)
    assert out.ignored == 2


def test_a_single_class_is_not_a_wrapper(tmp_path: Path) -> None:
    fill(tmp_path, "cat/in/1.png", "cat/2.png")
    assert data.load(tmp_path).class_names == ("cat",)
    (tmp_path / "cat" / "2.png").unlink()
    fill(tmp_path, "cat/out/1.png")
    assert data.load(tmp_path, contract=InputContract(classes=("cat",))).counts == (2,)


def test_what_lies_beside_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "dog/1.png", "cat/picture")
    put(tmp_path / "boxes.json", b"{}")
    put(tmp_path / "cat" / "notes.txt", b"BM is how this text begins")
    put(tmp_path / "cat" / ".DS_Store", b"?")
    out = data.load(tmp_path)
    assert out.names == ("cat/1.png", "cat/picture", "dog/1.png")
    assert (out.ignored, out.skipped) == (3, ())


def test_images_outside_the_classes_count_as_unusable(tmp_path: Path) -> None:
    fill(tmp_path, *(f"cat/{at:03}.png" for at in range(120)), "loose.png")
    assert data.load(tmp_path).skipped == (("loose.png", "lies in no class folder"),)
    fill(tmp_path, "loose2.png")
    assert refused(tmp_path).code == "E304"


@pytest.mark.parametrize(("bad", "of", "read"), [(1, 100, True), (1, 99, False), (2, 200, True), (3, 200, False)])
def test_one_in_a_hundred(bad: int, of: int, read: bool, tmp_path: Path) -> None:
    image = encoded(pixels(0))
    for at in range(of):
        put(tmp_path / "cat" / f"{at:03}.png", b"?" if at < bad else image)
    if read:
        out = data.load(tmp_path)
        assert len(out) == of - bad
        assert [name for name, _ in out.skipped] == [f"cat/{at:03}.png" for at in range(bad)]
        assert out.names[0] == f"cat/{bad:03}.png"
        assert out.read([0]).names == (out.names[0],)
    else:
        error = refused(tmp_path)
        assert error.code == "E304"
        assert f"{bad} of {of} images" in error.seen
        assert len(data.load(tmp_path, max_skipped=0.05)) == of - bad


def test_all_unusable_is_never_an_empty_set(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.png", b"?")
    with pytest.raises(DataRefused, match="E304"):
        data.load(tmp_path, max_skipped=1.0)


def test_sizes(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png")
    fill(tmp_path, "cat/2.png", shape=(8, 6))
    error = refused(tmp_path)
    assert (error.code, error.seen) == ("E314", "cat/2.png is 8 x 6 (height x width)")
    assert "--size 4,4" in error.fix
    assert "cat/1.png is 4 x 4" in refused(tmp_path, size=(8, 6)).seen
    for resize in ("squash", "center"):
        out = data.load(tmp_path, contract=InputContract(size=(5, 5), resize=resize))
        assert out.read([0, 1]).inputs.shape == (2, 1, 5, 5)


def test_channels(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png")
    fill(tmp_path, "cat/2.png", shape=(4, 4, 3))
    assert refused(tmp_path).code == "E315"
    for channels in (1, 3):
        out = data.load(tmp_path, contract=InputContract(channels=channels))
        assert out.shape == (channels, 4, 4)
        assert out.read([0, 1]).inputs.shape == (2, channels, 4, 4)


@pytest.mark.parametrize("packed", [False, True])
def test_limit_is_stratified_and_lazy(packed: bool, tmp_path: Path) -> None:
    """Images that were not chosen are not even opened."""
    root = tmp_path / "set"
    image = encoded(pixels(0))
    for at in range(60):
        put(root / ("cat" if at % 3 else "dog") / f"{at:02}.png", image)
    whole = data.load(root)
    part = data.load(root, limit=12)
    assert part.counts == (8, 4)
    for name in set(whole.names) - set(part.names):
        put(root / name, b"broken")
    source = Path(shutil.make_archive(str(root), "zip", root)) if packed else root
    again = data.load(source, limit=12)
    assert (again.names, again.ids, again.hashes) == (part.names, part.ids, part.hashes)
    assert set(data.load(source, limit=5).ids) < set(again.ids)
    assert [whole.names.index(name) for name in part.names] == sorted(whole.names.index(name) for name in part.names)


def test_progress_is_told(tmp_path: Path) -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[object] = []

        def start(self, name: str, total: int) -> None:
            self.heard.append((name, total))

        def advance(self, name: str, steps: int = 1, note: str = "") -> None:
            self.heard.append(steps)

        def finish(self, name: str, note: str = "") -> None:
            self.heard.append(name)

    listener = Listener()
    data.load(fill(tmp_path, "cat/1.png", "cat/22.png"), progress=listener)
    assert listener.heard == [("load", 2), 1, 1, "load"]


def test_names_that_are_not_text_have_ids_of_their_bytes(tmp_path: Path) -> None:
    import hashlib
    import os

    image = encoded(pixels(0))
    for name in (b"x\xe9.png", b"x\xe8.png"):
        put(tmp_path / "cat" / os.fsdecode(name), image)
    out = data.load(tmp_path)
    assert out.names == ("cat/x\\xe8.png", "cat/x\\xe9.png")
    assert out.ids[1] == int.from_bytes(hashlib.sha256(b"cat/x\xe9.png").digest()[:8], "big") >> 1
    assert np.array_equal(out.read([0]).inputs, out.read([1]).inputs)


def test_folders_that_are_one_number_are_refused() -> None:
    with pytest.raises(DataRefused, match="E305: the folders 01 and 1, which are the same number") as caught:
        class_order(["1", "2", "01"], ())
    assert "--classes" in caught.value.fix
    assert class_order(["1", "2", "01"], ("2", "1", "01"))[0] == ("2", "1", "01")
    assert class_order(["007", "10", "8"], ())[0] == ("007", "8", "10")


def test_one_reason_is_said_once(tmp_path: Path) -> None:
    for number in range(7):
        put(tmp_path / "cat" / f"{number}.png", b"no image" if number < 6 else b"")
    with pytest.raises(DataRefused, match="E304") as caught:
        data.load(str(tmp_path))
    seen = caught.value.seen
    assert "cat/0.png, cat/1.png, cat/2.png and 3 more: " in seen
    assert seen.count("no ") <= 2, seen
