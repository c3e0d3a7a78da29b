"""The momentum family, R+FGSM and the least-likely-class method as the papers write them: one sample at a time.

Independent of the product: resizing is `F.interpolate`, the translation kernel a convolution with an outer product,
every gradient PyTorch's own cross entropy at a place that is asked for by itself. Only the draws are the same by
intent, and places outside of the box are asked about at the nearest point inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from naive_attacks import Found, Sample, cross_entropy, direction, project, steeper
from vambrace.core.rng import Streams
from vambrace.ops import draws


@dataclass
class Parts:
    decay: float = 0.0
    lookahead: bool = False
    diversity: float = 0.0
    shrink: float = 0.9
    kernel: int = 1
    scales: int = 1
    neighbours: int = 0
    reach: float = 1.5


def smoothed(gradient: Tensor, size: int) -> Tensor:
    """One image (c, h, w), each channel convolved; zeros outside."""
    if size == 1:
        return gradient
    half = size // 2
    line = torch.tensor([math.exp(-(((place - half) / (half / 3)) ** 2) / 2) for place in range(size)]).double()
    weights = torch.outer(line, line)
    weights = weights / weights.sum()
    return torch.stack([F.conv2d(channel[None, None], weights[None, None], padding=half)[0, 0] for channel in gradient])


def resized(image: Tensor, numbers: list[float], parts: Parts) -> Tensor:
    """One image (c, h, w), shown smaller at some place where the first number says so."""
    shown, size, down, across = numbers
    if shown >= parts.diversity:
        return image
    sides = []
    for side in image.shape[1:]:
        least = max(1, math.floor(parts.shrink * side))
        choices = list(range(least, side)) or [side]
        sides.append(choices[int(size * len(choices))])
    top, left = int(down * (image.shape[1] - sides[0] + 1)), int(across * (image.shape[2] - sides[1] + 1))
    small = F.interpolate(image[None], size=tuple(sides), mode="bilinear", align_corners=False)
    right, bottom = image.shape[2] - sides[1] - left, image.shape[1] - sides[0] - top
    return F.pad(small, (left, right, top, bottom))[0]


def momentum(
    sample: Sample,
    start: Tensor,
    ids: Tensor,
    parts: Parts,
    *,
    norm: str,
    eps: float,
    steps: int,
    step_size: float,
    box: tuple[float, float],
    seed: int,
) -> Found:
    """`start` is inside ball and box."""
    point, accumulated, variance = start, torch.zeros_like(start), torch.zeros_like(start)
    like = {"dtype": torch.float64, "shape": tuple(start.shape)}
    ahead = parts.lookahead and parts.decay > 0

    def gradient_at(place: Tensor, number: int, taken: int, own: Tensor | None) -> Tensor:
        """The mean over the copies of a place; `own` where the first one was asked already."""
        total = torch.zeros_like(place)
        for copy in range(parts.scales):
            sample.found.backwards += 1
            if own is not None and copy == 0:
                total += own
                continue
            sample.found.forwards += 1
            leaf = place.clone().requires_grad_()
            view = number * parts.scales + copy
            drawn = draws.uniform(
                Streams(seed).child("diversity", view), ids, step=taken, shape=(4,), dtype=torch.float64
            )
            seen = resized(leaf / 2**copy, drawn[0].tolist(), parts) if parts.diversity else leaf / 2**copy
            logits = sample.function(seen[None])
            loss = cross_entropy(logits[0], sample.label)
            # Ours ascends the log odds: the same direction, but steeper, which matters between copies.
            sign = -1 if sample.target else 1
            total += sign * torch.autograd.grad(loss, leaf)[0] * steeper(loss.detach())
        return total / parts.scales

    for taken in range(steps + 1):
        won, loss, own = sample.evaluate(point)
        if won:
            return sample.found
        if taken == steps:
            break
        own = own * steeper(abs(loss))
        length = 1.0 if norm == "linf" else math.sqrt(point.numel())
        shift = step_size * parts.decay * accumulated / length if ahead else torch.zeros_like(point)
        unseen = ahead or parts.diversity > 0
        gradient = gradient_at((point + shift).clamp(*box), 0, taken, None if unseen else own)
        around = torch.zeros_like(point)
        for number in range(1, parts.neighbours + 1):
            stream, reach = Streams(seed).child("neighbour", number), parts.reach * eps
            if norm == "linf":
                noise = draws.uniform(stream, ids, step=taken, low=-reach, high=reach, **like)[0]
            else:
                noise = draws.normal(stream, ids, step=taken, **like)[0]
                share = draws.uniform(stream.child("radius"), ids, step=taken, shape=(), dtype=torch.float64)[0]
                noise = noise / noise.norm() * reach * share ** (1 / noise.numel())
            around += gradient_at((point + shift + noise).clamp(*box), number, taken, None)
        tuned = smoothed(gradient + variance, parts.kernel)
        if parts.neighbours:
            variance = around / parts.neighbours - gradient
        if parts.decay:
            accumulated = parts.decay * accumulated + tuned / tuned.abs().mean()
            tuned = accumulated
        point = project(point + step_size * direction(tuned, norm), sample.given, eps, norm, *box)
    sample.found.point = point
    return sample.found
