"""What may not change behind private training's back, or something would train outside of the clipped sum.

The engine proves once, in every mode that the module is trained in and of whatever it is made then, that samples do not
meet and buffers are not filled from them. Looked at here, in every step: which parameters train, and that the optimizer
steps nowhere else.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vambrace.errors import ConfigError
from vambrace.privacy.dp import ranks

__all__ = ["Guard", "modes"]

_guards: weakref.WeakKeyDictionary[torch.optim.Optimizer, weakref.ref[Guard]] = weakref.WeakKeyDictionary()


class Guard:
    """Holds a module and its optimizer to what they were when training was made private.

    The optimizer gets a hook that refuses steps from elsewhere; a later guard on the same optimizer takes its place.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._module, self._optimizer = module, optimizer
        self._trained = _trained(module)
        self._parameters = tuple(parameter for parameter in module.parameters() if parameter.requires_grad)
        self._held, self._world = _held(optimizer), ranks.world()
        self._open, self._stepping = True, False
        before = _guards.get(optimizer)
        older = None if before is None else before()
        if older is not None:
            older.release()
        _guards[optimizer] = weakref.ref(self)
        self._hook = optimizer.register_step_pre_hook(self._look)

    def check(self) -> None:
        """Raise E158 where parameters, the optimizer or the processes are not those of the start, or training ended."""
        if not self._open:
            raise _changed("private training that was closed, or made anew for the same optimizer")
        if _trained(self._module) != self._trained:
            now = ", ".join(name for name, each in self._module.named_parameters() if each.requires_grad)
            raise _changed(f"parameters that were added, replaced, frozen, thawed or moved; now {now or 'none'} train")
        if _held(self._optimizer) != self._held:
            raise _changed("an optimizer over other parameters than at the start")
        if ranks.world() != self._world:
            raise _changed(f"{ranks.world()} processes together where there were {self._world}")

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


def modes(module: nn.Module) -> tuple[tuple[type[nn.Module], bool], ...]:
    """What it is made of, and which of its modules are in training mode."""
    return tuple((type(each), each.training) for each in module.modules())


def _trained(module: nn.Module) -> list[tuple[int, Any, Any]]:
    return [(id(each), each.device, each.dtype) for each in module.parameters() if each.requires_grad]


def _held(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]


def _changed(seen: str) -> ConfigError:
    return ConfigError(
        "E158",
        seen=seen,
        expected="the module and the optimizer that were made private, stepped by private.step alone",
        fix="make the training private again after such a change (with the same ledger, which goes on counting); "
        "close() ends private training",
    )
