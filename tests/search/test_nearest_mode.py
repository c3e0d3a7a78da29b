"""The search loop where the nearest success is kept: exact rows, crowned points, restarts with memory, early ends."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from vambrace.core.access import Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.ops.rows import spread
from vambrace.search import loop
from vambrace.search.loop import search
from vambrace.search.pace import Pace
from vambrace.search.problem import pose
from vambrace.search.rule import Plain
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

COLUMNS = ("success", "first_success", "forwards", "backwards", "verifications", "finite", "zero_gradients")
FUNCTION, BOUNDS, INPUTS, LABELS = curved_problem(0.1, 40)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Walk(Plain):
    """Straight out along one gradient, on to `stride` a step; each restart starts where the one before ended / 2."""

    steps: int = 12
    restarts: int = 1
    stride: float = 0.02
    near: float = 0.0
    ends: bool = False
    ranked: bool = False
    lines: int = 1
    norm: ClassVar[str] = "l2"
    eps: ClassVar[float] = math.inf
    keeps: ClassVar[str] = "nearest"

    @property
    def enough(self) -> float:
        return self.near

    @property
    def clean(self) -> bool:
        return self.ranked

    @property
    def slopes(self) -> int:
        return self.lines

    def anchor(self, origin):
        anchor = {"inputs": origin.inputs}
        assert (origin.logits is not None) == self.ranked
        if self.ranked:
            torch.testing.assert_close(origin.logits, FUNCTION(origin.inputs))
            anchor["rank"] = origin.logits.argsort(dim=1, descending=True)
        return anchor

    def start(self, origin, anchor, restart, before):
        count = len(restart)
        assert (before is None) == bool((restart == 0).all()) or count == 0
        point = origin.inputs.clone() if before is None else (before["point"] + origin.inputs) / 2
        ages = torch.zeros(count, dtype=torch.int64) if before is None else before["ages"]
        return {"point": point, "ages": ages, "over": torch.zeros(count, dtype=torch.bool)}

    def slope(self, anchor, state, logits, goal):
        rival = logits.scatter(1, goal.labels.unsqueeze(1), -math.inf).topk(2, dim=1).indices.T
        found = torch.zeros(2, *logits.shape, dtype=logits.dtype).scatter_(2, rival.unsqueeze(2), 1.0)
        found.scatter_(2, goal.labels.expand_as(rival).unsqueeze(2), -1.0)
        return found[0] if self.lines == 1 else found

    def step(self, anchor, state, answer):
        gradient = answer.slope if self.lines == 1 else answer.slope.sum(dim=0)
        length = gradient.flatten(1).norm(dim=1)
        point = (state["point"] + self.stride * gradient / spread(length, gradient)).clamp(0.0, 0.5)
        over = answer.goal.margin(answer.logits) > 0 if self.ends else torch.zeros_like(state["over"])
        return {"point": point, "ages": state["ages"] + 1, "over": over}


RULES = {
    "plain": Walk(),
    "slopes": Walk(lines=2),
    "clean restarts": Walk(restarts=3, ranked=True, steps=5),
    "near enough": Walk(near=0.1, restarts=2),
    "ends": Walk(ends=True, restarts=3, lines=2),
}


def model_of(function=FUNCTION) -> CountingModel:
    return CountingModel(function, bounds=BOUNDS, dtype=torch.float64)


def ran(
    rule: Walk, model: CountingModel | None = None, *, index: Tensor | None = None, batch_size: int = 64, goal=None
):
    index = torch.arange(len(INPUTS)) if index is None else index
    problem = pose(
        model or model_of(),
        INPUTS[index],
        LABELS[index] if goal is None else goal,
        rng=0,
        ids=index * 7 + 3,
        start=None,
        batch_size=batch_size,
    )
    return search(problem, rule)


def same(whole, other, index: Tensor | None = None) -> None:
    index = torch.arange(len(whole.success)) if index is None else index
    for name in COLUMNS:
        assert getattr(whole, name)[index].tolist() == getattr(other, name).tolist(), name
    torch.testing.assert_close(whole.adversarial[index], other.adversarial, rtol=0, atol=1e-9)


def rows_add_up(out, model: CountingModel) -> None:
    cost = out.cost
    forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    backward = cost.backwards + cost.idle_backwards + cost.padding_backwards
    assert (forward, backward) == (model.forward_rows, model.backward_rows)
    assert min(dataclasses.astuple(cost)) >= 0


@dataclasses.dataclass
class Walked:
    """What a sample at a time, in plain Python, finds."""

    point: Tensor
    success: bool = False
    forwards: int = 0
    backwards: int = 0
    first: int = -1
    checks: int = 0


def naive(rule: Walk, given: Tensor, label: int) -> Walked:
    """The rule as its docstring says, one sample; distances compared as the loop compares them."""
    found = Walked(point=given, forwards=int(rule.ranked))
    start, best = given, math.inf

    def margin(point: Tensor) -> tuple[float, bool, list[Tensor]]:
        leaf = point.clone().requires_grad_()
        logits = FUNCTION(leaf[None])[0]
        others = sorted((k for k in range(3) if k != label), key=lambda k: -float(logits[k].detach()))
        slopes = [torch.autograd.grad(logits[k] - logits[label], leaf, retain_graph=True)[0] for k in others]
        lead = float((logits[others[0]] - logits[label]).detach())
        return lead, lead > 1e-5 * float(logits.detach().topk(2).values.abs().max()), slopes[: rule.lines]

    for _ in range(rule.restarts):
        point, over = start, False
        for taken in range(rule.steps + 1):
            found.forwards += 1
            lead, won, slopes = margin(point)
            distance = float((point - given).norm())
            if won and distance <= rule.near:
                return dataclasses.replace(found, point=point, success=True, first=found.forwards, checks=1)
            if won and distance < best * (1 - 1e-6):
                best, found.point, found.success, found.first = distance, point, True, found.forwards
            if taken == rule.steps or over:
                break
            found.backwards += rule.lines
            over = rule.ends and lead > 0
            gradient = sum(slopes)
            point = (point + rule.stride * gradient / gradient.norm()).clamp(0.0, 0.5)
        start = (point + given) / 2
    found.checks = int(found.success)
    return found


@pytest.mark.parametrize("name", RULES)
def test_as_one_sample_at_a_time(name: str) -> None:
    out = ran(RULES[name])
    expected = [naive(RULES[name], given, int(label)) for given, label in zip(INPUTS, LABELS, strict=True)]
    assert out.success.tolist() == [each.success for each in expected]
    assert 3 < int(out.success.sum()) < 40
    assert out.forwards.tolist() == [each.forwards for each in expected]
    assert out.backwards.tolist() == [each.backwards for each in expected]
    assert out.first_success.tolist() == [each.first for each in expected]
    assert out.verifications.tolist() == [each.checks for each in expected]
    for row, each in enumerate(expected):
        if each.success:
            torch.testing.assert_close(out.adversarial[row], each.point, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_pace_changes_cost_and_no_outcome(name: str, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`look_every` 8 is what CUDA runs."""
    expected = ran(RULES[name])
    for look, pending, vacant, padded in ((1, 0.125, 0.25, True), (8, 0.125, 0.25, True), (3, 0.0, 0.0, False)):
        pace = Pace(look_every=look, confirm_rows=4, pending_share=pending, vacant_share=vacant, padded=padded)
        monkeypatch.setattr(loop, "choose_pace", lambda *_, pace=pace, **__: pace)
        model = model_of()
        out = ran(RULES[name], model, batch_size=batch_size)
        same(expected, out)
        rows_add_up(out, model)


@pytest.mark.parametrize("name", RULES)
def test_whole_split_and_permuted(name: str) -> None:
    whole = ran(RULES[name])
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    same(whole, ran(RULES[name], index=order, batch_size=7), order)
    for first in range(0, 40, 11):
        part = torch.arange(first, min(first + 11, 40))
        same(whole, ran(RULES[name], index=part), part)


def confirmed_by(margin_needed: float, monkeypatch: pytest.MonkeyPatch, method: str):
    """A model that is kinder to search batches than to the verifications of `_crown` or `_confirm`."""
    asked: list[bool] = []
    inside = getattr(loop._Search, method)

    def marked(self, rows: Tensor) -> int:
        asked.append(True)
        done = inside(self, rows)
        asked.pop()
        return done

    monkeypatch.setattr(loop._Search, method, marked)

    def two_faced(points: Tensor) -> Tensor:
        logits = FUNCTION(points)
        if not asked:
            return logits
        near = (points.flatten(1)[:, None] - INPUTS.flatten(1)[None]).norm(dim=2).argmin(1)
        return logits.scatter_add(1, LABELS[near].unsqueeze(1), torch.full((len(points), 1), margin_needed).double())

    return two_faced


@pytest.mark.parametrize("look", [1, 8])
def test_refused_nearest_points_move_outward(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(look_every=look, confirm_rows=4, pending_share=0.125, vacant_share=0.25, padded=True)
    monkeypatch.setattr(loop, "choose_pace", lambda *_, **__: pace)
    honest = ran(Walk(stride=0.004, steps=60))
    needed = 2e-3
    model = model_of(confirmed_by(needed, monkeypatch, "_crown"))
    out = ran(Walk(stride=0.004, steps=60), model)
    rows_add_up(out, model)
    assert torch.equal(honest.success | out.success, honest.success)
    pushed = out.success & (out.verifications > 1)
    assert pushed.any(), "some point must have been refused and moved"
    assert (out.distance[pushed] > honest.distance[pushed]).all()
    assert (out.distance[pushed] <= honest.distance[pushed] * 1.0101).all()
    with torch.no_grad():
        proven = Untargeted(LABELS).margin(FUNCTION(out.adversarial))
    assert (proven[out.success] > needed).all()
    unmoved = out.success & (out.verifications == 1)
    assert torch.equal(out.adversarial[unmoved], honest.adversarial[unmoved]), "unchanged, bit for bit"
    given_up = honest.success & ~out.success
    assert given_up.any()
    assert (out.verifications[given_up] == 1 + len(loop.pushes(quantised=False))).all()
    assert (out.margin[given_up] <= needed).all()


def test_a_refused_claim_hides_no_success_further_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim within `enough` that does not hold must not be kept as the nearest."""
    model = model_of(confirmed_by(10.0, monkeypatch, "_confirm"))
    free = ran(Walk(steps=20))
    reach = float(free.distance[free.success].median())
    out = ran(Walk(steps=20, near=reach), model)
    rows_add_up(out, model)
    honest = ran(Walk(steps=20, near=reach))
    near = honest.success & (honest.distance <= reach)
    assert near.any()
    assert (out.distance[out.success] > reach).all()
    assert (out.success & near).any(), "a sample whose near points were refused has one further out"


def test_claims_are_pulled_inside_the_radius_that_is_enough() -> None:
    """Distances are compared in the dtype of the points; what ends a search lies within in float64 too."""
    inputs, labels = INPUTS.float(), LABELS
    model = CountingModel(lambda points: FUNCTION(points.double()).float(), bounds=BOUNDS)
    free = search(pose(model, inputs, labels, rng=0, ids=None, start=None, batch_size=64), Walk())
    seen = (free.adversarial - inputs).flatten(1).norm(dim=1).double()
    rounded = (free.success & (seen < free.distance)).nonzero().flatten().tolist()
    assert rounded, "points that are nearer in float32 than in float64"
    for row in rounded:
        problem = pose(model, inputs[row : row + 1], labels[row : row + 1], rng=0, ids=None, start=None, batch_size=1)
        out = search(problem, Walk(near=float(seen[row])))
        assert out.success
        assert out.forwards < 13, "it ends there"
        assert out.distance <= float(seen[row]) < free.distance[row]


def test_the_input_itself_ends_a_search() -> None:
    out = ran(Walk(), goal=(LABELS + 1) % 3)
    assert out.success.all()
    assert out.forwards.tolist() == [1] * 40
    assert out.backwards.tolist() == [0] * 40
    assert torch.equal(out.adversarial, INPUTS)
    assert ran(Walk(ranked=True), goal=(LABELS + 1) % 3).forwards.tolist() == [2] * 40


def test_logits_that_are_not_finite_after_a_success_unmake_it() -> None:
    wins = ran(Walk())
    row = int(wins.success.nonzero()[0])
    reach = float(wins.distance[row]) + 0.03

    def broken(points: Tensor) -> Tensor:
        away = (points - INPUTS[row]).flatten(1).norm(dim=1, keepdim=True)
        return torch.where((away > reach) & (away < 0.4), math.nan, FUNCTION(points))

    out = ran(Walk(steps=30), model_of(broken), index=torch.tensor([row]))
    assert not out.finite[0]
    assert not out.success[0]


def test_targets_too() -> None:
    goal = Targeted((LABELS + 1) % 3)
    with torch.no_grad():
        assert (goal.margin(FUNCTION(INPUTS)) <= 0).all()

    class ToTarget(Walk):
        def slope(self, anchor, state, logits, goal):
            best = logits.scatter(1, goal.classes.unsqueeze(1), -math.inf).argmax(1, keepdim=True)
            found = torch.zeros_like(logits).scatter_(1, goal.classes.unsqueeze(1), 1.0)
            return found.scatter_(1, best, -1.0)

    out = ran(ToTarget(steps=30), goal=goal)
    assert out.success.any()
    with torch.no_grad():
        assert (goal.margin(FUNCTION(out.adversarial))[out.success] > 0).all()


@pytest.mark.parametrize("broken", ["pushes", "_keep", "_spent"])
def test_mutants_are_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "pushes":
        monkeypatch.setattr(loop, "pushes", lambda **_: ())
        with pytest.raises(AssertionError, match="refused and moved"):
            test_refused_nearest_points_move_outward(1, monkeypatch)
        return
    if broken == "_keep":  # the last success is kept in place of the nearest

        def keep(self, known: Tensor, claimed: Tensor, margin: Tensor) -> Tensor:
            self.slots.better(claimed, margin.double() * 0 - 1, self._spent(self.slots.taken_steps, self.slots.restart))
            return claimed & False

        monkeypatch.setattr(loop._Search, "_keep", keep)
    else:
        monkeypatch.setattr(loop._Search, "_spent", lambda self, steps, restart: steps + 1)
    with pytest.raises(AssertionError):
        test_as_one_sample_at_a_time("clean restarts")


def test_bounds_are_kept() -> None:
    assert Bounds(0.0, 0.5).contains(ran(Walk(steps=60)).adversarial).all()
