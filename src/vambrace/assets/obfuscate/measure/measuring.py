"""Every measure of one obfuscated model, in one call.

    report = measure("net.onnx", obfuscated.model, inputs)
    report.passed
    Path("report.html").write_text(report.html())

Nothing is known of how the model was obfuscated. What takes more than the two models is given: the locked file for the
re-identification at rest and for what it does without its key, and the classifier's rows, which are a property of the
obfuscator and not of one model (`vambrace.assets.obfuscate.measure.classifier.classify`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.measure import judging
from vambrace.assets.obfuscate.measure.alignment import align
from vambrace.assets.obfuscate.measure.deobfuscator import TakenApart, take_apart
from vambrace.assets.obfuscate.measure.equality import EqualityOptions, compare_answers
from vambrace.assets.obfuscate.measure.gates import Gates
from vambrace.assets.obfuscate.measure.inputs import random_rows, read_rows
from vambrace.assets.obfuscate.measure.keyless import KeylessOptions, try_without_key
from vambrace.assets.obfuscate.measure.overhead import OverheadOptions, measure_cost
from vambrace.assets.obfuscate.measure.readability import read_structure
from vambrace.assets.obfuscate.measure.report import Apart, Report
from vambrace.assets.obfuscate.measure.runtime import Network, load
from vambrace.assets.obfuscate.measure.survival import TOOLS, Tool, try_tools
from vambrace.core.options import Options
from vambrace.core.options import require as hold
from vambrace.core.rng import Streams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.classifier import Classified
    from vambrace.assets.obfuscate.measure.equality import Decide
    from vambrace.assets.obfuscate.measure.inputs import Rows

__all__ = ["MeasureOptions", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions(Options):
    """How much is measured.

    Attributes:
        equality: settings and rows.
        overhead: rounds and processes.
        keyless: wrong keys that are tried on a locked file, and rows.
        tools: simplifiers to survive.
        apart: real rows that the de-obfuscator may run the model on, at least 2; 0 leaves it out.
        batch: rows of a call, where the model leaves that free.
    """

    equality: EqualityOptions = EqualityOptions()
    overhead: OverheadOptions = OverheadOptions()
    keyless: KeylessOptions = KeylessOptions()
    tools: tuple[Tool, ...] = TOOLS
    apart: int = 4
    batch: int = 1

    def __post_init__(self) -> None:
        hold(
            set(self.tools) <= set(TOOLS) and (self.apart == 0 or self.apart >= 2) and self.batch >= 1,
            code="E820",
            seen=f"tools {self.tools}, {self.apart} rows for the de-obfuscator, batches of {self.batch}",
            expected=f"tools of {', '.join(TOOLS)}, 0 rows or at least 2, batches of at least 1",
            fix="leave them out",
        )


def measure(
    original: ModelProto | Path | str,
    obfuscated: ModelProto | Path | str,
    inputs: NDArray[Any] | Sequence[NDArray[Any]] | Mapping[str, NDArray[Any]],
    *,
    gates: Gates | None = None,
    options: MeasureOptions | None = None,
    at_rest: ModelProto | Path | str | None = None,
    keys: Mapping[str, NDArray[Any]] | None = None,
    classified: Classified | None = None,
    decide: Decide | None = None,
    name: str = "model",
    left_out: Mapping[str, str] | None = None,
    rng: Streams | int = 0,
) -> Report:
    """Measure an obfuscated model beside its original.

    Args:
        original: an onnx.ModelProto or a file.
        obfuscated: the same, ready to run: for a key-locked model, after unlocking.
        inputs: real samples (n, ...): an array, arrays in the order of the original's inputs, or arrays by name.
        gates: thresholds.
        options: how much is measured.
        at_rest: the locked file as it lies on disk, for re-identification at rest and for what it does without its key.
        keys: inputs that only the obfuscated model has, by name.
        classified: rows of the architecture classifier for this obfuscator and profile.
        decide: from the outputs of a call to whole numbers: what the model is used for, in place of top-1.
        name: of the model, for the report.
        left_out: passes that were not done, and why, for the report.
        rng: of random rows and intervals.

    Raises:
        ConfigError: E820, for inputs that the original does not take.
        ArtifactRefused: E821 a model that cannot be used, E822 that does not run, E823 that is no pair.
        ModelRefused: E230 to E235, for files.
    """
    chosen, thresholds = options or MeasureOptions(), gates or Gates()
    streams = rng if isinstance(rng, Streams) else Streams(rng)
    first, second = load(original), load(obfuscated)
    real = read_rows(inputs, Network(first), batch=chosen.batch)
    same = compare_answers(first, second, real, options=chosen.equality, keys=keys, decide=decide, rng=streams)
    cost = measure_cost(first, second, real, options=chosen.overhead, keys=keys)
    read = read_structure(first, second)
    survived = try_tools(first, second, read, tools=chosen.tools)
    aligned = align(first, second)
    rest = load(at_rest) if at_rest is not None else None
    locked = align(first, rest, truth=aligned) if rest is not None else None
    keyless = (
        try_without_key(first, rest, real, options=chosen.keyless, decide=decide, rng=streams.child("keyless"))
        if rest is not None
        else None
    )
    judged = [
        *judging.judge_equality(same, thresholds),
        *judging.judge_overhead(cost, thresholds),
        *judging.judge_names(read, thresholds),
        *judging.judge_survival(survived, thresholds),
        *judging.judge_classifier(classified, thresholds),
        *judging.judge_keyless(keyless, thresholds),
        *judging.judge_locked(locked, thresholds),
    ]
    return Report(
        name=name,
        digests=(_digest(first), _digest(second)),
        rows=len(real),
        gates=thresholds,
        judged=tuple(judged),
        equality=same,
        overhead=cost,
        readability=read,
        survival=survived,
        alignment=aligned,
        locked=locked,
        keyless=keyless,
        apart=_apart(first, second, real, chosen, keys, streams),
        classified=classified,
        left_out=left_out or {},
    )


def _apart(
    original: ModelProto,
    obfuscated: ModelProto,
    real: Rows,
    chosen: MeasureOptions,
    keys: Mapping[str, NDArray[Any]] | None,
    rng: Streams,
) -> Apart | None:
    """The de-obfuscator on both models: what it leaves of the obfuscated one beside the original and beside its own."""
    calls = chosen.apart * real.batch
    if not chosen.apart:
        return None
    # One row says nothing about what is constant; random ones of the same range stand in for those that are missing.
    seen = real.first(calls) if len(real) >= calls else random_rows(real, calls, rng.child("apart"))
    other = random_rows(real, 2 * real.batch, rng.child("other"))

    def taken(model: ModelProto, given: Mapping[str, NDArray[Any]] | None) -> TakenApart:
        return take_apart(model, seen, other, keys=given)

    plain, left = taken(original, None), taken(obfuscated, keys)
    return Apart(
        taken=left,
        after=read_structure(original, left.model),
        after_both=read_structure(plain.model, left.model),
        aligned=align(original, left.model),
    )


def _digest(model: ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
