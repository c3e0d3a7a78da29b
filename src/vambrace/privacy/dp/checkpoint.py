"""Checkpoints of private training: what training needs to go on, and which ledger it must go on with.

    save_checkpoint(
        folder / "last",
        module_state=module.state_dict(),
        optimizer_state=optimizer.state_dict(),
        extra={"clip_norm": 0.7},
        ledger_head=ledger.head,
        ledger_position=ledger.position,
    )
    ...
    checkpoint = load_checkpoint(folder / "last", ledger)  # refused with any other ledger, or an older state of it
    step = ledger.steps

A checkpoint holds no number of steps: training goes on at `ledger.steps`, so restoring an old one is fine and gains
nothing. It holds no secret either: the tree codec refuses bytes and generators, which keys and the states of noise are
made of. Written whole or not at all, no pickle. Format: docs/formats/dp-ledger-v1.md. Not for
models larger than memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vambrace.core.files import read_file, write_file
from vambrace.core.tree import decode, encode
from vambrace.errors import ConfigError
from vambrace.privacy.dp.history import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vambrace.privacy.dp.ledger import Ledger

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = "vambrace-dp-checkpoint/1"

Tree = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What was saved, tensors on the CPU.

    Attributes:
        module_state: for `module.load_state_dict`.
        optimizer_state: for `optimizer.load_state_dict`.
        extra: whatever else the trainer kept.
    """

    module_state: dict[str, Tree]
    optimizer_state: dict[str, Tree]
    extra: Tree


def save_checkpoint(
    path: Path,
    *,
    module_state: Mapping[str, Tree],
    optimizer_state: Mapping[str, Tree],
    extra: Tree,
    ledger_head: str,
    ledger_position: int,
) -> None:
    """Write a checkpoint, replacing what was at `path`, whole or not at all.

    Args:
        path: the file.
        module_state: `module.state_dict()`.
        optimizer_state: `optimizer.state_dict()`.
        extra: a tree, see `vambrace.core.tree`: no number of steps, no secret.
        ledger_head: `ledger.head`, now.
        ledger_position: `ledger.position`, now.

    Raises:
        ConfigError: E109, for a state that is no tree, with the path of what is not.
        ResourceError: E601, when it cannot be written.
    """
    content = {
        "format": FORMAT,
        "ledger_head": ledger_head,
        "ledger_position": ledger_position,
        "module_state": module_state,
        "optimizer_state": optimizer_state,
        "extra": extra,
    }
    write_file(path, encode(content))


def load_checkpoint(path: Path, ledger: Ledger) -> Checkpoint:
    """What `save_checkpoint` wrote, if `ledger` has charged all that it had charged by then.

    Raises:
        ConfigError: E111 for a damaged file; E585 when there is none, or the ledger is older than the checkpoint or
            another one.
        ResourceError: E604, when it cannot be read.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise refusal(f"no checkpoint at {path}", "a checkpoint", "check the path") from None
    match content := decode(data):
        case {
            "format": "vambrace-dp-checkpoint/1",
            "ledger_head": str(head),
            "ledger_position": int(position),
            "module_state": dict(),
            "optimizer_state": dict(),
            "extra": _,
        } if len(content) == 6 and position >= 0 and type(position) is int:
            pass
        case _:
            raise ConfigError(
                "E111",
                seen=f"{path} is not a checkpoint of private training, or of another version",
                expected=FORMAT,
                fix="name a file that save_checkpoint wrote, or read it with the release that did",
            )
    chain = ledger.history.chain
    if chain[position : position + 1] != [head]:
        raise refusal(
            f"{ledger.path} {'is older than' if position >= len(chain) else 'is not the ledger of'} {path}",
            "the ledger that the checkpoint was made with, and all that it has charged since",
            "bring that ledger back; without it nobody knows what was spent",
        )
    return Checkpoint(
        module_state=content["module_state"], optimizer_state=content["optimizer_state"], extra=content["extra"]
    )
