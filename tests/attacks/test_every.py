"""All registered attacks, each in one small instance: what they must refuse, and that saved successes are successes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vambrace.attacks import (
    APGD,
    BIM,
    DDN,
    DIFGSM,
    FAB,
    FGSM,
    FMN,
    MDIFGSM,
    MIFGSM,
    NES,
    NIFGSM,
    PGD,
    RFGSM,
    SIFGSM,
    TIFGSM,
    VMIFGSM,
    VNIFGSM,
    Adaptive,
    Boundary,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    LeastLikely,
    MomentumPGD,
    RayS,
    Square,
    Standard,
)
from vambrace.attacks import standard as standard_module
from vambrace.core.access import Access
from vambrace.core.registry import ATTACKS, names
from vambrace.ops.norms import distances
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel
from vambrace.testing.refusals import check_refusals

EPS = 0.1
EVERY = [
    FGSM(eps=EPS),
    FGSM(eps=0.5, norm="l1"),
    PGD(eps=EPS, steps=6),
    PGD(eps=0.3, norm="l2", steps=6, restarts=2),
    PGD(eps=0.8, norm="l1", steps=8),
    APGD(eps=EPS, steps=12),
    APGD(eps=EPS, steps=8, targets=2, loss="margin"),
    APGD(eps=0.8, norm="l1", steps=12),
    Square(eps=EPS, queries=60),
    Square(eps=0.3, norm="l2", queries=60),
    Square(eps=0.8, norm="l1", queries=60),
    DDN(steps=20),
    FAB(norm="linf", steps=10),
    FAB(norm="l2", steps=8, targets=2),
    FAB(norm="l1", steps=8),
    FMN(norm="linf", steps=20),
    FMN(norm="l2", steps=20),
    FMN(norm="l1", steps=20),
    FMN(norm="l0", steps=20),
    DeepFool(norm="l2", steps=10),
    DeepFool(norm="linf", steps=10),
    CarliniWagner(steps=20),
    HopSkipJump(norm="l2", budget=250),
    HopSkipJump(norm="linf", budget=250),
    Boundary(budget=250),
    RayS(budget=250),
    NES(eps=EPS, budget=400, samples=20),
    MomentumPGD(eps=EPS, steps=6),
    BIM(eps=EPS, steps=6),
    MIFGSM(eps=EPS, steps=6),
    DIFGSM(eps=EPS, steps=6),
    MDIFGSM(eps=EPS, steps=6),
    NIFGSM(eps=EPS, steps=6),
    TIFGSM(eps=EPS, steps=6),
    SIFGSM(eps=EPS, steps=6),
    VMIFGSM(eps=EPS, steps=4),
    VNIFGSM(eps=EPS, steps=4),
    RFGSM(eps=EPS),
    LeastLikely(eps=EPS),
    Standard(eps=EPS),
    Adaptive(eps=EPS, budget=80),
]
IMAGES_ONLY = {"di_fgsm", "mdi_fgsm", "ti_fgsm"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_module, "_STEPS", 8)
    monkeypatch.setattr(standard_module, "_QUERIES", 30)


def called(attack) -> str:
    return f"{attack.name}-{attack.norm}"


def test_every_registered_attack_is_here() -> None:
    assert {attack.name for attack in EVERY} == set(names(ATTACKS))


@pytest.mark.parametrize("attack", EVERY, ids=called)
def test_refuses_what_cannot_be_meant(attack) -> None:
    check_refusals(attack, eps=EPS, flat=attack.name not in IMAGES_ONLY)


@pytest.mark.parametrize("attack", EVERY, ids=called)
def test_a_saved_success_is_one_when_it_is_read_again(attack, tmp_path: Path) -> None:
    function, bounds, inputs, labels = curved_problem(EPS, 24)
    model = CountingModel(function, access=Access(attack.needs), bounds=bounds, dtype=torch.float64)
    out = attack(model, bounds.clip(inputs.float()), labels)
    assert out.success.any()
    save_file({"points": out.adversarial.contiguous()}, tmp_path / "points.safetensors")
    points = load_file(tmp_path / "points.safetensors")["points"].to(inputs.device)
    assert points.dtype == torch.float32
    won = out.success
    assert (function(points.double()).argmax(1) != labels)[won].all()
    assert bounds.contains(points)[won].all()
    if attack.eps is not None:
        assert (distances(points, bounds.clip(inputs.float()), attack.norm) <= attack.eps)[won].all()
