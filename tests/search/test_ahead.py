"""Points asked about ahead: what a sample meets is what it would meet one point at a time, and every row is counted."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vambrace.attacks import Square
from vambrace.core.access import Access, Bounds
from vambrace.models import from_torch
from vambrace.search import ahead as module
from vambrace.search import loop
from vambrace.search.ahead import group_size
from vambrace.search.pace import Pace
from vambrace.search.rule import Plain
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

COLUMNS = ("success", "first_success", "forwards", "backwards", "verifications", "finite")
ATTACKS = [
    Square(eps=0.1, queries=90),
    Square(eps=0.4, norm="l2", queries=90),
    Square(eps=1.2, norm="l1", queries=90),
    Square(eps=0.08, queries=90, restarts=3),
]


def model_of(function, bounds: Bounds | None, **options) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64, **options)


def same(first, second) -> None:
    for name in COLUMNS:
        assert getattr(first, name).tolist() == getattr(second, name).tolist(), name
    torch.testing.assert_close(first.margin, second.margin, rtol=1e-6, atol=1e-9, equal_nan=True)
    torch.testing.assert_close(first.adversarial, second.adversarial, rtol=0, atol=1e-9)


def rows_add_up(out, model: CountingModel) -> None:
    cost = out.cost
    assert cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards == model.forward_rows
    assert min(dataclasses.astuple(cost)) >= 0


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch):
    """Fixes the size of every group after the first forward, whatever the model is seen to do."""

    def fix(size: int) -> None:
        monkeypatch.setattr(module, "_price", lambda *_: 1.0)
        monkeypatch.setattr(module, "group_size", lambda *_: size)

    return fix


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: f"{each.norm}-{each.restarts}")
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_how_many_go_along_changes_cost_and_no_outcome(
    attack: Square, batch_size: int, sized, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the pace: `look_every` 8 is what CUDA runs, where claims wait in the batch while others move."""
    function, bounds, inputs, labels = curved_problem(0.1, 30)
    sized(1)
    one = model_of(function, bounds)
    expected = attack(one, inputs, labels, batch_size=batch_size)
    assert 0 < int(expected.success.sum()) < 30, "a comparison needs both outcomes"
    rows_add_up(expected, one)
    if inputs.device.type == "cpu":  # elsewhere claims wait for the next look of the host
        assert expected.cost.idle_forwards == 0
    paces = [
        None,
        Pace(look_every=8, confirm_rows=4, pending_share=0.125, vacant_share=0.25, padded=True),
        Pace(look_every=1, confirm_rows=4, pending_share=0.9, vacant_share=0.9, padded=True),
    ]
    for size in (2, 5, 16, 80):  # 80: more than are drawn at once
        sized(size)
        for pace in paces if size < 16 else paces[:1]:
            with monkeypatch.context() as patched:
                if pace is not None:
                    patched.setattr(loop, "choose_pace", lambda *_, pace=pace, **__: pace)
                model = model_of(function, bounds)
                out = attack(model, inputs, labels, batch_size=batch_size)
            same(expected, out)
            rows_add_up(out, model)
            assert out.cost.idle_forwards > 0, "points behind one that matters are idle"


def test_a_model_that_counts_is_not_asked_ahead(sized) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 12)
    sized(8)
    model = model_of(function, bounds, access=Access.SCORES)
    out = Square(eps=0.1, queries=60)(model, inputs, labels)
    assert model.forward_rows == int(out.queries.sum())
    assert (out.forwards <= 60).all()


def test_refused_claims_go_on_from_where_they_stood(sized) -> None:
    """Success means more where a claim is verified; all else is as without groups."""
    function, bounds, inputs, labels = curved_problem(0.1, 30)

    def strict(points: Tensor) -> Tensor:
        near = (points.flatten(1)[:, None] - inputs.flatten(1)[None]).abs().amax(2).argmin(1)
        return function(points) + nn.functional.one_hot(labels[near], 3).double() * 0.05

    found = []
    for size in (1, 4):
        sized(size)
        model = model_of(function, bounds)
        model.exact = model_of(strict, bounds)
        found.append(Square(eps=0.15, queries=60)(model, inputs, labels, batch_size=11))
        assert model.exact.forward_rows > 0
        model.forward_rows += model.exact.forward_rows
        rows_add_up(found[-1], model)
    assert (found[0].verifications > 1).any(), "some claim must have been refused"
    same(*found)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_logits_that_are_not_finite_end_a_sample_where_it_meets_them(value: float, sized) -> None:
    """At every thirtieth point or so, on a class that has no part in the margin."""
    function, bounds, inputs, labels = curved_problem(0.1, 20)

    def fragile(points: Tensor) -> Tensor:
        logits = function(points)
        flat = points.flatten(1)
        broken = (flat @ torch.linspace(1, 2, flat.shape[1], dtype=flat.dtype) * 1e4).frac() < 1 / 30
        return torch.where(broken[:, None], logits.scatter(1, logits.argmin(1, keepdim=True), value), logits)

    found = []
    for size in (1, 6):
        sized(size)
        found.append(Square(eps=0.05, queries=60)(model_of(fragile, bounds), inputs, labels, batch_size=9))
    assert (~found[0].finite & (found[0].forwards > 5)).any()
    same(*found)


def test_copies_that_fill_a_shape_are_padding_in_groups_too(sized, monkeypatch: pytest.MonkeyPatch) -> None:
    """36 rows hold the 35 samples that are left of 60, where the host looks at every eighth step."""
    pace = Pace(look_every=8, confirm_rows=5, pending_share=0.0, vacant_share=0.0, padded=True)
    monkeypatch.setattr(loop, "choose_pace", lambda *_, **__: pace)
    sized(2)
    model = CountingModel(lambda points: points.flatten(1)[:, :2] * 0 + torch.tensor([1.0, 0.0]))
    labels = (torch.arange(60) < 25).long()
    out = Square(eps=0.1, queries=50)(model, torch.rand(60, 1, 6, 6), labels, batch_size=60)
    assert out.success.tolist() == labels.tolist()
    assert model.calls.count(72) > 10
    assert out.cost.padding_forwards == model.calls.count(36) + 2 * model.calls.count(72)
    rows_add_up(out, model)


def test_few_samples_fill_a_forward_and_never_more_than_the_batch(sized) -> None:
    """On a network that is cheap beside a step, for samples that nothing breaks."""
    torch.manual_seed(0)
    seen: list[int] = []

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(36, 3)

        def forward(self, points: Tensor) -> Tensor:
            seen.append(len(points))
            return self.layer(points.flatten(1))

    net, inputs = Net().eval(), torch.rand(3, 1, 6, 6)
    model = from_torch(net, bounds=(0, 1))
    labels = model.predict(inputs)
    seen.clear()
    out = Square(eps=1e-4, queries=200)(model, inputs, labels, batch_size=8)
    assert (out.forwards == 200).all()
    assert len(seen) < 140, "several points a sample in one forward"
    assert max(seen) <= 8
    assert max(seen) > 3


def test_points_known_ahead_outlive_the_samples_that_leave(sized) -> None:
    """When one sample is broken the others go on in groups: a forward of single points only at the start."""
    sized(4)
    model = CountingModel(lambda points: torch.stack((points.flatten(1)[:, 0] * 0 + 0.5, points.flatten(1).amax(1)), 1))
    inputs = torch.full((6, 1, 6, 6), 0.2)
    inputs[0] = 0.45
    out = Square(eps=0.1, queries=40)(model, inputs, torch.zeros(6, dtype=torch.int64))
    assert out.success.tolist() == [True] + [False] * 5
    if inputs.device.type == "cpu":  # elsewhere rows wait for the next look of the host
        assert 5 not in model.calls, "five samples with one point each"
        assert model.calls.count(20) > 5
    rows_add_up(out, model)


def test_what_a_network_does_is_counted() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5))
    with torch.no_grad(), module._Counted() as counted:
        net(torch.zeros(7, 2, 6, 6))
    assert counted.operations == 7 * (16 * 4 * 2 * 9 + 64 * 5)
    with module._Counted() as counted:
        assert (torch.ones(3, 4) @ torch.ones(4, 2)).shape == (3, 2)
        nn.functional.linear(torch.ones(3, 4), weight=torch.ones(2, 4))
    assert counted.operations >= 3 * 4 * 2
    point = torch.zeros(1, 1, 10, 10, device="cpu")
    assert module._price(0.0, point) == 0.0, "a model that hides what it does is not asked ahead"
    assert module._price(1e9, point) < 0.1 < module._price(1e4, point)
    assert module._price(1e9, point.to("meta")) > 1, "elsewhere a step is worth more rows"


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1e4), st.integers(1, 512))
def test_sizes(rows: int, rate: float, price: float, most: int) -> None:
    size = group_size(rows, rate, price, most)
    assert size == 1 or rows * size <= most
    assert group_size(rows, 1.0, price, most) == 1
    assert group_size(rows, rate, 0.0, most) == 1
    assert group_size(rows + 1, rate, price, most) <= size
    assert group_size(rows, min(1.0, rate + 0.1), price, most) <= size


def test_rules_that_do_not_look_ahead_have_answers_that_all_matter() -> None:
    margin = torch.tensor([[-1.0, 2.0]])
    assert Plain().moves({"point": margin}, margin).all()
    assert Plain().passed({"point": margin}, torch.zeros(1, dtype=torch.int64))["point"] is margin
