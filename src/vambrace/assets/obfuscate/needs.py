"""What a weight must keep so that a model runs under every key, and answers with numbers.

Three things are looked for behind a weight, through whatever is computed from it: sizes, indices and regions, which it
must not change at all; masks, which must not hide everything; and operators that are not defined for all numbers, such
as roots, logarithms and divisors, for which it may keep its signs, its zeros or its places.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.operators import (
    ABOVE,
    BLIND,
    BOUNDED,
    COMPARES,
    DELICATE,
    GATHERING,
    KEEPS_SIGN,
    LINEAR,
    OWN,
    PARTS,
    SUMS,
    adds_products,
    counts,
    decides,
    is_in,
    outputs,
    passed,
    shapes,
)
from vambrace.assets.obfuscate.sight import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vambrace.assets.obfuscate.sight import Sight

__all__ = ["Need", "makes_mask", "needed", "sized"]

_FEW = 1024
"""Numbers of a tensor that makes a mask, such as positions, that are taken for no weights."""

_ADDING = frozenset({"Add", "Max", "Mean", "Min", "Neg", "Sub", "Sum", "Where"})
_GROWING = frozenset({"Cosh", "Exp", "Sinh"})
_TWO_SIDED = frozenset({"Acos", "Acosh", "Asin", "Atanh"})


class Need(enum.IntEnum):
    """What must stay as it is of the elements of a tensor, the more the higher."""

    NOTHING = 0
    TENSOR = 1
    """None may come from other tensors."""
    SIGNS = 2
    """Nor may signs turn, nor zeros change places."""
    PLACES = 3


class _Sign(enum.IntEnum):
    """Of a value: how it is known that no element of it is below zero."""

    ANY = 0
    GIVEN = 1
    """Since none of the tensor is."""
    SQUARE = 2
    """Whatever the tensor holds."""
    ABOVE = 3
    """Whatever it holds, and none is zero."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Way:
    """What is known on the way: whether each element is made of one of the tensor's, and of constants alone.

    Attributes:
        entire: whether all elements of the tensor are there.
        mixed: whether it went into sums of products with data.
    """

    single: bool
    entire: bool
    sign: _Sign
    constant: bool
    mixed: bool = False


def sized(name: str, sight: Sight) -> tuple[Any, bool] | None:
    """An operator that takes what is computed from a value as sizes, indices or the like, or None.

    Returns:
        The node, and whether constants alone decide which elements it lets through.
    """
    found: list[tuple[Any, bool]] = []
    # Behind data it is the same wherever it came from, so what led nowhere once is not followed again.
    followed: set[str] = set()

    def step(prefix: str, node: Any, position: int, constant: bool) -> Iterator[tuple[int, bool]]:  # noqa: ANN401
        if node.domain not in OWN or node.op_type in BLIND:
            return
        deciding = constant and decides(node, position)
        if deciding or (counts(node, position) if constant else shapes(node, position)):
            found.append((node, deciding))
            return
        now = constant and sight.data.isdisjoint(sight.others(prefix, node, position))
        if not now and node.op_type in BOUNDED:
            return
        linear = node.op_type in LINEAR and position < 3
        if linear or node.op_type in SUMS or passed(node, position):
            for at in outputs(node):
                value = prefix + node.output[at] if at < len(node.output) else ""
                if now or value not in sight.unsized:
                    yield at, now
                    followed.update([] if now else [value])

    sight.flows.walk(name, True, step)
    if not found:
        sight.unsized |= followed
    return found[0] if found else None


def makes_mask(name: str, sight: Sight) -> bool:
    """Whether a tensor, with constants alone, chooses where numbers as large as those of masks stand."""
    array = sight.array(name)
    found: list[bool] = []

    def step(prefix: str, node: Any, position: int, _: None) -> Iterator[tuple[int, None]]:  # noqa: ANN401
        others = sight.others(prefix, node, position)
        masked = not sight.masks.isdisjoint(others)
        if node.domain not in OWN or node.op_type in BLIND:
            return
        if node.op_type == "Where" and position == 0:
            found.extend([True] * masked)
            return
        if node.op_type in {"Div", "Mul"} and masked:
            found.append(False)
        elif sight.data.isdisjoint(others) and (node.op_type in SUMS or passed(node, position)):
            yield from ((at, None) for at in outputs(node))

    sight.flows.walk(name, None, step)
    return bool(found) and array is not None and (any(found) and array.size <= _FEW or np.unique(array).size <= 2)


def needed(name: str, sight: Sight) -> Need:
    """What a floating tensor must keep for operators that are not defined for all numbers."""
    array = sight.array(name)
    if array is None:
        return Need.NOTHING
    numbers = plain(array)
    low = bool(np.all(numbers >= 0))
    zeros = bool(np.any(numbers == 0))
    found = [Need.NOTHING]

    def safe(way: _Way, *, defined: bool, zero: bool) -> Need:
        """For what is `defined` for this order of elements as for any, and may get a `zero`."""
        if way.sign == _Sign.ABOVE or (way.sign == _Sign.SQUARE and zero):
            return Need.NOTHING
        if way.sign == _Sign.SQUARE:
            return Need.SIGNS if zeros else Need.TENSOR
        return Need.SIGNS if defined else Need.PLACES

    def asked(prefix: str, node: Any, position: int, way: _Way) -> Need:  # noqa: ANN401
        op = node.op_type
        given = way.sign == _Sign.GIVEN
        power = sight.exponent(prefix, node) if op == "Pow" else 1.0
        if op == "Pow" and position == 1:
            based = sight.never_below_zero(prefix + node.input[0])
            whole = numbers == np.round(numbers)
            alike = way.single and (bool(whole.all()) or not whole.any())
            return Need.SIGNS if based or alike else Need.PLACES
        if is_in(node, position, DELICATE) or (op == "Pow" and power % 1 != 0):
            defined = way.single and way.entire and op != "ReduceLogSum" or given and op not in _TWO_SIDED
            return safe(way, defined=defined, zero=op in {"BatchNormalization", "Sqrt"} or power > 0)
        if (op == "Div" and position == 1) or op == "Reciprocal" or (op == "Mod" and position == 1) or power < 0:
            return safe(way, defined=way.single or given or not way.constant, zero=False)
        bound = op in _GROWING or (op in COMPARES and way.constant)
        return Need.SIGNS if bound else Need.NOTHING

    def step(prefix: str, node: Any, position: int, way: _Way) -> Iterator[tuple[int, _Way]]:  # noqa: ANN401
        if node.domain not in OWN or node.op_type in BLIND:
            return
        found.append(asked(prefix, node, position, way))
        if node.op_type in COMPARES or (node.op_type == "Where" and position == 0):
            return
        new = _behind(prefix, node, position, way, sight)
        if new is None:
            return
        new = dataclasses.replace(new, mixed=new.mixed or way.mixed)
        if way.mixed and new.sign == _Sign.ANY and node.op_type in _ADDING:
            new = dataclasses.replace(new, sign=_Sign.GIVEN)  # as above, of what is added nobody knows
        # Where such a sum may be below zero already, what follows takes that.
        if not (new.mixed and new.sign == _Sign.ANY):
            yield from ((at, new) for at in outputs(node))

    sight.flows.walk(name, _Way(True, True, _Sign.GIVEN if low else _Sign.ANY, True), step)
    return max(found)


def _behind(prefix: str, node: Any, position: int, way: _Way, sight: Sight) -> _Way | None:  # noqa: ANN401
    """What is known of a node's answers, None where they do not depend on the order of what comes in."""
    op = node.op_type
    others = sight.others(prefix, node, position)
    data = not sight.data.isdisjoint(others)
    constant = way.constant and not data
    if op == "PRelu":
        return _Way(False, False, _Sign.ANY, constant)
    if op in SUMS and not sight.squares(prefix, node):
        numbers = [sight.numbers.get(other, math.nan) for other in others]
        if op == "Max" and any(number > 0 for number in numbers):
            return None
        plain = not any(map(math.isnan, numbers))
        positive = all(sight.never_below_zero(other) for other in others if op != "Where" or other != others[0])
        sign = way.sign if positive or (data and op in {"Div", "Mul"}) else _Sign.ANY
        if op == "Sub":
            sign = _Sign.ANY
        elif op == "Max" and any(sight.never_below_zero(other) for other in others):
            sign = max(sign, _Sign.SQUARE)
        elif op in {"Add", "Sum"} and sign == _Sign.SQUARE and any(number > 0 for number in numbers):
            sign = _Sign.ABOVE
        elif op in {"Div", "Mul"} and sign == _Sign.ABOVE and not plain:
            sign = _Sign.SQUARE
        one = way.single and (plain or op in {"Max", "Min", "Where"})
        return _Way(one, way.entire and op != "Where", sign, constant)
    if adds_products(node, position):
        # Of data nobody knows: what is not defined below zero takes the sum only where they are not, either.
        known = (sight.never_below_zero(other) or other in sight.data for other in others)
        positive = way.sign != _Sign.ANY and all(known)
        if data and not positive:
            return None
        sign = min(way.sign, _Sign.SQUARE) if positive else _Sign.ANY
        return _Way(False, way.entire, sign, constant, mixed=data)
    if not (sight.squares(prefix, node) or passed(node, position)) or op == "Clip":
        return None
    if not constant and (op in ABOVE or sight.squares(prefix, node)):
        return None  # what follows is right for squares of any data, and with another weight these are other data
    single, entire = way.single and op not in GATHERING, way.entire and op not in PARTS
    if op in ABOVE:
        return _Way(single, entire, _Sign.ABOVE, constant)
    if sight.squares(prefix, node) or (op == "Relu" and way.sign == _Sign.ANY):
        return _Way(single, entire, _Sign.SQUARE, constant)
    return _Way(single, entire, way.sign if op in KEEPS_SIGN else _Sign.ANY, constant)
