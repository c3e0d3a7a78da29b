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
from vambrace.attacks.hop_skip_jump import HopSkipJump, estimate, trusted, turned
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.steps import stepped
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
        features, flat = self.given.numel(), self.norm == "l2"
        tolerance = min(10 * features**-1.5, 1 / 1024)
        assert not self.across(self.given)
        assert self.across(start)
        point = self.back(start, tolerance)
        size, turn = 0.1 * 0.5 * (1.0 if flat else math.sqrt(6 / features)), 0
        slope, chance = torch.zeros_like(point), 0.0
        while True:
            turn += 1
            total, plain, crossed, count = torch.zeros_like(point), torch.zeros_like(point), 0, 0
            wanted = min(int(first * math.sqrt(turn)), self.budget - self.queries)
            unit = draws.ODD_SIZE * math.sqrt(2**2 + 3**2 + 3**2) if turn <= 8 else draws.BELL_SIZE
            for number in range(wanted):
                noise = stepped(
                    stream.child("steps", turn),
                    torch.tensor([sample]),
                    step=torch.tensor([number]),
                    shape=tuple(point.shape),
                    coarse=turn <= 8,
                )[0].double()
                noise = torch.where((point <= self.low) & (noise < 0), 0.0, noise)
                noise = torch.where((point >= self.high) & (noise > 0), 0.0, noise) / unit
                largest = math.sqrt(features) if flat else 255 / draws.BELL_SIZE
                sign = 1 if self.across(point + noise / largest * size) else -1
                total, plain = total + sign * noise, plain + noise
                crossed, count = crossed + sign, count + 1
            mean = crossed / count if abs(crossed) < count else 0.0
            slope, chance = 0.9 * slope + total - mean * plain, 0.81 * chance + count * (1 - mean**2)
            if flat:
                point = self.round(point, slope * naive_trusted(slope, chance), tolerance)
            else:
                reach, far = self.length(point - self.given) / math.sqrt(turn), point
                for _ in range(24):
                    moved = (point + slope.sign() * reach).clamp(self.low, self.high)
                    if self.across(moved):
                        far = moved
                        break
                    reach /= 2
                point = self.back(far, tolerance)
            size = 10 * self.length(point - self.given) / features

    def round(self, point: Tensor, slope: Tensor, tolerance: float) -> Tensor:
        way, found, low, high = point - self.given, point, 0.0, math.pi / 2
        across = slope - way * float((slope * way).sum() / (way * way).sum())
        across = across / across.norm()
        while high - low > tolerance:
            angle = (low + high) / 2
            distance = float(way.norm()) * math.cos(angle)
            moved = self.given + distance * (math.cos(angle) * way / way.norm() + math.sin(angle) * across)
            moved = moved.clamp(self.low, self.high)
            if self.across(moved):
                low, found = angle, moved
            else:
                high = angle
        return found


def naive_trusted(slope: Tensor, chance: float) -> Tensor:
    """One image (c, h, w), pixel by pixel."""
    channels, height, width = slope.shape
    seen = torch.zeros(height, width).double()
    for row in range(height):
        for column in range(width):
            around = slope[:, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            seen[row, column] = float((around**2).mean()) - chance
    mean = max(0.0, float(seen.mean()))
    if mean == 0.0:
        return torch.ones(height, width).double()
    told = max(0.0, 1 - 2 * chance**2 / (25 * channels) / float(((seen - seen.mean()) ** 2).mean()))
    signal = (mean + (seen - mean) * told).clamp(min=0.0) + 0.1 * mean
    return signal / (signal + chance)


@pytest.mark.parametrize("norm", NORMS)
def test_equals_a_naive_loop(norm: str) -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    assert inputs.dim() == 4
    away = black_box.other_points(network, inputs, (labels + 1) % 3)
    ids = torch.arange(len(inputs)) * 7 + 3
    attack = HopSkipJump(norm=norm, budget=360, initial_queries=8)
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


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_random_steps_have_the_wanted_size_in_the_norm_of_the_attack(norm: str, coarse: bool) -> None:
    """With linf steps that are scaled to Euclidean length 1, an element moves 1 / sqrt(features) of what is meant."""
    seen: list[Tensor] = []

    def watched(points: Tensor) -> Tensor:
        seen.append(points.clone())
        return torch.stack((points.flatten(1).sum(1) * 0, points.flatten(1).sum(1)), dim=1)

    inputs = torch.full((1, 1, 20, 20), 0.5, dtype=torch.float64)
    desk = one_desk(watched, inputs, norm, 100)
    count, size = torch.tensor([100]), torch.tensor([0.01]).double()
    estimate(desk, torch.tensor([0]), inputs, count, size, Streams(0), coarse=coarse)
    change = (torch.cat(seen) - inputs).flatten(1)
    sizes = change.norm(dim=1) if norm == "l2" else change.abs().amax(dim=1)
    assert len(sizes) == 100
    assert float(sizes.mean()) == pytest.approx(0.01, rel=0.2)
    assert float(sizes.max()) <= (0.016 if coarse else 0.011)
    assert float(sizes.min()) >= (0.006 if coarse else 0.009)


def one_desk(network: Callable[[Tensor], Tensor], inputs: Tensor, norm: str, budget: int) -> Desk:
    model = CountingModel(network, access=Access.LABELS, bounds=None, dtype=torch.float64)
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    problem = pose(model, inputs, labels, rng=0, ids=None, start=None, batch_size=64)
    return Desk(problem, norm=norm, budget=budget)


# ---- what saves queries -----------------------------------------------------------------------------------------


def test_an_estimate_says_how_noisy_it_is() -> None:
    """Elements that the answers do not depend on vary as much as `estimate` says."""

    def left_half(points: Tensor) -> Tensor:
        score = points[:, 0, :, :10].flatten(1).mean(1) - 0.5
        return torch.stack((-score, score), dim=1)

    inputs = torch.full((20, 1, 20, 20), 0.5, dtype=torch.float64)
    desk = one_desk(left_half, inputs, "l2", 300)
    owner, count, size = torch.arange(20), torch.full((20,), 300), torch.full((20,), 0.01).double()
    slopes, noise = estimate(desk, owner, inputs, count, size, Streams(0), coarse=False)
    right = slopes[..., 10:].flatten(1)
    assert float((right.square().mean(1) / noise).mean()) == pytest.approx(1.0, abs=0.05)
    assert float((slopes[..., :10].flatten(1).square().mean(1) / noise).mean()) > 1.5


def cosine(found: Tensor, truth: Tensor) -> Tensor:
    return torch.cosine_similarity(found.flatten(1), truth.flatten(1))


def test_shrinking_brings_an_estimate_nearer_to_what_it_estimates() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.zeros(40, 2, 16, 16, dtype=torch.float64)
    truth[..., 4:9, 6:12] = 2.0
    noise = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    shrunk = (truth + noise) * trusted(truth + noise, torch.ones(40).double())
    assert float((cosine(shrunk, truth) - cosine(truth + noise, truth)).min()) > 0.15
    # Where no place stands out, little is lost; and samples do not depend on each other.
    even = noise + 0.5
    shrunk = even * trusted(even, torch.ones(40).double())
    assert float((cosine(shrunk, torch.ones_like(even)) / cosine(even, torch.ones_like(even))).mean()) > 0.9
    assert torch.equal(trusted(noise * 0.1, torch.ones(40).double()), torch.ones(40, 1, 16, 16).double())
    alone = trusted((truth + noise)[7:8], torch.ones(1).double())
    assert torch.allclose(trusted(truth + noise, torch.ones(40).double())[7:8], alone, rtol=1e-12)
    flat = trusted((truth + noise).flatten(1), torch.ones(40).double())
    assert flat.shape == (40, 512)
    assert float(flat.min()) >= 0
    assert float(flat.max()) <= 1


def test_half_a_circle_ends_at_the_nearest_point_of_its_plane() -> None:
    """On a plane decision whose normal lies in the plane of the way and the slope, there is none nearer."""
    normal = torch.linspace(-1.0, 1.5, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    normal = normal / normal.norm()

    def plane(points: Tensor) -> Tensor:
        score = (points * normal).flatten(1).sum(1) - 2.0
        return torch.stack((-score, score), dim=1)

    generator = torch.Generator().manual_seed(4)
    aside = torch.randn(6, 1, 4, 4, generator=generator, dtype=torch.float64)
    aside = aside - normal * (aside * normal).flatten(1).sum(1).reshape(-1, 1, 1, 1)
    points = normal * (2.0 + 1e-9) + aside
    desk = one_desk(plane, torch.zeros_like(points), "l2", 40)
    found = turned(desk, torch.arange(6), points, 1e6 * (normal + 0.3 * points), 2.0**-16)
    assert bool((plane(found).argmax(1) == 1).all())
    assert found.flatten(1).norm(dim=1).tolist() == pytest.approx([2.0] * 6, rel=1e-3)
    assert desk.left.tolist() == [40 - 17] * 6
    # A slope that says nothing leaves the point where it is, and so does one that points away.
    for slope in (torch.zeros_like(points), -normal.expand_as(points).clone()):
        desk = one_desk(plane, torch.zeros_like(points), "l2", 40)
        kept = turned(desk, torch.arange(6), points, slope, 2.0**-16)
        assert torch.allclose(kept, points, atol=1e-3)


def blob(points: Tensor) -> Tensor:
    """Class 1 beyond a bent surface that only one area of the image matters to."""
    place = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64)
    weight = torch.exp(-8.0 * ((place[:, None] - 0.3) ** 2 + (place[None] + 0.2) ** 2))
    score = (points[:, 0] * weight).flatten(1).sum(1) / weight.norm()
    score = score + 0.3 * points[:, 0, :10].flatten(1).norm(dim=1) - 1.5
    return torch.stack((-score, score), dim=1)


def median_on_blob(attack: Nearest) -> float:
    inputs = torch.full((24, 1, 20, 20), 0.05, dtype=torch.float64)
    model = CountingModel(blob, access=Access.LABELS, bounds=Bounds(0.0, 1.0), dtype=torch.float64)
    out = attack(model, inputs, torch.zeros(24, dtype=torch.int64), rng=1)
    assert out.success.all()
    return float(out.distance.median())


def test_coarse_steps_and_shrinking_each_bring_it_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    attack, usual = HopSkipJump(budget=400), median_on_blob(HopSkipJump(budget=400))
    without = {"_COARSE_TURNS": 0, "trusted": lambda slopes, noise: torch.ones_like(slopes)}
    for name, value in without.items():
        with monkeypatch.context() as patch:
            patch.setattr(hop_skip_jump, name, value)
            assert median_on_blob(attack) > 1.05 * usual, name


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
        patch.setattr(hop_skip_jump, "estimate", lambda *given, **kept: _negated(*true(*given, **kept)))
        with pytest.raises(AssertionError):
            test_comes_close_to_the_nearest_decision("l2", 1.02)
    with monkeypatch.context() as patch:
        patch.setattr(hop_skip_jump, "narrow", lambda desk, owner, far, tolerance: far)
        with pytest.raises(AssertionError):
            test_comes_close_to_the_nearest_decision("linf", 1.06)
    with monkeypatch.context() as patch:
        patch.setattr(between, "between", lambda inputs, far, share, norm: far)
        with pytest.raises(AssertionError):
            test_equals_a_naive_loop("l2")
    with monkeypatch.context() as patch:
        patch.setattr(hop_skip_jump, "turned", lambda desk, owner, points, slope, tolerance: points)
        with pytest.raises(AssertionError):
            test_comes_close_to_the_nearest_decision("l2", 1.02)
    with monkeypatch.context() as patch:
        # Noise that goes by the row in place of the sample.
        patch.setattr(
            hop_skip_jump, "stepped", lambda stream, ids, **kept: stepped(stream, torch.arange(len(ids)), **kept)
        )
        with pytest.raises(AssertionError):
            black_box.check_company(HopSkipJump(budget=120, initial_queries=10), Access.LABELS)


def _negated(slopes: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    return -slopes, noise


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
