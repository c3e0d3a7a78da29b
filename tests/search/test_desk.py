"""The desk: every query charged to its sample, the closest success kept, claims verified, nothing told of company."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vambrace.core.access import Access, Bounds
from vambrace.core.rng import Streams
from vambrace.ops import draws
from vambrace.search import desk as desk_module
from vambrace.search.desk import Desk, serve
from vambrace.search.problem import Problem, pose
from vambrace.testing.counting import CountingModel

LEVELS = [Access.LABELS, Access.SCORES, Access.GRADIENTS]
COLUMNS = ("success", "distance", "forwards", "verifications", "queries", "first_success", "finite", "adversarial")


def ring(points: Tensor) -> Tensor:
    """Class 1 outside of the circle of radius 0.3 around the centre of the unit square, else class 0."""
    away = (points.double() - 0.5).flatten(1).square().sum(1).sqrt() - 0.3
    return torch.stack((-away, away), dim=1).to(points.dtype)


def posed(model: CountingModel, count: int = 9, batch: int = 4, dtype: torch.dtype = torch.float32) -> Problem:
    inputs = 0.4 + 0.2 * draws.uniform(Streams(3), torch.arange(count), shape=(2,), dtype=dtype)
    labels = torch.zeros(count, dtype=torch.int64)
    return pose(model, inputs, labels, rng=0, ids=None, start=None, batch_size=batch)


def wander(desk: Desk, rounds: int = 6) -> None:
    """A toy attack: random points, more of them for odd samples."""
    desk.ask_inputs()
    for turn in range(rounds):
        live = desk.live()
        count = (1 + live % 2 * 3).minimum(desk.left[live])
        owner = live.repeat_interleave(count)
        number = torch.arange(len(owner)) - (count.cumsum(0) - count).repeat_interleave(count)
        ids = desk.problem.ids[owner]
        points = draws.uniform(Streams(7), ids, step=number + 100 * turn, shape=(2,), low=-0.2, high=1.2)
        desk.reached(points.to(desk.inputs.dtype), owner)
        desk.settle()


@pytest.mark.parametrize("access", LEVELS)
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_ledger_is_what_an_independent_model_saw(access: Access, batch: int) -> None:
    model = CountingModel(ring, access=access)
    out = serve(posed(model, 23, batch), wander, norm="l2", budget=9)
    cost = out.cost
    assert cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards == model.forward_rows
    assert cost.idle_forwards == 0
    assert max(model.calls) <= batch
    assert out.forwards.tolist() == [7 if row % batch % 2 == 0 else 9 for row in range(23)]
    assert out.success.all()
    assert out.verifications.tolist() == [2 if access == Access.LABELS else 1] * 23
    counted = access < Access.GRADIENTS
    assert torch.equal(out.queries, (out.forwards + out.verifications) * counted)
    assert cost.padding_forwards == 0 or not counted


@pytest.mark.parametrize("access", LEVELS)
def test_the_closest_point_is_kept_as_measured_in_float64(access: Access) -> None:
    model = CountingModel(ring, access=access)
    problem = posed(model, 5, 64)
    desk = Desk(problem, norm="linf", budget=50)
    asked: list[tuple[Tensor, Tensor, Tensor]] = []
    for turn in range(5):
        owner = torch.arange(5).repeat_interleave(10)
        points = draws.uniform(Streams(turn), torch.arange(50), shape=(2,), low=-0.5, high=1.5)
        won = desk.reached(points, owner)
        asked.append((points.clone(), owner, won))
    assert desk.left.tolist() == [0] * 5
    assert len(desk.live()) == 0
    out = desk.outcome()
    points, owner, won = (torch.cat(column) for column in zip(*asked, strict=True))
    assert ((points >= 0) & (points <= 1)).all(), "points are not clamped"
    for row in range(5):
        mine = points[(owner == row) & won]
        size = (mine.double() - problem.inputs[row].double()).abs().amax(1)
        assert out.distance[row] == size.min()
        assert torch.equal(out.adversarial[row], mine[size.argmin()])
        place = int(
            ((owner == row).cumsum(0) - 1)[((points == out.adversarial[row]).all(1) & (owner == row)).nonzero()[0]]
        )
        assert out.first_success[row] == place + 1


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(9)), st.integers(1, 12), st.sampled_from(LEVELS))
def test_company_order_and_batch_do_not_matter(order: list[int], batch: int, access: Access) -> None:
    # Unlike `wander`, which goes by a sample's place in its group.
    def alike(desk: Desk) -> None:
        desk.ask_inputs()
        for turn in range(4):
            owner = desk.live().repeat_interleave(desk.left[desk.live()].clamp(max=3))
            first = torch.searchsorted(owner, owner)
            step = torch.arange(len(owner)) - first + 10 * turn
            desk.reached(draws.uniform(Streams(7), desk.problem.ids[owner], step=step, shape=(2,)), owner)
            desk.settle()

    whole = serve(posed(CountingModel(ring, access=access), 9, 64), alike, norm="l2", budget=8, enough=0.3)
    index = torch.tensor(order)
    mixed = posed(CountingModel(ring, access=access), 9, batch).take(index)
    other = serve(mixed, alike, norm="l2", budget=8, enough=0.3)
    for name in COLUMNS:
        assert torch.equal(getattr(whole, name)[index], getattr(other, name)), name


def test_asking_beyond_the_budget_is_our_own_mistake() -> None:
    model = CountingModel(ring, access=Access.LABELS)
    desk = Desk(posed(model), norm="l2", budget=2)
    desk.ask_inputs()
    owner = torch.tensor([3, 3])
    with pytest.raises(RuntimeError, match="beyond its budget"):
        desk.reached(torch.rand(2, 2, generator=torch.Generator().manual_seed(0)), owner)
    assert model.forward_rows == 9


def test_a_success_that_is_near_enough_ends_a_sample_once_verified() -> None:
    model = CountingModel(ring, access=Access.LABELS)
    desk = Desk(posed(model, 3), norm="l2", budget=10, enough=0.35)
    far, near = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5, 0.81]])
    desk.reached(far.clone(), torch.tensor([0]))
    desk.settle()
    assert desk.left.tolist() == [9, 10, 10]
    desk.reached(near.clone(), torch.tensor([0]))
    assert desk.left.tolist() == [8, 10, 10]
    desk.settle()
    assert desk.left.tolist() == [0, 10, 10]
    out = desk.outcome()
    assert out.success.tolist() == [True, False, False]
    assert out.first_success.tolist() == [2, -1, -1]
    assert out.verifications.tolist() == [2, 0, 0]
    assert torch.equal(out.adversarial[1:], desk.inputs[1:])
    assert out.distance[1:].tolist() == [0, 0]


class Turncoat(CountingModel):
    """Says what it says only so many times about a point, and class 0 afterwards."""

    def __init__(self, times: int, **options: object) -> None:
        super().__init__(ring, **options)
        self.times = times
        self.heard: dict[bytes, int] = {}

    def predict(self, inputs: Tensor) -> Tensor:
        truth = super().predict(inputs)
        for row, point in enumerate(inputs):
            key = point.numpy().tobytes()
            self.heard[key] = self.heard.get(key, 0) + 1
            if self.heard[key] > self.times:
                truth[row] = 0
        return truth


def test_a_refused_claim_is_pushed_outward() -> None:
    """The search and one verification agree, the second does not; a point a little further out passes both."""
    model = Turncoat(2, access=Access.LABELS, bounds=Bounds(0.0, 1.0))
    desk = Desk(posed(model, 1), norm="l2", budget=10)
    desk.reached(torch.tensor([[0.5, 0.9]]), torch.tensor([0]))
    before = float(desk.distance[0])
    out = desk.outcome()
    assert out.success.all()
    assert before < float(out.distance[0]) < before * (1 + 1e-4)
    assert out.verifications.tolist() == [4]


def test_what_never_passes_is_censored_and_goes_on() -> None:
    model = Turncoat(1, access=Access.LABELS)
    model.predict = lambda inputs: CountingModel.predict(model, inputs) * int(model.forward_rows < 3)  # type: ignore[method-assign]
    desk = Desk(posed(model, 1), norm="l2", budget=10, enough=1.0)
    desk.reached(torch.tensor([[0.5, 0.9]]), torch.tensor([0]))
    desk.settle()
    assert desk.distance[0] == math.inf
    assert desk.left.tolist() == [9]
    out = desk.outcome()
    assert not out.success.any()
    assert out.first_success.tolist() == [-1]
    assert model.forward_rows == out.cost.forwards + out.cost.verifications


def test_the_first_point_is_the_last_resort() -> None:
    """Nothing near the closest point passes, and the first one, deep behind the decision, does."""
    lying = False

    def shy(points: Tensor) -> Tensor:
        logits = ring(points)
        shallow = (points - 0.5).norm(dim=1) < 0.35
        return torch.where((shallow & lying).unsqueeze(1), -logits, logits)

    desk = Desk(posed(CountingModel(shy, access=Access.SCORES), 1), norm="l2", budget=10)
    for point in ([0.5, 0.95], [0.5, 0.82]):
        desk.reached(torch.tensor([point]), torch.tensor([0]))
    lying = True
    out = desk.outcome()
    assert out.success.all()
    assert torch.equal(out.adversarial[0], torch.tensor([0.5, 0.95]))
    assert out.first_success.tolist() == [1]


def test_a_margin_within_rounding_is_no_success() -> None:
    def tied(points: Tensor) -> Tensor:
        return torch.stack((torch.full((len(points),), 1.0), torch.full((len(points),), 1.0 + 2e-7)), dim=1)

    desk = Desk(posed(CountingModel(tied, access=Access.SCORES)), norm="l2", budget=3)
    assert not desk.ask_inputs().any()
    assert desk.outcome().margin.tolist() == pytest.approx([2.4e-7] * 9, abs=1e-7)


def test_logits_that_are_not_finite_end_a_sample_unmeasured() -> None:
    def broken(points: Tensor) -> Tensor:
        return torch.where(points[:, :1] > 0.9, float("nan"), ring(points))

    desk = Desk(posed(CountingModel(broken, access=Access.SCORES), 2), norm="l2", budget=5)
    desk.reached(torch.tensor([[0.5, 0.95], [0.95, 0.5], [0.5, 0.95]]), torch.tensor([0, 1, 1]))
    assert desk.left.tolist() == [4, 0]
    out = desk.outcome()
    assert out.finite.tolist() == [True, False]
    assert out.success.tolist() == [True, False]


def test_an_input_that_is_wrong_already_is_done_at_distance_zero() -> None:
    model = CountingModel(ring, access=Access.LABELS)
    problem = pose(
        model, torch.tensor([[0.9, 0.9], [0.5, 0.5]]), torch.tensor([0, 0]), rng=0, ids=None, start=None, batch_size=8
    )
    desk = Desk(problem, norm="l2", budget=5)
    assert desk.ask_inputs().tolist() == [True, False]
    desk.settle()
    assert desk.left.tolist() == [0, 4]
    out = desk.outcome()
    assert out.distance.tolist() == [0, 0]
    assert out.success.tolist() == [True, False]


@pytest.mark.parametrize("access", LEVELS)
def test_a_model_that_answers_differently_each_time_breaks_nothing(access: Access) -> None:
    generator = torch.Generator().manual_seed(1)

    def noisy(points: Tensor) -> Tensor:
        return torch.randn(len(points), 2, generator=generator)

    model = CountingModel(noisy, access=access)
    out = serve(posed(model, 23, 7), wander, norm="l2", budget=12, enough=0.2)
    cost = out.cost
    assert cost.forwards + cost.verifications + cost.padding_forwards == model.forward_rows
    assert torch.equal(out.success, out.first_success > 0)


def test_an_empty_batch_asks_nothing() -> None:
    model = CountingModel(ring, access=Access.LABELS)
    out = serve(posed(model, 0), wander, norm="l2", budget=5)
    assert out.success.shape == (0,)
    assert model.forward_rows == 0
    assert Desk(posed(model, 2), norm="l2", budget=1).reached(
        torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
    ).shape == (0,)


def test_points_that_reach_their_goals_are_measured() -> None:
    points, owner = torch.tensor([[0.5, 0.9], [0.5, 0.5], [0.1, 0.2]]), torch.tensor([0, 0, 1])
    desk, other = (Desk(posed(CountingModel(ring, access=Access.LABELS), 2), norm="l2", budget=2) for _ in range(2))
    reached, found = other.reached(points.clone(), owner), desk.measured(points.clone(), owner)
    expected = (points.double() - desk.inputs[owner].double()).norm(dim=1)
    assert found.tolist() == torch.where(reached, expected, math.inf).tolist()
    assert 0 < int(reached.sum()) < 3
    assert torch.equal(desk.closest, other.closest)


def test_a_model_that_writes_into_its_input_changes_nothing_of_ours() -> None:
    def spoiling(points: Tensor) -> Tensor:
        logits = ring(points)
        points.zero_()
        return logits

    desk = Desk(posed(CountingModel(spoiling, access=Access.LABELS), 1), norm="l2", budget=2)
    point = torch.tensor([[0.5, 0.9]])
    desk.reached(point, torch.tensor([0]))
    assert point.tolist() == [[0.5, pytest.approx(0.9)]]


@pytest.mark.parametrize("mutant", ["closest lost", "budget ignored", "verification skipped"])
def test_mutants_are_told(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutant == "closest lost":
        monkeypatch.setattr(Desk, "_keep", lambda *_: None)
        check = test_the_closest_point_is_kept_as_measured_in_float64
        arguments: tuple[object, ...] = (Access.LABELS,)
    elif mutant == "budget ignored":
        true = desk_module.torch.bincount
        monkeypatch.setattr(
            desk_module.torch, "bincount", lambda owner, minlength: true(owner, minlength=minlength) * 0
        )
        check, arguments = test_the_ledger_is_what_an_independent_model_saw, (Access.LABELS, 7)
    else:
        monkeypatch.setattr(desk_module.Desk, "_confirm", lambda *_: None)
        check, arguments = test_the_ledger_is_what_an_independent_model_saw, (Access.LABELS, 7)
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        check(*arguments)
