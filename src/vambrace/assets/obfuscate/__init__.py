"""Obfuscation of models: the same function, harder to read and to tell where it comes from. It is not encryption.

    from vambrace.assets import obfuscate

    obfuscated = obfuscate.onnx_model("net.onnx", profile="exact")
    locked = obfuscate.lock(obfuscated.model, key)
    model = obfuscate.load_model("locked.onnx", key=key)

What it does and costs is measured by `vambrace.assets.obfuscate.measure`. Names are resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.budget import plan_passes
    from vambrace.assets.obfuscate.compiled import Compiled, try_compile
    from vambrace.assets.obfuscate.keyinput import key_tensor, lock_by_input
    from vambrace.assets.obfuscate.locked import load_model
    from vambrace.assets.obfuscate.locking import Survey, lock, survey, unlock
    from vambrace.assets.obfuscate.passes import pass_names, profile_names
    from vambrace.assets.obfuscate.pipeline import Obfuscated, Undone, onnx_model, undo
    from vambrace.assets.obfuscate.planning import Fitted, LeftOut, Moved, Planned
    from vambrace.assets.obfuscate.program_answers import compare_programs
    from vambrace.assets.obfuscate.record import ObfuscationMap
    from vambrace.assets.obfuscate.torch_graph import (
        ObfuscatedProgram,
        UndoneProgram,
        exported_program,
        undo_program,
    )
    from vambrace.assets.obfuscate.tracing import Match, trace

__all__ = [
    "Compiled",
    "Fitted",
    "LeftOut",
    "Match",
    "Moved",
    "Obfuscated",
    "ObfuscatedProgram",
    "ObfuscationMap",
    "Planned",
    "Survey",
    "Undone",
    "UndoneProgram",
    "compare_programs",
    "exported_program",
    "key_tensor",
    "load_model",
    "lock",
    "lock_by_input",
    "onnx_model",
    "pass_names",
    "plan_passes",
    "profile_names",
    "survey",
    "trace",
    "try_compile",
    "undo",
    "undo_program",
    "unlock",
]

_HOMES = {
    "Compiled": "compiled",
    "Fitted": "planning",
    "LeftOut": "planning",
    "Match": "tracing",
    "Moved": "planning",
    "Obfuscated": "pipeline",
    "ObfuscatedProgram": "torch_graph",
    "ObfuscationMap": "record",
    "Planned": "planning",
    "Survey": "locking",
    "Undone": "pipeline",
    "UndoneProgram": "torch_graph",
    "compare_programs": "program_answers",
    "exported_program": "torch_graph",
    "key_tensor": "keyinput",
    "load_model": "locked",
    "lock": "locking",
    "lock_by_input": "keyinput",
    "onnx_model": "pipeline",
    "pass_names": "passes",
    "plan_passes": "budget",
    "profile_names": "passes",
    "survey": "locking",
    "trace": "tracing",
    "try_compile": "compiled",
    "undo": "pipeline",
    "undo_program": "torch_graph",
    "unlock": "locking",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
