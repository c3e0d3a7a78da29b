"""FGSM, PGD and APGD against slow per-sample versions: the same samples fall, at the same forward, at the same cost."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from naive_attacks import Found, Sample, apgd, pgd, project
from vambrace.attacks import APGD, FGSM, PGD
from vambrace.attacks.apgd import checkpoints
from vambrace.core.access import Bounds
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.ops import draws
from vambrace.search.rule import Answer, Origin
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

N = 30


def problem(eps: float) -> tuple:
    function, bounds, inputs, labels = curved_problem(eps, N)
    return function, bounds, inputs, labels, CountingModel(function, bounds=bounds, dtype=torch.float64)


def starts_of(attack: PGD | APGD, inputs: Tensor, ids: Tensor, row: int, box: tuple[float, float]) -> list[Tensor]:
    """The first point of every restart, from the documented draws."""
    if not attack.random_start:
        return [inputs[row]]
    found = []
    for restart in range(attack.restarts):
        stream, one = Streams(5).child("start"), ids[row : row + 1]
        like = {"step": restart, "dtype": torch.float64}
        if attack.norm == "linf":
            noise = draws.uniform(stream, one, shape=inputs.shape[1:], low=-attack.eps, high=attack.eps, **like)[0]
        else:
            noise = draws.normal(stream, one, shape=inputs.shape[1:], **like)[0]
            share = draws.uniform(stream.child("radius"), one, shape=(), **like)[0]
            noise = noise / noise.norm() * attack.eps * share ** (1 / noise.numel())
        found.append(project(inputs[row] + noise, inputs[row], attack.eps, attack.norm, *box))
    return found


def compare(attack: PGD | APGD | FGSM, out, references: list[Found], inputs: Tensor) -> None:
    for name in ("success", "first_success", "forwards", "backwards", "verifications"):
        expected = [getattr(found, name) for found in references]
        assert getattr(out, name).tolist() == expected, name
    points = torch.stack([found.point for found in references])
    torch.testing.assert_close(out.adversarial, points, rtol=0, atol=1e-6 * attack.eps)
    assert 0 < sum(out.success.tolist()) < len(inputs), "a comparison needs both outcomes"


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.1, steps=12, random_start=False),
        PGD(eps=0.1, steps=7, restarts=3),
        PGD(eps=0.3, norm="l2", steps=10),
        PGD(eps=0.3, norm="l2", steps=4, restarts=3, step_size=0.2),
    ],
    ids=["linf", "linf-restarts", "l2", "l2-restarts"],
)
def test_pgd_is_the_naive_one(attack: PGD) -> None:
    function, bounds, inputs, labels, model = problem(attack.eps if attack.norm == "linf" else attack.eps / 2)
    box = (bounds.low, bounds.high)
    ids = torch.arange(N) * 977 + 3
    size = attack.step_size or 2.5 * attack.eps / attack.steps
    references = [
        pgd(
            Sample(function, inputs[row], int(labels[row])),
            starts_of(attack, inputs, ids, row, box),
            norm=attack.norm,
            eps=attack.eps,
            steps=attack.steps,
            step_size=size,
            box=box,
        )
        for row in range(N)
    ]
    for batch_size in (1, 7, 64):
        out = attack(model, inputs, labels, rng=Streams(5), ids=ids, batch_size=batch_size)
        compare(attack, out, references, inputs)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fgsm_is_the_naive_one(norm: str) -> None:
    eps = 0.1 if norm == "linf" else 0.4
    function, bounds, inputs, labels, model = problem(eps if norm == "linf" else eps / 4)
    labels = torch.where(torch.arange(N) % 5 == 0, (labels + 1) % 3, labels)  # some are wrong from the start
    out = FGSM(norm=norm, eps=eps)(model, inputs, labels, batch_size=7)
    box = (bounds.low, bounds.high)
    references = [
        pgd(
            Sample(function, inputs[row], int(labels[row])),
            [inputs[row]],
            norm=norm,
            eps=eps,
            steps=1,
            step_size=eps,
            box=box,
        )
        for row in range(N)
    ]
    compare(FGSM(norm=norm, eps=eps), out, references, inputs)
    assert (out.forwards <= 2).all()
    assert (out.backwards <= 1).all()
    wrong = torch.arange(N) % 5 == 0
    assert (out.distance[wrong] == 0).all()
    assert (out.forwards[wrong] == 1).all()


@pytest.mark.parametrize(
    "attack",
    [
        APGD(eps=0.1, steps=30, random_start=False),
        APGD(eps=0.1, steps=25, restarts=2),
        APGD(eps=0.3, norm="l2", steps=40),
    ],
    ids=["linf", "linf-restarts", "l2"],
)
def test_apgd_is_the_naive_one(attack: APGD) -> None:
    function, bounds, inputs, labels, model = problem(attack.eps if attack.norm == "linf" else attack.eps / 2)
    box = (bounds.low, bounds.high)
    ids = torch.arange(N) * 977 + 3
    references = [
        apgd(
            Sample(function, inputs[row], int(labels[row])),
            starts_of(attack, inputs, ids, row, box),
            norm=attack.norm,
            eps=attack.eps,
            steps=attack.steps,
            box=box,
        )
        for row in range(N)
    ]
    for batch_size in (1, 7, 64):
        out = attack(model, inputs, labels, rng=Streams(5), ids=ids, batch_size=batch_size)
        compare(attack, out, references, inputs)


@pytest.mark.parametrize(("raised", "halved"), [(2, True), (3, True), (4, False)])
def test_a_share_of_rises_equal_to_rho_halves_the_step(raised: int, halved: bool) -> None:
    """Three of four steps is not more than 0.75 of them: the authors' code counts <=, their paper <."""
    rule = APGD(eps=0.1, steps=20, rho=0.75).rule()
    assert checkpoints(20)[:2] == (5, 9)
    inputs, goal = torch.full((1, 4), 0.5), Untargeted(torch.tensor([0]))
    origin = Origin(
        inputs=inputs,
        ids=torch.tensor([0]),
        start=None,
        bounds=Bounds(0.0, 1.0),
        rng=Streams(0),
        goal=goal,
        logits=None,
    )
    anchor = rule.anchor(origin)
    state = rule.start(origin, anchor, torch.tensor([0]), None)
    best, gradient = state["best"].clone(), torch.tensor([[1.0, -1.0, 2.0, 0.5]])
    state |= {"point": inputs.clone(), "time": torch.tensor([9]), "raised": torch.tensor([raised])}
    state |= {name: torch.tensor([value], dtype=torch.float64) for name, value in (("value", 1.0), ("best_value", 2.0))}
    answer = Answer(torch.tensor([[1.0, 0.0, -1.0]]), goal, gradient, None, Streams(0))  # does not raise the value
    after = rule.step(anchor, state, answer)
    assert after["size"].tolist() == pytest.approx([0.1 if halved else 0.2])
    assert torch.equal(after["previous"], best if halved else inputs)


@pytest.mark.parametrize("attack", [PGD(eps=0.1, steps=10), APGD(eps=0.1, steps=20)], ids=["pgd", "apgd"])
def test_targeted_is_the_naive_one(attack: PGD | APGD) -> None:
    """MindArmour's targeted PGD ignored its target, and its APGD did too."""
    function, bounds, inputs, labels, model = problem(attack.eps)
    targets = (labels + 1) % 3
    box = (bounds.low, bounds.high)
    out = attack(model, inputs, Targeted(targets), rng=Streams(5), batch_size=7)
    options = {"norm": attack.norm, "eps": attack.eps, "steps": attack.steps, "box": box}
    if isinstance(attack, PGD):
        options["step_size"] = 2.5 * attack.eps / attack.steps
    naive = pgd if isinstance(attack, PGD) else apgd
    ids = torch.arange(N)
    references = [
        naive(
            Sample(function, inputs[row], int(targets[row]), target=True),
            starts_of(attack, inputs, ids, row, box),
            **options,
        )
        for row in range(N)
    ]
    compare(attack, out, references, inputs)
    assert (function(out.adversarial).argmax(1) == targets)[out.success].all()
    away = attack(model, inputs, Untargeted(labels), rng=Streams(5))
    assert not torch.equal(away.adversarial, out.adversarial)


def test_naive_reference_can_tell() -> None:
    """The comparison fails for another step size, another projection and another start: it is not vacuous."""
    attack = PGD(eps=0.1, steps=12)
    function, bounds, inputs, labels, model = problem(attack.eps)
    box = (bounds.low, bounds.high)
    expected = [
        pgd(
            Sample(function, inputs[row], int(labels[row])),
            starts_of(attack, inputs, torch.arange(N), row, box),
            norm="linf",
            eps=0.1,
            steps=12,
            step_size=2.5 * 0.1 / 12,
            box=box,
        )
        for row in range(N)
    ]
    compare(attack, attack(model, inputs, labels, rng=Streams(5)), expected, inputs)
    mutants = [dataclasses.replace(attack, step_size=0.02), dataclasses.replace(attack, loss="margin")]
    for mutant in mutants:
        with pytest.raises(AssertionError):
            compare(mutant, mutant(model, inputs, labels, rng=Streams(5)), expected, inputs)
    with pytest.raises(AssertionError):
        compare(attack, attack(model, inputs, labels, rng=Streams(6)), expected, inputs)
