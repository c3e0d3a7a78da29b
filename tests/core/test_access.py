"""Access and bounds."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from vambrace.core.access import Access, Bounds, require_access
from vambrace.errors import AccessError, ConfigError


def test_levels_are_ordered():
    assert Access.LABELS < Access.SCORES < Access.GRADIENTS < Access.INTERNALS


def test_enough_access_passes():
    require_access(SimpleNamespace(access=Access.INTERNALS), Access.GRADIENTS, method="pgd")


@pytest.mark.parametrize("given", [Access.SCORES, Access.LABELS])
def test_too_little_access_says_what_would_work(given):
    model = SimpleNamespace(access=given)
    with pytest.raises(AccessError, match="E110") as caught:
        require_access(model, Access.GRADIENTS, method="pgd", instead=["square", "hop_skip_jump"])
    assert given.name in caught.value.seen
    assert "square, hop_skip_jump" in caught.value.fix
    with pytest.raises(AccessError, match="gives GRADIENTS"):
        require_access(model, Access.GRADIENTS, method="pgd")


def test_a_network_that_nobody_wrapped_is_told_how():
    """Also where labels are enough: what follows would fail at the first attribute."""
    with pytest.raises(AccessError, match="E110") as caught:
        require_access(torch.nn.Linear(2, 2), Access.LABELS, method="rays")
    assert "Linear" in caught.value.seen
    assert "from_torch" in caught.value.fix


class TestBounds:
    @pytest.mark.parametrize(
        ("low", "high", "seen", "fix"),
        [
            (1.0, 0.0, "bounds (1.0, 0.0)", "smallest value first"),
            (1.0, 1.0, "bounds (1.0, 1.0)", "the range that inputs may have"),
            (0.0, math.inf, "bounds (0.0, inf)", "None for a model without bounds"),
            (0.0, math.nan, "bounds (0.0, nan)", "None for a model without bounds"),
            (torch.zeros(9), torch.eye(3).flatten(), "6 of 9", "the range that inputs may have"),
            (torch.zeros(3), torch.tensor([1.0, -1.0, 0.0]), "2 of 3", "smallest value first"),
            (torch.zeros(3), torch.tensor([1.0, math.inf, 1.0]), "1 of 3", "None for a model without bounds"),
        ],
    )
    def test_what_is_no_box_says_its_fix(self, low, high, seen, fix):
        with pytest.raises(ConfigError, match="E101") as caught:
            Bounds(low, high)
        assert seen in caught.value.seen
        assert fix in caught.value.fix

    @pytest.mark.parametrize(
        ("low", "high"),
        [
            (1.0, 0.0),
            (0.0, 0.0),
            (math.nan, 1.0),
            (0.0, math.nan),
            (0.0, math.inf),
            (-math.inf, math.inf),
            (0.0, torch.tensor(1.0)),
            (torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0])),
            (torch.tensor([0.0, 0.0]), torch.tensor([1.0, math.inf])),
            (torch.tensor([0.0, math.nan]), torch.tensor([1.0, 1.0])),
        ],
    )
    def test_what_is_no_box(self, low, high):
        with pytest.raises(ConfigError, match="E101"):
            Bounds(low, high)

    def test_numbers(self):
        box = Bounds(-1, 3)
        inputs = torch.tensor([[-2.0, 0.0], [0.0, 3.0], [0.0, 3.1]])
        assert box.span == 4.0
        assert box.clip(inputs).tolist() == [[-1, 0], [0, 3], [0, 3.0]]
        assert box.contains(inputs).tolist() == [False, True, False]
        assert box.contains(inputs, tolerance=0.2).tolist() == [False, True, True]
        assert box.as_json() == [-1.0, 3.0]
        assert box.to(inputs) is box

    def test_one_box_per_feature(self):
        box = Bounds(torch.tensor([0.0, 10.0]), torch.tensor([1.0, 30.0]))
        inputs = torch.tensor([[2.0, 20.0], [0.5, 9.0]], dtype=torch.float64)
        assert box.span == 20.0
        assert box.contains(inputs).tolist() == [False, False]
        assert box.to(inputs).low.dtype == torch.float64
        assert box.to(inputs).clip(inputs).tolist() == [[1, 20], [0.5, 10]]
        assert box.as_json() == [[0.0, 10.0], [1.0, 30.0]]

    def test_nan_is_never_inside(self):
        assert Bounds(0.0, 1.0).contains(torch.tensor([[math.nan]])).tolist() == [False]
