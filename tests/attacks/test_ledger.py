"""The ledger in words."""

from __future__ import annotations

import torch

from vambrace.attacks import PGD, Adaptive, ledger
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel


def run(attack, n: int = 12):
    function, bounds, inputs, labels = curved_problem(0.1, 12)
    model = CountingModel(function, bounds=bounds, dtype=torch.float64)
    return attack(model, inputs[:n], labels[:n])


def test_a_line_a_part_and_one_for_all() -> None:
    out = run(Adaptive(eps=0.03, budget=60))
    lines = ledger(out).splitlines()
    assert lines[0].split() == ["attack", "attacked", "broken", "forwards", "backwards", "verifications"]
    assert [line.split()[0] for line in lines[1:-3]] == [part.name for part in out.parts]
    assert lines[-3].split() == [
        "all", "12", str(int(out.success.sum())), f"{out.cost.forwards:,}", f"{out.cost.backwards:,}",
        f"{out.cost.verifications:,}",
    ]  # fmt: skip
    assert lines[-2].endswith(f"; {out.unspent:,} of 720 allowed rows left unspent")
    assert lines[-1] == "stopped: budget spent, something was left out"
    assert len({len(line) for line in lines[:-2]}) == 1, "columns line up"


def test_a_single_attack_has_one_line() -> None:
    lines = ledger(run(PGD(eps=0.03, steps=3))).splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["attack", "all"]
    assert lines[2].endswith("rows an input")


def test_nothing_attacked_is_said_without_a_mean() -> None:
    assert len(ledger(run(PGD(eps=0.03, steps=3), 0)).splitlines()) == 2
