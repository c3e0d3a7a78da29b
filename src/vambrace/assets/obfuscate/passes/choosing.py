"""Which places a pass takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vambrace.core.options import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assets.obfuscate.keyed import Stream

__all__ = ["check_share", "chosen"]

_T = TypeVar("_T")


def chosen(places: Sequence[_T], share: float | None, stream: Stream) -> list[_T]:
    """A part of the places, in their order; all of them for no share."""
    return [places[int(at)] for at in stream.some(len(places), 1.0 if share is None else share)]


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
