"""Attacks as plain functions of a PyTorch module, for harnesses that drive the attacks of many libraries.

    >>> import torch
    >>> from vambrace.attacks import PGD
    >>> attack = as_function(PGD(eps=0.1, steps=5))
    >>> net, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), torch.rand(2, 1, 2, 2)
    >>> attack(net, images, torch.tensor([0, 1])).shape
    torch.Size([2, 1, 2, 2])

The contract is that of AttackBench and adv-lib: `f(model, inputs, labels, targets=None, targeted=False)` gives
adversarial inputs, for a module that takes values in [0, 1]. When not: in code of one's own. The attack itself says
which samples fell, at what distance and cost; here only the points are left of that.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol

from vambrace.core.goals import Targeted, Untargeted
from vambrace.errors import ConfigError
from vambrace.models.torch import from_torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vambrace.core.goals import Goal
    from vambrace.core.rng import Streams
    from vambrace.models.contract import Model
    from vambrace.search.outcome import Attacked

__all__ = ["Attack", "Function", "as_function"]


class Attack(Protocol):
    """Options of an attack, called on a model."""

    def __call__(
        self, model: Model, inputs: Tensor, goal: Goal, *, rng: Streams | int = 0, batch_size: int | None = None
    ) -> Attacked:
        """Search for points that reach the goal."""
        ...


class Function(Protocol):
    """What a harness calls."""

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        targets: Tensor | None = None,
        targeted: bool = False,
    ) -> Tensor:
        """Adversarial inputs (n, ...) for inputs (n, ...) in [0, 1] and labels int64 (n,)."""
        ...


def as_function(attack: Attack, *, rng: Streams | int = 0, batch_size: int | None = None) -> Function:
    """An attack as `f(model, inputs, labels, targets=None, targeted=False)`.

    The function borrows the module: it runs in eval mode with frozen parameters and has its own flags back afterwards,
    also after an error. Global random state is neither read nor moved; equal calls give equal points. Where nothing
    was found, the points are the last ones tried. The function pickles.

    Args:
        attack: options of any attack.
        rng: seed or stream of every call.
        batch_size: physical rows a forward; None: the attack's choice.

    Raises:
        ConfigError: E108, when called targeted without targets; what the attack raises for its arguments.
    """
    return functools.partial(_points, attack, rng, batch_size)


def _points(
    attack: Attack,
    rng: Streams | int,
    batch_size: int | None,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor | None = None,
    targeted: bool = False,
) -> Tensor:
    if targeted and targets is None:
        raise ConfigError(
            "E108", seen="targeted without targets", expected="one target class a sample", fix="give targets (n,)"
        )
    goal = Targeted(targets) if targeted and targets is not None else Untargeted(labels)
    # Harnesses turn gradients off around what they time, and hand over inputs that a graph hangs on.
    return attack(
        from_torch(model, bounds=(0.0, 1.0)), inputs.detach(), goal, rng=rng, batch_size=batch_size
    ).adversarial
