"""Layers that look across the batch are replaced by ones that do not, wherever they hang."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from privacy.dp.toy_training import samples, training
from vambrace.errors import ConfigError
from vambrace.privacy import dp


def apart(module: nn.Module, inputs: Tensor) -> bool:
    """Whether every sample alone gives what it gives beside the others."""
    whole = module(inputs)
    alone = torch.cat([module(inputs[row : row + 1]) for row in range(len(inputs))])
    return torch.allclose(whole, alone, atol=1e-5)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = self.same = nn.BatchNorm2d(8)
        self.inner = nn.ModuleDict({"deep": nn.Sequential(nn.Conv2d(8, 8, 1), nn.SyncBatchNorm(8))})
        self.again = nn.Sequential(self.one)
        self.plain = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)

    def forward(self, inputs: Tensor) -> Tensor:
        out = self.inner["deep"][0](self.one(inputs))
        return self.plain(self.again(self.same(self.inner["deep"][1](out))))


def test_no_batch_statistics_are_left() -> None:
    module = Nested()
    weight = module.one.weight
    inputs = torch.randn(5, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert dp.fix_modules(module) is module
    assert not [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    assert apart(module, inputs)
    assert module.one is module.same is module.again[0]
    assert module.one.weight is weight
    assert not list(module.buffers())


@pytest.mark.parametrize(
    ("channels", "groups", "found"),
    [(64, 32, 16), (128, 32, 32), (256, 32, 32), (6, 32, 1), (12, 32, 3), (3, 32, 1), (64, 5, 4), (7, 0, 1)],
)
def test_groups_divide_and_keep_four_channels(channels: int, groups: int, found: int) -> None:
    fixed = dp.fix_modules(nn.BatchNorm2d(channels, eps=1e-3), groups=groups)
    assert isinstance(fixed, nn.GroupNorm)
    assert (fixed.num_groups, fixed.num_channels, fixed.eps) == (found, channels, 1e-3)


def test_one_dimension_keeps_its_signal() -> None:
    """A group of one value is always normalised to zero."""
    fixed = dp.fix_modules(nn.BatchNorm1d(16))
    assert fixed.num_groups == 1
    inputs = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    assert float(fixed(inputs).detach().std()) > 0.5
    assert float(nn.GroupNorm(16, 16)(inputs).detach().abs().max()) < 1e-3  # what is avoided


def test_scale_mode_and_frozen_parameters_are_kept() -> None:
    old = nn.BatchNorm2d(8).eval()
    old.weight.requires_grad_(False)
    fixed = dp.fix_modules(old)
    assert not fixed.training
    assert fixed.weight is old.weight
    assert not fixed.weight.requires_grad
    assert dp.fix_modules(nn.BatchNorm2d(8, affine=False)).weight is None


def test_what_needs_no_fix_and_what_is_not_known_stay() -> None:
    class Activated(nn.BatchNorm1d):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs).relu()

    plain = nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3), nn.InstanceNorm1d(3))
    assert [*dp.fix_modules(plain)] == [*plain]
    odd = nn.Sequential(nn.Linear(6, 3), Activated(3)).double()
    assert type(dp.fix_modules(odd)[1]) is Activated
    with pytest.raises(ConfigError, match=r"E151.*1.*Activated"):
        training(odd)


def test_a_fixed_module_trains() -> None:
    module = dp.fix_modules(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double())
    private = training(module, samples())
    for batch in private.batches(steps=2):
        private.step(batch)
    assert private.spent.steps == 2
