"""Nearest-point attacks sample by sample against slow ones: which succeed, how near, when, at what cost."""

from __future__ import annotations

import pytest
import torch

import naive_nearest as naive
from vambrace.attacks import DDN, FAB, FMN, CarliniWagner, DeepFool, fmn
from vambrace.core.access import Bounds
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel

FUNCTION, BOUNDS, INPUTS, LABELS = curved_problem(0.1, 16)
BOX = (0.0, 0.5)
CASES = {
    "ddn": (DDN(steps=25), lambda sample: naive.ddn(sample, 25)),
    "fmn-l0": (FMN(norm="l0", steps=20), lambda sample: naive.fmn(sample, 20)),
    "fmn-l1": (FMN(norm="l1", steps=20), lambda sample: naive.fmn(sample, 20)),
    "fmn-l2": (FMN(norm="l2", steps=20), lambda sample: naive.fmn(sample, 20)),
    "fmn-linf": (FMN(norm="linf", steps=20), lambda sample: naive.fmn(sample, 20)),
    "fab-l1": (FAB(norm="l1", steps=12), lambda sample: naive.fab(sample, 12)),
    "fab-l2": (FAB(norm="l2", steps=12), lambda sample: naive.fab(sample, 12)),
    "fab-linf": (FAB(norm="linf", steps=12), lambda sample: naive.fab(sample, 12)),
    "fab-t": (FAB(norm="l2", steps=9, targets=9), lambda sample: naive.fab(sample, 9, classes=ranked(sample))),
    "deep_fool-l2": (DeepFool(norm="l2", steps=12), lambda sample: naive.deep_fool(sample, 12)),
    "deep_fool-linf": (DeepFool(norm="linf", steps=12), lambda sample: naive.deep_fool(sample, 12)),
    "carlini_wagner": (
        CarliniWagner(steps=30, searches=4, step_size=0.05),
        lambda sample: naive.carlini_wagner(sample, 30, 4, step_size=0.05),
    ),
    "carlini_wagner-patient": (
        CarliniWagner(steps=12, searches=3, step_size=0.1, hasty=False),
        lambda sample: naive.carlini_wagner(sample, 12, 3, step_size=0.1, hasty=False),
    ),
}


def ranked(sample: naive.Sample) -> list[int]:
    with torch.no_grad():
        order = FUNCTION(sample.given[None])[0].argsort(descending=True).tolist()
    return [each for each in order if each != sample.label]


def compare(name: str) -> None:
    attack, slow = CASES[name]
    labels = LABELS.clone()
    labels[3] = (labels[3] + 1) % 3  # one that is wrong already
    out = attack(CountingModel(FUNCTION, bounds=Bounds(*BOX), dtype=torch.float64), INPUTS, labels, batch_size=7)
    for row in range(len(INPUTS)):
        found = slow(naive.Sample(FUNCTION, INPUTS[row], int(labels[row]), attack.norm, BOX))
        assert bool(out.success[row]) == found.success, row
        assert int(out.forwards[row]) == found.forwards, row
        assert int(out.backwards[row]) == found.backwards, row
        if found.success:
            assert int(out.first_success[row]) == found.first, row
            assert abs(float(out.distance[row]) - found.distance) <= 1e-9 * max(1.0, found.distance), row
            torch.testing.assert_close(out.adversarial[row], found.point, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_as_the_slow_one_does(name: str) -> None:
    compare(name)


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmn, "_LAST_GAMMA", 0.01)
    with pytest.raises(AssertionError):
        compare("fmn-l2")
