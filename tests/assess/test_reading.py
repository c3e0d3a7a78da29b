"""Plans: every form reads, and every mistake is located."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from assess.plan_mistakes import MINIMAL, MISTAKES, PGD
from vambrace.assess import planschema
from vambrace.assess.methods import read_check
from vambrace.assess.plan import DataSpec, GateSpec, ModelSpec, Plan, PlannedCheck, RunSpec, TrustSpec
from vambrace.assess.reading import parse_plan, read_gates, read_plan, read_table
from vambrace.core.contract import InputContract
from vambrace.errors import ConfigError

SCHEMA = json.loads(planschema.FILE.read_text())
FULL = Path(__file__).resolve().parents[1].joinpath("vectors", "plan", "everything.toml").read_text(encoding="utf-8")


def parse(table, **changes):
    return parse_plan({**table, **changes}, base="/base", where="plan.toml")


def refused(table, **changes):
    with pytest.raises(ConfigError) as caught:
        parse(table, **changes)
    return caught.value


class TestForms:
    def test_everything(self, tmp_path):
        (tmp_path / "vambrace.toml").write_text(FULL)
        plan = read_plan(tmp_path / "vambrace.toml")
        assert plan.base == str(tmp_path)
        assert plan.model.factory_args == {"num_classes": 10, "wide": True, "name": "x", "rate": 0.5}
        assert plan.contract.mean[1] == 124 / 255
        assert plan.run.budget == 5400.0
        assert [planned.id for planned in plan.checks] == [
            "clean",
            "strong",
            "pgd-linf",
            "natural-gaussian_noise",
            "membership",
        ]
        assert [planned.named for planned in plan.checks] == [True, True, True, False, True]
        strong = plan.checks[1]
        assert (strong.required, strong.limit) == (False, 50)
        assert strong.check.eps == (0.5, 1.5)
        assert (strong.check.attack.norm, strong.check.attack.steps) == ("l2", 30)
        assert plan.checks[2].check.eps == (8 / 255,)
        assert plan.checks[3].check.severities == (1, 5)
        assert plan.checks[3].check.perturbation.sigmas == (0.01, 0.02, 0.03, 0.04, 0.05)
        assert plan.gates == (
            GateSpec(metric="clean.accuracy", min=0.9),
            GateSpec(metric="*.robust_accuracy@*", max_drop=0.01, use="value", required=False),
        )
        jsonschema.validate(tomllib.loads(FULL), SCHEMA)

    def test_json_says_the_same(self, tmp_path):
        (tmp_path / "vambrace.toml").write_text(FULL)
        (tmp_path / "vambrace.json").write_text(json.dumps(tomllib.loads(FULL)))
        assert read_plan(tmp_path / "vambrace.toml") == read_plan(tmp_path / "vambrace.json")

    def test_defaults(self):
        plan = parse(MINIMAL)
        assert (plan.profile, plan.seed, plan.checks, plan.gates) == ("ci", 0, (), ())
        assert plan.run == RunSpec()
        jsonschema.validate(MINIMAL, SCHEMA)

    def test_flags_need_no_schema_line_and_files_do(self, tmp_path):
        assert parse({key: value for key, value in MINIMAL.items() if key != "schema"}) == parse(MINIMAL)
        (tmp_path / "plan.toml").write_text('profile = "ci"')
        with pytest.raises(ConfigError, match="E171"):
            read_table(tmp_path / "plan.toml")

    def test_gates_none(self):
        assert parse(MINIMAL, gates="none").gates is None
        assert read_gates({"gates": "none"}, where="x") is None
        assert read_gates({}, where="x") == ()
        assert read_gates({"gate": [{"metric": "a.b", "min": 0}]}, where="x") == (GateSpec(metric="a.b", min=0.0),)

    def test_the_order_of_data_roles_is_fixed(self):
        data = {role: {"source": role} for role in ("nonmembers", "eval", "members")}
        assert list(parse(MINIMAL, data=data).data) == ["eval", "members", "nonmembers"]


@pytest.mark.parametrize(("change", "code", "seen", "fix"), MISTAKES, ids=[str(row[0])[:60] for row in MISTAKES])
def test_mistakes_are_located(change, code, seen, fix):
    error = refused(MINIMAL, **change)
    assert error.code == code
    assert error.seen.startswith("plan.toml: ")
    assert seen in error.seen
    assert error.seen.count("plan.toml") == 1
    assert fix in error.fix


class TestPlan:
    def test_a_check_s_name_in_code(self):
        with pytest.raises(ConfigError, match="E168"):
            PlannedCheck(id="a/b", check=read_check(PGD, "").check)

    def test_an_unknown_role_in_code(self):
        fields = {"profile": "ci", "seed": 0, "model": ModelSpec(), "contract": InputContract(), "trust": TrustSpec()}
        with pytest.raises(ConfigError, match="E168"):
            Plan(**fields, run=RunSpec(), checks=(), gates=(), data={"train": DataSpec(source="x")})


def test_reading_gates_needs_no_torch():
    code = (
        "import sys\n"
        "from vambrace.assess.reading import read_gates\n"
        "from vambrace.assess.gates import judge\nfrom vambrace.assess.verdict import verdict\n"
        "read_gates({'gate': [{'metric': 'a.b', 'min': 0}], 'check': [{'attack': 'pgd'}]}, where='x')\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
