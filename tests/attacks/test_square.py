"""Square: against a slow loop, its schedule, its cost, and mutants that these tests must kill."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from naive_attacks import Sample
from naive_square import square
from vambrace.attacks import Square
from vambrace.attacks import square as module
from vambrace.attacks.square import WindowSearch, window_sides
from vambrace.core.access import Access, Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.errors import AccessError, ConfigError
from vambrace.testing.attacks import check_attack
from vambrace.testing.counting import CountingModel

RADII = {"linf": 0.1, "l2": 0.4, "l1": 1.2}
STRENGTH = {"linf": 0.9, "l2": 0.75, "l1": 0.5}


def attacks() -> list[Square]:
    return [Square(norm=norm, eps=eps, queries=120) for norm, eps in RADII.items()]


def of(attack: Square) -> str:
    return f"{attack.norm}-{attack.restarts}"


def problem(shape: tuple[int, ...], n: int = 18) -> tuple:
    """A curved model on samples of any shape, three classes, inputs at the edges of the box too."""
    features = torch.Size(shape).numel()
    generator = torch.Generator().manual_seed(7)
    inner = torch.randn(features, 24, generator=generator, dtype=torch.float64) * 1.5 / features**0.5
    outer = torch.randn(24, 3, generator=generator, dtype=torch.float64) / 5

    def function(points: Tensor) -> Tensor:
        return torch.tanh((points.flatten(1) - 0.5) @ inner) @ outer

    wide = torch.rand(n, *shape, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    inputs = wide.clamp(0, 1)
    return function, inputs, function(inputs).argmax(dim=1)


def model_of(function, access: Access = Access.SCORES) -> CountingModel:
    return CountingModel(function, access=access, bounds=Bounds(0.0, 1.0), dtype=torch.float64)


@pytest.mark.parametrize("attack", [*attacks(), Square(eps=0.1, queries=130, restarts=2)], ids=of)
def test_conforms(attack: Square) -> None:
    check_attack(attack, strength=STRENGTH[attack.norm])


@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("shape", [(1, 6, 6), (2, 5, 7), (13,)], ids=str)
def test_is_the_naive_one(shape: tuple[int, ...], norm: str, restarts: int) -> None:
    function, inputs, labels = problem(shape)
    eps = {"linf": 0.08, "l2": 0.5, "l1": 1.2}[norm]
    attack = Square(norm=norm, eps=eps, queries=90, restarts=restarts)
    ids = torch.arange(len(inputs)) * 977 + 3
    for goal, classes in ((Untargeted(labels), labels), (Targeted((labels + 1) % 3), (labels + 1) % 3)):
        references = [
            square(
                Sample(function, inputs[row], int(classes[row]), target=isinstance(goal, Targeted)),
                int(ids[row]),
                Streams(5),
                norm=norm,
                eps=eps,
                queries=90,
                restarts=restarts,
                box=(0.0, 1.0),
            )
            for row in range(len(inputs))
        ]
        for batch_size in (1, 7, 64):
            out = attack(model_of(function), inputs, goal, rng=Streams(5), ids=ids, batch_size=batch_size)
            for name in ("success", "first_success", "forwards", "verifications"):
                assert getattr(out, name).tolist() == [getattr(found, name) for found in references], name
            points = torch.stack([found.point for found in references])
            torch.testing.assert_close(out.adversarial, points, rtol=0, atol=1e-6)
        assert 0 < int(out.success.sum()) < len(inputs), "a comparison needs both outcomes"


@pytest.mark.parametrize("norm", RADII)
def test_how_many_proposals_are_drawn_at_once_changes_nothing(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the other way to write windows, which serves where the host must not look."""
    function, inputs, labels = problem((2, 5, 7))
    attack = Square(norm=norm, eps=RADII[norm], queries=100)
    whole = attack(model_of(function), inputs, labels)
    for block in (1, 7):
        monkeypatch.setattr(module, "_BLOCK", block)
        again = attack(model_of(function), inputs, labels)
        assert torch.equal(again.adversarial, whole.adversarial)
    monkeypatch.setattr("vambrace.ops.windows._on_host", lambda tensor: False)
    masked = attack(model_of(function), inputs, labels)
    assert torch.equal(masked.forwards, whole.forwards)
    torch.testing.assert_close(masked.adversarial, whole.adversarial, rtol=0, atol=1e-9)


def test_asks_forward_only_and_as_often_as_it_says() -> None:
    function, inputs, labels = problem((1, 6, 6))
    for attack, most in ((Square(eps=0.02, queries=50), 50), (Square(eps=0.02, queries=50, restarts=3), 48)):
        model = model_of(function)
        out = attack(model, inputs, labels)
        left = ~out.success
        assert left.any()
        assert (out.forwards[left] == most).all()
        assert (out.forwards <= most).all()
        assert (out.backwards == 0).all()
        assert torch.equal(out.queries, out.forwards + out.verifications)
        assert model.forward_rows == int(out.queries.sum()), "a model that counts queries sees no idle row"
        assert model.backward_rows == 0
    with pytest.raises(AccessError, match="E110"):
        Square(eps=0.1)(model_of(function, Access.LABELS), inputs, labels)


def test_what_is_left_is_the_best_point_seen() -> None:
    """With its margin, which never falls with more queries of the same schedule."""
    function, inputs, labels = problem((1, 6, 6))
    seen: list[Tensor] = []

    def watched(points: Tensor) -> Tensor:
        logits = function(points)
        seen.append(Untargeted(labels[:1]).margin(logits))
        return logits

    out = Square(eps=0.02, queries=80)(model_of(watched), inputs[:1], labels[:1])
    assert not out.success
    assert float(out.margin) == pytest.approx(float(torch.cat(seen).max()), rel=1e-6)
    assert len(seen) == 80


def test_sides_are_those_of_the_paper() -> None:
    """Figure and appendix: halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10,000 proposals."""
    sides = window_sides(9999, 0.8, norm="linf", height=100, width=100)
    assert len(sides) == 9999
    assert sides[-1] == 0
    for mark, halvings in ((10, 0), (11, 1), (50, 1), (51, 2), (200, 2), (201, 3), (8000, 8), (8001, 9)):
        assert sides[mark - 1] == max(1, round((0.8 / 2**halvings) ** 0.5 * 100)), mark
    half = window_sides(4999, 0.8, norm="linf", height=100, width=100)
    assert [half[place] for place in range(0, 4000, 100)] == [sides[2 * place + 1] for place in range(0, 4000, 100)]
    odd = window_sides(99, 0.8, norm="l2", height=28, width=28)[:-1]
    assert all(side % 2 == 1 and side >= 3 for side in odd)
    assert window_sides(5000, 1.0, norm="linf", height=4, width=9)[0] == 4, "a window fits into the image"
    assert window_sides(5000, 0.8, norm="linf", height=1, width=10)[0] == 8, "on a line it is a run"
    assert window_sides(0, 0.8, norm="linf", height=3, width=3) == ()


@pytest.mark.parametrize("norm", RADII)
def test_starts_fill_the_ball_with_a_pattern(norm: str) -> None:
    inputs = torch.full((3, 2, 10, 10), 0.5, dtype=torch.float64)
    seen: list[Tensor] = []

    def function(points: Tensor) -> Tensor:
        seen.append(points.clone())
        return torch.stack((points.flatten(1).sum(1) * 0 + 1, points.flatten(1).sum(1) * 0), dim=1)

    eps = RADII[norm]
    Square(norm=norm, eps=eps, queries=2)(model_of(function), inputs, torch.zeros(3, dtype=torch.int64))
    change = seen[0] - 0.5
    if norm == "linf":
        torch.testing.assert_close(change.abs(), torch.full_like(change, eps))
        assert torch.equal(change, change[:, :, :1].expand_as(change)), "vertical stripes"
        assert not torch.equal(change[0], change[1])
        assert not torch.equal(change[:, 0], change[:, 1]), "a side of its own for each channel"
    else:
        size = change.flatten(1).norm(p=1 if norm == "l1" else 2, dim=1)
        torch.testing.assert_close(size, torch.full_like(size, eps))


def test_given_starts_come_first() -> None:
    function, inputs, labels = problem((1, 6, 6))
    strong = Square(eps=0.2, queries=300)(model_of(function), inputs, labels)
    again = Square(eps=0.2, queries=20)(model_of(function), inputs, labels, start=strong.adversarial)
    assert strong.success.any()
    assert (again.forwards[strong.success] == 1).all()


def test_any_goal_has_a_margin() -> None:
    function, inputs, labels = problem((1, 6, 6), n=30)
    goal = Untargeted(labels) & Untargeted((labels + 1) % 3)
    out = Square(eps=0.3, queries=200)(model_of(function), inputs, goal)
    assert 0 < int(out.success.sum()) < 30
    assert torch.equal(function(out.adversarial).argmax(1) == (labels + 2) % 3, out.success)


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 0.1, "queries": 1},
        {"eps": 0.1, "queries": 5, "restarts": 3},
        {"eps": 0.1, "restarts": 0},
        {"eps": 0.1, "share": 0.0},
        {"eps": 0.1, "share": 1.5},
        {"eps": 0.1, "norm": "l0"},
        {"eps": -1.0},
    ],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="E130"):
        Square(**options)


def test_radius_zero_asks_about_the_inputs_themselves() -> None:
    function, inputs, labels = problem((1, 6, 6))
    for norm in RADII:
        out = Square(norm=norm, eps=0.0)(model_of(function), inputs, (labels + (torch.arange(18) < 3)) % 3)
        assert out.success.tolist() == [True] * 3 + [False] * 15
        assert (out.forwards == 1).all()
        assert torch.equal(out.adversarial, inputs)


def test_mutants_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The naive comparison or the kit tells each of these wrongs."""
    attack, original, plain = Square(eps=0.1, queries=120), WindowSearch.step, Square.rule

    def backwards(self, anchor, state, answer):
        """The sign of the margin flipped."""
        flipped = type(answer)(-answer.logits, answer.goal, None, None, answer.rng)
        return original(self, anchor, state, flipped)

    def forgetful(self, anchor, state, answer):
        """The best point is lost: every proposal is kept."""
        return original(self, anchor, {**state, "margin": torch.full_like(state["margin"], -9e9)}, answer)

    def aimless(self, anchor, state, answer):
        """The goal is ignored: another class is sought than the one asked for."""
        goal = answer.goal
        goal = Targeted((goal.classes + 1) % 3) if isinstance(goal, Targeted) else goal
        return original(self, anchor, state, type(answer)(answer.logits, goal, None, None, answer.rng))

    def crowded(self, anchor, state, answer):
        """Draws depend on the row."""
        rows = {**anchor, "ids": torch.arange(len(anchor["ids"]))}
        return original(self, rows, state, answer)

    check_attack(attack)
    for mutant, complaint in (
        (backwards, "is not found"),
        (forgetful, "nearer|is not found|another one"),  # or a point asked about ahead was not the next one
        (aimless, "nearer"),
        (crowded, "another one|other ones"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(WindowSearch, "step", mutant)
            with pytest.raises(AssertionError, match=complaint):
                check_attack(attack)
    with monkeypatch.context() as patched:  # the budget ignored
        patched.setattr(Square, "rule", lambda self: replace(plain(self), restarts=2))
        with pytest.raises(AssertionError):
            test_asks_forward_only_and_as_often_as_it_says()
