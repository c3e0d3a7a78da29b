"""What a run found, as values that the report, the gates and other tools read.

A `Finding` is one number about one check with its interval, sample size, cost and evidence. What was
not measured never passes: a finding without a value is `not_measured`, `unreliable` or `error`, and
gates treat all three as not passed. Everything here is JSON data: `as_json` and `from_json` are inverse.

    >>> Status("measured") is Status.MEASURED
    True
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Cost",
    "Evidence",
    "Finding",
    "Flag",
    "GateResult",
    "Interval",
    "Left",
    "Results",
    "Status",
    "Verdict",
]

Json = Any  # JSON data: None, bool, int, float, str, list or dict of the same


class Status(StrEnum):
    """How a finding stands."""

    PASS = "pass"  # noqa: S105  a verdict, not a password
    """A gate judged it and it holds."""
    FAIL = "fail"
    """A gate judged it and it does not hold."""
    WARN = "warn"
    """Measured, with something the reader must know."""
    MEASURED = "measured"
    """Measured; no gate judges it."""
    NOT_MEASURED = "not_measured"
    """No number: the data, the access or the budget did not allow one."""
    UNRELIABLE = "unreliable"
    """There is a number, but the model's behaviour makes it meaningless."""
    ERROR = "error"
    """The measurement itself failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval and how it was computed ("wilson", "bootstrap", "bonett-price", ...)."""

    low: float
    high: float
    method: str
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Model work in rows (one sample through the model once).

    `forwards`, `backwards`, `queries` are logical: what the samples needed up to their stop.
    `verifications` confirm successes. `idle_*` and `padding_*` rows ran beside them; logical +
    verification + idle + padding is what an independent counter at the model sees.
    """

    forwards: int = 0
    backwards: int = 0
    verifications: int = 0
    queries: int = 0
    idle_forwards: int = 0
    idle_backwards: int = 0
    padding_forwards: int = 0
    padding_backwards: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Something about the model or the method that changes how a number must be read.

    Attributes:
        code: the page that `vambrace explain` prints.
        level: "unreliable" takes the number's meaning away, "warn" qualifies it.
        text: one plain sentence.
        families: the families of findings it concerns; empty: all.
    """

    code: str
    level: Literal["unreliable", "warn"]
    text: str
    families: tuple[str, ...] = ()

    def concerns(self, family: str) -> bool:
        """Whether findings of `family` must be read with this flag in mind."""
        return not self.families or family in self.families

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Flag:
        """The inverse of the flag's JSON form."""
        return cls(**_with(data, families=tuple(data.get("families", ()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A saved input that shows a finding.

    Attributes:
        finding: identifier for `vambrace replay RUN FINDING`, unique in the run.
        kind: "adversarial" or "perturbed".
        file: content-addressed path below the run directory, safetensors with `clean` and `changed`.
        sample: the sample's id in decimal digits: ids have 63 bits and JSON numbers 53.
        data: what replay must reproduce: label, prediction, norm, eps, distance, names of classes.
    """

    finding: str
    kind: str
    file: str
    sample: str
    data: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One number about one check.

    Attributes:
        check: the check's id in the plan, such as "pgd-linf".
        family: "preflight", "clean", "adversarial", "natural", "membership" or "dp"; groups the report.
        metric: name of the number, unique within the check, such as "robust_accuracy@0.3".
        value: the number, or None where there is none.
        unit: "share" (0..1, shown as per cent), "points", "count", "distance", "auc", or another word.
        interval: 95 % interval, where one exists.
        n: samples behind the number.
        higher_is_better: which end of the interval a gate judges by default.
        status: see `Status`.
        sentence: one plain sentence that a manager can read aloud.
        reason: for not_measured, unreliable and error: why, in one sentence; else "".
        flags: what changes how the number must be read.
        cost: model work spent on the check that produced it.
        parameters: the method's options and the point measured, JSON.
        series: points for pictures, JSON, such as {"eps": [...], "accuracy": [...], "low": [...], "high": [...]}.
        evidence: saved inputs.
    """

    check: str
    family: str
    metric: str
    value: float | None
    n: int
    status: Status
    sentence: str
    unit: str = "share"
    interval: Interval | None = None
    higher_is_better: bool = True
    reason: str = ""
    flags: tuple[Flag, ...] = ()
    cost: Cost = field(default_factory=Cost)
    parameters: Mapping[str, Json] = field(default_factory=dict[str, Json])
    series: Mapping[str, Json] = field(default_factory=dict[str, Json])
    evidence: tuple[Evidence, ...] = ()

    @property
    def name(self) -> str:
        """How gates and people address the number: `check.metric`."""
        return f"{self.check}.{self.metric}"

    def as_json(self) -> dict[str, Json]:
        """The finding as it stands in results.json."""
        return cast("dict[str, Json]", _plain(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Finding:
        """The inverse of `as_json`."""
        return _finding(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate said about one number.

    Attributes:
        gate: the gate as text, such as "clean.accuracy ci_low >= 0.9".
        finding: `Finding.name` it judged; the pattern where nothing matched.
        status: pass, fail or not_measured (the number is missing, unreliable or in error).
        observed: the value compared, or None.
        threshold: the value it was compared with, or None.
        required: whether it decides the exit code.
        sentence: one plain sentence.
    """

    gate: str
    finding: str
    status: Status
    observed: float | None
    threshold: float | None
    required: bool
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Something that was left out, and why: the report's "what was not tested"."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The run in one line.

    Attributes:
        exit_code: what `vambrace assess` exits with.
        word: "PASS", "FAIL", "INCOMPLETE", "UNRELIABLE", "RESOURCES", "MEASURED, NOT JUDGED", "ERROR", "INTERRUPTED".
        sentences: plain sentences, the first one decides what a hurried reader takes away.
    """

    exit_code: int
    word: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All of a run, canonical: no clock, host or path, so that equal runs give equal bytes.

    Attributes:
        schema: "vambrace/results/1".
        model: name, sha256, kind, access, bounds, outputs, input_shape, num_classes, class_names.
        data: per role ("eval", "members", "nonmembers"): name, n, classes, counts, sha256 of the sample hashes.
        plan: profile, seed, checks with their options, gates, chunk, batch, threads, dtype, device class.
        versions: vambrace, torch, numpy, python (major.minor), onnxruntime where used.
        findings, gates, left_out, verdict: see their types.
    """

    schema: str
    model: Mapping[str, Json]
    data: Mapping[str, Json]
    plan: Mapping[str, Json]
    versions: Mapping[str, str]
    findings: tuple[Finding, ...]
    gates: tuple[GateResult, ...]
    left_out: tuple[Left, ...]
    verdict: Verdict

    def as_json(self) -> dict[str, Json]:
        """JSON data; `vambrace.core.canonical.dumps` of it is results.json."""
        return cast("dict[str, Json]", _plain(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Results:
        """The inverse of `as_json`. The reader validates against the published schema first."""
        return cls(
            schema=data["schema"],
            model=data["model"],
            data=data["data"],
            plan=data["plan"],
            versions=data["versions"],
            findings=tuple(_finding(item) for item in data["findings"]),
            gates=tuple(GateResult(**_with(item, status=Status(item["status"]))) for item in data["gates"]),
            left_out=tuple(Left(**item) for item in data["left_out"]),
            verdict=Verdict(**_with(data["verdict"], sentences=tuple(data["verdict"]["sentences"]))),
        )


def _finding(data: Mapping[str, Json]) -> Finding:
    return Finding(
        **_with(
            data,
            status=Status(data["status"]),
            interval=Interval(**data["interval"]) if data["interval"] else None,
            flags=tuple(Flag.from_json(flag) for flag in data["flags"]),
            cost=Cost(**data["cost"]),
            evidence=tuple(Evidence(**item) for item in data["evidence"]),
        )
    )


def _with(data: Mapping[str, Json], **values: Json) -> dict[str, Json]:
    return {**data, **values}


def _plain(value: object) -> Json:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, object]", value).items()}
    return value
