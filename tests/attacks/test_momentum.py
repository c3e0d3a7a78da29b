"""The momentum family: each attack is the naive one, differs from its parent, and is its parent without its part.

MindArmour's attacks of these names failed all three: its diverse inputs were never diverse, its momentum divided by the
wrong norm, its variance by the wrong tensor. Its tests asked whether the output differed from the input.
"""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from torch import Tensor

from naive_attacks import Sample
from naive_momentum import Parts, momentum
from vambrace.attacks import PGD, gathering
from vambrace.attacks.gathering import GatheredAscent, unit
from vambrace.attacks.momentum import (
    BIM,
    DIFGSM,
    MDIFGSM,
    MIFGSM,
    NIFGSM,
    SIFGSM,
    TIFGSM,
    VMIFGSM,
    VNIFGSM,
    MomentumPGD,
)
from vambrace.core.access import Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.registry import ATTACKS, load
from vambrace.core.rng import Streams
from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.search.outcome import Attacked
from vambrace.testing.attacks import check_attack, curved_problem
from vambrace.testing.counting import CountingModel

N = 24
SEED = 5
EVERY = [
    BIM(eps=0.1, steps=8),
    MIFGSM(eps=0.1, steps=8),
    DIFGSM(eps=0.1, steps=8, shrink=0.5),
    MDIFGSM(eps=0.1, steps=8, shrink=0.5, diversity=0.5),
    NIFGSM(eps=0.1, steps=8),
    TIFGSM(eps=0.1, steps=8, kernel=3),
    SIFGSM(eps=0.1, steps=5, scales=3),
    VMIFGSM(eps=0.1, steps=5, neighbours=3),
    VNIFGSM(eps=0.1, steps=5, neighbours=3),
    MomentumPGD(
        eps=0.1, steps=4, lookahead=True, diversity=0.5, shrink=0.4, kernel=5, scales=2, neighbours=2, decay=0.9
    ),
]
BOTH = [*EVERY, *[dataclasses.replace(each, norm="l2", eps=0.3) for each in EVERY]]
NAMES = [f"{each.name}-{each.norm}" for each in BOTH]

PARENTS = [
    (MIFGSM, BIM, {"decay": 0.0}),
    (DIFGSM, BIM, {"diversity": 0.0}),
    (MDIFGSM, MIFGSM, {"diversity": 0.0}),
    (MDIFGSM, DIFGSM, {"decay": 0.0}),
    (NIFGSM, MIFGSM, {"lookahead": False}),
    (TIFGSM, MIFGSM, {"kernel": 1}),
    (SIFGSM, MIFGSM, {"scales": 1}),
    (VMIFGSM, MIFGSM, {"neighbours": 0}),
    (VNIFGSM, NIFGSM, {"neighbours": 0}),
    (VNIFGSM, VMIFGSM, {"lookahead": False}),
]
TIMID = {DIFGSM: {"shrink": 0.5}, MDIFGSM: {"shrink": 0.5}, TIFGSM: {"kernel": 3}}
"""What the parts need to show on images of 4 by 4 pixels."""


def problem(attack: MomentumPGD) -> tuple:
    function, bounds, inputs, labels = curved_problem(attack.eps if attack.norm == "linf" else attack.eps / 2, N)
    return function, bounds, inputs, labels, model_of(function, bounds)


def model_of(function, bounds: Bounds | None) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64)


def equal(first: Attacked, second: Attacked) -> bool:
    names = ("adversarial", "success", "first_success", "forwards", "backwards", "verifications", "distance")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


def compare(attack: MomentumPGD, *, targeted: bool = False, batch_size: int = 7, **changed) -> None:
    """The attack against the naive one; `changed` are parts that the naive one has otherwise."""
    function, bounds, inputs, labels, model = problem(attack)
    ids = torch.arange(N) * 977 + 3
    wanted = (labels + 1) % 3 if targeted else labels
    goal = Targeted(wanted) if targeted else Untargeted(labels)
    out = attack(model, inputs, goal, rng=Streams(SEED), ids=ids, batch_size=batch_size)
    names = [field.name for field in dataclasses.fields(Parts)]
    parts = Parts(**{name: getattr(attack, name) for name in names} | changed)
    found = [
        momentum(
            Sample(function, inputs[row], int(wanted[row]), target=targeted),
            inputs[row],
            ids[row : row + 1],
            parts,
            norm=attack.norm,
            eps=attack.eps,
            steps=attack.steps,
            step_size=attack.step_size or attack.eps / attack.steps,
            box=(bounds.low, bounds.high),
            seed=SEED,
        )
        for row in range(N)
    ]
    for name in ("success", "first_success", "forwards", "backwards", "verifications"):
        assert getattr(out, name).tolist() == [getattr(each, name) for each in found], name
    points = torch.stack([each.point for each in found])
    torch.testing.assert_close(out.adversarial, points, rtol=0, atol=1e-6 * attack.eps)
    assert 0 < int(out.success.sum()) < N, "a comparison needs both outcomes"


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
def test_is_the_naive_one(attack: MomentumPGD) -> None:
    compare(attack)


@pytest.mark.parametrize("attack", [MIFGSM(eps=0.1, steps=9), EVERY[-1]], ids=["mi", "all"])
def test_targeted_is_the_naive_one(attack: MomentumPGD) -> None:
    compare(attack, targeted=True)


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
def test_conforms(attack: MomentumPGD) -> None:
    # Gradients that are smoothed or taken at copies are not the steepest way.
    strength = 0.5 if attack.kernel > 3 else 0.75 if attack.kernel > 1 or attack.diversity else 0.9
    check_attack(attack, strength=strength)


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
def test_options_are_values(attack: MomentumPGD) -> None:
    assert pickle.loads(pickle.dumps(attack)) == attack
    assert read(type(attack), attack.as_json(), where="attack") == attack
    assert eval(repr(attack)) == attack
    assert load(ATTACKS, attack.name) is type(attack)


@pytest.mark.parametrize(("kind", "parent", "off"), PARENTS, ids=lambda each: getattr(each, "__name__", ""))
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_differs_from_its_parent_and_is_it_without_its_part(kind, parent, off: dict, norm: str) -> None:
    timid = TIMID.get(kind, {})
    options = {"eps": 0.1 if norm == "linf" else 0.3, "norm": norm, "steps": 6}
    attack = kind(**options, **timid)
    inherited = {name: value for name, value in timid.items() if name not in off}
    function, bounds, inputs, labels, _ = problem(attack)
    results = [
        each(model_of(function, bounds), inputs, labels, rng=3)
        for each in (attack, parent(**options, **inherited), kind(**options, **timid | off))
    ]
    assert not torch.allclose(results[0].adversarial, results[1].adversarial, rtol=0, atol=1e-3)
    assert equal(results[1], results[2])


def test_basic_steps_are_those_of_pgd() -> None:
    for norm in ("linf", "l2"):
        attack = BIM(eps=0.1, norm=norm, steps=5)
        function, bounds, inputs, labels, model = problem(attack)
        plain = PGD(eps=0.1, norm=norm, steps=5, step_size=0.1 / 5, random_start=False)
        assert equal(attack(model, inputs, labels), plain(model, inputs, labels))


@pytest.mark.parametrize("attack", BOTH, ids=NAMES)
def test_cost_of_a_search_that_finds_nothing(attack: MomentumPGD) -> None:
    function, bounds, inputs, labels, _ = problem(attack)
    tiny = dataclasses.replace(attack, eps=1e-9)
    model = model_of(function, bounds)
    out = tiny(model, inputs, labels)
    gradients = attack.steps * attack.scales * (1 + attack.neighbours)
    besides = attack.steps if attack.lookahead or attack.diversity else 0
    assert not out.success.any()
    assert out.backwards.unique().tolist() == [gradients]
    assert out.forwards.unique().tolist() == [gradients + besides + 1]
    choosing = 1 if len(inputs) >= 16 and inputs.device.type == "cpu" else 0  # one row that asks for the memory format
    assert model.forward_rows == N * (gradients + besides + 1) + choosing


def test_a_diverse_input_is_diverse() -> None:
    """MindArmour asked whether a name is in `globals()`, which it never was."""
    seen: list[Tensor] = []
    function, bounds, inputs, labels = curved_problem(0.1, N)

    def watched(points: Tensor) -> Tensor:
        seen.append(points.detach().clone())
        return function(points)

    attack = DIFGSM(eps=0.1, steps=1, diversity=1.0, shrink=0.5)
    attack(model_of(watched, bounds), inputs.clamp(min=0.1), labels, batch_size=8)
    (copies,) = [each for each in seen if len(each) == 8 and (each == 0).any()][:1]
    rows = (copies[:, 0] == 0).all(dim=2)
    columns = (copies[:, 0] == 0).all(dim=1)
    assert (rows.sum(1) >= 1).all(), "every copy is smaller than its canvas"
    assert (columns.sum(1) >= 1).all()
    assert len({tuple(row) for row in rows.tolist()}) > 1, "and not all at one place"


def test_chance_of_a_copy_is_the_one_asked_for() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 8)
    shown: list[int] = []

    def watched(points: Tensor) -> Tensor:
        if points.requires_grad:
            shown.append(int((points == 0).flatten(1).any(1).sum()))
        return function(points)

    inputs = inputs.clamp(0.15, 0.35)
    labels = function(inputs).argmax(1)
    DIFGSM(eps=1e-9, steps=200, diversity=0.3)(model_of(watched, bounds), inputs, labels)
    share = sum(shown) / (200 * 8)
    assert abs(share - 0.3) < 0.06, "five standard deviations of 1,600 coins"


def test_momentum_divides_by_the_l1_norm() -> None:
    """MindArmour divides by the largest element. Two gradients of equal peak and unequal l1 norm tell."""
    gradients = torch.tensor([[4.0, 0.0, 0.0, 0.0], [-4.0, -4.0, -4.0, -4.0]]).double()
    assert unit(gradients).tolist() == [[4.0, 0.0, 0.0, 0.0], [-1.0, -1.0, -1.0, -1.0]]
    assert unit(gradients * 1e-200).tolist() == unit(gradients * 1e200).tolist() == unit(gradients).tolist()
    assert unit(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]


def test_images_are_asked_for_where_parts_need_them() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 6)
    flat, model = inputs.flatten(1), model_of(function, bounds)
    for kind in (DIFGSM, MDIFGSM, TIFGSM):
        with pytest.raises(ConfigError, match="E131"):
            kind(eps=0.1)(model, flat, labels)
    assert model.forward_rows == 0
    for kind in (BIM, MIFGSM, NIFGSM, SIFGSM, VMIFGSM, VNIFGSM):
        attack = kind(eps=0.1, steps=3)
        shaped = attack(model, inputs, labels)
        assert torch.equal(attack(model, flat, labels).adversarial, shaped.adversarial.flatten(1))


@pytest.mark.parametrize("bounds", [(0.0, 0.5), (-0.25, 0.5), (0.2, 0.7), (-0.9, -0.4)])
def test_the_model_is_asked_inside_its_bounds_only(bounds: tuple[float, float]) -> None:
    """Lookaheads and neighbours leave the box in the papers' code; a logarithm in the model would see no number."""
    low, high = bounds
    function, _, inputs, labels = curved_problem(0.1, N)

    def strict(points: Tensor) -> Tensor:
        assert points.min() >= low - 1e-12
        assert points.max() <= high + 1e-12
        return function((points - low) / (high - low) * 0.5)

    attack = dataclasses.replace(EVERY[-1], reach=4.0, scales=3)
    given = (inputs / 0.5 * (high - low) + low).clamp(low, high)
    out = attack(model_of(strict, Bounds(low, high)), given, labels)
    assert int(out.success.sum()) > 0
    assert (out.distance > 0.05)[~out.success].all()
    ends = (torch.full((1, 4, 4), end, dtype=torch.float64) for end in bounds)
    assert equal(out, attack(model_of(strict, Bounds(*ends)), given, labels)), "a box of tensors is the same box"


def test_copies_of_another_seed_are_other_ones() -> None:
    for attack in (DIFGSM(eps=0.1, steps=4, shrink=0.5), VMIFGSM(eps=0.3, norm="l2", steps=4, reach=4.0)):
        function, bounds, inputs, labels, model = problem(attack)
        first, second = (attack(model, inputs, labels, rng=seed).adversarial for seed in (1, 2))
        assert not torch.allclose(first, second, rtol=0, atol=1e-3)


def test_a_model_fooled_by_copies_only_is_not_fooled() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, N)
    inputs = inputs.clamp(0.15, 0.35)
    labels = function(inputs).argmax(1)

    def scared_of_borders(points: Tensor) -> Tensor:
        logits = function(points)
        bordered = (points == 0).flatten(1).any(1)
        return torch.where(bordered[:, None], logits.roll(1, dims=1), logits)

    out = DIFGSM(eps=0.001, steps=4, diversity=1.0)(model_of(scared_of_borders, bounds), inputs, labels)
    assert not out.success.any()
    assert out.cost.verifications == 0


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"step_size": 0.0},
        {"decay": -0.1},
        {"decay": float("inf")},
        {"diversity": 1.1},
        {"diversity": -0.1},
        {"shrink": 0.0},
        {"shrink": 1.1},
        {"kernel": 0},
        {"kernel": 4},
        {"scales": 0},
        {"neighbours": -1},
        {"reach": -1.0},
        {"reach": float("nan")},
        {"loss": "l2"},
        {"eps": -1.0},
    ],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="E130"):
        MomentumPGD(**{"eps": 0.1} | options)


def test_radius_zero_asks_about_the_inputs() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 6)
    for kind in (BIM, VNIFGSM, MDIFGSM):
        out = kind(eps=0.0)(model_of(function, bounds), inputs, labels)
        assert torch.equal(out.adversarial, inputs)
        assert out.forwards.tolist() == [1] * 6


MUTANTS = {
    "no diversity": ("_resized", lambda self, anchor, state, images, stream: images, EVERY[2]),
    "one copy for all": (
        "_resized",
        lambda self, anchor, state, images, stream, true=GatheredAscent._resized: true(
            self, {**anchor, "ids": anchor["ids"] * 0}, state, images, stream
        ),
        EVERY[3],
    ),
    "no lookahead": ("_moves", lambda self, anchor, state, place_number, rng: [], EVERY[4]),
    "sign flipped": (
        "slope",
        lambda self, anchor, state, logits, goal, true=GatheredAscent.slope: -true(self, anchor, state, logits, goal),
        EVERY[1],
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_wrong_on_purpose_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part, wrong, attack = MUTANTS[name]
    monkeypatch.setattr(GatheredAscent, part, wrong)
    with pytest.raises(AssertionError):
        compare(attack)


@pytest.mark.parametrize(
    ("name", "wrong", "attack"),
    [
        ("smooth", lambda images, size: images, EVERY[5]),
        ("unit", lambda gradients: gradients / gradients.abs().amax((1, 2, 3), keepdim=True), BOTH[11]),
    ],
)
def test_mathematics_that_is_wrong_on_purpose_is_caught(name: str, wrong, attack, monkeypatch) -> None:
    monkeypatch.setattr(gathering, name, wrong)
    with pytest.raises(AssertionError):
        compare(attack)


@pytest.mark.parametrize(
    ("attack", "changed"),
    [
        (BOTH[11], {"decay": 0.9}),
        (EVERY[6], {"scales": 2}),
        (EVERY[7], {"reach": 1.0}),
        (EVERY[7], {"neighbours": 2}),
        (EVERY[5], {"kernel": 5}),
        (EVERY[2], {"shrink": 0.75}),
    ],
)
def test_the_comparison_sees_every_part(attack: MomentumPGD, changed: dict) -> None:
    with pytest.raises(AssertionError):
        compare(attack, **changed)
