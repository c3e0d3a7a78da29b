"""Nets that are run under many wrong keys, for tests of what locks leave in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_nets import answers, feeds, net
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.roles import held_tensors

__all__ = ["KEY", "at", "checked", "of"]

KEY = bytes(range(32))
_KEYS = 50


def of(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def at(*numbers: int) -> np.ndarray:
    return np.array(numbers)


def checked(body: str, weights: dict[str, Any], *, opset: int = 18, **sizes: int) -> dict[str, str | None]:
    """The roles of tensors of a net that answers with finite numbers of the same sizes under every key."""
    model = net(body, weights=weights, opset=opset)
    given = feeds(model, **sizes)
    expected = answers(model, given)
    assert all(np.isfinite(each).all() for each in expected)
    locked = lock(model, KEY)
    for one, other in zip(expected, answers(unlock(locked, KEY), given), strict=True):
        assert np.array_equal(one, other)
    same = 0
    for number in range(_KEYS):
        found = answers(unlock(locked, number.to_bytes(32)), given)
        assert [each.shape for each in found] == [each.shape for each in expected]
        assert all(np.isfinite(each).all() for each in found), number
        same += all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    assert same < _KEYS / 2
    return {each.name: each.role for each in held_tensors(model)}
