"""What the signer of a sealed file says, in its trailer: this key made exactly these chunks under this header.

    written = make(signing_key, fixed, count, stream_size, root, name="A. Smith", role="release", date=now())
    check(written, fixed, count, stream_size, root).signer  # raises where anything differs

Signed are the binding (and with it suite, chunk size, salt and key commitment), the number of chunks, the bytes of the
stream and the root over the ciphertext: docs/formats/sealed-v1.md, "Trailer". Recipients are not, so a statement
survives their change. Guarantees: a statement that `check` returns was made by the holder of `signer`'s key for this
file. It does not say who that is: `demand` compares with the keys that a caller accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from vambrace.assets.seal import origin
from vambrace.core import canonical
from vambrace.core.clock import now
from vambrace.core.options import require
from vambrace.errors import ArtifactRefused, ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from vambrace.assets.seal import keys

__all__ = ["Bound", "Statement", "check", "demand", "hook", "make"]

MOST_BYTES: Final = 16_384
_DOMAIN: Final = b"vambrace-sealed-signature/1\n"
_KEYS: Final = {"date", "name", "role", "signature", "signer"}


class Bound(Protocol):
    """The part of a sealed file's header that never changes."""

    @property
    def binding(self) -> bytes:
        """Its SHA-256, 32 bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Who signed, as they put it.

    Attributes:
        signer: Ed25519 public key, 32 bytes; the only part that is proven.
        name: of the signer, in their words.
        role: why they signed, in their words.
        date: when, in their words: `YYYY-MM-DDTHH:MM:SSZ`.
    """

    signer: bytes
    name: str
    role: str
    date: str


def make(
    signing_key: Ed25519PrivateKey,
    fixed: Bound,
    count: int,
    stream_size: int,
    root: bytes,
    name: str,
    role: str,
    date: str,
) -> bytes:
    """The statement's bytes, at most 16,384.

    Args:
        signing_key: of the signer.
        fixed: the unchanging part of the header.
        count: chunks, at least 1.
        stream_size: plain bytes in all chunks, padding included.
        root: of the tree over the chunks, 32 bytes.
        name: of the signer, at most 200 characters, no control characters; may be empty.
        role: the same, for what the signature means.
        date: `YYYY-MM-DDTHH:MM:SSZ`.

    Raises:
        ConfigError: E746, for words that cannot be carried.
    """
    origin.described(name, role, date)
    signer = origin.public_bytes(signing_key)
    said = Statement(signer=signer, name=name, role=role, date=date)
    signature = origin.sign(signing_key, _DOMAIN, _message(said, fixed, count, stream_size, root))
    return canonical.dumps(
        {
            "date": date,
            "name": name,
            "role": role,
            "signature": origin.encoded(signature),
            "signer": origin.encoded(signer),
        }
    )


def hook(
    key: Ed25519PrivateKey | keys.Secret | str | os.PathLike[str] | None,
    *,
    name: str = "",
    role: str = "",
    date: str | None = None,
) -> Callable[[Bound, int, int, bytes], bytes] | None:
    """What `Writer` calls to have a file signed: fixed part, chunks, bytes of the stream and root to a statement.

    Args:
        key: secret key of kind ed25519, or its file; None: nobody signs.
        name: of the signer, at most 200 characters; a claim.
        role: what the signature means, the same; a claim.
        date: `YYYY-MM-DDTHH:MM:SSZ`; None: when it signs.

    Raises:
        ConfigError: E712, for a name or role and no key; E746, for words that a signature cannot carry; E748, for a
            key that does not sign.
        ArtifactRefused: E720 or E721, for a file that holds no key, or one that others can read.
    """
    if key is None:
        require(
            not name and not role,
            code="E712",
            seen="a signer's name or role and no key to sign with",
            expected="a key, or neither",
            fix="give the signing key: sign=..., --sign KEY",
        )
        return None
    secret = origin.signing_key(key)
    origin.described(name, role, now() if date is None else date)

    def said(fixed: Bound, count: int, stream: int, root: bytes) -> bytes:
        # One hook signs all checkpoints of a training, which takes days.
        return make(secret, fixed, count, stream, root, name=name, role=role, date=now() if date is None else date)

    return said


def check(data: bytes, fixed: Bound, count: int, stream_size: int, root: bytes) -> Statement:
    """Who signed this file, from the statement's bytes; the arguments as in `make`, computed from the file itself.

    Raises:
        ArtifactRefused: E740, for bytes that are no statement; E741, when the signature is not for these values.
    """
    said, signature = _parse(data)
    if not origin.holds(said.signer, signature, _DOMAIN, _message(said, fixed, count, stream_size, root)):
        raise ArtifactRefused(
            "E741",
            seen=f"a signature that {origin.encoded(said.signer)} did not make for this file",
            expected="the signer's own signature over the header, the number of chunks, their size and their contents",
            fix="get the file again from its maker; it was changed, or its signature was taken from another file",
        )
    return said


def demand(said: Statement | None, accepted: Collection[bytes]) -> None:
    """Refuse a statement by none of the accepted signers; with none accepted, whatever there is passes.

    Args:
        said: what `check` gave; None: the file is not signed.
        accepted: public keys, 32 bytes each.

    Raises:
        ArtifactRefused: E742, when a signer is wanted and the file is not signed; E743, when somebody else signed it.
    """
    if not accepted:
        return
    if said is None:
        raise ArtifactRefused(
            "E742",
            seen="no signature",
            expected=f"one by {_listed(accepted)}",
            fix="get the file from its maker; without a signature anybody can have made it",
        )
    if said.signer not in accepted:
        raise ArtifactRefused(
            "E743",
            seen=f"a signature by {origin.encoded(said.signer)}",
            expected=f"one by {_listed(accepted)}",
            fix="do not use it unless you know this key from elsewhere; then accept it as a signer",
        )


def _listed(accepted: Collection[bytes]) -> str:
    return " or ".join(sorted(origin.encoded(each) for each in accepted))


def _message(said: Statement, fixed: Bound, count: int, stream_size: int, root: bytes) -> bytes:
    return canonical.dumps(
        {
            "binding": fixed.binding.hex(),
            "chunks": count,
            "date": said.date,
            "name": said.name,
            "role": said.role,
            "root": root.hex(),
            "signer": origin.encoded(said.signer),
            "stream": stream_size,
        }
    )


def _parse(data: bytes) -> tuple[Statement, bytes]:
    """The statement and its signature; not yet verified."""
    if len(data) > MOST_BYTES:
        raise _malformed(f"it has {len(data)} bytes")
    try:
        found: Any = canonical.loads(data)
        if canonical.dumps(found) != data:
            raise _malformed("it is not canonical JSON")
    except ConfigError:
        raise _malformed("it is not canonical JSON") from None
    except (ValueError, RecursionError):
        raise _malformed("it is not JSON") from None
    if not isinstance(found, dict) or set(cast("dict[str, Any]", found)) != _KEYS:
        raise _malformed("its keys are not those of a statement")
    fields = cast("dict[str, Any]", found)
    signer, signature = origin.decoded(fields["signer"], 32), origin.decoded(fields["signature"], 64)
    if signer is None or signature is None or not origin.allowed(signer):
        raise _malformed("its key or its signature is none of Ed25519")
    if not (origin.is_words(fields["name"]) and origin.is_words(fields["role"]) and origin.is_date(fields["date"])):
        raise _malformed("its name, role or date is none")
    return Statement(signer=signer, name=fields["name"], role=fields["role"], date=fields["date"]), signature


def _malformed(why: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E740",
        seen=f"a signer's statement that cannot be read: {why}",
        expected="the canonical JSON that docs/formats/sealed-v1.md describes",
        fix="get the file again from its maker; it is damaged or forged",
    )
