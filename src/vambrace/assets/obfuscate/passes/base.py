"""What a pass of obfuscation is: options that edit a net in place, and say what they did so that it can be undone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vambrace.core.options import Options, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.obfuscate.keyed import Stream
    from vambrace.assets.obfuscate.net import Net

__all__ = ["Applied", "Pass", "require_share"]

Profile = Literal["exact", "tolerance"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What one pass did. All of it is JSON data and goes into the map.

    Attributes:
        eligible: places where it could have been applied.
        done: places where it was.
        left: why other places were not eligible, and how many.
        record: what `Pass.undo` needs, by the names that values had when the pass was done; None where it cannot be
            undone.
        marks: choices that tell the copies of two customers apart, as `vambrace.assets.obfuscate.tracing` reads them.
    """

    eligible: int
    done: int
    left: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    record: Mapping[str, Any] | None = None
    marks: tuple[Mapping[str, Any], ...] = ()


def require_share(share: float | None, **others: float) -> None:
    """Refuse a share of places outside 0 to 1, and other shares below 0.

    Raises:
        ConfigError: E103.
    """
    for name, value in {"share": 0.0 if share is None else share, **others}.items():
        require(
            value >= 0 and (name != "share" or value <= 1),
            seen=f"{name} {value}",
            expected="a share from 0 to 1" if name == "share" else "a share from 0",
            fix="use 0.1 for a tenth",
        )


class Pass(Options):
    """Base of all passes, each a frozen keyword-only dataclass.

    A pass whose cost or effect grows with the number of places has a field `share: float | None = None`, the share of
    eligible places; None takes that of the whole obfuscation. A pass that finds nothing to do leaves the net alone and
    says so by `done=0`.

    Attributes:
        name: in plans and maps.
        profile: "exact" where results stay equal bit for bit, "tolerance" where they are equal but for rounding.
        worth: where not all passes fit into a budget of time, those of more worth are kept.
    """

    __slots__ = ()
    name: ClassVar[str]
    profile: ClassVar[Profile]
    worth: ClassVar[int] = 0

    def apply(self, net: Net, stream: Stream) -> Applied:
        """Edit `net` in place; everything that is chosen is drawn from `stream`."""
        raise NotImplementedError

    def lighter(self) -> Pass | None:
        """What is done in its place where it takes too much time; None where it is left out then."""
        return None

    def undo(self, net: Net, record: Mapping[str, Any]) -> None:
        """Edit `net`, as the pass left it, back to what it was.

        Raises:
            LookupError: where what the record names is not there; the caller refuses the map.
        """
        raise NotImplementedError
