"""A model that is searched in half the bits and believed in full: fast steps, exact claims.

    >>> import torch
    >>> from vambrace.models import from_torch
    >>> model = LowPrecision(from_torch(torch.nn.Linear(4, 2).eval()))
    >>> model(torch.rand(3, 4)).dtype, model.exact is model.model
    (torch.float32, True)

Attacks ask it for their steps, and ask `exact`, the model as it came, whether inputs are right before an attack and
whether a claim holds. So every success is one of the model itself, and a sample that only the rounding breaks goes on
being searched. What the rounding hides is not found: on a sample within rounding of its boundary the attack is weaker.

When not: on CPUs without bfloat16 arithmetic, where it is slower than single precision; for attacks by labels or
scores on a model that others serve. Outside of attacks it is an ordinary, less exact model.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from vambrace.core.access import Access
from vambrace.errors import ConfigError
from vambrace.models.wrappers import Wrapper

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.models.contract import Identity, Model

__all__ = ["LowPrecision"]

_TYPES = (torch.bfloat16, torch.float16)


class LowPrecision(Wrapper):
    """The `Model` contract over the same model under autocast. Wrap it last: other wrappers hide `exact`.

    Attributes:
        model: the model as it came.
        compute: the type that matrix products and convolutions run in.

    Args:
        model: a torch model with GRADIENTS access or more.
        compute: torch.bfloat16, or torch.float16, whose gradients underflow sooner.

    Raises:
        ConfigError: E115, for another type, or a model that gives no gradients and so is none that autocast reaches.
    """

    def __init__(self, model: Model, compute: torch.dtype = torch.bfloat16) -> None:
        if compute not in _TYPES:
            raise ConfigError(
                "E115",
                seen=f"LowPrecision in {compute}",
                expected="torch.bfloat16 or torch.float16",
                fix="use torch.bfloat16",
            )
        if model.access < Access.GRADIENTS:
            raise ConfigError(
                "E115",
                seen=f"LowPrecision around a model of access {model.access.name}",
                expected="a torch model that gives gradients",
                fix="give the model itself to the attack: nothing here can change what it computes in",
            )
        super().__init__(model)
        self.compute = compute

    @property
    def exact(self) -> Model:
        """What claims are verified by."""
        return self.model

    @property
    def identity(self) -> Identity | None:
        """The wrapped model's, with the type of the search."""
        inner = self.model.identity
        if inner is None:
            return None
        return dataclasses.replace(inner, detail={**inner.detail, "search_dtype": str(self.compute)})

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to logits (n, k), in float32 again."""
        with torch.autocast(inputs.device.type, dtype=self.compute):
            return self.model(inputs)

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to classes, int64 (n,), by the exact model."""
        return self.model.predict(inputs)

    def __repr__(self) -> str:
        return f"LowPrecision({self.model!r}, compute={self.compute})"
