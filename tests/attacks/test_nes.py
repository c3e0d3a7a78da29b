"""NES: equal to a naive loop in scene "query", true to what each scene may know, and free of MindArmour's defects."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import black_box
from vambrace.attacks import nes
from vambrace.attacks.nes import NES, slope, top_scores
from vambrace.core.access import Access
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.errors import AccessError, ConfigError
from vambrace.ops import draws
from vambrace.search.desk import Desk
from vambrace.search.problem import pose
from vambrace.testing.attacks import curved_problem, linear_problem
from vambrace.testing.counting import CountingModel

SCENES = {
    "query": NES(eps=0.1, budget=60, samples=10),
    "partial": NES(scene="partial", budget=60, samples=6),
    "label": NES(scene="label", budget=90, samples=4, votes=4),
}


def naive(network, given: Tensor, goal_of, sample: int, options: NES) -> tuple[bool, int, Tensor]:
    """One sample of scene "query", one query at a time: success, queries, and the closest point that succeeded."""
    stream, queries, near, best = Streams(5).child("nes"), 0, math.inf, given

    def ask(point: Tensor) -> float:
        nonlocal queries, near, best
        queries += 1
        margin, size = float(goal_of(network(point[None]))), float((point - given).abs().max())
        if margin > 0 and size < near:
            near, best = size, point
        return margin

    if ask(given) > 0:
        return True, queries, given
    low, high = (given - options.eps).clamp(min=0.0), (given + options.eps).clamp(max=0.5)
    point, push, step, past, turn = given.clone(), torch.zeros_like(given), options.eps / 5, [], 0
    while True:
        turn += 1
        if turn > 1:
            past.append(ask(point))
            if near <= options.eps:
                return True, queries, best
            if len(past) >= 5 and past[-1] < past[-5]:
                step, past = max(step / 2, options.eps / 5 / 512), []
        if options.budget - queries < 3:
            return False, queries, point
        found = torch.zeros_like(given)
        for number in range(min(options.samples // 2, (options.budget - queries - 1) // 2)):
            noise = draws.bell(
                stream.child("pairs", turn), torch.tensor([sample]), step=number, shape=tuple(given.shape)
            )[0].double()
            sigma = options.sigma * 0.5 / draws.BELL_SIZE
            up, down = (ask((point + side * sigma * noise).clamp(0.0, 0.5)) for side in (1, -1))
            found += (up - down) * noise
        push = 0.9 * push + 0.1 * found
        point = torch.minimum(torch.maximum(point + step * push.sign(), low), high)


@pytest.mark.parametrize("targeted", [False, True])
def test_scene_query_equals_a_naive_loop(targeted: bool) -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    goal = Targeted((labels + 1) % 3) if targeted else Untargeted(labels)
    ids = torch.arange(len(inputs)) * 7 + 3
    attack = NES(eps=0.1, budget=300, samples=10)
    out = attack(black_box.counting(network, bounds, Access.SCORES), inputs, goal, rng=5, ids=ids, batch_size=10)
    assert 0 < int(out.success.sum()) < len(inputs)
    for row in range(len(inputs)):
        alone = goal.take(torch.tensor([row]))
        success, queries, point = naive(network, inputs[row], alone.margin, int(ids[row]), attack)
        assert (bool(out.success[row]), int(out.forwards[row])) == (success, queries), f"sample {row}"
        assert not success or torch.allclose(out.adversarial[row], point, rtol=0, atol=1e-9)


def test_scene_query_finds_what_lies_within_the_radius() -> None:
    network, bounds, inputs, labels, radii = linear_problem("linf", 0.1)
    out = NES(eps=0.1, budget=2000)(black_box.counting(network, bounds, Access.SCORES), inputs, labels)
    assert out.success[radii <= 0.9].all()
    assert not out.success[radii > 1].any()


@pytest.mark.parametrize(("scene", "most"), [("partial", 1.1), ("label", 1.6)])
def test_the_radius_shrinks_towards_the_decision(scene: str, most: float) -> None:
    attack = NES(scene=scene, budget=4000, samples=20, votes=10)  # type: ignore[arg-type]
    over = black_box.found_over_best(attack, Access.LABELS if scene == "label" else Access.SCORES)
    assert float(over.median()) < most


@pytest.mark.parametrize(
    ("scene", "access"),
    [("query", Access.SCORES), ("query", Access.GRADIENTS), ("partial", Access.SCORES), ("label", Access.LABELS)],
)
def test_keeps_the_promises_of_black_box_attacks(scene: str, access: Access) -> None:
    attack = SCENES[scene]
    if scene != "query":
        black_box.check_targets(attack, access)
    black_box.check_ledger(attack, access)
    black_box.check_company(attack, access)
    black_box.check_surroundings(attack, access)
    black_box.check_not_finite(attack)


def test_each_scene_says_what_it_needs() -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    assert (SCENES["query"].needs, SCENES["partial"].needs, SCENES["label"].needs) == (
        Access.SCORES,
        Access.SCORES,
        Access.LABELS,
    )
    model = black_box.counting(network, bounds, Access.LABELS)
    for scene in ("query", "partial"):
        with pytest.raises(AccessError):
            SCENES[scene](model, inputs, labels)
    assert model.forward_rows == 0


def test_scene_label_hears_classes_only() -> None:
    """A model that refuses scores is attacked all the same."""

    class Mute(CountingModel):
        def __call__(self, inputs: Tensor) -> Tensor:
            raise AssertionError("asked for scores")

        def predict(self, inputs: Tensor) -> Tensor:
            self.forward_rows += len(inputs)
            return network(inputs).argmax(dim=1)

    network, bounds, inputs, labels = curved_problem(0.1)
    model = Mute(network, access=Access.LABELS, bounds=bounds, dtype=torch.float64)
    out = SCENES["label"](model, inputs, labels)
    assert out.success.any()
    assert int(out.queries.sum()) == model.forward_rows


def test_scene_partial_sees_no_more_than_the_highest_scores() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, -1.0], [3.0, 2.0, 1.0, -1.0]])
    logits[1, 2:] = torch.tensor([-1.0, 1.0])  # only what is hidden differs
    shown = top_scores(logits, 2)
    assert torch.allclose(shown[0], shown[1])
    assert torch.allclose(shown[:, :2], logits.log_softmax(1)[:, :2])
    assert bool((top_scores(logits, 4) == logits.log_softmax(1)).all())
    for goal in (Untargeted(torch.tensor([0, 0])), Targeted(torch.tensor([1, 1]))):
        assert torch.equal(goal.margin(shown) > 0, goal.margin(logits) > 0)


def test_a_curve_of_scene_query_searches_every_radius() -> None:
    network, bounds, inputs, labels, radii = linear_problem("linf", 0.1)
    model = black_box.counting(network, bounds, Access.SCORES)
    curve = NES(eps=0.1, budget=1500).curve(model, inputs, labels, eps=(0.05, 0.1, 0.25))
    assert torch.equal(curve.outcomes[0].success, radii <= 0.5) or int(curve.outcomes[0].success.sum()) >= 4
    assert curve.outcomes[2].success.all()
    assert curve.cost.forwards + curve.cost.verifications == model.forward_rows


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eps": 0.0},
        {"eps": 0.1, "samples": 7},
        {"eps": 0.1, "scene": "all"},
        {"eps": 0.1, "sigma": 0.0},
        {"eps": 0.1, "norm": "l2"},
        {"eps": 0.1, "step_size": math.inf},
        {"scene": "label", "votes": 0},
        {"scene": "partial", "top": 0},
        {"scene": "label", "vote_radius": -1.0},
    ],
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        NES(**options)


# ---- defects of MindArmour that must not come back -------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_no_noise_is_evaluated_twice_whatever_the_batch(batch: int) -> None:
    """More samples an estimate than rows a batch: each pair still has noise of its own."""
    seen: list[Tensor] = []

    def value(points: Tensor, owner: Tensor) -> Tensor:
        seen.append(points.clone())
        return points.flatten(1).sum(1)

    inputs = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)
    model = CountingModel(lambda points: points.flatten(1)[:, :2], access=Access.SCORES, dtype=torch.float64)
    problem = pose(model, inputs, torch.tensor([0, 0]), rng=0, ids=None, start=None, batch_size=batch)
    desk = Desk(problem, norm="linf", budget=1000)
    pairs = torch.tensor([40, 9])
    found = slope(desk, torch.arange(2), inputs, pairs, 0.01, Streams(0), value)
    points = torch.cat(seen)
    assert len(points) == 2 * 49
    assert len(points.unique(dim=0)) == 2 * 49
    assert torch.allclose(points[0::2] + points[1::2], torch.ones(()).double()), "pairs are not opposite"
    assert torch.cosine_similarity(found[0].flatten(), torch.ones(16).double(), dim=0) > 0.8


def test_points_are_valued_one_by_one_with_labels_alone() -> None:
    """The value of a point is its own share of votes, not one number for all."""

    def right(points: Tensor) -> Tensor:
        score = points.flatten(1)[:, 0] - 0.5
        return torch.stack((-score, score), dim=1)

    inputs = torch.full((3, 1, 4, 4), 0.4, dtype=torch.float64)
    model = CountingModel(right, access=Access.LABELS, dtype=torch.float64)
    problem = pose(model, inputs, torch.zeros(3).long(), rng=0, ids=None, start=None, batch_size=8)
    desk = Desk(problem, norm="linf", budget=1000)
    points = inputs.clone()
    points[:, 0, 0, 0] = torch.tensor([0.2, 0.5, 0.8])
    values = nes._vote(desk, points, torch.arange(3), stream=Streams(0), votes=40, radius=0.1)
    assert values[0] == 0
    assert 0.2 < float(values[1]) < 0.8
    assert values[2] == 1


# ---- wrong on purpose -------------------------------------------------------------------------------------------


def test_mutants_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    true = nes.slope
    with monkeypatch.context() as patch:
        patch.setattr(nes, "slope", lambda *given: -true(*given))
        with pytest.raises(AssertionError):
            test_scene_query_finds_what_lies_within_the_radius()
    with monkeypatch.context() as patch:
        patch.setattr(nes, "ball_box", lambda inputs, eps, bounds: (inputs - 9.0, inputs + 9.0))
        with pytest.raises(AssertionError):
            test_scene_query_equals_a_naive_loop(False)
    with monkeypatch.context() as patch:
        patch.setattr(nes, "top_scores", lambda logits, top: torch.zeros_like(logits))
        with pytest.raises(AssertionError):
            test_the_radius_shrinks_towards_the_decision("partial", 1.1)
