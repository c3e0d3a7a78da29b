"""Gradients at several views of a point: the right sums, at the right rows, with a ledger that an observer confirms."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from naive_attacks import cross_entropy, steeper
from vambrace.core.access import Bounds
from vambrace.core.goals import Untargeted
from vambrace.core.rng import Streams
from vambrace.ops import draws, losses
from vambrace.search import loop
from vambrace.search.loop import search
from vambrace.search.outcome import Attacked
from vambrace.search.pace import Pace
from vambrace.search.problem import pose
from vambrace.search.rule import Plain
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

N = 40
COLUMNS = ("success", "first_success", "forwards", "backwards", "verifications", "finite", "zero_gradients")
PACES = [(1, 0.125, 0.25, True), (8, 0.125, 0.25, True), (8, 0.9, 0.9, True), (3, 0.0, 0.0, False), (1, 1.0, 1.0, True)]


@dataclasses.dataclass(frozen=True)
class Glance(Plain):
    """Steps along gradients at places drawn around the point; view 0 is the point where the rule is sighted."""

    views: int = 3
    sighted: bool = True
    leading: int = 1
    slopes: int = 1
    steps: int = 6
    restarts: int = 2
    eps: float = 0.1
    far: float = 0.05
    norm: ClassVar[str] = "linf"

    def anchor(self, origin):
        return {"inputs": origin.inputs, "ids": origin.ids}

    def start(self, origin, anchor, restart, before):
        drawn = draws.uniform(
            origin.rng.child("start"),
            origin.ids,
            step=restart,
            shape=tuple(origin.inputs.shape[1:]),
            low=-self.eps,
            high=self.eps,
            dtype=torch.float64,
        )
        return {"point": self._inside(origin.inputs, origin.inputs + drawn), "time": restart * self.steps}

    def look(self, anchor, state, point, view, rng):
        if view == 0 and self.sighted:
            return point
        shape, stream = tuple(point.shape[1:]), rng.child("view", view)
        return point + draws.uniform(
            stream, anchor["ids"], step=state["time"], shape=shape, low=-self.far, high=self.far, dtype=torch.float64
        )

    def slope(self, anchor, state, logits, goal):
        found = losses.slope("ce", logits, goal)
        return found if self.slopes == 1 else torch.stack([found * (1 + row) for row in range(self.slopes)])

    def step(self, anchor, state, answer):
        gradient = answer.slope if self.slopes == 1 else answer.slope.sum(0)
        if answer.others is not None:
            gradient = gradient + 0.5 * answer.others
        moved = state["point"] + 0.03 * gradient.sign()
        return {"point": self._inside(anchor["inputs"], moved), "time": state["time"] + 1}

    def _inside(self, inputs, points):
        return torch.minimum(
            torch.maximum(points, (inputs - self.eps).clamp(min=0)), (inputs + self.eps).clamp(max=0.5)
        )


RULES = [
    Glance(),
    Glance(sighted=False),
    Glance(views=1, sighted=False),
    Glance(views=5, leading=2, restarts=1),
    Glance(views=4, leading=4, sighted=False, steps=3, restarts=3),
    Glance(views=1, slopes=3),
]
NAMES = [f"{each.views}-{each.leading}-{each.slopes}-{'sighted' if each.sighted else 'unseen'}" for each in RULES]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Never(Untargeted):
    """A goal that cannot be met, ascended like the real one."""

    def margin(self, logits: Tensor) -> Tensor:
        return Untargeted.margin(self, logits) - 1e9

    def take(self, index: Tensor) -> Never:
        return Never(self.labels[index])


def run(
    rule: Glance, model: CountingModel, inputs: Tensor, goal, *, batch_size: int, ids: Tensor | None = None
) -> Attacked:
    return search(pose(model, inputs, goal, rng=4, ids=ids, start=None, batch_size=batch_size), rule)


def model_of(function, bounds: Bounds | None) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64)


def rows_add_up(out: Attacked, model: CountingModel) -> None:
    cost = out.cost
    forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    backward = cost.backwards + cost.idle_backwards + cost.padding_backwards
    assert (forward, backward) == (model.forward_rows, model.backward_rows)
    assert min(dataclasses.astuple(cost)) >= 0
    assert cost.forwards == int(out.forwards.sum())
    assert cost.backwards == int(out.backwards.sum())


def same(first: Attacked, second: Attacked, index: Tensor | None = None) -> None:
    chosen = slice(None) if index is None else index
    for name in COLUMNS:
        assert getattr(first, name)[chosen].tolist() == getattr(second, name).tolist(), name
    torch.testing.assert_close(first.adversarial[chosen], second.adversarial, rtol=0, atol=1e-9)


def step_costs(rule: Glance) -> tuple[int, int]:
    return rule.views + (not rule.sighted), rule.views * rule.slopes


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_pace_changes_cost_and_no_outcome(rule: Glance, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, N)
    expected = run(rule, model_of(function, bounds), inputs, labels, batch_size=64)
    assert 0 < int(expected.success.sum()) < N
    for look, pending, vacant, padded in PACES:
        pace = Pace(look_every=look, confirm_rows=4, pending_share=pending, vacant_share=vacant, padded=padded)
        monkeypatch.setattr(loop, "choose_pace", lambda *_, pace=pace, **__: pace)
        model = model_of(function, bounds)
        out = run(rule, model, inputs, labels, batch_size=batch_size)
        same(expected, out)
        rows_add_up(out, model)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_whole_is_split_is_permuted(rule: Glance) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, N)
    ids = torch.arange(N) * 131 + 5
    whole = run(rule, model_of(function, bounds), inputs, labels, batch_size=64, ids=ids)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    for part in (order, *order.split(9)):
        model = model_of(function, bounds)
        out = run(rule, model, inputs[part], labels[part], batch_size=7, ids=ids[part])
        same(whole, out, part)
        rows_add_up(out, model)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_goal_never_met_costs_what_is_documented(rule: Glance) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 20)
    forwards, backwards = step_costs(rule)
    for batch_size in (20, 7):
        model = model_of(function, bounds)
        out = run(rule, model, inputs, Never(labels), batch_size=batch_size)
        assert out.forwards.unique().tolist() == [rule.restarts * (rule.steps * forwards + 1)]
        assert out.backwards.unique().tolist() == [rule.restarts * rule.steps * backwards]
        rows_add_up(out, model)
        if batch_size == 20:
            assert (out.cost.idle_forwards, out.cost.idle_backwards) == (0, 0)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_outcomes_are_those_of_a_plain_loop(rule: Glance) -> None:
    """One sample after the other, one view after the other, every row counted where it is asked."""
    function, bounds, inputs, labels = curved_problem(0.1, N)
    out = run(rule, model_of(function, bounds), inputs, labels, batch_size=7)
    for row in range(N):
        expected = plain(rule, function, inputs[row : row + 1], labels[row : row + 1], torch.tensor([row]))
        found = [int(getattr(out, name)[row]) for name in ("success", "first_success", "forwards", "backwards")]
        assert found == expected[:4], row
        torch.testing.assert_close(out.adversarial[row : row + 1], expected[4], rtol=0, atol=1e-9)


def plain(rule: Glance, function, given: Tensor, label: Tensor, ids: Tensor) -> list:
    forwards = backwards = 0
    low, high = (given - rule.eps).clamp(min=0), (given + rule.eps).clamp(max=0.5)
    numbers = {"shape": tuple(given.shape[1:]), "dtype": torch.float64}
    for restart in range(rule.restarts):
        noise = draws.uniform(Streams(4).child("start"), ids, step=restart, low=-rule.eps, high=rule.eps, **numbers)
        point = (given + noise).clamp(low, high)
        for taken in range(rule.steps + 1):
            forwards += 1
            logits = function(point)[0]
            label_logit, rest = logits[label], logits[torch.arange(3) != label]
            if rest.max() - label_logit > 1e-5 * logits.topk(2).values.abs().max():
                return [1, forwards, forwards, backwards, point]
            if taken == rule.steps:
                break
            total = torch.zeros_like(point)
            for view in range(rule.views):
                stream = Streams(4).child("view", view)
                shift = draws.uniform(
                    stream, ids, step=restart * rule.steps + taken, low=-rule.far, high=rule.far, **numbers
                )
                own = view == 0 and rule.sighted
                forwards += not own
                leaf = (point if own else point + shift).requires_grad_()
                loss = cross_entropy(function(leaf)[0], int(label))
                weight = sum(1 + each for each in range(rule.slopes)) * (1.0 if view < rule.leading else 0.5)
                total += torch.autograd.grad(loss, leaf)[0] * steeper(loss.detach()) * weight
                backwards += rule.slopes
            point = (point.detach() + 0.03 * total.sign()).clamp(low, high)
    return [0, -1, forwards, backwards, point]


@pytest.mark.parametrize("look", [1, 8])
def test_padding_rows_are_those_that_stand_for_no_sample(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample carries its number in a feature that no view changes: the model sees whose rows it is asked."""
    function, bounds, inputs, labels = curved_problem(0.1, N)
    carried = torch.cat((inputs.flatten(1), torch.arange(N, dtype=torch.float64).unsqueeze(1) / 128), dim=1)
    seen = {"rows": 0, "strangers": 0}

    def model(points: Tensor) -> Tensor:
        own = (points[:, -1] * 128).round().long()
        seen["rows"] += len(points)
        seen["strangers"] += len(points) - len(own.unique())
        return function(points[:, :-1])

    class Carrying(Glance):
        def look(self, anchor, state, point, view, rng):
            moved = Glance.look(self, anchor, state, point, view, rng)
            return torch.cat((moved[:, :-1], point[:, -1:]), dim=1)

        def start(self, origin, anchor, restart, before):
            state = Glance.start(self, origin, anchor, restart, before)
            state["point"][:, -1] = origin.inputs[:, -1]
            return state

        def step(self, anchor, state, answer):
            state = Glance.step(self, anchor, state, answer)
            state["point"][:, -1] = anchor["inputs"][:, -1]
            return state

    chosen = loop.choose_pace
    monkeypatch.setattr(
        loop, "choose_pace", lambda *how, **more: dataclasses.replace(chosen(*how, **more), look_every=look)
    )
    counting = model_of(model, bounds)
    out = run(Carrying(sighted=False, steps=12), counting, carried, labels, batch_size=31)
    rows_add_up(out, counting)
    assert out.cost.padding_forwards == seen["strangers"] > 0
    logical = out.cost.forwards + out.cost.verifications
    assert seen["rows"] == logical + out.cost.idle_forwards + seen["strangers"]


@pytest.mark.parametrize("look", [1, 8])
def test_steps_are_blind_where_the_first_view_has_no_gradient(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 12)
    calls: list[int] = []

    def dead_at(dead: int):
        """A model whose gradient is not a number at one view of every step, and which no view can fool."""
        calls.clear()

        def model(points: Tensor) -> Tensor:
            if not points.requires_grad:
                return function(points)
            calls.append(1)
            bad = (len(calls) - 1) % 3 == dead
            return function(points) + (
                0.0 * (points - points.detach()).abs().sqrt().sum((1, 2, 3))[:, None] if bad else 0
            )

        return model

    chosen = loop.choose_pace
    monkeypatch.setattr(
        loop, "choose_pace", lambda *how, **more: dataclasses.replace(chosen(*how, **more), look_every=look)
    )
    for sighted in (True, False):
        rule = Glance(sighted=sighted, steps=5, restarts=1)
        for dead in range(3):
            out = run(rule, model_of(dead_at(dead), bounds), inputs, Never(labels), batch_size=12)
            assert out.zero_gradients.unique().tolist() == [5 * rule.views if dead == 0 else 0]
            assert out.adversarial.isfinite().all()


def test_a_success_is_one_of_the_point_and_never_of_a_view() -> None:
    """Far views cross the decision long before the point does: nobody but the point is asked about the goal."""
    function, bounds, inputs, labels = curved_problem(0.1, N)
    wide = Glance(views=4, far=10.0, steps=3, restarts=1, eps=1e-6)
    out = run(wide, model_of(function, None), inputs, labels, batch_size=8)
    assert not out.success.any()
    assert out.verifications.sum() == 0


@pytest.mark.parametrize(("name", "wrong"), [("forwards", 1), ("forwards", -1), ("backwards", 1), ("backwards", -1)])
def test_a_ledger_off_by_one_is_caught(name: str, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = loop.Views.__init__

    def lying(self, *args, **options) -> None:
        made(self, *args, **options)
        setattr(self, name, getattr(self, name) + wrong)

    monkeypatch.setattr(loop.Views, "__init__", lying)
    with pytest.raises(AssertionError):
        test_a_goal_never_met_costs_what_is_documented(Glance())
    with pytest.raises(AssertionError):
        test_outcomes_are_those_of_a_plain_loop(Glance())


def test_others_left_out_are_noticed() -> None:
    """The plain loop fails a rule that forgets the other views, or takes all of them for the leading ones."""
    function, bounds, inputs, labels = curved_problem(0.1, N)
    rule = Glance(views=5, leading=2, restarts=1, far=0.4)
    for mutant in (
        dataclasses.replace(rule, leading=5),
        dataclasses.replace(rule, views=2),
        dataclasses.replace(rule, sighted=False),
    ):
        out = run(mutant, model_of(function, bounds), inputs, labels, batch_size=7)
        points = [
            plain(rule, function, inputs[row : row + 1], labels[row : row + 1], torch.tensor([row]))[4]
            for row in range(N)
        ]
        assert not torch.allclose(out.adversarial, torch.cat(points), rtol=0, atol=1e-9)
