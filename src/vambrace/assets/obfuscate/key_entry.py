"""What a model that takes its key as an input says of it: the entry `vambrace.key-input` of its metadata.

**Format 2.** Canonical JSON {"format": 2, "input": name, "places": P, "salt": S}: S is 64 hexadecimal digits, P a list
of [block, channels, reach] in the order of the key tensor, which is int64 of one axis. For place i
`keyed.Stream(key, "key-input/1", S, i)` draws one permutation of `block` elements for each block of channels (one for
each group of a convolution), then, if reach is not 0, `channels` whole numbers from 0 to 2 reach: e is that less reach.
Stored channel j is channel order[j], times 2**e[j]. The tensor holds the inverses of all orders in blocks of more than
one, then, for each place with a reach, 3 - e in the model's own order of channels.

**Format 1**, which is still read: in place of reach stands 1 for a reach of 3, or 0.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vambrace.assets.obfuscate.keyed import Stream
from vambrace.core import canonical
from vambrace.core.reason import reason
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["ENTRY", "REACH", "Slot", "key_entry", "write_entry"]

ENTRY = "vambrace.key-input"

REACH = 3
"""Factors are 2**-3 to 2**3 at most."""

_MOST_CHANNELS = 2**24
"""More than any model has, and no more than can be drawn."""

_MOST_BLOCKS = 2**17
"""The same: each has an order of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """A place in the key tensor: channels in blocks, and how far they are scaled.

    Attributes:
        block: channels that change places among each other.
        channels: all of them.
        reach: factors are 2**-reach to 2**reach.
    """

    block: int
    channels: int
    reach: int

    @property
    def ordered(self) -> bool:
        """Whether there is more than one order."""
        return self.block > 1

    @property
    def scaled(self) -> bool:
        """Whether there is more than one factor."""
        return self.reach > 0

    @property
    def length(self) -> int:
        """Numbers in the key tensor."""
        return self.channels * (self.ordered + self.scaled)

    def draw(self, key: bytes, salt: str, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Order and exponents (0 where nothing is scaled) of the stored channels."""
        stream = Stream(key, "key-input/1", salt, number)
        if self.ordered:
            starts = range(0, self.channels, self.block)
            order = np.concatenate([start + stream.permutation(self.block) for start in starts])
        else:  # one order of one takes a word, too
            stream.bytes(8 * self.channels)
            order = np.arange(self.channels)
        if not self.scaled:
            return order, np.zeros(self.channels, np.int64)
        return order, stream.integers(0, 2 * self.reach + 1, (self.channels,)) - self.reach


def write_entry(model: Any, name: str, slots: Iterable[Slot], salt: str) -> None:  # noqa: ANN401  onnx.ModelProto
    """Add the entry, in format 2, to a model's metadata."""
    layout = [[slot.block, slot.channels, slot.reach] for slot in slots]
    entry = {"format": 2, "input": name, "places": layout, "salt": salt}
    model.metadata_props.add(key=ENTRY, value=canonical.dumps(entry).decode())


def key_entry(model: Any) -> tuple[str, list[Slot], str]:  # noqa: ANN401  onnx.ModelProto
    """The name of the input, what it holds, and the salt.

    Raises:
        ArtifactRefused: E841, for a model without such an entry, or one that does not fit the model.
    """
    try:
        entries = [each.value for each in model.metadata_props if each.key == ENTRY]
        loaded: object = canonical.loads(entries[0].encode()) if len(entries) == 1 else None
        entry = cast("dict[str, Any]", loaded if isinstance(loaded, dict) else {})
        if set(entry) != {"format", "input", "places", "salt"} or entry["format"] not in (1, 2):
            raise ValueError("no such entry of format 1 or 2")
        places = [(block, channels, reach) for block, channels, reach in entry["places"]]
        if not places or any(type(number) is not int for place in places for number in place):
            raise ValueError("places that are none")
        # Not told by the weights, which may lie in other files.
        if sum(abs(channels) for _, channels, _ in places) > _MOST_CHANNELS:
            raise ValueError("places that no layer has")
        if sum(channels // block for block, channels, _ in places if block > 1) > _MOST_BLOCKS:
            raise ValueError("blocks that no layer has")
        if entry["format"] == 1:
            places = [(block, channels, REACH * bool(scaled)) for block, channels, scaled in places]
        slots = [Slot(*place) for place in places]
        if any(not 1 <= slot.block <= slot.channels or slot.channels % slot.block for slot in slots):
            raise ValueError("places that no layer has")
        if any(not 0 <= slot.reach <= REACH for slot in slots):
            raise ValueError("factors that no layer has")
        if any(not slot.length for slot in slots):
            raise ValueError("places of one order and one scale")
        if sum(slot.length for slot in slots) != _length(model, entry["input"]):
            raise ValueError("places that are not as many as the input is long")
        return str(entry["input"]), slots, str(entry["salt"])
    except (AttributeError, ValueError, TypeError, RecursionError) as error:
        raise ArtifactRefused(
            "E841",
            seen=f"a model whose key input cannot be read ({reason(error, 120)})",
            expected="an ONNX model as vambrace locked it, with a key as an input",
            fix="give the file as it was written, with its metadata",
        ) from error


def _length(model: Any, name: object) -> int:  # noqa: ANN401
    """Of an input of one axis; 0 where there is none of that name."""
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name == name]
    return int(shapes[0][0].dim_value) if shapes and len(shapes[0]) == 1 else 0
