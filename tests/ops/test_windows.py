"""Windows: two ways to write them that must agree, and bumps beside a slow drawing of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from naive_square import eta
from vambrace.ops import windows as module
from vambrace.ops.windows import Windows, bump, frame, move_bumps, put_ends, square_side


def test_frames() -> None:
    assert frame((3, 8, 9)) == (3, 8, 9)
    assert frame((7,)) == (1, 1, 7)
    assert frame((4, 10)) == (4, 1, 10)
    assert frame((2, 3, 4, 5)) == (2, 1, 60)


def test_sides_cover_their_share() -> None:
    assert [square_side(share, 28, 28) for share in (1.0, 0.5, 0.05, 1e-6)] == [28, 20, 6, 1]
    assert [square_side(share, 1, 20) for share in (1.0, 0.5, 0.01)] == [20, 10, 1]


@pytest.mark.parametrize(("height", "width"), [(6, 6), (4, 9), (1, 11), (20, 20)])
@pytest.mark.parametrize("power", [1, 2])
def test_bumps_are_as_drawn_by_hand(height: int, width: int, power: int) -> None:
    for side in range(1, min(height, width) + 1 if height > 1 else width + 1):
        tall = min(side, height)
        one = torch.tensor([height - tall]), torch.tensor([width - side]), torch.tensor([side])
        for upright in (True, False):
            found = bump(
                Windows(*one), torch.tensor([upright]), height=height, width=width, power=power, dtype=torch.float64
            )[0]
            expected = torch.zeros(height, width, dtype=torch.float64)
            expected[height - tall :, width - side :] = eta(tall, side, upright, "l1" if power == 1 else "l2")
            torch.testing.assert_close(found, expected)
            assert float(found.flatten().norm(p=power)) == pytest.approx(1.0)


def sample(
    height: int, width: int, channels: int, n: int = 40
) -> tuple[Tensor, Tensor, Tensor, Tensor, Windows, Windows]:
    generator = torch.Generator().manual_seed(height * width)
    centre = torch.rand(n, channels, height, width, generator=generator, dtype=torch.float64)
    points = (centre + 0.1 * torch.randn(centre.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    most = width if height == 1 else min(height, width)
    side = torch.randint(0, most + 1, (n,), generator=generator)
    both = []
    for _ in range(2):
        share = torch.rand(2, n, generator=generator)
        room = (height - side).clamp(min=0) + (side > 0), (width - side) + (side > 0)
        both.append(Windows((share[0] * room[0]).long(), (share[1] * room[1]).long(), side))
    low, high = torch.zeros_like(centre), torch.ones_like(centre)
    return points, centre, low, high, both[0], both[1]


@pytest.mark.parametrize(("height", "width", "channels"), [(6, 6, 1), (5, 9, 3), (1, 12, 1), (1, 8, 2), (1, 1, 1)])
def test_masks_and_patches_agree(height: int, width: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points, centre, low, high, gains, gives = sample(height, width, channels)
    generator = torch.Generator().manual_seed(1)
    colours = torch.rand(len(points), channels, generator=generator) < 0.5
    upright = torch.rand(len(points), generator=generator) < 0.5
    kept = points.clone()

    def both(power: int) -> Tensor:
        how = {"gains": gains, "gives": gives, "upright": upright, "colours": colours, "low": low, "high": high}
        return move_bumps(points, centre, eps=1.5, power=power, **how)

    written = put_ends(points, low, high, gains, colours), both(1), both(2)
    monkeypatch.setattr(module, "_on_host", lambda tensor: False)
    masked = put_ends(points, low, high, gains, colours), both(1), both(2)
    for one, other in zip(written, masked, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert torch.equal(points, kept)
    empty = gains.side == 0
    for found in written:
        assert torch.equal(found[empty], points[empty]), "an empty window changes nothing"
    for found, power in zip(written[1:], (1, 2), strict=True):
        before, after = ((each - centre).flatten(1).norm(p=power, dim=1) for each in (points, found))
        assert (after <= before.clamp(min=1.5) + 1e-9).all()


def test_a_window_that_is_there_already_goes_to_the_other_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = torch.zeros(2, 2, 3, 3), torch.ones(2, 2, 3, 3)
    one = torch.ones(2, dtype=torch.int64)
    windows, upper = Windows(one, one, one), torch.tensor([[True, False], [True, True]])
    points = put_ends(torch.full_like(low, 0.5), low, high, windows, upper)
    assert points[:, :, 1, 1].tolist() == [[1, 0], [1, 1]]
    for on_host in (True, False):
        monkeypatch.setattr(module, "_on_host", lambda tensor, on_host=on_host: on_host)
        again = put_ends(points, low, high, windows, upper)
        assert again[:, :, 1, 1].tolist() == [[0, 1], [0, 0]]
        other = put_ends(points, low, high, windows, torch.tensor([[True, True], [False, True]]))
        assert other[:, :, 1, 1].tolist() == [[1, 1], [0, 1]], "one channel that changes is enough"
    assert (points != 0.5).flatten(1).sum(1).tolist() == [2, 2]
