"""Open what was sealed: into memory, or lazily; nothing plain touches a disk.

    tensors = seal.load("net.sealed", identity="me.key", signer="maker.pub")
    with seal.lazy("net.sealed", identity="me.key") as net:
        net["head.weight"], net.rows("embedding.weight", 0, 100)

Without `signer`, what is loaded is intact, and its origin is not proven: whoever knows a public key can seal for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vambrace.assets.seal.folders import check_gap, read_manifest
from vambrace.assets.seal.sealed import Sealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from vambrace.assets.seal.origin import Signer
    from vambrace.assets.seal.tensors import Lazy

__all__ = ["lazy", "load", "open_sealed"]


def load(
    path: str | os.PathLike[str],
    *,
    identity: Sequence[object] | object,
    signer: Signer | Iterable[Signer] | None = None,
    threads: int = 1,
    ignore_expiry: bool = False,
) -> dict[str, Tensor] | bytes | dict[str, bytes]:
    """The content of a sealed file.

    Args:
        path: the file.
        identity: who opens it, one or several: a raw key (32 bytes), a secret key or its file, `Passphrase`, `Kms`.
        signer: the Ed25519 public keys of which one must have signed, or their files; None: nobody has to.
        threads: how many decrypt, 1 to 256.
        ignore_expiry: open it after its `expires`, too.

    Returns:
        Tensors by name, on the CPU, views into one buffer; or the bytes of a file; or those of the files of a folder
        by path: whatever was sealed.

    Raises:
        NotThere: E776, a FileNotFoundError: there is none.
        ArtifactRefused: it is damaged, forged, expired, or opened by nothing that was given (E700 to E743, E765).
        ModelRefused: E221 to E223, for tensors that cannot be.
        ConfigError: E723, E724 or E748, for keys that do not do this.
        ResourceError: E604, when it cannot be read.
    """
    with open_sealed(path, identity=identity, signer=signer, threads=threads, ignore_expiry=ignore_expiry) as sealed:
        match sealed.description.content:
            case "tensors":
                from vambrace.assets.seal.tensors import read_tensors

                return read_tensors(sealed, threads=threads)
            case "folder":
                found = dict[str, bytes]()
                for member in read_manifest(sealed).values():
                    check_gap(sealed, member)
                    found[member.path] = sealed.read(member.begin, member.end)
                sealed.verify(threads=threads)
                return found
            case "bytes":
                return sealed.read(0, sealed.size)


def lazy(
    path: str | os.PathLike[str],
    *,
    identity: Sequence[object] | object,
    signer: Signer | Iterable[Signer] | None = None,
    ignore_expiry: bool = False,
) -> Lazy:
    """The tensors of a sealed file, each read when it is asked for; arguments and errors as those of `load`."""
    from vambrace.assets.seal.tensors import Lazy

    sealed = open_sealed(path, identity=identity, signer=signer, ignore_expiry=ignore_expiry)
    try:
        return Lazy(sealed)
    except BaseException:
        sealed.close()
        raise


def open_sealed(
    path: str | os.PathLike[str],
    *,
    identity: Sequence[object] | object,
    signer: Signer | Iterable[Signer] | None = None,
    threads: int = 1,
    ignore_expiry: bool = False,
) -> Sealed:
    """The open file, for reading any range of its content; arguments and errors as those of `load`."""
    return Sealed.open(path, identity, signers=signer, threads=threads, ignore_expiry=ignore_expiry)
