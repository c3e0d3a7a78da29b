"""The search loop: outcomes that depend on nothing but the sample, claims that are proven, rows that add up."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from vambrace.attacks import APGD, FGSM, PGD, Square
from vambrace.core.access import Access, Bounds
from vambrace.core.goals import Untargeted
from vambrace.core.progress import Silent
from vambrace.errors import ModelMisbehaved
from vambrace.ops import draws
from vambrace.search import loop
from vambrace.search.loop import search
from vambrace.search.pace import Pace
from vambrace.search.problem import pose
from vambrace.search.rule import Plain
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

COLUMNS = ("success", "first_success", "forwards", "backwards", "verifications", "finite", "zero_gradients")
ATTACKS = [
    FGSM(eps=0.1),
    PGD(eps=0.1, steps=7, restarts=3),
    PGD(eps=0.3, norm="l2", steps=10),
    APGD(eps=0.1, steps=25, restarts=2),
]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Never(Untargeted):
    """A goal that cannot be met, ascended like the real one."""

    def margin(self, logits: Tensor) -> Tensor:
        return Untargeted.margin(self, logits) - 1e9

    def take(self, index: Tensor) -> Never:
        return Never(self.labels[index])


def model_of(function, bounds: Bounds | None, **options) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64, **options)


def rows_add_up(out, model: CountingModel) -> None:
    cost = out.cost
    forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
    backward = cost.backwards + cost.idle_backwards + cost.padding_backwards
    assert (forward, backward) == (model.forward_rows, model.backward_rows)
    assert min(dataclasses.astuple(cost)) >= 0


def same(first, second) -> None:
    for name in COLUMNS:
        assert getattr(first, name).tolist() == getattr(second, name).tolist(), name
    torch.testing.assert_close(first.adversarial, second.adversarial, rtol=0, atol=1e-9)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: f"{each.name}-{each.norm}")
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_pace_changes_cost_and_no_outcome(attack, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`look_every` 8 is what CUDA runs: claims stand still until the host looks."""
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    expected = attack(model_of(function, bounds), inputs, labels, batch_size=batch_size)
    for look, pending, vacant, padded in (
        (8, 0.125, 0.25, True),
        (5, 0.9, 0.9, True),
        (3, 0.0, 0.0, False),
        (1, 1, 1, True),
    ):
        pace = Pace(look_every=look, confirm_rows=4, pending_share=pending, vacant_share=vacant, padded=padded)
        monkeypatch.setattr(loop, "choose_pace", lambda *_, pace=pace, **__: pace)
        model = model_of(function, bounds)
        out = attack(model, inputs, labels, batch_size=batch_size)
        same(expected, out)
        rows_add_up(out, model)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: f"{each.name}-{each.norm}")
def test_a_goal_never_met_costs_what_is_documented(attack) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 20)
    steps, restarts = getattr(attack, "steps", 1), getattr(attack, "restarts", 1)
    for batch_size in (20, 7):
        model = model_of(function, bounds)
        out = attack(model, inputs, Never(labels), batch_size=batch_size)
        assert out.forwards.unique().tolist() == [restarts * (steps + 1)]
        assert out.backwards.unique().tolist() == [restarts * steps]
        assert not out.success.any()
        assert out.cost.verifications == 0
        rows_add_up(out, model)
    whole = attack(model_of(function, bounds), inputs, Never(labels), batch_size=20)
    assert (whole.cost.idle_forwards, whole.cost.idle_backwards) == (0, 0), "nothing runs beside a full lockstep batch"


def test_a_weak_model_is_not_run_to_the_end() -> None:
    """Samples leave at their first success; the batch refills and shrinks."""
    function, bounds, inputs, labels = curved_problem(0.5, 200)
    model = model_of(function, bounds)
    out = PGD(eps=1.0, steps=40)(model, inputs, labels, batch_size=32)
    assert out.success.double().mean() > 0.95
    # Off CPU a sample that has won goes along until the host looks, which is seven steps later at most.
    late = 0 if inputs.device.type == "cpu" else 7 * 200
    assert model.forward_rows < 0.25 * 200 * 41 + late
    rows_add_up(out, model)


def test_an_already_wrong_sample_costs_one_forward() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 12)
    out = PGD(eps=0.01, random_start=False)(model_of(function, bounds), inputs, (labels + 1) % 3)
    assert out.success.all()
    assert out.forwards.tolist() == [1] * 12
    assert out.backwards.tolist() == [0] * 12
    assert out.distance.tolist() == [0.0] * 12
    assert torch.equal(out.adversarial, inputs)


@pytest.mark.parametrize("watching", [True, False])
def test_a_refused_claim_goes_on_searching(watching: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is kinder to search batches than to verification ones: its claims are refused until they hold."""
    function, bounds, inputs, labels = curved_problem(0.1, 30)

    def two_faced(points: Tensor) -> Tensor:
        logits = function(points)
        if confirming:
            logits = logits.scatter_add(1, labels_of(points).unsqueeze(1), torch.full((len(points), 1), 0.05).double())
        return logits

    def labels_of(points: Tensor) -> Tensor:
        nearest = (points.flatten(1)[:, None] - inputs.flatten(1)[None]).abs().amax(2).argmin(1)
        return labels[nearest]

    confirming: list[bool] = []
    confirm = loop._Search._confirm

    def marked(self, rows: Tensor) -> int:
        confirming.append(True)
        done = confirm(self, rows)
        confirming.pop()
        return done

    monkeypatch.setattr(loop._Search, "_confirm", marked)
    look = 1 if watching else 8
    pace = Pace(look_every=look, confirm_rows=4, pending_share=0.125, vacant_share=0.25, padded=True)
    monkeypatch.setattr(loop, "choose_pace", lambda *_, **__: pace)
    attack = PGD(eps=0.2, steps=20, random_start=False, step_size=0.01)
    model = model_of(two_faced, bounds)
    out = attack(model, inputs, labels, batch_size=15)
    honest = attack(model_of(function, bounds), inputs, labels, batch_size=15)
    rows_add_up(out, model)
    assert (out.verifications > 1).any(), "some claim must have been refused"
    both = out.success & honest.success
    assert (out.first_success[both] >= honest.first_success[both]).all()
    assert (out.first_success[both] > honest.first_success[both]).any()
    assert (out.forwards[~out.success] == 21).all(), "a refused claim costs no logical forward"
    assert (out.backwards[~out.success] == 20).all()
    with torch.no_grad():
        proven = Untargeted(labels).margin(function(out.adversarial))
    assert (proven[out.success] > 0.05 - 1e-9).all()
    monkeypatch.setattr(
        loop, "choose_pace", lambda *_, **__: dataclasses.replace(pace, pending_share=1.0, vacant_share=1.0)
    )
    same(out, attack(model_of(two_faced, bounds), inputs, labels, batch_size=15))


@dataclasses.dataclass(frozen=True)
class RandomSearch(Plain):
    """A rule without gradients: jump to random points of the box around the input."""

    eps: float
    steps: int
    norm: ClassVar[str] = "linf"
    restarts: ClassVar[int] = 1
    gradient: ClassVar[bool] = False

    def anchor(self, origin):
        return {"centre": origin.inputs, "ids": origin.ids}

    def start(self, origin, anchor, restart, before):
        return {"point": origin.inputs.clone(), "time": torch.zeros_like(restart)}

    def slope(self, anchor, state, logits, goal):
        raise AssertionError("no gradient is asked for")

    def step(self, anchor, state, answer):
        assert answer.gradient is None
        shape = tuple(anchor["centre"].shape[1:])
        from vambrace.core.rng import Streams

        noise = draws.uniform(
            Streams(1),
            anchor["ids"],
            step=state["time"],
            shape=shape,
            low=-self.eps,
            high=self.eps,
            dtype=torch.float64,
        )
        return {"point": anchor["centre"] + noise, "time": state["time"] + 1}


def test_models_that_count_queries_are_never_asked_in_vain() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 30)
    before = None
    for batch_size in (1, 7, 30):
        model = model_of(function, Bounds(-10.0, 10.0), access=Access.SCORES)
        problem = pose(model, inputs, labels, rng=0, ids=None, start=None, batch_size=batch_size)
        out = search(problem, RandomSearch(eps=0.3, steps=30))
        cost = out.cost
        assert (cost.idle_forwards, cost.padding_forwards, cost.backwards) == (0, 0, 0)
        assert model.forward_rows == cost.forwards + cost.verifications == cost.queries
        assert torch.equal(out.queries, out.forwards + out.verifications)
        assert 0 < int(out.success.sum()) < 30
        if before is not None:
            same(before, out)
        before = out


def test_logits_that_are_not_finite_stop_a_sample_only() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 30)
    attack = PGD(eps=0.1, steps=10)
    clean = attack(model_of(function, bounds), inputs, labels, batch_size=8)
    for value in (float("nan"), float("inf"), float("-inf")):

        def broken(points: Tensor, value: float = value) -> Tensor:
            near = ((points - inputs[3]).abs().flatten(1) <= 0.2).all(dim=1, keepdim=True)
            logits = function(points)
            return torch.cat((torch.where(near, value, logits[:, :1]), logits[:, 1:]), dim=1)

        model = model_of(broken, bounds)
        out = attack(model, inputs, labels, batch_size=8)
        assert out.finite.tolist() == [row != 3 for row in range(30)]
        assert not out.success[3]
        assert out.forwards[3] == 1
        assert out.margin[3].isnan()
        assert out.adversarial.isfinite().all()
        rest = torch.arange(30) != 3
        assert torch.equal(out.success[rest], clean.success[rest])
        assert torch.equal(out.forwards[rest], clean.forwards[rest])
        rows_add_up(out, model)


@pytest.mark.parametrize("attack", [PGD(eps=0.01, steps=10), Square(eps=0.01, queries=60)])
def test_a_sample_that_meets_logits_without_numbers_late_is_the_same_in_any_company(attack) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 30)

    def holed(points: Tensor) -> Tensor:
        inside = points.detach().flatten(1)[:, :1] * 997 % 1 < 0.05
        return torch.where(inside, float("nan"), function(points))

    whole = attack(model_of(holed, bounds), inputs, labels)
    late = ~whole.finite & (whole.forwards > 1)
    assert late.sum() > 1
    assert whole.margin[late].isnan().all(), "there is no margin where it was left"
    for batch_size in (1, 7):
        part = attack(model_of(holed, bounds), inputs, labels, batch_size=batch_size)
        same(whole, part)
        torch.testing.assert_close(whole.margin, part.margin, rtol=1e-6, atol=1e-9, equal_nan=True)


def test_a_logit_that_never_mattered_must_be_finite_too() -> None:
    """Minus infinity at a class that is neither the label nor near it leaves every margin as it was."""
    function, bounds, inputs, labels = curved_problem(0.1, 30)

    def broken(points: Tensor) -> Tensor:
        logits = function(points)
        far = ((points - inputs[3]).abs().flatten(1) <= 0.2).all(dim=1, keepdim=True)
        least = logits.argmin(1, keepdim=True) == torch.arange(3)
        return torch.where(far & least, -float("inf"), logits)

    for batch_size in (1, 8, 30):
        out = PGD(eps=0.01, steps=10)(model_of(broken, bounds), inputs, labels, batch_size=batch_size)
        assert out.finite.tolist() == [row != 3 for row in range(30)]
        assert out.forwards[3] == 1, "it stops where it is seen"


@pytest.mark.parametrize("look", [1, 8])
def test_padding_rows_are_those_that_stand_for_no_sample(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample carries its number in a feature that nothing changes: the model sees whose rows it is asked."""
    function, bounds, inputs, labels = curved_problem(0.1, 40)
    numbers = torch.arange(40, dtype=torch.float64)
    carried = torch.cat((inputs.flatten(1), numbers.unsqueeze(1) / 128), dim=1)
    seen = {"rows": 0, "strangers": 0}

    def model(points: Tensor) -> Tensor:
        own = (points[:, -1] * 128).long()
        assert (own.double() / 128 == points[:, -1]).all()
        seen["rows"] += len(points)
        seen["strangers"] += len(points) - len(own.unique())
        return function(points[:, :-1])

    chosen = loop.choose_pace
    monkeypatch.setattr(
        loop, "choose_pace", lambda *how, **more: dataclasses.replace(chosen(*how, **more), look_every=look)
    )
    out = PGD(eps=0.1, steps=12, random_start=False)(model_of(model, bounds), carried, labels, batch_size=31)
    assert out.cost.padding_forwards == seen["strangers"] > 0
    assert out.cost.idle_forwards > 0
    logical = out.cost.forwards + out.cost.verifications
    assert seen["rows"] == logical + out.cost.idle_forwards + seen["strangers"]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_is_not_a_number_is_none(norm: str) -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 10)

    def rooted(points: Tensor) -> Tensor:
        return function(points) + 0.0 * (points - points.detach()).abs().sqrt().sum(dim=(1, 2, 3)).unsqueeze(1)

    out = PGD(eps=0.01, norm=norm, steps=5)(model_of(rooted, bounds), inputs, labels)
    assert (out.zero_gradients == out.backwards).all(), "what is no number leads nowhere, and that is said"
    assert not out.success.any()
    assert out.finite.all(), "the logits were numbers"
    assert out.adversarial.isfinite().all()

    def holed(points: Tensor) -> Tensor:
        """One element of the gradient is not a number, another one is infinite."""
        change = (points - points.detach()).flatten(1)
        rest = 0.0 * change[:, 0].abs().sqrt() + change[:, 1] * 1e308 * 1e10
        return function(points) + rest.unsqueeze(1) * torch.tensor([0.0, 0.0, 1.0])

    out = PGD(eps=0.1, norm=norm, steps=5)(model_of(holed, bounds), inputs, labels)
    assert (out.zero_gradients == 0).all()
    assert out.finite.all()
    assert (out.distance > 0.05).all()


def test_logits_that_break_in_verification_are_no_success() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 20)

    def shy(points: Tensor) -> Tensor:
        return function(points) * (1.0 if points.requires_grad or torch.is_grad_enabled() else float("nan"))

    out = PGD(eps=0.2, steps=10)(model_of(shy, bounds), inputs, labels)
    assert not out.success.any()
    assert (out.verifications > 0).any()
    assert not out.finite[out.verifications > 0].any()


def conv_net(last: nn.Module, channels: int = 3, depth: int = 3) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Conv2d(channels if index == 0 else 6, 6, 3, padding=1), nn.Softplus()]
    net = nn.Sequential(*layers, last, nn.Linear(6 * 64, 4)).double().requires_grad_(False)
    for parameter in net.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return net


class Viewed(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.view(len(features), -1)


@pytest.mark.parametrize(
    ("last", "channels", "depth"), [(nn.Flatten(), 3, 3), (nn.Flatten(), 1, 4), (Viewed(), 3, 3), (nn.Flatten(), 3, 2)]
)
def test_memory_formats_change_nothing_but_time(
    last: nn.Module, channels: int, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = conv_net(last, channels, depth)
    seen = []
    inputs = torch.rand(20, channels, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = net(inputs).argmax(1)

    def watched(points: Tensor) -> Tensor:
        seen.append(points.stride()[1] == 1)
        return net(points)

    attack = PGD(eps=0.05, steps=6)
    model = model_of(watched, Bounds(0.0, 1.0))
    out = attack(model, inputs, labels, batch_size=16)
    rows_add_up(out, model)
    if inputs.device.type == "cpu":
        assert seen[0], "the format is tried"
        assert all(seen[1:]) == (isinstance(last, nn.Flatten) and depth >= 3)
    else:
        assert not any(seen), "the format is for convolutions on CPU"
    given = inputs.contiguous(memory_format=torch.channels_last)
    same(out, attack(model_of(net, Bounds(0.0, 1.0)), given, labels, batch_size=16))
    monkeypatch.setattr(loop, "choose_format", lambda *_: None)
    same(out, attack(model_of(net, Bounds(0.0, 1.0)), inputs, labels, batch_size=16))


def test_surroundings_of_the_caller_do_not_reach_the_search() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 20)
    attack = PGD(eps=0.1, steps=8, restarts=2)
    expected = attack(model_of(function, bounds), inputs, labels)
    with torch.no_grad():
        same(expected, attack(model_of(function, bounds), inputs, labels))
    with torch.inference_mode():
        inside = attack(model_of(function, bounds), inputs.clone(), labels.clone(), ids=torch.arange(20))
        same(expected, inside)
    assert not inside.adversarial.is_inference()
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
        same(expected, attack(model_of(function, bounds), inputs, labels))
    same(expected, attack(model_of(function, bounds), inputs.clone().requires_grad_(), labels))


def test_strange_but_differentiable_models() -> None:
    """In-place work on the input, the input itself as logits, one output buffer for all calls."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.rand(24, 4, generator=generator, dtype=torch.float64) * 0.5 + 0.25
    labels = inputs.argmax(1)
    expected = PGD(eps=0.1, steps=10)(
        model_of(lambda points: points + 0.0, Bounds(0.0, 1.0)), inputs, labels, batch_size=5
    )
    assert 0 < int(expected.success.sum()) < 24
    buffer = torch.empty(64, 4, dtype=torch.float64)

    def in_place(points: Tensor) -> Tensor:
        points.mul_(3.0)
        return points / 3.0

    def silently(points: Tensor) -> Tensor:
        logits = points * 1.0
        points.data.fill_(7.0)
        return logits

    def reusing(points: Tensor) -> Tensor:
        out = points + 0.0
        buffer[: len(points)] = out.detach()
        return out + (buffer[: len(points)] - out.detach())

    for function in (lambda points: points, in_place, silently, reusing):
        kept = inputs.clone()
        model = model_of(function, Bounds(0.0, 1.0))
        out = PGD(eps=0.1, steps=10)(model, inputs, labels, batch_size=5)
        assert torch.equal(inputs, kept)
        same(expected, out)
        rows_add_up(out, model)


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (lambda points: points.detach().flatten(1) * 2.0, "E405"),
        (lambda points: torch.zeros(len(points), 3), "E405"),
        (lambda points: torch.zeros(len(points), 3, requires_grad=True) * 2, "E405"),
        (lambda points: (points.flatten(1), points), "E401"),
        (lambda points: points.flatten(1)[:, 0], "E402"),
        (lambda points: points.flatten(1)[:, :1], "E402"),
        (lambda points: points.flatten(1)[:1], "E403"),
        (lambda points: points.flatten(1).argmax(1, keepdim=True).repeat(1, 3), "E404"),
    ],
)
def test_models_that_cannot_be_attacked_are_refused(function, code: str) -> None:
    inputs = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)
    with pytest.raises(ModelMisbehaved, match=code):
        PGD(eps=0.1, random_start=False)(model_of(function, Bounds(0.0, 1.0)), inputs, torch.arange(4) * 0)


def test_zero_gradients_are_counted() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 12)

    def dead(points: Tensor) -> Tensor:
        return function(points.detach()) + 0.0 * points.sum(dim=(1, 2, 3)).unsqueeze(1)

    def faint(points: Tensor) -> Tensor:
        return function(points.detach()) + 1e-200 * (points - points.detach()).sum(dim=(1, 2, 3)).unsqueeze(
            1
        ) * torch.arange(3)

    attack = PGD(eps=0.01, steps=6, random_start=False)
    out = attack(model_of(dead, bounds), inputs, labels)
    assert out.zero_gradients.tolist() == [6] * 12
    assert torch.equal(out.adversarial, inputs), "a zero gradient moves nothing"
    out = attack(model_of(faint, bounds), inputs, labels)
    assert out.zero_gradients.tolist() == [0] * 12, "tiny is not zero, though its square is"


class Recorder(Silent):
    def __init__(self) -> None:
        self.told: list[tuple] = []

    def start(self, name: str, total: int) -> None:
        self.told.append(("start", name, total))

    def advance(self, name: str, steps: int = 1, note: str = "") -> None:
        self.told.append(("advance", name, steps))

    def finish(self, name: str, note: str = "") -> None:
        self.told.append(("finish", name))


def test_progress_adds_up() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 30)
    recorder = Recorder()
    PGD(eps=0.1, steps=5)(model_of(function, bounds), inputs, labels, batch_size=8, progress=recorder)
    assert recorder.told[0] == ("start", "pgd", 30)
    assert recorder.told[-1] == ("finish", "pgd")
    assert sum(entry[2] for entry in recorder.told if entry[0] == "advance") == 30


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_floating_dtype_keeps_its_promises(dtype: torch.dtype, norm: str) -> None:
    function, bounds, inputs, labels = curved_problem(0.2, 20)
    given = inputs.to(dtype)
    model = CountingModel(lambda points: function(points.double()), bounds=bounds, dtype=torch.float32)
    out = PGD(eps=0.15, norm=norm, steps=10)(model, given, labels)
    assert out.adversarial.dtype == dtype
    assert (out.distance <= 0.15).all()
    assert ((out.adversarial.double() >= 0) & (out.adversarial.double() <= 1)).all()
    with torch.no_grad():
        reached = function(out.adversarial.double()).argmax(1) != labels
    assert reached[out.success].all()
    assert out.success.any()
