"""Functions that may put another sample into a sample's row: sorting by length, shuffling, turning a batch around.

The tape takes row j of an activation for sample j. A few samples that happen to lie in order already would not show
that a module orders them, so the functions that can do it are known by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["may_reorder"]

_BY_INDEX = frozenset((Tensor.__getitem__,))
_ALONG = frozenset(
    (
        torch.index_select, Tensor.index_select, torch.gather, Tensor.gather, torch.take_along_dim,
        Tensor.take_along_dim, torch.sort, Tensor.sort, torch.flip, Tensor.flip, torch.roll, Tensor.roll,
        Tensor.index_copy, Tensor.index_copy_, Tensor.index_add, Tensor.index_add_, Tensor.scatter, Tensor.scatter_,
        torch.scatter, torch.index_copy, torch.index_add,
    )
)  # fmt: skip
_NAMES = ("dim", "dims")
_LAST = frozenset((torch.sort, Tensor.sort))  # along the last dimension where none is named
_SECOND = frozenset(
    (torch.roll, Tensor.roll, torch.take_along_dim, Tensor.take_along_dim)
)  # where the dimension stands


def may_reorder(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], count: int) -> bool:
    """Whether a call could move samples among rows, for a batch of `count` samples along the first dimension.

    An index that pairs every row with itself, as in `outputs[torch.arange(n), lengths]`, does not.
    """
    if func not in _ALONG and func not in _BY_INDEX:
        return False
    given = args[0] if args else None
    if not isinstance(given, Tensor) or not given.dim() or not given.shape[0] or given.shape[0] % count:
        return False
    if func in _BY_INDEX:
        return _indexes_rows(args[1], given.shape[0])
    return any(each % given.dim() == 0 for each in _dims(func, args, kwargs))


def _indexes_rows(index: object, rows: int) -> bool:
    inside = list(cast("Sequence[object]", index)) if isinstance(index, tuple | list) else [index]
    first = inside[0] if inside else None
    if not isinstance(first, Tensor) or first.dtype == torch.bool or not first.dim():
        return False
    paired = len(inside) > 1 and first.numel() == rows
    return not (paired and torch.equal(first.flatten().cpu(), torch.arange(rows)))


def _dims(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[int]:
    named = next((kwargs[name] for name in _NAMES if kwargs.get(name) is not None), None)
    place = 2 if func in _SECOND else 1
    found = named if named is not None else args[place] if len(args) > place else -1 if func in _LAST else 0
    several = cast("Sequence[object]", found) if isinstance(found, tuple | list) else (found,)
    return [each for each in several if isinstance(each, int)]
