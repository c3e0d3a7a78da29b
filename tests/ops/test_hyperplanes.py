"""The smallest change onto a hyperplane inside a box: against linear programming, a slow search, and its optimality."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from vambrace.ops import hyperplanes
from vambrace.ops.hyperplanes import onto_hyperplane
from vambrace.ops.norms import lengths

LOW, HIGH = torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
NORMS = ["l1", "l2", "linf"]


def problems(count: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Points, many of them at the ends of the box; normals with zeros and ties; gaps of which most can be met."""
    generator = torch.Generator().manual_seed(3)
    points = (torch.rand(count, 1, 3, 4, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    normals = torch.randn(count, 1, 3, 4, generator=generator, dtype=torch.float64)
    normals[:, :, 0] = normals[:, :, 0].mul(2).round()
    room = torch.where(normals > 0, 1 - points, points) * normals.abs()
    back = torch.where(normals > 0, points, 1 - points) * normals.abs()
    share = torch.rand(count, generator=generator, dtype=torch.float64)
    gaps = torch.where(share > 0.5, room.flatten(1).sum(1), -back.flatten(1).sum(1))
    return points, normals, gaps * torch.rand(count, generator=generator, dtype=torch.float64)


def slow(point: np.ndarray, normal: np.ndarray, gap: float, norm: str) -> float:
    """The size of the smallest change: a linear programme, or for l2 bisection on the multiplier."""
    size = len(point)
    low, high = -point, 1 - point
    if norm == "l2":
        ends = 0.0, 1e9
        sign = 1.0 if gap >= 0 else -1.0
        for _ in range(300):
            middle = sum(ends) / 2
            change = np.clip(sign * middle * normal, low, high)
            ends = (middle, ends[1]) if change @ normal * sign < abs(gap) else (ends[0], middle)
        return float(np.linalg.norm(np.clip(sign * ends[1] * normal, low, high)))
    if norm == "l1":  # change = up - down
        cost = np.ones(2 * size)
        equal, bounds = np.concatenate((normal, -normal))[None], [(0, h) for h in high] + [(0, -b) for b in low]
        return float(linprog(cost, A_eq=equal, b_eq=[gap], bounds=bounds).fun)
    cost = np.concatenate((np.zeros(size), [1.0]))
    eye = np.eye(size)
    above = np.block([[eye, -np.ones((size, 1))], [-eye, -np.ones((size, 1))]])
    equal = np.concatenate((normal, [0.0]))[None]
    bounds = [*zip(low, high, strict=True), (0, None)]
    return float(linprog(cost, A_ub=above, b_ub=np.zeros(2 * size), A_eq=equal, b_eq=[gap], bounds=bounds).fun)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_no_change_that_reaches_it_is_smaller(norm: str, looks: bool) -> None:
    points, normals, gaps = problems()
    found = onto_hyperplane(points, normals, gaps, LOW, HIGH, norm, looks=looks)
    torch.testing.assert_close((found * normals).flatten(1).sum(1), gaps, rtol=1e-9, atol=1e-12)
    assert ((points + found >= -1e-12) & (points + found <= 1 + 1e-12)).all()
    size = lengths(found, norm)
    for row in range(len(points)):
        least = slow(points[row].flatten().numpy(), normals[row].flatten().numpy(), float(gaps[row]), norm)
        assert abs(float(size[row]) - least) < 1e-7, row


@pytest.mark.parametrize("norm", NORMS)
def test_the_reference_can_tell(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change by the formula for no box, clipped, is refused."""
    name = "_greedy" if norm == "l1" else "_levelled"

    def boxless(weight: Tensor, room: Tensor, gap: Tensor, **how: bool) -> Tensor:
        if norm == "l1":
            best = weight == weight.amax(1, keepdim=True)
            return torch.minimum(best * gap / weight.amax(1, keepdim=True), room)
        pace = torch.ones_like(weight) if how["even"] else weight
        return torch.minimum(pace * gap / (pace * weight).sum(1, keepdim=True), room)

    monkeypatch.setattr(hyperplanes, name, boxless)
    with pytest.raises(AssertionError):
        test_no_change_that_reaches_it_is_smaller(norm, looks=True)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges(norm: str, dtype: torch.dtype, looks: bool) -> None:
    onto_hyperplane = functools.partial(hyperplanes.onto_hyperplane, looks=looks)
    points, normals, gaps = (each.to(dtype) for each in problems())
    low, high = LOW.to(dtype), HIGH.to(dtype)
    nothing = onto_hyperplane(points, normals, gaps * 0, low, high, norm)
    assert not nothing.any()
    flat = onto_hyperplane(points, normals * 0, gaps, low, high, norm)
    assert not flat.any(), "without a direction nothing moves"
    out_of_reach = onto_hyperplane(points, normals, gaps * 0 + 1e6, low, high, norm)
    ends = torch.where(normals > 0, 1 - points, torch.where(normals < 0, -points, 0.0))
    torch.testing.assert_close(out_of_reach, ends)
    for factor in (1e-30, 1e30):
        scaled = onto_hyperplane(points, normals * factor, gaps * factor, low, high, norm)
        expected = onto_hyperplane(points, normals, gaps, low, high, norm)
        torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-5)
    endless = torch.tensor(float("inf"), dtype=dtype)
    free = onto_hyperplane(points, normals, gaps, -endless, endless, norm)
    dual = {"l1": "linf", "l2": "l2", "linf": "l1"}[norm]
    torch.testing.assert_close(lengths(free, norm), gaps.abs() / lengths(normals, dual), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close((free * normals).flatten(1).sum(1), gaps, rtol=1e-4, atol=1e-5)
    mixed = onto_hyperplane(points, normals, gaps, low.expand(1, 3, 4), endless.expand(1, 3, 4), norm)
    assert mixed.isfinite().all()
    assert (points + mixed >= -1e-6).all()


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_samples_do_not_meet(norm: str, looks: bool) -> None:
    onto_hyperplane = functools.partial(hyperplanes.onto_hyperplane, looks=looks)
    points, normals, gaps = problems(20)
    whole = onto_hyperplane(points, normals, gaps, LOW, HIGH, norm)
    for row in range(20):
        part = slice(row, row + 1)
        alone = onto_hyperplane(points[part], normals[part], gaps[part], LOW, HIGH, norm)
        torch.testing.assert_close(whole[part], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("norm", NORMS)
def test_off_cpu_the_host_never_waits(norm: str) -> None:
    """Tensors of the device "meta" have no values: what needs one raises."""
    points, normals, gaps = (each.to("meta") for each in problems())
    found = onto_hyperplane(points, normals, gaps, LOW.to("meta"), HIGH.to("meta"), norm)
    assert found.shape == points.shape
    if norm != "l1":
        with pytest.raises(RuntimeError):
            onto_hyperplane(points, normals, gaps, LOW.to("meta"), HIGH.to("meta"), norm, looks=True)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_end_at_one_point(norm: str, dtype: torch.dtype) -> None:
    """On samples of the size of images, with many elements at the ends of the box."""
    generator = torch.Generator().manual_seed(4)
    points = (torch.rand(20, 3, 16, 16, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    normals = torch.randn(20, 3, 16, 16, generator=generator, dtype=torch.float64)
    room = (torch.where(normals > 0, 1 - points, points) * normals.abs()).flatten(1).sum(1)
    gaps = room * torch.linspace(0.0, 1.1, 20, dtype=torch.float64)
    given = [each.to(dtype) for each in (points, normals, gaps, LOW, HIGH)]
    seen, unseen = (onto_hyperplane(*given, norm, looks=looks) for looks in (True, False))
    torch.testing.assert_close(seen, unseen, rtol=1e-4, atol=1e-5 if dtype == torch.float32 else 1e-12)
