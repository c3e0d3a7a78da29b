"""Read safetensors after checking every promise of its header ourselves; only then the library opens the file.

The format is 8 bytes of length, a JSON header, and a buffer (https://github.com/huggingface/safetensors#format). It is
data only, but a header can still lie: overlapping tensors read each other's bytes, holes hide other files, one name
twice means two different networks to two readers. Each lie has its own sentence.

    >>> parse_header(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8)
    {'w': Entry(dtype='F32', shape=(2,), begin=0, end=8)}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, NoReturn, cast

from vambrace.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

__all__ = ["Entry", "MOST_HEADER", "parse_header", "read_header", "read_safetensors", "shape_fault"]

MOST_HEADER = 8 * 2**20
"""Bytes; room for about 80,000 tensors. JSON takes many times its size in memory, so the cap comes before parsing."""

_MOST_DIMENSIONS = 64  # more are too many for most of what torch does
_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
    "C64": 8,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as the header describes it; `begin` and `end` are bytes in the buffer."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checked file, on the CPU.

    Raises:
        ModelRefused: E220 to E223, see `parse_header`.
    """
    entries = read_header(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        _refuse("E221", f"what the library cannot read ({error})", "a file the safetensors library reads", path.name)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {name: entry.shape for name, entry in entries.items()}:
        _refuse("E221", "a header that two readers understand differently", "one meaning", path.name)
    return tensors


def read_header(path: Path) -> dict[str, Entry]:
    """The checked header of the file at `path`; reads nothing else."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            seen = f"a header of {length} bytes in a file of {size}" if len(start) == 8 else f"a file of {size} bytes"
            _refuse("E220", seen, "a whole header: 8 bytes of length, then that many bytes", path.name)
        if length > MOST_HEADER:
            _refuse("E220", f"a header of {length} bytes", f"at most {MOST_HEADER}", path.name)
        header = stream.read(length)
    return parse_header(header, size - 8 - length, path.name)


def parse_header(header: bytes, buffer: int, name: str = "the file") -> dict[str, Entry]:
    """The tensors that a header describes, in the order of the buffer.

    Args:
        header: the JSON text.
        buffer: bytes that follow it.
        name: of the file, for messages.

    Raises:
        ModelRefused: E221 no JSON object, a name twice, or unknown keys; E222 a dtype or shape that cannot be or does
            not fit its bytes; E223 tensors that overlap, leave holes, or end before or behind the buffer.
    """
    entries: dict[str, Entry] = {}
    for tensor, fields in _parse_json(header, name).items():
        if tensor == "__metadata__":
            if not isinstance(fields, dict) or {type(text) for text in _values(cast("object", fields))} - {str}:
                _refuse("E221", "metadata that is not text", "an object of strings under __metadata__", name)
            continue
        entries[tensor] = _entry(tensor, fields, name)
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_cover(ordered, buffer, name)
    return ordered


def _parse_json(header: bytes, name: str) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            _refuse("E221", f"the key {_shown(twice)} twice", "every name once", name)
        return found

    def no_number(text: str) -> NoReturn:
        _refuse("E221", f"the number {text[:20]} in the header", "whole numbers only", name)

    if header[:1] != b"{":
        _refuse("E221", f"a header that starts with {header[:8]!r}", "a JSON object", name)
    try:
        parsed = json.loads(
            header.decode("utf-8"), object_pairs_hook=unique, parse_float=no_number, parse_constant=no_number
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelRefused):
            raise
        _refuse("E221", f"a header that is no JSON ({str(error)[:100]})", "a JSON object", name)
    return cast("dict[str, object]", parsed)


def _entry(tensor: str, fields: object, name: str) -> Entry:
    if not isinstance(fields, dict) or set(cast("dict[str, object]", fields)) != {"dtype", "shape", "data_offsets"}:
        _refuse("E221", f"tensor {_shown(tensor)} with other keys", "dtype, shape and data_offsets, no more", name)
    described = cast("dict[str, object]", fields)
    dtype, shape, offsets = described["dtype"], _naturals(described["shape"]), _naturals(described["data_offsets"])
    if not isinstance(dtype, str) or dtype not in _BYTES:
        _refuse("E222", f"tensor {_shown(tensor)} of dtype {_shown(dtype)}", f"one of {', '.join(_BYTES)}", name)
    fault = "sizes that are whole numbers from 0 on" if shape is None else shape_fault(shape)
    if shape is None or fault:
        _refuse("E222", f"tensor {_shown(tensor)} of shape {_shown(described['shape'])}", fault, name)
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse("E223", f"tensor {_shown(tensor)} at {_shown(described['data_offsets'])}", "a begin and an end", name)
    begin, end = offsets
    if prod(shape) * _BYTES[dtype] != end - begin:
        seen = f"tensor {_shown(tensor)}: {dtype} of shape {_shown(list(shape))} in {end - begin} bytes"
        _refuse("E222", seen, "as many bytes as dtype and shape need", name)
    return Entry(dtype, shape, begin, end)


def shape_fault(shape: Sequence[int]) -> str:
    """What a shape has to be that cannot be read; "" for one that can."""
    if len(shape) > _MOST_DIMENSIONS:
        return f"at most {_MOST_DIMENSIONS} sizes"
    # Torch counts steps between places as if a size of 0 were one of 1.
    if prod(max(1, size) for size in shape) >= 2**63:
        return "sizes whose product, those of 0 left out, stays below 2^63"
    return ""


def _check_cover(ordered: dict[str, Entry], buffer: int, name: str) -> None:
    places = [("the start", Entry("", (), 0, 0)), *ordered.items(), ("the end", Entry("", (), buffer, buffer))]
    for (before, left), (after, right) in pairwise(places):
        if right.begin < left.end:
            kind = "lies behind the end of the file" if after == "the end" else f"overlaps tensor {_shown(after)}"
            _refuse("E223", f"tensor {_shown(before)} {kind}", "each byte used by one tensor", name)
        if right.begin > left.end:
            seen = f"{right.begin - left.end} unused bytes between {_shown(before)} and {_shown(after)}"
            _refuse("E223", seen, "no holes: they could hide another file", name)


def _naturals(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = cast("list[object]", value)
    # bool is an int to Python, but not to the format; sizes above 2**63 are no sizes.
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        return None
    return tuple(cast("list[int]", numbers))


def _values(fields: object) -> list[object]:
    return list(cast("dict[str, object]", fields).values())


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "something nested very deeply"
    return text if len(text) <= 80 else text[:80] + "..."


def _refuse(code: str, seen: str, expected: str, name: str) -> NoReturn:
    raise ModelRefused(
        code,
        seen=f"{name} has {seen}" if not seen.startswith("tensor ") else f"in {name}, {seen}",
        expected=expected,
        fix="save the weights again with safetensors.torch.save_file, or get the file again from its source",
    )
