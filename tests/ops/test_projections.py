"""Projections: nearest points against slow solvers, and inside as saved, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

from vambrace.core.access import Bounds
from vambrace.ops.norms import distances, lengths
from vambrace.ops.projections import ball_box, inner_box, project_l2, tighten

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RADII = st.one_of(st.sampled_from([0.3, 8 / 255, 0.25, 1e-3, 1e-9, 2.0]), st.floats(1e-6, 3.0))


def images(seed: int, dtype: torch.dtype, shape: tuple[int, ...] = (4, 2, 9)) -> Tensor:
    """Values in 0..1 with many at the very ends, where boxes bind."""
    wide = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.8 - 0.4
    return wide.clamp(0, 1).to(dtype)


@given(st.integers(0, 2**31), RADII, st.sampled_from(DTYPES), st.booleans())
def test_box_is_inside_and_as_large_as_it_can_be(seed: int, eps: float, dtype: torch.dtype, bounded: bool) -> None:
    inputs = images(seed, dtype)
    bounds = Bounds(0.0, 1.0) if bounded else None
    low, high = ball_box(inputs, eps, bounds)
    assert low.dtype == high.dtype == dtype
    assert (low <= inputs).all()
    assert (inputs <= high).all()
    wide, infinity = inputs.double(), torch.full_like(inputs, float("inf"))
    assert (high.double() - wide <= eps).all()
    assert (wide - low.double() <= eps).all()
    if dtype == torch.float64:
        return  # where the measure has no more digits than what it measures, the last one is not settled
    further = torch.nextafter(high, infinity).double()
    tiny = 1e-12  # numbers so near zero are lost when float64 subtracts them
    assert ((further - wide > eps) | (bounded & (further > 1)) | (further.abs() < tiny)).all(), (
        "the next one is outside"
    )
    further = torch.nextafter(low, -infinity).double()
    assert ((wide - further > eps) | (bounded & (further < 0)) | (further.abs() < tiny)).all()


@given(st.integers(0, 2**31), st.floats(-3, 0.2), st.floats(0.3, 5))
def test_ends_of_the_box_round_inward(seed: int, low: float, high: float) -> None:
    inputs = images(seed, torch.float32).mul(high - low).add(low).clamp(low, high)
    below, above = inner_box(Bounds(low, high), inputs)
    assert below.double() >= low
    assert above.double() <= high
    floor, ceiling = ball_box(inputs, 0.1, Bounds(low, high))
    inside = (floor.double() >= low) & (ceiling.double() <= high)
    assert (inside | (floor == ceiling)).all()


def test_a_box_first_asked_for_under_inference_mode_serves_gradients_later() -> None:
    inputs, bounds = torch.rand(2, 3), Bounds(-0.017, 0.983)
    with torch.inference_mode():
        inner_box(bounds, inputs)
    point = inputs.clone().requires_grad_()
    point.clamp(*inner_box(bounds, inputs)).sum().backward()
    assert point.grad is not None


def test_bounds_can_differ_by_feature() -> None:
    bounds = Bounds(torch.tensor([0.0, -1.0]), torch.tensor([0.5, 3.0]))
    inputs = torch.tensor([[0.2, 2.9], [0.5, -1.0]])
    low, high = ball_box(inputs, 0.25, bounds)
    assert low.tolist()[1] == [0.25, -1.0]
    assert high.tolist()[0] == [pytest.approx(0.45), 3.0]
    for norm in ("linf", "l2"):
        points, _ = tighten(inputs + torch.tensor([5.0, 5.0]), inputs, 0.25, norm, bounds)
        assert bounds.contains(points).all()


def slow_projection(point: np.ndarray, centre: np.ndarray, eps: float) -> np.ndarray:
    """By a general constrained solver (SLSQP) from several starts."""
    starts = [centre, np.clip(point, 0, 1), (centre + np.clip(point, 0, 1)) / 2]
    ball = {
        "type": "ineq",
        "fun": lambda z: eps**2 - ((z - centre) ** 2).sum(),
        "jac": lambda z: -2 * (z - centre),
    }
    options = {"ftol": 1e-14, "maxiter": 500}
    best, nearest = centre, np.inf
    for start in starts:
        shrunk = centre + (start - centre) * 0.5 * min(1, eps / max(np.linalg.norm(start - centre), 1e-12))
        solved = optimize.minimize(
            lambda z: ((z - point) ** 2).sum(),
            shrunk,
            jac=lambda z: 2 * (z - point),
            bounds=[(0, 1)] * len(point),
            constraints=[ball],
            method="SLSQP",
            options=options,
        )
        feasible = np.linalg.norm(solved.x - centre) <= eps * (1 + 1e-6)
        if feasible and solved.fun < nearest:
            best, nearest = solved.x, solved.fun
    return best


@pytest.mark.parametrize("looks", [True, False])
def test_l2_projection_is_the_nearest_point(looks: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = images(1, torch.float64, (12, 6))
    points = inputs + torch.randn(12, 6, generator=generator, dtype=torch.float64) * 1.5
    for eps in (0.05, 0.4, 0.9, 1.4):
        found = project_l2(points, inputs, eps, torch.tensor(0.0), torch.tensor(1.0), looks=looks)
        for row in range(12):
            expected = slow_projection(points[row].numpy(), inputs[row].numpy(), eps)
            np.testing.assert_allclose(found[row].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("looks", [True, False])
@given(seed=st.integers(0, 2**31), eps=st.floats(1e-3, 6.0), away=st.floats(0.01, 50.0))
def test_l2_projection_by_bisection(looks: bool, seed: int, eps: float, away: float) -> None:
    """The minimiser is clip(x0 + s d) with the largest s that fits: found here by bisection, in higher dimension."""
    inputs = images(seed, torch.float64, (3, 60))
    change = torch.randn(3, 60, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64) * away
    found = project_l2(inputs + change, inputs, eps, torch.tensor(0.0), torch.tensor(1.0), looks=looks)
    low, high = torch.zeros(3, 1, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    for _ in range(80):
        middle = (low + high) / 2
        fits = lengths((inputs + middle * change).clamp(0, 1) - inputs, "l2").unsqueeze(1) <= eps
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    whole = (inputs + change).clamp(0, 1)
    fits = lengths(whole - inputs, "l2").unsqueeze(1) <= eps
    expected = torch.where(fits, whole, (inputs + low * change).clamp(0, 1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("looks", [True, False])
def test_l2_projection_is_not_scale_and_clip(looks: bool) -> None:
    """What most tools do instead: scaling into the ball and clipping after leaves part of the radius unused."""
    inputs = torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    point = torch.tensor([[-3.0, 0.9]], dtype=torch.float64)
    found = project_l2(point, inputs, 0.2, torch.tensor(0.0), torch.tensor(1.0), looks=looks)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.7]], dtype=torch.float64))
    naive = (inputs + (point - inputs) * 0.2 / (point - inputs).norm()).clamp(0, 1)
    assert (naive - inputs).norm() < 0.05


@pytest.mark.parametrize("looks", [True, False])
def test_l2_projection_at_its_edges(looks: bool) -> None:
    inputs = torch.full((4, 3), 0.5)
    points = torch.stack((inputs[0], inputs[1] + 0.01, torch.tensor([9.0, 0.5, 0.5]), torch.full((3,), torch.nan)))
    low, high = torch.tensor(0.0), torch.tensor(1.0)
    found = project_l2(points, inputs, 0.1, low, high, looks=looks)
    assert torch.equal(found[:2], points[:2])
    torch.testing.assert_close(found[2], torch.tensor([0.6, 0.5, 0.5]))
    assert found[3].isnan().all()
    assert torch.equal(project_l2(points[:3], inputs[:3], 0.0, low, high, looks=looks), inputs[:3])
    free = project_l2(points[2:3], inputs[:1], 4.0, -low.new_tensor(torch.inf), low.new_tensor(torch.inf), looks=looks)
    torch.testing.assert_close(free, torch.tensor([[4.5, 0.5, 0.5]]))


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_l2_projection_in_every_dtype(dtype: torch.dtype, looks: bool) -> None:
    inputs = images(3, dtype, (5, 300))
    points = inputs + torch.randn(5, 300, generator=torch.Generator().manual_seed(4)).to(dtype)
    low, high = inner_box(Bounds(0.0, 1.0), inputs)
    found = project_l2(points, inputs, 2.0, low, high, looks=looks)
    assert found.dtype == dtype
    size = lengths(found.double() - inputs.double(), "l2")
    assert (size <= 2.0 * (1 + 4 * torch.finfo(dtype).eps)).all()
    assert (size >= 2.0 * (1 - 40 * torch.finfo(dtype).eps)).all(), "the radius is used up"


@given(st.integers(0, 2**31), RADII, st.sampled_from(DTYPES), st.sampled_from(["linf", "l2"]), st.booleans())
@example(0, 0.0078125, torch.float32, "l2", False)
def test_tightened_points_are_inside_as_saved(
    seed: int, eps: float, dtype: torch.dtype, norm: str, bounded: bool
) -> None:
    inputs = images(seed, dtype)
    points = inputs + torch.randn(inputs.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    points[0] = inputs[0]
    points[1].view(-1)[0] = float("nan")
    bounds = Bounds(0.0, 1.0) if bounded else None
    found, distance = tighten(points, inputs, eps, norm, bounds)
    assert found.dtype == dtype
    assert torch.equal(distance, distances(found, inputs, norm))
    assert (distance <= eps).all()
    flipped = lengths((found.double() - inputs.double()).flatten(1).flip(1), norm)
    assert (flipped <= eps).all(), "summed in another order too"
    assert bounds is None or bounds.contains(found.double()).all()
    assert torch.equal(found[0], inputs[0])
    again, _ = tighten(found, inputs, eps, norm, bounds)
    assert torch.equal(again, found), "what is inside stays as it is"
    if eps > 1e-3 and dtype == torch.float32 and norm == "l2" and not bounded:
        outside = distances(points.nan_to_num(), inputs, norm) > eps
        outside[1] = False
        # Every coordinate is rounded toward the centre, by less than its last place.
        rounding = inputs[0].numel() ** 0.5 * 2.0**-23
        assert (distance[outside] > eps * (1 - 1e-5) - rounding).all(), "moved no further than needed"
