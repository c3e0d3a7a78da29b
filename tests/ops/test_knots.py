"""The piece of a monotone function by binary search; and that off CPU no projection makes the host wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vambrace.attacks.ball import Ball
from vambrace.core.access import Bounds
from vambrace.core.rng import Streams
from vambrace.ops.balls import shrink
from vambrace.ops.knots import last_within, may_look
from vambrace.ops.projections import ball_box, project_l2
from vambrace.ops.projections_l1 import draw_l1, fill, movable, project_l1, sparse_signs

LOOKS = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal",
    "aten::unique", "aten::_unique2", "aten::bincount", "aten::index", "aten::index_put_", "aten::_to_copy",
}  # fmt: skip
"""Operations that make the host wait for a device, always or with the arguments that projections could give them."""


class Blind(TorchDispatchMode):
    """Refuses every operation by which the host would see a value."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        moves = name == "aten::_to_copy" and (kwargs or {}).get("device") is not None
        assert name not in LOOKS or (name == "aten::_to_copy" and not moves), f"{name} makes the host wait"
        return func(*args, **(kwargs or {}))


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=20), min_size=1, max_size=5),
    level=st.integers(-9, 9),
)
def test_last_within_is_what_a_walk_finds(rows: list[list[int]], level: int) -> None:
    width = min(map(len, rows))
    knots = torch.tensor([sorted(row[:width]) for row in rows], dtype=torch.float64)
    asked = []

    def within(at: Tensor) -> Tensor:
        asked.append(at)
        return at <= level

    last, following = last_within(knots, within)
    for row, found, after in zip(knots.tolist(), last.flatten().tolist(), following.flatten().tolist(), strict=True):
        place = max([0, *(place for place, value in enumerate(row) if value <= level)])
        assert (found, after) == (row[place], row[min(place + 1, width - 1)])
    assert len(asked) == (width - 1).bit_length(), "the shape alone decides how often it asks"


def sets(dtype: torch.dtype, shape: tuple[int, ...] = (6, 2, 3, 5)) -> tuple[Tensor, ...]:
    """Points near and far, centres with many elements at the ends of the box, the box, and gradients."""
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.rand(shape, generator=generator) * 1.8 - 0.4).clamp(0, 1).to(dtype)
    size = torch.tensor([0.001, 0.1, 0.5, 1.0, 5.0, 100.0]).view(-1, *[1] * (len(shape) - 1))
    points = inputs + (torch.randn(shape, generator=generator) * size).to(dtype)
    low, high = torch.zeros(shape, dtype=dtype), torch.ones(shape, dtype=dtype)
    gradients = torch.randn(shape, generator=generator).to(dtype)
    return points, inputs, low, high, gradients


STEPS: dict[str, Callable[..., Tensor]] = {
    "project_l2": lambda p, x, low, high, g, looks: project_l2(p, x, 0.7, low, high, looks=looks),
    "project_l1": lambda p, x, low, high, g, looks: project_l1(p, x, 2.0, low, high, looks=looks),
    "project_l1, a radius each": lambda p, x, low, high, g, looks: project_l1(
        p, x, g.abs().flatten(1).sum(1) * 0.1, low, high, looks=looks
    ),
    "shrink l1": lambda p, x, low, high, g, looks: shrink(p - x, x.flatten(1).sum(1), "l1", looks=looks),
    "shrink l0": lambda p, x, low, high, g, looks: shrink(p - x, x.flatten(1).sum(1), "l0", looks=looks),
    "shrink l2": lambda p, x, low, high, g, looks: shrink(p - x, x.flatten(1).sum(1), "l2", looks=looks),
    "shrink linf": lambda p, x, low, high, g, looks: shrink(p - x, x.flatten(1).sum(1), "linf", looks=looks),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("step", STEPS)
def test_without_looks_the_host_sees_no_value_and_the_points_are_the_same(step: str, dtype: torch.dtype) -> None:
    given = sets(dtype)
    expected = STEPS[step](*given, looks=True)
    with Blind():
        found = STEPS[step](*given, looks=False)
    assert found.dtype == expected.dtype == dtype
    for row in range(6):  # an amount that all elements lose is no finer than the largest of them
        tolerance = 4 * torch.finfo(dtype).eps * max(1.0, float(given[0][row].abs().max()))
        torch.testing.assert_close(found[row], expected[row], rtol=0, atol=tolerance)
        alone = STEPS[step](*(each[row : row + 1] for each in given), looks=False)
        torch.testing.assert_close(alone[0], found[row], rtol=0, atol=tolerance)


MOVES: dict[str, Callable[..., object]] = {
    **{name: lambda *given, step=step: step(*given, looks=None) for name, step in STEPS.items()},
    "ball_box": lambda p, x, low, high, g: ball_box(x, 0.1, Bounds(0.0, 1.0)),
    "movable": lambda p, x, low, high, g: movable(g, x, low, high),
    "fill": lambda p, x, low, high, g: fill(g, x, 0.3, low, high),
    "sparse_signs": lambda p, x, low, high, g: sparse_signs(g, 4),
    "sparse_signs, a count each": lambda p, x, low, high, g: sparse_signs(
        g, torch.ones(6, dtype=torch.int64, device=p.device)
    ),
    "draw_l1": lambda p, x, low, high, g: draw_l1(
        Streams(0), torch.arange(6, device=p.device), shape=(2, 3, 5), step=0, dtype=torch.float32
    ),
    **{
        f"ascend {norm} {sparsity}": lambda p, x, low, high, g, norm=norm, sparsity=sparsity: Ball(
            norm=norm, eps=0.5, sparsity=sparsity
        ).ascend({"centre": x, "low": low, "high": high}, x, g, 0.1)
        for norm, sparsity in (("linf", None), ("l2", None), ("l1", None), ("l1", 0.1))
    },
}


@pytest.mark.parametrize("move", MOVES)
def test_off_cpu_no_step_needs_a_value(move: str) -> None:
    """Tensors of the device "meta" have none: whoever asks for one gets an error."""
    MOVES[move](*(torch.empty(6, 2, 3, 5, device="meta") for _ in range(5)))


@pytest.mark.parametrize(
    "look",
    [
        lambda x: bool((x > 0).any()),
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_a_look_would_be_told(look: Callable[[Tensor], object]) -> None:
    """Negative control, of both ways to tell."""
    with pytest.raises(AssertionError), Blind():
        look(torch.ones(2, 3))
    with pytest.raises((RuntimeError, NotImplementedError)):
        look(torch.ones(2, 3, device="meta"))


def test_only_cpu_may_be_looked_at() -> None:
    assert may_look(torch.ones(1, device="cpu"))
    assert not may_look(torch.ones(1, device="meta"))
