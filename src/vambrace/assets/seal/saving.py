"""Seal what there is: tensors from memory, a file, a folder, a stream.

    seal.save(net.state_dict(), "net.sealed", recipients=["team.pub"], sign="me.key")
    seal.save("runs/2026-03-01", "run.sealed", recipients=[seal.Passphrase("...")])

Tensors are encrypted from where they lie, so neither a plain file nor a second copy in memory is made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from vambrace.assets.seal import statement
from vambrace.assets.seal.folders import gather
from vambrace.assets.seal.payload import kind_of, refuse_pickle, start_without_pickle
from vambrace.assets.seal.source import nothing_at, read_pieces
from vambrace.assets.seal.suites import Suite
from vambrace.assets.seal.writer import Writer
from vambrace.core.disk import unreadable
from vambrace.core.options import require
from vambrace.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from torch import Tensor

    from vambrace.assets.seal import keys
    from vambrace.assets.seal.description import Content
    from vambrace.assets.seal.sink import Sink
    from vambrace.assets.seal.trailer import Foot

__all__ = ["save", "save_stream", "suite_of"]

_PIECE: Final = 2**20


def save(
    source: Mapping[str, Tensor] | str | os.PathLike[str],
    path: str | os.PathLike[str] | Sink,
    *,
    recipients: Sequence[object] | object,
    sign: Ed25519PrivateKey | keys.Secret | str | os.PathLike[str] | None = None,
    name: str = "",
    role: str = "",
    metadata: Mapping[str, Any] | None = None,
    public: Mapping[str, Any] | None = None,
    pad: bool = False,
    suite: Suite | str = Suite.AES_256_GCM,
    chunk_size: int = 2**20,
    threads: int = 1,
    allow_pickle: bool = False,
    fresh: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Foot:
    """Seal tensors, a file or a folder.

    Args:
        source: tensors by name (`module.state_dict()`), or the path of a file or folder. A safetensors file is stored
            so that its tensors can be read one by one.
        path: where to; a file that is there is replaced when the new one is whole. Or a binary stream, or a `Memory`.
        recipients: who can open it: one or several of a raw key (32 bytes), a key or its file, a public key or its
            file, `Passphrase`, `Kms`.
        sign: the Ed25519 key, or its file, of who vouches for the content; None: its origin is not provable.
        name: of the signer; readable by everybody.
        role: of the signer, the same.
        metadata: JSON data that only recipients read: `expires`, `licence` and `provenance` have a meaning.
        public: JSON data that everybody reads; authenticated.
        pad: hide the exact length, for up to 12 % more bytes.
        suite: the AEAD: "aes-256-gcm", "chacha20-poly1305", "aes-256-gcm-siv", "sm4-gcm".
        chunk_size: bytes that are decrypted as one: a power of two from 65,536 to 16,777,216.
        threads: how many encrypt, 1 to 256.
        allow_pickle: also seal files that run code when they are opened.
        fresh: replace no file, also not one that appears meanwhile.
        progress: called with the bytes that were taken, and those there are.

    Returns:
        The foot of the file: chunks, bytes.

    Raises:
        ConfigError: E712 to E715 for options, E723 or E724 for recipients, E748 for a signer, E760 for tensors, E762
            or E763 for a folder; E746 for words that a signature cannot carry.
        ArtifactRefused: E761, for a file that holds a pickle.
        FileExistsError: with `fresh`, something is at `path`.
        NotThere: E776, a FileNotFoundError: there is nothing at `source`.
        ResourceError: E601 or E604, when something cannot be written or read.
    """
    content, size, pieces = _plain(source, allow_pickle)
    # Tensors stay where they are; files and folders come through one buffer.
    kept = isinstance(source, Mapping)
    with _writer(
        path,
        recipients,
        content=content,
        size=size,
        pad=pad,
        metadata=metadata,
        public=public,
        suite=suite,
        chunk_size=chunk_size,
        sign=statement.hook(sign, name=name, role=role),
        threads=threads,
        fresh=fresh,
    ) as writer:
        done = 0
        for piece in pieces:
            # Large pieces in parts, so that progress is seen.
            for begin in range(0, len(piece), 64 * _PIECE):
                done += writer.write(piece[begin : begin + 64 * _PIECE], kept=kept)
                if progress:
                    progress(done, size)
    return cast("Foot", writer.foot)


def save_stream(
    stream: Any,  # noqa: ANN401  whatever has `readinto`
    path: str | os.PathLike[str] | Sink,
    *,
    recipients: Sequence[object] | object,
    sign: Ed25519PrivateKey | keys.Secret | str | os.PathLike[str] | None = None,
    name: str = "",
    role: str = "",
    metadata: Mapping[str, Any] | None = None,
    public: Mapping[str, Any] | None = None,
    suite: Suite | str = Suite.AES_256_GCM,
    chunk_size: int = 2**20,
    threads: int = 1,
    allow_pickle: bool = False,
    fresh: bool = False,
) -> Foot:
    """Seal the bytes of a stream to its end, which need not be known beforehand.

    Arguments, result and errors are those of `save`. Pickles are looked for in the first 65,536 bytes, as far as those
    tell: by how pickles and compressed files begin, and by the members of a zip that begin there. A pickle further on,
    inside of something else or behind another beginning, passes.
    """
    with _writer(
        path,
        recipients,
        content="bytes",
        size=None,
        pad=False,
        metadata=metadata,
        public=public,
        suite=suite,
        chunk_size=chunk_size,
        sign=statement.hook(sign, name=name, role=role),
        threads=threads,
        fresh=fresh,
    ) as writer:
        if not allow_pickle:
            writer.write(start_without_pickle(stream))
        writer.copy_from(stream)
    return cast("Foot", writer.foot)


def _plain(
    source: Mapping[str, Tensor] | str | os.PathLike[str], allow_pickle: bool
) -> tuple[Content, int, Iterable[memoryview]]:
    if isinstance(source, Mapping):
        from vambrace.assets.seal.tensors import Packed

        packed = Packed(source)
        return "tensors", packed.size, packed.pieces()
    path = Path(source)
    if os.path.isdir(path):
        gathered = gather(path)
        if not allow_pickle:
            for member in gathered.members:
                inner = path / member.path
                refuse_pickle(inner, kind_of(inner), shown=member.path)
        return "folder", gathered.size, gathered.pieces()
    try:
        found = path.stat()
    except (FileNotFoundError, ValueError) as error:  # ValueError: a null byte in the path
        raise nothing_at(path, "a file or folder") from error
    except OSError as error:
        raise unreadable(str(path), error) from error
    require(
        stat.S_ISREG(found.st_mode),
        code="E762",
        seen=f"{str(path)[:200]!r}, neither a file nor a folder",
        expected="a file whose length is known",
        fix="seal it as a stream: save_stream",
    )
    kind = kind_of(path, inside=not allow_pickle)
    if not allow_pickle:
        refuse_pickle(path, kind)
    content = "tensors" if kind == "safetensors" and _can_be_read(path) else "bytes"
    return content, found.st_size, read_pieces(path, found.st_size, piece=4 * _PIECE)


def _can_be_read(path: Path) -> bool:
    """Whether a safetensors file is no one of dtypes or sizes that others know alone; of damage, readers tell."""
    from vambrace.models.safetensors import read_header

    try:
        read_header(path)
    except ModelRefused as error:
        return error.code not in {"E220", "E222"}  # too many, or of sizes or dtypes that others know alone
    return True


def _writer(
    target: str | os.PathLike[str] | Sink,
    recipients: Sequence[object] | object,
    *,
    suite: Suite | str,
    **options: Any,  # noqa: ANN401  those of Writer
) -> Writer:
    return Writer(target, recipients, suite=suite_of(suite), **options)


def suite_of(value: Suite | str) -> Suite:
    """The suite of a name, such as "aes-256-gcm".

    Raises:
        ConfigError: E712, for another name.
    """
    if isinstance(value, Suite):
        return value
    named = {suite.name.lower().replace("_", "-"): suite for suite in Suite}
    require(
        value.lower() in named,
        code="E712",
        seen=f"suite {value[:40]!r}",
        expected=f"one of {', '.join(named)}",
        fix="choose one of them",
    )
    return named[value.lower()]
