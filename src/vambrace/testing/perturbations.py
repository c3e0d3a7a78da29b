"""What every natural perturbation must hold to, as one function that plug-ins run on theirs.

    from vambrace.testing.perturbations import check_perturbation
    def test_fog():
        check_perturbation(Fog())

An `AssertionError` says which promise of `vambrace.perturb.Perturbation` is broken, and how.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from vambrace.core.access import Bounds
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vambrace.perturb.frame import Perturbation

__all__ = ["check_perturbation", "sample_images"]

_SEVERITIES = (1, 2, 3, 4, 5)


def check_perturbation(
    perturbation: Perturbation, *, shape: Sequence[int] = (3, 32, 32), device: torch.device | str = "cpu"
) -> None:
    """Raise `AssertionError` unless the perturbation keeps its promises on inputs of this shape.

    Checked: shape, dtype, device and bounds of the result; inputs left alone; every severity changes something,
    and more than the one before; a sample's result depends on stream and id only, not on batch or order; global
    random states untouched; the same change on every scale of bounds; inputs outside of bounds, NaN and severities
    other than 1 to 5 refused.
    """
    inputs = sample_images(9, shape).to(device)
    ids = torch.arange(9, device=device) * 1_000_003 + 5
    rng = Streams(3).child("check")
    results: list[Tensor] = []
    for severity in _SEVERITIES:
        given = inputs.clone()
        results.append(perturbation(given, severity=severity, rng=rng, ids=ids))
        _holds(torch.equal(given, inputs), f"{perturbation!r} changes its inputs in place")
    _check_form(perturbation, inputs, results)
    _check_strength(inputs, results)
    _check_draws(perturbation, inputs, ids, rng, results[2])
    _check_scale(perturbation, inputs, ids, rng)
    _check_refusals(perturbation, inputs)


def sample_images(n: int, shape: Sequence[int], *, seed: int = 1) -> Tensor:
    """Synthetic pictures (n, *shape) in 0..1, float32: smooth shading, edges and texture, no two alike."""
    generator = torch.Generator().manual_seed(seed)
    size = tuple(shape) if len(shape) == 3 else (1, 1, int(np.prod(tuple(shape))))
    coarse = torch.rand((n, size[0], 4, 4), generator=generator)
    shading = torch.nn.functional.interpolate(coarse, size[1:], mode="bilinear")
    edges = torch.nn.functional.interpolate((coarse.roll(1, 0) > 0.5).float(), size[1:], mode="nearest")
    texture = torch.rand((n, *size), generator=generator)
    return (0.5 * shading + 0.35 * edges + 0.15 * texture).reshape(n, *shape)


def _check_form(perturbation: Perturbation, inputs: Tensor, results: list[Tensor]) -> None:
    for severity, result in zip(_SEVERITIES, results, strict=True):
        where = f"{perturbation!r} at severity {severity}"
        _holds(result.shape == inputs.shape, f"{where}: shape {tuple(result.shape)}, not {tuple(inputs.shape)}")
        _holds(result.device == inputs.device, f"{where}: device {result.device}, not {inputs.device}")
        _holds(bool(Bounds(0.0, 1.0).contains(result).all()), f"{where}: leaves the bounds")
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        result = perturbation(inputs.to(dtype), severity=3)
        _holds(result.dtype == dtype, f"{perturbation!r} turns {dtype} into {result.dtype}")
        _holds(bool(Bounds(0.0, 1.0).contains(result).all()), f"{perturbation!r} leaves the bounds in {dtype}")
    empty = perturbation(inputs[:0], severity=1)
    _holds(empty.shape == inputs[:0].shape, f"{perturbation!r} fails on an empty batch")


def _check_strength(inputs: Tensor, results: list[Tensor]) -> None:
    changes = torch.stack([(result - inputs).double().flatten(1).square().mean(1) for result in results])
    _holds(bool((changes[0] > 0).all()), "severity 1 leaves some samples as they are")
    mean = changes.mean(1)
    _holds(bool((mean[1:] > mean[:-1]).all()), f"mean squared change is not rising with severity: {mean.tolist()}")


def _check_draws(perturbation: Perturbation, inputs: Tensor, ids: Tensor, rng: Streams, expected: Tensor) -> None:
    before = _global_states()
    again = perturbation(inputs, severity=3, rng=rng, ids=ids)
    _holds(_global_states() == before, f"{perturbation!r} reads or moves a global random state")
    _holds(torch.equal(again, expected), f"{perturbation!r} is not repeatable")
    order = torch.tensor([4, 0, 8, 3, 1, 7, 2, 6, 5], device=inputs.device)
    mixed = perturbation(inputs[order], severity=3, rng=rng, ids=ids[order])
    _holds(_close(mixed, expected[order]), f"{perturbation!r} depends on the order of samples")
    for start, stop in ((0, 1), (1, 5), (5, 9)):
        part = perturbation(inputs[start:stop], severity=3, rng=rng, ids=ids[start:stop])
        _holds(_close(part, expected[start:stop]), f"{perturbation!r} depends on the batch a sample is in")


def _check_scale(perturbation: Perturbation, inputs: Tensor, ids: Tensor, rng: Streams) -> None:
    # Between two levels of 8 bits and not half-way, where the last bit of a division, which is not the same on every
    # device, decides how a pixel is rounded and with it a whole block of a JPEG.
    inputs = ((inputs * 255).floor() + 0.25) / 255
    expected = perturbation(inputs, severity=3, rng=rng, ids=ids)
    for low, high in ((0.0, 255.0), (-1.0, 1.0), (-2.5, -0.5)):
        bounds = Bounds(low, high)
        moved = inputs * (high - low) + low
        result = perturbation(bounds.clip(moved), severity=3, rng=rng, ids=ids, bounds=bounds)
        _holds(bool(bounds.contains(result).all()), f"{perturbation!r} leaves the bounds {low, high}")
        # What is rounded after a change may be half-way all the same: a few values may differ by one step.
        away = ((result - low) / (high - low) - expected).abs() > 1e-4
        _holds(
            bool(away.double().mean() < 0.01),
            f"{perturbation!r} makes another change of inputs within {low, high}",
        )


def _check_refusals(perturbation: Perturbation, inputs: Tensor) -> None:
    spoiled = inputs.clone()
    spoiled.view(-1)[7] = torch.nan
    cases = {
        "standardised inputs": ((inputs - inputs.mean()) / inputs.std(), 3),
        "inputs in 0..255 with bounds (0, 1)": (inputs * 255, 3),
        "NaN inputs": (spoiled, 3),
        "integer inputs": ((inputs * 255).to(torch.uint8), 3),
        "severity 0": (inputs, 0),
        "severity 6": (inputs, 6),
    }
    for name, (case, severity) in cases.items():
        try:
            perturbation(case, severity=severity)
        except ConfigError:
            continue
        raise AssertionError(f"{perturbation!r} accepts {name}")


def _global_states() -> tuple[object, ...]:
    numpys = cast("tuple[object, ...]", np.random.get_state(legacy=True))  # noqa: NPY002  the state that must not move
    torchs = torch.get_rng_state().numpy().tobytes()
    return torchs, np.asarray(numpys[1]).tobytes(), numpys[2:], random.getstate()


def _close(result: Tensor, expected: Tensor) -> bool:
    return torch.allclose(result, expected, atol=1e-6, rtol=0)


def _holds(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
