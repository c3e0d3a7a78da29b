"""The l1 ball inside the box: against slow references, and at the borders where such code goes wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vambrace.core.rng import Streams
from vambrace.ops.projections import tighten
from vambrace.ops.projections_l1 import draw_l1, fill, movable, project_l1, sparse_signs


def bisected(point: Tensor, centre: Tensor, eps: float, low: float, high: float) -> Tensor:
    """One sample: the amount that every element of the change gives up, by halving."""
    change = point - centre

    def at(amount: float) -> Tensor:
        return (centre + change.sign() * (change.abs() - amount).clamp(min=0)).clamp(low, high)

    if float((at(0.0) - centre).abs().sum()) <= eps:
        return at(0.0)
    inside, outside = float(change.abs().max()), 0.0
    for _ in range(200):
        middle = (inside + outside) / 2
        if float((at(middle) - centre).abs().sum()) <= eps:
            inside = middle
        else:
            outside = middle
    return at(inside)


def samples(seed: int, n: int = 12, features: int = 23) -> tuple[Tensor, Tensor]:
    """Centres, some of them in corners of the box, and points near and far."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(n, features, generator=generator, dtype=torch.float64)
    centre = torch.where(torch.rand(n, features, generator=generator) < 0.3, centre.round(), centre)
    size = 10 ** (torch.rand(n, 1, generator=generator, dtype=torch.float64) * 4 - 2)
    moves = torch.randn(n, features, generator=generator, dtype=torch.float64) * size
    return centre, centre + torch.where(torch.rand(n, features, generator=generator) < 0.2, 0.0, moves)


def project(points: Tensor, centre: Tensor, eps: float, *, looks: bool) -> Tensor:
    low, high = torch.zeros((), dtype=points.dtype), torch.ones((), dtype=points.dtype)
    return project_l1(points, centre, eps, low, high, looks=looks)


LOOKS = pytest.mark.parametrize("looks", [True, False])


@LOOKS
@settings(deadline=None)
@given(seed=st.integers(0, 2**31), eps=st.floats(1e-6, 30))
def test_is_what_bisection_finds(looks: bool, seed: int, eps: float) -> None:
    centre, points = samples(seed)
    found = project(points, centre, eps, looks=looks)
    expected = torch.stack([bisected(*pair, eps, 0.0, 1.0) for pair in zip(points, centre, strict=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@LOOKS
def test_every_sample_may_have_a_radius_of_its_own(looks: bool) -> None:
    centre, points = samples(3)
    eps = torch.logspace(-2, 1, len(points), dtype=torch.float64)
    low, high = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    found = project_l1(points, centre, eps, low, high, looks=looks)
    expected = [
        project(points[row : row + 1], centre[row : row + 1], float(eps[row]), looks=looks)
        for row in range(len(points))
    ]
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-10)
    assert not torch.allclose(found, project(points, centre, 1.0, looks=looks))


@LOOKS
@settings(deadline=None)
@given(seed=st.integers(0, 2**31), eps=st.floats(0.01, 10))
def test_no_allowed_point_is_nearer(looks: bool, seed: int, eps: float) -> None:
    """The variational inequality, which only the nearest point of a convex set fulfils."""
    centre, points = samples(seed)
    found = project(points, centre, eps, looks=looks)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        other = (centre + torch.randn(centre.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
        size = (other - centre).abs().sum(1, keepdim=True)
        other = centre + (other - centre) * (eps / size).clamp(max=1)
        assert (((points - found) * (other - found)).sum(1) <= 1e-8).all()


@LOOKS
@settings(deadline=None)
@given(seed=st.integers(0, 2**31), eps=st.floats(0.01, 20))
def test_in_single_precision_too(looks: bool, seed: int, eps: float) -> None:
    centre, points = (each.float() for each in samples(seed, features=60))
    found = project(points, centre, eps, looks=looks)
    assert ((found >= 0) & (found <= 1)).all()
    size = (found.double() - centre.double()).abs().sum(1)
    rounding = 60 * 1e-7 * float(points.abs().max().clamp(min=1))  # of sixty sums of such points
    assert (size <= eps * (1 + 1e-5) + rounding).all()
    exact = project(points.double(), centre.double(), eps, looks=looks)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)
    tight, distance = tighten(found, centre, eps, "l1", None)
    assert (distance <= eps).all()
    assert (tight - found).abs().max() < 1e-5 + rounding


@LOOKS
def test_a_sample_is_projected_as_it_would_be_alone(looks: bool) -> None:
    centre, points = samples(3, n=40)
    whole = project(points, centre, 2.0, looks=looks)
    for row in range(40):
        assert torch.equal(project(points[row : row + 1], centre[row : row + 1], 2.0, looks=looks)[0], whole[row])


@LOOKS
def test_points_inside_come_back_and_images_keep_their_shape(looks: bool) -> None:
    centre = torch.full((2, 1, 3, 3), 0.5)
    near = centre + 0.01
    assert torch.equal(project(near, centre, 1.0, looks=looks), near)
    assert project(near, centre, 0.01, looks=looks).shape == near.shape
    assert torch.equal(project(near + 5, centre, 0.0, looks=looks), centre)
    no_box = project_l1(centre + 1, centre, 0.9, torch.tensor(float("-inf")), torch.tensor(float("inf")), looks=looks)
    torch.testing.assert_close(no_box, centre + 0.1)
    half = project(near.half() + 5, centre.half(), 1.0, looks=looks)
    assert half.dtype == torch.float16
    assert (half.float() - 0.5).abs().flatten(1).sum(1).max() < 1.01


def test_fill_raises_a_linear_function_most() -> None:
    """Against a slow greedy loop, which is optimal for a fractional knapsack; and against random allowed changes."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(9, 11, generator=generator, dtype=torch.float64)
    gradients = torch.randn(9, 11, generator=generator, dtype=torch.float64)
    low, high = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for size in (0.05, 1.3, 4.0, 100.0):
        found = fill(gradients, points, size, low, high)
        for row in range(9):
            left, expected = size, torch.zeros(11, dtype=torch.float64)
            for place in gradients[row].abs().argsort(descending=True).tolist():
                side = float(gradients[row, place].sign())
                room = 1 - float(points[row, place]) if side > 0 else float(points[row, place])
                expected[place] = side * min(room, left)
                left -= abs(float(expected[place]))
            torch.testing.assert_close(found[row], expected)
        rate = (found * gradients).sum(1)
        for _ in range(50):
            other = (points + torch.randn(points.shape, generator=generator, dtype=torch.float64)).clamp(0, 1) - points
            other *= (size / other.abs().sum(1, keepdim=True)).clamp(max=1)
            assert ((other * gradients).sum(1) <= rate + 1e-12).all()
    own = fill(gradients, points, torch.full((9, 1), 1.3, dtype=torch.float64), low, high)
    assert torch.equal(own, fill(gradients, points, 1.3, low, high))
    unbounded = fill(gradients, points, 2.0, low - float("inf"), high + float("inf"))
    assert (unbounded.ne(0).sum(1) == 1).all()
    torch.testing.assert_close(unbounded.abs().sum(1), torch.full((9,), 2.0, dtype=torch.float64))


def test_sparse_signs_take_the_steepest() -> None:
    gradients = torch.tensor([[3.0, -5.0, 1.0, 0.0], [0.0, 0.0, -2.0, 0.0], [1.0, 1.0, 1.0, 0.5]])
    torch.testing.assert_close(
        sparse_signs(gradients, 2),
        torch.tensor([[0.5, -0.5, 0, 0], [0, 0, -1.0, 0], [1 / 3, 1 / 3, 1 / 3, 0]]),
    )
    torch.testing.assert_close(
        sparse_signs(gradients, torch.tensor([1, 0, 9])),
        torch.tensor([[0, -1.0, 0, 0], [0, 0, -1.0, 0], [0.25, 0.25, 0.25, 0.25]]),
    )
    assert sparse_signs(gradients.reshape(3, 1, 2, 2), 2).shape == (3, 1, 2, 2)
    assert sparse_signs(torch.zeros(2, 3), 2).abs().sum() == 0


def test_movable_drops_what_the_box_stops() -> None:
    low, high = torch.tensor(0.0), torch.tensor(1.0)
    found = movable(torch.tensor([[1.0, -1.0, 1.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.5, 1.0]]), low, high)
    assert found.tolist() == [[0.0, 0.0, 1.0, -1.0]]


def drawn(features: int, n: int = 20000) -> Tensor:
    return draw_l1(Streams(4), torch.arange(n), shape=(features,), step=0, dtype=torch.float64)


@pytest.mark.statistical
@pytest.mark.parametrize("features", [2, 5])
def test_draws_are_uniform_in_the_ball(features: int) -> None:
    """The share inside radius r is r ** d, the sides are fair, every element is alike. Bounds: 4.5 deviations."""
    found = drawn(features)
    size = found.abs().sum(1)
    assert (size <= 1).all()
    for radius in (0.5, 0.8, 0.95):
        share, expected = float((size <= radius).double().mean()), radius**features
        assert abs(share - expected) < 4.5 * (expected * (1 - expected) / len(found)) ** 0.5
    assert ((found > 0).double().mean(0) - 0.5).abs().max() < 4.5 * 0.5 / len(found) ** 0.5
    # E|x_i| = 1 / (d + 1), E x_i^2 = 2 / ((d + 1)(d + 2))
    spread = (2 / ((features + 1) * (features + 2)) - 1 / (features + 1) ** 2) ** 0.5
    assert (found.abs().mean(0) - 1 / (features + 1)).abs().max() < 4.5 * spread / len(found) ** 0.5


@pytest.mark.statistical
def test_draws_on_the_sphere_would_be_told() -> None:
    """Negative control: without the last share all points lie on the sphere."""
    size = drawn(5).abs().sum(1)
    share = float(((drawn(5) / size.unsqueeze(1)).abs().sum(1) <= 0.8).double().mean())
    assert abs(share - 0.8**5) > 4.5 * (0.8**5 * (1 - 0.8**5) / 20000) ** 0.5


def test_draws_are_keyed_by_id_and_step() -> None:
    ids = torch.tensor([5, 9])
    both = draw_l1(Streams(0), ids, shape=(2, 3), step=torch.tensor([1, 2]), dtype=torch.float32)
    alone = draw_l1(Streams(0), ids[1:], shape=(2, 3), step=2, dtype=torch.float32)
    assert both.shape == (2, 2, 3)
    assert torch.equal(both[1], alone[0])
    assert not torch.equal(both[1], draw_l1(Streams(0), ids[1:], shape=(2, 3), step=1, dtype=torch.float32)[0])
