"""What a sealed file says about its content: some of it to everybody, the rest to those who can open it.

    >>> fault({"licence": "CC-BY-4.0", "expires": "2030-01-01T00:00:00Z"})
    ''
    >>> fault({"expires": "tomorrow"})
    'expires is not a date as 2030-01-31T23:59:59Z'

Both parts are authenticated: docs/formats/sealed-v1.md, "Header".
"""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from cryptography.exceptions import InvalidTag

from vambrace.assets.seal.refusals import contradictory, damaged_header
from vambrace.assets.seal.suites import NONCE_BYTES, TAG_BYTES, aead
from vambrace.core import canonical
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.seal.schedule import FileKeys
    from vambrace.assets.seal.suites import Suite

__all__ = ["Description", "canonical_object", "expiry", "fault", "open_private", "seal_private"]

Content = Literal["bytes", "folder", "tensors"]
CONTENTS: Final[tuple[Content, ...]] = get_args(Content)
MOST_SIZE: Final = 2**53  # what JSON numbers hold exactly; the format's chunks reach a little further
_DEEPEST: Final = 8
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The private description.

    Attributes:
        content: what the bytes are: any bytes, a safetensors file, or a folder.
        size: bytes of the content; None where it was not known when writing began.
        metadata: JSON data; `expires`, `licence` and `provenance` have a meaning.
    """

    content: Content
    size: int | None
    metadata: Mapping[str, Any]


def fault(data: object) -> str:
    """Why `data` cannot be public or private metadata, in words; "" when it can."""
    if not isinstance(data, dict):
        return "it is not an object"
    metadata = cast("dict[object, object]", data)
    if found := _not_json(metadata, _DEEPEST):
        return found
    if "expires" in metadata and _date(metadata["expires"]) is None:
        return "expires is not a date as 2030-01-31T23:59:59Z"
    if not isinstance(metadata.get("licence", ""), str):
        return "licence is not text"
    if not isinstance(metadata.get("provenance", {}), dict):
        return "provenance is not an object"
    return ""


def expiry(*metadata: Mapping[str, Any]) -> datetime | None:
    """The earliest `expires` of checked metadata, UTC; None where there is none."""
    dates = (_date(each["expires"]) for each in metadata if "expires" in each)
    return min((date for date in dates if date is not None), default=None)


def canonical_object(text: bytes) -> dict[str, Any] | None:
    """The object that `text` spells in canonical JSON; None for anything else."""
    try:
        data = canonical.loads(text)
        if isinstance(data, dict) and canonical.dumps(cast("object", data)) == text:
            return cast("dict[str, Any]", data)
    except (ValueError, RecursionError):  # ConfigError, of what cannot be written again, is a ValueError
        pass
    return None


def seal_private(description: Description, keys: FileKeys, suite: Suite, head: bytes) -> bytes:
    """The description, encrypted under a file's keys; `head` is the header's first 80 bytes.

    Raises:
        ConfigError: E714, for what a description cannot hold.
    """
    data = dataclasses.asdict(description)
    if found := _description_fault(data):
        raise ConfigError(
            "E714",
            seen=f"a description that cannot be stored: {found}",
            expected="a known kind of content, a size, and metadata of text, numbers, booleans, lists and objects",
            fix="mend the description",
        )
    plain = canonical.dumps(data)
    out = bytearray(len(plain) + TAG_BYTES)
    aead(suite, keys.private).seal_into(bytes(NONCE_BYTES), plain, head, out)
    return bytes(out)


def open_private(sealed: bytes, keys: FileKeys, suite: Suite, head: bytes) -> Description:
    """The inverse of `seal_private`.

    Raises:
        ArtifactRefused: E702, when it was not encrypted under these keys; E711, when it is no description.
    """
    plain = bytearray(max(0, len(sealed) - TAG_BYTES))
    try:
        aead(suite, keys.private).open_into(bytes(NONCE_BYTES), sealed, head, plain)
    except InvalidTag:
        raise damaged_header("a private description that is not authentic", "the one that was written") from None
    data = canonical_object(bytes(plain))
    if data is None:
        raise contradictory("a private description that is no object of canonical JSON", "canonical JSON (RFC 8785)")
    if found := _description_fault(data):
        raise contradictory(f"a private description that cannot be: {found}", "content, size and metadata")
    return Description(**data)


def _description_fault(data: Mapping[str, object]) -> str:
    if set(data) != {"content", "metadata", "size"}:
        return "its keys are not content, metadata and size"
    if data["content"] not in CONTENTS:
        return f"its content is none of {', '.join(CONTENTS)}"
    size = data["size"]
    if size is not None and (type(size) is not int or not 0 <= size <= MOST_SIZE):
        return "its size is not a number of bytes"
    found = fault(data["metadata"])
    return found and f"metadata: {found}"


def _not_json(value: object, deeper: int) -> str:
    if value is None or isinstance(value, str | int | float):
        return ""
    if not isinstance(value, dict | list):
        return f"it holds a {type(value).__name__}"
    if not deeper:
        return f"it is more than {_DEEPEST} deep"
    inside = value if isinstance(value, list) else value.values()  # pyright: ignore[reportUnknownVariableType]
    return next(filter(None, (_not_json(each, deeper - 1) for each in cast("list[object]", inside))), "")


def _date(value: object) -> datetime | None:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return None
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
