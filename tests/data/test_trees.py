from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import pytest

from data.hostile.samples import pixels, put
from vambrace.data.expansion import MAX_MEMBER
from vambrace.data.images import Unusable
from vambrace.data.trees import FolderTree, Listing, ZipTree, readable

FILES = {"b/2.png": b"two", "a/1.png": b"one" * 1000, "a/deep/er/3.txt": b"three", "0.md": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        put(tmp_path / "set" / name, content)
    (tmp_path / "set" / "empty").mkdir()
    for name in (".DS_Store", "a/.hidden/4.png", "__MACOSX/b/2.png", "b/Thumbs.db"):
        put(tmp_path / "set" / name, b"?")
    return tmp_path / "set"


@pytest.fixture
def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder.parent / "set"), "zip", folder))


def test_a_folder_and_its_zip_list_the_same(folder: Path, zipped: Path) -> None:
    listing = FolderTree(folder).listing()
    assert listing.files == tuple(sorted(FILES))
    assert listing.folders == ("a", "a/deep", "a/deep/er", "b", "empty")
    assert (listing.problems, listing.hidden) == ((), 4)
    other = ZipTree(zipped).listing()
    assert (other.files, other.folders, other.problems) == (listing.files, listing.folders, listing.problems)
    assert other.hidden >= 4  # a zip names hidden folders and what is in them


def test_reading(folder: Path, zipped: Path) -> None:
    for tree in (FolderTree(folder), ZipTree(zipped)):
        for name, content in FILES.items():
            assert tree.read(name) == content
            assert tree.read(name, 2) == content[:2]
        with pytest.raises(Unusable, match="cannot be"):
            tree.read("gone.png")


def test_links(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "1.png", b"one")
    root = tmp_path / "set"
    (root / "a").mkdir(parents=True)
    (root / "a" / "file.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "self").symlink_to(".")
    (root / "a" / "root").symlink_to("/")
    (root / "a" / "gone").symlink_to("nowhere")
    listing = FolderTree(root).listing()
    assert listing.files == ("a/file.png", "linked/1.png")
    assert dict(listing.problems) == {
        "a/self": "is a link to a folder that it lies in",
        "a/root": "is a link to a folder that it lies in",
        "a/gone": "cannot be read: No such file or directory",
    }
    assert FolderTree(root).read("a/file.png") == b"one"


def test_two_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "to_b").symlink_to("../b")
    (tmp_path / "b" / "to_a").symlink_to("../a")
    listing = FolderTree(tmp_path).listing()
    assert {reason for _, reason in listing.problems} == {"is a link to a folder that it lies in"}


def test_what_takes_a_files_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    tree = FolderTree(tmp_path)
    assert tree.listing() == Listing((), (), (("pipe.png", "is not a regular file"),), 0)
    with pytest.raises(Unusable, match="not a regular file"):
        tree.read("pipe.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(Unusable, match="cannot be read"):
        tree.read("folder.png")


def test_large_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(MAX_MEMBER + 1)
    tree = FolderTree(tmp_path)
    with pytest.raises(Unusable, match=r"over the cap of 256\.0 MiB"):
        tree.read("big.png")
    assert tree.read("big.png", 3) == b"\0\0\0"


def test_unlisted_folder_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("vambrace.data.trees.os.scandir", refusing)
    assert FolderTree(tmp_path).listing().problems == (("secret", "cannot be listed: Permission denied"),)


FORKED: list[ZipTree] = []  # inherited by forked processes as it is; an argument would be pickled, and so opened anew


def _large(at: int) -> bytes:
    return bytes(pixels(at, (100_000,)))  # more than Python buffers, so that every read moves the file position


def _read_often() -> bool:
    return all(FORKED[0].read(f"{at}.png") == _large(at) for _ in range(60) for at in range(3))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_copies_do_not_share_a_file_position(tmp_path: Path) -> None:
    for at in range(3):
        put(tmp_path / "set" / f"{at}.png", _large(at))
    FORKED[:] = [ZipTree(Path(shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "set")))]
    assert FORKED[0].read("0.png") == _large(0)
    assert pickle.loads(pickle.dumps(FORKED[0])).read("1.png") == _large(1)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        waiting = [pool.apply_async(_read_often) for _ in range(2)]
        assert _read_often()
        assert all(result.get(60) for result in waiting)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain name.png", "plain name.png"),
        ("\u00fcml\u00e4ut/\u732b.png", "\u00fcml\u00e4ut/\u732b.png"),
        (os.fsdecode(b"x\xe9"), "x\\xe9"),
        ("a\nb\x1b[2J\x07", "a\\nb\\x1b[2J\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)
def test_readable(name: str, expected: str) -> None:
    assert readable(name) == expected
