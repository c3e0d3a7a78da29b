"""Resolved plans as data: everything comes back, and nothing else is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assess.toy import ToyCheck, install, toy_plan
from vambrace.assess.fit import Subject
from vambrace.assess.plan import DataSpec, GateSpec, ModelSpec, Plan, PlannedCheck, RunSpec, TrustSpec
from vambrace.assess.planfile import plan_as_json, plan_from_json, settled
from vambrace.assess.presets import resolve
from vambrace.core import canonical
from vambrace.core.access import Access
from vambrace.core.contract import InputContract
from vambrace.errors import ConfigError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


def full(base: Path, **changes: Any) -> Plan:
    plan = Plan(
        profile="full",
        seed=7,
        model=ModelSpec(source="n.pt", factory="a.b:c", factory_args={"n": 3, "x": 0.5, "on": True}, sha256="a" * 64),
        contract=InputContract(
            bounds=(0, 255),
            mean=(1 / 3,),
            std=(0.1,),
            size=(8, 9),
            resize="center",
            channels=1,
            classes=("a", "\u00e9"),
        ),
        data={role: DataSpec(source=role, limit=9) for role in ("eval", "members", "nonmembers")},
        trust=TrustSpec(code=("a",), artifacts=("b" * 64,)),
        run=RunSpec(threads=3, batch=16, chunk=64, workers=2, budget=600.0, images=0, out="o"),
        checks=(),
        gates=(),
        base=str(base),
    )
    subject = Subject(
        access=Access.INTERNALS, roles=tuple(plan.data), input_shape=(1, 8, 9), span=255.0, num_classes=10
    )
    return dataclasses.replace(resolve(plan, subject)[0], **changes)


def test_every_registered_check_comes_back(base: Path) -> None:
    plan = full(base)
    assert {planned.check.kind for planned in plan.checks} == {"clean", "adversarial", "natural", "membership"}
    stored = canonical.dumps(plan_as_json(plan))
    found = plan_from_json(canonical.loads(stored))
    assert found == plan
    assert canonical.dumps(plan_as_json(found)) == stored


@pytest.mark.parametrize("gates", [None, (), (GateSpec(metric="a.b", max_drop=1 / 3, required=False),)])
def test_gates_come_back(base: Path, gates: Any) -> None:
    plan = full(base, gates=gates)
    assert plan_from_json(plan_as_json(plan)).gates == plan.gates


def test_a_relative_folder_becomes_absolute() -> None:
    assert plan_as_json(toy_plan(Path()))["base"] == str(Path.cwd())


def test_settled_makes_equal_numbers_equal(base: Path) -> None:
    one = settled(toy_plan(base, PlannedCheck(id="toy", check=ToyCheck(scale=1))))
    other = settled(toy_plan(base, PlannedCheck(id="toy", check=ToyCheck(scale=1.0))))
    assert repr(one) == repr(other)


def test_checks_that_nobody_could_find_again_are_refused(base: Path) -> None:
    class Impostor(ToyCheck):
        pass

    class Unknown(ToyCheck):
        kind = "nobody-knows"

    with pytest.raises(ConfigError, match="E516.*Impostor"):
        settled(toy_plan(base, PlannedCheck(id="toy", check=Impostor())))
    with pytest.raises(ConfigError, match="E161"):
        settled(toy_plan(base, PlannedCheck(id="toy", check=Unknown())))


def test_other_fields_are_refused(base: Path) -> None:
    data = plan_as_json(full(base))
    with pytest.raises(ConfigError, match="E501.*extra"):
        plan_from_json({**data, "extra": 1})
    with pytest.raises(ConfigError, match="E501.*seed"):
        plan_from_json({name: value for name, value in data.items() if name != "seed"})
    data["checks"][0]["limits"] = 3
    with pytest.raises(ConfigError, match=r"E501.*check\[0\].*limits"):
        plan_from_json(data)
