"""Obfuscation maps on the command line: sealed, signed, opened, and whose they are.

Whoever knows a public key can seal a map for it. What a map that somebody else has made says of a model, it says for
him: whose copy it is, and that what comes out is the original.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from vambrace.cli.sealing import there
from vambrace.cli.speaking import say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vambrace.assets.obfuscate.record import ObfuscationMap

__all__ = ["check_signer", "open_maps", "say_unproven", "seal_map"]


def check_signer(sign: Path | None) -> None:
    """Refuse a key that cannot sign, before any work is done. Raises as `seal.save`."""
    from vambrace.assets.seal import statement

    statement.hook(sign)


def seal_map(done: ObfuscationMap, by: list[object], sign: Path | None) -> bytes:
    """A map as a sealed file, signed where there is a key for it."""
    from vambrace.assets.seal import saving

    sealed = io.BytesIO()
    saving.save_stream(io.BytesIO(done.to_bytes()), sealed, recipients=by, sign=sign)
    return sealed.getvalue()


def open_maps(maps: Sequence[Path], by: list[object], signers: Sequence[str]) -> list[ObfuscationMap]:
    """The maps in sealed files, each signed by one of `signers` where there are any."""
    from vambrace.assets.obfuscate.record import ObfuscationMap
    from vambrace.assets.seal.loading import load

    found: list[ObfuscationMap] = []
    for path in maps:
        there(path)
        content = load(path, identity=by, signer=signers or None)
        found.append(ObfuscationMap.from_bytes(content if isinstance(content, bytes) else b""))
    return found


def say_unproven(signers: Sequence[str]) -> None:
    """That nobody was asked for."""
    if not signers:
        say("origin of the map not proven: whoever knows a recipient can make one; --signer names whom you accept")
