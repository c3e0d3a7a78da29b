"""Values per sample beside tensors of samples."""

from __future__ import annotations

import pytest
import torch

from vambrace.ops.rows import assign, assign_each, spread


@pytest.mark.parametrize("shape", [(3, 4), (3, 1, 2, 5), (3,)])
def test_spread_broadcasts_along_samples(shape: tuple[int, ...]) -> None:
    values = torch.tensor([1.0, 2.0, 3.0])
    found = torch.zeros(shape) + spread(values, torch.zeros(shape))
    for row in range(3):
        assert (found[row] == row + 1).all()


@pytest.mark.parametrize("chosen", [[True, False, True], [False] * 3, [True] * 3])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_assign_touches_the_chosen_only(chosen: list[bool], form: torch.memory_format, device: torch.device) -> None:
    target = torch.zeros(3, 2, 2, 2, device=device).contiguous(memory_format=form)
    values = torch.full((3, 2, 2, 2), 7.0, device=device).contiguous(memory_format=form)
    values[1] = float("nan")
    before = target.clone()
    assign(target, torch.tensor(chosen, device=device), values)
    for row, wanted in enumerate(chosen):
        expected = values[row] if wanted else before[row]
        torch.testing.assert_close(target[row], expected, equal_nan=True)


def test_several_targets_of_any_shape_are_assigned_together(device: torch.device) -> None:
    images, sizes = torch.zeros(3, 2, 2, device=device), torch.zeros(3, dtype=torch.float64, device=device)
    assign_each(torch.tensor([False, True, True], device=device), (images, images + 2), (sizes, sizes + 5))
    assert images[:, 0, 0].tolist() == [0, 2, 2]
    assert sizes.tolist() == [0, 5, 5]
