"""A resolved plan as JSON data and back: what plan.json keeps and what other processes get.

Not the dialect that people write (`vambrace.core.dialect`): nothing is resolved here, every choice is already made,
and checks stand under their registered kind with their options.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vambrace.assess.plan import DataSpec, GateSpec, ModelSpec, Plan, PlannedCheck, RunSpec, TrustSpec
from vambrace.core import canonical, registry
from vambrace.core.contract import InputContract
from vambrace.core.spec import read
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assess.checks.base import Check

__all__ = ["plan_as_json", "plan_from_json", "settled"]

Json = Any

_FIELDS = {"schema", "profile", "seed", "model", "contract", "data", "trust", "run", "checks", "gates", "base"}
_CHECK_FIELDS = {"id", "kind", "required", "named", "limit", "chunk", "options"}


def plan_as_json(plan: Plan) -> dict[str, Json]:
    """The plan as JSON data; `plan_from_json` is the inverse, but for a relative `base`, which becomes absolute."""
    return {
        "schema": plan.schema,
        "profile": plan.profile,
        "seed": plan.seed,
        "model": plan.model.as_json(),
        "contract": plan.contract.as_json(),
        "data": {role: spec.as_json() for role, spec in plan.data.items()},
        "trust": plan.trust.as_json(),
        "run": plan.run.as_json(),
        "checks": [
            {
                "id": planned.id,
                "kind": planned.check.kind,
                "required": planned.required,
                "named": planned.named,
                "limit": planned.limit,
                "chunk": planned.chunk,
                "options": planned.check.as_json(),
            }
            for planned in plan.checks
        ],
        "gates": None if plan.gates is None else [gate.as_json() for gate in plan.gates],
        "base": str(Path(plan.base).resolve()),
    }


def plan_from_json(data: Mapping[str, Json]) -> Plan:
    """The plan that `plan_as_json` wrote; checks are found by kind in the registry.

    Raises:
        ConfigError: E501 for other fields, E161 for a check that is not installed here, E16x for options that it does
            not take.
    """
    _closed(data, _FIELDS, "plan")
    gates = data["gates"]
    return Plan(
        schema=data["schema"],
        profile=data["profile"],
        seed=data["seed"],
        model=read(ModelSpec, data["model"], where="model"),
        contract=read(InputContract, data["contract"], where="contract"),
        data={role: read(DataSpec, spec, where=f"data.{role}") for role, spec in data["data"].items()},
        trust=read(TrustSpec, data["trust"], where="trust"),
        run=read(RunSpec, data["run"], where="run"),
        checks=tuple(_planned(item, f"check[{place}]") for place, item in enumerate(data["checks"])),
        gates=None if gates is None else tuple(read(GateSpec, gate, where="gate") for gate in gates),
        base=data["base"],
    )


def settled(plan: Plan) -> Plan:
    """The plan as it looks after it was written and read: 1 and 1.0 become one, as they are in a resumed run.

    Raises:
        ConfigError: E161 for a check that is not registered, E516 for one that is not the one registered under its
            kind.
    """
    found = plan_from_json(canonical.loads(canonical.dumps(plan_as_json(plan))))
    for ours, theirs in zip(plan.checks, found.checks, strict=True):
        if type(ours.check) is not type(theirs.check):
            raise ConfigError(
                "E516",
                seen=f"{ours.id} is a {_named(ours.check)}, but {ours.check.kind!r} is {_named(theirs.check)}",
                expected="checks that can be found again by their kind when the run is resumed",
                fix='give the class a kind of its own and declare it under [project.entry-points."vambrace.checks"]',
            )
    return found


def _named(check: Check) -> str:
    return f"{type(check).__module__}.{type(check).__qualname__}"


def _planned(data: Mapping[str, Json], where: str) -> PlannedCheck:
    data = {"chunk": None, **data}  # older plans of this version have one chunk for all checks
    _closed(data, _CHECK_FIELDS, where)
    kind: Any = registry.load(registry.CHECKS, data["kind"])
    # A check whose options hold another method finds that one by name itself.
    build = getattr(kind, "from_json", None)
    options = data["options"]
    check = cast("Check", build(options) if build else read(kind, options, where=where, called=f"check {data['kind']}"))
    return PlannedCheck(
        id=data["id"],
        check=check,
        required=data["required"],
        named=data["named"],
        limit=data["limit"],
        chunk=data["chunk"],
    )


def _closed(data: Mapping[str, Json], fields: set[str], where: str) -> None:
    if odd := set(data) ^ fields:
        raise ConfigError(
            "E501",
            seen=f"{where} with other fields than version 1 has: {', '.join(sorted(odd))}",
            expected="a plan that this release wrote",
            fix="resume the run with the release of vambrace that began it",
        )
