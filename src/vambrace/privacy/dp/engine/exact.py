"""Full precision while gradients are measured and added, whatever was chosen for the rest of the step."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import backends

__all__ = ["exact", "unwarned"]


_CUDA: tuple[Any, Any] = backends.cuda.matmul, backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
_CPU: tuple[Any, Any] = backends.mkldnn.matmul, backends.mkldnn.conv  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]


@contextmanager
def exact(device: torch.device) -> Generator[None]:
    """A context in which products of float32 matrices are products of float32 matrices.

    Autocast would measure and add in half precision, each with a rounding of its own, and a sample could move the sum
    by more than the bound. TF32, which convolutions on CUDA use unless told otherwise, does the same in small.
    """
    products, convolutions = _CUDA if device.type == "cuda" else _CPU
    before = products.fp32_precision, convolutions.fp32_precision
    products.fp32_precision = convolutions.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        products.fp32_precision, convolutions.fp32_precision = before


@contextmanager
def unwarned() -> Generator[None]:
    """A context without torch's warning that an operation has no batching rule; the table says what it costs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield
