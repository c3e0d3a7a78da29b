"""What a label may be: an integer per sample, from 0 to the number of classes less one.

Nothing is guessed: floats that happen to be whole, one-hot rows and labels that count from 1 are refused with
the line that turns them into labels.

    >>> import numpy as np
    >>> check_labels(np.array([[1], [0]], np.uint8), count=2)
    array([1, 0])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_CLASSES", "check_labels", "names_for_labels"]

MAX_CLASSES = 1_000_000
"""A label from here on is a mistake, such as a sample id in the place of the label."""


def check_labels(raw: NDArray[Any], *, count: int, classes: tuple[str, ...] = ()) -> NDArray[np.int64]:
    """Labels as int64 (n,).

    Args:
        raw: integers or booleans (n,) or (n, 1).
        count: how many samples there are.
        classes: class names where known; labels are below their number.

    Raises:
        DataRefused: E307, for anything else.
    """
    if not count and not raw.size:
        return np.empty(0, np.int64)  # that there are no samples is for the caller to say
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim == 2 and raw.dtype.kind in "buif" and _one_hot(raw):
        raise _refusal(
            f"one-hot labels of shape {raw.shape}", "one integer a sample", "store labels.argmax(axis=1) instead"
        )
    if raw.ndim != 1:
        raise _refusal(f"labels of shape {raw.shape}", "one integer a sample, shape (n,)", "store one label a sample")
    if raw.dtype.kind == "f":
        raise _refusal(
            f"labels of type {raw.dtype}",
            "integers",
            "store labels.astype('int64') if they are class numbers; regression targets cannot be assessed",
        )
    if raw.dtype.kind not in "biu":
        raise names_for_labels(f"labels of type {raw.dtype}")
    if len(raw) != count:
        raise _refusal(
            f"{count} inputs and {len(raw)} labels", "one label for every input", "check that both belong together"
        )
    top = len(classes) or MAX_CLASSES
    wrong = np.flatnonzero((raw < 0) | (raw >= top))
    if len(wrong):
        first = int(wrong[0])
        expected = f"0 to {top - 1}" + (f", for the {top} classes" if classes else "")
        if classes and raw.min() == 1 and raw.max() == top:
            fix = "labels seem to count from 1: store labels - 1"
        elif raw[first] < 0:
            fix = "negative labels mark missing ones in some sets: leave those samples out"
        else:
            fix = "check the class list (--classes) against the labels"
        raise _refusal(f"sample {first} has label {int(raw[first])}", expected, fix)
    return raw.astype(np.int64)


def names_for_labels(seen: str) -> DataRefused:
    """E307 for labels that are words: how they become numbers, in which order is for the user to say."""
    return _refusal(
        seen,
        "integers, one a sample",
        "store numbers: names, numbers = numpy.unique(labels, return_inverse=True) counts them in the order of the "
        "alphabet; they must count in that of the model's outputs, which --classes FILE names",
    )


def _one_hot(raw: NDArray[Any]) -> bool:
    head = raw[:1000]
    return bool(len(head)) and bool(np.isin(head, (0, 1)).all()) and bool((head.sum(axis=1) == 1).all())


def _refusal(seen: str, expected: str, fix: str) -> DataRefused:
    return DataRefused("E307", seen=seen, expected=expected, fix=fix)
