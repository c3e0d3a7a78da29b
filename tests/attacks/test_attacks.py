"""What the attacks promise beyond the naive comparison: options, goals, starts, restarts, saturation, real models."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vambrace.attacks import APGD, FGSM, PGD
from vambrace.attacks.apgd import checkpoints
from vambrace.core.access import Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.registry import ATTACKS, load
from vambrace.core.rng import Streams
from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.models import Counted, from_torch
from vambrace.testing.attacks import check_attack, curved_problem, linear_problem
from vambrace.testing.counting import CountingModel

EVERY = [
    FGSM(eps=0.1),
    FGSM(eps=0.3, norm="l2"),
    PGD(eps=0.1, steps=10),
    PGD(eps=0.4, norm="l2", steps=10, loss="margin"),
    PGD(eps=0.1, steps=4, restarts=3),
    APGD(eps=0.1, steps=25),
    APGD(eps=0.4, norm="l2", steps=20, restarts=2, loss="margin"),
    FGSM(eps=1.0, norm="l1"),
    PGD(eps=1.0, norm="l1", steps=15),
    APGD(eps=1.0, norm="l1", steps=40),
]


def double(function, bounds: Bounds | None) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64)


@pytest.mark.parametrize("attack", EVERY, ids=lambda each: f"{each.name}-{each.norm}-{each.loss}")
def test_conforms(attack) -> None:
    check_attack(attack)


@pytest.mark.parametrize("attack", EVERY, ids=lambda each: f"{each.name}-{each.norm}-{each.loss}")
def test_options_are_values(attack) -> None:
    """They compare, hash, pickle, print, and come back from JSON and from a plan's table."""
    assert pickle.loads(pickle.dumps(attack)) == attack
    assert len({attack, type(attack)(**attack.as_json())}) == 1
    assert eval(repr(attack)) == attack
    assert read(type(attack), attack.as_json(), where="attack") == attack
    assert load(ATTACKS, attack.name) is type(attack)
    with pytest.raises(AttributeError):
        attack.eps = 1.0


def test_fractions_are_read() -> None:
    assert read(PGD, {"eps": "8/255", "step_size": "2/255"}, where="attack") == PGD(eps=8 / 255, step_size=2 / 255)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FGSM, {"eps": -0.1}),
        (FGSM, {"eps": float("nan")}),
        (FGSM, {"eps": float("inf")}),
        (FGSM, {"eps": 0.1, "norm": "l0"}),
        (FGSM, {"eps": 0.1, "loss": "hinge"}),
        (PGD, {"eps": 0.1, "steps": 0}),
        (PGD, {"eps": 0.1, "step_size": 0.0}),
        (PGD, {"eps": 0.1, "step_size": float("inf")}),
        (PGD, {"eps": 0.1, "restarts": 0}),
        (PGD, {"eps": 0.1, "restarts": 2, "random_start": False}),
        (PGD, {"eps": 0.1, "sparsity": 0.0}),
        (PGD, {"eps": 0.1, "sparsity": 1.5}),
        (APGD, {"eps": 0.1, "steps": 0}),
        (APGD, {"eps": 0.1, "targets": 0}),
        (APGD, {"eps": 0.1, "norm": "l0"}),
        (APGD, {"eps": 0.1, "rho": 1.5}),
        (APGD, {"eps": 0.1, "momentum": 0.0}),
        (APGD, {"eps": 0.1, "restarts": 2, "random_start": False}),
    ],
)
def test_options_out_of_range_are_refused(kind: type, options: dict) -> None:
    with pytest.raises(ConfigError, match="E130"):
        kind(**options)


def test_radius_zero_asks_about_the_inputs_themselves() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 10)
    labels = torch.where(torch.arange(10) < 4, (labels + 1) % 3, labels)
    for attack in (FGSM(eps=0.0), PGD(eps=0.0, restarts=5), PGD(eps=0.0, norm="l2"), APGD(eps=0.0, norm="l2")):
        out = attack(double(function, bounds), inputs, labels)
        assert out.success.tolist() == [True] * 4 + [False] * 6
        assert torch.equal(out.adversarial, inputs)
        assert out.forwards.tolist() == [1] * 10


@pytest.mark.parametrize("factor", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_huge_logits_do_not_hide_a_weak_model(norm: str, factor: float) -> None:
    """Cross entropy saturates: in float32, plain PGD sees no gradient from a factor of about 100 on."""
    function, bounds, inputs, labels, radii = linear_problem(norm, 0.1)

    def scaled(points: Tensor) -> Tensor:
        return function(points.double()).float() * factor

    model = CountingModel(scaled, bounds=bounds)
    found = PGD(eps=0.1, norm=norm, steps=10, random_start=False)(model, inputs.float(), labels)
    assert torch.equal(found.success, radii < 1)
    assert (found.zero_gradients == 0).all()


@pytest.mark.parametrize("attack", [PGD(eps=0.1, steps=10), APGD(eps=0.1, steps=20), FGSM(eps=0.1)])
@pytest.mark.parametrize("size", [30.0, 0.5, 1e-2, 1e-6, 1e-12])
def test_flat_logits_do_not_hide_the_near_class(attack: PGD, size: float) -> None:
    """One class is near one way, many are far the other way: the mean of all others leads away from the near one."""
    inputs = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(7)) * 0.6 + 0.2
    far = torch.linspace(-1.5, -0.9, 8)

    def function(points: Tensor) -> Tensor:
        height = (points - inputs.mean()).flatten(1).mean(dim=1, keepdim=True)
        return torch.cat((torch.zeros_like(height), height - 0.09, far - height), dim=1) * size

    inputs = inputs - inputs.flatten(1).mean(dim=1).view(-1, 1, 1, 1) + inputs.mean()
    labels = torch.zeros(40, dtype=torch.int64)
    model = CountingModel(function, bounds=Bounds(-1.0, 2.0))
    assert not (model.predict(inputs) != labels).any()
    assert attack(model, inputs, labels).success.all()


def test_restarts_find_more_and_stop_early() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 60)

    def rugged(points: Tensor) -> Tensor:
        return function(points) + 0.02 * torch.sin(points.flatten(1) * 90).sum(1, keepdim=True) * torch.tensor(
            [1.0, -1.0, 0.0]
        )

    labels = rugged(inputs).argmax(1)
    counts = []
    for restarts in (1, 3, 8):
        out = PGD(eps=0.01, steps=3, restarts=restarts)(double(rugged, bounds), inputs, labels, rng=2)
        counts.append(int(out.success.sum()))
        assert (out.forwards[~out.success] == restarts * 4).all()
        assert (out.forwards[out.success] <= restarts * 4).all()
    assert counts[0] < counts[1] < counts[2]


def test_given_starts_are_used_projected_and_followed_by_drawn_ones() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 20)
    attack = PGD(eps=0.1, steps=6, random_start=False)
    found = PGD(eps=0.1, steps=60, restarts=4)(double(function, bounds), inputs, labels)
    warm = attack(double(function, bounds), inputs, labels, start=found.adversarial)
    assert (warm.forwards[found.success] == 1).all(), "a start that is a success is one at the first look"
    assert warm.success[found.success].all()
    far = attack(double(function, bounds), inputs, labels, start=inputs + 100)
    assert (far.distance <= 0.1).all()
    assert bounds.contains(far.adversarial).all()
    both = PGD(eps=0.1, steps=6, restarts=3)
    drawn = both(double(function, bounds), inputs, labels)
    given = both(double(function, bounds), inputs, labels, start=inputs)
    rest = ~given.success & ~drawn.success
    assert torch.equal(given.adversarial[rest], drawn.adversarial[rest]), "restarts after the first are drawn as ever"


def test_starts_depend_on_stream_and_id_only() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 20)
    attack = PGD(eps=0.01, steps=1, step_size=1e-12)

    def starts(**how) -> Tensor:
        return attack(double(function, bounds), inputs, labels, **how).adversarial

    assert torch.equal(starts(), starts(rng=0))
    assert torch.equal(starts(rng=7), starts(rng=Streams(7)))
    assert not torch.allclose(starts(rng=7), starts(rng=8), atol=1e-6)
    assert not torch.allclose(starts(), starts(ids=torch.arange(20) + 100), atol=1e-6)
    moved = (starts() - inputs).abs().flatten(1).amax(1)
    assert ((moved > 0.005) & (moved <= 0.01)).all()


def test_l2_starts_fill_the_ball() -> None:
    """In two dimensions half of the mass lies beyond 0.707 of the radius; on the sphere all of it would."""
    inputs = torch.zeros(4000, 2, dtype=torch.float64)
    model = double(lambda points: torch.stack((points[:, 0] * 0 + 1, points[:, 0] * 1e-9), dim=1), None)
    out = PGD(eps=1.0, norm="l2", steps=1, step_size=1e-9)(model, inputs, torch.zeros(4000).long())
    outer = float((out.distance > 0.5**0.5).double().mean())
    assert abs(outer - 0.5) < 4 * 0.5 / 4000**0.5
    angles = torch.atan2(out.adversarial[:, 1], out.adversarial[:, 0])
    assert abs(float((angles > 0).double().mean()) - 0.5) < 4 * 0.5 / 4000**0.5


def test_combined_goals_by_margin() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 30)
    others = (labels + 1) % 3
    goal = Untargeted(labels) & Untargeted(others)
    model = double(function, bounds)
    with pytest.raises(ConfigError, match='E135.*loss="margin"'):
        PGD(eps=0.1)(model, inputs, goal)
    out = PGD(eps=0.15, steps=30, loss="margin")(model, inputs, goal)
    third = PGD(eps=0.15, steps=30, loss="margin")(model, inputs, Targeted((labels + 2) % 3))
    assert 0 < int(out.success.sum()) < 30
    reached = function(out.adversarial).argmax(1) == (labels + 2) % 3
    assert torch.equal(reached, out.success), "neither of two classes is the third one"
    assert not (out.success & ~third.success).any()


def test_checkpoints_are_those_of_the_paper() -> None:
    """Section 3: w_j = ceil(p_j N); for N = 100 as the authors' code counts them."""
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(1000) == (220, 410, 570, 700, 800, 870, 930, 990)
    assert checkpoints(10) == (3, 5, 6, 7, 8, 9)
    assert checkpoints(1) == ()


def test_apgd_lowers_its_loss_only_by_choice() -> None:
    """MindArmour's APGD computed its loss once: its step halved at every checkpoint and "best" was the last iterate."""
    function, bounds, inputs, labels = curved_problem(0.05, 30)
    model = double(function, bounds)
    steady = APGD(eps=0.05, steps=60, random_start=False)(model, inputs, labels)
    weak = PGD(eps=0.05, steps=60, step_size=0.1, random_start=False)(model, inputs, labels)
    left = ~steady.success & ~weak.success
    assert (steady.margin[left] >= weak.margin[left] - 1e-5).all(), "never below steps of a fixed 2 eps"
    assert steady.success.sum() >= weak.success.sum()


def mnist(shared: Path, n: int) -> tuple[Tensor, Tensor]:
    def raw(name: str, skip: int) -> np.ndarray:
        with gzip.open(shared / "data/mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=skip)

    images = raw("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:n]
    return torch.tensor(images / np.float32(255)), torch.tensor(
        raw("t10k-labels-idx1-ubyte.gz", 8)[:n].astype(np.int64)
    )


def cnn_a(shared: Path) -> nn.Module:
    layers = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)).eval()
    state = torch.load(shared / "models/mnist_cnn_a_fgsm.pth", map_location="cpu", weights_only=True)
    net.load_state_dict(state)
    return net


@pytest.mark.parametrize(
    "attack",
    [PGD(eps=0.3, steps=20, step_size=0.03), PGD(eps=2.0, norm="l2", steps=20), APGD(eps=0.3, steps=20)],
    ids=["pgd", "pgd-l2", "apgd"],
)
def test_real_model_whole_split_and_shuffled(shared: Path, attack) -> None:
    """float32: outcomes may flip where rounding decides; every flip is listed and must lie at the decision."""
    inputs, labels = mnist(shared, 96)
    model = from_torch(cnn_a(shared), bounds=(0, 1))
    ids = torch.arange(96) * 31 + 7
    whole = attack(model, inputs, labels, ids=ids)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    others = {
        "batch 7": attack(model, inputs, labels, ids=ids, batch_size=7),
        "shuffled": attack(model, inputs[order], labels[order], ids=ids[order], batch_size=40),
    }
    places = {"batch 7": torch.arange(96), "shuffled": order}
    flips = [
        (name, int(ids[places[name][row]]), float(whole.margin[places[name][row]]), float(other.margin[row]))
        for name, other in others.items()
        for row in (whole.success[places[name]] != other.success).nonzero().flatten().tolist()
    ]
    assert all(abs(one) < 0.05 and abs(two) < 0.05 for _, _, one, two in flips), flips
    assert len(flips) <= 1, flips
    assert 3 <= int(whole.success.sum()) <= 40


def test_real_adapter_counts_the_same_rows(shared: Path) -> None:
    inputs, labels = mnist(shared, 50)
    for batch_size in (1, 7, 64):
        counted = Counted(from_torch(cnn_a(shared), bounds=(0, 1)))
        cost = PGD(eps=0.3, steps=5)(counted, inputs, labels, batch_size=batch_size).cost
        forward = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
        assert forward == counted.forwards
        assert cost.backwards + cost.idle_backwards + cost.padding_backwards == counted.backwards
