"""The gates that ship with a profile, and how they stand beside those of a plan. Needs no torch.

| profile | demands |
|---|---|
| smoke | preflight is content; clean accuracy is surely above 1.5 times chance, and above naming the commonest class |
| ci | those; no perturbation at severity 1 surely costs more than 10 points |
| full | those; members are told from others with an AUC of surely at most 0.6 |

A gate of a plan comes on top. It takes the place of a shipped one only where it demands a threshold of the same number
from the same side: who demands something of robust accuracy, or that accuracy is at most so much, has not said that a
model at chance will do. That every required check was measured and is reliable is demanded of all runs, by the exit
code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.assess.plan import GateSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assess.plan import PlannedCheck
    from vambrace.core.findings import Results

__all__ = ["Named", "beside", "majority", "pattern_of", "shipped_for", "shipped_gates"]

_SURELY = 1.5  # times chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a gate needs to know of a check: its id, its kind, and the severities it measures, if any."""

    id: str
    kind: str
    severities: Sequence[int] = ()

    @classmethod
    def of(cls, planned: PlannedCheck) -> Named:
        """A check of a plan."""
        return cls(id=planned.id, kind=planned.check.kind, severities=getattr(planned.check, "severities", ()))


def shipped_gates(profile: str, checks: Sequence[Named], *, num_classes: int, majority: float) -> tuple[GateSpec, ...]:
    """What a profile demands: each line only for checks that are planned.

    Args:
        profile: "smoke", "ci" or "full".
        checks: of the plan.
        num_classes: width of the logits.
        majority: see `majority`.
    """
    least = min(max(_SURELY / num_classes, majority), 1.0)
    gates = [GateSpec(metric="preflight.ok", min=1.0, use="value")]
    gates += [GateSpec(metric=f"{check.id}.accuracy", min=least) for check in checks if check.kind == "clean"]
    if profile != "smoke":
        mild = [check for check in checks if check.kind == "natural" and 1 in check.severities]
        gates += [GateSpec(metric=f"{check.id}.drop@1", max=10.0) for check in mild]
    if profile == "full":
        gates += [GateSpec(metric=f"{check.id}.auc", max=0.6) for check in checks if check.kind == "membership"]
    return tuple(gates)


def beside(own: Sequence[GateSpec], shipped: Sequence[GateSpec]) -> tuple[GateSpec, ...]:
    """The shipped gates that a plan's own leave standing, and its own after them."""
    thresholds = [(pattern_of(gate), gate.min is not None) for gate in own if gate.required and gate.max_drop is None]
    kept = [
        gate
        for gate in shipped
        if not any(pattern.fullmatch(gate.metric) and (gate.min is not None) is lower for pattern, lower in thresholds)
    ]
    return (*kept, *own)


def shipped_for(results: Results) -> tuple[GateSpec, ...]:
    """The shipped gates of a finished run, from its results alone."""
    plan, model = results.plan, results.model
    roles: Mapping[str, Mapping[str, Any]] = results.data
    first = roles.get("eval") or next(iter(roles.values()), dict[str, Any]())
    counts = cast("list[int]", first.get("counts", []))
    checks = [
        Named(id=check["id"], kind=check["kind"], severities=check["options"].get("severities", ()))
        for check in plan["checks"]
    ]
    classes = int(model["num_classes"] or len(model["class_names"]) or 1)
    return shipped_gates(plan["profile"], checks, num_classes=classes, majority=majority(counts))


def majority(counts: Sequence[int]) -> float:
    """What always naming the commonest class gets right; 0 where there is one class only, which preflight flags.

    >>> majority([1, 2, 0, 1]), majority([0, 7])
    (0.5, 0.0)
    """
    return max(counts) / sum(counts) if sum(count > 0 for count in counts) > 1 else 0.0


def pattern_of(gate: GateSpec) -> re.Pattern[str]:
    """What the names of the findings that a gate judges look like."""
    return re.compile(".*".join(map(re.escape, gate.metric.split("*"))))
