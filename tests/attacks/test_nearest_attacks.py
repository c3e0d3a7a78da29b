"""The minimum-norm attacks keep what every attack promises that looks for the nearest point; options; mutants."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest
import torch
from torch import Tensor

from vambrace.attacks import (
    DDN,
    FAB,
    FMN,
    CarliniWagner,
    DeepFool,
    carlini_wagner,
    closing,
    ddn,
    deep_fool,
    fab,
    fmn,
    retreat,
)
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.registry import ATTACKS, load
from vambrace.core.spec import read
from vambrace.errors import AccessError, ConfigError
from vambrace.search import loop
from vambrace.search.judge import CLEAR
from vambrace.search.pace import Pace
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel
from vambrace.testing.nearest import check_nearest, nearest_problem
from vambrace.testing.promises import Trial, check_ledger

SLACK = {"carlini_wagner": 0.1}
EVERY = [
    DDN(steps=60),
    FMN(norm="l0", steps=40),
    FMN(norm="l1", steps=60),
    FMN(norm="l2", steps=40),
    FMN(norm="linf", steps=40),
    FAB(norm="linf", steps=20),
    FAB(norm="l2", steps=20, restarts=2),
    FAB(norm="l1", steps=20),
    DeepFool(norm="l2", steps=20),
    DeepFool(norm="linf", steps=20),
    CarliniWagner(steps=90, searches=7, step_size=0.02),
]
TRIAL = Trial(*curved_problem(0.1))


def named(attack) -> str:
    return f"{attack.name}-{attack.norm}"


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_conforms(attack) -> None:
    check_nearest(attack, slack=SLACK.get(attack.name, 0.05))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fab_by_targets_conforms(norm: str) -> None:
    """Every promise but that on targeted goals, which it refuses."""
    attack = FAB(norm=norm, steps=15, targets=9, restarts=2)
    with pytest.raises(ConfigError, match="E135"):
        attack(TRIAL.model, TRIAL.inputs, Targeted((TRIAL.labels + 1) % 3))

    class Fleeing(FAB):
        """The same, and a targeted goal goes to the untargeted attack."""

        def run(self, problem, *, progress):
            free = self if isinstance(problem.goal, Untargeted) else FAB(norm=self.norm, steps=20)
            return FAB.run(free, problem, progress=progress)

    check_nearest(Fleeing(norm=norm, steps=15, targets=9, restarts=2))


@pytest.mark.parametrize("attack", [*EVERY, FAB(norm="l2", steps=9, targets=2, restarts=2)], ids=named)
def test_pace_changes_no_outcome(attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """`look_every` 8 is what CUDA runs: rows that are over stand still until the host looks."""
    expected = attack(TRIAL.model, TRIAL.inputs, TRIAL.labels)

    def slow(model: object, device: str, batch_size: int, **_: object) -> Pace:
        rows = min(4, batch_size)
        return Pace(look_every=8, confirm_rows=rows, pending_share=0.125, vacant_share=0.25, padded=True)

    monkeypatch.setattr(loop, "choose_pace", slow)
    check_ledger(attack, TRIAL)
    out = attack(TRIAL.model, TRIAL.inputs, TRIAL.labels, batch_size=7)
    for name in ("success", "forwards", "backwards", "verifications", "first_success", "zero_gradients"):
        assert torch.equal(getattr(expected, name), getattr(out, name)), name
    torch.testing.assert_close(expected.adversarial, out.adversarial, rtol=0, atol=1e-7)


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_options_are_values(attack) -> None:
    assert pickle.loads(pickle.dumps(attack)) == attack
    assert len({attack, type(attack)(**attack.as_json())}) == 1
    assert eval(repr(attack)) == attack
    assert read(type(attack), attack.as_json(), where="attack") == attack
    assert load(ATTACKS, attack.name) is type(attack)
    assert dataclasses.replace(attack, eps=0.25) == read(type(attack), {**attack.as_json(), "eps": "1/4"}, where="a")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DDN, {"norm": "linf"}),
        (DDN, {"gamma": 0.0}),
        (DDN, {"gamma": 1.0}),
        (DDN, {"radius": 0.0}),
        (DDN, {"steps": 0}),
        (DDN, {"eps": -1.0}),
        (DDN, {"eps": math.inf}),
        (FMN, {"norm": "l3"}),
        (FMN, {"steps": 0}),
        (FMN, {"gamma": 1.5}),
        (FMN, {"step_size": 0.0}),
        (FAB, {"norm": "l0"}),
        (FAB, {"steps": 0}),
        (FAB, {"restarts": 0}),
        (FAB, {"targets": 0}),
        (FAB, {"pull": 1.5}),
        (FAB, {"overshoot": 0.9}),
        (FAB, {"back": 0.0}),
        (FAB, {"steps": 5, "final": 6}),
        (DeepFool, {"norm": "l1"}),
        (DeepFool, {"steps": 0}),
        (DeepFool, {"candidates": 0}),
        (DeepFool, {"overshoot": -0.1}),
        (DeepFool, {"tries": 0}),
        (CarliniWagner, {"norm": "linf"}),
        (CarliniWagner, {"steps": 0}),
        (CarliniWagner, {"searches": 0}),
        (CarliniWagner, {"step_size": 0.0}),
        (CarliniWagner, {"weight": 0.0}),
        (CarliniWagner, {"confidence": -1.0}),
    ],
)
def test_options_out_of_range_are_refused(kind, options: dict) -> None:
    with pytest.raises(ConfigError, match="E130"):
        kind(**options)


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_models_that_give_no_gradients_are_refused(attack) -> None:
    from vambrace.core.access import Access

    model = CountingModel(TRIAL.network, bounds=TRIAL.bounds, access=Access.SCORES, dtype=torch.float64)
    with pytest.raises(AccessError, match="E110"):
        attack(model, TRIAL.inputs, TRIAL.labels)


@pytest.mark.parametrize("attack", [each for each in EVERY if each.name != "carlini_wagner"], ids=named)
def test_models_without_bounds(attack) -> None:
    trial, least = nearest_problem("l2" if attack.norm == "l0" else attack.norm)
    model = CountingModel(trial.network, bounds=None, dtype=torch.float64)
    out = attack(model, trial.inputs, trial.labels)
    assert out.success.all()
    if attack.norm != "l0":
        assert (out.distance <= least * 1.05).all()


@pytest.mark.parametrize("attack", EVERY, ids=named)
@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_scale_of_logits_does_not_matter(attack, factor: float) -> None:
    trial, least = nearest_problem(attack.norm)
    model = CountingModel(lambda points: trial.network(points) * factor, bounds=trial.bounds, dtype=torch.float64)
    out = attack(model, trial.inputs, trial.labels)
    assert out.success.all()
    assert (out.distance <= (least + 1.0 if attack.norm == "l0" else least * (1 + SLACK.get(attack.name, 0.05)))).all()


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_single_precision_and_other_shapes(attack) -> None:
    """float32, images with three channels that are not contiguous, a custom goal."""
    wide = TRIAL.inputs.float().expand(-1, 3, 4, 4).transpose(2, 3)

    def model_of_means(points: Tensor) -> Tensor:
        return TRIAL.network(points.mean(dim=1, keepdim=True).transpose(2, 3).double()).float()

    model = CountingModel(model_of_means, bounds=TRIAL.bounds)
    out = attack(model, wide, TRIAL.labels)
    assert out.adversarial.dtype == torch.float32
    assert TRIAL.bounds.contains(out.adversarial.double()).all()
    with torch.no_grad():
        assert (model_of_means(out.adversarial).argmax(1) != TRIAL.labels)[out.success].all()
    assert out.success.double().mean() > 0.9
    goal = Untargeted(TRIAL.labels) & Untargeted((TRIAL.labels + 1) % 3)
    both = attack(TRIAL.model, TRIAL.inputs, goal)
    with torch.no_grad():
        assert (TRIAL.network(both.adversarial).argmax(1) == (TRIAL.labels + 2) % 3)[both.success].all()
    assert both.success.double().mean() > 0.3


@pytest.mark.parametrize("attack", EVERY, ids=named)
def test_a_given_start_is_used(attack) -> None:
    """A start that is a success is seen at the first look; radii and steps then go on from it."""
    found = attack(TRIAL.model, TRIAL.inputs, TRIAL.labels)
    rows = found.success
    again = dataclasses.replace(attack, eps=float(found.distance[rows].max()))
    out = again(
        TRIAL.model, TRIAL.inputs[rows], TRIAL.labels[rows], start=found.adversarial[rows], ids=rows.nonzero().flatten()
    )
    assert (out.forwards == 1).all()
    assert out.success.all()


# One thing wrong on purpose in each attack; the kit must say so.


def test_ddn_without_its_sphere_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddn, "lengths", lambda change, norm: torch.full((len(change),), 1e-3, dtype=change.dtype))
    with pytest.raises(AssertionError, match="is enough|not found"):
        check_nearest(EVERY[0])


def test_ddn_that_goes_down_the_gradient_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    steepest = ddn.steepest
    monkeypatch.setattr(ddn, "steepest", lambda gradient, norm: -steepest(gradient, norm))
    with pytest.raises(AssertionError, match="not found"):
        check_nearest(EVERY[0])


@pytest.mark.parametrize("attack", EVERY[1:5], ids=named)
def test_fmn_without_projection_fails(attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """As foolbox's l2 variant, whose factor is always one."""
    monkeypatch.setattr(fmn, "shrink", lambda change, radius, norm: change.clone())
    with pytest.raises(AssertionError, match="is enough"):
        check_nearest(attack)


def test_fmn_whose_radius_only_grows_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmn, "won", lambda answer: torch.zeros_like(answer.logits[:, 0], dtype=torch.bool))
    with pytest.raises(AssertionError, match="is enough"):
        check_nearest(FMN(norm="l2", steps=40))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fab_that_ignores_the_input_fails(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step from the input, and a success stays where it is: points only wander along the decision."""
    with pytest.raises(AssertionError, match="is enough"):
        check_nearest(FAB(norm=norm, steps=20, back=1.0, pull=0.0, final=0, overshoot=3.0))


def test_fab_with_the_hyperplane_on_the_other_side_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    onto = fab.onto_hyperplane
    monkeypatch.setattr(
        fab, "onto_hyperplane", lambda points, normals, gaps, *rest: onto(points, normals, -gaps, *rest)
    )
    with pytest.raises(AssertionError, match="not found"):
        check_nearest(FAB(norm="l2", steps=20))


def test_deep_fool_that_ignores_the_target_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    slope = deep_fool.Hopping.slope

    def fleeing(self, anchor, state, logits, goal):
        if isinstance(goal, Targeted):
            goal = Untargeted(TRIAL.network(TRIAL.inputs).argmax(1)[: len(logits)])
            return torch.zeros_like(logits).scatter_(1, goal.labels[: len(logits)].unsqueeze(1), -1.0)
        return slope(self, anchor, state, logits, goal)

    monkeypatch.setattr(deep_fool.Hopping, "slope", fleeing)
    with pytest.raises(AssertionError, match="targeted goal"):
        check_nearest(DeepFool(norm="l2", steps=20))


def test_deep_fool_without_its_way_back_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep_fool, "point_between", lambda inputs, columns: columns["outer"])
    with pytest.raises(AssertionError, match="is enough"):
        check_nearest(DeepFool(norm="l2", steps=20, overshoot=0.2))
    monkeypatch.undo()
    check_nearest(DeepFool(norm="l2", steps=20, overshoot=0.2))


def test_carlini_wagner_that_stops_at_the_first_success_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """MindArmour's default returns once every sample has a success, however far, and so minimises nothing."""
    step = carlini_wagner.Weighing.step

    def content(self, anchor, state, answer):
        after = step(self, anchor, state, answer)
        after["over"] = after["over"] | closing.won(answer)
        return after

    monkeypatch.setattr(carlini_wagner.Weighing, "step", content)
    monkeypatch.setattr(carlini_wagner.Weighing, "again", lambda self, anchor, restart: restart < 0)
    with pytest.raises(AssertionError, match="is enough"):
        check_nearest(CarliniWagner(steps=90, weight=100.0), slack=0.1)


def test_carlini_wagner_that_remembers_an_earlier_success_searches_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """MindArmour's flag of success is never reset, so that its weight only ever falls."""
    attack = CarliniWagner(steps=40, searches=8, hasty=False)
    weights: list[Tensor] = []
    inside = carlini_wagner.Weighing._weights

    def seen(self, unknown, before):
        found = inside(self, unknown, before)
        weights.append(found["weight"].clone())
        return found

    monkeypatch.setattr(carlini_wagner.Weighing, "_weights", seen)
    attack(TRIAL.model, TRIAL.inputs, Targeted((TRIAL.labels + 1) % 3), batch_size=64)
    assert len(weights) == 8
    ratios = torch.stack([after / before for before, after in zip(weights[1:], weights[2:], strict=False)])
    fell = (ratios < 1).any(dim=0)
    rose_later = torch.stack(
        [(ratios[: place + 1] < 1).any(dim=0) & (ratios[place + 1 :] > 1).any(dim=0) for place in range(5)]
    )
    assert fell.any(), "after a search that succeeded it falls"
    assert rose_later.any(), "and after one that failed it rises again"


def test_retreat_is_a_secant_on_a_line() -> None:
    """On a linear model one try lands on the decision, up to what makes a success clear."""
    trial, least = nearest_problem("l2")
    out = DeepFool(norm="l2", steps=20, overshoot=0.5, tries=1)(trial.model, trial.inputs, trial.labels)
    assert (out.distance <= least * (1 + 1e-3)).all()
    assert (out.distance > least).all()
    assert retreat._AIM > 1


def test_confidence_asks_for_a_lead() -> None:
    goal = Targeted((TRIAL.labels + 1) % 3)
    for wanted in (TRIAL.labels, goal):
        plain = CarliniWagner(steps=60, searches=6)(TRIAL.model, TRIAL.inputs, wanted)
        sure = CarliniWagner(steps=60, searches=6, confidence=0.05)(TRIAL.model, TRIAL.inputs, wanted)
        meant = Untargeted(wanted) if isinstance(wanted, Tensor) else wanted
        with torch.no_grad():
            margin = meant.margin(TRIAL.network(sure.adversarial))
        assert sure.success.double().mean() > 0.6
        assert (margin[sure.success] >= 0.05).all()
        both = plain.success & sure.success
        assert (sure.distance[both] > plain.distance[both] * 0.99).all()
    with pytest.raises(ConfigError, match="E135"):
        CarliniWagner(confidence=0.1)(TRIAL.model, TRIAL.inputs, goal & goal)


@pytest.mark.parametrize("confidence", [0.0, 0.05])
def test_a_margin_is_that_of_the_goal(confidence: float) -> None:
    """What confidence asks for on top is no part of it."""
    out = CarliniWagner(steps=60, searches=6, confidence=confidence)(TRIAL.model, TRIAL.inputs, TRIAL.labels)
    with torch.no_grad():
        margin = Untargeted(TRIAL.labels).margin(TRIAL.network(out.adversarial))
    torch.testing.assert_close(out.margin.double(), margin, rtol=1e-5, atol=1e-7)


def test_carlini_wagner_sees_a_success_at_the_last_point_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step long, a search can only succeed there; the weight of the next one then falls."""
    weights: list[Tensor] = []
    inside = carlini_wagner.Weighing._weights

    def seen(self, unknown, before):
        found = inside(self, unknown, before)
        weights.append(found["weight"].clone())
        return found

    monkeypatch.setattr(carlini_wagner.Weighing, "_weights", seen)
    attack = CarliniWagner(steps=1, searches=2, weight=1e6, step_size=1.0)
    out = attack(TRIAL.model, TRIAL.inputs, TRIAL.labels, batch_size=64)
    first = out.first_success == 2
    assert first.any()
    assert not (out.first_success == 1).any()
    assert not first.all()
    assert (weights[1][first] == 5e5).all()
    assert (weights[1][~first] == 1e7).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fab_does_not_settle_on_the_decision(norm: str) -> None:
    """Next to a large common part of the logits, what a step goes beyond the decision is no clear success."""
    trial, least = nearest_problem(norm)
    common = 2000.0
    model = CountingModel(lambda points: trial.network(points) + common, bounds=trial.bounds, dtype=torch.float64)
    out = FAB(norm=norm, steps=10)(model, trial.inputs, trial.labels)
    assert out.success.all()
    with torch.no_grad():
        gap = -Untargeted(trial.labels).margin(trial.network(trial.inputs))
    assert (out.distance > least * (1.0 + CLEAR * common / gap)).all()
    assert (out.distance < least * (1.0 + 2.1 * CLEAR * common / gap)).all()


@pytest.mark.parametrize(("norm", "most"), [("linf", 0.45), ("l2", 0.4)])
def test_deep_fool_goes_on_from_where_the_box_left_it(norm: str, most: float) -> None:
    """What the box took of earlier steps does not have to be walked back when the gradient turns."""

    def turning(points: Tensor) -> Tensor:
        """The first element, at the upper end, is worth most upwards at first, and downwards once the second rises."""
        first, second = points[:, 0], points[:, 1]
        score = second - 0.9 + torch.where(second < 0.5, 4.0, -4.0) * (first - 1.0)
        return torch.stack((-score, score), dim=1)

    model = CountingModel(turning, dtype=torch.float64)
    out = DeepFool(norm=norm, steps=50)(model, torch.tensor([[1.0, 0.2]]).double(), torch.tensor([0]))
    assert out.success.all()
    assert out.distance.item() < most


def test_carlini_wagner_needs_bounds() -> None:
    with pytest.raises(ConfigError, match="E143"):
        CarliniWagner()(CountingModel(TRIAL.network, bounds=None, dtype=torch.float64), TRIAL.inputs, TRIAL.labels)


def test_deep_fool_stops_after_its_tries() -> None:
    out = DeepFool(norm="l2", steps=50, tries=2)(TRIAL.model, TRIAL.inputs, TRIAL.labels)
    assert out.success.all()
    assert (out.forwards <= 16).all()
    assert (out.backwards == (out.forwards - 1) * 2).all(), "two other classes, one gradient each"
    few = DeepFool(norm="l2", steps=50, tries=2, candidates=1)(TRIAL.model, TRIAL.inputs, TRIAL.labels)
    assert (few.backwards == few.forwards - 1).all()


def test_fab_goes_for_one_class_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """First the best other class at the input, then the next; the first start of each is at the input."""
    starts: list[tuple[Tensor, Tensor]] = []
    start = fab.FastBoundary.start

    def seen(self, origin, anchor, restart, before):
        found = start(self, origin, anchor, restart, before)
        starts.append((found["target"].clone(), (found["point"] - origin.inputs).flatten(1).norm(dim=1)))
        return found

    monkeypatch.setattr(fab.FastBoundary, "start", seen)
    out = FAB(norm="l2", steps=4, targets=9, restarts=2)(TRIAL.model, TRIAL.inputs, TRIAL.labels, batch_size=64)
    with torch.no_grad():
        ranked = TRIAL.network(TRIAL.inputs).argsort(dim=1, descending=True)
    assert len(starts) == 4, "two other classes, twice"
    for number, (target, moved) in enumerate(starts):
        assert torch.equal(target, ranked[:, 1 + number % 2])
        assert (moved == 0).all() if number < 2 else (moved > 0).all()
    assert out.forwards.tolist() == [1 + 4 * 5] * len(TRIAL.inputs)


def test_radii_are_measured_in_the_norm() -> None:
    """Sixteen elements in a box of width one half."""
    for attack, fits, wide in (
        (FMN(norm="l0", steps=3), 16.0, 17.0),
        (FMN(norm="l1", steps=3), 8.0, 8.1),
        (FMN(norm="l2", steps=3), 2.0, 2.1),
        (FMN(norm="linf", steps=3), 0.5, 0.6),
    ):
        dataclasses.replace(attack, eps=fits)(TRIAL.model, TRIAL.inputs, TRIAL.labels)
        with pytest.raises(ConfigError, match="E139"):
            dataclasses.replace(attack, eps=wide)(TRIAL.model, TRIAL.inputs, TRIAL.labels)
