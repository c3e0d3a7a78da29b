"""The ledger on expectations: rows of the randomised model itself, by sample and in all, whoever wraps it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from vambrace.attacks import (
    APGD,
    DDN,
    FAB,
    FMN,
    NES,
    PGD,
    Adaptive,
    DeepFool,
    HopSkipJump,
    MomentumPGD,
    Square,
    Standard,
    flags,
    ledger,
)
from vambrace.attacks import standard as module
from vambrace.core.access import Access
from vambrace.core.findings import Cost
from vambrace.models import Batched, Counted, Expectation, LowPrecision, from_torch
from vambrace.models.expectation import calls_a_row
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

N, DRAWS = 20, 3
COLUMNS = ("forwards", "backwards", "verifications", "queries", "zero_gradients")
EVERY = [
    (PGD(eps=0.05, steps=6, restarts=2), Access.GRADIENTS),
    (APGD(eps=0.05, steps=6, targets=2, loss="margin"), Access.GRADIENTS),
    (APGD(eps=0.3, norm="l1", steps=12, large_radii=True), Access.GRADIENTS),
    (MomentumPGD(eps=0.05, steps=4, neighbours=2), Access.GRADIENTS),
    (Square(eps=0.05, queries=30), Access.SCORES),
    (Square(eps=0.05, queries=30), Access.GRADIENTS),
    (NES(eps=0.05, budget=60, samples=6), Access.SCORES),
    (HopSkipJump(norm="l2", budget=150), Access.LABELS),
    (DDN(steps=8), Access.GRADIENTS),
    (FMN(norm="linf", steps=8), Access.GRADIENTS),
    (FAB(norm="linf", steps=5), Access.GRADIENTS),
    (DeepFool(norm="l2", steps=5), Access.GRADIENTS),
    (Adaptive(eps=0.05, budget=60), Access.GRADIENTS),
    (Standard(eps=0.05), Access.GRADIENTS),
    (Standard(eps=0.05, version="rand"), Access.GRADIENTS),
]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEPS", 6)
    monkeypatch.setattr(module, "_QUERIES", 20)


def world(access: Access = Access.GRADIENTS) -> tuple:
    function, bounds, inputs, labels = curved_problem(0.1, N)
    return CountingModel(function, bounds=bounds, dtype=torch.float64, access=access), inputs, labels


def rows(cost: Cost) -> tuple[int, int]:
    forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    return forward, cost.backwards + cost.idle_backwards + cost.padding_backwards


def adds_up(out, model: CountingModel) -> None:
    """Everything that an outcome says it spent, against what arrived at the model."""
    assert rows(out.cost) == (model.forward_rows, model.backward_rows)
    assert min(dataclasses.astuple(out.cost)) >= 0
    for name in COLUMNS[:4]:
        assert int(getattr(out, name).sum()) == getattr(out.cost, name), name
        if out.parts:
            assert sum(getattr(part.cost, name) for part in out.parts) == getattr(out.cost, name), name
    assert (out.first_success <= out.forwards).all()
    assert (out.zero_gradients <= out.backwards).all()


@pytest.mark.parametrize(("attack", "access"), EVERY, ids=lambda each: getattr(each, "name", ""))
@pytest.mark.parametrize("batch_size", [7, 64])
def test_what_is_counted_arrives_at_the_model(attack, access: Access, batch_size: int) -> None:
    inner, inputs, labels = world(access)
    out = attack(Expectation(inner, samples=DRAWS), inputs, labels, batch_size=batch_size)
    adds_up(out, inner)
    assert inner.forward_rows > 0
    if access < Access.GRADIENTS:
        assert torch.equal(out.queries, out.forwards + out.verifications)
    # The same search, counted where the attack asks.
    hidden = CountingModel(Expectation(world(access)[0], DRAWS), bounds=inner.bounds, dtype=inner.dtype, access=access)
    hidden.predict = Expectation(world(access)[0], DRAWS).predict
    asked = attack(hidden, inputs, labels, batch_size=batch_size)
    for name in COLUMNS:
        assert torch.equal(getattr(out, name), DRAWS * getattr(asked, name)), name
    assert torch.equal(out.first_success, torch.where(out.success, DRAWS * asked.first_success, -1))
    assert torch.equal(out.adversarial, asked.adversarial)
    assert out.allowance == (None if asked.allowance is None else DRAWS * asked.allowance)
    assert [flag.code for flag in flags(out)] == [flag.code for flag in flags(asked)]
    assert f"{out.cost.forwards:,}" in ledger(out)


@pytest.mark.parametrize("draws", [1, 20])
def test_version_rand_counts_its_own_draws(draws: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DRAWS", draws)
    inner, inputs, labels = world()
    out = Standard(eps=0.05, version="rand")(inner, inputs, labels)
    adds_up(out, inner)
    assert (out.forwards >= draws).all()
    counted = Counted(world()[0])
    again = Standard(eps=0.05, version="rand")(counted, inputs, labels)
    assert (counted.forwards, counted.backwards) == rows(again.cost) == rows(out.cost)


@pytest.mark.parametrize("attack", [PGD(eps=0.05, steps=5), FMN(norm="linf", steps=6), NES(eps=0.05, budget=60)])
def test_curves_count_alike(attack) -> None:
    inner, inputs, labels = world()
    curve = attack.curve(Expectation(inner, samples=DRAWS), inputs, labels, eps=(0.02, 0.05))
    assert rows(curve.cost) == (inner.forward_rows, inner.backward_rows)


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.GRADIENTS])
@pytest.mark.parametrize("attack", [PGD(eps=0.05, steps=5), FMN(norm="linf", steps=6)], ids=["steps", "nearest"])
def test_surrogates_and_the_model_may_be_expectations(attack, access: Access) -> None:
    inner, inputs, labels = world(access)
    surrogate = world()[0]
    models = Expectation(inner, samples=DRAWS), [Expectation(surrogate, samples=5)]
    out = attack(models[0], inputs, labels, surrogates=models[1], batch_size=7)
    forward, backward = rows(out.cost)
    assert (forward, backward) == (inner.forward_rows + surrogate.forward_rows, surrogate.backward_rows)
    assert out.verifications.tolist() == [DRAWS * (2 if access == Access.LABELS else 1)] * N
    assert int(out.forwards.sum()) == out.cost.forwards


def test_rows_are_counted_where_someone_counts() -> None:
    model = world()[0]
    assert calls_a_row(Expectation(Batched(Expectation(model, 2), 8), 3)) == 6
    assert calls_a_row(Expectation(Counted(Expectation(model, 2)), 3)) == 3
    inner, inputs, labels = world()
    outside = Counted(Expectation(inner, DRAWS))
    out = PGD(eps=0.05, steps=5)(outside, inputs, labels)
    assert (outside.forwards, outside.backwards) == rows(out.cost)
    assert inner.forward_rows == DRAWS * outside.forwards


def test_the_expectation_of_a_model_in_low_precision_is_judged_in_full() -> None:
    net = from_torch(torch.nn.Linear(4, 3).eval(), bounds=(0, 1))
    exact = Expectation(LowPrecision(net), samples=2).exact
    assert exact.model is net
    assert exact.samples == 2
    plain = Expectation(net)
    assert plain.exact is plain
