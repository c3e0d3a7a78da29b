"""Tensors that an ONNX model keeps in other files: found everywhere, checked and mapped; the runtime opens nothing.

External data has been a way to read any file of the machine (CVE-2022-25882, CVE-2024-27318, CVE-2026-34446). So each
location must be a plain relative path to a regular file inside the model's own folder, reached over no link, with no
other name (hard link), and the bytes asked for must lie in it and be as many as the tensor needs. The checked,
open file is handed to the runtime as memory under the location's name.

The walk is over the parsed message and knows no place where tensors may stand: it visits every message there is.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from vambrace.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["External", "check_domains", "external_tensors", "inline", "map_files"]

_KEYS = frozenset({"location", "offset", "length", "checksum"})
# Bits of each TensorProto.DataType that may lie outside; strings (8) may not.
_OF_BITS = {
    4: (21, 22, 23),
    8: (2, 3, 9, 17, 18, 19, 20),
    16: (4, 5, 10, 16),
    32: (1, 6, 12),
    64: (7, 11, 13, 14),
    128: (15,),
}
_BITS = {kind: bits for bits, kinds in _OF_BITS.items() for kind in kinds}
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_MOST_FILES = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class External:
    """One tensor in another file.

    Attributes:
        message: the TensorProto.
        location: path of the file from the model's folder.
        offset, length: its bytes there.
    """

    message: Any
    location: str
    offset: int
    length: int


def _messages(model: Any) -> Iterator[Any]:  # noqa: ANN401  protobuf messages; the package is optional
    """Every message inside a message, itself first, without recursion."""
    names: dict[str, list[str]] = {}
    waiting = [model]
    while waiting:
        message = waiting.pop()
        yield message
        kind = message.DESCRIPTOR
        if kind.full_name not in names:
            names[kind.full_name] = [field.name for field in kind.fields if field.message_type is not None]
        for name in names[kind.full_name]:
            value = getattr(message, name)
            if not hasattr(value, "DESCRIPTOR"):
                waiting.extend(value)  # repeated
            elif message.HasField(name):
                waiting.append(value)


def external_tensors(model: Any, name: str) -> list[External]:  # noqa: ANN401
    """All tensors of a parsed model that lie in other files, wherever they stand.

    Args:
        model: an onnx.ModelProto.
        name: of the file, for messages.

    Raises:
        ModelRefused: E232 for a location that is no plain path, E234 for sizes that cannot be.
    """
    return [
        _read(message, name)
        for message in _messages(model)
        if message.DESCRIPTOR.name == "TensorProto" and (message.external_data or message.data_location)
    ]


def check_domains(model: Any, name: str) -> None:  # noqa: ANN401
    """Refuse operators that are neither ONNX's own nor defined by functions inside the model.

    Raises:
        ModelRefused: E235, naming the operator.
    """
    own = {(function.domain, function.name) for function in model.functions}
    for message in _messages(model):
        if message.DESCRIPTOR.name == "NodeProto" and message.domain not in _DOMAINS:
            if (message.domain, message.op_type) in own:
                continue
            raise ModelRefused(
                "E235",
                seen=f"{name} uses the custom operator {message.domain[:80]}:{message.op_type[:80]}",
                expected="operators of ONNX itself (domains ai.onnx and ai.onnx.ml)",
                fix="export again to plain ONNX operators, before any runtime-specific optimisation or quantisation",
            )


def inline(
    model: Any,  # noqa: ANN401
    tensors: Iterable[External],
    files: Mapping[str, mmap.mmap | bytes],
    *,
    whole: bool = False,
) -> bool:
    """Move external tensors into the model, save for the initializers of its main graph, and say whether any was moved.

    Those initializers are moved too where the `whole` model is to be one message.

    Runtimes take those initializers from memory under their file's name; for other places (constants in subgraphs and
    functions, sparse tensors) some of them open the file themselves.
    """
    kept = list(model.graph.initializer)  # held, so that no other object takes one of their ids
    main = {id(tensor) for tensor in kept}
    moved = False
    for tensor in tensors:
        if whole or id(tensor.message) not in main:
            tensor.message.raw_data = files[tensor.location][tensor.offset : tensor.offset + tensor.length]
            tensor.message.ClearField("external_data")
            tensor.message.ClearField("data_location")
            moved = True
    return moved


def map_files(tensors: Iterable[External], folder: Path, name: str) -> dict[str, mmap.mmap | bytes]:
    """The checked files by location, mapped read-only.

    Raises:
        ModelRefused: E232 for what lies outside the folder or does not exist, E233 for links, E234 for bytes that are
            not there.
    """
    files: dict[str, mmap.mmap | bytes] = {}
    for tensor in tensors:
        if tensor.location not in files:
            if len(files) >= _MOST_FILES:
                _refuse("E234", f"more than {_MOST_FILES} external files", "fewer files", name)
            files[tensor.location] = _open(folder, tensor.location, name)
        size = len(files[tensor.location])
        if tensor.offset + tensor.length > size:
            seen = (
                f"tensor {tensor.message.name[:80]!r} at bytes {tensor.offset} to {tensor.offset + tensor.length} of "
            )
            _refuse("E234", f"{seen}{tensor.location}, which has {size}", "bytes inside the file", name)
    return files


def _read(tensor: Any, name: str) -> External:  # noqa: ANN401
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    keys = [key for key, _ in entries]
    found = dict(entries)
    title = f"tensor {tensor.name[:80]!r}"
    if not all(isinstance(each, str) for pair in entries for each in pair):  # protobuf gives bytes that are no UTF-8 so
        _refuse("E232", f"{title} with external entries that are no text", "text in UTF-8", name)
    if len(found) < len(entries) or not set(keys) <= _KEYS or tensor.data_location != 1 or "location" not in found:
        _refuse("E232", f"{title} with the external entries {keys}", "one location, offset and length", name)
    _check_location(found["location"], title, name)
    if tensor.data_type not in _BITS:
        _refuse("E234", f"{title} of data type {tensor.data_type} outside the model", "numbers", name)
    sizes = [int(size) for size in tensor.dims]
    if any(size < 0 for size in sizes):
        _refuse("E234", f"{title} of shape {sizes}", "no negative size", name)
    needed = -(-math.prod(sizes) * _BITS[tensor.data_type] // 8)
    length = _natural(found.get("length"), needed, title, name)
    if length != needed:
        _refuse("E234", f"{title} of {needed} bytes, with {length} stored", "as many bytes as its shape needs", name)
    return External(
        message=tensor,
        location=found["location"],
        offset=_natural(found.get("offset"), 0, title, name),
        length=length,
    )


def _natural(text: str | None, otherwise: int, title: str, name: str) -> int:
    if text is None:
        return otherwise
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        _refuse("E234", f"{title} with the offset or length {text[:40]!r}", "a whole number", name)
    return int(text)


def _check_location(location: str, title: str, name: str) -> None:
    """Plain relative POSIX paths only. The asterisk belongs to a marker by which runtimes are handed raw memory."""
    path = PurePosixPath(location)
    wrong = (
        not location
        or len(location) > 1024
        or any(character in location for character in "\\:*\0")
        or path.is_absolute()
        or ".." in path.parts
        or not path.parts
        or str(path) != location
    )
    if wrong:
        seen = f"{title} in {location[:120]!r}, outside the model's folder"
        _refuse("E232", seen, "a plain file name or a path below that folder", name)


def _open(folder: Path, location: str, name: str) -> mmap.mmap | bytes:
    """Open without following a link at any step, then check what was opened."""
    place = folder
    for part in PurePosixPath(location).parts:
        place /= part
        if place.is_symlink():
            _refuse("E233", f"external data {location[:120]!r} behind a symbolic link", "a file of its own", name)
    try:
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        _refuse(
            "E232", f"external data {location[:120]!r} that cannot be read ({why})", "a file beside the model", name
        )
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            _refuse("E233", f"external data {location[:120]!r} that is no regular file", "a regular file", name)
        if state.st_nlink > 1:
            _refuse("E233", f"external data {location[:120]!r} that has {state.st_nlink} hard links", "one name", name)
        if not place.resolve().is_relative_to(folder.resolve()):
            _refuse("E232", f"external data {location[:120]!r}, outside the model's folder", "a file inside it", name)
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if state.st_size else b""
    finally:
        os.close(descriptor)


def _refuse(code: str, seen: str, expected: str, name: str) -> NoReturn:
    raise ModelRefused(
        code,
        seen=f"{name} has {seen}",
        expected=expected,
        fix="save the model with its weights inside (onnx.save without external data), "
        "or put the original data file beside it",
    )
