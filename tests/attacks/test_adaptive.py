"""The adaptive search: what it finds, what it spends, when it stops, and that only the set of samples decides."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from vambrace.attacks import PGD, Square, adaptive
from vambrace.attacks.adaptive import Adaptive
from vambrace.attacks.board import Board
from vambrace.attacks.flags import flags
from vambrace.attacks.ledger import ledger
from vambrace.core.access import Bounds
from vambrace.core.findings import Cost
from vambrace.core.goals import Targeted, Untargeted
from vambrace.errors import ConfigError
from vambrace.ops.norms import distances
from vambrace.search import loop
from vambrace.search.outcome import Part
from vambrace.testing.attacks import curved_problem, linear_problem
from vambrace.testing.counting import CountingModel

SMALL = Adaptive(eps=0.1, budget=300, patience=30)


def model_of(function, bounds, **options) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64, **options)


def rugged(function):
    """The same decisions on the whole, with ripples that mislead gradients."""

    def waves(points: Tensor) -> Tensor:
        flat = points.flatten(1)
        return function(points) + 0.02 * torch.sin(flat * 300).mean(1, keepdim=True) * torch.tensor([1.0, -1.0, 0.0])

    return waves


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_linear_model_breaks_where_it_can_and_nowhere_else(norm: str) -> None:
    function, bounds, inputs, labels, radii = linear_problem(norm, 0.1)
    out = Adaptive(norm=norm, eps=0.1)(model_of(function, bounds), inputs, labels)
    assert torch.equal(out.success, radii < 1)
    assert (out.distance[out.success] <= 0.1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_claims_hold_and_the_ledger_is_exact(norm: str) -> None:
    eps = 0.1 if norm == "linf" else 0.3
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    labels = torch.where(torch.arange(40) % 9 == 0, (labels + 1) % 3, labels)
    for batch_size in (1, 7, 64):
        model = model_of(rugged(function), bounds)
        out = dataclasses.replace(SMALL, norm=norm, eps=eps)(model, inputs, labels, batch_size=batch_size)
        reached = rugged(function)(out.adversarial).argmax(1) != labels
        assert torch.equal(reached, out.success)
        assert (distances(out.adversarial, inputs, norm) <= eps).all()
        assert bounds.contains(out.adversarial).all()
        cost = out.cost
        forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
        assert forward == model.forward_rows
        assert cost.backwards + cost.idle_backwards + cost.padding_backwards == model.backward_rows
        for name in ("forwards", "backwards", "verifications"):
            assert int(getattr(out, name).sum()) == getattr(cost, name) == sum(getattr(p.cost, name) for p in out.parts)
        assert sum(part.broken for part in out.parts) == int(out.success.sum())
        assert torch.equal(out.by >= 0, out.success)
        assert (out.first_success[out.success] <= out.forwards[out.success]).all()
    wrong = labels != function(inputs).argmax(1)
    assert (out.distance[wrong & out.success] == 0).any()


def test_an_equal_set_in_any_order_has_an_equal_outcome() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(40) * 7 + 5
    one = SMALL(model_of(rugged(function), bounds), inputs, labels, rng=3, ids=ids)
    two = SMALL(model_of(rugged(function), bounds), inputs[order], labels[order], rng=3, ids=ids[order])
    for name in ("adversarial", "success", "forwards", "backwards", "verifications", "first_success", "by", "margin"):
        assert torch.equal(getattr(one, name)[order], getattr(two, name)), name
    assert one.cost == two.cost
    assert Adaptive.joint


def test_it_finds_more_than_pgd_on_a_rugged_model_for_less() -> None:
    function, bounds, inputs, _ = curved_problem(0.1, 120)
    labels = rugged(function)(inputs).argmax(1)
    pgd = PGD(eps=0.1, steps=40, restarts=10)(model_of(rugged(function), bounds), inputs, labels)
    out = SMALL(model_of(rugged(function), bounds), inputs, labels)
    assert int(out.success.sum()) >= int(pgd.success.sum())
    assert out.cost.forwards + out.cost.backwards < pgd.cost.forwards + pgd.cost.backwards


@pytest.mark.parametrize("budget", [3, 13, 40, 120, 300])
@pytest.mark.parametrize("wrong", [0, 7, 60])
def test_the_budget_is_kept_and_what_is_left_is_said(budget: int, wrong: int) -> None:
    """Also where inputs are wrong already, which costs a claim and a verification each."""
    check_budget(budget, wrong, patience=10**6)


def check_budget(budget: int, wrong: int, patience: int) -> None:
    function, bounds, inputs, labels = curved_problem(0.02, 60)
    labels = torch.where(torch.arange(60) < wrong, (labels + 1) % 3, labels)
    out = Adaptive(eps=0.01, budget=budget, patience=patience)(model_of(function, bounds), inputs, labels)
    assert int(out.success.sum()) >= wrong
    spent = out.cost.forwards + out.cost.backwards + out.cost.verifications
    assert out.allowance == 60 * budget
    assert out.unspent == out.allowance - spent
    assert spent <= 60 * budget
    assert f"{out.allowance:,} allowed rows" in ledger(out)
    assert out.stopped == ("broken" if out.success.all() else "budget")
    assert ("something was left out" in ledger(out)) == (not out.success.all())


def test_it_stops_by_its_rule_when_nothing_breaks() -> None:
    function, bounds, inputs, labels = curved_problem(0.02, 60)
    out = Adaptive(eps=1e-7, budget=10_000, patience=20)(model_of(function, bounds), inputs, labels)
    assert not out.success.any()
    moves = sum(
        p.cost.forwards + p.cost.backwards
        for p in out.parts
        if p.name not in ("clean", "burst", "verification", "tail", "aimed")
    )
    assert 20 * 60 <= moves <= 20 * 60 + 8 * 60
    parts = {part.name: part for part in out.parts}
    assert parts["verification"].attacked == 60
    assert parts["tail"].attacked == 9
    assert parts["aimed"].attacked == 2 * 60, "both other classes"
    assert out.unspent > 0.9 * out.allowance
    assert out.stopped == "patience"
    assert "nothing more is expected" in ledger(out)


@pytest.mark.parametrize("budget", [60, 340])
def test_a_class_that_no_slope_leads_to_is_aimed_at(budget: int) -> None:
    """The nearest class is climbed to by every other burst, and never reached."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.rand(60, 1, 8, 8, generator=draw, dtype=torch.float64) * 0.2 + 0.4
    weights = torch.randn(64, generator=draw, dtype=torch.float64)
    other = torch.randn(64, generator=draw, dtype=torch.float64)
    inputs[:35] += 0.06 * other.sign().view(1, 1, 8, 8)

    def function(points: Tensor) -> Tensor:
        flat = points.flatten(1) - 0.5
        near, far = (flat @ weights).tanh() * 0.4 - 0.5, flat @ other - 6.6
        still = torch.full_like(near, -50.0)
        return torch.stack((torch.zeros_like(near), near, still - 1, far, still), dim=1) * 40

    labels = torch.zeros(60, dtype=torch.int64)
    out = Adaptive(eps=0.1, budget=budget, patience=1)(model_of(function, Bounds(0.0, 1.0)), inputs, labels)
    reach = (inputs.flatten(1) - 0.5) @ other
    possible = reach + 0.1 * other.abs().sum() > 6.6
    parts = {part.name: part for part in out.parts}
    aimed = parts.get("aimed")
    assert torch.equal(possible, torch.arange(60) < 35)
    if budget == 60:
        assert aimed is None
        assert out.stopped == "budget"
        return
    assert aimed is not None
    assert aimed.broken > 20
    assert torch.equal(out.success, possible)
    before, after = out.left + aimed.broken, out.left
    assert aimed.attacked == 2 * before + 3 * after + 3 * after, "three classes in a row, and all of it again"
    assert parts["verification"].attacked == before + after > before


def test_a_small_budget_goes_to_the_rounds_and_no_tail_runs_without_verification() -> None:
    """What does not pay for all that follows the rounds is not kept for it."""
    function, bounds, inputs, labels = curved_problem(0.02, 60)
    for budget in (20, 30, 40, 60, 80):
        out = Adaptive(eps=1e-7, budget=budget, patience=10**6)(model_of(function, bounds), inputs, labels)
        names = {part.name for part in out.parts}
        assert "tail" not in names or "verification" in names
        assert out.unspent < 600, budget  # what a round may cost
        assert out.stopped == "budget"


def test_a_targeted_goal_reaches_its_target() -> None:
    function, bounds, inputs, labels = curved_problem(0.5, 30)
    out = Adaptive(eps=0.5, budget=200)(model_of(function, bounds), inputs, Targeted((labels + 1) % 3))
    assert (function(out.adversarial).argmax(1) == (labels + 1) % 3)[out.success].all()
    assert out.success.any()
    assert "toward" not in {part.name for part in out.parts}


def test_a_model_without_gradients_to_go_by_is_searched_with_windows() -> None:
    """Steps hide every gradient; only windows and starts find anything."""
    function, bounds, inputs, labels = curved_problem(0.1, 30)

    def stairs(points: Tensor) -> Tensor:
        return function((points * 400).round() / 400 + 0 * points)

    out = Adaptive(eps=0.12)(model_of(stairs, bounds), inputs, labels)
    free = Adaptive(eps=0.12)(model_of(function, bounds), inputs, labels)
    assert int(out.success.sum()) >= 0.8 * int(free.success.sum()) > 0
    assert {part.name for part in out.parts if part.black_box} == {"unguided", "windows", "tail", "escalation"}
    again = {part.name: part for part in out.parts}["again"]
    assert again.cost.backwards > 0
    assert out.beyond >= 0.5 * sum(part.broken for part in out.parts if part.black_box) > 0
    assert "E467" in {flag.code for flag in flags(out)}
    smooth = {part.name: part for part in free.parts}
    assert free.beyond <= 0.1 * smooth["windows"].broken + 1 if "windows" in smooth else free.beyond == 0
    assert "E467" not in {flag.code for flag in flags(free)}


@pytest.mark.parametrize("hidden", [True, False])
def test_where_no_gradient_is_it_finds_about_what_random_search_finds(hidden: bool) -> None:
    """Small windows from a drawn point alone broke half as many."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.randn(10, 1, 4, 4, generator=draw, dtype=torch.float64)
    weights = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3).flatten(1) / 16
    inputs = torch.rand(40, 1, 16, 16, generator=draw, dtype=torch.float64)

    def function(points: Tensor) -> Tensor:
        return ((points * 8).round() / 8 + 0 * points if hidden else points).flatten(1) @ weights.T

    labels, bounds = function(inputs).argmax(1), Bounds(0.0, 1.0)
    random = Square(eps=0.15, queries=340)(model_of(function, bounds), inputs, labels)
    model = model_of(function, bounds)
    out = Adaptive(eps=0.15)(model, inputs, labels)
    assert ("unguided" in {part.name for part in out.parts}) == hidden
    assert int(out.success.sum()) >= 0.9 * int(random.success.sum()) > 30
    assert out.unspent is not None
    assert out.unspent >= 0
    cost = out.cost
    assert model.forward_rows == cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards


def masked(kind: str):
    """A linear model without gradients, or with those of another one, or as it is; its bounds, inputs and labels."""
    draw = torch.Generator().manual_seed(0)
    weights, wrong = torch.randn(2, 10, 256, generator=draw, dtype=torch.float64) / 16
    inputs = torch.rand(40, 1, 16, 16, generator=draw, dtype=torch.float64)

    def function(points: Tensor) -> Tensor:
        flat = points.flatten(1)
        if kind == "none":
            flat = (flat * 50).round() / 50 + 0 * flat
        if kind == "misleading":
            return (flat @ weights.T).detach() + (flat - flat.detach()) @ wrong.T
        return flat @ weights.T

    return function, Bounds(0.0, 1.0), inputs, function(inputs).argmax(1)


def rows(part: Part | None) -> int:
    cost = Cost() if part is None else part.cost
    return cost.forwards + cost.backwards + cost.verifications


def attacked(part: Part | None) -> int:
    return 0 if part is None else part.attacked


@pytest.mark.parametrize("kind", ["none", "misleading", "true"])
def test_masked_gradients_are_met_with_as_many_queries_as_random_search_needs(kind: str) -> None:
    function, bounds, inputs, labels = masked(kind)
    reached = Square(eps=0.05, queries=3000)(model_of(function, bounds), inputs, labels).success
    plain = Adaptive(eps=0.05, budget=150, escalation=0)(model_of(function, bounds), inputs, labels)
    model = model_of(function, bounds)
    out = Adaptive(eps=0.05, budget=150, escalation=3000)(model, inputs, labels)
    parts, before = ({part.name: part for part in each.parts} for each in (out, plain))
    beside = sum(rows(parts[name]) - rows(before.get(name)) for name in ("escalation", "tail") if "escalation" in parts)
    assert out.allowance == 150 * 40 + beside
    assert out.success.all() or kind == "true" or attacked(parts["tail"]) > attacked(before.get("tail")), "once more"
    assert out.unspent is not None
    assert out.unspent >= 0
    assert int(out.success.sum()) >= int(reached.sum()) > 30
    assert ("escalation" in parts) == (kind != "true")
    assert kind == "true" or parts["escalation"].black_box
    assert kind == "true" or int(plain.success.sum()) < 0.7 * int(reached.sum())
    assert "escalation" not in {part.name for part in plain.parts}


@pytest.mark.parametrize(("beyond", "escalated"), [(1, False), (20, True)])
def test_one_sample_that_windows_alone_broke_is_no_reason_to_escalate(
    beyond: int, escalated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E468, a warning, is not E467."""
    function, bounds, inputs, labels = masked("true")
    monkeypatch.setattr(Board, "beyond", lambda _: torch.arange(beyond))
    monkeypatch.setattr(Part, "beyond", property(lambda part: beyond if part.name == "clean" else 0))
    out = Adaptive(eps=0.005, budget=100, escalation=50)(model_of(function, bounds), inputs, labels)
    assert not out.success.all()
    assert ("escalation" in {part.name for part in out.parts}) == escalated


def test_what_gradients_find_when_asked_again_is_no_reason_to_escalate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then E467 is said."""
    function, bounds, inputs, labels = masked("misleading")

    def found(problem, rule, *, name: str):
        out = loop.search(problem, rule, name=name)
        return dataclasses.replace(out, success=torch.ones_like(out.success)) if name == "again" else out

    attack = Adaptive(eps=0.05, budget=150, escalation=50)
    monkeypatch.setattr(adaptive, "search", found)
    out = attack(model_of(function, bounds), inputs, labels)
    parts = {part.name: part for part in out.parts}
    assert parts["again"].attacked == sum(part.broken for part in out.parts if part.black_box) > 5
    assert not flags(out)
    assert "escalation" not in parts


def test_only_survivors_without_gradients_are_escalated_where_others_have_them() -> None:
    """Half of the samples lie where gradients are zero; nothing else is afforded beside the burst."""
    function, bounds, inputs, labels = masked("true")
    inputs = torch.cat((inputs[:20] * 0.5, inputs[20:] * 0.5 + 0.4))

    def half(points: Tensor) -> Tensor:
        flat = points.flatten(1)
        hidden = flat.mean(dim=1, keepdim=True) < 0.4
        return function(torch.where(hidden, (flat * 50).round() / 50 + 0 * flat, flat))

    labels = half(inputs).argmax(1)
    out = Adaptive(eps=0.01, budget=14, escalation=500)(model_of(half, bounds), inputs, labels)
    parts = {part.name: part for part in out.parts}
    part, tail = parts["escalation"], parts["tail"]
    left = ~out.success
    assert int(left[20:].sum()) > 5, "others survive too"
    assert part.attacked == int(left[:20].sum()) + part.broken + tail.broken > 5
    assert (out.forwards[20:][left[20:]] < 14).all()
    assert (out.forwards[:20][left[:20]] > 700).any(), "a tail of 200 after 500 queries"


def test_survivors_are_left_with_the_nearest_to_breaking_that_was_met() -> None:
    function, bounds, inputs, labels = curved_problem(0.02, 60)
    out = Adaptive(eps=0.005)(model_of(function, bounds), inputs, labels)
    left = ~out.success
    goal = Untargeted(labels)
    assert left.any()
    torch.testing.assert_close(goal.margin(function(out.adversarial)).float()[left], out.margin[left])
    assert (out.margin > goal.margin(function(inputs)))[left].all()
    pgd = PGD(eps=0.005, steps=5)(model_of(function, bounds), inputs, labels)
    assert (out.margin >= pgd.margin - 1e-6)[left & ~pgd.success].double().mean() > 0.9


def test_a_curve_reuses_what_smaller_radii_left() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    curve = SMALL.curve(model_of(rugged(function), bounds), inputs, labels, eps=(0.2, 0.05, 0.1))
    kept = [int(out.success.sum()) for out in curve.outcomes]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]
    assert all(out.parts for out in curve.outcomes)
    assert "start" in {part.name for part in curve.outcomes[1].parts}
    broken = curve.outcomes[0].success
    assert (curve.outcomes[1].forwards[broken] == 0).all()
    assert (distances(curve.outcomes[0].adversarial, inputs, "linf")[broken] <= 0.05).all()


def test_empty_and_single() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 5)
    model = model_of(function, bounds)
    assert len(SMALL(model, inputs[:0], labels[:0]).success) == 0
    assert model.forward_rows == 0
    assert len(SMALL(model, inputs[:1], labels[:1]).success) == 1
    assert torch.equal(Adaptive(eps=0.0)(model, inputs, labels).adversarial, inputs)


@pytest.mark.parametrize(
    "options", [{"budget": 2}, {"patience": 0}, {"escalation": 1}, {"escalation": -1}, {"eps": -1.0}]
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="E130"):
        Adaptive(**{"eps": 0.1, **options})


@pytest.mark.parametrize("wrong", ["no projection", "best lost", "budget ignored", "goal ignored"])
def test_what_is_wrong_on_purpose_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part swapped for one that lies makes a check above fail."""
    from vambrace.attacks import adaptive, ball, board

    if wrong == "no projection":
        monkeypatch.setattr(ball.Ball, "project", lambda self, anchor, points: points)
        monkeypatch.setattr(loop, "tighten", lambda points, inputs, *_: (points, torch.zeros(len(points)).double()))
        check = lambda: test_claims_hold_and_the_ledger_is_exact("l2")  # noqa: E731
    elif wrong == "best lost":
        real = board.Board.add

        def forgets(self, name, index, found, **how):
            broken = real(self, name, index, found, **how)
            lost = ~self.success
            self.best[lost], self.margin[lost] = self.problem.inputs[lost], float("nan")
            return broken

        monkeypatch.setattr(board.Board, "add", forgets)
        check = test_survivors_are_left_with_the_nearest_to_breaking_that_was_met
    elif wrong == "budget ignored":
        monkeypatch.setattr(adaptive._Run, "_affords", lambda *_, **__: True)
        check = lambda: check_budget(40, 7, patience=60)  # noqa: E731
    else:
        monkeypatch.setattr(Targeted, "margin", lambda self, logits: logits.amax(1) - logits.amin(1))
        check = test_a_targeted_goal_reaches_its_target
    with pytest.raises(AssertionError):
        check()
