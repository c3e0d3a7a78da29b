"""What can be proven of a file or folder: that it is intact, and who made it.

    verify("net.sealed", signer="release.pub")  # as that signer sealed it; nothing needs to be opened for that
    verify("net.sealed", identity="my.key")  # intact and not signed; whoever knew the public key can have made it
    verify("runs/20260402T181530Z-3f9c2a1b", signer=["alice.pub", "bob.pub"])  # by the signature beside it

It returns when something was proven, and says what; otherwise it raises. A signature by a key that nobody vouches for
proves nothing: everybody can make one. `Verified` has both lists, what was checked and what was not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vambrace.assets.seal import header as headers
from vambrace.assets.seal import merkle, origin, signing, statement
from vambrace.assets.seal.chunks import FRAME_BYTES, OVERHEAD
from vambrace.assets.seal.description import expiry
from vambrace.assets.seal.folders import check_gap, read_manifest
from vambrace.assets.seal.header import HEADER_BYTES
from vambrace.assets.seal.opening import read_sidecar
from vambrace.assets.seal.refusals import added, cut_short, damaged_chunk, damaged_trailer, not_sealed
from vambrace.assets.seal.sealed import MOST_CHANGES, Sealed
from vambrace.assets.seal.source import FileSource
from vambrace.assets.seal.subject import listed_paths, shown
from vambrace.assets.seal.tensors import read_header
from vambrace.assets.seal.trailer import FOOT_BYTES, Foot
from vambrace.errors import ArtifactRefused, ConfigError, ModelRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from vambrace.assets.seal.header import Header
    from vambrace.assets.seal.origin import Signer
    from vambrace.assets.seal.signature import Signed
    from vambrace.assets.seal.statement import Statement

__all__ = ["By", "Verified", "outline", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """One signature that holds.

    Attributes:
        signer: Ed25519 public key, 32 bytes; the only part that is proven.
        name: of the signer, in their words.
        role: what it means, in their words.
        date: when, in their words: `YYYY-MM-DDTHH:MM:SSZ`.
        known: whether the key is one of those that the caller accepts.
    """

    signer: bytes
    name: str
    role: str
    date: str
    known: bool

    def __str__(self) -> str:
        words = ", ".join(word for word in (self.name, self.role, self.date) if word)
        return f"{origin.encoded(self.signer)} ({words}){'' if self.known else ', a key that was not accepted'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found to be true.

    Attributes:
        kind: what it was done for.
        signatures: all that are there and hold, in order.
        checked: what was held against something, in words.
        unchecked: what was not, in words.
    """

    kind: Literal["sealed", "file", "folder"]
    signatures: tuple[By, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def proven(self) -> bool:
        """Whether it is proven who made it: a signature by a key that the caller accepts."""
        return any(each.known for each in self.signatures)

    @property
    def verdict(self) -> str:
        """In one line."""
        known = "; ".join(str(each) for each in self.signatures if each.known)
        return f"intact, signed by {known}" if known else "intact, origin not proven"


def verify(
    path: str | os.PathLike[str],
    signer: Signer | Iterable[Signer] | None = None,
    identity: object = None,
    *,
    at: str | os.PathLike[str] | None = None,
    threads: int = 1,
    progress: Callable[[int, int | None], None] | None = None,
) -> Verified:
    """Check a sealed file by its own signature, and with an identity every chunk; anything else by its signature file.

    Args:
        path: a file or folder. A link to a sealed file is followed.
        signer: the signers that are accepted, as `accepted_keys` takes them: one of them has to have signed.
        identity: who opens a sealed file: whatever `as_identity` takes, or a list of several.
        at: the file of signatures of what is not sealed; None: `NAME.sig` beside it.
        threads: how many decrypt, 1 to 256.
        progress: called with the bytes that were checked, and those there are; None, as long as that is not known.

    Raises:
        ConfigError: E723, E724 or E748, for what is no identity or signer; E749, where nothing is, or for `at` and a
            sealed file.
        ArtifactRefused: E740, E741 or E744, for signatures that are none or do not hold; E742, when there is none where
            one is needed; E743, when it is by nobody who is accepted, opened or not; E745, for what is not as it was
            signed; E747, for a folder with links; E753, for a sealed file that is not signed, when it
            is not opened either; with an identity, E700 for what is not sealed, E765 for a list of files that is none,
            and as `Sealed`.
        ResourceError: E600, E604.
    """
    accepted = origin.accepted_keys(signer)
    place = signing.located(path)
    if not signing.is_sealed(place):
        if identity is not None:
            raise not_sealed("a file or folder that is not sealed, and an identity to open it")
        return _detached(place, accepted, at, progress)
    if at is not None:
        raise ConfigError(
            "E749",
            seen=f"signatures in {shown(str(at))} for a sealed file",
            expected="the signature inside it",
            fix="leave the other place out",
        )
    place = place.resolve()
    if identity is None:
        return _unopened(place, accepted, progress)
    with Sealed.open(place, identity, signers=accepted or None, threads=threads, ignore_expiry=True) as sealed:
        said = sealed.verify(progress=progress)
        listed, unlisted = _lists(sealed)
        late = _late(sealed.header.public, sealed.description.metadata)
    signatures = _by((said,) if said else (), accepted)
    if not all(each.known for each in signatures):
        raise _unknown(signatures, accepted)
    return Verified(
        kind="sealed",
        signatures=signatures,
        checked=("header", "every chunk", "trailer", *listed, *(("signature",) if said else ())),
        unchecked=(*(() if accepted else ("who made it",)), *unlisted, *late),
    )


def _lists(sealed: Sealed) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the content is made of, held against its format: what was checked, and what could not be.

    A folder that is none opens nowhere, and is refused. Tensors that cannot be read one by one open as the file that
    they are, or are a checkpoint with more state than that.
    """
    if sealed.description.content == "folder":
        for member in read_manifest(sealed).values():
            check_gap(sealed, member)
        return ("list of files",), ()
    if sealed.description.content == "tensors":
        try:
            read_header(sealed)
        except (ArtifactRefused, ModelRefused) as error:
            return (), (f"its list of tensors ({error.seen})",)
        return ("list of tensors",), ()
    return (), ()


def outline(path: str | os.PathLike[str]) -> tuple[Header, Foot]:
    """What the sealed file at `path` says of itself to everybody: well formed, and nothing of it verified.

    Raises:
        ConfigError: E749, where nothing is.
        ArtifactRefused: E700 to E702, E706 to E708, E711, for what is no such file or does not fit its size.
        ResourceError: E604.
    """
    place = signing.located(path)
    source = FileSource.open(place)
    try:
        return _outline(place.resolve(), source)
    finally:
        source.close()


def _detached(
    place: Path,
    accepted: frozenset[bytes],
    at: str | os.PathLike[str] | None,
    progress: Callable[[int, int | None], None] | None,
) -> Verified:
    found = signing.check(place, at=at, progress=progress)
    signatures = _by(found.entries, accepted)
    if not any(each.known for each in signatures):
        raise _unknown(signatures, accepted)
    passed = found.subject.passed
    content = "content" if found.subject.kind == "file" else "content and names of all files that count"
    return Verified(
        kind=found.subject.kind,
        signatures=signatures,
        checked=(content, "signatures"),
        unchecked=(f"files that do not count ({listed_paths(passed)})",) if passed else (),
    )


def _unopened(place: Path, accepted: frozenset[bytes], progress: Callable[[int, int | None], None] | None) -> Verified:
    """By the signature alone: leaves, root and sizes are those of ciphertext, and need no key."""
    source = FileSource.open(place)
    try:
        header, foot = _outline(place, source)
        if not foot.leaves:
            statement.demand(None, accepted)
            raise ArtifactRefused(
                "E753",
                seen=f"{shown(str(place))}: a sealed file that is not signed, and no identity to open it",
                expected="a signature, or somebody who can open it",
                fix="give an identity: then every chunk is verified",
            )
        root = _leaves(source, header, foot, progress)
        words = source.read(source.size - FOOT_BYTES - foot.statement, foot.statement)
    finally:
        source.close()
    said = statement.check(words, header.fixed, foot.chunks, foot.stream, root)
    signatures = _by((said,), accepted)
    if not signatures[0].known:
        raise _unknown(signatures, accepted)
    return Verified(
        kind="sealed",
        signatures=signatures,
        checked=("descriptions", "every chunk as it was signed", "sizes", "signature"),
        unchecked=("recipients", "the HMACs of header and trailer", "that it can be opened", *_late(header.public)),
    )


def _outline(place: Path, source: FileSource) -> tuple[Header, Foot]:
    """Header and foot, well formed and fitting the size of the file."""
    header = _header(place, source)
    at = source.size - FOOT_BYTES
    foot = Foot.parse(source.read(at, FOOT_BYTES)) if at >= HEADER_BYTES else None
    if foot is None:
        raise cut_short("a file that does not end with a foot")
    if fault := foot.fault(header.fixed.chunk_size):
        raise damaged_trailer(f"a foot of {fault}")
    wanted = foot.layout(header.fixed.chunk_size).end + foot.trailer
    if source.size != wanted:
        seen = f"{source.size} bytes where the foot tells of {wanted}"
        raise cut_short(seen) if source.size < wanted else added(seen)
    return header, foot


def _header(place: Path, source: FileSource) -> Header:
    """The header, or where it cannot be read the one of the sidecar; both may change while they are read."""
    region = source.read(0, min(source.size, HEADER_BYTES))
    for _ in range(MOST_CHANGES):
        try:
            return headers.parse(region)
        except ArtifactRefused:
            if (whole := read_sidecar(place, region)) is not None:
                return headers.parse(whole)
            before, region = region, source.read(0, len(region))
            if region == before:
                raise
    return headers.parse(region)


def _leaves(
    source: FileSource, header: Header, foot: Foot, progress: Callable[[int, int | None], None] | None
) -> bytes:
    """The root over the chunks as they stand in the file, each of which is that of its leaf."""
    layout, tree = foot.layout(header.fixed.chunk_size), merkle.Tree()
    buffer = memoryview(bytearray(min(header.fixed.chunk_size, foot.stream) + OVERHEAD))
    for index in range(layout.count):
        plain, last = layout.plain(index), index + 1 == layout.count
        record = buffer[: plain + OVERHEAD]
        source.read_into(layout.offset(index), record)
        if int.from_bytes(record[:FRAME_BYTES], "little") != plain | last << 31:
            raise damaged_chunk(index, "has another frame than its place in the file asks for")
        leaf = merkle.leaf(record)
        if source.read(layout.end + index * merkle.SIZE, merkle.SIZE) != leaf:
            raise damaged_chunk(index, "is not the one that was signed")
        tree.add(leaf)
        if progress:
            progress(min(foot.stream, (index + 1) * header.fixed.chunk_size), foot.stream)
    return tree.root()


def _late(*metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Intact is what it is after its date too, and yet it does not open."""
    date = expiry(*metadata)
    return (f"its date: it expired at {date:%Y-%m-%dT%H:%M:%SZ}",) if date and datetime.now(UTC) >= date else ()


def _by(found: Iterable[Signed | Statement], accepted: Collection[bytes]) -> tuple[By, ...]:
    return tuple(
        By(signer=each.signer, name=each.name, role=each.role, date=each.date, known=each.signer in accepted)
        for each in found
    )


def _unknown(signatures: tuple[By, ...], accepted: Collection[bytes]) -> ArtifactRefused:
    wanted = " or ".join(sorted(origin.encoded(each) for each in accepted)) or "a signer that you accept"
    return ArtifactRefused(
        "E743",
        seen=f"signed by {'; '.join(str(each) for each in signatures)}",
        expected=f"a signature by {wanted}",
        fix="do not use it unless you know this key from elsewhere; then accept it as a signer",
    )
