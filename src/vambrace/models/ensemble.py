"""Several models as one: its logits are the mean of theirs.

    >>> import torch
    >>> from vambrace.models import from_torch
    >>> nets = [from_torch(torch.nn.Linear(4, 2).eval()) for _ in range(3)]
    >>> both, inputs = Ensemble(nets), torch.rand(5, 4)
    >>> torch.allclose(both(inputs), sum(net(inputs) for net in nets) / 3)
    True

What fools all of several networks is likely to fool one more: Dong et al. 2018, arXiv 1710.06081, section 3.3, where
logits fared better than probabilities or losses.

Ledger: a row that the ensemble is asked about is one row for each of its models.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from vambrace.core.access import Access, Bounds
from vambrace.errors import ConfigError
from vambrace.models.contract import Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.models.contract import Model, Outputs

__all__ = ["Ensemble", "require_alike"]


class Ensemble:
    """The `Model` contract over the mean logits of several models.

    Attributes:
        models: one or more, with the same bounds, device, sample shape and classes, as far as they are known.

    Raises:
        ConfigError: E121, for no model, one that gives labels only, or models that differ in what they take.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = tuple(models)
        if not self.models:
            raise ConfigError("E121", seen="no model", expected="one or more models", fix="give at least one")
        for model in self.models:
            if model.access < Access.SCORES:
                raise ConfigError(
                    "E121",
                    seen=f"a {type(model).__name__} that gives labels only",
                    expected="models that give logits, whose mean can be taken",
                    fix="leave it out",
                )
            require_alike(self.models[0], model)

    @property
    def access(self) -> Access:
        """What all of them give, GRADIENTS at most."""
        return min(Access.GRADIENTS, *(model.access for model in self.models))

    @property
    def bounds(self) -> Bounds | None:
        """The box of valid inputs, the same for all."""
        return self.models[0].bounds

    @property
    def outputs(self) -> Outputs:
        """Logits."""
        return "logits"

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample, where any of them knows it."""
        return next((model.input_shape for model in self.models if model.input_shape is not None), None)

    @property
    def num_classes(self) -> int | None:
        """Width of the logits, where any of them knows it."""
        return next((model.num_classes for model in self.models if model.num_classes is not None), None)

    @property
    def device(self) -> torch.device:
        """Where they run."""
        return self.models[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The widest type that one of them computes in."""
        dtype = self.models[0].dtype
        for model in self.models[1:]:
            dtype = torch.promote_types(dtype, model.dtype)
        return dtype

    @property
    def identity(self) -> Identity | None:
        """Theirs together; None where one has none."""
        members = [model.identity for model in self.models]
        known = [each for each in members if each is not None]
        if len(known) < len(members):
            return None
        return Identity(
            name=" + ".join(each.name for each in known),
            kind="ensemble",
            weights=None,
            source=None,
            detail={"members": [dataclasses.asdict(each) for each in known]},
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to the mean of all logits, (n, k)."""
        first, *rest = self.models
        total = first(inputs.to(first.dtype))
        for model in rest:
            logits = model(inputs.to(model.dtype))
            if logits.shape != total.shape:
                raise _unlike("classes", total.shape[1], logits.shape[1])
            total = total + logits
        return total / len(self.models)

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to the class of the largest mean logit, int64 (n,)."""
        with torch.no_grad():
            return self(inputs).argmax(dim=1)

    def __repr__(self) -> str:
        return f"Ensemble({list(self.models)!r})"


def require_alike(first: Model, second: Model) -> None:
    """Raise `ConfigError` E121 unless two models take the same inputs and know the same classes, as far as is known."""
    boxes = [None if model.bounds is None else model.bounds.as_json() for model in (first, second)]
    facts = {
        "bounds": boxes,
        "sample shape": [first.input_shape, second.input_shape],
        "classes": [first.num_classes, second.num_classes],
        "device": [str(first.device), str(second.device)],
    }
    for name, (one, other) in facts.items():
        if one != other and (name == "bounds" or (one is not None and other is not None)):
            raise _unlike(name, one, other)


def _unlike(name: str, one: object, other: object) -> ConfigError:
    return ConfigError(
        "E121",
        seen=f"models that differ in {name}: {_short(one)} and {_short(other)}",
        expected="models that take the same inputs and know the same classes",
        fix="put normalisation inside each model, so that all take one box; leave out those for other data",
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:57]}..."
