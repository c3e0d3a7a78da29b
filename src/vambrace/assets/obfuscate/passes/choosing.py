"""Which places a pass takes."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.passes.base import Pass

__all__ = ["affordable", "check_share", "check_slowdown", "chosen", "with_share"]

_ANY = 1e6
"""A slowdown that bounds nothing."""

_T = TypeVar("_T")


def chosen(places: Sequence[_T], share: float | None, stream: Stream) -> list[_T]:
    """A part of the places, in their order; all of them for no share."""
    return [places[int(at)] for at in stream.some(len(places), 1.0 if share is None else share)]


def affordable(
    places: Sequence[_T], share: float | None, stream: Stream, cost: Callable[[_T], float], time: float | None
) -> tuple[list[_T], dict[str, int]]:
    """As `chosen`, of such places as fit into a time together.

    Args:
        places: in order.
        share: of them; None for all.
        stream: chooses.
        cost: of a place, in seconds.
        time: that they may take together; None for any.

    Returns:
        Places in their order, and how many were left because of the time, as a pass says it.
    """
    if time is None:
        return chosen(places, share, stream), {}
    wanted = math.ceil((1.0 if share is None else share) * len(places) - 1e-9)
    taken: list[int] = []
    for number in stream.permutation(len(places)):
        at = int(number)
        if len(taken) < wanted and (each := cost(places[at])) <= time:
            time -= each
            taken.append(at)
    short = wanted - len(taken)
    return [places[at] for at in sorted(taken)], {"what would take too long": short} if short else {}


def check_share(share: float | None) -> None:
    """Refuse a share that is none.

    Raises:
        ConfigError: E835.
    """
    require(
        share is None or 0 <= share <= 1,
        code="E835",
        seen=f"a share of {share}",
        expected="a part of the places, from 0 to 1",
        fix="write 0.3 for three places in ten",
    )


def check_slowdown(slowdown: float | None) -> None:
    """Refuse a slowdown that is none.

    Raises:
        ConfigError: E838.
    """
    require(
        slowdown is None or slowdown >= 0,
        code="E838",
        seen=f"a slowdown of {slowdown}",
        expected="a share of the time of a run, from 0",
        fix="write 0.01 for a hundredth",
    )


def with_share(one: Pass, share: float, slowdown: float | None) -> Pass:
    """A pass with its share of places stated, where it leaves that open.

    Args:
        one: the pass. Whoever states a share has it done whatever it takes.
        share: 0 to 1.
        slowdown: most that it may add to a run, where it leaves that open as well; None: whatever the share takes.
    """
    made: Any = one  # every pass is a dataclass
    if getattr(made, "share", 0.0) is not None:
        return one
    own = getattr(made, "slowdown", 0.0)
    bounded = {"slowdown": slowdown} if slowdown is not None and own is None else {}
    lifted = {"slowdown": _ANY} if slowdown is None and own else {}
    return cast("Pass", dataclasses.replace(made, share=share, **bounded, **lifted))
