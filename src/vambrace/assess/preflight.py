"""Preflight: what must hold before a number is worth measuring.

It looks at a few samples and asks the model some questions twice. Unusable form (no tensor, too few
outputs, an exception) ends the run before any unit, with exit 3. Bad behaviour (random, batch-dependent, not
finite answers) becomes flags: the run goes on, and every finding they concern is unreliable.

Thresholds are relative to the spread of the logits: 1e-5 between two equal calls, 1e-3 between
calls that differ in company or position, where kernels may round differently (`assess.constancy`).
A model that raises on a few of the samples can be measured on the others: that is a warning here, and an
error of the units that hold such samples.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vambrace.assess.constancy import put
from vambrace.assess.effort import row_operations
from vambrace.assess.probes import Probe, bad, behaviour_flags, late_flags, score_flags, warn
from vambrace.assess.reduction import quiet
from vambrace.assess.slopes import gradient_flags
from vambrace.assess.worker import memory_error
from vambrace.core.access import Access
from vambrace.core.findings import Finding, Flag, Status
from vambrace.errors import DataRefused, ModelMisbehaved, ModelRefused

if TYPE_CHECKING:
    from vambrace.assess.plan import Plan
    from vambrace.data.batches import Batch, Batches
    from vambrace.models.contract import Model

__all__ = ["Preflight", "preflight"]

PROBES = 32
SCORED = 256
LARGEST_BATCH = 256
REPEATED = 0.01
VALUES_A_BATCH = 2**24
_OF_THE_DATA = frozenset({"E414"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What preflight found and fixed.

    Attributes:
        flags: behaviour that qualifies or voids findings.
        finding: `preflight.ok`, 1.0 when no flag is "unreliable".
        batch: physical batch for every unit.
        threads: intra-op threads for every worker.
        input_shape: shape of one sample.
        spread: largest minus smallest value of the probed samples.
        num_classes: width of the logits.
        clean: share of the scored samples that the model gets right.
        scored: how many samples that share rests on.
        forward_seconds: wall time of one forward row.
        gradient_seconds: wall time of one forward and backward row; None below GRADIENTS access.
        row_operations: what one forward row costs, counted and not timed; see `vambrace.assess.effort`.
    """

    flags: tuple[Flag, ...]
    finding: Finding
    batch: int
    threads: int
    input_shape: tuple[int, ...]
    spread: float
    num_classes: int
    clean: float
    scored: int
    forward_seconds: float
    gradient_seconds: float | None
    row_operations: float

    def remarked(self, flags: Sequence[Flag]) -> Preflight:
        """With further warnings, known only once the checks are chosen; they are named before the others."""
        if not flags:
            return self
        everything = (*flags, *self.flags)
        finding = _finding(everything, n=self.finding.n, gradients=self.gradient_seconds is not None)
        return dataclasses.replace(self, flags=everything, finding=finding)


def preflight(model: Model, batches: Mapping[str, Batches], plan: Plan) -> Preflight:
    """Probe form, range, determinism, gradients, score, batch and cost.

    Args:
        model: the model under assessment.
        batches: data by role; the first role is probed, "eval" where it exists.
        plan: for the device, threads and batch it may already fix.

    Raises:
        ModelRefused: E401..E407, when the model cannot be asked or answers in an unusable form.
        ResourceError: E610, when memory runs out.
        DataRefused: E350 when a role is empty, E351 when values lie outside the bounds.
    """
    for role, source in batches.items():
        if len(source) == 0:
            raise DataRefused(
                "E350", seen=f"no samples in role {role!r}", expected="at least one", fix="check the path and the limit"
            )
    source = batches.get("eval") or next(iter(batches.values()))
    batch = source.read(_spread(len(source), SCORED))
    inputs = batch.inputs.to(model.device, model.dtype)
    labels = batch.labels.to(model.device)
    _check_values(model, batch)
    width = plan.run.batch or _batch(inputs)
    gradient_seconds = None
    try:
        probe = Probe.ask(model, inputs, labels, size=min(PROBES, len(batch)), batch=width)
        known = _check_width(probe.logits.shape[1], batches)
        flags = [*_data_flags(source), *_refusal_flags(probe, batch), *behaviour_flags(probe)]
        flags += score_flags(probe, class_names=source.class_names, known=known)
        if model.access >= Access.GRADIENTS:
            found, gradient_seconds = gradient_flags(model, probe)
            flags += found
        forward_seconds = _forward_seconds(model, probe.inputs[:width])
        operations = row_operations(model, probe.inputs)
        if not any(flag.code == "E420" for flag in flags):
            flags += late_flags(probe)
    except ModelMisbehaved as error:
        raise ModelRefused(error.code, seen=error.seen, expected=error.expected, fix=error.fix) from error
    except Exception as error:
        if starved := memory_error(error):
            raise starved from error
        raise
    right = int((probe.logits.argmax(dim=1) == probe.labels).sum())
    return Preflight(
        flags=tuple(flags),
        finding=_finding(flags, n=len(batch), gradients=model.access >= Access.GRADIENTS),
        batch=width,
        threads=plan.run.threads or torch.get_num_threads(),
        input_shape=tuple(inputs.shape[1:]),
        spread=float(batch.inputs.max() - batch.inputs.min()),
        num_classes=probe.logits.shape[1],
        clean=right / len(batch),
        scored=len(batch),
        forward_seconds=forward_seconds,
        gradient_seconds=gradient_seconds,
        row_operations=operations,
    )


def _data_flags(source: Batches) -> list[Flag]:
    """Data that cannot tell a model from a guess: one class only, or the same few samples again and again."""
    flags: list[Flag] = []
    classes = set(source.labels)
    if len(classes) == 1:
        all_of_them = "the only sample has" if len(source) == 1 else f"all {len(source)} samples have"
        text = f"{all_of_them} label {min(classes)}: a model that always says so is never wrong."
        flags.append(bad("E414", text))
    hashes: Sequence[str] = getattr(source, "hashes", ())
    copies = len(hashes) - len(set(hashes))
    if copies > REPEATED * len(source):
        text = f"{copies} of {len(source)} samples are copies of others, so intervals are narrower than they should be."
        flags.append(warn("E415", text))
    return flags


def _refusal_flags(probe: Probe, batch: Batch) -> list[Flag]:
    places, why = probe.refused
    if not places:
        return []
    names = ", ".join(batch.names[place] for place in places[:3])
    return [warn("E406", f"on {len(places)} of {len(batch)} probed samples (such as {names}) {quiet(why)}.")]


def _finding(flags: Sequence[Flag], *, n: int, gradients: bool) -> Finding:
    worst = next((flag for flag in flags if flag.level == "unreliable"), None)
    failed = worst is not None
    if worst is not None:
        whose = "data" if worst.code in _OF_THE_DATA else "model's behaviour"
        sentence = f"The {whose} takes the meaning from all numbers: {worst.text}"
    elif flags:
        sentence = f"The model can be measured, with {len(flags)} remark{'' if len(flags) == 1 else 's'}."
    else:
        held = "Form, range, determinism and gradients" if gradients else "Form, range and determinism"
        sentence = f"{held} hold on {n} probed samples."
    return Finding(
        check="preflight",
        family="preflight",
        metric="ok",
        value=0.0 if failed else 1.0,
        n=n,
        status=Status.UNRELIABLE if failed else (Status.WARN if flags else Status.MEASURED),
        sentence=sentence,
        reason=worst.text if worst is not None else "",
        unit="share",
        flags=tuple(flags),
    )


def _check_values(model: Model, batch: Batch) -> None:
    """Inputs outside the bounds would make every eps and every projection a lie."""
    if model.bounds is None:
        return
    inputs = batch.inputs
    outside = ~model.bounds.contains(inputs, tolerance=1e-6 * model.bounds.span)
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise DataRefused(
            "E351",
            seen=f"{batch.names[first]} spans [{float(inputs[first].min()):.4g}, {float(inputs[first].max()):.4g}]",
            expected=f"values inside the bounds {model.bounds.as_json()}",
            fix=_range_hint(inputs, model),
        )


def _range_hint(inputs: torch.Tensor, model: Model) -> str:
    low, high = float(inputs.min()), float(inputs.max())
    if low < 0 and high < 10:
        return "the data looks normalised already: feed raw values, and give --mean and --std to the model instead"
    if low >= 0 and 1.5 < high <= 255:
        return "the data looks like 0..255: use --bounds 0,255, or store it as uint8 with --bounds 0,1"
    return f"state the true range with --bounds {low:.4g},{high:.4g}"


def _check_width(width: int, batches: Mapping[str, Batches]) -> int:
    largest = max(max(source.labels) for source in batches.values())
    if largest >= width:
        raise ModelRefused(
            "E407",
            seen=f"{width} outputs, but labels up to {largest}",
            expected=f"at least {largest + 1} outputs",
            fix="check that the model and the data belong together, and the class order with --classes",
        )
    return max(largest + 1, *(len(source.class_names) for source in batches.values()))


def _spread(n: int, wanted: int) -> list[int]:
    """`wanted` positions spread evenly over n, so that data sorted by class shows every class."""
    return sorted({i * n // wanted for i in range(wanted)}) if n > wanted else list(range(n))


def _batch(inputs: torch.Tensor) -> int:
    """A power of two that keeps a batch of inputs below 64 MiB: a rule and no timing, so equal plans stay equal."""
    fit = max(1, VALUES_A_BATCH // max(1, inputs[0].numel()))
    return min(LARGEST_BATCH, 1 << (fit.bit_length() - 1))


def _forward_seconds(model: Model, inputs: torch.Tensor) -> float:
    began = time.perf_counter()
    put(model, inputs, len(inputs))
    return (time.perf_counter() - began) / len(inputs)
