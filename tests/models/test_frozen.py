import copy
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vambrace.models.frozen import Frozen


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Dropout(), nn.Linear(3, 2)))


def flags(module: nn.Module) -> tuple[list[bool], list[bool]]:
    return [part.training for part in module.modules()], [part.requires_grad for part in module.parameters()]


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6), st.booleans())
def test_every_flag_comes_back(training: list[bool], live: list[bool], fails: bool) -> None:
    net = network()
    for part, flag in zip(net.modules(), training, strict=True):
        part.training = flag
    for part, flag in zip(net.parameters(), live, strict=True):
        part.requires_grad = flag
    before, frozen = flags(net), Frozen(net)
    try:
        with frozen:
            assert flags(net) == ([False] * 6, [False] * 6)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert flags(net) == before


def test_nested_use_restores_once_at_the_end() -> None:
    net = network().train()
    frozen = Frozen(net)
    with frozen:
        with frozen:
            pass
        assert not net.training
    assert net.training
    assert all(part.requires_grad for part in net.parameters())


def test_two_threads_overlap() -> None:
    net = network().train()
    frozen, inside, leave = Frozen(net), threading.Event(), threading.Event()

    def hold() -> None:
        with frozen:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10)
    with frozen:
        pass
    assert not net.training, "the other thread is still inside"
    leave.set()
    thread.join()
    assert net.training


def test_a_copy_borrows_its_own_module() -> None:
    holder = {"net": network().train()}
    holder["frozen"] = Frozen(holder["net"])
    copied = copy.deepcopy(holder)
    with copied["frozen"]:
        assert not copied["net"].training
        assert holder["net"].training


def test_a_module_may_override_train() -> None:
    """Flags are set one by one: a user's own train() is neither called nor trusted."""

    class Stubborn(nn.Linear):
        def train(self, mode: bool = True) -> nn.Module:
            raise RuntimeError("never call this")

    net = nn.Sequential(Stubborn(2, 2))
    with Frozen(net):
        assert not net[0].training
    assert net[0].training


def test_no_gradient_reaches_parameters() -> None:
    net = nn.Linear(3, 2)
    inputs = torch.rand(4, 3, requires_grad=True)
    with Frozen(net):
        logits = net(inputs)
    logits.sum().backward()
    assert net.weight.grad is None
    assert inputs.grad is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_modules_too() -> None:
    net = torch.jit.script(network().train())
    with Frozen(net):
        assert not any(part.training for part in net.modules())
    assert all(part.training for part in net.modules())
