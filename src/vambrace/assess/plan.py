"""The plan of a run as values: what is assessed, on what, how, and what decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vambrace.core.contract import InputContract
from vambrace.core.options import Options, Ratio

if TYPE_CHECKING:
    from vambrace.assess.checks.base import Check

__all__ = ["DataSpec", "GateSpec", "ModelSpec", "Plan", "PlannedCheck", "RunSpec", "TrustSpec"]

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(Options):
    """Where the model comes from.

    Attributes:
        source: path of the weights or the ONNX file; relative to the plan's folder.
        factory: "pkg.mod:fn" that builds the network, for weights without code.
        factory_args: keyword arguments of the factory.
        outputs: what the network emits.
        sha256: refuse the file unless it has this hash; "" does not pin.
    """

    source: str = ""
    factory: str = ""
    factory_args: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    outputs: Literal["logits", "probabilities"] = "logits"
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec(Options):
    """Where samples come from.

    Attributes:
        source: path of a folder, file or zip; "pkg.mod:fn"; or "digits" for the embedded set.
        labels: path of a separate label file (idx), or "".
        limit: at most this many samples, stratified by label; None: all.
    """

    source: str
    labels: str = ""
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustSpec(Options):
    """What may run code.

    Attributes:
        code: importable roots of the user's own code; factories outside them are refused.
        artifacts: SHA-256 of executable model files a human accepted.
    """

    code: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec(Options):
    """One condition on one metric (or on all that match a pattern).

    Attributes:
        metric: `Finding.name`, or a pattern with `*`, such as "natural-*.drop@1"; every match must hold.
        min, max: absolute threshold; exactly one of `min`, `max`, `max_drop` is set.
        max_drop: largest allowed loss against the baseline run, in the metric's unit.
        use: what is compared; None: the end of the interval that is worse (ci_low where higher is better).
        required: a failing optional gate is a warning.
    """

    metric: str
    min: Ratio | None = None
    max: Ratio | None = None
    max_drop: Ratio | None = None
    use: Literal["ci_low", "ci_high", "value"] | None = None
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec(Options):
    """How the run is carried out; none of it but `threads`, `batch`, `chunk` and `device` may change a number.

    Attributes:
        device: torch device the model runs on.
        threads: intra-op threads of every worker; None: fixed by preflight at what the machine offers.
        batch: physical batch; None: probed by preflight.
        chunk: samples in a unit; None: four physical batches.
        workers: processes; 1 runs serially in this one.
        budget: wall seconds for the units; None: no limit.
        images: worst examples saved a check; 0 saves none.
        out: folder that receives run directories; relative to the working folder.
    """

    device: str = "cpu"
    threads: int | None = None
    batch: int | None = None
    chunk: int | None = None
    workers: int = 1
    budget: Ratio | None = None
    images: int = 12
    out: str = "runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCheck:
    """A check with its place in the plan.

    Attributes:
        id: unique in the plan, such as "pgd-linf-0.3".
        check: its options.
        required: a required check that was not measured makes the run incomplete.
        named: True when the user asked for it (a mismatch with the model is then an error, not a line in "left out").
        limit: at most this many samples of the role; None: all that the data spec gives.
    """

    id: str
    check: Check
    required: bool = True
    named: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a run is made of. `gates=None` means "none", said explicitly: measured, not judged.

    Attributes:
        schema: version of the dialect.
        profile: "smoke", "ci" or "full".
        seed: root of every stream.
        model, contract, data, trust, run: see their types; `data` maps role to source.
        checks: in the order they run.
        gates: what decides; None for an explicit "none".
        base: folder of the plan: relative paths of model and data start there, and factories are found there.
    """

    profile: Literal["smoke", "ci", "full"]
    seed: int
    model: ModelSpec
    contract: InputContract
    data: Mapping[str, DataSpec]
    trust: TrustSpec
    run: RunSpec
    checks: tuple[PlannedCheck, ...]
    gates: tuple[GateSpec, ...] | None
    schema: int = 1
    base: str = "."
