"""What MindArmour's SuppressPrivacy could not do, or did wrong, each as a test that ours passes.

Read in mindarmour/privacy/sup_privacy: names of one example network in the sparsity report, parameters taken by their
place in a list, names matched as parts of names, SGD's learning rate divided out of the gradient, limits on learning
rate and epochs, a cubic that goes on after its end, and a loop over every single weight.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vambrace.privacy import suppress


def step(module: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(module(inputs), torch.arange(len(inputs)) % 2).backward()
    optimizer.step()


def zeros(parameter: Tensor) -> int:
    return int((parameter == 0).sum())


def test_no_name_is_known_in_advance() -> None:
    """Theirs reads 'conv1.weight' and 'conv2.weight' by name, and takes the first two of a list for them."""
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with suppress.Suppression(layers=("2.weight",), end_step=2, end_sparsity=0.5).attach(module, optimizer) as handle:
        for _ in range(2):
            step(module, optimizer, torch.randn(4, 4, dtype=torch.float64))
    assert handle.counts() == {"2.weight": (6, 12)}
    assert (zeros(module[2].weight), zeros(module[0].weight)) == (6, 0)


def test_one_layer_is_enough() -> None:
    """Theirs indexes a second one, whether or not there is one."""
    module = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    handle = suppress.Suppression(layers=("weight",), end_step=1, end_sparsity=0.5).attach(module, optimizer)
    step(module, optimizer, torch.randn(4, 4))
    assert handle.sparsity() == 0.5


@pytest.mark.parametrize("name", ["conv1.weight", "conv10.weight"])
def test_a_name_within_a_name_is_another_name(name: str) -> None:
    """Theirs finds 'conv1.weight' in 'aconv1.weight', and gives up on what it calls a repeated match."""
    module = nn.ModuleDict({key: nn.Linear(4, 4) for key in ("conv1", "aconv1", "conv10")})
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    handle = suppress.Suppression(layers=(name,), end_step=1).attach(module, optimizer)
    assert list(handle.counts()) == [name]


@pytest.mark.parametrize("lr", [0.6, 50.0])
def test_any_learning_rate(lr: float) -> None:
    """Theirs refuses more than 0.5."""
    module = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    with suppress.Suppression(layers=("weight",), end_step=3, end_sparsity=0.5).attach(module, optimizer):
        for _ in range(5):
            step(module, optimizer, torch.randn(4, 4))
    assert zeros(module.weight) == 4


def test_a_learning_rate_that_changes() -> None:
    """Theirs adds weight / lr to a gradient: zero only while the optimizer's rate is the one told at the start."""
    module = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    options = suppress.Suppression(layers=("weight",), end_step=4, every=1, end_sparsity=0.5)
    with options.attach(module, optimizer):
        for number in range(1, 8):
            step(module, optimizer, torch.randn(4, 4))
            falling.step()
            assert zeros(module.weight) == options.masked(8, number)


def test_epochs_beyond_one_hundred() -> None:
    """Theirs refuses an end_epoch above 100; here only steps count, and any number of them."""
    options = suppress.Suppression(layers=("weight",), end_step=10**9, end_sparsity=0.5)
    assert options.sparsity(10**9 // 2) == pytest.approx(0.4375)


def test_the_schedule_ends_at_its_end() -> None:
    """Theirs goes on: one more schedule's length later its cubic is at s_e + (s_e - s_s), 1.8 for 0.9."""
    theirs = 0.9 + (0.0 - 0.9) * (1 - 20 / 10) ** 3
    assert theirs == pytest.approx(1.8)
    options = suppress.Suppression(layers=("weight",), end_step=10, end_sparsity=0.9)
    assert [options.sparsity(number) for number in (10, 11, 20, 1000)] == [0.9] * 4
    assert options.masked(100, 20) == 90


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_no_threshold_knows_the_size_of_weights(scale: float) -> None:
    """Theirs stops altogether while the first layer's largest weight is below 0.2, and noises above 0.5 at the most."""
    module = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(0.1, 1, 64).reshape(8, 8) * scale)
    before = module.weight.detach().clone()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    options = suppress.Suppression(layers=("weight",), end_step=1, end_sparsity=0.5, add_noise=0.01 * scale)
    with options.attach(module, optimizer):
        step(module, optimizer, torch.randn(2, 8))
    moved = (module.weight != before) & (module.weight != 0)
    assert zeros(module.weight) == 32
    assert torch.equal(moved, before > 0.75 * before.max())


def test_no_loop_over_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs visits every weight in Python: a growth of ours makes as many tensor operations for 100 as for 10,000."""

    class Counted(torch.overrides.TorchFunctionMode):
        calls = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.calls += 1
            return function(*args, **(kwargs or {}))

    def calls(width: int) -> int:
        module = nn.Linear(width, width, bias=False)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        suppress.Suppression(layers=("weight",), end_step=1, end_sparsity=0.5).attach(module, optimizer)
        module.weight.grad = torch.ones_like(module.weight)
        with Counted() as counted:
            optimizer.step()
        return counted.calls

    assert 10 < calls(10) == calls(100) < 100
