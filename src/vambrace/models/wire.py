"""Walk the wire format of a protobuf message without building it: is it whole, and how deep and how large is it?

A message of a few megabytes can nest until a parser's stack breaks, or hold millions of empty parts that each cost a
parser fifty times their size. This walk keeps one number a level and stops at the limits, so it bounds both before any
parser sees the bytes. Encoding: https://protobuf.dev/programming-guides/encoding/.

    >>> walk(bytes([0x0A, 2, 0x08, 1]), {1: {}})
    Shape(fields=2, messages=1, depth=2, top=frozenset({1}))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Broken", "Layout", "MOST_DEPTH", "MOST_FIELDS", "MOST_MESSAGES", "Shape", "TooLarge", "layout_of", "walk"]

MOST_DEPTH = 60
"""Messages inside messages. A subgraph is three of them; models of this world nest one to three subgraphs."""
MOST_FIELDS = 3_000_000
MOST_MESSAGES = 1_000_000
"""A model with 100,000 nodes has about 400,000 messages and a million fields; a parser takes 100 bytes for each."""

Layout = Mapping[int, "Layout"]
"""Which fields of a message hold messages, and their layouts; a layout may contain itself."""

_FIXED = {1: 8, 5: 4}


class Broken(ValueError):
    """The bytes are no whole message."""


class TooLarge(ValueError):
    """The message is nested too deeply or has too many parts."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a walk found.

    Attributes:
        fields: how many there are, at all levels.
        messages: how many of them are messages.
        depth: levels of messages.
        top: field numbers of the outermost message.
    """

    fields: int
    messages: int
    depth: int
    top: frozenset[int]


def layout_of(descriptor: Any) -> Layout:  # noqa: ANN401  a protobuf descriptor; the package is optional
    """The layout that a protobuf message descriptor declares, so that it cannot grow stale."""
    messages = list(_messages(descriptor))
    known: dict[str, dict[int, Layout]] = {message.full_name: {} for message in messages}
    for message in messages:
        known[message.full_name] |= {field.number: known[field.message_type.full_name] for field in _inner(message)}
    return known[descriptor.full_name]


def walk(data: bytes, layout: Layout) -> Shape:
    """Visit every field of a message.

    Args:
        data: the encoded message.
        layout: which fields are messages themselves; all others are stepped over.

    Raises:
        Broken: where a field is cut off, reaches beyond its message, or has a wire type of no use here (groups).
        TooLarge: beyond `MOST_DEPTH`, `MOST_FIELDS` or `MOST_MESSAGES`.
    """
    at = fields = messages = 0
    deepest = 1
    end, inner = len(data), layout
    open_messages: list[tuple[int, Layout]] = []
    top: set[int] = set()
    try:
        while True:
            while at == end:
                if not open_messages:
                    return Shape(fields, messages, deepest, frozenset(top))
                end, inner = open_messages.pop()
            tag = data[at]
            at += 1
            if tag >= 0x80:
                tag, at = _varint(data, at - 1)
            fields += 1
            if fields > MOST_FIELDS:
                raise TooLarge(f"more than {MOST_FIELDS} parts")
            number, kind = tag >> 3, tag & 7
            if not open_messages:
                top.add(number)
            if number == 0:
                raise Broken(f"field number 0 at byte {at}")
            if kind == 2:
                length = data[at]
                at += 1
                if length >= 0x80:
                    length, at = _varint(data, at - 1)
                if at + length > end:
                    raise Broken(f"a part of {length} bytes at byte {at}, beyond the end of its message at {end}")
                below = inner.get(number)
                if below is None:
                    at += length
                    continue
                messages += 1
                if messages > MOST_MESSAGES:
                    raise TooLarge(f"more than {MOST_MESSAGES} messages")
                open_messages.append((end, inner))
                end, inner = at + length, below
                deepest = max(deepest, len(open_messages) + 1)
                if deepest > MOST_DEPTH:
                    raise TooLarge(f"nested more than {MOST_DEPTH} levels deep")
                continue
            if kind == 0:
                while data[at] >= 0x80:
                    at += 1
                at += 1
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                raise Broken(f"wire type {kind} at byte {at}")
            if at > end:
                raise Broken(f"a value that is cut off at byte {end}")
    except IndexError as error:
        raise Broken(f"a value that is cut off at byte {len(data)}") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise Broken(f"a number of more than 64 bits at byte {at}")


def _inner(message: Any) -> list[Any]:  # noqa: ANN401
    return [field for field in message.fields if field.message_type is not None]


def _messages(descriptor: Any) -> Iterator[Any]:  # noqa: ANN401
    """Every message type that can occur inside a message, itself first."""
    seen: set[str] = set()
    waiting = [descriptor]
    while waiting:
        message = waiting.pop()
        if message.full_name not in seen:
            seen.add(cast("str", message.full_name))
            yield message
            waiting += [field.message_type for field in _inner(message)]
