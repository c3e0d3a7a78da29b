"""Networks that have nothing to do with an original, as a control: what looks alike without any kinship.

Simplifiers make all graphs more alike, since they write everything in one way. So a similarity that a tool raises says
little by itself; what counts is what it raises beyond what it raises for networks that the obfuscated file does not
hold, nine of ten of them, since rises differ among them by a tenth or two. There is one of each of `families.FAMILIES`,
of another seed than the classifier's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vambrace.assets.obfuscate.measure.families import FAMILIES, variant
from vambrace.assets.obfuscate.measure.readability import JUDGED, Structure, compared
from vambrace.assets.obfuscate.measure.runtime import clone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnx import ModelProto

__all__ = ["Control", "control"]

_SEED = 1_000_003
_MOST = 0.9
_LEAST = 10

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What a tool does to the similarity of an obfuscated file to networks that it does not hold.

    Attributes:
        n: how many networks.
        risen: similarity -> what nine of ten rise by at most; it may be below 0.
        high: similarity -> what nine of ten reach at most after the tool.
    """

    n: int
    risen: Mapping[str, float]
    high: Mapping[str, float]

    def beyond(self, name: str, before: float, after: float) -> float:
        """What a rise brings back: beyond the usual rise, and only above what unrelated networks reach anyway."""
        return max(0.0, min(after - before - max(0.0, self.risen[name]), after - self.high[name]))


def control(
    obfuscated: ModelProto, left: ModelProto, tool: str, run: Callable[[ModelProto], ModelProto]
) -> Control | None:
    """Measured as the original is: beside unrelated networks as they are, and as the same tool leaves them.

    Args:
        obfuscated: the model.
        left: what the tool left of it.
        tool: its name, under which what it leaves of the unrelated networks is kept.
        run: the tool.

    Returns:
        None where the tool fails on so many of the networks that the rest say little.
    """
    pairs = _strangers(tool, run)
    if len(pairs) < _LEAST:
        return None
    whole, rest = Structure.of(obfuscated), Structure.of(left)
    before = [compared(plain, whole) for plain, _ in pairs]
    after = [[compared(each, rest) for each in pair] for pair in pairs]
    most = [{name: max(each[name] for each in both) for name in JUDGED} for both in after]
    rises = {name: [each[name] - one[name] for one, each in zip(before, most, strict=True)] for name in JUDGED}
    return Control(
        n=len(pairs),
        risen={name: float(np.quantile(rises[name], _MOST)) for name in JUDGED},
        high={name: float(np.quantile([each[name] for each in most], _MOST)) for name in JUDGED},
    )


_KEPT: dict[str, list[tuple[Structure, Structure]]] = {}


def _strangers(tool: str, run: Callable[[ModelProto], ModelProto]) -> list[tuple[Structure, Structure]]:
    if tool not in _KEPT:
        found: list[tuple[Structure, Structure]] = []
        for family in FAMILIES:
            model = variant(family, 0, seed=_SEED)
            try:
                found.append((Structure.of(model), Structure.of(run(clone(model)))))
            except Exception:  # a third party's tool may fail in its own way on any model
                _LOG.info("%s failed on %s", tool, family, exc_info=True)
        _KEPT[tool] = found
    return _KEPT[tool]
