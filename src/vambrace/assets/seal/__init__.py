"""Sealed files: any file, folder or set of tensors, for chosen readers only. Format: docs/formats/sealed-v1.md.

    from vambrace.assets import seal

    key = seal.generate("mlkem768-x25519")
    seal.save(net.state_dict(), "net.sealed", recipients=[key.public()])
    weights = seal.load("net.sealed", identity=key)

Names are resolved on first use: nothing but tensors needs torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace.assets.seal.checkpoints import Checkpoints
    from vambrace.assets.seal.keys import Public, Secret, generate
    from vambrace.assets.seal.kms import Kms
    from vambrace.assets.seal.loading import lazy, load, open_sealed
    from vambrace.assets.seal.memory import Memory
    from vambrace.assets.seal.passphrase import Argon2id, Passphrase, Scrypt
    from vambrace.assets.seal.reader import Reader
    from vambrace.assets.seal.rekeying import rekey
    from vambrace.assets.seal.rewrapping import rewrap
    from vambrace.assets.seal.saving import save, save_stream
    from vambrace.assets.seal.sealed import Sealed
    from vambrace.assets.seal.sessions import session
    from vambrace.assets.seal.signing import sign
    from vambrace.assets.seal.suites import Suite
    from vambrace.assets.seal.verifying import verify
    from vambrace.assets.seal.writer import Writer

__all__ = [
    "Argon2id",
    "Checkpoints",
    "Kms",
    "Memory",
    "Passphrase",
    "Public",
    "Reader",
    "Scrypt",
    "Sealed",
    "Secret",
    "Suite",
    "Writer",
    "generate",
    "lazy",
    "load",
    "open_sealed",
    "rekey",
    "rewrap",
    "save",
    "save_stream",
    "session",
    "sign",
    "verify",
]

_HOMES = {
    "Argon2id": "passphrase",
    "Checkpoints": "checkpoints",
    "Kms": "kms",
    "Memory": "memory",
    "Passphrase": "passphrase",
    "Public": "keys",
    "Reader": "reader",
    "Scrypt": "passphrase",
    "Sealed": "sealed",
    "Secret": "keys",
    "Suite": "suites",
    "Writer": "writer",
    "generate": "keys",
    "lazy": "loading",
    "load": "loading",
    "open_sealed": "loading",
    "rekey": "rekeying",
    "rewrap": "rewrapping",
    "save": "saving",
    "save_stream": "saving",
    "session": "sessions",
    "sign": "signing",
    "verify": "verifying",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
