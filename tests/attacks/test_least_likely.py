"""The least-likely class: found by the attack itself. MindArmour's asked the caller for it."""

from __future__ import annotations

import pickle

import pytest
import torch

from naive_attacks import Sample, pgd
from vambrace.attacks import FGSM
from vambrace.attacks.least_likely import LeastLikely, TowardLeast
from vambrace.attacks.momentum import BIM
from vambrace.core.goals import Targeted, Untargeted
from vambrace.core.registry import ATTACKS, load
from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.testing.attacks import check_attack, curved_problem
from vambrace.testing.counting import CountingModel

N = 30
EVERY = [
    LeastLikely(eps=0.1),
    LeastLikely(eps=0.1, steps=8),
    LeastLikely(eps=0.4, norm="l2", steps=8, step_size=0.1),
    LeastLikely(eps=0.1, steps=6, loss="margin"),
]


def model_of(function, bounds) -> CountingModel:
    return CountingModel(function, bounds=bounds, dtype=torch.float64)


class AwayFrom(Sample):
    """A sample whose loss brings one class nearer, while leaving another one is what counts."""

    def __init__(self, function, given, label: int, aim: int) -> None:
        super().__init__(function, given, aim, target=True)
        self.left = label

    def won(self, logits) -> bool:
        rest = max(float(value) for place, value in enumerate(logits) if place != self.left)
        return rest - float(logits[self.left]) > 1e-5 * float(logits.topk(2).values.abs().max())


def compare(attack: LeastLikely) -> None:
    function, bounds, inputs, labels = curved_problem(attack.eps if attack.norm == "linf" else attack.eps / 2, N)
    out = attack(model_of(function, bounds), inputs, labels, batch_size=7)
    for row in range(N):
        least = int(function(inputs[row : row + 1])[0].argmin())
        found = pgd(
            AwayFrom(function, inputs[row], int(labels[row]), least),
            [inputs[row]],
            norm=attack.norm,
            eps=attack.eps,
            steps=attack.steps,
            step_size=attack.step_size or attack.eps / attack.steps,
            box=(bounds.low, bounds.high),
        )
        assert [bool(out.success[row]), int(out.forwards[row]), int(out.backwards[row])] == [
            found.success,
            found.forwards + 1,
            found.backwards,
        ]
        torch.testing.assert_close(out.adversarial[row], found.point, rtol=0, atol=1e-9)
    assert 0 < int(out.success.sum()) < N


@pytest.mark.parametrize("attack", EVERY[:3], ids=["one", "linf", "l2"])
def test_is_the_naive_one(attack: LeastLikely) -> None:
    compare(attack)


@pytest.mark.parametrize("attack", EVERY, ids=["one", "linf", "l2", "margin"])
def test_conforms(attack: LeastLikely) -> None:
    check_attack(attack)


@pytest.mark.parametrize("attack", EVERY, ids=["one", "linf", "l2", "margin"])
def test_options_are_values(attack: LeastLikely) -> None:
    assert pickle.loads(pickle.dumps(attack)) == attack == eval(repr(attack))
    assert read(LeastLikely, attack.as_json(), where="attack") == attack
    assert load(ATTACKS, "least_likely") is LeastLikely


def test_differs_from_its_parents_and_is_them_on_the_way_to_a_class() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, N)
    for attack, parent in (
        (LeastLikely(eps=0.1), FGSM(eps=0.1)),
        (LeastLikely(eps=0.1, steps=5), BIM(eps=0.1, steps=5)),
    ):
        away, least = (each(model_of(function, bounds), inputs, labels) for each in (parent, attack))
        assert not torch.allclose(away.adversarial, least.adversarial, rtol=0, atol=1e-3)
        goal = Targeted((labels + 1) % 3)
        same, aimed = (each(model_of(function, bounds), inputs, goal) for each in (parent, attack))
        assert torch.equal(same.adversarial, aimed.adversarial)
        assert torch.equal(same.forwards + 1, aimed.forwards), "one more finds the class"


def test_goals_of_ones_own_keep_saying_what_counts() -> None:
    """Leaving two classes at once counts; the way leads to the least likely class all the same."""
    function, bounds, inputs, labels = curved_problem(0.1, N)
    goal = Untargeted(labels) & Untargeted((labels + 1) % 3)
    out = LeastLikely(eps=0.3, steps=8)(model_of(function, bounds), inputs, goal)
    assert out.success.any()
    assert (function(out.adversarial).argmax(1) == (labels + 2) % 3)[out.success].all()


def test_the_ratio_needs_four_classes() -> None:
    function, bounds, inputs, labels = curved_problem(0.1, 4)
    model = CountingModel(function, bounds=bounds, dtype=torch.float64, num_classes=3)
    with pytest.raises(ConfigError, match="E135"):
        LeastLikely(eps=0.1, loss="dlr")(model, inputs, labels)


@pytest.mark.parametrize("options", [{"steps": 0}, {"step_size": 0.0}, {"loss": "x"}, {"eps": -1.0}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="E130"):
        LeastLikely(**{"eps": 0.1} | options)


@pytest.mark.parametrize("wrong", ["most likely", "second"])
def test_another_class_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true = TowardLeast.anchor

    def anchor(self, origin):
        aim = (origin.logits * (-1 if wrong == "most likely" else 1)).argsort(1)[:, 0 if wrong == "most likely" else 1]
        return {**true(self, origin), "aim": aim}

    monkeypatch.setattr(TowardLeast, "anchor", anchor)
    with pytest.raises(AssertionError):
        compare(EVERY[1])
