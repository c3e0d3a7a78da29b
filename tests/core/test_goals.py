"""Goals: the margin is positive exactly where the goal is reached, alone and combined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.goals import AllOf, AnyOf, Targeted, Untargeted, as_goal
from vambrace.errors import ConfigError

COUNT, WIDTH = 4, 3
tables = st.lists(
    st.lists(st.integers(-3, 3).map(float), min_size=WIDTH, max_size=WIDTH), min_size=COUNT, max_size=COUNT
).map(torch.tensor)
classes = st.lists(st.integers(0, WIDTH - 1), min_size=COUNT, max_size=COUNT).map(torch.tensor)


def naive(logits, label):
    """Own logit minus the best other one, by a loop."""
    row = logits.tolist()
    return row[label] - max(value for index, value in enumerate(row) if index != label)


@given(tables, classes)
def test_margins_against_a_loop(logits, labels):
    lead = [naive(row, int(label)) for row, label in zip(logits, labels, strict=True)]
    assert Targeted(labels).margin(logits).tolist() == pytest.approx(lead)
    assert Untargeted(labels).margin(logits).tolist() == pytest.approx([-value for value in lead])


@given(tables, classes, classes)
def test_a_positive_margin_is_a_reached_goal(logits, labels, others):
    one, two = Untargeted(labels), Targeted(others)
    predictions = logits.argmax(dim=1)
    for goal in (one, two, one & two, one | two):
        margin, reached = goal.margin(logits), goal.reached(predictions)
        assert not (margin > 0).logical_and(~reached).any()
        assert not (margin < 0).logical_and(reached).any()  # at a tie, argmax decides and the margin claims nothing


@given(tables, classes, classes)
def test_combinations(logits, labels, others):
    one, two = Untargeted(labels), Targeted(others)
    predictions = logits.argmax(dim=1)
    assert (one & two).reached(predictions).tolist() == (one.reached(predictions) & two.reached(predictions)).tolist()
    assert (one | two).reached(predictions).tolist() == (one.reached(predictions) | two.reached(predictions)).tolist()
    assert isinstance(one & two, AllOf)
    assert isinstance(one | two, AnyOf)


@given(tables, classes, classes, st.lists(st.integers(0, COUNT - 1), max_size=6))
def test_take_commutes_with_everything(logits, labels, others, index):
    chosen = torch.tensor(index, dtype=torch.int64)
    one, two = Untargeted(labels), Targeted(others)
    for goal in (one, two, one & two, one | two):
        part = goal.take(chosen)
        assert part.size == len(index)
        assert part.margin(logits[chosen]).tolist() == goal.margin(logits)[chosen].tolist()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_logits_never_reach_a_goal(place):
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    logits[0, place] = math.nan
    label = torch.tensor([1])
    for goal in (Untargeted(label), Targeted(label), Untargeted(label) | Targeted(label)):
        assert math.isnan(goal.margin(logits).item())


def test_infinite_logits_that_cancel_never_reach_a_goal():
    logits = torch.tensor([[math.inf, math.inf, 0.0]])
    assert not bool(Untargeted(torch.tensor([0])).margin(logits) > 0)


def test_the_margin_has_a_gradient():
    logits = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    Untargeted(torch.tensor([1])).margin(logits).sum().backward()
    assert logits.grad.tolist() == [[0.0, -1.0, 1.0]]


@pytest.mark.parametrize(
    ("labels", "fix"),
    [
        (torch.eye(3), "argmax"),
        (torch.eye(3, dtype=torch.int64), "argmax"),
        (torch.tensor([0.0, 1.0]), "long"),
        (torch.tensor([0, 1], dtype=torch.uint8), "long"),
        (torch.tensor(1), "long"),
    ],
)
@pytest.mark.parametrize("make", [as_goal, Untargeted, Targeted])
def test_labels_of_another_form_are_refused(labels, fix, make):
    # A well-known toolkit takes one-hot and plain labels, and reads one as the other without a word.
    with pytest.raises(ConfigError, match="E108") as caught:
        make(labels)
    assert fix in caught.value.fix


@pytest.mark.parametrize("labels", [[0, 1], None, 1, np.array([0, 1])])
@pytest.mark.parametrize("make", [as_goal, Targeted])
def test_labels_that_are_no_tensor_are_told_how(make, labels):
    with pytest.raises(ConfigError, match="E108") as caught:
        make(labels)
    assert type(labels).__name__ in caught.value.seen
    assert "torch.as_tensor" in caught.value.fix


def test_goals_for_other_samples_do_not_combine():
    with pytest.raises(ConfigError, match="E108"):
        Untargeted(torch.tensor([0, 1])) & Targeted(torch.tensor([0]))


def test_as_goal():
    labels = torch.tensor([0, 1])
    goal = as_goal(labels)
    assert isinstance(goal, Untargeted)
    assert as_goal(goal) is goal
