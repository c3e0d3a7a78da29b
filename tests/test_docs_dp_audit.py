"""The page about audits: its code runs and its plan reads."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from vambrace.assess.checks.dp import DpCheck
from vambrace.assess.reading import parse_plan

PAGE = Path(__file__).resolve().parents[1] / "docs" / "privacy" / "dp-audit.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    parts = blocks("python")
    assert len(parts) == 3
    for number, part in enumerate(parts):
        exec(compile(part, f"{PAGE.name}, block {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "and nothing against the claim of 1" in said
    assert "needed for 99 % of audits: 2,000 canaries" in said


def test_the_plan_reads() -> None:
    (part,) = blocks("toml")
    table = {"model": {"source": "net.onnx"}, "data": {"eval": {"source": "val/"}}, **tomllib.loads(part)}
    plan = parse_plan(table, base=PAGE.parent, where="the example")
    assert plan.checks[0].check == DpCheck(ledger="runs/dp/ledger", audit="runs/dp/audit.json")
    assert plan.gates
    assert plan.gates[0].use == "value"
