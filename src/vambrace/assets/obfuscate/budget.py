"""The passes of a profile that fit into a budget of latency, measured on this machine with inputs of the caller."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, cast

from vambrace.assets.obfuscate.keyed import as_key
from vambrace.assets.obfuscate.measure.inputs import read_rows
from vambrace.assets.obfuscate.measure.overhead import OverheadOptions, latency
from vambrace.assets.obfuscate.measure.runtime import Network, load
from vambrace.assets.obfuscate.passes import pass_class, profile_names
from vambrace.assets.obfuscate.pipeline import SHARES, onnx_model
from vambrace.assets.obfuscate.planning import plan
from vambrace.core.rng import Streams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.measure.overhead import Ratio
    from vambrace.assets.obfuscate.passes.base import Pass, Profile
    from vambrace.assets.obfuscate.planning import Planned

__all__ = ["plan_passes"]

_ROUNDS = 31
"""Fewer than the report takes: a plan compares many models."""


def plan_passes(
    source: str | Path | Any,  # noqa: ANN401  onnx.ModelProto
    inputs: NDArray[Any] | Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]],
    budget: float,
    *,
    profile: Profile = "exact",
    ratio: Literal["small", "medium", "large"] = "medium",
    seed: int | bytes | None = None,
) -> Planned:
    """Passes for `onnx_model` whose latency fits, as far as the passes that cost anything can be left out.

    Args:
        source: path of an .onnx file or an onnx.ModelProto.
        inputs: real samples (n, ...), as for `measure`.
        budget: latency relative to the original, such as 1.05.
        profile: whose passes.
        ratio: how many places passes with a cost take at first.
        seed: as for `onnx_model`; another one takes other places, which may cost something else.

    Raises:
        ConfigError: E800, E802, as `onnx_model`; E820 for inputs, E839 for a budget that is none.
        ArtifactRefused: E821, E822, for a model that does not run.
        ModelRefused: E230 to E235, for a file.
    """
    original, key = load(source), as_key(seed)
    real = read_rows(inputs, Network(original), batch=1)
    options = OverheadOptions(rounds=_ROUNDS)
    wanted = [_shared(pass_class(name)(), SHARES[ratio]) for name in profile_names(profile)]
    known: dict[tuple[object, ...], float] = {(): 1.0}

    def measured(passes: Sequence[Pass]) -> float:
        made = onnx_model(original, profile=profile, passes=passes, seed=key)
        entries = made.map.passes
        # What was done nowhere, or only to names and weights, runs the same graph.
        costly = tuple((entry.name, entry.done) for entry in entries if entry.name not in _FREE and entry.done)
        if costly not in known:
            found = latency(original, load(made.model), real, options=options, keys=None, rng=Streams(0))
            known[costly] = _at_most(found[0]["cpu"])
        return known[costly]

    return plan(wanted, budget, measured)


def _at_most(found: Ratio) -> float:
    """The upper end of the median's interval: what may be over the budget is, however busy the machine."""
    return found.interval.high if found.interval else found.median


_FREE = frozenset({"baked_permutation", "metadata", "names", "order", "rebasis", "scaling", "signs"})


def _shared(one: Pass, share: float) -> Pass:
    if getattr(one, "share", 0.0) is None:
        return cast("Pass", dataclasses.replace(cast("Any", one), share=share))
    return one
