"""ONNX files, read and checked before any runtime sees them: walked for depth and size, parsed, every tensor looked at.

The only file that imports onnx. Checks are those of `vambrace.models.wire` and `vambrace.models.external`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from vambrace.core.extras import require
from vambrace.core.reason import reason
from vambrace.errors import ModelRefused
from vambrace.models.external import check_domains, external_tensors, inline, map_files
from vambrace.models.wire import Broken, TooLarge, layout_of, walk

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

__all__ = [
    "Checked",
    "MOST_BYTES",
    "check_onnx",
    "file_bytes",
    "onnx_package",
    "parse_onnx",
    "read_onnx",
    "refuse",
    "refuse_locked",
    "weight_files",
]

MOST_BYTES = 2**31 - 1
"""The most a protobuf message can hold; larger models keep their weights in other files."""

_LOCKED = "vambrace.lock"  # the entry that `vambrace.assets.obfuscate.locking` writes
_GRAPH = 7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checked:
    """A model file that was read and checked.

    Attributes:
        name: of the file, for messages.
        model: the onnx.ModelProto.
        data: the bytes of the file, or None where tensors of other files were moved into the model.
        files: external files by location; initializers of the main graph may lie there.
        sha256: of the file and its external files.
    """

    name: str
    model: Any
    data: bytes | None
    files: dict[str, mmap.mmap | bytes]
    sha256: str


def onnx_package() -> Any:  # noqa: ANN401  a module has no narrower type
    """The package onnx, or MissingExtra E112."""
    return require("onnx", extra="onnx")


def read_onnx(path: Path, *, whole: bool = False) -> Checked:
    """Read and check a model file and what it keeps in other files; nothing runs.

    Args:
        path: an .onnx file.
        whole: move the initializers of the main graph into the model as well, so that `files` is of no use.

    Raises:
        MissingExtra: E112, without the extra.
        ModelRefused: E200, for a path where nothing can be read; E230 to E235, as `load_onnx`.
    """
    # A link to the model is the user's own choice; what counts is the folder he named.
    return check_onnx(file_bytes(path), path.name, folder=path.parent, whole=whole)


def weight_files(path: Path) -> list[Path]:
    """Other files in which a model says that its tensors lie, whether they are there or not; none of them is opened.

    Raises:
        MissingExtra: E112, without the extra.
        ModelRefused: E200, E230 to E232, E234, as `read_onnx`.
    """
    model = parse_onnx(file_bytes(path), path.name)
    return sorted({path.parent / each.location for each in external_tensors(model, path.name)})


def file_bytes(path: Path) -> bytes:
    """What stands in a model file.

    Raises:
        ModelRefused: E200, for a path where nothing can be read; E231, for more than a message can hold.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            refuse("E231", path.name, f"has {size} bytes", "at most 2 GiB, with larger weights in other files")
        return path.read_bytes()
    except ModelRefused:  # a ValueError as well
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ModelRefused(
            "E200",
            seen=f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error})",
            expected="a readable model file",
            fix="check the path",
        ) from error


def check_onnx(data: bytes, name: str, *, folder: Path | None = None, whole: bool = False) -> Checked:
    """The same for the bytes of a model file; without a `folder`, no tensor may lie in another file.

    Raises:
        MissingExtra: E112, without the extra.
        ModelRefused: E230 to E235, as `load_onnx`.
    """
    model = parse_onnx(data, name)
    check_domains(model, name)
    tensors = external_tensors(model, name)
    if tensors and folder is None:
        refuse("E232", name, "keeps tensors in other files", "a model that is one file")
    files = {} if folder is None else map_files(tensors, folder, name)
    digest = hashlib.sha256(data)
    for location in sorted(files):
        digest.update(location.encode() + b"\0" + hashlib.sha256(files[location]).digest())
    moved = inline(model, tensors, files, whole=whole)
    return Checked(name=name, model=model, data=None if moved else data, files=files, sha256=digest.hexdigest())


def refuse_locked(model: Any, name: str) -> None:  # noqa: ANN401
    """Refuse a model whose weights a key put out of order: it runs, and computes something else.

    Raises:
        ModelRefused: E855.
    """
    if any(each.key == _LOCKED for each in model.metadata_props):
        raise ModelRefused(
            "E855",
            seen=f"{name} is locked: without its key it is another model",
            expected="a model in order",
            fix="vambrace.assets.obfuscate.load_model(path, key=...), or `vambrace unlock` first",
        )


def parse_onnx(data: bytes, name: str) -> Any:  # noqa: ANN401
    """The onnx.ModelProto in some bytes, walked for depth and size before it is built; `name` is for messages.

    Raises:
        ModelRefused: E230 no ONNX or cut off; E231 too large or nested too deeply.
    """
    onnx = onnx_package()
    try:
        shape = walk(data, layout_of(onnx.ModelProto.DESCRIPTOR))
        if _GRAPH not in shape.top:
            refuse("E230", name, "has no graph", "an ONNX model")
        return onnx.ModelProto.FromString(data)
    except ModelRefused:
        raise
    except TooLarge as error:
        refuse("E231", name, f"is {error}", "a model of ordinary depth and size")
    except Broken as error:
        refuse("E230", name, f"is no whole ONNX model ({error})", "an ONNX model")
    except Exception as error:  # protobuf's DecodeError, without importing protobuf for its name
        refuse("E230", name, f"is no ONNX model ({reason(error)})", "an ONNX model")


def refuse(code: str, name: str, seen: str, expected: str, fix: str = "") -> NoReturn:
    """Raise ModelRefused about the file `name`."""
    raise ModelRefused(
        code,
        seen=f"{name} {seen}",
        expected=expected,
        fix=fix or "export the model again with torch.onnx.export, and copy it whole",
    )
