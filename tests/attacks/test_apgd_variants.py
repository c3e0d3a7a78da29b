"""APGD with the difference of logits ratio, toward classes, and in l1: against slow loops, one sample at a time."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from naive_attacks import Found, Sample, apgd, cross_entropy, project
from vambrace.attacks import APGD, FGSM, PGD, aim
from vambrace.attacks.sparse import SparseAscent
from vambrace.core.access import Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError
from vambrace.ops import draws
from vambrace.ops.projections_l1 import draw_l1
from vambrace.search import loop
from vambrace.search.loop import search
from vambrace.search.pace import Pace
from vambrace.search.problem import pose
from vambrace.testing.counting import CountingModel

N, CLASSES = 24, 6


def problem(eps: float, classes: int = CLASSES) -> tuple:
    generator = torch.Generator().manual_seed(11)
    inner = torch.randn(16, 24, generator=generator, dtype=torch.float64) / 4
    outer = torch.randn(24, classes, generator=generator, dtype=torch.float64) / 5
    high = 5.0 * eps

    def function(points: Tensor) -> Tensor:
        return torch.tanh((points.flatten(1) / high - 0.5) @ inner) @ outer

    inputs = (torch.rand(N, 1, 4, 4, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1) * high
    model = CountingModel(function, bounds=Bounds(0.0, high), dtype=torch.float64)
    return function, inputs, function(inputs).argmax(dim=1), model, (0.0, high)


class Aimed(Sample):
    """A sample whose loss is written out from the paper; `aim` is a class to go for, or None."""

    def __init__(self, function, given: Tensor, label: int, kind: str) -> None:
        super().__init__(function, given, label)
        self.kind: str = kind
        self.aim: int | None = None
        self.judged = True

    def loss(self, logits: Tensor) -> Tensor:
        high = logits.sort(descending=True).values
        if self.aim is None:
            other = max(logits[place] for place in range(len(logits)) if place != self.label)
            return (other - logits[self.label]) / (high[0] - high[2])
        gap = logits[self.aim] - logits[self.label]
        if self.kind == "margin":
            return gap
        if self.kind == "ce":
            return -cross_entropy(logits, self.aim)
        return gap / (high[0] - (high[2] + high[3]) / 2)

    def evaluate(self, point: Tensor) -> tuple[bool, float, Tensor]:
        self.found.forwards += 1
        leaf = point.clone().requires_grad_()
        logits = self.function(leaf[None])[0]
        loss = self.loss(logits)
        if self.judged and self.won(logits.detach()):
            self.found.verifications += 1
            self.found.success, self.found.first_success, self.found.point = True, self.found.forwards, point
            return True, float(loss.detach()), torch.zeros_like(point)
        return False, float(loss.detach()), torch.autograd.grad(loss, leaf)[0]


def start_of(attack: APGD, given: Tensor, identity: Tensor, restart: int, box: tuple[float, float]) -> Tensor:
    if attack.large_radii:
        attack = APGD(norm="l1", eps=3 * attack.eps)
    stream, like = Streams(5).child("start"), {"shape": given.shape, "step": restart, "dtype": torch.float64}
    if attack.norm == "l1":
        return nearest_l1(given + attack.eps * draw_l1(stream, identity, **like)[0], given, attack.eps, *box)
    if attack.norm == "linf":
        noise = draws.uniform(stream, identity, low=-attack.eps, high=attack.eps, **like)[0]
    else:
        noise = draws.normal(stream, identity, **like)[0]
        share = draws.uniform(stream.child("radius"), identity, shape=(), step=restart, dtype=torch.float64)[0]
        noise = noise / noise.norm() * attack.eps * share ** (1 / noise.numel())
    return project(given + noise, given, attack.eps, attack.norm, *box)


def nearest_l1(point: Tensor, centre: Tensor, eps: float, low: float, high: float) -> Tensor:
    change = point - centre

    def at(amount: float) -> Tensor:
        return (centre + change.sign() * (change.abs() - amount).clamp(min=0)).clamp(low, high)

    if (at(0.0) - centre).abs().sum() <= eps:
        return at(0.0)
    inside, outside = float(change.abs().max()), 0.0
    for _ in range(100):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if (at(middle) - centre).abs().sum() <= eps else (inside, middle)
    return at(inside)


def sparse_apgd(
    sample: Sample, start: Tensor, *, eps: float, steps: int, box: tuple[float, float], large: bool = False
) -> Found:
    """Croce & Hein 2021, algorithm 1, one restart; `large`: in three balls, one after the other."""
    given, features, point = sample.given, sample.given.numel(), start
    wide = 3 * steps // 10 if large else 0
    balls = [(3, wide), (2, wide - 1), (1, steps - 2 * wide - 1)] if wide else [(1, steps)]
    for place, (times, moves) in enumerate(balls):
        radius, period = times * eps, max(1, int(0.04 * moves))
        sample.judged = times == 1
        if place:
            point = nearest_l1(best, given, radius, *box)  # noqa: F821  of the ball before
            changed = int((point != given).sum())
            count = max(1, int(changed / 1.5))
        else:
            changed, count = features, math.ceil(0.2 * features)
        best, best_value, best_gradient, size = point, -math.inf, torch.zeros_like(point), radius
        for taken in range(moves + 1):
            won, value, gradient = sample.evaluate(point)
            if won:
                return sample.found
            if times == 1 and taken == moves:
                break
            sample.found.backwards += 1
            if value > best_value:
                best, best_value, best_gradient = point, value, gradient
            if taken == moves:
                break
            if taken and taken % period == 0:
                now = int((best != given).sum())
                if now < 0.95 * changed:
                    size, point, gradient = radius, best, best_gradient
                else:
                    size = max(size / 1.5, radius / 10)
                changed, count = now, max(1, int(now / 1.5))
            order = gradient.abs().flatten().argsort(descending=True)[:count]
            move = torch.zeros(features, dtype=torch.float64)
            move[order] = gradient.flatten()[order].sign()
            move = move / move.abs().sum().clamp(min=1)
            point = nearest_l1(point + size * move.reshape(point.shape), given, radius, *box)
    sample.found.point = point
    return sample.found


def compare(out, references: list[Found], scale: float) -> None:
    for name in ("success", "first_success", "forwards", "backwards", "verifications"):
        assert getattr(out, name).tolist() == [getattr(found, name) for found in references], name
    points = torch.stack([found.point for found in references])
    torch.testing.assert_close(out.adversarial, points, rtol=0, atol=1e-6 * scale)
    assert 0 < sum(out.success.tolist()) < len(references), "a comparison needs both outcomes"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_dlr_is_the_naive_one(norm: str) -> None:
    eps = 0.1 if norm == "linf" else 0.25
    function, inputs, labels, model, box = problem(0.1)
    attack, ids = APGD(norm=norm, eps=eps / 2, loss="dlr", steps=25, restarts=2), torch.arange(N) * 977 + 3
    references = [
        apgd(
            Aimed(function, inputs[row], int(labels[row]), "dlr"),
            [start_of(attack, inputs[row], ids[row : row + 1], restart, box) for restart in range(2)],
            norm=norm,
            eps=eps / 2,
            steps=25,
            box=box,
        )
        for row in range(N)
    ]
    for batch_size in (1, 7, 64):
        compare(attack(model, inputs, labels, rng=Streams(5), ids=ids, batch_size=batch_size), references, eps)


def toward_classes(attack: APGD, function, inputs: Tensor, labels: Tensor, ids: Tensor, box) -> list[Found]:
    """The clean logits rank the classes; each of the best others gets a restart of its own, round after round."""
    found = []
    for row in range(len(inputs)):
        sample = Aimed(function, inputs[row], int(labels[row]), attack.loss)
        sample.found.forwards += 1
        ranked = function(inputs[row : row + 1])[0].argsort(descending=True).tolist()
        targets = [place for place in ranked if place != int(labels[row])][: attack.targets]
        for restart in range(attack.restarts * len(targets)):
            sample.aim = targets[restart % len(targets)]
            start = start_of(attack, inputs[row], ids[row : row + 1], restart, box)
            if attack.norm == "l1":
                options = {"eps": attack.eps, "steps": attack.steps, "box": box, "large": attack.large_radii}
                sparse_apgd(sample, start, **options)
            else:
                apgd(sample, [start], norm=attack.norm, eps=attack.eps, steps=attack.steps, box=box)
            if sample.found.success:
                break
        found.append(sample.found)
    return found


@pytest.mark.parametrize(
    "attack",
    [
        APGD(eps=0.045, loss="dlr", targets=3, steps=15),
        APGD(eps=0.045, loss="margin", targets=9, steps=12),
        APGD(eps=0.04, loss="ce", targets=2, steps=12, restarts=2),
        APGD(eps=0.13, norm="l2", loss="dlr", targets=4, steps=15),
        APGD(eps=0.3, norm="l1", loss="dlr", targets=2, steps=30),
        APGD(eps=0.3, norm="l1", loss="dlr", targets=2, steps=30, large_radii=True),
    ],
    ids=["dlr", "margin-all", "ce-twice", "l2", "l1", "l1-large"],
)
def test_toward_classes_is_the_naive_one(attack: APGD) -> None:
    function, inputs, labels, model, box = problem(0.1)
    ids = torch.arange(N) * 977 + 3
    references = toward_classes(attack, function, inputs, labels, ids, box)
    for batch_size in (1, 7, 64):
        compare(attack(model, inputs, labels, rng=Streams(5), ids=ids, batch_size=batch_size), references, attack.eps)


@pytest.mark.parametrize(("steps", "large"), [(60, False), (60, True), (7, True), (4, True), (3, True)])
def test_l1_is_the_naive_one(steps: int, large: bool) -> None:
    function, inputs, labels, model, box = problem(0.1)
    attack, ids = APGD(norm="l1", eps=0.35, steps=steps, loss="dlr", large_radii=large), torch.arange(N) * 977 + 3
    given = attack if steps > 3 else dataclasses.replace(attack, large_radii=False)  # too few for larger balls
    references = [
        sparse_apgd(
            Aimed(function, inputs[row], int(labels[row]), "dlr"),
            start_of(given, inputs[row], ids[row : row + 1], 0, box),
            eps=attack.eps,
            steps=steps,
            box=box,
            large=large,
        )
        for row in range(N)
    ]
    for batch_size in (1, 7, 64):
        compare(attack(model, inputs, labels, rng=Streams(5), ids=ids, batch_size=batch_size), references, attack.eps)


@pytest.mark.parametrize("look", [1, 8])
def test_large_radii_end_in_the_ball_and_cost_no_more(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most points of the larger balls reach the goal here: none of them is claimed, and none handed back."""
    function, inputs, labels, model, _ = problem(0.1)
    pace = Pace(look_every=look, confirm_rows=4, pending_share=0.125, vacant_share=0.25, padded=True)
    monkeypatch.setattr(loop, "choose_pace", lambda *_, **__: pace)
    attack = APGD(norm="l1", eps=0.3, steps=40, large_radii=True, restarts=2)
    out = attack(model, inputs, labels, batch_size=7)
    cost = out.cost
    assert 0 < int(out.success.sum()) < N
    assert (out.distance <= 0.3).all()
    assert torch.equal(out.verifications, out.success.long())
    left = ~out.success
    assert out.forwards[left].unique().tolist() == [2 * 41]
    assert out.backwards[left].unique().tolist() == [2 * 40]
    assert model.forward_rows == cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    assert model.backward_rows == cost.backwards + cost.idle_backwards + cost.padding_backwards
    easier = dataclasses.replace(attack, eps=0.9, large_radii=False)(model, inputs, labels)
    assert int(easier.success.sum()) > N * 0.9
    # On surrogates nothing ends a search, and the best point of all restarts is handed back: of those inside.
    posed = pose(model, inputs, labels, rng=0, ids=None, start=None, batch_size=7)
    made = search(dataclasses.replace(posed, withheld=True), attack.rule())
    assert (made.distance <= 0.3).all()
    torch.testing.assert_close(made.margin, Untargeted(labels).margin(function(made.adversarial)).float())


def test_large_radii_are_for_l1() -> None:
    with pytest.raises(ConfigError, match="E130.*large_radii"):
        APGD(eps=0.1, large_radii=True)
    nothing = APGD(norm="l1", eps=0.0, large_radii=True)(problem(0.1)[3], *problem(0.1)[1:3])
    assert (nothing.forwards == 1).all()


def test_l1_pgd_and_fgsm_stay_inside_and_find_what_they_can() -> None:
    """On a linear model inside a narrow box FGSM's one step is exact: no allowed point is better."""
    weight = torch.linspace(-1.0, 1.5, 16, dtype=torch.float64)

    def function(points: Tensor) -> Tensor:
        score = (points.flatten(1) - 0.5) @ weight
        return torch.stack((-score, score), dim=1)

    inputs = torch.rand(40, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels = function(inputs).argmax(1)
    model = CountingModel(function, bounds=Bounds(0.0, 1.0), dtype=torch.float64)
    for eps in (0.2, 0.7):
        out = FGSM(norm="l1", eps=eps)(model, inputs, labels)
        slope = torch.where(labels == 0, 1.0, -1.0).unsqueeze(1) * weight
        room = torch.where(slope > 0, 1 - inputs.flatten(1), inputs.flatten(1))
        order = slope.abs().argsort(dim=1, descending=True)
        spent = (eps - (room.gather(1, order).cumsum(1) - room.gather(1, order))).clamp(min=0)
        gain = (torch.minimum(spent, room.gather(1, order)) * slope.abs().gather(1, order)).sum(1)
        distance_to_decision = ((inputs.flatten(1) - 0.5) @ weight).abs()
        clear = (gain - distance_to_decision).abs() > 1e-3
        assert torch.equal(out.success[clear], (gain > distance_to_decision)[clear])
        assert 0 < int(out.success.sum()) < 40
        walked = PGD(norm="l1", eps=eps, steps=40)(model, inputs, labels)
        assert not (walked.success & (gain < distance_to_decision - 1e-3)).any()
        assert (walked.distance <= eps).all()
        assert int(walked.success.sum()) >= 0.7 * int(out.success.sum())


def test_fewer_classes_than_targets_means_fewer_restarts() -> None:
    function, inputs, labels, model, _ = problem(0.02, classes=3)
    out = APGD(eps=0.002, loss="margin", targets=9, steps=5)(model, inputs, labels)
    left = ~out.success
    assert left.any()
    assert (out.forwards[left] == 1 + 2 * 6).all()
    with pytest.raises(ConfigError, match="E135.*at least 4"):
        APGD(eps=0.002, loss="dlr", targets=9, steps=5)(model, inputs, labels)
    known = CountingModel(function, bounds=model.bounds, dtype=torch.float64, num_classes=3)
    with pytest.raises(ConfigError, match="E135.*at least 4"):
        APGD(eps=0.002, loss="dlr", targets=9, steps=5)(known, inputs, labels)
    assert known.forward_rows == 0, "said before the model is asked"
    with pytest.raises(ConfigError, match="E135.*leave out targets"):
        APGD(eps=0.002, loss="ce", targets=2)(model, inputs, Targeted(labels))
    nothing = APGD(eps=0.0, loss="dlr", targets=2)(problem(0.1)[3], inputs, labels)
    assert (nothing.forwards == 1).all()


def test_mutants_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong on purpose: targets in the wrong order, one target for all restarts, sparsity or projection ignored."""
    function, inputs, labels, model, box = problem(0.1)
    ids = torch.arange(N) * 977 + 3
    attack = APGD(eps=0.045, loss="dlr", targets=3, steps=15)
    references = toward_classes(attack, function, inputs, labels, ids, box)

    def fails(attack: APGD, references: list[Found]) -> None:
        with pytest.raises(AssertionError):
            compare(attack(model, inputs, labels, rng=Streams(5), ids=ids), references, attack.eps)

    fails(dataclasses.replace(attack, loss="margin"), references)
    fails(dataclasses.replace(attack, targets=2), references)
    anchor, start = aim.Aim.anchor, aim.Aim.start
    with monkeypatch.context() as patched:
        patched.setattr(aim.Aim, "anchor", lambda self, origin: {"targets": anchor(self, origin)["targets"].flip(1)})
        fails(attack, references)
    with monkeypatch.context() as patched:
        patched.setattr(aim.Aim, "start", lambda self, anchor, restart: start(self, anchor, 0 * restart))
        fails(attack, references)
    sparse = APGD(norm="l1", eps=0.3, loss="dlr", targets=2, steps=30)
    references = toward_classes(sparse, function, inputs, labels, ids, box)
    step = SparseAscent.step
    large = dataclasses.replace(sparse, large_radii=True)
    with monkeypatch.context() as patched:  # everything may be claimed
        patched.setattr(
            SparseAscent,
            "step",
            lambda self, *given: {
                **step(self, *given),
                "outside": torch.zeros(len(given[1]["time"]), dtype=torch.bool),
            },
        )
        fails(large, toward_classes(large, function, inputs, labels, ids, box))
    with monkeypatch.context() as patched:
        everything = torch.full((N,), 16)
        patched.setattr(
            SparseAscent,
            "step",
            lambda self, anchor, state, answer: step(
                self, anchor, {**state, "count": everything[: len(state["count"])]}, answer
            ),
        )
        fails(sparse, references)
    with monkeypatch.context() as patched:
        patched.setattr("vambrace.attacks.ball.project_l1", lambda points, centre, eps, low, high: points)
        fails(sparse, references)
