"""Passes that round, so that what they did cannot be undone bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.assets.obfuscate.passes.base import Applied, Pass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.obfuscate.net import Net

__all__ = ["OneWay"]


class OneWay(Pass):
    """Base of such passes. A map can be undone past one of them only where it found nothing to do."""

    __slots__ = ()

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Nothing was done where there is a record."""

    @staticmethod
    def report(eligible: int, done: int, left: Mapping[str, int]) -> Applied:
        """What was done; reasons that nothing was left for are dropped."""
        kept = {why: count for why, count in left.items() if count}
        return Applied(eligible=eligible, done=done, left=kept, record=None if done else {})
