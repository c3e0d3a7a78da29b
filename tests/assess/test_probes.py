"""Models just under and just over each threshold of the behaviour questions, and what must not be flagged."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vambrace import models
from vambrace.assess.constancy import OTHER_CALL, SAME_CALL
from vambrace.assess.probes import FLAT, LOST, SATURATED, Probe, behaviour_flags, late_flags, score_flags
from vambrace.errors import ModelMisbehaved
from vambrace.search.judge import CLEAR
from vambrace.testing.hostile import build


def asked(module, batch, *, size=32, width=32, **options):
    model = models.from_torch(module.eval(), **options)
    return Probe.ask(model, batch.inputs, batch.labels, size=size, batch=width)


def codes(flags):
    return {flag.code for flag in flags}


class Nudged(nn.Module):
    """Moves all logits by `size` times their spread in one way: per call, by company, or by position."""

    def __init__(self, base: nn.Module, way: str, size: float) -> None:
        super().__init__()
        self.base, self.way, self.size, self.calls = base, way, size, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        scale = 20.0
        logits = self.base(inputs).clamp(-scale, scale)
        logits = torch.cat([logits[:, :5] * 0 + scale, logits[:, 5:] * 0 - scale], dim=1)
        self.calls += 1
        if self.way == "call":
            return logits - self.size * scale * (self.calls % 2)
        if self.way == "company":
            return logits - self.size * scale * (len(inputs) < 32)
        if self.way == "alone":
            return logits - self.size * scale * (len(inputs) == 1)
        if self.way == "full batch":
            return logits - self.size * scale * (len(inputs) > 32)
        return logits - self.size * scale * (torch.arange(len(inputs))[:, None] == 0)


@pytest.mark.parametrize(
    ("way", "threshold", "code"),
    [
        ("call", SAME_CALL, "E420"),
        ("company", OTHER_CALL, "E421"),
        ("alone", OTHER_CALL, "E421"),
        ("full batch", OTHER_CALL, "E421"),
        ("position", OTHER_CALL, "E422"),
    ],
)
def test_thresholds_just_under_and_just_over(way, threshold, code, net, digits):
    batch = digits.read(range(64))
    # 8 units in the last place of the largest logit are rounding and no difference.
    for factor, flagged in ((0.9, False), (1.2, True)):
        size = factor * threshold + 8 * torch.finfo(torch.float32).eps
        probe = asked(Nudged(net, way, size), batch, width=64)
        assert (code in codes(behaviour_flags(probe))) is flagged


def test_the_same_difference_is_found_under_an_offset(net, digits):
    """Logits that share an offset mean the same; noise must not hide behind it."""

    class Raised(nn.Module):
        calls = 0

        def forward(self, inputs):
            self.calls += 1
            return net(inputs) + 1e6 + 3.0 * (self.calls % 2)

    probe = asked(Raised(), digits.read(range(40)))
    assert "E420" in codes(behaviour_flags(probe))


def test_the_last_question_is_the_first_one(net, digits):
    class Late(nn.Module):
        late = False

        def forward(self, inputs):
            return net(inputs) + self.late * torch.eye(10)[0]

    module = Late()
    probe = asked(module, digits.read(range(40)))
    assert behaviour_flags(probe) == []
    assert late_flags(probe) == []
    module.late = True
    assert codes(late_flags(probe)) == {"E420"}


def test_a_small_batch_is_not_asked_for_a_large_one(net, digits):
    """A model that takes one row only can be measured at batch 1."""

    class OneRow(nn.Module):
        def forward(self, inputs):
            assert len(inputs) == 1
            return net(inputs)

    batch = digits.read(range(40))
    probe = asked(OneRow(), batch, width=1)
    assert behaviour_flags(probe) == []
    with pytest.raises(ModelMisbehaved, match="AssertionError"):
        asked(OneRow(), batch, width=16)


@pytest.mark.parametrize("places", [[0], [31], [5, 6, 39], list(range(10, 20))])
def test_samples_at_fault_are_found_one_by_one(net, digits, places):
    batch = digits.read(range(40))

    class Raises(nn.Module):
        def forward(self, inputs):
            if any(torch.equal(row, batch.inputs[place]) for row in inputs for place in places):
                raise ValueError("not this one")
            return net(inputs)

    probe = asked(Raises(), batch)
    assert probe.refused[0] == tuple(places)
    assert "not this one" in probe.refused[1]
    kept = [place for place in range(40) if place not in places]
    assert torch.equal(probe.inputs, batch.inputs[kept])
    assert torch.equal(probe.labels, batch.labels[kept])
    torch.testing.assert_close(probe.logits, net(batch.inputs[kept]).detach().double(), rtol=0, atol=1e-4)


def test_a_model_that_always_raises_is_not_asked_for_long(digits):
    class Raises(nn.Module):
        calls = 0

        def forward(self, inputs):
            self.calls += 1
            raise ValueError("never")

    module = Raises()
    with pytest.raises(ModelMisbehaved, match="never"):
        asked(module, digits.read(range(200)), width=128)
    assert module.calls < 40


def test_one_class_for_data_of_several(net, digits):
    """E411 for data of several classes only: where all labels agree, one class for all may be right."""
    module = build("one_class_always", net)
    several = asked(module, digits.read(range(100)))
    assert codes(score_flags(several, class_names=(), known=10)) == {"E411", "E432"}
    alike = [place for place, label in enumerate(digits.labels) if label == 3]
    one = asked(module, digits.read(alike))
    assert "E411" not in codes(score_flags(one, class_names=(), known=10))


class Shifted(nn.Module):
    """Logits that share an offset."""

    def __init__(self, base: nn.Module, offset: float) -> None:
        super().__init__()
        self.base, self.offset = base, offset

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base(inputs) + self.offset


@pytest.mark.parametrize(("factor", "flagged"), [(0.8, False), (1.25, True)])
def test_offsets_just_under_and_just_over(net, digits, factor, flagged):
    batch = digits.read(range(60))
    logits = net(batch.inputs).detach()
    spread = float((logits.amax(1) - logits.amin(1)).median())
    probe = asked(Shifted(net, factor * LOST * spread / CLEAR), batch)
    found = [flag for flag in score_flags(probe, class_names=(), known=10) if flag.code == "E436"]
    assert bool(found) is flagged
    assert all(flag.families == ("adversarial",) for flag in found)


@pytest.mark.parametrize(("share", "flagged"), [(0.5, False), (0.55, True)])
def test_saturation_just_under_and_just_over(net, digits, share, flagged):
    batch = digits.read(range(100))
    many = round(share * 100)
    assert SATURATED == 0.5

    class Sure(nn.Module):
        def forward(self, inputs):
            sure = 200.0 * nn.functional.one_hot(batch.labels, 10)[: len(inputs)]
            return torch.where(torch.arange(len(inputs))[:, None] < many, sure, net(inputs) * 0.1)

    probe = asked(Sure(), batch, width=100)
    assert ("E431" in codes(score_flags(probe, class_names=(), known=10))) is flagged


class Scaled(nn.Module):
    """The same answers, with larger or smaller logits."""

    def __init__(self, base: nn.Module, factor: float) -> None:
        super().__init__()
        self.base, self.factor = base, factor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base(inputs) * self.factor


@pytest.mark.parametrize(("factor", "flagged"), [(1.1, False), (0.9, True), (1e-4, True), (1e-12, True)])
def test_flat_logits_just_over_and_under(net, digits, factor, flagged):
    """Equal answers, and yet attacks on cross entropy find less: never without a remark."""
    batch = digits.read(range(60))
    logits = net(batch.inputs).detach()
    spread = float((logits.amax(1) - logits.amin(1)).median())
    found = score_flags(asked(Scaled(net, factor * FLAT / spread), batch), class_names=(), known=10)
    assert ("E438" in codes(found)) is flagged
    assert all((flag.level, flag.families) == ("warn", ("adversarial",)) for flag in found if flag.code == "E438")


def test_two_classes_have_one_rival_only(net, digits):
    class Two(nn.Module):
        def forward(self, inputs):
            return 1e-3 * net(inputs)[:, :2]

    two = [place for place, label in enumerate(digits.labels) if label < 2]
    assert "E438" not in codes(score_flags(asked(Two(), digits.read(two)), class_names=(), known=2))


class Right(nn.Module):
    """Right about the first samples, and wrong about the others in no order of classes."""

    def __init__(self, labels: torch.Tensor, right: int) -> None:
        super().__init__()
        places = torch.arange(len(labels))
        self.logits = 10.0 * nn.functional.one_hot((labels + (places >= right) * (1 + places // 10)) % 10, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits[(inputs[:, 0] * (len(self.logits) - 1)).round().long()].float()


@pytest.mark.parametrize(("right", "flagged"), [(6, True), (10, True), (11, False), (60, False)])
def test_a_score_that_a_guess_would_get_is_said(right, flagged, digits):
    """Six samples of each of ten classes: a guess gets 6 of 60, and 11 are surely more."""
    labels = torch.arange(60) % 10
    inputs = torch.linspace(0, 1, 60)[:, None]
    module = Right(labels, right)
    probe = Probe.ask(models.from_torch(module.eval()), inputs, labels, size=32, batch=60)
    found = [flag for flag in score_flags(probe, class_names=(), known=10) if flag.code == "E437"]
    assert bool(found) is flagged
    if found:
        assert f"right on {right} of 60 probed samples, not surely more than by guessing" in found[0].text
        assert "order of classes" in found[0].text
        assert found[0].level == "warn"


def test_naming_the_commonest_class_is_a_guess_too():
    labels = torch.tensor([0] * 45 + [1] * 5 + [2] * 10)
    inputs = torch.linspace(0, 1, 60)[:, None]
    probe = Probe.ask(models.from_torch(Right(labels, 45).eval()), inputs, labels, size=32, batch=60)
    (flag,) = [flag for flag in score_flags(probe, class_names=(), known=10) if flag.code == "E437"]
    assert "by naming the commonest class" in flag.text


def test_unused_outputs_qualify_no_number_but_their_own_remark(net, digits):
    (flag,) = [
        flag
        for flag in score_flags(asked(net, digits.read(range(100))), class_names=(), known=1)
        if flag.code == "E413"
    ]
    assert flag.families == ("preflight",)
    assert "10 outputs for 1 class:" in flag.text
    assert not flag.concerns("clean")
