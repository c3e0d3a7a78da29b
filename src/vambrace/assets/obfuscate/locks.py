"""Models locked by a key, told by their metadata, where something is asked that only a model in order can answer."""

from __future__ import annotations

from typing import Any

from vambrace.assets.obfuscate import key_entry, lock_entry
from vambrace.errors import ModelRefused

__all__ = ["lock_of", "not_led_back", "not_traced"]

_WEIGHTS = "a locked model, whose weights are out of order"
_INPUT = "a model that takes a key as an input, since it was locked so"


def lock_of(model: Any) -> str | None:  # noqa: ANN401  onnx.ModelProto
    """The metadata entry of the lock that a model has, or None where it has none."""
    entries = {each.key for each in model.metadata_props}
    return next((entry for entry in (lock_entry.ENTRY, key_entry.ENTRY) if entry in entries), None)


def not_led_back(lock: str) -> ModelRefused:
    """E855, for a locked model and a map: maps go with models in order."""
    if _is_of_weights(lock):
        return _locked(
            _WEIGHTS,
            "the model in order, with which the map goes",
            "give --key-file KEY to `vambrace restore` as well, or obfuscate.unlock(model, key) first",
        )
    return _locked(
        _INPUT,
        "the model as it was before, with which the map goes",
        "give the model that lock_by_input was given: what it made has no way back",
    )


def not_traced(lock: str) -> ModelRefused:
    """E855, for a locked model in which no copy shows: the lock hides whose it is."""
    if _is_of_weights(lock):
        return _locked(
            f"{_WEIGHTS}, so that no copy shows in them",
            "a model in order",
            "give --key-file KEY to `vambrace trace` as well, or obfuscate.unlock(model, key) first",
        )
    return _locked(
        f"{_INPUT}, and no copy shows in it",
        "a model whose channels are in order",
        f"compare the salt in its metadata entry {lock} with those of the files that you gave away; each has its own",
    )


def _is_of_weights(lock: str) -> bool:
    return lock == lock_entry.ENTRY


def _locked(seen: str, expected: str, fix: str) -> ModelRefused:
    return ModelRefused("E855", seen=seen, expected=expected, fix=fix)
