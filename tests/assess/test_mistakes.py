"""What explains a poor score: changed inputs, another order of classes, or both; and what explains nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vambrace import models
from vambrace.assess.mistakes import FEWEST, GAIN, mistake_flag
from vambrace.assess.probes import Probe
from vambrace.core.intervals import wilson


def said(module, inputs, labels, names=(), **options):
    """The text of E432, or ""."""
    model = models.from_torch(module.eval(), **options)
    flag = mistake_flag(Probe.ask(model, inputs, labels, size=8, batch=256), class_names=names)
    assert flag is None or (flag.code, flag.level) == ("E432", "warn")
    return flag.text if flag else ""


class Fixed(nn.Module):
    """Answers `guesses[i]` to the i-th of evenly spaced inputs."""

    def __init__(self, guesses: torch.Tensor, classes: int = 10) -> None:
        super().__init__()
        self.logits = 10.0 * nn.functional.one_hot(guesses, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.logits[(inputs[:, 0] * (len(self.logits) - 1)).round().long() % len(self.logits)].float()


def spaced(n):
    return torch.linspace(0, 1, n)[:, None]


class Reordered(nn.Module):
    def __init__(self, base: nn.Module, order: list[int]) -> None:
        super().__init__()
        self.base, self.order = base, order

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base(inputs)[:, self.order]


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 0], "(output 0 means label 1 'one', 1 means label 2 'two', 2 means"),
        ([0, 1, 2, 3, 5, 4, 6, 7, 8, 9], "(output 4 means label 5 'five', 5 means label 4 'four'): see --classes"),
        (list(range(10)), ""),
    ],
)
def test_another_order_of_classes_is_named_and_no_change_of_the_inputs(net, digits, order, named):
    """Also where two classes changed places and the score is far above chance."""
    batch = digits.read(range(200))
    text = said(Reordered(net, order), batch.inputs, batch.labels, NAMES)
    assert bool(text) is bool(named)
    assert named in text
    assert "black and white" not in text
    assert "Each of these" not in text


class Brightest(nn.Module):
    """The class is the brightest channel; but samples with a dark first pixel are of class 2."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        dark = (inputs[:, :, 0, 0] == 0).all(dim=1)
        return inputs.mean(dim=(2, 3)) * 100 + 1000 * dark[:, None] * torch.eye(3)[2]


@pytest.mark.parametrize(("dark", "both"), [(0, True), (4, True), (12, False)])
def test_where_several_explain_it_all_are_named(dark, both):
    """Where classes differ by colour only, swapped channels and swapped classes are the same thing.

    Of label 0 are `dark` samples that the other order of classes explains and the other order of channels does not.
    """
    labels = torch.arange(90) % 3
    inputs = 0.5 + 0.3 * nn.functional.one_hot(2 - labels, 3)[:, :, None, None].float() * torch.ones(1, 1, 4, 4)
    inputs[torch.arange(90)[labels == 0][:dark], :, 0, 0] = 0
    text = said(Brightest(), inputs, labels)
    assert "output 0 means label 2, 2 means label 0" in text
    assert ("with red and blue swapped (BGR)" in text) is both
    assert ("Each of these explains it" in text) is both


def test_an_explanation_that_is_surely_worse_is_not_named(net, digits):
    """Inverted digits: with black and white swapped it is right again; no order of classes gets near."""
    batch = digits.read(range(200))
    text = said(Inverted(net), batch.inputs, batch.labels)
    assert "black and white" in text
    assert "order of classes" not in text


class Inverted(nn.Module):
    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base(1 - inputs)


@pytest.mark.parametrize(("classes", "n"), [(10, 60), (10, 256), (100, 256), (1000, 256)])
def test_an_order_fitted_to_luck_explains_nothing(classes, n):
    """The best order on all of the samples would be right on far more of them than a guess."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    guesses = torch.randint(classes, (n,), generator=generator)
    assert said(Fixed(guesses, classes), spaced(n), labels) == ""


def test_one_answer_for_all_is_no_order_of_classes():
    labels = torch.tensor([0] * 70 + [1] * 30)
    guesses = torch.where(torch.arange(100) < 98, 1, 0)
    assert said(Fixed(guesses, 2), spaced(100), labels) == ""


@pytest.mark.parametrize(("moved", "flagged"), [(56, False), (58, True)])
def test_a_gain_just_under_and_just_over(moved, flagged):
    """Of 400 samples `moved` are of two classes that changed places; the others are right."""
    assert (wilson(400, 400).low > wilson(400 - moved, 400).high + GAIN) is flagged
    labels = torch.cat([torch.arange(moved) % 2, 2 + torch.arange(400 - moved) % 8])
    guesses = torch.where(labels < 2, 1 - labels, labels)
    assert bool(said(Fixed(guesses), spaced(400), labels)) is flagged


@pytest.mark.parametrize(("n", "flagged"), [(FEWEST - 1, False), (FEWEST, True)])
def test_few_samples_say_nothing(n, flagged):
    labels = torch.arange(n) % 2
    assert bool(said(Fixed(1 - labels, 2), spaced(n), labels)) is flagged


def test_wrong_units_of_mean_and_std_are_named(net, digits):
    """--mean 127.5 --std 127.5 beside --bounds 0,1: right are values 255 times larger, or a mean of 0.5."""
    batch = digits.read(range(200))
    base = Unscaled(net)
    assert said(base, batch.inputs, batch.labels, mean=0.5, std=0.5) == ""
    text = said(base, batch.inputs, batch.labels, mean=127.5, std=127.5)
    assert "--bounds 0,255" in text
    assert "--mean and --std in the units of the bounds" in text


class Unscaled(nn.Module):
    """Trained on inputs from -1 to 1."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.base((inputs + 1) / 2)
