"""Windows: two ways to write them that must agree, and bumps beside a slow drawing of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from naive_square import eta
from vambrace.ops import windows as module
from vambrace.ops.windows import bump, frame, move_bumps, put_ends, square_side


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
        first = torch.tensor([(height - tall) * width + width - side])
        for upright in (True, False):
            found = bump(
                first,
                torch.tensor([side]),
                torch.tensor([upright]),
                height=height,
                width=width,
                power=power,
                dtype=torch.float64,
            )[0]
            expected = torch.zeros(height, width, dtype=torch.float64)
            expected[height - tall :, width - side :] = eta(tall, side, upright, "l1" if power == 1 else "l2")
            torch.testing.assert_close(found, expected)
            assert float(found.flatten().norm(p=power)) == pytest.approx(1.0)


def sample(
    height: int, width: int, channels: int, n: int = 40, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Points as flat channels, their centre, the box, and two windows each: first places (n, 2) and sides."""
    generator = torch.Generator().manual_seed(height * width)
    centre = torch.rand(n, channels, height * width, generator=generator, dtype=dtype)
    points = (centre + 0.1 * torch.randn(centre.shape, generator=generator, dtype=dtype)).clamp(0, 1)
    most = width if height == 1 else min(height, width)
    side = torch.randint(0, most + 1, (n,), generator=generator)
    room = torch.stack(((height - side).clamp(min=0), width - side), dim=1) + (side > 0).unsqueeze(1)
    corners = (torch.rand(n, 2, 2, generator=generator) * room.unsqueeze(1)).long()
    return (
        points,
        centre,
        torch.zeros_like(centre),
        torch.ones_like(centre),
        (corners * torch.tensor([width, 1])).sum(-1),
        side,
    )


def ways(like: Tensor) -> tuple[bool, ...]:
    """How windows can be moved where `like` is: by places, which the host looks at, on CPU alone; by masks anywhere."""
    return (True, False) if like.device.type == "cpu" else (False,)


def marks(n: int, channels: int) -> tuple[Tensor, Tensor]:
    """Whether hills come first, or which end is meant, bool (n, c); and kinds of bumps."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.rand(n, channels, generator=generator) < 0.5
    return colours, colours + 2 * (torch.rand(n, 1, generator=generator) < 0.5)


@pytest.mark.parametrize(("height", "width", "channels"), [(6, 6, 1), (5, 9, 3), (1, 12, 1), (1, 8, 2), (1, 1, 1)])
def test_masks_and_places_agree(height: int, width: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points, centre, low, high, first, side = sample(height, width, channels)
    colours, kinds = marks(len(points), channels)
    kept = points.clone()

    def all_three(device: torch.device | str) -> tuple[Tensor, ...]:
        *given, begin, sides, upper, bumps = (
            each.to(device) for each in (points, centre, low, high, first, side, colours, kinds)
        )
        how = {"first": begin, "side": sides, "kinds": bumps, "width": width, "eps": 1.5}
        ends = put_ends(given[0], *given[2:], first=begin[:, :1], side=sides, upper=upper, width=width)
        return (ends, *(move_bumps(*given, power=power, **how) for power in (1, 2)))

    written = [each.to(points.device) for each in all_three("cpu")]
    monkeypatch.setattr(module, "_on_host", lambda tensor: False)
    for one, other in zip(written, all_three(points.device), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert torch.equal(points, kept)
    empty = side == 0
    for found in written:
        assert torch.equal(found[empty], points[empty]), "an empty window changes nothing"
    for found, power in zip(written[1:], (1, 2), strict=True):
        before, after = ((each - centre).flatten(1).norm(p=power, dim=1) for each in (points, found))
        assert (after <= before.clamp(min=1.5) + 1e-9).all()


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (9, 9, 3), (1, 40, 1)])
def test_a_sample_does_not_depend_on_its_company(height: int, width: int, channels: int) -> None:
    """Bit for bit, whatever the windows of the others."""
    points, centre, low, high, first, side = sample(height, width, channels, dtype=torch.float32)
    colours, kinds = marks(len(points), channels)

    def of(rows: Tensor) -> tuple[Tensor, ...]:
        given = [each[rows] for each in (points, centre, low, high)]
        how = {"side": side[rows], "width": width}
        ends = put_ends(given[0], *given[2:], first=first[rows, :1], upper=colours[rows], **how)
        bumps = (move_bumps(*given, first=first[rows], kinds=kinds[rows], eps=1.5, power=k, **how) for k in (1, 2))
        return (ends, *bumps)

    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(2))
    whole = of(torch.arange(len(points)))
    for parts in (order.split(1), order.split(7), [order]):
        split = [of(part) for part in parts]
        for place, expected in enumerate(whole):
            assert torch.equal(torch.cat([each[place] for each in split]), expected[order])


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_without_anything_in_them_have_nothing_to_spend(
    power: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full ball leaves no length but rounding, and that is not made a bump."""
    generator = torch.Generator().manual_seed(3)
    centre = torch.full((50, channels, 28 * 28), 0.5)
    change = torch.randn(centre.shape, generator=generator).view(50, channels, 28, 28)
    change[:, :, 20:, 20:] = 0
    length = change.flatten(1).norm(p=power, dim=1)
    points = centre + (change / length[:, None, None, None]).flatten(2)
    how = {"first": torch.tensor([[20 * 28 + 20, 24 * 28 + 21]]).repeat(50, 1), "side": torch.full((50,), 4)}
    how |= {"kinds": torch.ones(50, channels, dtype=torch.int64), "width": 28, "eps": 1.0, "power": power}
    for on_host in ways(points):
        monkeypatch.setattr(module, "_on_host", lambda tensor, on_host=on_host: on_host)
        found = move_bumps(points, centre, torch.zeros_like(centre), torch.ones_like(centre), **how)
        torch.testing.assert_close(found, points, rtol=0, atol=1e-6)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_box_cuts_off_is_made_up_for(power: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On black only the hill is left of a bump, and is as long as both would be; on grey next to black, nearly."""
    black = torch.zeros(2, channels, 81, dtype=torch.float64)
    grey = torch.full_like(black, 0.02)
    how = {"first": torch.tensor([[20, 40], [30, 0]]), "side": torch.tensor([5, 3]), "width": 9, "eps": 0.2}
    how |= {"kinds": torch.tensor([[3] * channels, [0] * channels]), "power": power}
    for on_host in ways(black):
        monkeypatch.setattr(module, "_on_host", lambda tensor, on_host=on_host: on_host)
        for centre, missing in ((black, 1e-12), (grey, 0.02)):
            change = move_bumps(centre, centre, torch.zeros_like(centre), torch.ones_like(centre), **how) - centre
            assert float(change.min()) >= -0.02
            length = change.flatten(1).norm(p=power, dim=1)
            assert (length <= 0.2 * (1 + 1e-12)).all()
            assert (length >= 0.2 * (1 - missing)).all()
    nothing = move_bumps(black, black, black, black, **how)
    assert torch.equal(nothing, black), "where nothing may move, nothing does"


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_bump_and_its_opposite_leave_rounding_that_is_not_blown_up(
    power: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    centre = torch.full((1, channels, 81), 0.5)
    low, high = torch.zeros_like(centre), torch.ones_like(centre)
    how = {"first": torch.tensor([[20, 20]]), "side": torch.tensor([5]), "width": 9, "eps": 0.3, "power": power}
    for on_host in ways(centre):
        monkeypatch.setattr(module, "_on_host", lambda tensor, on_host=on_host: on_host)
        there = move_bumps(centre, centre, low, high, kinds=torch.ones(1, channels, dtype=torch.int64), **how)
        assert float((there - centre).norm(p=power)) == pytest.approx(0.3, rel=1e-3)
        found = move_bumps(there, centre, low, high, kinds=torch.zeros(1, channels, dtype=torch.int64), **how)
        assert float((found - centre).norm(p=power)) < 0.05 * 0.3


@pytest.mark.parametrize("power", [1, 2])
def test_a_little_room_is_used(power: int) -> None:
    """Down to what `_room` takes for rounding."""
    centre, eps = torch.full((1, 1, 81), 0.5, dtype=torch.float64), 0.4
    low, high = torch.zeros_like(centre), torch.ones_like(centre)
    for left in (1e-2, 5e-5, 1e-5) if power == 1 else (1e-2, 2e-3):
        points = centre.clone()
        points[0, 0, 80] += eps * (1 - left if power == 1 else (1 - left**2) ** 0.5)
        how = {"first": torch.tensor([[0, 0]]), "side": torch.tensor([3]), "kinds": torch.ones(1, 1, dtype=torch.int64)}
        found = move_bumps(points, centre, low, high, **how, width=9, eps=eps, power=power)
        assert float((found - points).norm(p=power)) == pytest.approx(left * eps, rel=1e-3)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_half_precision_and_a_tiny_radius_give_numbers(power: int, value: float) -> None:
    centre = torch.full((2, 1, 81), value, dtype=torch.float16)
    how = {"first": torch.tensor([[0, 40], [33, 33]]), "side": torch.tensor([3, 3]), "width": 9, "power": power}
    how |= {"kinds": torch.ones(2, 1, dtype=torch.int64)}
    for eps in (1e-4, 1e-2, 1.0):
        found = move_bumps(centre, centre, torch.zeros_like(centre), torch.ones_like(centre), eps=eps, **how)
        assert found.isfinite().all()


def test_a_window_that_is_there_already_goes_to_the_other_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = torch.zeros(2, 2, 9), torch.ones(2, 2, 9)
    middle = {"first": torch.full((2, 1), 4), "side": torch.ones(2, dtype=torch.int64), "width": 3}
    upper = torch.tensor([[True, False], [True, True]])
    points = put_ends(torch.full_like(low, 0.5), low, high, upper=upper, **middle)
    assert points[:, :, 4].tolist() == [[1, 0], [1, 1]]
    for on_host in ways(points):
        monkeypatch.setattr(module, "_on_host", lambda tensor, on_host=on_host: on_host)
        again = put_ends(points, low, high, upper=upper, **middle)
        assert again[:, :, 4].tolist() == [[0, 1], [0, 0]]
        other = put_ends(points, low, high, upper=torch.tensor([[True, True], [False, True]]), **middle)
        assert other[:, :, 4].tolist() == [[1, 1], [0, 1]], "one channel that changes is enough"
    assert (points != 0.5).flatten(1).sum(1).tolist() == [2, 2]


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("on_host", [True, False])
def test_a_box_of_one_value_a_sample_is_the_same_box(
    power: int, channels: int, on_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so are several windows of a sample, in a row, beside each by itself."""
    points, centre, low, high, first, side = sample(8, 9, channels, dtype=torch.float32)
    if on_host not in ways(points):
        pytest.skip("places are for the CPU")
    monkeypatch.setattr(module, "_on_host", lambda tensor: on_host)
    side = side.view(-1, 4)[:, :1].expand(-1, 4).reshape(-1).clamp(max=4)
    first = first.clamp(max=4 * 9 + 5) // 9 * 9 + first % 9 % 6
    kinds = marks(len(points), channels)[1]
    how = {"first": first, "side": side, "kinds": kinds, "width": 9, "eps": 1.5, "power": power}
    owners = torch.arange(len(points)).div(4, rounding_mode="floor")
    each = move_bumps(*(given[owners] for given in (points, centre, low, high)), **how)
    ends = (low[:10, :1, :1], high[:10, :1, :1])
    assert torch.equal(move_bumps(points[:10], centre[:10], low[:10], high[:10], **how), each)
    assert torch.equal(move_bumps(points[:10], centre[:10], *ends, **how), each)
    assert not torch.equal(each, points[owners])
