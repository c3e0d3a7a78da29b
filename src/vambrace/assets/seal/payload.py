"""What is about to be sealed: files that run code when they are opened are found before the seal hides them.

A seal says that the bytes are as they were sealed. It does not make a pickle safe, and nobody can look at it before
opening it; so whoever seals one has to say that this is meant.

A stream is looked at where it begins, since it cannot be read twice: the same marks of pickles as in a file, and of a
zip the members whose headers stand there. What comes later, the zip's own directory at its end too, is not seen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from vambrace.assets.seal.source import fill
from vambrace.errors import ArtifactRefused, ModelRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vambrace.assets.seal.source import Stream

__all__ = ["kind_of", "refuse_pickle", "start_without_pickle"]

_DATA: Final = frozenset({"", "safetensors", "onnx"})
_START: Final = 2**16
_MEMBER: Final = b"PK\x03\x04"
_LONGEST: Final = 256  # bytes of a name that are looked at: a hostile start names thousands
# What the members of an archive by torch are called, below its one folder. With large weights first, as TorchScript has
# them, no name that tells the kinds apart need be among the first; and all of them hold pickles.
_BY_TORCH: Final = {
    "torchscript": re.compile(rb"code/|constants\.pkl$"),
    "package": re.compile(rb"\.data/(extern_modules$|\d+\.storage$)"),
    "pt2": re.compile(rb"archive_(format|version)$|data/(weights|constants)/|serialized_exported_program\.json$"),
    "checkpoint": re.compile(rb"data\.pkl$"),
    "PyTorch": re.compile(rb"data/\d+$"),
}


def kind_of(path: Path) -> str:
    """What the file at `path` is, as `vambrace.models.formats` names it; "" for what is no known model file."""
    from vambrace.models.formats import identify

    try:
        return identify(path).kind
    except ModelRefused as error:
        # A name that promises more safety than the content keeps: only pickles in disguise are refused so.
        return "pickle" if error.code == "E202" else ""


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
    if not start.startswith(_MEMBER):
        from vambrace.models.formats import kind_of_start

        return kind_of_start(start) or ""
    below = [tail for name in _members(start) for tail in (name, name.partition(b"/")[2])]
    return next((kind for kind, mark in _BY_TORCH.items() if any(map(mark.match, below))), "")


def _members(start: bytes) -> Iterator[bytes]:
    """The names of the members of a zip that begin here: by their mark, for torch tells their lengths behind them."""
    at = start.find(_MEMBER)
    while at >= 0:
        length = int.from_bytes(start[at + 26 : at + 28], "little")
        yield start[at + 30 : at + 30 + min(length, _LONGEST)]
        at = start.find(_MEMBER, at + 4)


def _title(kind: str) -> str:
    return "a pickle, or compressed, as joblib's are" if kind == "pickle" else f"a {kind} file, which holds a pickle"


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
