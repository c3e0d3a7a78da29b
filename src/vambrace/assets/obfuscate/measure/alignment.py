"""The attack of somebody who holds the original: which channel of an obfuscated layer is which of the original's?

Whoever holds the original needs no alignment to have the model. He needs it to prove that a file is a copy, to tell two
customers' copies apart, or to see what fine-tuning changed. Two attacks, for each pair of layers of one shape:

- `weights`: logarithms of magnitudes, centred along channels and along inputs, which takes out every positive scale of
  either (the geometric form of matrix balancing: Sinkhorn, Ann. Math. Statist. 35, 1964); sorted along inputs, which
  takes out their order; magnitudes take out signs. Channels are then matched at least total distance (Hungarian method,
  Kuhn 1955; scipy `linear_sum_assignment`).
- `vectors`: mantissas of the biases, which neither powers of two nor signs change, matched at least total root of
  distance. Of distances themselves many matchings have the least total, such as any at all of numbers that lie above
  all of the others, and which of these comes out is the order of the file, not what the attack found.

Names are not used. Which layers belong together is found the same way, by the least distance among those of one shape.

A match by weights is *confirmed* where its distance is below a tenth of the median distance between different channels
of the original: the attacker knows himself that he is right. Biases confirm nothing, because a locked vector holds the
same numbers in another order. Where the truth is known (a `truth`, which is the alignment of the same file unlocked), a
match is *re-identified* where it is true, and the better attack counts; guessing gives one a layer, 1/c of its c
channels.

For models that run without a key, expect nearly all channels: positive scales, signs and permutations hide nothing from
this attack, and `truth` is not needed. For key-locked files at rest, expect guessing.

`values` answers another question: the share of weights whose mantissas, as a multiset, are those of a tensor of the
original. Locked files keep it at 1: a permutation of all elements with flipped signs hides which is which, not that
they are the original's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vambrace.assets.obfuscate.measure.layers import Layer, read_layers
from vambrace.core.intervals import wilson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.core.findings import Interval

__all__ = ["Aligned", "Alignment", "align"]

_MOST_INPUTS = 128  # sorted magnitudes kept of a channel, at even quantiles
_CANDIDATES = 3  # layers of one shape that are matched in full; the others are out by their quantiles
_SURE = 0.1
_ZERO = -40.0  # the logarithm of a weight that is zero, far below any other after centring


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Aligned:
    """One layer of the original.

    Attributes:
        original: name of its weight.
        other: of the weight it was matched to; empty where the other file has none of its shape.
        channels: how many.
        by_weights, by_vectors: (channels,): for each channel of the other layer, the original's; -1 for no answer.
        confirmed: (channels,): whether the match by weights is confirmed.
        judged: channels that count: all of them, or those whose truth is known.
        truly: channels of those that an attack re-identifies, the better of the two, or None without a truth.
    """

    original: str
    other: str
    channels: int
    by_weights: NDArray[np.int64]
    by_vectors: NDArray[np.int64]
    confirmed: NDArray[np.bool_]
    judged: int
    truly: int | None

    def as_json(self) -> dict[str, object]:
        """As JSON data, without the names, which the original's owner may not want in a report."""
        found: dict[str, object] = {"channels": self.channels, "matched": bool(self.other)}
        found |= {"confirmed": int(self.confirmed.sum()), "judged": self.judged, "reidentified": self.truly}
        return found | {"chance": 1 / self.channels}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Alignment:
    """What `align` found.

    Attributes:
        layers: those of the original that have two channels or more and something to tell them apart by.
        values: share of the other file's weights that are the original's by value.
        told: whether a truth was given.
    """

    layers: tuple[Aligned, ...]
    values: float
    told: bool

    @property
    def channels(self) -> int:
        """That count, of all layers."""
        return sum(each.judged for each in self.layers)

    @property
    def chance(self) -> float:
        """The share that guessing gives: one channel a layer."""
        return sum(each.judged / each.channels for each in self.layers) / self.channels if self.channels else 0.0

    @property
    def found(self) -> int:
        """Channels re-identified where the truth is known, else confirmed."""
        return sum((each.truly or 0) if self.told else int(each.confirmed.sum()) for each in self.layers)

    @property
    def share(self) -> float | None:
        """`found` of `channels`; None where there are none."""
        return self.found / self.channels if self.channels else None

    @property
    def interval(self) -> Interval | None:
        """Wilson's."""
        return wilson(self.found, self.channels)

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        return {
            "share": self.share,
            "chance": self.chance,
            "channels": self.channels,
            "found": self.found,
            "judged_by": "truth" if self.told else "the attacker's own confidence",
            "values": self.values,
            "layers": [each.as_json() for each in self.layers],
        }


def align(original: ModelProto, other: ModelProto, *, truth: Alignment | None = None) -> Alignment:
    """Match every layer of `original` in `other`, and the channels of the two.

    Args:
        original: an onnx.ModelProto.
        other: the file under attack.
        truth: the alignment of the same file unlocked: it says which layers and channels truly belong together, by
            the names of weights, which unlocking keeps. The attacker is then told the layers and has to find channels.
    """
    mine = [layer for layer in read_layers(original) if _tells(layer)]
    theirs = read_layers(other)
    pairs = _told_pairs(mine, theirs, truth) if truth else _found_pairs(mine, theirs)
    known = {each.original: each for each in truth.layers} if truth else {}
    layers = [
        _aligned(layer, theirs[pairs[place]] if place in pairs else None, known.get(layer.name))
        for place, layer in enumerate(mine)
    ]
    return Alignment(layers=tuple(layers), values=_values(read_layers(original), theirs), told=truth is not None)


def _tells(layer: Layer) -> bool:
    """Whether centring leaves anything to tell two channels apart by."""
    return layer.weights.shape[0] >= 2 and bool(np.ptp(_described(layer), axis=0).max(initial=0.0) > 1e-6)


def _described(layer: Layer) -> NDArray[np.float64]:
    """(channels, what is left of them): invariant to order of inputs, and to sign and positive scale of both."""
    channels, inputs, positions = layer.weights.shape
    with np.errstate(divide="ignore"):
        logs = np.log(np.abs(layer.weights))
    grouped = np.where(np.isfinite(logs), logs, np.nan).reshape(layer.groups, -1, inputs, positions)
    shared = grouped.shape[1] > 1  # an input that one channel alone has says nothing beside that channel's own scale
    for _ in range(3):
        grouped = grouped - _mean(grouped, (2, 3))
        grouped = grouped - _mean(grouped, (1, 3)) if shared else grouped
    rows = np.sort(np.nan_to_num(grouped.reshape(channels, inputs, positions), nan=_ZERO), axis=1)
    if inputs > _MOST_INPUTS:
        rows = rows[:, np.linspace(0, inputs - 1, _MOST_INPUTS).round().astype(int)]
    return rows.reshape(channels, -1)


def _mean(values: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    there = np.isfinite(values)
    count = there.sum(axis=axes, keepdims=True)
    return np.where(there, values, 0.0).sum(axis=axes, keepdims=True) / np.maximum(count, 1)


def _found_pairs(mine: list[Layer], theirs: list[Layer]) -> dict[int, int]:
    """Which layers belong together: the least matched distance among those of one shape."""
    pairs: dict[int, int] = {}
    for signature in dict.fromkeys(layer.signature for layer in mine):
        left = [place for place, layer in enumerate(mine) if layer.signature == signature]
        right = [place for place, layer in enumerate(theirs) if layer.signature == signature]
        if not right:
            continue
        one = [_described(mine[place]) for place in left]
        two = [_described(theirs[place]) for place in right]
        sketches = [np.stack([_sketch(each) for each in described]) for described in (one, two)]
        rough = np.linalg.norm(sketches[0][:, None] - sketches[1][None], axis=2)
        costs = np.full(rough.shape, 1e12) + rough
        for row in range(len(left)):
            nearest: list[int] = np.argsort(rough[row])[:_CANDIDATES].tolist()
            for column in nearest:
                costs[row, column] = _matched(one[row], two[column])[1].mean()
        rows, columns = _assigned(costs)
        pairs |= {left[row]: right[column] for row, column in zip(rows, columns, strict=True)}
    return pairs


def _told_pairs(mine: list[Layer], theirs: list[Layer], truth: Alignment) -> dict[int, int]:
    places = {layer.name: place for place, layer in enumerate(theirs)}
    told = {each.original: places[each.other] for each in truth.layers if each.other in places}
    return {
        place: told[layer.name]
        for place, layer in enumerate(mine)
        if layer.name in told and theirs[told[layer.name]].signature == layer.signature
    }


def _sketch(described: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.quantile(described, np.linspace(0, 1, 65))


def _matched(one: NDArray[np.float64], two: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each row of `two` the row of `one`, at least total distance, and the distances."""
    apart = _distances(two, one)
    rows, columns = _assigned(apart)
    found = np.empty(len(two), dtype=np.int64)
    found[rows] = columns
    return found, apart[np.arange(len(two)), found]


def _assigned(costs: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and their columns, at least total cost; what has none, of weights that are infinite, as far as can be."""
    from scipy.optimize import linear_sum_assignment  # pyright: ignore[reportUnknownVariableType]

    farthest = 1.0 + 2.0 * float(np.max(costs, initial=0.0, where=np.isfinite(costs)))
    costs = np.where(np.isfinite(costs), costs, farthest)
    rows, columns = cast("tuple[NDArray[np.int64], NDArray[np.int64]]", linear_sum_assignment(costs))
    return rows, columns


def _distances(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1)[None] - 2 * one @ two.T
    return np.sqrt(np.maximum(squares, 0.0))


def _aligned(layer: Layer, other: Layer | None, known: Aligned | None) -> Aligned:
    channels = len(layer.weights)
    by_weights = by_vectors = np.full(channels, -1, dtype=np.int64)
    confirmed = np.zeros(channels, dtype=bool)
    if other is not None:
        one, two = _described(layer), _described(other)
        by_weights, apart = _matched(one, two)
        confirmed = apart < _SURE * _usual(_distances(one, one))
        if layer.vector is not None and other.vector is not None:
            one, two = (np.abs(np.frexp(vector)[0]) for vector in (layer.vector, other.vector))
            with np.errstate(invalid="ignore"):  # two of them infinite, as the bias of a masked class
                by_vectors = _assigned(np.sqrt(np.abs(two[:, None] - one)))[1]
    judged, truly = channels, None
    if known is not None:
        judged = int(known.confirmed.sum())
        right = [((found == known.by_weights) & known.confirmed).sum() for found in (by_weights, by_vectors)]
        truly = int(max(right))
    return Aligned(
        original=layer.name,
        other=other.name if other is not None else "",
        channels=channels,
        by_weights=by_weights,
        by_vectors=by_vectors,
        confirmed=confirmed,
        judged=judged,
        truly=truly,
    )


def _usual(distances: NDArray[np.float64]) -> float:
    above = distances[np.triu_indices(len(distances), 1)]
    return float(np.median(above))


def _values(mine: Iterable[Layer], theirs: Iterable[Layer]) -> float:
    """Share of the other's weights that stand, up to sign and power of two, in a tensor of the original's size."""
    originals: dict[int, list[Counter[Any]]] = {}
    for layer in mine:
        originals.setdefault(layer.weights.size, []).append(_mantissas(layer))
    total, same = 0, 0
    for layer in theirs:
        total += layer.weights.size
        found = _mantissas(layer)
        same += max(((found & each).total() for each in originals.get(layer.weights.size, ())), default=0)
    return same / total if total else 0.0


def _mantissas(layer: Layer) -> Counter[Any]:
    return Counter(np.abs(np.frexp(layer.weights.reshape(-1))[0]).tolist())
