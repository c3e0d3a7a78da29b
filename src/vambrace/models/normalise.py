"""Normalisation that belongs to the network: `(inputs - mean) / std`, differentiable, in the units the caller feeds.

It lives inside the model, so that attacks, perturbations and bounds all speak the caller's units and no radius has to
be rescaled by hand. The two steps are those of `torchvision.transforms.Normalize`, in the same order, so results agree
bit for bit.

    >>> import torch
    >>> Normalisation(mean=(0.5,), std=(0.25,))(torch.tensor([[[[1.0]]]])).item()
    2.0
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Normalisation", "Statistic"]

Statistic = "float | Sequence[float] | Tensor"


class Normalisation:
    """Subtracts `mean` and divides by `std`; either may be absent.

    Args:
        mean: a number; one number per channel, for inputs (n, channels, ...); or a tensor that broadcasts against a
            sample.
        std: of the same kinds; positive.

    Raises:
        ConfigError: E114, when a value is not finite or a std is not positive.
    """

    def __init__(
        self, mean: float | Sequence[float] | Tensor | None = None, std: float | Sequence[float] | Tensor | None = None
    ) -> None:
        self._mean = _read(mean, "mean")
        self._std = _read(std, "std")
        if self._std is not None and bool((self._std <= 0).any()):
            raise ConfigError(
                "E114",
                seen=f"std {self._std.tolist()}",
                expected="positive values",
                fix="correct std, such as std=(0.25,)",
            )
        self._ready: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor | None, Tensor | None]] = {}

    @property
    def is_identity(self) -> bool:
        """True where nothing is to be done."""
        return self._mean is None and self._std is None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to normalised inputs of the same shape, dtype and device."""
        if self._mean is None and self._std is None:
            return inputs
        key = (inputs.ndim, inputs.dtype, inputs.device)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._ready[key] = (self._shaped(self._mean, inputs), self._shaped(self._std, inputs))
        mean, std = ready
        if mean is not None:
            inputs = inputs - mean
        if std is not None:
            inputs = inputs / std
        return inputs

    def as_json(self) -> dict[str, object]:
        """`mean` and `std` as numbers or nested lists; None where absent."""
        return {
            "mean": None if self._mean is None else self._mean.tolist(),
            "std": None if self._std is None else self._std.tolist(),
        }

    def _shaped(self, values: Tensor | None, inputs: Tensor) -> Tensor | None:
        if values is None:
            return None
        if values.ndim == 1 and values.numel() > 1:
            channels = inputs.shape[1] if inputs.ndim > 1 else 0
            if channels != values.numel():
                raise ConfigError(
                    "E114",
                    seen=f"{values.numel()} values of mean or std for inputs of shape (n, {_shape(inputs)})",
                    expected="one value" if channels == 1 else f"1 or {channels} values, one for each channel",
                    fix="give mean and std one value per channel, and feed channels first (n, channels, height, width)",
                )
            values = values.reshape(channels, *([1] * (inputs.ndim - 2)))
        elif values.numel() == 1:
            values = values.reshape(())
        # A normal tensor, also when the first call comes from inference mode: later calls need it in a graph.
        with torch.inference_mode(mode=False):
            return values.to(device=inputs.device, dtype=inputs.dtype)


def _read(value: float | Sequence[float] | Tensor | None, name: str) -> Tensor | None:
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        read = value.detach().to("cpu", torch.float64).clone()
    else:
        numbers = [value] if isinstance(value, int | float) else [float(number) for number in value]
        if not numbers:
            return None
        read = torch.tensor(numbers, dtype=torch.float64)
    if not all(map(math.isfinite, cast("list[float]", read.flatten().tolist()))):
        raise ConfigError("E114", seen=f"{name} {value}", expected="finite numbers", fix=f"correct {name}")
    return read


def _shape(inputs: Tensor) -> str:
    return ", ".join(str(size) for size in inputs.shape[1:])
