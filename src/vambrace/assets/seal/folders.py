"""A folder as the plain bytes of a sealed file: a manifest, then its files. Format: docs/formats/sealed-v1.md.

Regular files only: a link would carry what lies elsewhere, or nothing at all. Empty folders, permissions and times are
not kept. On the way out every name is checked again, since a file may be authentic and its sealer hostile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vambrace.assets.seal.listing import MOST_PATH, SIZED, listed
from vambrace.assets.seal.padding import is_zero
from vambrace.assets.seal.source import read_pieces
from vambrace.core import canonical, files
from vambrace.core.cleanup import undisturbed
from vambrace.core.disk import unreadable, unwritable
from vambrace.core.files import draft_name, make_folder, publish
from vambrace.errors import ArtifactRefused, ConfigError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vambrace.assets.seal.sealed import Sealed

__all__ = ["Gathered", "Member", "check_gap", "extract", "gather", "read_manifest"]

_ALIGNED: Final = 64
_MOST_MANIFEST: Final = 64 * 2**20
_PIECE: Final = 2**20
_MOST_NAMES: Final = 1_000_000  # of files and folders
_MANY: Final = 200  # files
_DEEP: Final = 2_000  # folders, each counted for every file below it
# Control characters, and what is a separator on some system or other.
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One file of a sealed folder.

    Attributes:
        path: from the folder, with `/` between parts.
        size: bytes.
        begin: where they begin in the content.
        gap: zeros before them.
    """

    path: str
    size: int
    begin: int
    gap: int = 0

    @property
    def end(self) -> int:
        """Where its bytes end in the content."""
        return self.begin + self.size


@dataclasses.dataclass(frozen=True, slots=True)
class Gathered:
    """A folder that is about to be sealed.

    Attributes:
        folder: where it is.
        members: its files, sorted by path.
        manifest: the bytes before them.
        size: bytes of the content.
    """

    folder: Path
    members: Sequence[Member]
    manifest: bytes
    size: int

    def pieces(self) -> Iterator[memoryview]:
        """The content in order.

        Raises:
            ConfigError: E763, for a file that is no longer what it was.
            ResourceError: E604, when one cannot be read.
        """
        yield memoryview(self.manifest)
        for member in self.members:
            yield memoryview(bytes(member.gap))
            # A link that came since would lead elsewhere.
            yield from read_pieces(self.folder / member.path, member.size, piece=_PIECE, follow=False)


def gather(folder: Path) -> Gathered:
    """Look at everything in a folder.

    Raises:
        ConfigError: E762, for a link, device or name that cannot be sealed.
        ResourceError: E604, when a folder in it cannot be read.
    """
    sizes = dict(sorted(_walk(folder)))
    if fault := _fault(sizes):
        raise _unsealable(fault)
    listed = [{"path": path, "size": size} for path, size in sizes.items()]
    text = canonical.dumps({"files": listed})
    if len(text) > _MOST_MANIFEST:
        raise _unsealable(f"a folder whose {len(sizes)} paths take {len(text)} bytes, more than {_MOST_MANIFEST}")
    manifest = len(text).to_bytes(8, "little") + text
    members = _placed(sizes, len(manifest))
    end = members[-1].end if members else len(manifest)
    return Gathered(folder, members, manifest, end)


def read_manifest(sealed: Sealed) -> dict[str, Member]:
    """The files of a sealed folder, by path, in their order.

    Raises:
        ArtifactRefused: E764, when the content is no folder; E765, for a manifest that is not as it has to be; and as
            `Sealed.read_into`.
    """
    if sealed.description.content != "folder":
        raise ArtifactRefused(
            "E764",
            seen=f"a content of kind {sealed.description.content!r}",
            expected="a folder",
            fix="open it as what it is: seal.load, or vambrace open",
        )
    length = int.from_bytes(sealed.read(0, min(8, sealed.size)), "little")
    if sealed.size < 8 or length > min(_MOST_MANIFEST, sealed.size - 8):
        raise _malformed(f"a manifest of {length} bytes in a content of {sealed.size}")
    sizes: dict[str, int] = {}
    try:
        for each in listed(sealed.read(8, 8 + length), SIZED, b"]}", most=_MOST_NAMES):
            if each.path in sizes:
                raise _malformed(f"{each.path[:80]!r} twice")
            sizes[each.path] = each.size
    except UnicodeDecodeError:
        raise _malformed("a list of files that is not UTF-8") from None
    except ValueError as error:
        raise _malformed(f"a list of files that cannot be read: {error}") from None
    if list(sizes) != sorted(sizes):
        raise _malformed("files that are not in order")
    if fault := _fault(sizes):
        raise _malformed(fault)
    members = _placed(sizes, 8 + length)
    end = members[-1].end if members else 8 + length
    if end != sealed.size:
        raise _malformed(f"files up to byte {end} in a content of {sealed.size}")
    return {member.path: member for member in members}


def check_gap(sealed: Sealed, member: Member) -> None:
    """Hold what stands before a file against the format: nobody can put there what no file shows.

    Raises:
        ArtifactRefused: E765, for what is no zero; and as `Sealed.read_into`.
    """
    if not is_zero(memoryview(sealed.read(member.begin - member.gap, member.begin))):
        raise _malformed(f"bytes before {member.path[:80]!r} that are no zeros")


def extract(
    sealed: Sealed, target: Path, *, threads: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[Member, ...]:
    """Put the files of a sealed folder below `target`, which appears when all of them are verified and written.

    Args:
        sealed: the open file.
        target: a folder that is not there yet, or is empty; its owner alone can enter it.
        threads: how many decrypt, 1 to 256.
        progress: called with the bytes of the content that were written, and those there are.

    Raises:
        ConfigError: E766, when something is there.
        ArtifactRefused: as `read_manifest` and `Sealed.verify`; nothing has appeared then.
        ResourceError: E601 or E604, when something cannot be written or read.
    """
    # Padding first, which no file holds. And from here on every chunk is held against a signature, whoever made it.
    sealed.verify(begin=sealed.size, threads=threads)
    members = tuple(read_manifest(sealed).values())
    if not _is_free(target):
        raise _taken(target)
    above = [folder for folder in (target.parent, *target.parent.parents) if not os.path.exists(folder)]
    make_folder(target.parent)
    # Nobody else has been in it, and nobody else gets in: what it holds is what was verified.
    prepared = target.with_name(f".{draft_name(target.name)}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        prepared.mkdir(mode=0o700)
        for member in members:
            check_gap(sealed, member)
            place = prepared / member.path
            _make_below(prepared, place.parent)
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=0) as stream:  # noqa: PTH123  opened with its permissions
                for begin in range(member.begin, member.end, threads * _PIECE):
                    part = memoryview(bytearray(min(threads * _PIECE, member.end - begin)))
                    sealed.read_into(begin, part, threads=threads)
                    end = begin + len(part)
                    while part:
                        part = part[files.system.write(stream.fileno(), part) :]
                    if progress:
                        progress(end, sealed.size)
        _settle(prepared, members)
        if progress:
            progress(sealed.size, sealed.size)
        publish(prepared, target)
    except FileExistsError:
        raise _taken(target) from None
    except ResourceError:
        raise
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        with undisturbed():
            _remove(prepared)
            for folder in above:  # those that are still empty: nothing has appeared
                with contextlib.suppress(OSError):
                    folder.rmdir()
    return members


def _is_free(target: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    if not os.path.lexists(target):
        return True
    try:
        return not os.path.islink(target) and not os.listdir(target)
    except OSError:
        return False


# Paths lead through up to two thousand folders: more than Python lets a function call itself, as `shutil.rmtree` and
# `Path.mkdir(parents=True)` do.
def _make_below(top: Path, folder: Path) -> None:
    """Make `folder`, and what is missing between it and `top`, which is there."""
    missing = [folder]
    while missing:
        try:
            missing[-1].mkdir(exist_ok=True)
        except FileNotFoundError:
            if missing[-1] == top:
                raise
            missing.append(missing[-1].parent)
        else:
            missing.pop()


def _remove(top: Path) -> None:
    """Remove a folder, unless a link stands there, and all that is in it; what cannot be removed stays."""
    folders = [] if os.path.islink(top) else [os.fspath(top)]
    for folder in folders:  # which grows meanwhile
        with contextlib.suppress(OSError):
            with os.scandir(folder) as found:
                entries = list(found)
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        os.unlink(entry.path)  # noqa: PTH108  of a folder of many, no object for each
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106


def _settle(folder: Path, members: Sequence[Member]) -> None:
    """Make what was written below `folder` durable."""
    if len(members) > _MANY or sum(member.path.count("/") for member in members) > _DEEP:
        os.sync()  # one by one, ten thousand small files take minutes, and folders in folders gigabytes of names
        return
    written = {folder / member.path for member in members}
    above = {parent for path in written for parent in path.parents if parent.is_relative_to(folder)}
    for path in sorted(written | above):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            files.system.fsync(fd)
        finally:
            os.close(fd)


def _walk(top: Path) -> Iterator[tuple[str, int]]:
    """The files below `top`, by their paths in it, and their sizes, in no order."""
    folders = [(os.fspath(top), "")]
    while folders:
        folder, below = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise unreadable(folder, error) from error
        for entry in entries:
            name = f"{below}{entry.name}"
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError as error:
                raise unreadable(entry.path, error) from error
            if stat.S_ISDIR(found.st_mode):
                folders.append((entry.path, f"{name}/"))
            elif stat.S_ISREG(found.st_mode):
                yield name, found.st_size
            else:
                what = "a link" if stat.S_ISLNK(found.st_mode) else "neither a file nor a folder"
                raise _unsealable(f"{name[:200]!r} is {what}")


def _placed(sizes: dict[str, int], start: int) -> list[Member]:
    members: list[Member] = []
    for path, size in sizes.items():
        gap = -start % _ALIGNED
        members.append(Member(path, size, start + gap, gap))
        start += gap + size
    return members


def _fault(paths: dict[str, int]) -> str:
    """Why these cannot be the files of one folder, in words; "" when they can."""
    # Of each folder's number and a name in it, case ignored: its own number, and its name as spelt, with `/` of a
    # folder. Numbers and not paths: those of all folders that a deep path leads through are many times its length.
    known: dict[tuple[int, str], tuple[int, str]] = {}
    for path in paths:
        parts = path.split("/")
        if _UNFIT.search(path):
            return f"the name {path[:200]!r}, with a backslash, a control character, or what is no UTF-8"
        if any(part in {"", ".", ".."} for part in parts):
            return f"the name {path[:200]!r}"
        if len(path.encode()) > MOST_PATH:
            return f"a path of more than {MOST_PATH} bytes, {path[:80]!r}"
        folder = 0
        for depth, part in enumerate(parts, 1):
            spelt = part if depth == len(parts) else f"{part}/"
            number, other = known.setdefault((folder, part.casefold()), (len(known) + 1, spelt))
            # Names that differ in case only are one file on some systems, and a file cannot be a folder as well.
            if other != spelt:
                above = "".join(f"{each}/" for each in parts[: depth - 1])
                return f"the names {f'{above}{other}'[:80]!r} and {f'{above}{spelt}'[:80]!r}"
            folder = number
        if len(known) > _MOST_NAMES:
            return f"more than {_MOST_NAMES} files and folders"
    return ""


def _unsealable(seen: str) -> ConfigError:
    return ConfigError(
        "E762",
        seen=seen,
        expected="regular files in folders, with names that are different ones on every system",
        fix="replace links by what they lead to, rename, or leave it out",
    )


def _malformed(seen: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E765", seen=seen, expected="a manifest as the format has it", fix="ask whoever sealed it to seal it again"
    )


def _taken(target: Path) -> ConfigError:
    return ConfigError(
        "E766", seen=f"{target} is there already", expected="a new place", fix="choose another place, or remove it"
    )
