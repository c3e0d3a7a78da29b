"""Backward pass differentiable approximation: the exact forward of a part, with the gradient of one like it.

    >>> import torch
    >>> from torch import nn
    >>> levels = BPDA(lambda images: (images * 255).round() / 255)
    >>> net = nn.Sequential(levels, nn.Flatten(), nn.Linear(4, 3))
    >>> image = torch.rand(1, 1, 2, 2, requires_grad=True)
    >>> bool(torch.autograd.grad(net(image)[0, 0], image)[0].any())
    True

A defence that rounds, compresses or looks things up has a gradient of zero or none, and looks robust to whoever
follows gradients. Put the part that does it into a `BPDA`, and the rest of the network stays as it is.

Reference: Athalye, Carlini, Wagner 2018, arXiv 1802.00420, section 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BPDA"]


class BPDA(nn.Module):
    """A part of a network that computes one thing and is differentiated as another.

    Guarantees: values are those of `forward`, bit for bit in one dtype; gradients are those of `backward` at the same
    inputs.

    Args:
        forward: the part as it is: a module or a function of (n, ...); never differentiated.
        backward: what is like it and has a gradient: from the same inputs to the same shape; None: the identity, for
            parts that hardly change their inputs.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.exact = forward
        self.like = backward

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to what the exact part makes of them.

        Raises:
            ConfigError: E122, when the two parts give different shapes.
        """
        with torch.no_grad():
            # A copy: a part that works in place must not change what the other one sees.
            exact = self.exact(inputs.detach().clone())
        if not torch.is_grad_enabled():
            return exact
        like = inputs if self.like is None else self.like(inputs)
        if like.shape != exact.shape:
            raise ConfigError(
                "E122",
                seen=f"a part that gives {tuple(exact.shape)}, and for its gradient {tuple(like.shape)}",
                expected="two parts that give one shape",
                fix="pass a backward that gives the shape of forward; the identity only fits parts that keep shapes",
            )
        return cast("Tensor", _Instead.apply(exact.to(like.dtype), like))


class _Instead(torch.autograd.Function):
    """The first argument's values with the second one's gradient."""

    @staticmethod
    def forward(exact: Tensor, like: Tensor) -> Tensor:
        del like
        return exact.view_as(exact)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing needs to be remembered."""

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]
