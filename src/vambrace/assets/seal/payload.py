"""What is about to be sealed: files that run code when they are opened are found before the seal hides them.

A seal says that the bytes are as they were sealed. It does not make a pickle safe, and nobody can look at it before
opening it; so whoever seals one has to say that this is meant.

A file is looked at where it begins, and a zip at each of its members where those begin; NumPy's arrays of Python
objects are pickles behind a short header. A stream is looked at where it begins alone, since it cannot be read twice:
of a zip the members whose headers stand there. What comes later, the zip's own directory at its end too, is not seen.
"""

from __future__ import annotations

import ast
import contextlib
import re
from typing import TYPE_CHECKING, Final
from zipfile import ZIP_DEFLATED, ZIP_STORED

import numpy as np

from vambrace.assets.seal.source import fill
from vambrace.assets.seal.zips import has_directory, is_moved, members, unpacked
from vambrace.errors import ArtifactRefused, ModelRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vambrace.assets.seal.source import Stream

__all__ = ["kind_of", "refuse_pickle", "start_without_pickle"]

_DATA: Final = frozenset({"", "safetensors", "onnx"})
_START: Final = 2**16
_MEMBER: Final = b"PK\x03\x04"
_LATER: Final = 8  # the length stands behind the content
_LONGEST: Final = 256  # bytes of a name that are looked at: a hostile start names thousands
_NUMPY: Final = b"\x93NUMPY"
_HEADER: Final = 10_000  # bytes that NumPy reads of a header, unless it is told to trust it
_BEGINNING: Final = _HEADER + 12
# What the members of an archive by torch are called, below its one folder. With large weights first, as TorchScript has
# them, no name that tells the kinds apart need be among the first; and all of them hold pickles.
_BY_TORCH: Final = {
    "torchscript": re.compile(rb"code/|constants\.pkl$"),
    "package": re.compile(rb"\.data/(extern_modules$|\d+\.storage$)"),
    "pt2": re.compile(rb"archive_(format|version)$|data/(weights|constants)/|serialized_exported_program\.json$"),
    "checkpoint": re.compile(rb"data\.pkl$"),
    "PyTorch": re.compile(rb"data/\d+$"),
}
_BY_TORCH_ALONE: Final = {
    "torchscript": re.compile(rb"constants\.pkl$"),
    "package": re.compile(rb"\.data/extern_modules$"),
    "pt2": re.compile(rb"archive_(format|version)$|serialized_exported_program\.json$"),
    "checkpoint": re.compile(rb"data\.pkl$"),
}
"""Names that nobody else gives."""


def kind_of(path: Path, *, inside: bool = True) -> str:
    """What the file at `path` is, as `vambrace.models.formats` names it; "" for what is no known model file.

    Args:
        path: the file.
        inside: whether members of zips are looked at; a zip that holds something that runs is "zip" then.
    """
    from vambrace.models.formats import identify

    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except (OSError, ValueError):  # whoever reads it says why
        return ""
    # Before anything is told from its name.
    found = ""
    if start.startswith(_NUMPY):
        found = _kind_of_start(start)
    elif not start.startswith(_MEMBER):
        try:
            found = identify(path).kind
        except ModelRefused as error:
            # A name that promises more safety than the content keeps: only pickles in disguise are refused so.
            found = "pickle" if error.code == "E202" else ""
    if found not in _DATA or not inside:
        return found
    # A zip may stand behind something else, such as a line that starts a program, or other data.
    return _kind_of_zip(path, start if start.startswith(_MEMBER) else b"") or found


def refuse_pickle(path: Path, kind: str, *, shown: str = "") -> None:
    """Refuse the file at `path` when opening it, in some tool or other, can run code.

    Args:
        path: the file.
        kind: what `kind_of` says of it.
        shown: how messages call it; "": its name.

    Raises:
        ArtifactRefused: E761.
    """
    if kind not in _DATA:
        raise _refused(f"{shown or path.name} is {_title(kind)}{_inside(path)}")


def start_without_pickle(stream: Stream) -> memoryview:
    """The first bytes of `stream`, 65,536 or all that there are, which are taken out of it and have to be sealed first.

    Raises:
        ArtifactRefused: E761, when they begin a file whose opening can run code.
        ResourceError: E604, when they cannot be read.
    """
    room = memoryview(bytearray(_START))
    start = room[: fill(stream, room)]
    kind = _kind_of_start(bytes(start))
    if kind not in _DATA:
        raise _refused(f"the stream begins as {_title(kind)}")
    return start


def _kind_of_start(start: bytes) -> str:
    from vambrace.models.formats import kind_of_start

    if start.startswith(_NUMPY):
        return "numpy" if _holds_objects(start) else ""
    if not start.startswith(_MEMBER):
        return kind_of_start(start) or ""
    return _kind_by(_members(start), alone=True)


def _kind_of_zip(path: Path, start: bytes) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        fd = file.fileno()
        if has_directory(fd):
            # Behind something else its directory is moved; else there are two, for two kinds of readers.
            return "zip" if start and is_moved(fd) else _kind_by(members(fd, _BEGINNING), alone=False)
    return _kind_of_start(start) if start else ""


def _kind_by(found: Iterable[tuple[bytes, bytes | None]], *, alone: bool) -> str:
    """What a zip is by its members, each with its first bytes, or None where these cannot be told.

    Args:
        found: the members.
        alone: whether names that others use as well are enough, where not all members are there.
    """
    kinds, sure, runs = set[str](), set[str](), False
    for name, begin in found:
        for tail in (name, name.partition(b"/")[2]):
            kinds |= {kind for kind, mark in _BY_TORCH.items() if mark.match(tail)}
            sure |= {kind for kind, mark in _BY_TORCH_ALONE.items() if mark.match(tail)}
        runs = runs or begin is None or (not begin.startswith(_MEMBER) and _kind_of_start(begin) not in _DATA)
    if not runs and not alone:
        kinds &= sure
    return next((kind for kind in _BY_TORCH if kind in kinds), "zip" if runs else "")


def _members(start: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """The members of a zip that begin here, by their mark, for torch tells their lengths behind them."""
    at = start.find(_MEMBER)
    while at >= 0:
        name, extra = (int.from_bytes(start[at + place : at + place + 2], "little") for place in (26, 28))
        flags, method = (int.from_bytes(start[at + place : at + place + 2], "little") for place in (6, 8))
        size = 2 * _BEGINNING if flags & _LATER else int.from_bytes(start[at + 18 : at + 22], "little")
        size = min(size, 2 * _BEGINNING)
        content = start[at + 30 + name + extra :][:size]
        begin = unpacked(method, iter([content] if content else []), _BEGINNING)
        # Of what begins just before the end of what is seen, a part tells nothing.
        if len(content) < size and method in {ZIP_STORED, ZIP_DEFLATED} and (begin is None or _is_part(begin)):
            begin = b""
        yield start[at + 30 : at + 30 + min(name, _LONGEST)], begin
        at = start.find(_MEMBER, at + 4)


def _holds_objects(start: bytes) -> bool:
    """Whether a NumPy file holds Python objects, which are a pickle; also where its header does not say."""
    at, length = _header_of(start)
    try:
        header = start[at : at + min(length, _HEADER)].decode("utf-8" if start[6:7] == b"\x03" else "latin-1")
        header = re.sub(r"([0-9])L\b", r"\1", header)  # as Python 2 wrote whole numbers
        return bool(np.lib.format.descr_to_dtype(ast.literal_eval(header.strip())["descr"]).hasobject)
    except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError):
        return True


def _header_of(start: bytes) -> tuple[int, int]:
    """Where the header of a NumPy file begins, and how long it is."""
    at = 10 if start[6:7] == b"\x01" else 12
    return at, int.from_bytes(start[8:at], "little")


def _is_part(start: bytes) -> bool:
    """Whether a NumPy file breaks off within its header."""
    return start.startswith(_NUMPY[: len(start)]) and len(start) < sum(_header_of(start.ljust(12, b"\0")))


_TITLES: Final = {
    "pickle": "a pickle, or compressed, as joblib's are",
    "numpy": "an array of Python objects, which is a pickle",
    "zip": "a zip with a pickle in it, or an array of Python objects, something compressed or a second directory",
}


def _title(kind: str) -> str:
    return _TITLES.get(kind, f"a {kind} file, which holds a pickle")


def _refused(seen: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E761",
        seen=seen,
        expected="a file that is data only, such as safetensors or ONNX",
        fix="convert it first, or allow pickles on purpose: allow_pickle=True, --allow-pickle",
    )


def _inside(path: Path) -> str:
    """What the pickle would import, where that can be told without opening it."""
    from vambrace.models.checkpoint import scan_checkpoint
    from vambrace.models.formats import identify

    try:
        form = identify(path)
        if form.is_executable:
            return ""
        foreign = sorted({str(name) for name in scan_checkpoint(path, form).foreign})
    except ModelRefused:
        return ""
    return f" that imports {', '.join(foreign[:5])}" if foreign else ""
