"""Borrow a module for a call: eval mode and no gradients for parameters inside, exactly as it was outside.

The flags of every submodule and parameter are put back one by one, also when the call raises, so a network
with one part deliberately in train mode or frozen comes back like that. A module that needs no change costs
one look at each flag.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    >>> with Frozen(net):
    ...     net.training, net[0].weight.requires_grad
    (False, False)
    >>> net.training, net[0].weight.requires_grad
    (True, True)
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Frozen"]


class Frozen:
    """A reusable context manager around one module.

    The lists of submodules and parameters are taken once: after surgery on the module, make a new one. Uses may nest
    and overlap between threads; the first one in saves the flags, the last one out restores them.

    Args:
        module: the module to borrow; nothing is changed until the context is entered.
    """

    __slots__ = ("_depth", "_live", "_lock", "_module", "_modules", "_parameters", "_trained")

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._modules = tuple(module.modules())
        self._parameters = tuple(module.parameters())
        self._lock = threading.Lock()
        self._depth = 0
        self._trained: tuple[nn.Module, ...] = ()
        self._live: tuple[nn.Parameter, ...] = ()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                # Flags are set one by one: train() and eval() would overwrite those of the submodules.
                self._trained = tuple([part for part in self._modules if part.training])
                self._live = tuple([part for part in self._parameters if part.requires_grad])
                for part in self._trained:
                    part.training = False
                for part in self._live:
                    part.requires_grad = False
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                for part in self._trained:
                    part.training = True
                for part in self._live:
                    part.requires_grad = True
                self._trained, self._live = (), ()

    def __reduce__(self) -> tuple[type[Frozen], tuple[nn.Module]]:
        # A lock cannot be copied; a copied model borrows its own copy of the module.
        return Frozen, (self._module,)
