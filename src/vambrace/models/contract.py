"""What is assessed: a network together with its contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vambrace.core.access import Access, Bounds

__all__ = ["Identity", "Model", "Outputs"]

Outputs = Literal["logits", "probabilities", "labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What makes two models the same for a unit key.

    Attributes:
        name: short name for people, without folders, such as "net.safetensors".
        kind: "torch", "onnx" or a plug-in's word.
        weights: SHA-256 of the parameters and buffers in name order, or of the file; None when unknown.
        source: SHA-256 of the factory's source file(s), or None where there is no code.
        detail: JSON facts that change the answers (normalisation, runtime options).
    """

    name: str
    kind: str
    weights: str | None
    source: str | None
    detail: Mapping[str, Any]


@runtime_checkable
class Model(Protocol):
    """A network plus its contract.

    Called on inputs (n, ...) inside `bounds`, it gives logits (n, k): float, on the inputs' device,
    differentiable with respect to the inputs where `access` >= GRADIENTS. Probabilities are mapped by
    a clamped log. On LABELS access the call raises `AccessError`; `predict` works on every model.
    """

    @property
    def access(self) -> Access:
        """What the model gives."""
        ...

    @property
    def bounds(self) -> Bounds | None:
        """The box of valid inputs, in the units the caller feeds; None where there is none."""
        ...

    @property
    def outputs(self) -> Outputs:
        """What the network itself emits, before the adapter turns it into logits."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one sample, without the batch dimension; None until known."""
        ...

    @property
    def num_classes(self) -> int | None:
        """Width of the logits; None until known."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The floating type the model computes in."""
        ...

    @property
    def identity(self) -> Identity | None:
        """What a unit key needs; None for a model that cannot be told from another across processes."""
        ...

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to logits (n, k)."""
        ...

    def predict(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to predicted classes, int64 (n,); one query a sample."""
        ...
