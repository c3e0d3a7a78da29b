"""Which move the adaptive search makes next: shares learned from what each move broke for what it cost.

Every move has a rate of samples broken per row asked, believed to be Gamma distributed after what was seen of it; the
next move is the one of the highest rate drawn from these beliefs (Thompson 1933). Old sights fade, because what is
easy to break is broken first. Before that every move has had its turns, so that none is judged unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaincinv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.core.rng import Streams

__all__ = ["Shares"]

_FADES = 0.97
_TURNS = 2
_PRIOR = 0.5


@dataclass(slots=True)
class _Seen:
    turns: int = 0
    broken: float = 0.0
    cost: float = 0.0


class Shares:
    """What was seen of each move.

    >>> from vambrace.core.rng import Streams
    >>> shares = Shares(("one", "two"))
    >>> for name in ("one", "two") * 2:
    ...     shares.record(name, broken=int(name == "two"), cost=100)
    >>> [shares.choose(Streams(turn)) for turn in range(5)].count("two") >= 3
    True

    Args:
        moves: their names, in the order of their first turns.
    """

    def __init__(self, moves: Sequence[str]) -> None:
        self._seen = {name: _Seen() for name in moves}

    def choose(self, rng: Streams) -> str:
        """The move to make: first each in turn, then by its drawn rate; `rng` is another stream at every choice."""
        fewest = min(self._seen, key=lambda name: self._seen[name].turns)
        if self._seen[fewest].turns < _TURNS:
            return fewest
        words = rng.integers(2**31, shape=(len(self._seen),))
        unit = (words.astype(np.float64) + 0.5) / 2**31
        rates = [
            gammaincinv(_PRIOR + seen.broken, drawn) / seen.cost
            for seen, drawn in zip(self._seen.values(), unit, strict=True)
        ]
        return list(self._seen)[int(np.argmax(rates))]

    def record(self, move: str, *, broken: int, cost: int) -> None:
        """What a move broke, and the rows that it asked, more than none."""
        for seen in self._seen.values():
            seen.broken *= _FADES
            # A floor under what is left of the cost: a move that is not made for long is tried again.
            seen.cost = max(seen.cost * _FADES, min(seen.cost, float(cost)))
        mine = self._seen[move]
        mine.turns += 1
        mine.broken += broken
        mine.cost += cost
