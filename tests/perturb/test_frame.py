"""The border: what is refused, with which code, and that nothing is lost on the way in and out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.access import Bounds
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError
from vambrace.perturb.frame import enter


def entered(inputs, **changes):
    given = {"severity": 3, "rng": 0, "ids": None, "bounds": Bounds(0.0, 1.0), "images": True}
    return enter(inputs, **{**given, **changes})


IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("inputs", "changes", "code"),
    [
        (IMAGES[0], {}, "E190"),
        (IMAGES.flatten(1), {}, "E190"),
        (IMAGES.unsqueeze(1), {}, "E190"),
        (IMAGES - 0.5, {}, "E191"),
        ((IMAGES - IMAGES.mean()) / IMAGES.std(), {}, "E191"),
        (IMAGES * 255, {}, "E191"),
        (IMAGES, {"bounds": Bounds(torch.zeros(3, 1, 1), torch.full((3, 1, 1), 0.5))}, "E191"),
        (IMAGES.where(IMAGES > 0.001, torch.nan) * torch.tensor(torch.nan), {}, "E191"),
        (IMAGES.clone().fill_(torch.inf), {}, "E191"),
        ((IMAGES * 255).to(torch.uint8), {}, "E192"),
        (torch.rand(5), {"images": False}, "E192"),
        (IMAGES, {"severity": 0}, "E193"),
        (IMAGES, {"severity": 6}, "E193"),
        (IMAGES, {"severity": True}, "E193"),
        (IMAGES, {"severity": 2.0}, "E193"),
        (IMAGES, {"ids": torch.arange(3)}, "E196"),
        (IMAGES, {"ids": torch.arange(4).float()}, "E196"),
    ],
)
def test_refusals(inputs, changes, code) -> None:
    """MindArmour wrapped standardised inputs around 8 bits without a word."""
    with pytest.raises(ConfigError) as caught:
        entered(inputs, **changes)
    assert caught.value.code == code


def test_the_refusal_says_what_was_seen() -> None:
    with pytest.raises(ConfigError, match=r"4 of 4 inputs outside bounds \(0, 1\): values from .* to 25[0-9]"):
        entered(IMAGES * 255)


@given(
    low=st.floats(-300, 300),
    width=st.floats(0.01, 500),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_in_and_out_is_nearly_nothing(low: float, width: float, dtype: torch.dtype) -> None:
    bounds = Bounds(low, low + width)
    inputs = bounds.clip((IMAGES.double() * width + low).to(dtype))
    frame = entered(inputs, bounds=bounds)
    back = frame.leave(frame.unit)
    assert back.dtype == dtype
    assert bool(bounds.contains(back).all())
    step = torch.finfo(dtype).eps * max(abs(low), abs(low + width)) * 2
    if frame.unit.dtype == torch.float32:
        step = max(step, 3e-7 * (abs(low) + width))
    torch.testing.assert_close(back, inputs, atol=step, rtol=0)


def test_bounds_per_channel_follow_the_inputs() -> None:
    low, high = (
        torch.tensor([0.0, -1.0, 5.0]).view(3, 1, 1).double(),
        torch.tensor([1.0, 1.0, 9.0]).view(3, 1, 1).double(),
    )
    frame = entered(IMAGES * (high - low).float() + low.float(), bounds=Bounds(low, high))
    torch.testing.assert_close(frame.unit, IMAGES, atol=1e-6, rtol=0)
    changed = frame.leave(frame.unit + 10)
    assert changed.dtype == torch.float32
    torch.testing.assert_close(changed, high.float().expand_as(IMAGES))


def test_rounding_beyond_the_bounds_is_pulled_back() -> None:
    frame = entered(torch.full((1, 1, 2, 2), 1.0 + 1e-6))
    assert float(frame.unit.max()) == 1.0


def test_ids_default_to_positions_and_a_seed_is_a_stream() -> None:
    frame = entered(IMAGES, rng=7)
    assert frame.ids.tolist() == [0, 1, 2, 3]
    assert frame.rng == Streams(7)
    assert frame.side == 8
    assert entered(torch.rand(2, 5), images=False).side is None
