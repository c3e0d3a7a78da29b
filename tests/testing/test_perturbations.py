"""The conformance check passes on ours and fails on perturbations that are wrong on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from vambrace.core.access import Bounds
from vambrace.core.options import Options
from vambrace.perturb import Contrast, GaussianBlur, GaussianNoise, Jpeg, Rotate
from vambrace.perturb.frame import UNIT, enter
from vambrace.testing.perturbations import check_perturbation, sample_images


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (3, 65, 70), (3, 130, 128), (1, 17, 9)])
@pytest.mark.parametrize("kind", [Contrast, GaussianBlur, GaussianNoise, Jpeg, Rotate])
def test_ours(kind: type, shape: tuple[int, ...], device: torch.device) -> None:
    check_perturbation(kind(), shape=shape, device=device)


@pytest.mark.parametrize("border", ["low", "edge", "mirror"])
def test_rotate_at_every_border(border: str, device: torch.device) -> None:
    check_perturbation(Rotate(border=border), device=device)  # type: ignore[arg-type]


def test_noise_on_features(device: torch.device) -> None:
    check_perturbation(GaussianNoise(), shape=(40,), device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Options):
    """Noise with one promise broken."""

    how: str
    needs_images: ClassVar[bool] = True

    def level(self, severity: int, shape: object) -> float:
        return float(severity)

    def __call__(self, inputs, *, severity, rng=0, ids=None, bounds=UNIT):
        if self.how == "no bounds check":
            bounds = Bounds(-1e9, 1e9) if inputs.is_floating_point() else bounds
            inputs = inputs.nan_to_num()
        frame = enter(inputs, severity=severity, rng=rng, ids=ids, bounds=bounds, images=True)
        sign = 1.0 - 2.0 * (frame.ids % 2).view(-1, 1, 1, 1)
        change = 0.02 * severity * sign * torch.ones_like(frame.unit)
        match self.how:
            case "identity":
                change = change * 0
            case "not rising":
                change = change / severity
            case "global randomness":
                change = change * torch.rand(())
            case "drawn for the batch":
                change = change * (1 + torch.arange(len(inputs)).view(-1, 1, 1, 1))
            case "mean of the batch":
                change = change + 0.1 * frame.unit.mean()
            case "leaves bounds":
                return inputs + change * 30
            case "absolute units":
                return frame.bounds.clip(inputs + change.to(inputs))
            case "in place":
                inputs += change
            case "shape":
                return frame.leave(frame.unit + change)[..., :-1]
            case "float32":
                return frame.leave(frame.unit + change).float()
            case "no bounds check":
                return Bounds(0, 1).clip(inputs + change)
            case _:
                pass
        return frame.leave(frame.unit + change)


def test_the_stand_in_passes_when_nothing_is_broken(device: torch.device) -> None:
    check_perturbation(Broken(how="nothing"), device=device)


@pytest.mark.parametrize(
    "how",
    [
        "identity",
        "not rising",
        "global randomness",
        "drawn for the batch",
        "mean of the batch",
        "leaves bounds",
        "absolute units",
        "in place",
        "shape",
        "float32",
        "no bounds check",
    ],
)
def test_broken_ones_are_caught(how: str, device: torch.device) -> None:
    with pytest.raises(AssertionError):
        check_perturbation(Broken(how=how), device=device)


def test_scales_are_compared_on_inputs_that_round_the_same_way_on_every_device() -> None:
    """The last bit of a division decides about what lies half-way between two levels, and with it a block of a JPEG."""
    places = []

    class Watched(Broken):
        def __call__(self, inputs, *, bounds=UNIT, **others):
            if bounds != UNIT:
                places.append((inputs.double() - bounds.low) / bounds.span * 255 % 1)
            return Broken.__call__(self, inputs, bounds=bounds, **others)

    check_perturbation(Watched(how="nothing"))
    assert len(places) == 3
    assert all(float(each.min()) > 0.2 and float(each.max()) < 0.3 for each in places)


def test_sample_images_are_all_different() -> None:
    images = sample_images(9, (1, 8, 8))
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert len({tuple(image.flatten().tolist()) for image in images}) == 9
