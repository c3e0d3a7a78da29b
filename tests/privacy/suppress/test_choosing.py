"""Patterns mean parameters: each once, and none silently missed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vambrace.errors import ConfigError
from vambrace.privacy.suppress.choosing import chosen


def net() -> nn.Module:
    return nn.ModuleDict({"conv1": nn.Conv2d(1, 2, 3), "conv10": nn.Conv2d(2, 2, 3), "fc1": nn.Linear(8, 4)})


def pick(module: nn.Module, *patterns: str, optimizer: torch.optim.Optimizer | None = None) -> list[str]:
    return list(chosen(module, patterns, optimizer or torch.optim.SGD(module.parameters(), lr=0.1)))


def refused(module: nn.Module, *patterns: str, optimizer: torch.optim.Optimizer | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        pick(module, *patterns, optimizer=optimizer)
    assert caught.value.code == "E181"
    return caught.value


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("fc1.weight",), ["fc1.weight"]),
        (("conv*.weight",), ["conv1.weight", "conv10.weight"]),
        (("conv?.weight",), ["conv1.weight"]),
        (("fc1.*", "conv1.*"), ["conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias"]),
        (("*.bias", "fc1.bias"), ["conv1.bias", "conv10.bias", "fc1.bias"]),
        (("conv1[0].*",), ["conv10.weight", "conv10.bias"]),
    ],
)
def test_patterns(patterns: tuple[str, ...], expected: list[str]) -> None:
    assert pick(net(), *patterns) == expected


def test_a_name_is_not_a_part_of_a_name() -> None:
    assert pick(net(), "conv1.weight") == ["conv1.weight"]  # not conv10.weight, nor aconv1.weight
    refused(net(), "conv1.weigh")


def test_a_name_with_brackets_is_a_name() -> None:
    module = nn.ParameterDict({"w[0]": nn.Parameter(torch.ones(2))})
    assert pick(module, "w[0]") == ["w[0]"]


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("fc1", "fc1.weight"), ("fc1.wegiht", "fc1.weight"), ("conv_1.bias", "conv1.bias"), ("CONV1.weight", "conv1")],
)
def test_what_matches_nothing_names_the_nearest(pattern: str, nearest: str) -> None:
    error = refused(net(), "conv1.*", pattern)
    assert repr(pattern) in error.seen
    assert nearest in error.fix


def test_a_module_without_parameters() -> None:
    assert "has parameters" in refused(nn.ReLU(), "*", optimizer=torch.optim.SGD([torch.ones(1)], lr=1)).fix


def test_tied_parameters_are_one_and_found_by_either_name() -> None:
    module = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    module["head"].weight = module["embed"].weight
    for patterns in (("head.weight",), ("embed.weight",), ("*",)):
        assert pick(module, *patterns) == ["embed.weight"]


def test_frozen_parameters_are_left_alone_unless_nothing_else_is_named() -> None:
    module = net()
    module["conv1"].requires_grad_(False)
    assert pick(module, "*.weight") == ["conv10.weight", "fc1.weight"]
    assert "conv1.weight" in refused(module, "*.weight", "conv1.*").seen


def test_whole_numbers_complex_numbers_and_lazy_layers_are_refused() -> None:
    module = nn.Module()
    module.codes = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    module.waves = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    module.late = nn.LazyLinear(3)
    module.last = nn.Linear(2, 2)
    assert "torch.int8" in refused(module, "codes").seen
    assert "waves of torch.complex64" in refused(module, "waves").seen
    assert "late.weight" in refused(module, "late.weight").seen
    assert pick(module, "last.*") == ["last.weight", "last.bias"]


def test_another_optimizers_parameters_are_refused() -> None:
    module = net()
    error = refused(module, "*.weight", optimizer=torch.optim.SGD(module["fc1"].parameters(), lr=0.1))
    assert "conv1.weight" in error.seen
