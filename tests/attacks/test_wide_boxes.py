"""Grey levels of 0 to 255, models that are flat, logits in any unit: no attack may do worse for the unit alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vambrace.attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
    MDIFGSM,
    PGD,
    SIFGSM,
    TIFGSM,
    VNIFGSM,
    DeepFool,
    Square,
)
from vambrace.core.access import Access, Bounds
from vambrace.testing.counting import CountingModel
from vambrace.testing.halves import smooth_problem

GREY = Bounds(0.0, 255.0)
FLAT = [
    PGD(norm="l2", eps=200.0, steps=5),
    DDN(steps=5),
    DDN(steps=5, eps=10.0),
    FMN(norm="l2", steps=5),
    FMN(norm="linf", steps=5),
    FAB(norm="l2", steps=5),
    DeepFool(steps=5),
    Square(norm="l2", eps=600.0, queries=40),
    Square(norm="l1", eps=9000.0, queries=40),
]

STEEP = [
    FGSM(norm="l1", eps=0.5),
    PGD(norm="l1", eps=0.8, steps=8),
    PGD(norm="l2", eps=0.2, steps=6),
    APGD(norm="l1", eps=0.8, steps=12, loss="margin"),
    MDIFGSM(eps=0.1, steps=6),
    TIFGSM(eps=0.1, steps=6, kernel=5),
    SIFGSM(eps=0.1, steps=6),
    VNIFGSM(eps=0.1, steps=4, neighbours=4),
]


def called(attack) -> str:
    return f"{attack.name}-{attack.norm}-{attack.eps}"


def flat(points: Tensor) -> Tensor:
    """Answers with numbers wherever it is asked with numbers, and says nothing of the way."""
    return points.flatten(1).sum(dim=1, keepdim=True) * 0.0 + torch.tensor([1.0, 0.0], device=points.device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (3, 6, 6)])
@pytest.mark.parametrize("attack", FLAT, ids=called)
def test_a_model_without_slope_is_measured(attack, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """A step without a direction must not ask about NaN, which the model would be blamed for."""
    if attack.eps is not None and shape == (1,):
        attack = type(attack)(norm=attack.norm, eps=100.0)
    inputs = (torch.arange(4.0).reshape(4, *[1] * len(shape)).expand(4, *shape) * 60.0).to(dtype)
    model = CountingModel(flat, access=Access.GRADIENTS, bounds=GREY)
    out = attack(model, inputs, torch.zeros(4, dtype=torch.int64, device=inputs.device))
    assert out.finite.all()
    assert not out.success.any()
    assert GREY.contains(out.adversarial).all()


@pytest.mark.parametrize(("norm", "eps"), [("l2", 1.0), ("l1", 8.0), ("linf", 0.1)])
def test_square_in_half_precision_breaks_as_many_on_grey_levels(norm, eps: float) -> None:
    trial = smooth_problem((3, 16, 16), 0.2, 24)
    broken = {}
    for unit in (1.0, 256.0):

        def network(points: Tensor, unit: float = unit) -> Tensor:
            return trial.network(points.double() / unit)

        model = CountingModel(network, bounds=Bounds(0.0, trial.bounds.high * unit))
        inputs = (trial.inputs * unit).half()
        out = Square(norm=norm, eps=eps * unit, queries=60)(model, inputs, trial.labels)
        assert out.finite.all()
        broken[unit] = out.success
    assert broken[1.0].any()
    assert torch.equal(broken[1.0], broken[256.0])


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
def test_ddn_begins_at_the_decision_whatever_the_unit_of_logits(unit: float) -> None:
    trial = smooth_problem((3, 6, 6), 0.1, 12)

    def network(points: Tensor) -> Tensor:
        return trial.network(points) * unit

    model = CountingModel(network, bounds=trial.bounds, dtype=torch.float64)
    plain = CountingModel(trial.network, bounds=trial.bounds, dtype=torch.float64)
    here, there = (DDN(steps=20)(each, trial.inputs, trial.labels) for each in (plain, model))
    assert there.success.all()
    assert float(there.distance.median()) <= 1.05 * float(here.distance.median())


@pytest.mark.parametrize("unit", [2.0**20, 2.0**-40, 2.0**-134])
@pytest.mark.parametrize("attack", STEEP, ids=called)
def test_gradients_that_half_precision_cannot_hold_are_followed(attack, unit: float) -> None:
    """As they are where it can: only how large the logits are differs."""
    trial = smooth_problem((3, 8, 8), 0.1, 12)
    found = []
    for by in (1.0, unit):

        def network(points: Tensor, by: float = by) -> Tensor:
            return trial.network(points.double()) * by

        model = CountingModel(network, bounds=trial.bounds, dtype=torch.float64)
        out = attack(model, trial.inputs.half(), trial.labels)
        assert out.finite.all()
        assert not (out.blind & ~out.success).any()
        found.append(int(out.success.sum()))
    assert found[0] > 0
    assert found[1] >= 0.9 * found[0]
