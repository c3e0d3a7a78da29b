"""The bytes of a detached signature: who vouches for a subject, one line for each. Touches no file.

    data = begun(subject)
    data = added(data, signing_key, name="A. Smith", role="release", date=now())
    parse(data).entries[0].signer

Guarantees: what `parse` returns was signed, entry by entry, by the keys that it names, for its subject and behind the
entries above; anything else is refused whole. Format: docs/formats/signature-v1.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from vambrace.assets.seal import origin
from vambrace.assets.seal.subject import Subject
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused, ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Signature", "Signed", "added", "begun", "parse"]

MOST_ENTRIES: Final = 1000
MOST_SUBJECT: Final = 28 * 2**20  # bytes of a line: all files there may be, with paths of 170 bytes
MOST_ENTRY: Final = 4096  # the same; two texts of 200 characters, each of up to 4 bytes, take the most
MOST_BYTES: Final = 32 * 2**20
_DOMAIN: Final = b"vambrace-signature/1\n"
_WORDS: Final = ("date", "name", "role")
_KEYS: Final = {*_WORDS, "previous", "signature", "signer", "subject"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """One signature.

    Attributes:
        signer: Ed25519 public key, 32 bytes; the only part that is proven.
        name: of the signer, in their words.
        role: what it means, in their words.
        date: when, in their words: `YYYY-MM-DDTHH:MM:SSZ`.
    """

    signer: bytes
    name: str
    role: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a signature file says, all of it verified.

    Attributes:
        subject: what was signed; of `signing.check`, what is there and equals it.
        entries: by whom, in order; at least one.
    """

    subject: Subject
    entries: tuple[Signed, ...]


def begun(subject: Subject) -> bytes:
    """The first lines of a signature for `subject`, which nobody has signed yet.

    Raises:
        ArtifactRefused: E747, for a folder whose files take too much to list.
    """
    line = canonical.dumps(subject.as_json())
    if len(line) > MOST_SUBJECT:
        raise ArtifactRefused(
            "E747",
            seen=f"a folder of {len(subject.files)} files, which take {len(line)} bytes to list",
            expected=f"at most {MOST_SUBJECT}",
            fix="sign the folders in it one by one, or an archive of it",
        )
    return _DOMAIN + line + b"\n"


def added(data: bytes, key: Ed25519PrivateKey, *, name: str, role: str, date: str) -> bytes:
    """`data`, which `begun` or `added` gave, with the signature of `key` below.

    Raises:
        ConfigError: E746, for words that cannot be carried, and for more signatures than a file may have.
    """
    origin.described(name, role, date)
    lines = data.split(b"\n")[:-1]
    if len(lines) - 2 >= MOST_ENTRIES:
        raise ConfigError(
            "E746",
            seen=f"{len(lines) - 2} signatures",
            expected=f"at most {MOST_ENTRIES}",
            fix="begin a new signature file",
        )
    entry: dict[str, object] = {
        "date": date,
        "name": name,
        "previous": _hash(lines[-1]),
        "role": role,
        "signer": origin.encoded(origin.public_bytes(key)),
        "subject": _hash(lines[1]),
    }
    entry["signature"] = origin.encoded(origin.sign(key, _DOMAIN, canonical.dumps(entry)))
    return data + canonical.dumps(entry) + b"\n"


def parse(data: bytes, *, named: str = "the signature") -> Signature:
    """What the bytes of a signature file say, verified.

    Args:
        data: all of them.
        named: what messages call it.

    Raises:
        ArtifactRefused: E744, for bytes that are no signature of this version; E741, for one that does not hold.
    """
    if len(data) > MOST_BYTES:
        raise _malformed(named, f"it has more than {MOST_BYTES} bytes")
    # Counted before they become objects.
    if data.count(b"\n") > MOST_ENTRIES + 2:
        raise _malformed(named, f"it has more than {MOST_ENTRIES + 2} lines")
    version, *lines = data.split(b"\n")
    if version != _DOMAIN[:-1]:
        raise _malformed(named, "its first line is not vambrace-signature/1")
    if lines[-1:] != [b""] or not 2 <= len(lines) - 1 <= MOST_ENTRIES + 1:
        raise _malformed(named, f"it has no line of a subject and 1 to {MOST_ENTRIES} of signatures")
    if len(lines[0]) > MOST_SUBJECT or max(map(len, lines[1:])) > MOST_ENTRY:
        raise _malformed(named, f"a line is longer than {MOST_SUBJECT} bytes, or {MOST_ENTRY} from the third on")
    try:
        subject = Subject.read(lines[0])
    except ValueError as error:
        raise _malformed(named, f"line 2 is no subject: {_reason(error)}") from None
    entries: list[Signed] = []
    for number, (above, line) in enumerate(zip(lines[:-2], lines[1:-1], strict=True), 3):
        try:
            record = _record(line)
        except (ValueError, RecursionError) as error:
            raise _malformed(named, f"line {number} is no signature: {_reason(error)}") from None
        if record["subject"] != _hash(lines[0]) or record["previous"] != _hash(above):
            raise _malformed(named, f"line {number} was made for another subject, or behind another line")
        entries.append(_verified(record, named, number))
    return Signature(subject=subject, entries=tuple(entries))


def _record(line: bytes) -> dict[str, str]:
    """The fields of an entry's line, not verified; ValueError for another line."""
    data: Any = canonical.loads(line)
    if not isinstance(data, dict) or canonical.dumps(cast("object", data)) != line:
        raise ValueError("it is not a canonical object")
    fields = cast("dict[str, object]", data)
    if fields.keys() != _KEYS:
        raise ValueError("its fields are not those of a signature")
    if not (origin.is_words(fields["name"]) and origin.is_words(fields["role"]) and origin.is_date(fields["date"])):
        raise ValueError("its name, role or date is none")
    signer = origin.decoded(fields["signer"], 32)
    if signer is None or not origin.allowed(signer) or origin.decoded(fields["signature"], 64) is None:
        raise ValueError("its key or its signature is none of Ed25519")
    return cast("dict[str, str]", fields)


def _verified(record: dict[str, str], named: str, number: int) -> Signed:
    signer, signature = origin.decoded(record["signer"], 32), origin.decoded(record["signature"], 64)
    message = canonical.dumps({key: value for key, value in record.items() if key != "signature"})
    if signer is None or signature is None or not origin.holds(signer, signature, _DOMAIN, message):
        raise ArtifactRefused(
            "E741",
            seen=f"line {number} of {named}: a signature that {record['signer']} did not make",
            expected="the signer's own signature over this line",
            fix="get the signature again from its maker",
        )
    return Signed(signer=signer, **{word: record[word] for word in _WORDS})


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _reason(error: Exception) -> str:
    """Why a line cannot be read, without the line."""
    if isinstance(error, ConfigError):
        return error.seen
    return "it is not JSON" if type(error) is not ValueError else str(error)[:100]


def _malformed(named: str, why: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E744",
        seen=f"{named} cannot be read: {why}",
        expected="the lines that docs/formats/signature-v1.md describes",
        fix="get the signature again from its maker; it is damaged, forged, or of a later release",
    )
