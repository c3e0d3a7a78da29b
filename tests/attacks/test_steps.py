"""Random steps: whole numbers as said, coarse as said, and larger where the change is."""

from __future__ import annotations

import math

import pytest
import torch

from vambrace.attacks import steps
from vambrace.attacks.steps import LARGEST, areas, deviation, smoothed, stepped
from vambrace.core.rng import Streams
from vambrace.ops import draws

STREAM = Streams(4).child("steps", 3)


def test_white_steps_are_the_cheap_numbers() -> None:
    ids, step = torch.tensor([3, 9]), torch.tensor([0, 5])
    for shape, coarse in (((1, 6, 6), False), ((30,), True), ((5, 6), True)):
        found = stepped(STREAM, ids, step=step, shape=shape, coarse=coarse)
        assert torch.equal(found, draws.bell(STREAM, ids, step=step, shape=shape))
        assert deviation(shape, coarse=coarse) == draws.BELL_SIZE


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 15, 40), (1, 4, 4), (1, 1, 9)])
def test_coarse_steps_equal_a_sum_pixel_by_pixel(shape: tuple[int, int, int]) -> None:
    ids, step = torch.tensor([3, 9]), torch.tensor([0, 5])
    found = stepped(STREAM, ids, step=step, shape=shape, coarse=True)
    sizes = [tuple(math.ceil(side / cells) for side in shape[1:]) for cells in (14, 7)]
    grids = [
        (shape[0], *(math.ceil(side / cell) + 1 for side, cell in zip(shape[1:], each, strict=True))) for each in sizes
    ]
    counts = [math.prod(each) for each in (shape, *grids)]
    white, *parts = draws.odd(STREAM, ids, step=step, shape=(sum(counts),)).split(counts, dim=1)
    expected = 2 * white.reshape(2, *shape)
    for part, grid, (high, wide) in zip(parts, grids, sizes, strict=True):
        values = part.reshape(2, *grid)
        upper, lower = divmod(STREAM.child("first", high, wide).key, 1 << 32)
        top, left = upper * high >> 32, lower * wide >> 32
        for row in range(shape[1]):
            for column in range(shape[2]):
                expected[:, :, row, column] += 3 * values[:, :, (row + top) // high, (column + left) // wide]
    assert torch.equal(found, expected)


def test_steps_follow_their_law() -> None:
    """Mean 0, the deviation said, no element beyond the largest, neighbours alike where coarse; whole and exact."""
    shape = (1, 28, 28)
    ids = torch.arange(4000)
    found = stepped(STREAM, ids, step=torch.zeros_like(ids), shape=shape, coarse=True)
    assert float(found.double().std()) == pytest.approx(deviation(shape, coarse=True), rel=0.01)
    assert abs(float(found.double().mean())) < 5 * deviation(shape, coarse=True) / math.sqrt(4000 * 49)
    assert torch.equal(found, found.round())
    assert float(found.abs().max()) <= LARGEST == 255 * (2 + 3 + 3)
    neighbours = found[..., :-1].double().flatten().dot(found[..., 1:].double().flatten()) / found[..., 1:].numel()
    # A pixel shares its cell of 2 with its right neighbour in half of the cases, its cell of 4 in three of four.
    assert float(neighbours) / deviation(shape, coarse=True) ** 2 == pytest.approx((9 / 2 + 9 * 3 / 4) / 22, abs=0.02)
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.sum(0), found[order].sum(0))
    assert torch.equal(found.sum(0).double(), found.double().sum(0))
    alone = stepped(STREAM, ids[7:8], step=torch.zeros(1).long(), shape=shape, coarse=True)
    assert torch.equal(alone, found[7:8])


def test_cells_begin_elsewhere_in_another_stream() -> None:
    edges = set()
    for turn in range(12):
        stream = Streams(4).child("steps", turn)
        found = stepped(stream, torch.tensor([1]), step=torch.tensor([0]), shape=(1, 28, 28), coarse=True)
        coarse = found - 2 * draws.odd(stream, torch.tensor([1]), step=torch.tensor([0]), shape=(1, 28, 28))
        jumps = (coarse[0, 0, :, 1:] != coarse[0, 0, :, :-1]).any(0)
        edges.add(tuple(jumps.nonzero().flatten().tolist()))
    assert len(edges) > 1


def test_areas_are_where_the_change_is() -> None:
    change = torch.zeros(2, 3, 9, 9, dtype=torch.float64)
    change[0, 1, 4, 4] = -9.0
    change[1] = 2.0
    found = areas(change)
    assert found.shape == (2, 1, 9, 9)
    assert found[1].flatten().tolist() == pytest.approx([1.3] * 81)
    assert found[0, 0, 0].tolist() == pytest.approx([0.3] * 9)
    assert torch.equal(found[0, 0, 3:6, 3:6], found[0, 0, 4, 4].expand(3, 3))
    assert float(found[0].mean()) == pytest.approx(1.3)
    assert torch.equal(areas(torch.zeros(1, 1, 4, 4)), torch.full((1, 1, 4, 4), steps._LEAST))
    assert areas(torch.ones(2, 5)).tolist() == [[1.0], [1.0]]


def test_smoothed_is_a_mean_over_what_there_is() -> None:
    images = torch.arange(2 * 16, dtype=torch.float64).reshape(1, 2, 4, 4)
    found = smoothed(images, 3)
    assert float(found[0, 0, 0, 0]) == pytest.approx(float(images[0, :, :2, :2].mean()))
    assert float(found[0, 0, 2, 1]) == pytest.approx(float(images[0, :, 1:4, 0:3].mean()))
