"""What rules for operators of aten share."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from vambrace.assets.obfuscate.programs import is_tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from vambrace.assets.obfuscate.aten import Canvas

__all__ = ["data_of", "dtype_of", "first_of", "for_each_axis", "parts_of"]

Given: TypeAlias = "dict[str, Any]"
Rule: TypeAlias = "Callable[[Canvas, fx.Node, Given], bool]"


def data_of(given: Given) -> Any:  # noqa: ANN401
    """The first argument, which aten calls by two names."""
    return given["self" if "self" in given else "input"]


def first_of(node: fx.Node) -> fx.Node | None:
    """The node that holds the first, or the only, value that a node makes; None where another one is read."""
    if is_tensor(node):
        return node
    parts = parts_of(node, len(node.meta["val"]))
    if parts is None or any(part is not None for part in parts[1:]):
        return None
    return parts[0]


def parts_of(node: fx.Node, count: int) -> list[fx.Node | None] | None:
    """The nodes that take the values of a node which makes several, by place; None where one is taken twice."""
    found: list[fx.Node | None] = [None] * count
    for user in node.users:
        if user.target is not operator.getitem or found[int(user.args[1])] is not None:  # pyright: ignore[reportArgumentType]
            return None
        found[int(user.args[1])] = user  # pyright: ignore[reportArgumentType]
    return found


def for_each_axis(values: int | list[int], rank: int) -> list[int]:
    """A setting for every axis, where one number may stand for all."""
    values = [values] if isinstance(values, int) else list(values)
    return [int(each) for each in (values * rank if len(values) == 1 else values)]


def dtype_of(node: fx.Node) -> Any:  # noqa: ANN401
    """NumPy's type of the numbers in a value; float32 for bfloat16, which it does not have."""
    dtype: torch.dtype = node.meta["val"].dtype
    return np.float32 if dtype == torch.bfloat16 else torch.empty(0, dtype=dtype).numpy().dtype
