"""Units are cut by counted work: no clock decides, dear checks get small units, and none gets too small to be fast."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from assess.toy import toy_plan
from vambrace import assess, data
from vambrace.assess.checks.adversarial import AdversarialCheck
from vambrace.assess.checks.clean import CleanCheck
from vambrace.assess.checks.natural import NaturalCheck
from vambrace.assess.effort import CHUNK_BATCHES, chunk_for, row_operations, rows_a_sample
from vambrace.assess.plan import PlannedCheck
from vambrace.assess.preflight import preflight
from vambrace.attacks import APGD, FGSM, PGD
from vambrace.core.access import Access
from vambrace.models import from_torch
from vambrace.perturb import Rotate

UNIT = 2.4e11


def rows(attack, *eps: float) -> float:
    return rows_a_sample(AdversarialCheck(attack=attack, eps=eps or (0.1,)), classes=10)


def test_rows_are_what_the_options_allow_at_most() -> None:
    assert rows_a_sample(CleanCheck(), classes=10) == 1
    assert rows_a_sample(NaturalCheck(perturbation=Rotate(), severities=(1, 3)), classes=10) == 3
    assert rows(PGD(eps=0.1, steps=20)) == 1 + 21 * 3
    assert rows(PGD(eps=0.1, steps=20), 0.1, 0.2, 0.3) == 1 + 3 * 21 * 3
    assert rows(PGD(eps=0.1, steps=20, restarts=5)) == 1 + 5 * 21 * 3
    assert rows(APGD(eps=0.1, steps=20)) == rows(PGD(eps=0.1, steps=20))
    assert rows(FGSM(eps=0.1)) < rows(PGD(eps=0.1, steps=2))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asking(FGSM):
    needs = Access.SCORES
    queries: int = 500


def test_an_attack_by_queries_needs_those() -> None:
    assert rows(Asking(eps=0.1)) == 1 + 500


@given(
    st.floats(1, 1e5), st.floats(5e6, 1e12), st.sampled_from([1, 7, 64, 100, 256]), st.sampled_from(["cpu", "cuda:0"])
)
def test_a_unit_is_bounded_and_never_too_small(rows: float, operations: float, batch: int, device: str) -> None:
    chunk = chunk_for(rows, operations=operations, batch=batch, device=device)
    assert 1 <= chunk <= CHUNK_BATCHES * batch
    least = batch if device != "cpu" else min(batch, 32)
    limit = UNIT if device == "cpu" else 100 * UNIT
    assert chunk <= least or chunk * rows * operations <= limit
    assert chunk >= (batch if device != "cpu" else min(batch, 8))


def test_operations_are_counted_where_they_can_be() -> None:
    inputs = torch.rand(3, 3, 64, 64)
    conv = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    found = row_operations(from_torch(conv.eval()), inputs)
    assert found == pytest.approx(2 * 3 * 64 * 9 * 64 * 64, rel=0.01)
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    assert row_operations(from_torch(small), torch.rand(2, 1, 8, 8)) == 5e6

    class Hidden(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(inputs.detach().numpy().mean(axis=(2, 3)))

    assert row_operations(from_torch(Hidden()), inputs) == 1e4 * 3 * 64 * 64


def test_a_dear_check_is_cut_into_more_units_and_the_cut_is_kept(net, digits, tmp_path: Path) -> None:
    """What a budget waits for is one unit: 200 samples of a long attack must not be one."""
    slow = AdversarialCheck(attack=PGD(eps=0.1, steps=100, restarts=5), eps=(0.05, 0.1))
    plan = toy_plan(
        tmp_path,
        PlannedCheck(id="clean", check=CleanCheck()),
        PlannedCheck(id="slow", check=slow, limit=100),
        run={"out": str(tmp_path / "runs"), "chunk": None, "batch": 64, "budget": 1e-9},
    )
    model, batches = from_torch(net), {"eval": digits}
    found = assess.rehearse(plan, model=model, batches=batches)
    assert found.units == {"clean": 1, "slow": 4}
    assert [each.chunk for each in found.resolved.checks] == [256, 32]
    assert any("may not do" in line and "exit 4" in line for line in found.lines())
    again = assess.rehearse(plan, model=model, batches=batches)
    assert again.resolved.checks == found.resolved.checks
    report = assess.execute(plan, model=model, batches=batches)
    assert [check["chunk"] for check in report.results.plan["checks"]] == [256, 32]


def test_a_stated_chunk_holds_for_every_check(net, tmp_path: Path) -> None:
    slow = AdversarialCheck(attack=PGD(eps=0.1, steps=100, restarts=5), eps=(0.1,))
    plan = toy_plan(tmp_path, PlannedCheck(id="slow", check=slow), run={"chunk": 50, "budget": 1e6})
    found = assess.rehearse(plan, model=from_torch(net), batches={"eval": data.load("digits:test", limit=60)})
    assert found.units["slow"] == 2
    assert not found.short_of_time()


def test_the_cut_does_not_depend_on_the_clock(net, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = toy_plan(tmp_path)
    before = preflight(from_torch(net), {"eval": digits}, plan)
    monkeypatch.setattr("vambrace.assess.preflight._forward_seconds", lambda *_: 100.0)
    after = preflight(from_torch(net), {"eval": digits}, plan)
    assert after.forward_seconds != before.forward_seconds
    assert after.row_operations == before.row_operations
