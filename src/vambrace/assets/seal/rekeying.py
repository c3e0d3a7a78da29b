"""Seal a file anew in its place: another file key, other recipients, the same content.

    rekey("net.sealed", "old.key", ["new.pub"], sign="release.key", name="A. Smith", role="release")

Unlike a change of recipients (`rewrap`) this shuts out those who kept the old file key, from this copy: older copies
still open for them, and what they have read, they have read. It decrypts and encrypts everything, chunk by chunk, in
memory of a few chunks and never through a file in the clear. The new file takes the old one's name, owner and
permissions when it is whole and durable; further names of the old one (hard links) stay with the old one.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from vambrace.assets.seal import origin, statement
from vambrace.assets.seal.holding import alone
from vambrace.assets.seal.inplace import settle
from vambrace.assets.seal.recipients import identities_of, recipients_of
from vambrace.assets.seal.rewrapping import sealed_file
from vambrace.assets.seal.sealed import Sealed
from vambrace.assets.seal.source import FileSource
from vambrace.assets.seal.trailer import FOOT_BYTES, Foot
from vambrace.assets.seal.writer import Writer
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from vambrace.assets.seal import keys
    from vambrace.assets.seal.opening import Opened
    from vambrace.assets.seal.origin import Signer
    from vambrace.assets.seal.suites import Suite

__all__ = ["Rekeyed", "rekey"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rekeyed:
    """What sealing anew has come to.

    Attributes:
        recipients: how many can open it.
        size: bytes of the content.
        was_signed: whether the old file was signed; its signature was verified then.
        signed: whether the new one is.
    """

    recipients: int
    size: int
    was_signed: bool
    signed: bool


def rekey(
    path: str | os.PathLike[str],
    identity: object,
    recipients: object,
    *,
    sign: Ed25519PrivateKey | keys.Secret | str | os.PathLike[str] | None = None,
    name: str = "",
    role: str = "",
    date: str | None = None,
    unsigned: bool = False,
    signer: Signer | Iterable[Signer] | None = None,
    suite: Suite | None = None,
    chunk_size: int | None = None,
    pad: bool | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Rekeyed:
    """Seal the content of the sealed file at `path` anew; descriptions stay.

    Args:
        path: the file; a link is followed.
        identity: who opens it: whatever `as_identity` takes, or a list of several.
        recipients: who can open it from now on: whatever `as_recipient` takes, or a list of several.
        sign: secret key of kind ed25519 that signs the new file, or its file. The old signature is for the old
            ciphertext and does not go with the content.
        name: of the signer, at most 200 characters; a claim.
        role: what the signature means, the same; a claim.
        date: `YYYY-MM-DDTHH:MM:SSZ`; None: now.
        unsigned: let a signed file become an unsigned one.
        signer: accepted signers of the old file, as `accepted_keys` takes them; None: whoever signed it, or nobody.
        suite: the AEAD; None: as it was.
        chunk_size: bytes that are decrypted as one; None: as it was.
        pad: hide the exact length; None: as it was.
        threads: how many decrypt, and how many encrypt, 1 to 256.
        progress: called with the bytes that were sealed, and those there are.

    Raises:
        ConfigError: E752, when a signature would be lost; E746 or E748, for a signer who cannot sign; E712 to E714,
            E723, E724, E749.
        ArtifactRefused: as `Sealed`, for whatever is wrong with the old file, E750. The old file is there as it was.
        ResourceError: E600, E601, E603, E604.
    """
    place, identities = sealed_file(path), identities_of(identity)
    wanted = recipients_of(recipients)
    accepted = origin.accepted_keys(signer)
    hook = statement.hook(sign, name=name, role=role, date=date)
    with alone(place, write=True) as fd:
        opened = settle(fd, place, identities).opened
        with _open(place, opened, accepted, threads) as old:
            # Where it is signed, every chunk read from here on is held against its signature, whoever made that.
            was_signed = old.statement is not None
            if was_signed and hook is None and not unsigned:
                raise ConfigError(
                    "E752",
                    seen="a signed file, and no key to sign the new one with",
                    expected="a signing key, because the old signature is for the old ciphertext",
                    fix="give a signing key, or say that the new file is to be unsigned",
                )
            fixed, size = old.header.fixed, os.fstat(fd).st_size
            with Writer(
                place,
                wanted,
                content=old.description.content,
                size=old.size,
                pad=_stream(fd, size) > old.size if pad is None else pad,
                metadata=old.description.metadata,
                public=old.header.public,
                suite=fixed.suite if suite is None else suite,
                chunk_size=fixed.chunk_size if chunk_size is None else chunk_size,
                sign=hook,
                threads=threads,
                like=fd,
            ) as new:
                old.copy_to(new, progress=progress)
            return Rekeyed(
                recipients=len(new.header.recipients), size=old.size, was_signed=was_signed, signed=hook is not None
            )


def _open(place: Path, opened: Opened, accepted: frozenset[bytes], threads: int) -> Sealed:
    source = FileSource.open(place)
    try:
        return Sealed(source, opened, signers=accepted, threads=threads)
    except BaseException:
        source.close()
        raise


def _stream(fd: int, size: int) -> int:
    """Bytes of the stream, padding included, of a file whose foot has been verified."""
    foot = Foot.parse(os.pread(fd, FOOT_BYTES, size - FOOT_BYTES))
    return foot.stream if foot else 0
