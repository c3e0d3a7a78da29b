"""What a model file is, told from its bytes; its name only ever makes the answer stricter.

    format        told by                                                      policy
    safetensors   8-byte length, then {                                        data: default
    onnx          a protobuf message that starts like one, or the name .onnx   data: default, checked further
    checkpoint    a zip as torch.save writes it, or its two older formats      torch.load(weights_only=True) only
    torchscript   a zip with code/                                             executable
    pt2           a zip with archive_format                                    executable
    package       a zip with .data/extern_modules                              executable
    pickle        a pickle that torch did not write (joblib among them)        executable

Executable formats are refused unless their hash is accepted (`vambrace.models.executable`). A file whose name
promises more safety than its content keeps (a pickle called .safetensors) is refused whatever it is.
"""

from __future__ import annotations

import contextlib
import errno
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from vambrace.errors import ModelRefused
from vambrace.models.old_pickles import uses_what_it_names

__all__ = ["Format", "HEAD", "Kind", "identify", "kind_of_start"]

Kind = Literal["safetensors", "onnx", "checkpoint", "legacy", "tar", "torchscript", "pt2", "package", "pickle"]

_TITLES: dict[Kind, str] = {
    "safetensors": "a safetensors file",
    "onnx": "an ONNX model",
    "checkpoint": "a PyTorch checkpoint (zip with a pickle)",
    "legacy": "a PyTorch checkpoint of the older format (pickle)",
    "tar": "a PyTorch checkpoint of the oldest format (tar with pickles)",
    "torchscript": "a TorchScript archive (it carries code)",
    "pt2": "a torch.export .pt2 archive (it carries pickles and may carry native code)",
    "package": "a torch.package archive (it carries code)",
    "pickle": "a pickle or joblib file (it runs code when opened)",
}
_DATA: frozenset[Kind] = frozenset({"safetensors", "onnx"})
_STATE: frozenset[Kind] = frozenset({"checkpoint", "legacy", "tar"})
_SAFE_NAMES = frozenset({".safetensors", ".onnx"})
_LEGACY = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # LONG1 with torch's magic number
# gzip, bzip2 with its first block or none, xz, lzma, lz4, zlib, and what joblib wrote before it took gzip's form.
_COMPRESSED = re.compile(
    rb"\x1f\x8b|BZh[1-9](1AY&SY|\x17rE8P\x90)|\xfd7zXZ|\x5d\x00|\x04\x22\x4d\x18|\x78[\x01\x5e\x9c\xda]"
    rb"|ZF[ \t\r\n\x0b\x0c+-]*(0[xX])?[0-9a-fA-F_]+[ \t\r\n\x0b\x0c]"  # as Python reads a number in base 16
)
_TEXT = re.compile(rb"x\^[\t\n\r\x20-\x7e\x80-\xff]*")
_KNOWN_OTHERS = {
    b"\x89HDF": "an HDF5 file (Keras)",
    b"TFL3": "a TensorFlow Lite model",
    b"ORTM": "an ONNX Runtime flatbuffer",
    b"GGUF": "a GGUF model",
    b"\x93NUMPY": "a NumPy array",
}
_OLD_PICKLE = re.compile(rb"\([dlt]p\d+\r?\n|[\]})]q[\x00-\x7f]")
_OLD_NAME = re.compile(rb"\(?[ci][\w.]+\r?\n[\w.]+\r?\n")
HEAD = 10_000
"""Bytes by which a format is told."""
_MOST_DIRECTORY = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What a file is.

    Attributes:
        kind: one of the table above.
        title: the same in words.
        members: names in the archive, for zips.
    """

    kind: Kind
    title: str
    members: tuple[str, ...] = ()

    @property
    def is_executable(self) -> bool:
        """Whether opening it runs what it carries."""
        return self.kind not in _DATA | _STATE


def identify(path: Path) -> Format:
    """Look at the content of `path`.

    Raises:
        ModelRefused: E200 when there is nothing to read, E201 for a format that is not known, E202 when the name
            promises more safety than the content keeps, E216 for a zip that cannot be read.
    """
    found = _identify(path)
    if path.suffix.lower() in _SAFE_NAMES and found.kind not in _DATA:
        raise ModelRefused(
            "E202",
            seen=f"{path.name} is {found.title}",
            expected=f"the data-only format that {path.suffix} promises",
            fix="rename the file to what it is if you made it; else do not open it",
        )
    return found


def kind_of_start(head: bytes) -> Kind | None:
    """What something that is no zip is by its first 10,000 bytes, fewer where it has fewer; None: nothing of these."""
    return _kind_of_head(head[:HEAD], 0, "")


def _identify(path: Path) -> Format:
    try:
        found = path.stat()
        size = found.st_size
        if not stat.S_ISREG(found.st_mode):  # models are read more than once
            raise OSError(errno.EINVAL, "no file, but a folder, pipe or device")
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ModelRefused(
            "E200",
            seen=f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error})",
            expected="a readable model file",
            fix="check the path; relative paths in a plan start at the plan's folder",
        ) from error
    if head.startswith(b"PK\x03\x04"):
        return _zip_format(path, size)
    kind = _kind_of_head(head, size, path.suffix.lower())
    if kind is None:
        other = _other(head, size)
        raise ModelRefused(
            "E201",
            seen=f"{path.name} is {other}",
            expected="safetensors, ONNX, or a PyTorch state dict",
            fix="export the model as one of these, such as safetensors.torch.save_file(net.state_dict(), path)",
        )
    return Format(kind=kind, title=_TITLES[kind])


def _kind_of_head(head: bytes, size: int, suffix: str) -> Kind | None:
    if len(head) >= 9 and head[8:9] == b"{" and (_small(head, size) or suffix == ".safetensors"):
        return "safetensors"
    if head[:1] == b"\x80" and _LEGACY in head[:26]:
        return "legacy"
    if _is_pickle(head, size) or (_COMPRESSED.match(head) and not _is_formula(head)):
        return "pickle"
    # ir_version comes first in what every exporter writes; its values are small.
    if (len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 64) or (suffix == ".onnx" and size > 0):
        return "onnx"
    if suffix == ".safetensors" and size > 0:
        return "safetensors"
    return "tar" if len(head) >= 64 and _looks_tar(head[:64]) else None


def _small(head: bytes, size: int) -> bool:
    return struct.unpack("<Q", head[:8])[0] <= max(size, 2**32)


def _is_pickle(head: bytes, size: int) -> bool:
    # Protocol 2 and up start with PROTO; 0 and 1 have no mark, only ways to begin.
    if (len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5) or _OLD_PICKLE.match(head):
        return True
    return _OLD_NAME.match(head) is not None and uses_what_it_names(head, whole=len(head) < HEAD, size=size)


def _is_formula(head: bytes) -> bool:
    """Whether what begins as zlib's streams may is a text, such as x^2 + y^2 = 1, and no pickle is packed into it."""
    if not _TEXT.fullmatch(head):
        return False
    unpacker, found = zlib.decompressobj(), b""
    with contextlib.suppress(zlib.error):
        for byte in head:  # one by one, for what comes before an error counts
            found += unpacker.decompress(bytes([byte]))
    return not _is_pickle(found[:HEAD], 0)


def _looks_tar(head: bytes) -> bool:
    name = head.rstrip(b"\x00")
    return name.rstrip(b"/") in {b"sys_info", b"pickle", b"storages", b"tensors"}


def _other(head: bytes, size: int) -> str:
    if size == 0:
        return "empty"
    for magic, title in _KNOWN_OTHERS.items():
        if head.startswith(magic) or head[4:].startswith(magic):
            return title
    return "of an unknown format"


def _zip_format(path: Path, size: int) -> Format:
    try:
        with path.open("rb") as stream:
            _check_directory(stream, size)
        with zipfile.ZipFile(path) as archive:
            names = tuple(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError, struct.error) as error:
        raise ModelRefused(
            "E216",
            seen=f"{path.name} is a zip that cannot be read ({error})",
            expected="a whole archive as torch.save writes it",
            fix="copy or download the file again, and compare its hash",
        ) from error
    tails = {name.partition("/")[2] for name in names}
    kind: Kind | None = None
    if any(tail.startswith("code/") for tail in tails) or "constants.pkl" in tails:
        kind = "torchscript"
    elif ".data/extern_modules" in tails:
        kind = "package"
    elif tails & {"archive_format", "archive_version"} or "serialized_exported_program.json" in {*names, *tails}:
        kind = "pt2"
    elif "data.pkl" in tails:
        kind = "checkpoint"
    if kind is None:
        shown = ", ".join(sorted(names)[:3])
        raise ModelRefused(
            "E201",
            seen=f"{path.name} is a zip that torch did not write (it holds {shown})",
            expected="safetensors, ONNX, or a PyTorch state dict",
            fix="give the model file itself, not an archive around it",
        )
    return Format(kind=kind, title=_TITLES[kind], members=names)


def _check_directory(stream: IO[bytes], size: int) -> None:
    """Cap the central directory before `zipfile` builds an object for every entry; raises `BadZipFile`."""
    stream.seek(max(0, size - 65_557))
    tail = stream.read(65_557)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("its end is missing: the file is cut off")
    length = struct.unpack_from("<I", tail, at + 12)[0]
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if wide >= 0 and len(tail) >= wide + 48:
        length = max(length * (length != 0xFFFFFFFF), struct.unpack_from("<Q", tail, wide + 40)[0])
    if length > _MOST_DIRECTORY:
        raise zipfile.BadZipFile(f"its directory has {length} bytes, at most {_MOST_DIRECTORY} are read")
