"""All answers of a network to some rows, call by call, brought into arrays that can be held against each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.measure.equality import decisions, run_rows
from vambrace.assets.obfuscate.measure.likeness import decided_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.measure.equality import Decide
    from vambrace.assets.obfuscate.measure.inputs import Rows
    from vambrace.assets.obfuscate.measure.runtime import Network

    Calls = Sequence[Sequence[NDArray[Any]]]
    """Of each output, the answers to each call."""

__all__ = ["calls", "comparable", "joined", "thinned", "uneven"]

_MOST = 1024
"""Numbers of a row of an output that are looked at."""


def calls(network: Network, rows: Rows, decide: Decide | None) -> list[list[NDArray[Any]]]:
    """Of each output, the answers to each call."""
    found = [[decisions(decide, each).reshape(-1)] if decide else each for each in run_rows(network, rows)]
    return [list(parts) for parts in zip(*found, strict=True)]


def joined(outputs: Calls, original: Calls) -> list[NDArray[Any]]:
    """All answers of each output; flat, where calls of the original answer with other shapes.

    A call that is answered with another shape than the original's, such as another number of boxes, has no answer.
    """
    found: list[NDArray[Any]] = []
    for parts, like in zip(outputs, original, strict=True):
        same = [part if part.shape == one.shape else _none(one) for part, one in zip(parts, like, strict=True)]
        alike = like[0].ndim and len({one.shape[1:] for one in like}) == 1
        found.append(np.concatenate(same if alike else [part.reshape(-1) for part in same]))
    return found


def uneven(parts: Sequence[NDArray[Any]]) -> bool:
    """Whether an output has other shapes from call to call, the last of which may have fewer rows."""
    shapes = {each.shape for each in parts[:-1]} | {parts[0].shape[:1] + parts[-1].shape[1:]}
    return len(shapes) > 1 or len(parts[-1].shape) > 0 and parts[-1].shape[0] > parts[0].shape[0]


def comparable(outputs: Calls, original: Calls) -> list[float]:
    """Of each output, the share of calls that it answers with as many numbers."""
    return [
        float(np.mean([one.shape == two.shape for one, two in zip(*pair, strict=True)]))
        for pair in zip(outputs, original, strict=True)
    ]


def thinned(array: NDArray[Any], original: NDArray[Any]) -> NDArray[Any]:
    """Some places of an answer of many, and some of its scores, the same ones for arrays of the original's shape.

    Scores that the original decides for most often are among them.
    """
    if array.ndim < 2 or math.prod(array.shape[1:]) <= _MOST:
        return array
    # Classes are the second axis of maps, and else the last one.
    axis = 1 if array.ndim == 4 else array.ndim - 1
    flat = np.moveaxis(array, axis, 1).reshape(len(array), array.shape[axis], -1)
    draw = np.random.default_rng(0)
    scores, count = flat.shape[1:]
    # Of the shorter axis all, so that no kind of number is left out.
    most = min(_MOST, scores) if scores <= count else max(1, _MOST // count)
    if scores > most:
        decided = decided_by(original) if original.shape == array.shape and original.dtype.kind == "f" else None
        kinds, counts = np.unique(np.zeros(0) if decided is None else decided, return_counts=True)
        often_decided = kinds[np.argsort(-counts, kind="stable")[: most // 2]].astype(np.int64)
        others = draw.permutation(np.setdiff1d(np.arange(scores), often_decided))[: most - len(often_decided)]
        flat = flat[:, np.sort(np.concatenate([often_decided, others]))]
    some = flat[:, :, np.sort(draw.choice(count, min(count, max(1, _MOST // most)), replace=False))]
    if array.ndim == 2:
        return some[..., 0]
    return some[..., None] if array.ndim == 4 else np.moveaxis(some, 1, -1)


def _none(like: NDArray[Any]) -> NDArray[Any]:
    if like.dtype.kind == "f":
        return np.full(like.shape, np.nan, like.dtype)
    return np.full(like.shape, np.iinfo(np.int64).min if like.dtype.kind in "iub" else "\0")
