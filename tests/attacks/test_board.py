"""What several searches found together: sums, survivors, the best points, and who broke what."""

from __future__ import annotations

import dataclasses

import torch

from vambrace.attacks import PGD
from vambrace.attacks.ball import Ball
from vambrace.attacks.board import Board
from vambrace.attacks.operators import Windows
from vambrace.core.access import Access
from vambrace.search.loop import search
from vambrace.search.problem import Problem, pose
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

BALL = Ball(norm="linf", eps=0.03)


def posed(**how) -> tuple[Problem, CountingModel]:
    function, bounds, inputs, labels = curved_problem(0.1, 30)
    labels = torch.where(torch.arange(30) % 10 == 0, (labels + 1) % 3, labels)
    model = CountingModel(function, bounds=bounds, dtype=torch.float64, **how)
    return pose(model, inputs, labels, rng=0, ids=None, start=None, batch_size=7), model


def test_a_look_costs_one_forward_and_verifies_what_is_wrong_already() -> None:
    problem, model = posed()
    board = Board(problem, BALL)
    logits = board.look()
    assert logits.shape == (30, 3)
    assert board.success.nonzero().flatten().tolist() == [0, 10, 20]
    out = board.outcome()
    assert torch.equal(out.adversarial, problem.inputs)
    assert out.forwards.tolist() == [2 if row % 10 == 0 else 1 for row in range(30)]
    assert out.first_success.tolist() == [2 if row % 10 == 0 else -1 for row in range(30)]
    assert (out.parts[0].attacked, out.parts[0].broken, out.cost.verifications) == (30, 3, 3)
    spent = out.cost.forwards + out.cost.verifications + out.cost.idle_forwards + out.cost.padding_forwards
    assert spent == model.forward_rows
    assert torch.equal(out.margin, problem.goal.margin(logits).float())


def test_searches_add_up_and_only_survivors_are_left() -> None:
    problem, _ = posed()
    board = Board(problem, BALL)
    board.look()
    first = board.alive
    one = PGD(eps=0.03, steps=2).run(problem.take(first))
    broken = board.add("one", first, one)
    assert broken == int(one.success.sum())
    assert torch.equal(board.alive, first[~one.success])
    second = board.alive
    two = PGD(eps=0.03, steps=20).run(problem.take(second))
    board.add("two", second, two, black_box=True)
    out = board.outcome(allowance=10_000)
    assert out.forwards[second].tolist() == (1 + one.forwards[~one.success] + two.forwards).tolist()
    won = second[two.success]
    assert (out.first_success[won] == (1 + one.forwards[~one.success] + two.first_success)[two.success]).all()
    assert (out.by[won] == 2).all()
    assert [(part.name, part.attacked, part.black_box) for part in out.parts] == [
        ("clean", 30, False),
        ("one", 27, False),
        ("two", len(second), True),
    ]
    assert out.left == int((~out.success).sum())
    assert out.beyond == int(two.success.sum())
    assert out.unspent == 10_000 - out.cost.forwards - out.cost.backwards - out.cost.verifications


def test_a_part_that_comes_again_is_one_line() -> None:
    problem, _ = posed()
    board = Board(problem, BALL)
    for _ in range(2):
        index = board.alive
        board.add("same", index, PGD(eps=0.03, steps=1).run(problem.take(index)))
    assert [part.name for part in board.parts] == ["same"]
    assert (
        board.spent == board.parts[0].cost.forwards + board.parts[0].cost.backwards + board.parts[0].cost.verifications
    )


def test_what_gradients_find_on_second_asking_is_no_black_box_success() -> None:
    problem, _ = posed()
    board = Board(problem, BALL)
    board.look()
    first = board.alive
    assert board.beyond().tolist() == []
    windows = Windows(ball=BALL, steps=60)
    for name in ("one", "two"):
        left = board.alive
        part = dataclasses.replace(problem.take(left), start=problem.inputs[left], rng=problem.rng.child(name))
        board.add(name, left, search(part, windows), black_box=True)
    hits = board.beyond()
    assert torch.equal(hits, first[board.success[first]])
    assert len(hits) > 2
    before = board.outcome()
    assert before.beyond == len(hits)
    spent, points = before.forwards.clone(), before.adversarial.clone()
    weak = PGD(eps=0.03, steps=2, step_size=1e-4).run(problem.take(hits))
    assert board.ask_again("again", hits, weak).tolist() == hits[~weak.success].tolist()
    strong = PGD(eps=0.03, steps=30).run(problem.take(hits))
    assert strong.success.any()
    assert board.ask_again("again", hits, strong).tolist() == hits[~strong.success].tolist()
    after = board.outcome()
    assert after.beyond == len(hits) - int(strong.success.sum()) - int(weak.success.sum())
    assert torch.equal(after.adversarial, points)
    assert after.parts[-1].attacked == 2 * len(hits)
    assert (after.parts[-1].broken, after.parts[-1].black_box) == (0, False)
    assert (after.forwards - spent)[hits].tolist() == (weak.forwards + strong.forwards).tolist()


def test_the_best_point_is_kept_and_none_outside_the_ball() -> None:
    problem, _ = posed()
    board = Board(problem, BALL)
    board.look()
    index = board.alive
    strong = PGD(eps=0.03, steps=20).run(problem.take(index))
    board.add("strong", index, strong)
    left = board.alive
    kept, margins = board.best[left].clone(), board.margin[left].clone()
    board.add("weak", left, PGD(eps=0.001, steps=1).run(problem.take(left)))
    assert torch.equal(board.best[left], kept)
    assert torch.equal(board.margin[left], margins)
    wide = PGD(eps=0.2, steps=20).run(problem.take(left))
    outside = dataclasses.replace(wide, success=torch.zeros_like(wide.success))
    board.add("wide", left, outside)
    assert torch.equal(board.best[left], kept), "a higher margin further away is no better point"


def test_samples_without_numbers_are_left_alone() -> None:
    problem, _ = posed()
    board = Board(problem, BALL)
    index = board.alive
    found = PGD(eps=0.03, steps=1).run(problem)
    found.finite[5] = False
    found.success[5] = False
    board.add("one", index, found)
    assert 5 not in board.alive.tolist()
    assert not bool(board.outcome().finite[5])


def test_queries_are_counted_where_the_model_counts_them() -> None:
    problem, _ = posed(access=Access.SCORES)
    board = Board(problem, BALL)
    board.look()
    assert board.outcome().queries.tolist() == [3 if row % 10 == 0 else 1 for row in range(30)]
