"""The plan of a run as values: what is assessed, on what, how, and what decides."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from vambrace.core.contract import InputContract
from vambrace.core.options import Duration, Options, Ratio, require

if TYPE_CHECKING:
    from vambrace.assess.checks.base import Check

__all__ = ["DataSpec", "GateSpec", "ModelSpec", "Plan", "PlannedCheck", "ROLES", "RunSpec", "TrustSpec"]

ROLES = ("eval", "members", "nonmembers")
_Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(Options):
    """Where the model comes from.

    Attributes:
        source: path of the weights or the ONNX file; relative to the plan's folder.
        factory: "pkg.mod:fn" that builds the network, for weights without code.
        factory_args: keyword arguments of the factory.
        outputs: what the network emits.
        sha256: refuse the file unless it has this hash; "" does not pin.
        identity: path of the key file that opens a sealed file; relative to the plan's folder.
        signer: path of the public key of who must have signed a sealed file; the same. "" asks nobody.
    """

    source: str = ""
    factory: str = ""
    factory_args: Mapping[str, _Scalar] = field(default_factory=dict[str, _Scalar])
    outputs: Literal["logits", "probabilities"] = "logits"
    sha256: str = ""
    identity: str = ""
    signer: str = ""

    def __post_init__(self) -> None:
        _require_hash(self.sha256, empty=True)


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

    def __post_init__(self) -> None:
        _require_positive("limit", self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustSpec(Options):
    """What may run code.

    Attributes:
        code: importable roots of the user's own code; factories outside them are refused.
        artifacts: SHA-256 of executable model files a human accepted.
    """

    code: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for each in self.artifacts:
            _require_hash(each)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec(Options):
    """One condition on one metric (or on all that match a pattern).

    Attributes:
        metric: `Finding.name`, or a pattern with `*`, such as "natural-*.drop@1"; every match must hold.
        min, max: absolute threshold; exactly one of `min`, `max`, `max_drop` is set.
        max_drop: largest allowed loss against the baseline run, in the metric's unit; a loss is what got worse.
        use: what is compared: the number ("value") or an end of its 95 % interval; None: the end that is worse (ci_low
            where higher is better; for `max_drop` the upper end of the loss).
        required: a failing optional gate is a warning.
    """

    metric: str
    min: Ratio | None = None
    max: Ratio | None = None
    max_drop: Ratio | None = None
    use: Literal["ci_low", "ci_high", "value"] | None = None
    required: bool = True

    def __post_init__(self) -> None:
        given = [name for name in ("min", "max", "max_drop") if getattr(self, name) is not None]
        require(
            len(given) == 1,
            seen=f"a gate on {self.metric!r} with {' and '.join(given) or 'no threshold'}",
            expected="exactly one of min, max, max_drop",
            fix="write one gate for each condition",
            code="E530",
        )
        threshold = getattr(self, given[0])
        require(
            math.isfinite(threshold) and (self.max_drop is None or threshold >= 0),
            seen=f"a gate on {self.metric!r} with {given[0]} {threshold}",
            expected="a finite threshold; for max_drop 0 or more",
            fix="correct the threshold",
            code="E530",
        )
        require(
            bool(re.fullmatch(r"[^\s.]\S*\.\S+", self.metric)),
            seen=f"a gate on {self.metric!r}",
            expected="check.metric, such as clean.accuracy, or a pattern such as natural-*.drop@1",
            fix="`vambrace report RUN --to json` shows the names of a run's findings",
            code="E530",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec(Options):
    """How the run is carried out; none of it but `threads`, `batch`, `chunk` and `device` may change a number.

    Attributes:
        device: torch device the model runs on, such as "cpu" or "cuda:0".
        threads: intra-op threads of every worker; None: fixed by preflight at what the machine offers.
        batch: physical batch; None: probed by preflight.
        chunk: samples in a unit; None: as few as the work of a check demands, at most four physical batches.
        workers: processes; 1 runs serially in this one.
        budget: wall time after which no unit begins, such as "10m", or seconds; None: no limit. The units in flight are
            finished first.
        images: worst examples that a check shows; 0 saves none. Files hold more: no unit knows what the others found.
        out: folder that receives run directories; relative to the working folder.
    """

    device: str = "cpu"
    threads: int | None = None
    batch: int | None = None
    chunk: int | None = None
    workers: int = 1
    budget: Duration | None = None
    images: int = 12
    out: str = "runs"

    def __post_init__(self) -> None:
        for name in ("threads", "batch", "chunk", "workers"):
            _require_positive(name, getattr(self, name))
        require(
            self.budget is None or 0 < self.budget < math.inf,
            seen=f"budget {self.budget}",
            expected="more than 0 seconds",
            fix='give a time such as "10m", or leave it out',
        )
        require(self.images >= 0, seen=f"images {self.images}", expected="0 or more", fix="use 0 to save none")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCheck:
    """A check with its place in the plan.

    Attributes:
        id: unique in the plan, such as "pgd-linf-0.3": letters, digits, ".", "_" and "-".
        check: its options.
        required: a required check that was not measured makes the run incomplete.
        named: True when the user asked for it (a mismatch with the model is then an error, not a line in "left out").
        limit: at most this many samples of the role; None: all that the data spec gives.
        chunk: samples in a unit, fixed before the first unit (`vambrace.assess.effort`); None: those of the run.
    """

    id: str
    check: Check
    required: bool = True
    named: bool = False
    limit: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        require(
            bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.id)) and self.id != "preflight",
            seen=f"the check id {self.id!r}",
            expected='1 to 64 letters, digits, ".", "_" and "-"; "preflight" is taken',
            fix="choose another id",
            code="E168",
        )
        _require_positive("limit", self.limit)
        _require_positive("chunk", self.chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a run is made of. `gates=None` means "none", said explicitly: measured, not judged.

    Attributes:
        schema: version of the dialect.
        profile: "smoke", "ci" or "full".
        seed: root of every stream, 0 to 2**53.
        model, contract, data, trust, run: see their types; `data` maps role ("eval", "members", "nonmembers") to
            source.
        checks: in the order they run; empty until the profile has chosen (`vambrace.assess.presets`).
        gates: what decides; None for an explicit "none". Those of a plan, until the shipped ones are put beside them
            (`vambrace.assess.shipped`).
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

    def __post_init__(self) -> None:
        require(
            type(self.seed) is int and 0 <= self.seed <= 2**53,
            seen=f"seed {self.seed!r}",
            expected="a whole number from 0 to 2**53",
            fix="use a seed such as 0",
            code="E104",
        )
        odd = sorted(set(self.data) - set(ROLES))
        require(
            not odd,
            seen=f"data for {', '.join(odd)}",
            expected=f"data for {', '.join(ROLES)}",
            fix="rename the table",
            code="E168",
        )
        ids = [planned.id for planned in self.checks]
        twice = sorted({each for each in ids if ids.count(each) > 1})
        require(
            not twice,
            seen=f"two checks called {', '.join(twice)}",
            expected="one name for each check: gates and findings are addressed by it",
            fix='give one of them its own id = "..."',
            code="E168",
        )


def _require_positive(name: str, value: int | None) -> None:
    require(
        value is None or value >= 1, seen=f"{name} {value}", expected="1 or more", fix=f"raise {name}, or leave it out"
    )


def _require_hash(value: str, *, empty: bool = False) -> None:
    require(
        (empty and not value) or bool(re.fullmatch(r"[0-9a-f]{64}", value)),
        seen=f"the hash {value!r}",
        expected="64 lower-case hexadecimal digits",
        fix="take the output of `sha256sum FILE`",
    )
