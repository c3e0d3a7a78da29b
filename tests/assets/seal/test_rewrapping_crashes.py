"""A change of recipients that is cut off: by SIGKILL, by errors of the disk, by loss of power, again and again.

Whatever happens and when, the file opens for those who could before or for those who were to, and its content is whole.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assess.assess_harness import Counting, in_fork
from assets.seal.headers_on_disk import names, opens, put, sidecar
from vambrace.assets.seal.rewrapping import finish, rewrap
from vambrace.core import files
from vambrace.errors import ArtifactRefused, ResourceError

A, B = bytes([1]) * 32, bytes([2]) * 32

# What one change does to the disk, in order; "net" is the file, and the draft is what becomes the sidecar.
ORDER = [
    "write draft",
    "fsync draft",
    "replace .net.header",
    "fsync folder",
    "write net",
    "fsync net",
    "unlink .net.header",
    "fsync folder",
]


class Disk(Counting):
    """Names every call by what it is for; `share` says how much of a write is done before what happens at call `at`."""

    def __init__(self, at: int = 0, share: float = 0.5) -> None:
        super().__init__(at)
        self.share = share

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._call(f"write {self.named(fd)}", fd, bytes(data))
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        self._call(f"fsync {self.named(fd)}")
        os.fsync(fd)

    def unlink(self, path: Path) -> None:
        self._call(f"unlink {path.name}")
        os.unlink(path)

    def part(self, fd: int, data: bytes) -> None:
        if data:
            os.write(fd, data[: int(len(data) * self.share)])

    @staticmethod
    def named(fd: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        return "folder" if path.is_dir() else "draft" if path.name.endswith(".tmp") else path.name


class Killing(Disk):
    def act(self, call: str, fd: int, data: bytes) -> None:
        self.part(fd, data)
        os.kill(os.getpid(), signal.SIGKILL)


class Failing(Disk):
    def act(self, call: str, fd: int, data: bytes) -> None:
        self.part(fd, data)
        raise OSError(errno.EIO, "no")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net"


def fits(path: Path) -> tuple[bool, bool]:
    """For whom it opens: at least one of the two."""
    found = opens(path, A), opens(path, B)
    assert any(found), names(path)
    return found


def test_the_order_of_the_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, A)
    monkeypatch.setattr(files, "system", disk := Disk())
    rewrap(path, A, [B])
    assert disk.calls == ORDER


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("at", range(1, len(ORDER) + 1))
def test_killed_at_every_call(path: Path, monkeypatch: pytest.MonkeyPatch, at: int, share: float) -> None:
    put(path, A)

    def work() -> None:
        monkeypatch.setattr(files, "system", Killing(at, share))
        rewrap(path, A, [B])

    assert in_fork(work) == -signal.SIGKILL
    old, new = fits(path)
    # Those who are to open it can from the moment that the sidecar is there, the others until the file is touched.
    assert new is (at > 3)
    assert old is (at < 5 or (at == 5 and share == 0.0))
    identity = B if new else A
    assert finish(path, identity) is (old and new) or not old
    assert fits(path) == (not new, new)
    assert names(path)[-1:] == ["net"]
    rewrap(path, identity, [A, B])
    assert names(path) == ["net"]
    assert fits(path) == (True, True)


@pytest.mark.parametrize("forever", [False, True])
def test_every_call_fails(path: Path, monkeypatch: pytest.MonkeyPatch, forever: bool) -> None:
    real = files.system

    class Broken(Failing):
        def _call(self, call: str, fd: int = -1, data: bytes = b"") -> None:
            super()._call(call, fd, data)
            if forever and len(self.calls) > self.at:
                self.act(call, fd, data)

    for at in range(1, len(ORDER) + 1):
        put(path, A)
        monkeypatch.setattr(files, "system", Broken(at))
        with pytest.raises(ResourceError, match="E601: EIO"):
            rewrap(path, A, [B])
        monkeypatch.setattr(files, "system", real)
        _, new = fits(path)
        rewrap(path, B if new else A, [A])
        assert fits(path) == (True, False)
        assert names(path) == ["net"]


@pytest.mark.parametrize("most", [20, pytest.param(150, marks=pytest.mark.slow)])
def test_many_kills_one_after_the_other(path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Each goes on with what the one before has left; the calls grow in number where something is to be finished."""
    rng = random.Random(7)
    put(path, A)
    seen: set[tuple[bool, bool]] = set()
    kills = 0
    while kills < most:
        old, _ = fits(path)
        mine, other = (A, B) if old else (B, A)

        def work(mine: bytes = mine, other: bytes = other) -> None:
            monkeypatch.setattr(files, "system", Killing(rng.randint(1, 14), rng.random()))
            rewrap(path, mine, [other])

        outcome = in_fork(work)
        rng.random()  # the child drew from a copy
        assert outcome in {0, -signal.SIGKILL}
        kills += outcome != 0
        seen.add(fits(path))
    assert seen == {(True, False), (False, True), (True, True)}
    leftovers = [name for name in names(path) if name.endswith(".tmp")]
    assert len(leftovers) <= 1  # the next change takes away what the last one has left
    rewrap(path, A if fits(path)[0] else B, [A])
    assert names(path) == ["net"]


# Loss of power: what was not synced may be on the disk or not, in whole or in part.


@dataclasses.dataclass
class Inode:
    """A file: what is surely on the disk, and writes that may be."""

    content: bytes
    pending: list[tuple[int, bytes]] = dataclasses.field(default_factory=list)

    def may_be(self) -> Iterator[bytes]:
        """The contents that it may have after a loss of power: each write not at all, by half, or whole."""
        for shares in itertools.product((0.0, 0.5, 1.0), repeat=len(self.pending)):
            content = bytearray(self.content)
            for (offset, data), share in zip(self.pending, shares, strict=True):
                part = data[: int(len(data) * share)]
                content[offset : offset + len(part)] = part
            yield bytes(content)


class Power(Disk):
    """Keeps beside the real disk what would be left of it if the power failed after each call."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.inodes = {path.name: Inode(path.read_bytes()) for path in folder.iterdir()}
        # Names come and go in order, as a journal writes them, but none surely before the folder is synced.
        self.listings = [dict(self.inodes)]
        self.states: set[tuple[tuple[str, bytes], ...]] = set()
        self.note()

    def note(self) -> None:
        for listing in self.listings:
            held = list(listing.items())
            for contents in itertools.product(*(list(inode.may_be()) for _, inode in held)):
                self.states.add(tuple((name, data) for (name, _), data in zip(held, contents, strict=True)))

    def write(self, fd: int, data: bytes | memoryview) -> int:
        offset = os.lseek(fd, 0, os.SEEK_CUR)
        done = super().write(fd, data)
        name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
        if name not in self.inodes:
            self.inodes[name] = Inode(b"")
            self.listings.append(self.listings[-1] | {name: self.inodes[name]})
        self.inodes[name].pending.append((offset, bytes(data)))
        self.note()
        return done

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        place = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if place == self.folder:
            self.listings = [dict(self.inodes)]
        else:
            inode = self.inodes[place.name]
            *_, inode.content = inode.may_be()
            inode.pending.clear()
        self.note()

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self.inodes[target.name] = self.inodes.pop(source.name)
        self.listings.append(dict(self.inodes))
        self.note()

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        del self.inodes[path.name]
        self.listings.append(dict(self.inodes))
        self.note()


def after_loss_of_power(folder: Path, work: Callable[[], object]) -> list[dict[str, bytes]]:
    """What the folder may hold if the power fails at any moment of `work`."""
    real = files.system
    files.system = power = Power(folder)
    try:
        work()
    finally:
        files.system = real
    return [dict(state) for state in sorted(power.states)]


def restore(folder: Path, state: dict[str, bytes]) -> None:
    for entry in folder.iterdir():
        entry.unlink()
    for name, data in state.items():
        (folder / name).write_bytes(data)


def test_loss_of_power_once_and_again(path: Path) -> None:
    put(path, A)
    folder = path.parent
    first = after_loss_of_power(folder, lambda: rewrap(path, A, [B]))
    assert len(first) >= 8  # old, half and new header, without, with half of and with the whole of a sidecar
    seen: set[tuple[bool, bool]] = set()
    for state in first:
        restore(folder, state)
        seen.add(found := fits(path))
        mine, other = (A, B) if found[0] else (B, A)
        again = after_loss_of_power(folder, lambda mine=mine, other=other: rewrap(path, mine, [other]))
        for later in again:
            restore(folder, later)
            fits(path)
    assert seen == {(True, False), (False, True), (True, True)}


@pytest.mark.parametrize("lost", ["fsync draft", "fsync folder", "fsync net"])
def test_the_power_test_sees_a_missing_fsync(path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """Negative control: where one is left out, there is a moment after which nobody opens the file."""

    class Careless(Power):
        def fsync(self, fd: int) -> None:
            if f"fsync {self.named(fd)}" != lost:
                super().fsync(fd)

    put(path, A)
    folder = path.parent
    monkeypatch.setattr(files, "system", power := Careless(folder))
    rewrap(path, A, [B])
    monkeypatch.undo()
    lost_all = 0
    for state in power.states:
        restore(folder, dict(state))
        lost_all += not (opens(path, A) or opens(path, B))
    assert lost_all


# A process of its own, killed by another at any instant.

PROGRAM = """
import sys
from pathlib import Path
from vambrace.assets.seal.rewrapping import rewrap
from vambrace.errors import ArtifactRefused
path, keys = Path(sys.argv[1]), [bytes([1]) * 32, bytes([2]) * 32]
while True:
    for mine, other in (keys, keys[::-1]):
        try:
            rewrap(path, mine, [other])
        except ArtifactRefused:
            continue
        print("changed", flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_instant(path: Path) -> None:
    rng = random.Random(11)
    put(path, A)
    for _ in range(100):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == b"changed\n"
            time.sleep(rng.random() * 0.02)
            process.kill()
        fits(path)
    assert rewrap(path, A if fits(path)[0] else B, [A]).epoch > 100


def test_a_reader_beside_a_change_sees_one_of_the_two(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, A)

    class Watched(Disk):
        def _call(self, call: str, fd: int = -1, data: bytes = b"") -> None:
            super()._call(call, fd, data)
            fits(path)

    monkeypatch.setattr(files, "system", Watched())
    rewrap(path, A, [B])
    assert not sidecar(path).exists()
    with pytest.raises(ArtifactRefused):
        finish(path, A)
