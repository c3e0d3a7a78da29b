"""What may not change behind private training's back, or something would train outside of the clipped sum.

Looked at once, when training is made private: layers that look across the batch, losses that move with the samples
beside them, buffers that a forward pass fills from samples. Looked at in every step: which parameters train, and that
the optimizer steps here only.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  the base that torch has

from vambrace.errors import ConfigError
from vambrace.privacy.dp.engine.proof import checked_losses

if TYPE_CHECKING:
    from vambrace.privacy.dp.engine.engine import Task

__all__ = ["Guard", "check_apart", "modes"]

_CLOSE = 1e-4
_ROUGH = 1e-2  # of losses in half precision

_guards: weakref.WeakKeyDictionary[torch.optim.Optimizer, weakref.ref[Guard]] = weakref.WeakKeyDictionary()


class Guard:
    """Holds a module and its optimizer to what they were when training was made private.

    The optimizer gets a hook that refuses steps from elsewhere; a later guard on the same optimizer takes its place.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._module, self._optimizer = module, optimizer
        self._trained = _trained(module)
        self._parameters = tuple(parameter for parameter in module.parameters() if parameter.requires_grad)
        self._held = _held(optimizer)
        self._open, self._stepping = True, False
        before = _guards.get(optimizer)
        older = None if before is None else before()
        if older is not None:
            older.release()
        _guards[optimizer] = weakref.ref(self)
        self._hook = optimizer.register_step_pre_hook(self._look)

    def check(self) -> None:
        """Raise E158 where parameters came, went, moved, or were frozen or thawed, or where training was ended."""
        if not self._open:
            raise _changed("private training that was closed, or made anew for the same optimizer")
        if _trained(self._module) != self._trained:
            now = {name for name, each in self._module.named_parameters() if each.requires_grad}
            raise _changed(f"other trainable parameters than at the start (now {', '.join(sorted(now)) or 'none'})")
        if _held(self._optimizer) != self._held:
            raise _changed("an optimizer over other parameters than at the start")

    def step(self) -> None:
        """One step of the optimizer, on the parameters that private training gave gradients."""
        trained = {id(parameter) for parameter in self._parameters}
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in trained:
                    parameter.grad = None  # frozen ones may hold one from before, which would be stepped on
        with self._letting():
            self._optimizer.step()

    def release(self) -> None:
        """Let the optimizer step anywhere again; no private step runs after it."""
        self._open = False
        self._hook.remove()

    @contextmanager
    def _letting(self) -> Generator[None]:
        self._stepping = True
        try:
            yield
        finally:
            self._stepping = False

    def _look(self, *_: object) -> None:
        if not self._stepping:
            raise _changed("a step of the optimizer from outside, on gradients that nobody clipped")


def check_apart(module: nn.Module, task_of: Callable[[Sequence[int]], Task]) -> None:
    """Raise E151 where a sample's loss moves with the samples beside it, or a buffer is filled from samples.

    The same sample stands first in two batches of one size, with the same random numbers and other samples beside it:
    so modules that draw at random are no exception.
    """
    for name, layer in cast("Iterator[tuple[str, nn.Module]]", module.named_modules()):
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            kind = type(cast("object", layer)).__name__
            raise _mixing(f"{name or 'the module'}, a {kind} that takes statistics over the batch")
    before = {name: each.clone() for name, each in module.named_buffers()}
    first, buffers = _tried(module, task_of((0, 1, 2)), before)
    other, others = _tried(module, task_of((0, 3, 4)), before)
    for name in buffers.keys() | others.keys():
        one, two = buffers.get(name), others.get(name)
        if one is None or two is None or one.shape != two.shape or not _equal(one, two):
            raise _mixing(f"the buffer {name}, which a forward pass fills from samples, unclipped and without noise")
    close = _CLOSE if first.dtype in (torch.float32, torch.float64) else _ROUGH
    off = abs(float(first[0]) - float(other[0])) / (1.0 + abs(float(first[0])))
    if off > close:
        raise _mixing(f"a sample whose loss changes by {off:.2g} (relative) with the samples beside it")


def modes(module: nn.Module) -> tuple[bool, ...]:
    """Which of its modules are in training mode."""
    return tuple(each.training for each in module.modules())


def _tried(module: nn.Module, task: Task, before: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of a task, and what it left in the buffers, which are put back."""
    devices = {each.device for each in module.parameters() if each.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            torch.manual_seed(0)
            return checked_losses(task), {name: each.clone() for name, each in module.named_buffers()}
    finally:
        for name, each in module.named_buffers():
            if name in before and each.shape == before[name].shape:
                each.copy_(before[name])


def _equal(one: Tensor, two: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), two.nan_to_num()) if one.is_floating_point() else torch.equal(one, two)


def _trained(module: nn.Module) -> list[tuple[int, Any, Any]]:
    return [(id(each), each.device, each.dtype) for each in module.parameters() if each.requires_grad]


def _held(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]


def _mixing(seen: str) -> ConfigError:
    return ConfigError(
        "E151",
        seen=seen,
        expected="losses that depend on their own sample alone, and nothing else that samples leave behind",
        fix="replace what looks across the batch: dp.fix_modules(module) for batch norms, a mean per sample for losses",
    )


def _changed(seen: str) -> ConfigError:
    return ConfigError(
        "E158",
        seen=seen,
        expected="the module and the optimizer that were made private, stepped by private.step alone",
        fix="make the training private again after such a change (with the same ledger, which goes on counting); "
        "close() ends private training",
    )
