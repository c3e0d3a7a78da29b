"""Whether a lock by an input holds at all: a few wrong keys are tried on noise, where a runtime is there to try them.

Weights that differ need not show: an activation that is never on hides what stands before it, and so may a factor that
is too small. What is counted of weights says nothing of that.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.errors import ArtifactRefused, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["opened_by_any"]

_KEYS, _DRAWS = 4, 24
_FREE = 2
"""Elements of an axis whose size is free."""


def opened_by_any(original: Any, locked: Any, tensor_of: Callable[[bytes], tuple[str, NDArray[np.int64]]]) -> bool:  # noqa: ANN401
    """Whether a model answers noise with a wrong key as the original does, bit for bit.

    Args:
        original: an onnx.ModelProto.
        locked: the same, with a lock.
        tensor_of: from a key to the name and value of the input that it is.

    Returns:
        No, where nothing can be run, or the original answers noise with no numbers.
    """
    from vambrace.assets.obfuscate.measure.runtime import Network

    try:
        network = Network(original)
        calls = [[_noise(draw, taken.dtype, taken.shape) for taken in network.inputs] for draw in range(_DRAWS)]
        wanted = [network.run(call) for call in calls]
        if not all(each.dtype.kind != "f" or np.isfinite(each).all() for answers in wanted for each in answers):
            return False
        for number in range(_KEYS):
            key = hashlib.sha256(f"wrong key {number}".encode()).digest()
            tried = Network(locked, fixed=dict([tensor_of(key)]))
            if all(_same(answers, tried.run(call)) for answers, call in zip(wanted, calls, strict=True)):
                return True
    except (ArtifactRefused, MissingExtra):  # sizes that do not fit, or no runtime
        return False
    return False


def _same(answers: list[NDArray[Any]], others: list[NDArray[Any]]) -> bool:
    return all(np.array_equal(one, two) for one, two in zip(answers, others, strict=True))


def _noise(draw: int, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> NDArray[Any]:
    sizes = [_FREE if size is None else size for size in shape]
    if dtype.kind == "f":
        return np.random.default_rng(draw).standard_normal(sizes).astype(dtype)
    return np.full(sizes, draw % 2, dtype)
