"""The watch over a model during a run, and how answers are put and compared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vambrace.assess.constancy import SAME_CALL, Constancy, gap, put
from vambrace.models import Counted, from_torch


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


INPUTS = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))


def test_a_constant_model_is_watched_without_a_word():
    counted = Counted(from_torch(Function(lambda x: x * 3).eval()))
    watch = Constancy(counted, batch=64)
    assert watch.end() == []
    for part in (INPUTS, INPUTS[5:], INPUTS[:1]):
        watch.begin(part)
        assert watch.end() == []
    assert counted.forwards == 8 * 4  # once at the first beginning, once at every end


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (4, 1), (8, 2), (32, 8), (512, 8)])
def test_the_rows_watched_are_few_beside_a_unit(batch, rows):
    counted = Counted(from_torch(Function(lambda x: x * 3).eval()))
    Constancy(counted, batch=batch).begin(INPUTS)
    assert counted.forwards == rows


@pytest.mark.parametrize(("change", "flagged"), [(0.0, False), (0.5, False), (2.0, True), (float("nan"), True)])
def test_a_change_is_told_by_its_size(change, flagged):
    state = {"add": 0.0}
    model = from_torch(Function(lambda x: x + state["add"] * torch.eye(6)[0]).eval())
    watch = Constancy(model, batch=32)
    watch.begin(INPUTS)
    spread = float((INPUTS[:8] - INPUTS[:8].mean(dim=1, keepdim=True)).abs().max())
    state["add"] = change * (SAME_CALL + 8 * torch.finfo(torch.float32).eps / spread) * spread
    flags = watch.end()
    assert [flag.code for flag in flags] == (["E420"] if flagged else [])
    assert all(flag.level == "unreliable" and not flag.families for flag in flags)


def test_a_slow_drift_is_compared_with_the_beginning_of_the_run():
    state = {"add": 0.0}
    model = from_torch(Function(lambda x: x + state["add"]).eval())
    watch = Constancy(model, batch=32)
    flags = []
    for _ in range(6):
        watch.begin(INPUTS)
        state["add"] += 0.4e-5
        flags.append(bool(watch.end()))
    assert flags == sorted(flags)
    assert flags[0] is False
    assert flags[-1] is True


def test_the_samples_watched_are_copies():
    model = from_torch(Function(lambda x: x * 3).eval())
    watch = Constancy(model, batch=32)
    given = INPUTS.clone()
    watch.begin(given)
    given.zero_()
    assert watch.end() == []


def test_put_copies_both_ways():
    store = torch.zeros(4, 6)

    def forward(x):
        x.data.mul_(0.5)
        return store[: len(x)].copy_(x)

    given = INPUTS[:8].clone()
    found = put(from_torch(Function(forward).eval()), given, 4)
    assert torch.equal(given, INPUTS[:8])
    assert torch.equal(found, (INPUTS[:8] * 0.5).double())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([[1.0, 2.0]], [[1.0, 2.0]], True),
        ([[1.0, 2.0]], [[1.0, 2.1]], False),
        ([[1.0, 2.0]], [[1.0, float("nan")]], False),
        ([[1.0, 2.0]], [[1.0, float("inf")]], False),
        ([[float("nan"), 2.0]], [[float("nan"), 2.0]], True),
        ([[float("nan"), 2.0]], [[float("nan"), 3.0]], False),
        ([[float("inf")] * 2], [[float("inf")] * 2], True),
        ([[5.0, 5.0]], [[5.0, 5.0]], True),
        ([[5.0, 5.0]], [[5.0, 5.1]], False),
        ([[1e6, 1e6 + 20]], [[1e6 + 5, 1e6 + 20]], False),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], False),
    ],
)
def test_gaps(one, other, same):
    found = gap(torch.tensor(one).double(), torch.tensor(other).double())
    assert (found <= SAME_CALL) is same


@pytest.mark.parametrize("mask", [-1e4, -1e9])
def test_a_masked_class_hides_no_difference(mask):
    """A column held at a huge negative constant decides nothing, and must not set the scale of what does."""
    rows = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masked = torch.cat((rows, torch.full((16, 1), mask, dtype=torch.float64)), dim=1)
    changed = masked.clone()
    changed[:, :4] += 0.1 * rows.flip(0)
    assert gap(masked, changed) == pytest.approx(gap(rows, rows + 0.1 * rows.flip(0)), rel=1e-6)
    assert gap(masked, masked) == 0.0
