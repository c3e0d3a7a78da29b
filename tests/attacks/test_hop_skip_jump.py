"""HopSkipJump: equal to a naive loop over samples, sharp where the answer is known, within its budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import black_box
from vambrace.attacks import between, hop_skip_jump
from vambrace.attacks.hop_skip_jump import HopSkipJump, estimate
from vambrace.core.access import Access, Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError
from vambrace.ops import draws
from vambrace.search.desk import Desk
from vambrace.search.problem import pose
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

NORMS = ("l2", "linf")


class Spent(Exception):
    """The naive budget is used up."""


class Naive:
    """One sample, one query at a time, written from the paper; draws by hand from the same stream."""

    def __init__(self, network: Callable[[Tensor], Tensor], given: Tensor, label: int, norm: str, budget: int) -> None:
        self.network, self.given, self.label, self.norm, self.budget = network, given, label, norm, budget
        self.queries, self.best, self.low, self.high = 0, math.inf, 0.0, 0.5

    def length(self, change: Tensor) -> float:
        return float(change.abs().max() if self.norm == "linf" else change.norm())

    def across(self, point: Tensor) -> bool:
        if self.queries == self.budget:
            raise Spent
        self.queries += 1
        point = point.clamp(self.low, self.high)
        won = int(self.network(point[None]).argmax()) != self.label
        if won:
            self.best = min(self.best, self.length(point - self.given))
        return won

    def back(self, far: Tensor, tolerance: float) -> Tensor:
        low, high, found = 0.0, 1.0, far
        while high - low > tolerance:
            middle = (low + high) / 2
            change = far - self.given
            most = self.length(change) * middle
            point = self.given + (change.clamp(-most, most) if self.norm == "linf" else change * middle)
            if self.across(point):
                high, found = middle, point
            else:
                low = middle
        return found

    def run(self, start: Tensor, sample: int, stream: Streams, first: int) -> None:
        features = self.given.numel()
        tolerance = 2.0 ** -math.ceil(math.log2(max(features**1.5 if self.norm == "l2" else features**2, 1024)))
        assert not self.across(self.given)
        assert self.across(start)
        point = self.back(start, tolerance)
        size, turn = 0.1 * 0.5 * (1.0 if self.norm == "l2" else math.sqrt(6 / features)), 0
        while True:
            turn += 1
            total, plain, crossed, count = torch.zeros_like(point), torch.zeros_like(point), 0, 0
            wanted = min(int(first * math.sqrt(turn)), self.budget - self.queries)
            for number in range(wanted):
                noise = draws.bell(
                    stream.child("steps", turn), torch.tensor([sample]), step=number, shape=tuple(point.shape)
                )[0].double()
                noise = torch.where((point <= self.low) & (noise < 0), 0.0, noise)
                noise = torch.where((point >= self.high) & (noise > 0), 0.0, noise)
                unit = draws.BELL_SIZE * math.sqrt(features) if self.norm == "l2" else 255.0
                sign = 1 if self.across(point + noise / unit * size) else -1
                total, plain = total + sign * noise, plain + noise
                crossed, count = crossed + sign, count + 1
            mean = crossed / count
            slope = total - (mean if abs(mean) < 1 else 0.0) * plain
            way = slope.sign() if self.norm == "linf" else slope / slope.norm()
            reach, far = self.length(point - self.given) / math.sqrt(turn), point
            for _ in range(24):
                moved = (point + way * reach).clamp(self.low, self.high)
                if self.across(moved):
                    far = moved
                    break
                reach /= 2
            size = self.length(far - self.given) / features
            point = self.back(far, tolerance)


@pytest.mark.parametrize("norm", NORMS)
def test_equals_a_naive_loop(norm: str) -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    away = black_box.other_points(network, inputs, (labels + 1) % 3)
    ids = torch.arange(len(inputs)) * 7 + 3
    attack = HopSkipJump(norm=norm, budget=260, initial_queries=15)
    model = black_box.counting(network, bounds, Access.LABELS)
    out = attack(model, inputs, labels, rng=5, ids=ids, start=away, batch_size=10)
    stream = Streams(5).child("hop_skip_jump")
    for row in range(len(inputs)):
        naive = Naive(network, inputs[row], int(labels[row]), norm, attack.budget)
        with pytest.raises(Spent):
            naive.run(away[row], int(ids[row]), stream, attack.initial_queries)
        assert int(out.forwards[row]) == naive.queries
        assert float(out.distance[row]) == pytest.approx(naive.best, rel=1e-9), f"sample {row}"


@pytest.mark.parametrize(("norm", "most"), [("l2", 1.02), ("linf", 1.06)])
def test_comes_close_to_the_nearest_decision(norm: str, most: float) -> None:
    assert float(black_box.found_over_best(HopSkipJump(norm=norm, budget=2000)).max()) < most


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.GRADIENTS])
def test_keeps_the_promises_of_black_box_attacks(norm: str, access: Access) -> None:
    black_box.check_black_box(HopSkipJump(norm=norm, budget=120, initial_queries=10), access)


def test_stops_within_eps_and_reads_a_curve_off_one_run() -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    whole = HopSkipJump(budget=600)(black_box.counting(network, bounds, Access.LABELS), inputs, labels)
    eps = float(whole.distance.median()) * 1.2
    out = HopSkipJump(budget=600, eps=eps)(black_box.counting(network, bounds, Access.LABELS), inputs, labels)
    assert bool((out.distance[out.success] <= eps).all())
    near = whole.distance <= eps
    assert torch.equal(out.success, near)
    assert bool((out.forwards[near] < 600).any())
    assert bool((out.forwards[~near] == 600).all())
    curve = HopSkipJump(budget=600).curve(
        black_box.counting(network, bounds, Access.LABELS), inputs, labels, eps=(eps, 2 * eps, 4 * eps)
    )
    broken = [int(each.success.sum()) for each in curve.outcomes]
    assert broken == sorted(broken)
    assert broken[0] == int(near.sum())


def test_a_targeted_goal_needs_start_points_that_reach_it() -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    goal = Targeted((labels + 1) % 3)
    model = black_box.counting(network, bounds, Access.LABELS)
    with pytest.raises(ConfigError) as caught:
        HopSkipJump()(model, inputs, goal)
    assert caught.value.code == "E141"
    assert model.forward_rows == 0
    with pytest.raises(ConfigError) as caught:
        HopSkipJump()(model, inputs, goal, start=inputs)
    assert caught.value.code == "E141"


@pytest.mark.parametrize("options", [{"budget": 0}, {"initial_queries": 0}, {"norm": "l1"}, {"eps": -1.0}])
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        HopSkipJump(**options)


def test_without_bounds_it_finds_its_own_start() -> None:
    network, _, inputs, labels = curved_problem(0.1)
    model = black_box.counting(network, None, Access.LABELS)
    out = HopSkipJump(budget=300)(model, inputs, labels)
    assert out.success.all()


# ---- defects of MindArmour that must not come back -------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 2, 3, 17, 99])
def test_no_sample_asks_more_than_its_budget(budget: int) -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    model = black_box.counting(network, bounds, Access.LABELS)
    out = HopSkipJump(budget=budget)(model, inputs, labels)
    assert int(out.forwards.max()) <= budget
    assert model.forward_rows == int(out.queries.sum())


@pytest.mark.parametrize("norm", NORMS)
def test_random_steps_have_the_wanted_size_in_the_norm_of_the_attack(norm: str) -> None:
    """With linf steps that are scaled to Euclidean length 1, an element moves 1 / sqrt(features) of what is meant."""
    seen: list[Tensor] = []

    def watched(points: Tensor) -> Tensor:
        seen.append(points.clone())
        return torch.stack((points.flatten(1).sum(1) * 0, points.flatten(1).sum(1)), dim=1)

    inputs = torch.full((1, 1, 20, 20), 0.5, dtype=torch.float64)
    model = CountingModel(watched, access=Access.LABELS, dtype=torch.float64)
    problem = pose(model, inputs, torch.tensor([0]), rng=0, ids=None, start=None, batch_size=64)
    desk = Desk(problem, norm=norm, budget=100)
    estimate(desk, torch.tensor([0]), inputs, torch.tensor([100]), torch.tensor([0.01]).double(), Streams(0))
    change = (torch.cat(seen) - inputs).flatten(1)
    sizes = change.norm(dim=1) if norm == "l2" else change.abs().amax(dim=1)
    assert len(sizes) == 100
    assert float(sizes.max()) <= 0.011
    assert float(sizes.min()) >= 0.009


# ---- wrong on purpose -------------------------------------------------------------------------------------------


def test_an_estimate_of_many_steps_is_one_in_half_precision() -> None:
    """Sums over thousands of steps are no numbers of float16."""

    def network(points: Tensor) -> Tensor:
        score = points.double().flatten(1)[:, 0] - 0.6
        return torch.stack((-score, score), dim=1)

    inputs, labels = torch.full((3, 4), 0.3), torch.zeros(3, dtype=torch.int64)
    attack = HopSkipJump(norm="l2", budget=6000, initial_queries=2500)
    for dtype in (torch.float16, torch.bfloat16):
        out = attack(black_box.counting(network, Bounds(0.0, 1.0), Access.LABELS), inputs.to(dtype), labels)
        assert out.success.all()
        assert (out.distance < 0.34).all()


def test_mutants_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    true = hop_skip_jump.estimate
    with monkeypatch.context() as patch:
        patch.setattr(hop_skip_jump, "estimate", lambda *given: -true(*given))
        with pytest.raises(AssertionError):
            test_comes_close_to_the_nearest_decision("l2", 1.02)
    with monkeypatch.context() as patch:
        patch.setattr(hop_skip_jump, "narrow", lambda desk, owner, far, tolerance: far)
        with pytest.raises(AssertionError):
            test_comes_close_to_the_nearest_decision("l2", 1.02)
    with monkeypatch.context() as patch:
        patch.setattr(between, "between", lambda inputs, far, share, norm: far)
        with pytest.raises(AssertionError):
            test_equals_a_naive_loop("l2")
    with monkeypatch.context() as patch:
        # Noise that goes by the row in place of the sample.
        bell = hop_skip_jump.draws.bell
        patch.setattr(
            hop_skip_jump.draws, "bell", lambda stream, ids, **kept: bell(stream, torch.arange(len(ids)), **kept)
        )
        with pytest.raises(AssertionError):
            black_box.check_company(HopSkipJump(budget=120, initial_queries=10), Access.LABELS)


def test_the_goal_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A targeted attack that fled the label alone would hand back points of the third class."""
    attack = HopSkipJump(budget=120, initial_queries=10)
    black_box.check_targets(attack, Access.LABELS)

    def run(self: HopSkipJump, problem: object, *, progress: object) -> object:
        fled = dataclasses.replace(problem, goal=Untargeted((problem.goal.classes + 2) % 3))  # type: ignore[attr-defined]
        return true(self, fled, progress=progress)

    true = HopSkipJump.run
    monkeypatch.setattr(HopSkipJump, "run", run)
    with pytest.raises(AssertionError):
        black_box.check_targets(attack, Access.LABELS)


def test_bounds_of_each_element_are_kept() -> None:
    network, _, inputs, labels = curved_problem(0.1)
    low, high = inputs.amin(dim=0) - 0.01, inputs.amax(dim=0) + 0.05
    model = black_box.counting(network, Bounds(low, high), Access.LABELS)
    out = HopSkipJump(budget=200)(model, inputs, labels)
    assert bool(((out.adversarial >= low) & (out.adversarial <= high)).all())
    assert out.success.any()
