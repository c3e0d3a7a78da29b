"""Points on the 256 levels that 8-bit images have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vambrace.core.access import Bounds
from vambrace.ops.grid import LEVELS, fitted, on_grid
from vambrace.ops.norms import distances
from vambrace.ops.projections import inner_box, tighten


def pictures(seed: int, n: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 5, 5), generator=generator).float() / 255


@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("linf", 0.3), ("l2", 0.5), ("l1", 3.0)])
@given(seed=st.integers(0, 10_000))
def test_saved_as_bytes_and_read_again_it_is_the_same_and_inside(norm: str, eps: float, seed: int) -> None:
    inputs = pictures(seed)
    away = inputs + torch.randn(inputs.shape, generator=torch.Generator().manual_seed(seed + 1)) * eps
    points, _ = tighten(away, inputs, eps, norm, Bounds(0.0, 1.0))
    found = on_grid(points, inputs, eps, norm, Bounds(0.0, 1.0))
    saved = (found.numpy() * 255).round().astype(np.uint8)
    again = torch.from_numpy(saved.astype(np.float32) / np.float32(255)).to(found.device)
    assert torch.allclose(again, found, rtol=0, atol=6e-8)
    assert (distances(found, inputs, norm) <= eps).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert ((found - points).abs() <= 2 / 255).all()


def test_nearest_level_where_the_ball_allows() -> None:
    inputs = torch.full((1, 4), 100 / 255)
    points = torch.tensor([[100.4, 100.6, 107.9, 92.2]]) / 255
    levels = on_grid(points, inputs, 7.5 / 255, "linf", Bounds(0.0, 1.0)) * 255
    assert levels.round().tolist() == [[100.0, 101.0, 107.0, 93.0]]


def test_other_boxes_and_per_feature_ends() -> None:
    inputs = torch.tensor([[10.0, 0.5]])
    bounds = Bounds(torch.tensor([0.0, 0.0]), torch.tensor([255.0, 1.0]))
    found = on_grid(torch.tensor([[17.4, 0.6]]), inputs, 100.0, "linf", bounds)
    assert found[0, 0] == 17.0
    assert abs(float(found[0, 1]) * 255 - 153) < 1e-4


def test_half_precision_keeps_its_type() -> None:
    inputs = pictures(0).half()
    assert on_grid(inputs, inputs, 0.1, "linf", Bounds(0.0, 1.0)).dtype == torch.float16


IMAGENET = Bounds(
    (0.0 - torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1))
    / torch.tensor([0.229, 0.224, 0.225]).double().view(3, 1, 1),
    (1.0 - torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1))
    / torch.tensor([0.229, 0.224, 0.225]).double().view(3, 1, 1),
)
ENDS = st.floats(-1e4, 1e4, allow_subnormal=False)
BOXES = st.one_of(
    st.sampled_from([Bounds(-3.7, 9.1), Bounds(-0.1, 0.1), Bounds(0.3, 0.7), Bounds(-1e-3, 1 / 3), IMAGENET]),
    st.tuples(ENDS, st.floats(1e-2, 1e4)).map(lambda pair: Bounds(pair[0], pair[0] + pair[1])),
    st.lists(st.tuples(ENDS, st.floats(1e-2, 1e4)), min_size=3, max_size=3).map(
        lambda pairs: Bounds(
            torch.tensor([low for low, _ in pairs], dtype=torch.float64).view(3, 1, 1),
            torch.tensor([low + width for low, width in pairs], dtype=torch.float64).view(3, 1, 1),
        )
    ),
)


def test_an_end_that_is_rounded_inward_by_more_than_half_a_level_is_still_a_level() -> None:
    box = Bounds(256.0, 256.01)
    least, most = inner_box(box, torch.zeros(()))
    ends = torch.stack([least, most]).view(1, 2)
    width = 0.01 / LEVELS
    assert (box.high - most.double()) / width > 0.5, "the case is the one of its name"
    for norm in ("linf", "l2", "l1", "l0"):
        found, distance = fitted(ends, ends, 0.001, norm, box)
        assert torch.equal(found, ends)
        assert distance.item() == 0


@settings(deadline=None)
@example(box=Bounds(256.0, 256.01), norm="linf", share=0.004, dtype=torch.float32, seed=0)
@given(
    box=BOXES,
    norm=st.sampled_from(["linf", "l2", "l1", "l0"]),
    share=st.sampled_from([0.004, 0.03, 0.3, 3.0, float("inf")]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10_000),
)
def test_in_any_box_what_fits_is_on_levels_and_inside_measured_in_double_precision(
    box: Bounds, norm: str, share: float, dtype: torch.dtype, seed: int
) -> None:
    """Ends that are no numbers of the dtype included: a level is rounded inward there."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (torch.as_tensor(end, dtype=torch.float64) for end in (box.low, box.high))
    width = (high - low) / LEVELS
    least, most = inner_box(box, torch.zeros((), dtype=dtype))
    levels = torch.randint(-60, 316, (6, 3, 5, 5), generator=generator).clamp(0, LEVELS)  # many at the ends
    inputs = (low + levels * width).to(dtype).clamp(least, most)
    inputs[3:] = (inputs[3:] + torch.rand(inputs[3:].shape, generator=generator) * width).to(dtype).clamp(least, most)
    eps = 40.0 * share if norm == "l0" else share * box.span * {"linf": 1.0, "l2": 3.0, "l1": 9.0}[norm]
    away = inputs + torch.randn(inputs.shape, generator=generator, dtype=dtype) * box.span * 0.2
    points, _ = tighten(away, inputs, eps, norm, box)
    found, distance = fitted(points, inputs, eps, norm, box)
    fits = distance.isfinite()
    assert ((found.double() >= low) & (found.double() <= high)).all()
    assert (distances(found, inputs, norm)[fits] <= eps).all()
    # An end that is no number of the dtype may be rounded inward by more than half a level, and still is one.
    saved = ((found.double() - low) / width).round()
    saved = torch.where(found >= most, LEVELS, torch.where(found <= least, 0, saved))
    assert ((saved >= 0) & (saved <= LEVELS)).all()
    assert torch.equal((low + saved * width).to(dtype).clamp(least, most), found), "read again it is the same"
    again, size = fitted(found, inputs, eps, norm, box)
    assert torch.equal(again[fits], found[fits])
    assert torch.equal(size[fits], distance[fits]), "what is on levels and near enough stays as it is"
    # An input on a level can always be saved: at least as itself.
    still, nothing = fitted(inputs[:3], inputs[:3], eps, norm, box)
    assert torch.equal(still, inputs[:3])
    assert (nothing == 0).all()
    if norm == "linf" or (norm != "l0" and dtype == torch.float64):
        assert fits[:3].all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
@given(seed=st.integers(0, 10_000))
def test_elements_that_are_not_changed_stay_on_their_levels(norm: str, seed: int) -> None:
    """A level as saved lies beside itself by a rounding, in this box on either side."""
    box = Bounds(-1.0, 1.0)
    inputs = ((pictures(seed) * 255).round().double() * (2 / 255) - 1.0).float()
    points = inputs.clone()
    points[:, 0, 0, 0] *= -0.99
    eps = 0.9 * float(distances(points, inputs, norm).min().clamp(min=0.01))
    points, _ = tighten(points, inputs, eps, norm, box)
    found, distance = fitted(points, inputs, eps, norm, box)
    assert torch.equal(found.flatten(1)[:, 1:], inputs.flatten(1)[:, 1:])
    assert (distance <= eps).all()
