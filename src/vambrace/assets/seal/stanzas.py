"""Stanzas, the header's record of one recipient: what each kind holds, and what a reader will not do for it.

Everything here looks and computes nothing: a header that asks for a year of password hashing is refused before the
first one begins. Kinds that this release does not know are passed over (docs/formats/sealed-v1.md, Recipients).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from vambrace.errors import ArtifactRefused

__all__ = ["check_bounds", "decode", "encode", "label", "of_kind", "work"]

Stanza = Mapping[str, object]

FILE_KEY: Final = 32
BINDING: Final = "vambrace-binding"  # the key under which a KMS is told the file's binding
PASSPHRASES: Final = ("argon2id", "scrypt")
MAX_PASSPHRASES: Final = 4
MAX_WORK: Final = 6_291_456  # KiB times passes, over all stanzas
MEMORY_KIB: Final = (8_192, 2_097_152)
PASSES: Final = (1, 16)
LANES: Final = (1, 16)
LOG_N: Final = (10, 20)
P: Final = (1, 16)

_HINT = re.compile("[0-9a-f]{16}")


def encode(data: bytes) -> str:
    """Base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode()


def decode(text: object) -> bytes | None:
    """The bytes of base64 in its one spelling; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    return data if encode(data) == text else None


def label(kind: str, binding: bytes) -> bytes:
    """What a wrapped file key is bound to: the kind of recipient, and the file (`binding`, 32 bytes)."""
    if len(binding) != 32:
        raise ValueError(f"a binding has 32 bytes, not {len(binding)}")
    return f"vambrace-sealed/1 {kind} ".encode() + binding


def work(stanza: Stanza) -> int:
    """What the password hashing of a checked stanza costs, in KiB times passes; 0 for kinds without any."""
    number = cast("Mapping[str, int]", stanza)
    match stanza["type"]:
        case "argon2id":
            return number["memory_kib"] * number["passes"]
        case "scrypt":
            return 2 ** number["log_n"] * number["r"] * number["p"] // 8
        case _:
            return 0


def check_bounds(stanzas: Sequence[Stanza]) -> None:
    """Look at all the recipients of a header before anything is computed for one of them.

    Args:
        stanzas: the header's `recipients`, JSON data.

    Raises:
        ArtifactRefused: E725, for a stanza of a known kind with a field missing, added or malformed; E726, for password
            hashing beyond a bound.
    """
    for number, stanza in enumerate(stanzas, 1):
        _check(number, stanza)
    hashed = [stanza for stanza in stanzas if stanza["type"] in PASSPHRASES]
    if len(hashed) > MAX_PASSPHRASES:
        raise _beyond(f"{len(hashed)} passphrase recipients", f"at most {MAX_PASSPHRASES}")
    if (total := sum(map(work, hashed))) > MAX_WORK:
        raise _beyond(f"password hashing of {total} KiB times passes", f"at most {MAX_WORK} over all recipients")


def of_kind(stanzas: Sequence[Stanza], *kinds: str, hint: str = "") -> list[Mapping[str, str]]:
    """The stanzas of these kinds, those whose `id` is `hint` first; all are checked (`check_bounds`) before.

    Fields that are whole numbers are so whatever the type says.
    """
    check_bounds(stanzas)
    found = [cast("Mapping[str, str]", stanza) for stanza in stanzas if stanza["type"] in kinds]
    return sorted(found, key=lambda stanza: stanza.get("id") != hint)


def _binary(low: int, high: int) -> Callable[[object], str]:
    wanted = f"base64 of {low} bytes" if low == high else f"base64 of {low} to {high} bytes"

    def check(value: object) -> str:
        data = decode(value)
        return "" if data is not None and low <= len(data) <= high else wanted

    return check


def _number(low: int, high: int) -> Callable[[object], str]:
    # That it is within bounds is looked at later, with an error of its own.
    return lambda value: "" if type(value) is int else f"a whole number, {low} to {high}"


def _text(value: object) -> str:
    return "" if isinstance(value, str) and 0 < len(value) <= 2048 else "text of 1 to 2048 characters"


def _hint(value: object) -> str:
    return "" if isinstance(value, str) and _HINT.fullmatch(value) else "16 hexadecimal digits"


def _context(value: object) -> str:
    fits = (
        isinstance(value, dict)
        and BINDING not in value
        and all(isinstance(each, str) for each in cast("dict[object, object]", value).values())
    )
    return "" if fits else f"an object of texts without {BINDING}"


_WRAPPED = _binary(48, 48)
_LIMITS: Final = {"memory_kib": MEMORY_KIB, "passes": PASSES, "lanes": LANES, "log_n": LOG_N, "r": (8, 8), "p": P}
_FIELDS: Final[Mapping[str, Mapping[str, Callable[[object], str]]]] = {
    "key": {"salt": _binary(32, 32), "wrapped": _WRAPPED, "id": _hint},
    "argon2id": {
        "salt": _binary(16, 16),
        "wrapped": _WRAPPED,
        **{name: _number(*_LIMITS[name]) for name in ("memory_kib", "passes", "lanes")},
    },
    "scrypt": {
        "salt": _binary(16, 16),
        "wrapped": _WRAPPED,
        **{name: _number(*_LIMITS[name]) for name in ("log_n", "r", "p")},
    },
    # The encapsulated key (32 bytes; ML-KEM-768's 1,088 and 32), the file key, the tag.
    "x25519": {"wrapped": _binary(80, 80), "id": _hint},
    "mlkem768-x25519": {"wrapped": _binary(1168, 1168), "id": _hint},
    "kms": {"provider": _text, "key": _text, "context": _context, "wrapped": _binary(1, 16_384)},
}
KNOWN: Final = frozenset(_FIELDS)
_OPTIONAL: Final = frozenset({"id"})


def _check(number: int, stanza: object) -> None:
    if not isinstance(stanza, dict) or not isinstance(kind := cast("Stanza", stanza).get("type"), str):
        raise _malformed(f"recipient {number} has no type", "an object with a type")
    fields = _FIELDS.get(kind)
    if fields is None:
        return
    given = cast("Stanza", stanza)
    for name in sorted({*given, *fields} - {"type"}):
        if name not in fields:
            raise _malformed(
                f"recipient {number} ({kind}) has a field {name[:40]!r}", f"only {', '.join(sorted(fields))}"
            )
        if name not in given:
            if name not in _OPTIONAL:
                raise _malformed(f"recipient {number} ({kind}) lacks the field {name}", f"{', '.join(sorted(fields))}")
        elif wanted := fields[name](given[name]):
            raise _malformed(f"recipient {number} ({kind}) has another thing as {name}", wanted)
    for name in fields.keys() & _LIMITS.keys():
        low, high = _LIMITS[name]
        if not low <= cast("int", given[name]) <= high:
            raise _beyond(f"{name} {given[name]} asked for by recipient {number} ({kind})", f"{low} to {high}")


def _malformed(seen: str, expected: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E725", seen=seen, expected=expected, fix="get the file again: this one is damaged, or was not made by Vambrace"
    )


def _beyond(seen: str, expected: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E726",
        seen=seen,
        expected=expected,
        fix="do not open this file: it would use up time or memory, as a trap does",
    )
