"""Off CPU no step of any rule makes the host wait for the device, neither to see a value nor to hand one over.

Steps run on tensors of the device "meta", which have a form and no values: what needs a value raises.
"""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vambrace.attacks import (
    APGD,
    BIM,
    DDN,
    DIFGSM,
    FAB,
    FMN,
    MDIFGSM,
    NIFGSM,
    PGD,
    TIFGSM,
    VMIFGSM,
    CarliniWagner,
    DeepFool,
    LeastLikely,
    Square,
)
from vambrace.attacks.ball import Ball
from vambrace.attacks.fixed import FixedRadius
from vambrace.attacks.operators import Burst, Toward, Windows
from vambrace.core.access import Bounds
from vambrace.core.rng import Streams
from vambrace.search.rule import Answer, Origin, Rule
from vambrace.testing.counting import CountingModel

N, SHAPE, CLASSES = 6, (3, 8, 8), 10
INPUTS = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N)
MODEL = CountingModel(lambda points: points.flatten(1)[:, :CLASSES], num_classes=CLASSES)
ATTACKS = [
    *(attack(norm=norm, eps=0.1) for attack in (PGD, APGD, Square) for norm in ("linf", "l2", "l1")),
    APGD(norm="l1", eps=0.1, large_radii=True),
    APGD(eps=0.1, targets=3),
    *(attack(eps=0.1) for attack in (BIM, NIFGSM, DIFGSM, TIFGSM, VMIFGSM, MDIFGSM, LeastLikely)),
    *(FMN(norm=norm) for norm in ("linf", "l2", "l1", "l0")),
    *(FAB(norm=norm) for norm in ("linf", "l2", "l1")),
    FAB(targets=3),
    DDN(),
    DeepFool(),
    DeepFool(norm="linf"),
    CarliniWagner(),
]
BALLS = [Ball(norm=norm, eps=0.1) for norm in ("linf", "l2", "l1")]
MOVES: list[Rule] = [
    *(Windows(ball=ball, steps=5) for ball in BALLS),
    *(Burst(ball=ball, loss="margin", steps=5, spreading=2, classes=CLASSES) for ball in BALLS),
    Burst(ball=BALLS[0], loss="toward", steps=5),
]


class Found(Exception):
    """Carries the rule that an attack would search by."""


def rule_of(attack: object, monkeypatch: pytest.MonkeyPatch) -> Rule:
    def search(problem: object, rule: Rule, **_: object) -> None:
        raise Found(rule)

    module = "vambrace.attacks.fixed" if isinstance(attack, FixedRadius) else type(attack).__module__
    monkeypatch.setattr(importlib.import_module(module), "search", search)
    with pytest.raises(Found) as caught:
        attack(MODEL, INPUTS, LABELS)
    return caught.value.args[0]


def away(value: object) -> object:
    """A tensor, or what holds some, on the device that has no values."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {name: away(each) for name, each in value.items()}
    if dataclasses.is_dataclass(value) and any(
        isinstance(getattr(value, field.name), Tensor) for field in dataclasses.fields(value)
    ):
        return dataclasses.replace(
            value, **{field.name: away(getattr(value, field.name)) for field in dataclasses.fields(value)}
        )
    return value


class Unfed(TorchFunctionMode):
    """Refuses to make a tensor of values that the host holds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy), "a copy to the device"
        return func(*args, **(kwargs or {}))


def stepped(rule: Rule) -> None:
    """Two steps, in the second of which nothing may be handed over that the first could have left there."""
    goal = Toward(LABELS, (LABELS + 1) % CLASSES)
    logits = torch.randn(N, CLASSES, generator=torch.Generator().manual_seed(1))
    rng, ids = Streams(0), torch.arange(N)
    origin = Origin(inputs=INPUTS, ids=ids, start=None, bounds=Bounds(0.0, 1.0), rng=rng, goal=goal, logits=logits)
    anchor = dict(rule.anchor(origin))
    state = dict(rule.start(origin, anchor, torch.zeros(N, dtype=torch.int64), None))
    if hasattr(rule, "box"):
        rule = dataclasses.replace(rule, box=away(rule.box))
    anchor, state, logits, goal = away(anchor), away(state), away(logits), away(goal)
    slope = torch.empty(N, *SHAPE, device="meta")

    def step() -> None:
        point = state["point"]
        if rule.gradient:
            for view in range(rule.sighted, rule.views):
                rule.look(anchor, state, point, view, rng)
            rule.slope(anchor, state, logits, goal)
        slopes = slope if rule.slopes == 1 else slope.expand(rule.slopes, *slope.shape)
        others = slope if rule.views > rule.leading else None
        rule.step(anchor, dict(state), Answer(logits, goal, slopes, others, rng))

    step()
    with Unfed():
        step()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: f"{each.name}-{each.norm}")
def test_no_step_of_an_attack_makes_the_host_wait(attack, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped(rule_of(attack, monkeypatch))


@pytest.mark.parametrize("rule", MOVES, ids=lambda each: f"{type(each).__name__}-{each.norm}")
def test_no_step_of_a_move_makes_the_host_wait(rule: Rule) -> None:
    stepped(rule)


@pytest.mark.parametrize(
    "look", [lambda x: bool((x > 0).any()), lambda x: x[x > 0], lambda x: torch.tensor([0.5], device=x.device)]
)
def test_a_rule_that_waits_would_be_told(look) -> None:
    """Negative control."""

    class Looking(Windows):
        def step(self, anchor, state, answer):
            look(state["point"])
            return Windows.step(self, anchor, state, answer)

    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
        stepped(Looking(ball=Ball(norm="linf", eps=0.1), steps=5))
