"""Made on surrogates, judged on the model: claims, the two ledgers, and that nothing else of the model is used."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from vambrace.attacks import (
    APGD,
    BIM,
    DDN,
    FAB,
    FMN,
    MDIFGSM,
    MIFGSM,
    NES,
    PGD,
    Adaptive,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    LeastLikely,
    RayS,
    Square,
    Standard,
    transfer,
)
from vambrace.attacks.nearest import Nearest
from vambrace.attacks.transfer import Beyond
from vambrace.core.access import Access, Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.errors import AccessError, ConfigError
from vambrace.models import LowPrecision
from vambrace.models.ensemble import Ensemble
from vambrace.ops.norms import distances
from vambrace.ops.projections import inner_box
from vambrace.search import loop
from vambrace.search.loop import search
from vambrace.search.outcome import Attacked
from vambrace.search.pace import Pace
from vambrace.search.rule import Plain
from vambrace.testing.counting import CountingModel

N, BOX = 40, Bounds(0.0, 0.5)


def net(seed: int):
    """A small network of its own, near the others in what it says: float64, (n, 1, 4, 4) to three classes."""
    common, own = torch.Generator().manual_seed(1), torch.Generator().manual_seed(100 + seed)
    inner = torch.randn(16, 24, generator=common, dtype=torch.float64) / 4
    outer = torch.randn(24, 3, generator=common, dtype=torch.float64) / 5
    inner = inner + 0.08 * torch.randn(16, 24, generator=own, dtype=torch.float64)
    outer = outer + 0.05 * torch.randn(24, 3, generator=own, dtype=torch.float64)

    def function(points: Tensor) -> Tensor:
        return torch.tanh((points.flatten(1) / 0.5 - 0.5) @ inner) @ outer

    return function


def counting(seed: int, access: Access = Access.GRADIENTS) -> CountingModel:
    return CountingModel(net(seed), access=access, bounds=BOX, dtype=torch.float64)


def samples() -> tuple[Tensor, Tensor]:
    inputs = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 0.5
    return inputs, net(0)(inputs).argmax(1)


@dataclasses.dataclass(frozen=True)
class Crossing(Plain):
    """Straight steps, the nearest success kept."""

    steps: int
    norm: str = "l2"
    eps: float = float("inf")
    restarts: int = 1
    keeps: str = "nearest"
    enough: float = 0.0

    def anchor(self, origin):
        return {"inputs": origin.inputs}

    def start(self, origin, anchor, restart, before):
        return {"point": origin.inputs.clone()}

    def slope(self, anchor, state, logits, goal):
        from vambrace.ops import losses

        return losses.slope("margin", logits, goal)

    def step(self, anchor, state, answer):
        gradient = answer.slope
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return {"point": (state["point"] + 0.05 * gradient / length).clamp(0, 0.5)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Straight(Nearest):
    name = "straight"

    def run(self, problem, *, progress) -> Attacked:
        return search(problem, Crossing(steps=20, enough=self.enough), name=self.name, progress=progress)


FIXED = [PGD(eps=0.1, steps=5, restarts=2), MIFGSM(eps=0.1, steps=6), MDIFGSM(eps=0.1, steps=3, shrink=0.5)]
EVERY = [
    *FIXED,
    APGD(eps=0.3, norm="l2", steps=10),
    LeastLikely(eps=0.1, steps=4),
    Straight(),
    Adaptive(eps=0.05, budget=60),
]


@pytest.mark.parametrize("attack", EVERY, ids=lambda each: each.name)
@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.GRADIENTS])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_claims_and_ledgers(attack, access: Access, batch_size: int) -> None:
    inputs, labels = samples()
    model, surrogates = counting(0, access), [counting(1), counting(2)]
    out = attack(model, inputs, labels, surrogates=surrogates, batch_size=batch_size)
    with torch.no_grad():
        reached = net(0)(out.adversarial).argmax(1) != labels
    assert torch.equal(out.success, reached), "on this model no margin is near zero"
    assert 0 < int(out.success.sum()) < N
    asked = 2 if access == Access.LABELS else 1
    assert out.verifications.tolist() == [asked] * N
    pads = -N % min(16, batch_size) if access == Access.GRADIENTS else 0
    assert model.forward_rows == asked * N + pads
    assert model.backward_rows == 0
    assert out.cost.verifications == asked * N
    assert out.queries.tolist() == ([0] if access == Access.GRADIENTS else [asked]) * N
    assert out.cost.queries == int(out.queries.sum())
    cost = out.cost
    for surrogate in surrogates:
        assert surrogate.forward_rows == cost.forwards + cost.idle_forwards + cost.padding_forwards - pads
        assert surrogate.backward_rows == cost.backwards + cost.idle_backwards + cost.padding_backwards
    assert int(out.forwards.sum()) == cost.forwards
    assert int(out.backwards.sum()) == cost.backwards
    assert min(dataclasses.astuple(cost)) >= 0
    assert out.first_success.tolist() == torch.where(out.success, out.forwards, -1).tolist()
    assert out.margin.isnan().all() if access == Access.LABELS else torch.equal(out.margin > 0, out.success)
    assert BOX.contains(out.adversarial).all()
    if attack.eps is not None:
        assert (out.distance <= attack.eps).all()


@pytest.mark.parametrize("attack", FIXED, ids=lambda each: each.name)
def test_every_step_is_run(attack) -> None:
    """The surrogates are fooled long before; the search goes on all the same."""
    inputs, labels = samples()
    surrogate = counting(0)
    out = attack(counting(0), inputs, labels, surrogates=[surrogate])
    restarts, seen = getattr(attack, "restarts", 1), getattr(attack, "diversity", 0.0) == 0
    assert out.forwards.unique().tolist() == [restarts * (attack.steps * (1 if seen else 2) + 1)]
    assert out.backwards.unique().tolist() == [restarts * attack.steps]
    direct = attack(counting(0), inputs, labels)
    assert (out.margin >= direct.margin - 1e-6)[direct.success].double().mean() > 0.9, "further over the border"


@pytest.mark.parametrize("look", [1, 8])
def test_withheld_success_at_any_pace(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = samples()
    attack = PGD(eps=0.1, steps=6, restarts=3)
    expected = attack(counting(0), inputs, labels, surrogates=[counting(1)])
    pace = Pace(look_every=look, confirm_rows=4, pending_share=0.125, vacant_share=0.25, padded=True)
    monkeypatch.setattr(loop, "choose_pace", lambda *_, **__: pace)
    for batch_size in (1, 7, 64):
        out = attack(counting(0), inputs, labels, surrogates=[counting(1)], batch_size=batch_size)
        torch.testing.assert_close(out.adversarial, expected.adversarial, rtol=0, atol=1e-9)
        assert torch.equal(out.success, expected.success)
        assert torch.equal(out.forwards, expected.forwards)


def test_points_are_those_of_a_plain_loop() -> None:
    """Basic steps on the mean of two networks, all of them, and only the last point is judged."""
    inputs, labels = samples()
    out = BIM(eps=0.1, steps=5, loss="margin")(counting(0), inputs, labels, surrogates=[counting(1), counting(2)])
    point = inputs
    for _ in range(5):
        leaf = point.clone().requires_grad_()
        loss = Untargeted(labels).margin((net(1)(leaf) + net(2)(leaf)) / 2).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        point = (point + 0.02 * gradient.sign()).clamp(inputs - 0.1, inputs + 0.1).clamp(0, 0.5)
    torch.testing.assert_close(out.adversarial, point, rtol=0, atol=1e-9)


def test_a_model_of_low_precision_judges_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks it in half the bits gets an error."""
    monkeypatch.setattr(LowPrecision, "__call__", None)
    inputs, labels = samples()
    out = MIFGSM(eps=0.1, steps=4)(LowPrecision(counting(0)), inputs, labels, surrogates=[counting(1)])
    assert torch.equal(out.success, net(0)(out.adversarial).argmax(1) != labels)


@pytest.mark.parametrize("attack", [MIFGSM(eps=0.1, steps=2), DDN(steps=3), DeepFool(), Adaptive(eps=0.1, budget=20)])
def test_autocast_around_the_call_reaches_no_model(attack) -> None:
    inputs, labels = samples()
    kind = inputs.device.type

    def calm(seed: int):
        def function(points: Tensor) -> Tensor:
            assert not torch.is_autocast_enabled(kind)
            return net(seed)(points)

        return CountingModel(function, bounds=BOX, dtype=torch.float64)

    expected = attack(calm(0), inputs, labels, surrogates=[calm(1)])
    with torch.autocast(kind, dtype=torch.bfloat16), torch.inference_mode():
        out = attack(calm(0), inputs, labels, surrogates=[calm(1)])
    assert torch.equal(out.adversarial, expected.adversarial)
    assert torch.equal(out.success, expected.success)


def test_of_several_restarts_the_best_point_is_judged() -> None:
    inputs, labels = samples()
    goal = Untargeted(labels)
    margins = []
    for restarts in (1, 4):
        out = PGD(eps=0.02, steps=2, restarts=restarts)(counting(0), inputs, labels, surrogates=[counting(1)])
        margins.append(goal.margin(net(1)(out.adversarial)))
    assert (margins[1] >= margins[0] - 1e-12).all()
    assert (margins[1] > margins[0]).any()


def test_whole_is_split_is_permuted() -> None:
    inputs, labels = samples()
    ids = torch.arange(N) * 17 + 2
    attack = MDIFGSM(eps=0.1, steps=3, shrink=0.5)
    whole = attack(counting(0), inputs, labels, ids=ids, surrogates=[counting(1), counting(2)])
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    for part in (order, *order.split(11)):
        out = attack(
            counting(0), inputs[part], labels[part], ids=ids[part], surrogates=[counting(1), counting(2)], batch_size=7
        )
        torch.testing.assert_close(out.adversarial, whole.adversarial[part], rtol=0, atol=1e-9)
        assert torch.equal(out.success, whole.success[part])
        assert torch.equal(out.forwards, whole.forwards[part])


def test_nothing_of_the_model_leaks_into_the_points() -> None:
    """Another model to judge, the same points; and a model without any gradient will do."""
    inputs, labels = samples()
    attack, surrogates = MIFGSM(eps=0.1, steps=5), [counting(1), counting(2)]

    def blunt(points: Tensor) -> Tensor:
        assert not points.requires_grad
        assert not torch.is_grad_enabled()
        return net(0)(points).round(decimals=1)

    first = attack(counting(0), inputs, labels, surrogates=surrogates)
    for other in (counting(3), CountingModel(blunt, access=Access.SCORES, bounds=BOX, dtype=torch.float64)):
        second = attack(other, inputs, labels, surrogates=surrogates)
        assert torch.equal(first.adversarial, second.adversarial)
        assert not torch.equal(first.margin, second.margin)


def test_transfer_succeeds_and_more_surrogates_help() -> None:
    inputs, labels = samples()
    attack = MIFGSM(eps=0.15, steps=8)
    noise = (inputs + 0.15 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0)).sign()).clamp(0, 0.5)
    by_noise = int((net(0)(noise).argmax(1) != labels).sum())
    one = int(attack(counting(0), inputs, labels, surrogates=[counting(1)]).success.sum())
    many = int(attack(counting(0), inputs, labels, surrogates=[counting(seed) for seed in range(1, 5)]).success.sum())
    direct = int(attack(counting(0), inputs, labels).success.sum())
    assert by_noise < one <= many <= direct


def test_targets() -> None:
    inputs, labels = samples()
    goal = Targeted((labels + 1) % 3)
    for access in (Access.LABELS, Access.SCORES):
        out = BIM(eps=0.2, steps=8)(counting(0, access), inputs, goal, surrogates=[counting(1), counting(2)])
        assert out.success.any()
        assert torch.equal(out.success, net(0)(out.adversarial).argmax(1) == goal.classes)


def test_curves() -> None:
    inputs, labels = samples()
    surrogates = [counting(1), counting(2)]
    for attack in (MIFGSM(eps=1.0, steps=4), Straight()):
        curve = attack.curve(counting(0, Access.LABELS), inputs, labels, eps=(0.05, 0.2, 0.4), surrogates=surrogates)
        assert 0 < int(curve.outcomes[0].success.sum()) < int(curve.broken.sum())
        for outcome in curve.outcomes:
            assert (net(0)(outcome.adversarial).argmax(1) != labels)[outcome.success].all()


def test_the_access_that_counts_is_that_of_the_surrogates() -> None:
    inputs, labels = samples()
    with pytest.raises(AccessError, match="E110"):
        PGD(eps=0.1)(counting(0), inputs, labels, surrogates=[counting(1), counting(2, Access.SCORES)])
    with pytest.raises(AccessError, match="E110"):
        PGD(eps=0.1)(counting(0, Access.SCORES), inputs, labels)
    with pytest.raises(ConfigError, match="E121"):
        PGD(eps=0.1)(counting(0), inputs, labels, surrogates=[])
    other = CountingModel(net(1), bounds=Bounds(0.0, 1.0), dtype=torch.float64)
    model = counting(0)
    with pytest.raises(ConfigError, match="E121"):
        PGD(eps=0.1)(model, inputs, labels, surrogates=[other])
    assert model.forward_rows == 0


def test_logits_that_are_not_finite() -> None:
    inputs, labels = samples()

    def broken(points: Tensor) -> Tensor:
        near = ((points - inputs[3]).abs().flatten(1) <= 0.2).all(dim=1, keepdim=True)
        return torch.where(near, float("nan"), net(0)(points))

    bad = CountingModel(broken, bounds=BOX, dtype=torch.float64)
    attack = BIM(eps=0.1, steps=3)
    for model, surrogate in ((bad, counting(1)), (counting(0), bad)):
        out = attack(model, inputs, labels, surrogates=[surrogate])
        assert out.finite.tolist() == [row != 3 for row in range(N)]
        assert not out.success[3]
        assert out.adversarial.isfinite().all()


def test_no_samples() -> None:
    inputs, labels = samples()
    for access in Access:
        model = counting(0, access)
        out = BIM(eps=0.1)(model, inputs[:0], labels[:0], surrogates=[counting(1)])
        assert out.success.shape == (0,)
        assert out.margin.dtype == torch.float32
        assert model.forward_rows == 0


ONWARD = [
    Standard(eps=0.1, norm="l2"),
    Adaptive(eps=0.1, norm="l2", budget=100),
    Straight(),
    DDN(steps=30),
    DDN(steps=30, eps=0.2),
    DeepFool(),
    FMN(steps=30),
    FAB(norm="l2", steps=20),
    FAB(norm="l2", steps=20, targets=2),
    CarliniWagner(steps=40, searches=3),
    CarliniWagner(steps=40, searches=3, confidence=0.05),
    HopSkipJump(norm="l2", budget=300),
    RayS(norm="linf", budget=300),
    NES(eps=0.1, budget=300),
]


@pytest.mark.parametrize("attack", ONWARD, ids=repr)
@pytest.mark.parametrize("targeted", [False, True])
def test_crafting_goes_on_where_the_surrogates_are_wrong_already(attack, targeted: bool) -> None:
    """The unchanged input, which the model gets right, is no example of anything."""
    inputs = torch.rand(240, 1, 4, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 0.5
    said, seen = net(0)(inputs), (net(1)(inputs) + net(2)(inputs)) / 2
    wrong = seen.argmax(1) != said.argmax(1)
    inputs, said, seen = inputs[wrong], said[wrong], seen[wrong]
    assert len(inputs) > 30
    goal = Targeted(seen.argmax(1)) if targeted else Untargeted(said.argmax(1))
    out = attack(counting(0), inputs, goal, surrogates=[counting(1), counting(2)])
    assert (out.distance > 0).double().mean() > 0.95
    with torch.no_grad():
        after = goal.margin((net(1)(out.adversarial) + net(2)(out.adversarial)) / 2)
    before = goal.margin(seen)
    assert (before > 0).all()
    far = after > 2 * before + getattr(attack, "confidence", 0.0)
    assert far.double().mean() > (0.8 if attack.norm == "l2" else 0.5), "beyond by as much again, unless eps forbids"
    assert 0.25 < out.success.double().mean() <= 1


def test_what_goes_on_further_than_eps_is_moved_back() -> None:
    """A sample that the model gets wrong too, as it came, is broken within any radius."""
    inputs, labels = samples()
    labels = (labels + 1) % 3
    for attack in (DDN(steps=20, eps=0.01), DDN(steps=20, eps=0.01, quantised=True), RayS(budget=50, eps=0.01)):
        out = attack(counting(0), inputs, labels, surrogates=[counting(1), counting(2)])
        wrong = (net(1)(inputs) + net(2)(inputs)).argmax(1) != labels
        assert int(wrong.sum()) > 30
        assert (out.distance <= 0.01)[wrong].all()
        assert torch.equal(out.distance, distances(out.adversarial, inputs, attack.norm))
        assert out.success[wrong].double().mean() > 0.8


def test_each_goes_as_far_as_it_would_alone() -> None:
    """Those that go on and those that do not: whichever company they have."""
    inputs, labels = samples()
    ids = torch.arange(N) * 17 + 2
    surrogates = [counting(1), counting(2)]
    wrong = surrogates[0](inputs).add(surrogates[1](inputs)).argmax(1) != labels
    assert 3 < int(wrong.sum()) < N - 3
    attack = DDN(steps=20)
    whole = attack(counting(0), inputs, labels, ids=ids, surrogates=surrogates)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    for part in (order, *order.split(11), wrong.nonzero().squeeze(1), (~wrong).nonzero().squeeze(1)):
        out = attack(counting(0), inputs[part], labels[part], ids=ids[part], surrogates=surrogates, batch_size=7)
        torch.testing.assert_close(out.adversarial, whole.adversarial[part], rtol=0, atol=1e-9)
        assert torch.equal(out.success, whole.success[part])
        assert torch.equal(out.forwards, whole.forwards[part])


def test_a_goal_with_something_to_spare() -> None:
    logits = torch.tensor([[1.0, 3.0], [1.0, 3.0], [5.0, 0.0]])
    goal = Beyond(Untargeted(torch.tensor([0, 0, 1])), torch.tensor([1.0, 2.5, 0.0]))
    assert goal.size == 3
    assert goal.margin(logits).tolist() == [1.0, -0.5, 5.0]
    assert goal.reached(torch.tensor([1, 0, 0])).tolist() == [True, False, True]
    taken = goal.take(torch.tensor([2, 0]))
    assert taken.margin(logits[[2, 0]]).tolist() == [5.0, 1.0]


QUANTISED = [
    PGD(eps=0.0007, steps=5, quantised=True),
    PGD(eps=0.1, steps=5, quantised=True),
    MIFGSM(eps=0.3, norm="l2", steps=6, quantised=True),
    APGD(eps=0.3, norm="l1", steps=10, quantised=True),
    Square(eps=0.1, queries=60, quantised=True),
    Adaptive(eps=0.001, budget=60, quantised=True),
    Adaptive(eps=0.05, budget=60, quantised=True),
    Straight(quantised=True),
    DDN(steps=20, quantised=True),
    FAB(norm="linf", steps=10, quantised=True, eps=0.003),
    HopSkipJump(norm="l2", budget=200, quantised=True),
    RayS(norm="linf", budget=20, quantised=True),
]


@pytest.mark.parametrize("attack", QUANTISED, ids=repr)
@pytest.mark.parametrize(
    ("access", "box"), [(Access.LABELS, BOX), (Access.GRADIENTS, Bounds(-3.7, 9.1))], ids=["half", "odd"]
)
def test_quantised_claims_lie_on_levels(attack, access: Access, box: Bounds) -> None:
    """Inputs between levels, and labels by chance, so that points fool the model that no level is near enough to."""
    span, low = box.span, float(box.low)
    generator = torch.Generator().manual_seed(11)
    inputs = low + torch.rand(60, 1, 4, 4, generator=generator, dtype=torch.float64) * span
    inputs = inputs.float().clamp(*inner_box(box, torch.zeros(())))
    labels = torch.randint(0, 3, (60,), generator=generator)

    def judge(seed: int):
        return lambda points: net(seed)((points.double() - low) / span * 0.5)

    def model(seed: int, given: Access = Access.GRADIENTS) -> CountingModel:
        return CountingModel(judge(seed), access=given, bounds=box)

    if attack.eps is not None:
        attack = dataclasses.replace(attack, eps=attack.eps * span / BOX.span)
    out = attack(model(0, access), inputs, labels, surrogates=[model(1), model(2)])
    fooled = judge(0)(out.adversarial).argmax(1) != labels
    points = out.adversarial[out.success]
    level = (points.double() - low) / span * 255
    least, most = inner_box(box, points)
    assert torch.equal((low + level.round() * span / 255).float().clamp(least, most), points)
    assert ((points.double() >= box.low) & (points.double() <= box.high)).all()
    assert fooled[out.success].all()
    size = distances(out.adversarial, inputs, attack.norm)
    assert torch.equal(size, out.distance)
    if attack.eps is not None:
        assert (size[out.success] <= attack.eps).all()
        half = 0.5 * span / 255
        assert attack.eps < half or out.success.any()
    else:
        assert out.success.any()


def test_a_judge_that_is_wrong_on_purpose_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that believes the surrogates, and one that asks the model for gradients."""
    true = transfer.judged
    monkeypatch.setattr(
        transfer, "judged", lambda problem, crafted: true(dataclasses.replace(problem, model=counting(1)), crafted)
    )
    with pytest.raises(AssertionError):
        test_claims_and_ledgers(FIXED[1], Access.SCORES, 7)
    monkeypatch.setattr(transfer, "judged", true)
    monkeypatch.setattr(transfer, "Ensemble", lambda models: Ensemble([*models, counting(0)]))
    with pytest.raises(AssertionError):
        test_points_are_those_of_a_plain_loop()
