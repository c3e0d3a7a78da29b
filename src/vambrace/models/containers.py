"""Containers that models come in, such as sealed files: told by their first bytes, opened by whoever knows how.

Who knows how belongs to a higher floor, or is a plug-in: the entry-point table `vambrace.containers` names, for each
kind, a function `(path, *, identity, signer)` that gives the tensors of a safetensors file by name, or the bytes of any
other.
"""

from __future__ import annotations

import importlib
import os
import stat
from typing import TYPE_CHECKING, Any

from vambrace.core import registry
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["CONTAINERS", "kind_of_container", "open_container"]

CONTAINERS = "vambrace.containers"
_MAGIC = {b"\x89VBSEAL\n": "sealed"}
_LONGEST = max(map(len, _MAGIC))


def kind_of_container(path: Path) -> str:
    """The kind of container at `path`; "" for a plain file, or one that cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe that nobody writes to is waited for
        try:
            head = os.read(fd, _LONGEST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return ""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def open_container(path: Path, kind: str, *, identity: object, signer: object) -> dict[str, Tensor] | bytes:
    """What a container holds.

    Args:
        path: the file.
        kind: as `kind_of_container` told it.
        identity: what opens it, as the kind takes it.
        signer: who must have signed it; None: nobody has to.

    Raises:
        ConfigError: E161 to E163, when nothing that is installed opens it; E770, without an identity.
        ArtifactRefused: it is damaged, forged, or opened by nothing that was given.
    """
    if identity is None:
        raise ConfigError(
            "E770",
            seen=f"{path.name} is a {kind} file, and nothing is there to open it",
            expected="the key or passphrase that it was sealed for",
            fix="give identity=..., --identity KEY",
        )
    found = registry.entry(CONTAINERS, kind)
    module, _, name = found.target.partition(":")
    try:
        opener: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            "E163",
            seen=f"{kind!r} of {found.distribution} {found.version}: {error}",
            expected=f"{found.target} to import",
            fix=f"repair or uninstall {found.distribution}",
        ) from error
    return opener(path, identity=identity, signer=signer)
