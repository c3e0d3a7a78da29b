"""The standard ensemble: AutoAttack's attacks, order and budgets, each on what is left, with one ledger."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from vambrace.attacks import APGD, FAB, Square, Standard, flags, ledger
from vambrace.attacks import standard as module
from vambrace.core.goals import AllOf, Targeted, Untargeted
from vambrace.errors import ConfigError
from vambrace.ops.norms import distances
from vambrace.search import slots
from vambrace.testing.attacks import curved_problem, linear_problem
from vambrace.testing.counting import CountingModel


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets for toys: the order and the joints are what is tested."""
    monkeypatch.setattr(module, "_STEPS", 12)
    monkeypatch.setattr(module, "_QUERIES", 60)


def model_of(function, bounds, **options) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64, **options)


def test_attacks_order_and_budgets_are_those_of_autoattack() -> None:
    stages = dict(Standard(norm="l2", eps=0.5).stages(10))
    assert list(stages) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert stages["apgd-ce"] == APGD(norm="l2", eps=0.5, loss="ce", steps=100)
    assert stages["apgd-t"] == APGD(norm="l2", eps=0.5, loss="dlr", steps=100, targets=9)
    assert stages["fab-t"] == FAB(norm="l2", eps=0.5, steps=100, targets=9)
    assert stages["square"] == Square(norm="l2", eps=0.5, queries=5000)
    sparse = dict(Standard(norm="l1", eps=5.0).stages(10))
    assert sparse["apgd-ce"] == APGD(norm="l1", eps=5.0, loss="ce", steps=100, restarts=5, large_radii=True)
    assert sparse["apgd-t"] == APGD(norm="l1", eps=5.0, loss="dlr", steps=100, targets=5, large_radii=True)
    assert sparse["fab-t"] == FAB(norm="l1", eps=5.0, steps=100, targets=9)
    assert sparse["square"] == Square(norm="l1", eps=5.0, queries=5000)
    thorough = dict(Standard(norm="l1", eps=5.0, version="plus").stages(10))
    assert thorough["apgd-t"] == APGD(norm="l1", eps=5.0, loss="dlr", steps=100, targets=9, large_radii=True)
    assert dict(Standard(norm="l1", eps=5.0).stages(3))["apgd-t"].targets == 2
    assert dict(Standard(norm="l1", eps=5.0, version="rand").stages(10))["apgd-ce"].restarts == 1
    plus = dict(Standard(eps=0.5, version="plus").stages(10))
    assert list(plus) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert plus["apgd-dlr"] == APGD(eps=0.5, loss="dlr", steps=100, restarts=5)
    assert list(dict(Standard(eps=0.5, version="rand").stages(10))) == ["apgd-ce", "apgd-dlr"]


@pytest.mark.parametrize(
    ("classes", "losses", "targets"), [(2, ("margin", "margin"), 1), (3, ("dlr", "margin"), 2), (4, ("dlr", "dlr"), 3)]
)
def test_with_few_classes_the_margin_is_raised_and_targets_are_fewer(classes: int, losses: tuple, targets: int) -> None:
    stages = dict(Standard(eps=0.5, version="plus").stages(classes))
    assert (stages["apgd-dlr"].loss, stages["apgd-t"].loss) == losses
    assert (stages["apgd-t"].targets, stages["fab-t"].targets) == (targets, targets)


def test_other_goals_have_no_targets_to_aim_at() -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    stages = dict(Standard(eps=0.5).stages(10, Targeted(labels)))
    assert (stages["apgd-t"].targets, stages["fab-t"].targets, stages["apgd-ce"].loss) == (None, None, "ce")
    both = dict(Standard(eps=0.5).stages(10, AllOf(Untargeted(labels), Untargeted(labels + 1))))
    assert (both["apgd-ce"].loss, both["apgd-t"].loss) == ("margin", "margin")


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_linear_model_breaks_where_it_can_and_nowhere_else(short, norm: str) -> None:
    function, bounds, inputs, labels, radii = linear_problem(norm, 0.1)
    out = Standard(norm=norm, eps=0.1)(model_of(function, bounds), inputs, labels)
    assert out.success[radii <= 0.9].all()
    assert not out.success[radii > 1].any()


@pytest.mark.parametrize(
    ("norm", "version"), [("linf", "standard"), ("l2", "standard"), ("linf", "plus"), ("l1", "standard")]
)
def test_claims_hold_and_the_ledger_is_exact(short, norm: str, version: str) -> None:
    eps = {"linf": 0.03, "l2": 0.06, "l1": 0.2}[norm]
    function, bounds, inputs, labels = curved_problem(0.1, 30)
    labels = torch.where(torch.arange(30) % 9 == 0, (labels + 1) % 3, labels)
    whole = None
    for batch_size in (1, 7, 64):
        model = model_of(function, bounds)
        out = Standard(norm=norm, eps=eps, version=version)(model, inputs, labels, batch_size=batch_size)
        assert torch.equal(function(out.adversarial).argmax(1) != labels, out.success)
        assert (distances(out.adversarial, inputs, norm) <= eps).all()
        cost = out.cost
        forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
        assert (forward, cost.backwards + cost.idle_backwards + cost.padding_backwards) == (
            model.forward_rows,
            model.backward_rows,
        )
        for name in ("forwards", "backwards", "verifications"):
            assert int(getattr(out, name).sum()) == getattr(cost, name) == sum(getattr(p.cost, name) for p in out.parts)
        left = len(inputs)
        for part in out.parts[1:]:
            left -= 0 if part is not out.parts[1] else out.parts[0].broken
            assert part.attacked == left
            left -= part.broken
        assert left == int((~out.success).sum())
        assert [part.black_box for part in out.parts if part.name == "square"] == [True]
        if whole is not None:
            for name in ("success", "forwards", "backwards", "first_success", "by"):
                assert torch.equal(getattr(whole, name), getattr(out, name)), name
        whole = out
    assert (out.distance[out.success & (out.by == 0)] == 0).all(), "what is wrong already costs no change"


def test_parts_and_order_of_samples_do_not_matter(short) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 24)
    ids = torch.arange(24) * 13 + 1
    attack = Standard(eps=0.03)
    whole = attack(model_of(function, bounds), inputs, labels, rng=4, ids=ids)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    for index in (order, torch.arange(5, 17)):
        part = attack(model_of(function, bounds), inputs[index], labels[index], rng=4, ids=ids[index])
        for name in ("success", "forwards", "backwards", "verifications", "first_success", "by"):
            assert torch.equal(getattr(whole, name)[index], getattr(part, name)), name
    assert not Standard.joint


def test_the_radius_of_each_sample_from_a_curve(short) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 24)
    model = model_of(function, bounds)
    curve = Standard(eps=1.0).curve(model, inputs, labels, eps=(0.01, 0.03, 0.06))
    shares = [int(out.success.sum()) for out in curve.outcomes]
    assert 0 < shares[0] < shares[2]
    assert curve.cost.forwards + curve.cost.verifications + curve.cost.idle_forwards + curve.cost.padding_forwards == (
        model.forward_rows
    )
    alone = Standard(eps=0.01)(model_of(function, bounds), inputs, labels)
    assert torch.equal(alone.success, curve.outcomes[0].success)
    broken = curve.outcomes[0].success
    assert (curve.outcomes[2].forwards[broken] == 0).all()
    for eps, out in zip(curve.eps, curve.outcomes, strict=True):
        assert (out.distance[out.success] <= eps).all()


def test_a_randomised_model_is_attacked_in_expectation(short) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 12)
    calls = []

    def noisy(points: Tensor) -> Tensor:
        calls.append(len(points))
        wave = torch.sin(torch.tensor(len(calls) * 1.7)) * 0.05
        return function(points) + wave * torch.tensor([1.0, -1.0, 0.0])

    out = Standard(eps=0.06, version="rand")(model_of(noisy, bounds), inputs, labels)
    assert out.success.any()
    assert sum(calls) == (
        out.cost.forwards + out.cost.verifications + out.cost.idle_forwards + out.cost.padding_forwards
    )


def test_a_model_whose_gradients_mislead_is_flagged(short) -> None:
    """Square breaks what the attacks with gradients leave, and the outcome says so."""
    function, bounds, inputs, labels = curved_problem(0.1, 60)

    def masked(points: Tensor) -> Tensor:
        return function((points * 200).round() / 200) + 0 * points.flatten(1).sum(1, keepdim=True)

    out = Standard(eps=0.08)(model_of(masked, bounds), inputs, labels)
    assert next(part.broken for part in out.parts if part.name == "square") > 2
    assert "E467" in {flag.code for flag in flags(out)}
    honest = Standard(eps=0.08)(model_of(function, bounds), inputs, labels)
    assert "E467" not in {flag.code for flag in flags(honest)}


def test_ten_thousand_samples_hold_no_more_state_than_two_batches(short, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEPS", 4)
    monkeypatch.setattr(module, "_QUERIES", 3)
    weight = torch.linspace(-1, 1, 12).reshape(4, 3)
    inputs = torch.rand(10_000, 4, generator=torch.Generator().manual_seed(0))
    rows, made = [0], slots.Slots.__post_init__

    def counted(self, keeping: bool) -> None:
        made(self, keeping)
        rows.append(len(self.index))

    monkeypatch.setattr(slots.Slots, "__post_init__", counted)
    model = CountingModel(lambda points: points @ weight)
    out = Standard(eps=0.01)(model, inputs, (inputs @ weight).argmax(1), batch_size=100)
    assert len(out.success) == 10_000
    assert max(rows) <= 100, "rows are made batch by batch, and put into one batch of them"
    assert max(model.calls) <= 100


def test_empty_single_and_zero() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 5)
    model = model_of(function, bounds)
    assert len(Standard(eps=0.1)(model, inputs[:0], labels[:0]).success) == 0
    assert model.forward_rows == 0
    nothing = Standard(eps=0.0)(model, inputs, labels)
    assert torch.equal(nothing.adversarial, inputs)
    assert "apgd-ce" in ledger(nothing)
    with pytest.raises(ConfigError, match="E130"):
        Standard(eps=0.1, version="strong")


@pytest.mark.parametrize("wrong", ["survivors forgotten", "projection lost", "goal ignored"])
def test_what_is_wrong_on_purpose_is_noticed(short, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vambrace.attacks.board import Board

    if wrong == "survivors forgotten":
        monkeypatch.setattr(Board, "alive", property(lambda self: torch.arange(len(self.success))))
    elif wrong == "projection lost":
        stages = Standard.stages
        wide = lambda self, *given: stages(dataclasses.replace(self, eps=1.25 * self.eps), *given)  # noqa: E731
        monkeypatch.setattr(Standard, "stages", wide)
    else:
        monkeypatch.setattr(Untargeted, "margin", lambda self, logits: logits.amax(1) - logits.amin(1))
    with pytest.raises(AssertionError):
        test_claims_hold_and_the_ledger_is_exact(None, "linf", "standard")
