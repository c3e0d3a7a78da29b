"""Moves are chosen by what they broke for what they cost, and none is forgotten."""

from __future__ import annotations

from vambrace.attacks.shares import Shares
from vambrace.core.rng import Streams


def played(rates: dict[str, float], turns: int, cost: int = 100) -> list[str]:
    shares, names = Shares(tuple(rates)), []
    owed = dict.fromkeys(rates, 0.0)
    for turn in range(turns):
        name = shares.choose(Streams(3).child(turn))
        owed[name] += rates[name] * cost
        shares.record(name, broken=int(owed[name]), cost=cost)
        owed[name] -= int(owed[name])
        names.append(name)
    return names


def test_every_move_has_two_turns_first() -> None:
    assert played({"a": 0.0, "b": 0.1, "c": 0.0}, 6) == ["a", "b", "c"] * 2


def test_the_move_that_breaks_more_is_made_more() -> None:
    names = played({"a": 0.001, "b": 0.03, "c": 0.001}, 120)
    assert names.count("b") > 80


def test_a_cheap_move_wins_over_a_dear_one_of_equal_yield() -> None:
    shares, names = Shares(("cheap", "dear")), []
    for turn in range(200):
        name = shares.choose(Streams(1).child(turn))
        shares.record(name, broken=1, cost=20 if name == "cheap" else 400)
        names.append(name)
    assert names.count("cheap") > 150


def test_none_is_forgotten_and_a_yield_that_ends_is_noticed() -> None:
    shares = Shares(("early", "late"))
    names = []
    for turn in range(300):
        name = shares.choose(Streams(2).child(turn))
        shares.record(name, broken=int((name == "early") == (turn < 60)), cost=100)
        names.append(name)
    assert names[:60].count("early") > 45
    assert names[-100:].count("late") > 80


def test_choices_are_a_function_of_the_stream() -> None:
    assert played({"a": 0.01, "b": 0.01}, 50) == played({"a": 0.01, "b": 0.01}, 50)
