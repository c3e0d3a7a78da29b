"""Slow nearest-point attacks as the papers write them: one sample at a time, plain Python, float64.

They share nothing with the attacks but the definition of a success (margin above 1e-5 of the two highest logits), where
those say that they differ from the papers, and the rule by which a nearer success replaces one. Projections bisect.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from naive_attacks import cross_entropy, steeper

Function = Callable[[Tensor], Tensor]
DUAL = {"l1": math.inf, "l2": 2.0, "linf": 1.0}
ORDER = {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": math.inf}


def size(change: Tensor, norm: str) -> float:
    return float(torch.linalg.vector_norm(change.flatten(), ORDER[norm]))


def cosine(taken: int, steps: int, first: float, last: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * taken / steps)) / 2


@dataclass
class Look:
    """What the model says at a point."""

    won: bool
    margin: float
    scale: float
    logits: Tensor


class Sample:
    """One sample, its counters and its nearest success."""

    def __init__(self, function: Function, given: Tensor, label: int, norm: str, box: tuple[float, float]) -> None:
        self.function, self.given, self.label, self.norm, self.box = function, given, label, norm, box
        self.point, self.distance, self.success, self.first = given, math.inf, False, -1
        self.forwards = self.backwards = 0
        self.done = False

    def clip(self, point: Tensor) -> Tensor:
        return point.clamp(*self.box)

    def look(self, point: Tensor) -> Look:
        """Ask once, and keep what is nearer."""
        self.forwards += 1
        with torch.no_grad():
            logits = self.function(point[None])[0]
        margin = max(float(value) for place, value in enumerate(logits) if place != self.label) - float(
            logits[self.label]
        )
        scale = float(logits.topk(2).values.abs().max())
        won, distance = margin > 1e-5 * scale, size(point - self.given, self.norm)
        if won and distance < self.distance * (1 - 1e-6):
            self.point, self.distance, self.success, self.first = point, distance, True, self.forwards
            self.done = distance == 0
        return Look(won, margin, scale, logits)

    def gradient(self, point: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
        self.backwards += 1
        leaf = point.clone().requires_grad_()
        return torch.autograd.grad(value(self.function(leaf[None])[0]), leaf)[0]

    def margin_gradient(self, point: Tensor) -> Tensor:
        def margin(logits: Tensor) -> Tensor:
            others = torch.cat((logits[: self.label], logits[self.label + 1 :]))
            return others.max() - logits[self.label]

        return self.gradient(point, margin)

    @property
    def reach(self) -> float:
        return size(torch.maximum(self.given - self.box[0], self.box[1] - self.given), self.norm)


def ddn(sample: Sample, steps: int, *, gamma: float = 0.05) -> Sample:
    point, radius, width = sample.given, 0.0, sample.box[1] - sample.box[0]
    for taken in range(steps + 1):
        look = sample.look(point)
        if sample.done or taken == steps:
            break
        gradient = sample.gradient(point, lambda logits: cross_entropy(logits, sample.label))
        if taken == 0:
            # The log odds, whose gradient is that of the cross entropy but steeper.
            loss = float(cross_entropy(look.logits, sample.label))
            odds = math.log(math.expm1(loss))
            lead = min(abs(odds), abs(look.margin))  # odds do not vanish where several classes meet
            radius = min(lead / (size(gradient, "l2") * steeper(loss)), width)
        radius = min(radius * (1 - gamma if look.won else 1 + gamma), sample.reach)
        change = point - sample.given
        change = change + cosine(taken, steps, width, 0.01 * width) * gradient / gradient.norm()
        point = sample.clip(sample.given + radius * change / change.norm())
    return sample


def into_ball(change: Tensor, radius: float, norm: str) -> Tensor:
    if norm == "linf":
        return change.clamp(-radius, radius)
    if norm == "l2":
        return change * min(1.0, radius / float(change.norm())) if change.any() else change
    if norm == "l0":
        flat = change.flatten().clone()
        order = sorted(range(len(flat)), key=lambda place: (-abs(float(flat[place])), place))
        for place in order[int(radius) :]:
            flat[place] = 0.0
        return flat.reshape(change.shape)
    if change.abs().sum() <= radius:
        return change
    low, high = 0.0, float(change.abs().max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (change.abs() - middle).clamp(min=0).sum() > radius else (low, middle)
    return change.sign() * (change.abs() - high).clamp(min=0)


def fmn(sample: Sample, steps: int, *, gamma: float = 0.05) -> Sample:
    norm, width = sample.norm, sample.box[1] - sample.box[0]
    point, radius = sample.given, 1.0 if norm == "l0" else math.inf
    shortest = math.inf
    for taken in range(steps + 1):
        look = sample.look(point)
        if sample.done or taken == steps:
            break
        gradient, change = sample.margin_gradient(point), point - sample.given
        length = size(change, norm)
        shortest = min(shortest, length) if look.won else shortest
        lost, now = shortest == math.inf, cosine(taken, steps, gamma, 0.001)
        if norm == "l0":
            now = gamma if lost else now
            if look.won:
                radius = min(radius - 1, math.floor(radius * (1 - now)), shortest)
            else:
                radius = max(radius + 1, math.floor(radius * (1 + now)))
            radius = max(1.0, radius)
        elif look.won:
            radius = min(radius * (1 - now), shortest)
        elif lost:
            ahead = length + abs(look.margin) / float(torch.linalg.vector_norm(gradient.flatten(), DUAL[norm]))
            radius = ahead if radius == math.inf else max(ahead, radius * (1 + gamma))
        else:
            radius = radius * (1 + now)
        radius = min(radius, sample.reach)
        step = width if norm == "l0" and lost else cosine(taken, steps, width, 0.01 * width)
        way = gradient.sign() / math.sqrt(gradient.numel()) if norm == "linf" else gradient / gradient.norm()
        change = change + step * way
        if lost and norm != "l0" and size(change, norm) < radius:
            change = change * (radius / size(change, norm))
        point = sample.clip(sample.given + into_ball(change, radius, norm))
    return sample


def onto_plane(point: Tensor, normal: Tensor, gap: float, box: tuple[float, float], norm: str) -> Tensor:
    """The smallest change that raises normal . x by the gap inside the box, by bisection (l1: one element by one)."""
    side = math.copysign(1.0, gap)
    way = normal * side
    room = torch.where(way > 0, box[1] - point, point - box[0])
    room = torch.where(way == 0, 0.0, room)

    def moved(level: float) -> Tensor:
        wanted = torch.full_like(point, level) if norm == "linf" else level * way.abs()
        return way.sign() * torch.minimum(wanted, room)

    if norm != "l1":
        low, high = 0.0, 1e6
        for _ in range(300):
            middle = (low + high) / 2
            low, high = (middle, high) if float((moved(middle) * way).sum()) < abs(gap) else (low, middle)
        return moved(high)
    left, change = abs(gap), torch.zeros_like(point).flatten()
    flat, space = way.flatten(), room.flatten()
    for place in sorted(range(len(flat)), key=lambda place: (-abs(float(flat[place])), place)):
        if float(flat[place]) == 0:
            break
        step = min(float(space[place]), left / abs(float(flat[place])))
        change[place] = math.copysign(step, float(flat[place]))
        left -= step * abs(float(flat[place]))
    return change.reshape(point.shape)


def nearest_plane(sample: Sample, point: Tensor, logits: Tensor, rivals: list[int]) -> tuple[float, Tensor]:
    """Lead and gradient of the rival whose linear decision is nearest."""
    best: tuple[float, float, Tensor] | None = None
    for rival in rivals:
        gradient = sample.gradient(point, lambda out, rival=rival: out[rival] - out[sample.label])
        lead = float(logits[rival] - logits[sample.label])
        away = abs(lead) / float(torch.linalg.vector_norm(gradient.flatten(), DUAL[sample.norm]))
        if best is None or away < best[0]:
            best = away, lead, gradient
    assert best is not None
    return best[1], best[2]


class WayBack:
    """The final search: where a line through the margins at both ends is what makes a success clear."""

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.outer: Tensor | None = None
        self.outer_margin = self.inner_margin = math.inf
        self.inner = self.length = 0.0

    def note(self, point: Tensor, look: Look, *, tried: bool) -> None:
        margin = look.margin - 2e-5 * look.scale
        length = size(point - self.sample.given, self.sample.norm)
        if length == 0:
            self.inner_margin = margin
        if look.won and (self.outer is None or length < self.length):
            if self.outer is not None:
                self.inner = min(1.0, self.inner * self.length / length)
            self.outer, self.outer_margin, self.length = point, margin, length
        elif tried and not look.won:
            self.inner, self.inner_margin = min(1.0, length / self.length), margin

    def next(self) -> Tensor:
        outer = max(self.outer_margin, 0.0)
        share = outer / (outer - self.inner_margin) if self.inner_margin < 0 else 0.5
        place = 1.0 - share * (1.0 - self.inner)
        assert self.outer is not None
        return self.sample.given + place * (self.outer - self.sample.given)


def fab(sample: Sample, steps: int, *, classes: list[int] | None = None, final: int = 1) -> Sample:
    """All classes at once, or a start for each of `classes` in turn (ranked by one forward more)."""
    sample.forwards += classes is not None
    way_back = WayBack(sample)
    for target in classes or [None]:
        kept, way_back = way_back.inner_margin, WayBack(sample)
        way_back.inner_margin = kept
        point = sample.given
        for taken in range(steps + 1):
            look = sample.look(point)
            if sample.done:
                return sample
            if taken == steps:
                break
            way_back.note(point, look, tried=taken > steps - final)
            rivals = [place for place in range(len(look.logits)) if place != sample.label]
            lead, gradient = nearest_plane(sample, point, look.logits, rivals if target is None else [target])
            lead -= 2e-5 * look.scale  # on the decision itself a point is no success
            if taken >= steps - final and way_back.outer is not None:
                point = way_back.next()
                continue
            change = point - sample.given
            base = sample.given + change * (0.9 if look.won else 1.0)
            at_point = float((gradient * change).sum()) - lead
            near = onto_plane(base, gradient, float((gradient * (point - base)).sum()) - lead, sample.box, sample.norm)
            far = onto_plane(sample.given, gradient, at_point, sample.box, sample.norm)
            one, other = size(near, sample.norm), size(far, sample.norm)
            pull = min(0.1, one / (one + other))
            point = sample.clip((1 - pull) * (base + 1.05 * near) + pull * (sample.given + 1.05 * far))
    return sample


def deep_fool(sample: Sample, steps: int, *, tries: int = 3) -> Sample:
    point, way_back, tried = sample.given, WayBack(sample), 0
    for taken in range(steps + 1):
        look = sample.look(point)
        if sample.done or taken == steps or tried == tries:
            break
        way_back.note(point, look, tried=tried > 0)
        rivals = [place for place in range(len(look.logits)) if place != sample.label]
        lead, gradient = nearest_plane(sample, point, look.logits, rivals)
        gap = abs(lead) + 1e-4 * look.scale
        if sample.norm == "linf":
            step = gap * gradient.sign() / gradient.abs().sum()
        else:
            step = gap * gradient / gradient.square().sum()
        if way_back.outer is not None:
            tried += 1
            point = way_back.next()
        else:
            point = sample.clip(point + 1.02 * step)
    return sample


def carlini_wagner(sample: Sample, steps: int, searches: int, *, step_size: float, hasty: bool = True) -> Sample:
    """By PyTorch's own Adam on the weighed sum."""
    middle, half = sum(sample.box) / 2, (sample.box[1] - sample.box[0]) / 2
    weight, failed, succeeded = 0.0, 0.0, math.inf
    for _ in range(searches):
        variable = torch.atanh((sample.given - middle) / half * 0.99).requires_grad_()
        optimiser = torch.optim.Adam([variable], lr=step_size)
        point, found, before, over = sample.given, False, math.inf, False
        for taken in range(steps + 1):
            look = sample.look(point)
            found = found or look.won
            if sample.done:
                return sample
            if taken == steps or over:
                break
            slope = sample.margin_gradient(point)
            if weight == 0.0:
                weight = 2 * abs(look.margin) / float(slope.square().sum())
            loss = size(point - sample.given, "l2") ** 2 + weight * max(0.0, -look.margin)
            if hasty and taken % math.ceil(steps / 10) == 0:
                over, before = not loss <= 0.9999 * before, loss
            # The gradient is taken at the point, which at the first look is the input itself.
            pulled = 2 * (point - sample.given) - (weight if look.margin < 0 else 0.0) * slope
            mapped = torch.tanh(variable) * half + middle
            variable.grad = torch.autograd.grad(mapped, variable, pulled)[0]
            optimiser.step()
            point = sample.clip((torch.tanh(variable) * half + middle).detach())
        failed, succeeded = (failed, weight) if found else (weight, succeeded)
        weight = weight * 10 if succeeded == math.inf else (failed + succeeded) / 2
    return sample
