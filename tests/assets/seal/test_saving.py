"""What is saved comes back: files, folders, streams, tensors; and what must not be sealed is not."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import pickle
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vambrace.assets import seal
from vambrace.assets.seal import folders, saving
from vambrace.assets.seal.chunks import OVERHEAD, ChunkCipher
from vambrace.assets.seal.folders import extract, gather
from vambrace.assets.seal.opening import open_header
from vambrace.assets.seal.recipients import as_identity, as_recipient
from vambrace.assets.seal.sealed import Sealed
from vambrace.core import canonical, files
from vambrace.errors import ArtifactRefused, ConfigError, NotThere, ResourceError

KEY = bytes(range(32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "plain"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"hello")
    (root / "deep" / "empty").write_bytes(b"")
    (root / "deep" / "er" / "big").write_bytes(b"data: " + os.urandom(200_000))
    (root / "deep" / "zz").write_bytes(b"\0" * 64)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(each.relative_to(root)): each.read_bytes() for each in root.rglob("*") if each.is_file()}


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_001])
def test_a_file_comes_back(tmp_path: Path, size: int, pad: bool) -> None:
    plain = os.urandom(size)
    (tmp_path / "x").write_bytes(plain)
    seen: list[tuple[int, int]] = []
    seal.save(
        tmp_path / "x",
        tmp_path / "y",
        recipients=[KEY],
        pad=pad,
        chunk_size=65_536,
        metadata={"a": 1},
        public={"b": 2},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seal.load(tmp_path / "y", identity=KEY) == plain
    assert not size or seen[-1] == (size, size)
    with seal.open_sealed(tmp_path / "y", identity=KEY) as sealed:
        assert (sealed.description.metadata, sealed.header.public) == ({"a": 1}, {"b": 2})


@pytest.mark.parametrize("suite", ["aes-256-gcm", "chacha20-poly1305", "aes-256-gcm-siv", "sm4-gcm"])
def test_every_suite_by_name(tmp_path: Path, suite: str) -> None:
    seal.save({"w": torch.ones(3)}, tmp_path / "y", recipients=KEY, suite=suite)
    assert seal.load(tmp_path / "y", identity=[KEY])["w"].tolist() == [1, 1, 1]
    with pytest.raises(ConfigError, match="E712.*aes-256-gcm"):
        seal.save({"w": torch.ones(3)}, tmp_path / "y", recipients=KEY, suite="rot13")


def test_a_folder_comes_back_whole_and_in_place(tmp_path: Path, folder: Path) -> None:
    seal.save(folder, tmp_path / "y", recipients=[KEY], pad=True, chunk_size=65_536)
    assert seal.load(tmp_path / "y", identity=KEY) == contents(folder)
    with seal.open_sealed(tmp_path / "y", identity=KEY) as sealed:
        extract(sealed, tmp_path / "out" / "there", threads=2)
        assert contents(tmp_path / "out" / "there") == contents(folder)
        with pytest.raises(ConfigError, match="E766"):
            extract(sealed, tmp_path / "out" / "there")
        (tmp_path / "empty").mkdir()
        extract(sealed, tmp_path / "empty")
    assert contents(tmp_path / "empty") == contents(folder)
    (tmp_path / "nothing").mkdir()
    seal.save(tmp_path / "nothing", tmp_path / "z", recipients=[KEY])
    assert seal.load(tmp_path / "z", identity=KEY) == {}


def test_a_damaged_folder_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    seal.save(folder, tmp_path / "y", recipients=[KEY], chunk_size=65_536)
    data = bytearray((tmp_path / "y").read_bytes())
    data[65_536 + 3 * 65_556 + 50] ^= 1
    (tmp_path / "y").write_bytes(data)
    with seal.open_sealed(tmp_path / "y", identity=KEY) as sealed, pytest.raises(ArtifactRefused, match="E705"):
        extract(sealed, tmp_path / "new" / "deep" / "out")
    assert {each.name for each in tmp_path.iterdir()} == {"plain", "y"}


@contextlib.contextmanager
def little_recursion() -> Iterator[None]:
    """As in a folder ten times as deep, which other programs could not remove after the test."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("every", [1, 250], ids=["files all the way", "one file"])
def test_a_folder_too_deep_for_recursion(tmp_path: Path, every: int) -> None:
    root, depth = tmp_path / "plain", 250
    (root / ("d/" * depth)).mkdir(parents=True)
    for level in range(0, depth + 1, every):
        (root / ("d/" * level) / "f").write_bytes(b"secret")
    (root / "z").write_bytes(bytes(65_536))
    with little_recursion():
        seal.save(root, tmp_path / "y", recipients=[KEY], chunk_size=65_536)
        with seal.open_sealed(tmp_path / "y", identity=KEY) as sealed:
            extract(sealed, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(root)
    data = bytearray((tmp_path / "y").read_bytes())
    data[-200] ^= 1
    (tmp_path / "y").write_bytes(data)
    refused = pytest.raises(ArtifactRefused, match="E705")
    with little_recursion(), seal.open_sealed(tmp_path / "y", identity=KEY) as sealed, refused:
        extract(sealed, tmp_path / "again")
    assert {each.name for each in tmp_path.iterdir()} == {"plain", "out", "y"}


@pytest.mark.parametrize("index", [0, 1, 65])
def test_no_folder_appears_with_other_chunks_than_were_signed(tmp_path: Path, index: int) -> None:
    """Made by a recipient, who has the key: of the manifest, of a file, of padding alone; whoever signed it."""
    root = tmp_path / "plain"
    root.mkdir()
    (root / "a").write_bytes(b"a" * 4_199_936)
    seal.save(root, tmp_path / "y", recipients=[KEY], chunk_size=65_536, pad=True, sign=Ed25519PrivateKey.generate())
    with seal.open_sealed(tmp_path / "y", identity=KEY) as sealed:
        assert -(-sealed.size // 65_536) == 65  # and a last chunk that holds padding only
        seen: list[tuple[int, int]] = []
        folders.extract(sealed, tmp_path / "good", progress=lambda done, total: seen.append((done, total)))
        assert seen == sorted(seen)
        assert seen[-1] == (sealed.size, sealed.size)
    data = (tmp_path / "y").read_bytes()
    opened = open_header(data[:65_536], [as_identity(KEY)])
    cipher, begin = ChunkCipher(opened.keys, opened.header.fixed), 65_536 + index * (65_536 + OVERHEAD)
    record, plain = bytearray(data[begin : begin + 65_536 + OVERHEAD]), bytearray(65_536)
    cipher.open(index, index == 65, memoryview(record), memoryview(plain))
    plain[-1] ^= 1
    cipher.seal(index, index == 65, [memoryview(plain)], memoryview(record))
    (tmp_path / "y").write_bytes(data[:begin] + record + data[begin + len(record) :])
    refused = pytest.raises(ArtifactRefused, match=f"E705: chunk {index} is not the one that was signed")
    with seal.open_sealed(tmp_path / "y", identity=KEY) as sealed, refused:
        folders.extract(sealed, tmp_path / "out")
    assert {each.name for each in tmp_path.iterdir()} == {"plain", "good", "y"}


def test_nothing_gets_into_a_folder_that_was_not_sealed(tmp_path: Path, folder: Path) -> None:
    """Whoever can write beside it, or was killed there under the same process number, has left something."""
    seal.save(folder, tmp_path / "x.sealed", recipients=[KEY])
    stale = tmp_path / f".out.{os.getpid()}.tmp"
    stale.mkdir()
    (stale / "stale").write_bytes(b"not verified")
    (tmp_path / "elsewhere").mkdir()
    (stale / "deep").symlink_to(tmp_path / "elsewhere")
    with seal.open_sealed(tmp_path / "x.sealed", identity=KEY) as sealed:
        folders.extract(sealed, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "out").rglob("*") if path.is_file())


@pytest.mark.parametrize(("many", "depth"), [(0, 2_000), (200, 0), (200, 2_000)])
def test_a_folder_is_durable_before_it_appears(
    many: int, depth: int, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal.save(folder, tmp_path / "x.sealed", recipients=[KEY])
    calls: list[str] = []

    class Watching(files.System):
        def fsync(self, fd: int) -> None:
            calls.append(Path(f"/proc/self/fd/{fd}").resolve().name)
            super().fsync(fd)

        def replace(self, source: Path, target: Path) -> None:
            calls.append("replace")
            super().replace(source, target)

    monkeypatch.setattr(folders, "_MANY", many)
    monkeypatch.setattr(folders, "_DEEP", depth)
    monkeypatch.setattr(files, "system", Watching())
    monkeypatch.setattr(os, "sync", lambda: calls.append("sync"))
    with seal.open_sealed(tmp_path / "x.sealed", identity=KEY) as sealed:
        folders.extract(sealed, tmp_path / "out")
    before = calls[: calls.index("replace")]
    assert set(before) >= ({"a.txt", "empty", "big", "zz", "deep", "er"} if many and depth else {"sync"})
    assert ("sync" in before) == (not many or not depth)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="E762.*neither a file nor a folder"):
        seal.save(tmp_path / "pipe", tmp_path / "x", recipients=[KEY])
    assert not (tmp_path / "x").exists()


def test_a_manifest_that_no_reader_takes_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MOST_MANIFEST", 100)
    with pytest.raises(ConfigError, match="E762: a folder whose 4 paths"):
        gather(folder)


def test_links_devices_and_odd_names_are_refused_by_name(tmp_path: Path, folder: Path) -> None:
    (folder / "link").symlink_to("a.txt")
    with pytest.raises(ConfigError, match="E762.*'link' is a link"):
        seal.save(folder, tmp_path / "y", recipients=[KEY])
    (folder / "link").unlink()
    os.mkfifo(folder / "deep" / "pipe")
    with pytest.raises(ConfigError, match="E762.*'deep/pipe'"):
        seal.save(folder, tmp_path / "y", recipients=[KEY])
    (folder / "deep" / "pipe").unlink()
    for first, second in (("Name", "name"), ("Dir/a", "dir/b")):
        for each in (first, second):
            (folder / each).parent.mkdir(exist_ok=True)
            (folder / each).write_bytes(b"")
        with pytest.raises(ConfigError, match="E762"):
            gather(folder)
        for each in (first, second):
            (folder / each).unlink()
    for name in ("back\\slash", "new\nline"):
        (folder / name).write_bytes(b"")
        with pytest.raises(ConfigError, match="E762.*a backslash, a control character"):
            gather(folder)
        (folder / name).unlink()


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, folder: Path) -> None:
    gathered = gather(folder)
    for change in (b"longer than before", b"less"):
        (folder / "a.txt").write_bytes(change)
        with pytest.raises(ConfigError, match="E763.*a.txt changed"):
            list(gathered.pieces())


def test_a_file_that_goes_while_the_folder_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FileNotFoundError of Python came out."""
    real = os.scandir

    @contextlib.contextmanager
    def scan(path: str) -> Generator[list[os.DirEntry[str]]]:
        with real(path) as found:
            entries = list(found)
        (folder / "a.txt").unlink(missing_ok=True)
        yield entries

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(ResourceError, match="E604: ENOENT"):
        gather(folder)


HOSTILE: dict[str, tuple[object, str]] = {
    "up": ([{"path": "../x", "size": 0}], r"the name '\.\./x'"),
    "absolute": ([{"path": "/x", "size": 0}], "the name '/x'"),
    "dot": ([{"path": "a/./x", "size": 0}], r"the name 'a/\./x'"),
    "empty part": ([{"path": "a//x", "size": 0}], "the name 'a//x'"),
    "backslash": ([{"path": "a\\x", "size": 0}], "its file 1 is not written"),
    "delete": ([{"path": "a\x7fx", "size": 0}], "a control character"),
    "twice": ([{"path": "a", "size": 0}, {"path": "a", "size": 0}], "'a' twice"),
    "in another case": ([{"path": "A", "size": 0}, {"path": "a", "size": 0}], "the names 'A' and 'a'"),
    "file and folder": ([{"path": "a", "size": 0}, {"path": "a/b", "size": 0}], "the names 'a' and 'a/'"),
    "not in order": ([{"path": "b", "size": 0}, {"path": "a", "size": 0}], "not in order"),
    "too long": ([{"path": "a", "size": 1}], "up to byte 65 in a content of 64"),
    "negative": ([{"path": "a", "size": -1}], "its file 1 is not written"),
    "true": ([{"path": "a", "size": True}], "its file 1 is not written"),
    "more keys": ([{"path": "a", "size": 0, "mode": 1}], "its file 1 is not written"),
    "no list": ({}, "no list of files"),
}


def with_manifest(path: Path, files: object, *, gap: int = 0) -> Sealed:
    """An authentic folder of empty files, in which all but the manifest, and the gap, is as it has to be."""
    text = canonical.dumps({"files": files})
    plain = len(text).to_bytes(8, "little") + text
    with seal.Writer(path, [as_recipient(KEY)], content="folder") as writer:
        writer.write(plain + gap.to_bytes(-len(plain) % 64, "little"))
    return seal.open_sealed(path, identity=KEY)


@pytest.mark.parametrize("case", HOSTILE)
def test_an_authentic_folder_with_a_hostile_manifest_writes_nothing(tmp_path: Path, case: str) -> None:
    manifest, fault = HOSTILE[case]
    with with_manifest(tmp_path / "y", manifest) as sealed, pytest.raises(ArtifactRefused, match=f"E765.*{fault}"):
        extract(sealed, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["y"]


@pytest.mark.parametrize(("before", "now"), [(9 * 2**20, 100), (2**20, 5 * 2**20)])
def test_a_file_that_changes_while_it_is_sealed_is_named(
    tmp_path: Path, before: int, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was refused in words for who calls `Writer`, as a wrong use of the command."""
    path = tmp_path / "grow"
    path.write_bytes(bytes(before))
    real = saving.kind_of

    def changing(each: Path, **given: bool) -> str:
        os.truncate(each, now)
        return real(each, **given)

    monkeypatch.setattr(saving, "kind_of", changing)
    with pytest.raises(ConfigError, match="E763: grow changed while it was read"):
        seal.save(path, tmp_path / "y", recipients=[KEY])
    assert not (tmp_path / "y").exists()


def test_nothing_hides_between_files(tmp_path: Path) -> None:
    with with_manifest(tmp_path / "y", [{"path": "a", "size": 0}], gap=7) as sealed:
        with pytest.raises(ArtifactRefused, match="E765: bytes before 'a' that are no zeros"):
            extract(sealed, tmp_path / "out")
        assert [each.name for each in tmp_path.iterdir()] == ["y"]
    with pytest.raises(ArtifactRefused, match="E765"):
        seal.load(tmp_path / "y", identity=KEY)


def test_but_for_its_manifest_such_a_folder_opens(tmp_path: Path) -> None:
    """So that what refuses those above is what is wrong with them, and not their size."""
    with with_manifest(tmp_path / "y", [{"path": "a/..x", "size": 0}, {"path": "b", "size": 0}]) as sealed:
        extract(sealed, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "..x").read_bytes() == b""


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("true",))


def test_pickles_are_refused_unless_asked_for(tmp_path: Path, folder: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "net.pt")
    torch.save({"w": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "named.safetensors").write_bytes(pickle.dumps(Evil()))
    (folder / "deep" / "inner.pkl").write_bytes(pickle.dumps(Evil()))
    for name, words in {
        "net.pt": "net.pt is a checkpoint",
        "evil.pt": "imports posix.system",
        "named.safetensors": "named.safetensors is a pickle",
        "plain": "deep/inner.pkl is a pickle",
    }.items():
        with pytest.raises(ArtifactRefused, match=f"E761.*{words}"):
            seal.save(tmp_path / name, tmp_path / "y", recipients=[KEY])
        assert not (tmp_path / "y").exists()
    seal.save(tmp_path / "evil.pt", tmp_path / "y", recipients=[KEY], allow_pickle=True)
    assert seal.load(tmp_path / "y", identity=KEY) == (tmp_path / "evil.pt").read_bytes()


def test_streams_of_unknown_length(tmp_path: Path) -> None:
    plain = os.urandom(150_000)
    sink = io.BytesIO()
    seal.save_stream(io.BytesIO(plain), sink, recipients=[KEY], chunk_size=65_536)
    assert seal.Reader(io.BytesIO(sink.getvalue()), [_identity()]).read() == plain
    (tmp_path / "y").write_bytes(sink.getvalue())
    assert seal.load(tmp_path / "y", identity=KEY) == plain


def test_signed_files_and_the_signer_that_is_asked_for(tmp_path: Path) -> None:
    mine, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    seal.save({"w": torch.ones(2)}, tmp_path / "y", recipients=[KEY], sign=mine, name="Ada", role="release")
    seal.save({"w": torch.ones(2)}, tmp_path / "z", recipients=[KEY])
    assert seal.load(tmp_path / "y", identity=KEY, signer=mine.public_key())["w"].tolist() == [1, 1]
    with seal.open_sealed(tmp_path / "y", identity=KEY) as sealed:
        assert (sealed.statement.name, sealed.statement.role) == ("Ada", "release")
    for name in "yz":
        with pytest.raises(ArtifactRefused, match="E74"):
            seal.load(tmp_path / name, identity=KEY, signer=other.public_key())
        with pytest.raises(ArtifactRefused, match="E74"):
            seal.lazy(tmp_path / name, identity=KEY, signer=other.public_key())
    with pytest.raises(ConfigError, match="E712.*no key to sign"):
        seal.save({"w": torch.ones(2)}, tmp_path / "x", recipients=[KEY], name="Ada")


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="E776: nothing at .*none; expected a file or folder"):
        seal.save(tmp_path / "none", tmp_path / "y", recipients=[KEY])
    with pytest.raises(ConfigError, match="E724"):
        seal.save({"w": torch.ones(2)}, tmp_path / "y", recipients=[3])
    with pytest.raises(ConfigError, match="E712"):
        seal.save({"w": torch.ones(2)}, tmp_path / "y", recipients=[])
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_open(tmp_path: Path) -> None:
    """An error of ours, for those who print these, and of Python's, for those who wait for a file."""
    place, missing = seal.Memory(), tmp_path / "no" / "such"
    for attempt in (
        lambda: seal.load(missing, identity=KEY),
        lambda: seal.lazy(missing, identity=KEY),
        lambda: seal.open_sealed(missing, identity=KEY),
        lambda: seal.session(missing, identity=KEY),
        lambda: seal.save(missing, place, recipients=[KEY]),
        lambda: seal.save("nu\0ll", place, recipients=[KEY]),
    ):
        with pytest.raises(NotThere, match=r"E776: nothing at .*Fix: check the path") as caught:
            attempt()
        error: object = caught.value
        assert isinstance(error, FileNotFoundError)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="E604: ENOTDIR"):
        seal.save(tmp_path / "file" / "below", place, recipients=[KEY])


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    for attempt in (
        lambda: seal.save({"w": torch.ones(2)}, pipe, recipients=[KEY]),
        lambda: seal.save_stream(io.BytesIO(b"x"), pipe, recipients=[KEY]),
    ):
        with pytest.raises(ResourceError, match="E605"):
            attempt()
    assert pipe.is_fifo()


def _identity() -> object:
    from vambrace.assets.seal.recipients import as_identity

    return as_identity(KEY)
