"""One table, one check: every built-in method goes there and back."""

from __future__ import annotations

import json

import jsonschema
import pytest

from assess.plan_mistakes import MINIMAL, PGD
from vambrace.assess import planschema
from vambrace.assess.methods import check_as_table, read_check
from vambrace.core import registry
from vambrace.errors import ConfigError

SCHEMA = json.loads(planschema.FILE.read_text())


def built_ins(group):
    return [name for name in registry.names(group) if registry.entry(group, name).distribution == "vambrace"]


class TestMethods:
    @pytest.mark.parametrize("name", built_ins(registry.ATTACKS))
    @pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
    def test_every_attack_goes_there_and_back(self, name, norm):
        if norm not in registry.load(registry.ATTACKS, name).norms:
            with pytest.raises(ConfigError, match="E130|E166"):
                read_check({"attack": name, "norm": norm, "eps": [0.5]}, "check[0]")
            return
        planned = read_check({"attack": name, "norm": norm, "eps": ["1/255", 0.5], "id": "x"}, "check[0]")
        table = check_as_table(planned)
        jsonschema.validate({**MINIMAL, "check": [table]}, SCHEMA)
        assert read_check(table, "check[0]") == planned

    @pytest.mark.parametrize("name", built_ins(registry.PERTURBATIONS))
    def test_every_perturbation_goes_there_and_back(self, name):
        planned = read_check({"perturb": name, "severities": [2, 4], "limit": 9, "required": False}, "check[0]")
        table = check_as_table(planned)
        jsonschema.validate({**MINIMAL, "check": [table]}, SCHEMA)
        assert read_check(table, "check[0]") == planned
        assert planned.id == f"natural-{name}"

    @pytest.mark.parametrize("name", sorted(set(built_ins(registry.CHECKS)) - {"adversarial", "natural"}))
    def test_every_other_check_goes_there_and_back(self, name):
        options = {"dp": {"ledger": "runs/ledger"}}.get(name, {})
        planned = read_check({"check": name, "named": False, **options}, "check[0]")
        assert read_check(check_as_table(planned), "check[0]") == planned
        assert (planned.id, planned.named) == (name, False)

    def test_one_radius_is_written_as_one(self):
        assert check_as_table(read_check(PGD, ""))["eps"] == 0.1
