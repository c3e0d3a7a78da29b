"""Square as the paper writes it, one sample at a time, with loops over pixels. What ours is compared with.

Beyond the paper, what the box takes away from a bump is made up for inside of its window.

Only the definition of a success and the documented draws are the same by intent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from naive_attacks import Found, Sample
from vambrace.core.rng import Streams
from vambrace.ops import draws

MARKS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def eta(tall: int, wide: int, upright: bool, norm: str) -> Tensor:
    """A hill over (or left of) a valley: rings around the middle, each adding 1/j**2 to all that it encloses."""
    order = 1 if norm == "l1" else 2

    def rings(rows: int, columns: int) -> Tensor:
        found = torch.zeros(rows, columns, dtype=torch.float64)
        most = max(tall, wide) // 2 + 1
        for ring in range(most):
            for row in range(rows):
                for column in range(columns):
                    if max(abs(row - rows // 2), abs(column - columns // 2)) <= ring:
                        found[row, column] += 1 / (ring + 1) ** 2
        length = found.flatten().norm(p=order)
        return found / length if length > 0 else found

    if upright and tall > 1:
        both = torch.cat((rings(tall // 2, wide), -rings(tall - tall // 2, wide)), dim=0)
    else:
        both = torch.cat((rings(tall, wide // 2), -rings(tall, wide - wide // 2)), dim=1)
    return both / both.flatten().norm(p=order)


def start_of(given: Tensor, ids: Tensor, streams: Streams, restart: int, eps: float, norm: str) -> Tensor:
    """Stripes, or five by five tiles of bumps. `given` (c, h, w)."""
    channels, height, width = given.shape
    change = torch.zeros_like(given)
    stream, how = streams.child("start"), {"step": restart, "dtype": torch.float64}
    if norm == "linf":
        return given + eps * draws.signs(stream, ids, shape=(channels, 1, width), **how)[0].expand(given.shape)
    rows, columns = min(5, height), min(5, width)
    tall, wide = height // rows, width // columns
    signs = draws.signs(stream, ids, shape=(channels, rows, columns), **how)[0]
    upright = draws.signs(stream.child("upright"), ids, step=restart, shape=(rows, columns))[0]
    for row in range(rows):
        for column in range(columns):
            top = (height - rows * tall) // 2 + row * tall
            left = (width - columns * wide) // 2 + column * wide
            hill = eta(tall, wide, bool(upright[row, column] > 0), norm)
            for channel in range(channels):
                change[channel, top : top + tall, left : left + wide] = signs[channel, row, column] * hill
    return given + change * eps / change.flatten().norm(p=1 if norm == "l1" else 2)


def square(
    sample: Sample,
    identity: int,
    streams: Streams,
    *,
    norm: str,
    eps: float,
    queries: int,
    restarts: int,
    box: tuple[float, float],
    given_start: Tensor | None = None,
    share: float = 0.8,
) -> Found:
    """`sample.given` of shape (c, h, w) or (d,)."""
    shape, ids = sample.given.shape, torch.tensor([identity])
    given = sample.given.reshape(1, 1, -1) if len(shape) == 1 else sample.given
    channels, height, width = given.shape
    steps = queries // restarts - 1
    best = given
    for restart in range(restarts):
        point = start_of(given, ids, streams, restart, eps, norm).clamp(*box)
        best, best_margin = point, -math.inf
        for taken in range(steps + 1):
            sample.found.forwards += 1
            logits = sample.function(point.reshape(1, *shape))[0].detach()
            margin = sample.margin(logits)
            if sample.won(logits):
                sample.found.verifications += 1
                sample.found.success, sample.found.first_success = True, sample.found.forwards
                sample.found.point = point.reshape(shape)
                return sample.found
            if margin > best_margin:
                best, best_margin = point, margin
            if taken == steps:
                break
            point = (
                best
                if taken == steps - 1
                else propose(
                    best, given, ids, streams, restart * steps + taken, taken + 1, steps, norm, eps, box, share
                )
            )
    sample.found.point = best.reshape(shape)
    return sample.found


def propose(best, given, ids, streams, step, number, steps, norm, eps, box, share) -> Tensor:
    channels, height, width = given.shape
    part = share / 2 ** sum(mark < number * 10_000 // (steps + 1) for mark in MARKS)
    side = max(1, round(part * width if height == 1 else math.sqrt(part * height * width)))
    if norm != "linf" and (side := max(side, 3)) % 2 == 0:
        side += 1
    side = min(side, width if height == 1 else min(height, width))
    tall = min(side, height)
    count = 2 if norm == "linf" else 5
    drawn = draws.uniform(streams.child("window"), ids, step=step, shape=(count,), dtype=torch.float64)[0].tolist()
    colours = draws.signs(streams.child("colour"), ids, step=step, shape=(channels,))[0].tolist()
    top, left = int(drawn[0] * (height - tall + 1)), int(drawn[1] * (width - side + 1))
    if norm == "linf":
        for side_of in (1, -1):  # the other way round only where the first changes nothing
            point = best.clone()
            for channel, colour in enumerate(colours):
                for row in range(top, top + tall):
                    for column in range(left, left + side):
                        point[channel, row, column] = given[channel, row, column] + side_of * colour * eps
            point = point.clamp(*box)
            if (point - best).abs().max() > 1e-9:
                break
        return point
    top_2, left_2 = int(drawn[2] * (height - tall + 1)), int(drawn[3] * (width - side + 1))
    order = 1 if norm == "l1" else 2
    change = best - given
    unused = max(0.0, eps**order - float(change.abs().pow(order).sum()))
    hill = eta(tall, side, drawn[4] < 0.5, norm)
    after = change.clone()
    after[:, top_2 : top_2 + tall, left_2 : left_2 + side] = 0
    for channel, colour in enumerate(colours):
        inside = change[channel, top : top + tall, left : left + side]
        either = torch.zeros(height, width, dtype=torch.bool)
        either[top : top + tall, left : left + side] = True
        either[top_2 : top_2 + tall, left_2 : left_2 + side] = True
        spare = float(change[channel][either].abs().pow(order).sum()) + unused / channels
        spare = spare if spare > 1e-6 * eps**order else 0.0
        size = float(inside.flatten().norm(p=order))
        new = colour * hill + inside / max(size, 1e-4 * eps)
        length = float(new.flatten().norm(p=order))
        new = new / max(length, 1e-4) * spare ** (1 / order)
        wanted = float(new.flatten().norm(p=order))
        there = given[channel, top : top + tall, left : left + side]
        for _ in range(2):  # what the box takes away is given back to what it leaves
            left_over = [(b + d).clamp(*box) - b for b, d in zip(there.flatten(), new.flatten(), strict=True)]
            size = sum(float(each.abs()) ** order for each in left_over) ** (1 / order)
            new = new * max(1.0, wanted / max(size, 1e-4 * eps))
        after[channel, top : top + tall, left : left + side] = new
    return (given + after).clamp(*box)
