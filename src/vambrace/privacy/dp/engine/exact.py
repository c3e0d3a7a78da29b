"""Full precision while gradients are measured and added, whatever was chosen for the rest of the step."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import backends

__all__ = ["Exact", "unwarned"]

_CUDA: tuple[Any, Any] = backends.cuda.matmul, backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
_CPU: tuple[Any, Any] = backends.mkldnn.matmul, backends.mkldnn.conv  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]


class Exact:
    """A context in which products of float32 matrices are products of float32 matrices.

    Autocast would measure and add in half precision, each with a rounding of its own, and a sample could move the sum
    by more than the bound. TF32, which convolutions on CUDA use unless told otherwise, does the same in small.

    Args:
        device: where the products are.
    """

    def __init__(self, device: torch.device) -> None:
        self._products, self._convolutions = _CUDA if device.type == "cuda" else _CPU
        # Made only where it is needed: two contexts a step cost a small network more than its norms.
        cast = torch.is_autocast_enabled(device.type)
        self._plain = torch.autocast(device.type, enabled=False) if cast else None
        self._before: tuple[str, str] = "none", "none"

    def __enter__(self) -> None:
        self._before = self._products.fp32_precision, self._convolutions.fp32_precision
        self._products.fp32_precision = self._convolutions.fp32_precision = "ieee"
        if self._plain is not None:
            self._plain.__enter__()

    def __exit__(self, *reason: Any) -> None:
        if self._plain is not None:
            self._plain.__exit__(*reason)
        self._products.fp32_precision, self._convolutions.fp32_precision = self._before


@contextmanager
def unwarned() -> Generator[None]:
    """A context without torch's warning that an operation has no batching rule; the table says what it costs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield
