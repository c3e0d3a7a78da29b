"""What a locked model says of its lock: the entry `vambrace.lock` of its metadata, and how tensors are locked by it.

**Format 2.** Canonical JSON {"format": 2, "joined": J, "parts": P, "roles": R, "salt": S}. S is 64 hexadecimal digits,
random for each lock, so that two versions of a model locked by one key do not share arrangements. R has one letter for
each tensor in the order of `roles.stated_tensors`: "s" places and signs; "o" places alone; "-" untouched; "k" places
alone, of those elements that are not zero, not infinite and not of a mask (`roles.staying`): all others stay, and n
counts those that move. P has, by the number of a tensor from 0, "s" or "o", written as a text, a digit for each of its
rows, if these are of several parts: along the first axis, or that before a colon, as in "1:0010"; of all other tensors
the only part is 0. J lists lists of two pairs or more, each a tensor and a part, in order: of one type and both "s" or
both "o", they are locked as if their elements were joined into one, in order. All other parts are locked each by
itself. Where a pair of a tensor i and a part j comes first, the stream is `keyed.Stream(key, "lock/2", S, i, j)`. For n
elements it gives n little-endian 64-bit words, of which the b lowest bits (2**b >= n, smallest b, at least 1) are
replaced by 0 to n - 1; sorted, these bits say from where each element is taken. For "s", ceil(n / 8) more bytes follow,
bit k % 8 of byte k // 8 for element k (before it moves): where it is set, the sign bit of a floating number is flipped,
or all bits of a whole number. Types of less than a byte move and flip by bytes, and for "k" a byte stays where one of
its elements does or it is not full; rows of theirs are of one part.

**Format 1**, which is still read, has no J and no P, and its streams are `keyed.Stream(key, "lock/1", S, i)`. Its
letters "p" and "v" are "s" and "o" of tensors that are joined with all others of the same letter and type.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vambrace.assets.obfuscate.stored import in_a_byte
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vambrace.assets.obfuscate.pools import Unit

__all__ = ["ENTRY", "Group", "LockEntry", "Rows", "lock_entry", "not_unlockable"]

ENTRY = "vambrace.lock"

_OLD = {"p": "s", "v": "o"}
"""Letters of format 1 for what is joined, and what they do."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Parts of a tensor.

    Attributes:
        axis: along which its rows lie.
        parts: of each row, the number of its part.
    """

    axis: int
    parts: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many parts."""
        return int(self.parts.max()) + 1

    def elements(self, dims: Sequence[int], part: int) -> NDArray[np.bool_]:
        """Which elements of a tensor of these sizes, in order, are of a part."""
        rows = (self.parts == part).reshape([-1] + [1] * (len(dims) - self.axis - 1))
        return np.broadcast_to(rows, tuple(dims)).reshape(-1)

    def written(self) -> str:
        """As in the entry."""
        return (f"{self.axis}:" if self.axis else "") + "".join(map(str, self.parts.tolist()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What is locked together.

    Attributes:
        tensors: their numbers.
        parts: of each of them, which elements; None for all.
        letter: what is done.
        path: of the stream.
    """

    tensors: list[int]
    parts: list[NDArray[np.bool_] | None]
    letter: str
    path: tuple[str | int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """What a locked model's metadata say.

    Attributes:
        roles: a letter for each tensor.
        salt: 64 hexadecimal digits.
        joined: parts of tensors that are locked together; None in format 1, where letters say it.
        parts: of the rows of tensors that have several.
    """

    roles: str
    salt: str
    joined: list[list[Unit]] | None
    parts: Mapping[int, Rows] = dataclasses.field(default_factory=dict[int, Rows])

    def groups(self, tensors: Sequence[Any]) -> list[Group]:
        """What is locked together, and how.

        Args:
            tensors: onnx.TensorProto, all that the model states, as many as there are `roles`.

        Raises:
            ArtifactRefused: E837, where parts of several types are joined, or a tensor has not as many rows.
        """
        if self.joined is None:
            return self._of_format_1(tensors)
        if not all(_has(tensors[number], rows) for number, rows in self.parts.items()):
            raise not_unlockable("a lock of tensors with other rows")
        if any(
            len({(self.roles[number], tensors[number].data_type) for number, _ in units}) > 1 for units in self.joined
        ):
            raise not_unlockable("a lock of tensors of several types in one")
        together = {unit for units in self.joined for unit in units}
        alone = [[unit] for unit in self.units() if unit not in together]
        return [
            Group(
                tensors=[number for number, _ in units],
                parts=[
                    self.parts[number].elements(tensors[number].dims, part) if number in self.parts else None
                    for number, part in units
                ],
                letter=self.roles[units[0][0]],
                path=("lock/2", self.salt, *units[0]),
            )
            for units in [*self.joined, *alone]
        ]

    def units(self) -> list[Unit]:
        """All that are locked, in order."""
        locked = [number for number, letter in enumerate(self.roles) if letter != "-"]
        counts = {number: self.parts[number].count if number in self.parts else 1 for number in locked}
        return [(number, part) for number in locked for part in range(counts[number])]

    def _of_format_1(self, tensors: Sequence[Any]) -> list[Group]:
        alike: dict[object, list[int]] = {}
        for number, (letter, tensor) in enumerate(zip(self.roles, tensors, strict=True)):
            if letter != "-":
                alike.setdefault((letter, tensor.data_type) if letter in _OLD else number, []).append(number)
        return [
            Group(
                tensors=numbers,
                parts=[None] * len(numbers),
                letter=_OLD.get(self.roles[numbers[0]], self.roles[numbers[0]]),
                path=("lock/1", self.salt, numbers[0]),
            )
            for numbers in alike.values()
        ]

    def write(self, model: Any) -> None:  # noqa: ANN401  onnx.ModelProto
        """Add the entry, in format 2, to a model's metadata."""
        joined = [[list(unit) for unit in units] for units in self.joined or ()]
        parts = {str(number): rows.written() for number, rows in self.parts.items()}
        entry = {"format": 2, "joined": joined, "parts": parts, "roles": self.roles, "salt": self.salt}
        model.metadata_props.add(key=ENTRY, value=canonical.dumps(entry).decode())


def lock_entry(model: Any) -> LockEntry:  # noqa: ANN401  onnx.ModelProto
    """What a locked model's metadata say of its lock.

    Raises:
        ArtifactRefused: E837, where there is no such entry or none of format 1 or 2.
    """
    entries = [each.value for each in model.metadata_props if each.key == ENTRY]
    if len(entries) != 1:
        raise not_unlockable("a model that is not locked" if not entries else "a model with two locks")
    try:
        loaded: object = canonical.loads(entries[0].encode())
    except (ValueError, RecursionError) as error:
        raise not_unlockable("a lock entry that cannot be read") from error
    entry = cast("dict[str, object]", loaded if isinstance(loaded, dict) else {})
    number, roles, salt = (entry.get(name) for name in ("format", "roles", "salt"))
    old = type(number) is int and number == 1
    if (
        set(entry) != {"format", "roles", "salt", *([] if old else ["joined", "parts"])}
        or type(number) is not int
        or not 1 <= number <= 2
    ):
        raise not_unlockable("a lock entry of another format")
    if not (isinstance(roles, str) and set(roles) <= set("spovk-" if old else "sok-")):
        raise not_unlockable("a lock entry of another format")
    if not (isinstance(salt, str) and len(salt) == 64):
        raise not_unlockable("a lock entry of another format")
    if old:
        return LockEntry(roles=roles, salt=salt, joined=None)
    try:
        parts = dict(_parts(entry["parts"], roles))
        joined = [[(_whole(number), _whole(part)) for number, part in units] for units in cast("Any", entry["joined"])]
    except (AttributeError, TypeError, ValueError) as error:
        raise not_unlockable("a lock entry of another format") from error
    found = LockEntry(roles=roles, salt=salt, joined=joined, parts=parts)
    _check_joined(found, entry["joined"])
    return found


def _has(tensor: Any, rows: Rows) -> bool:  # noqa: ANN401  onnx.TensorProto
    """Whether a tensor has such rows, each of whole bytes."""
    sizes = tensor.dims[rows.axis : rows.axis + 1]
    return list(sizes) == [len(rows.parts)] and in_a_byte(tensor) == 1


def _whole(number: object) -> int:
    if type(number) is not int:
        raise TypeError("no whole number")
    return number


def _parts(parts: object, roles: str) -> Iterator[tuple[int, Rows]]:
    for name, written in cast("Any", parts).items():
        if _counted(name) >= len(roles) or roles[int(name)] not in "so":
            raise ValueError("no number of a tensor")
        before, _, digits = written.rpartition(":")
        if not (digits.isascii() and digits.isdigit()):
            raise ValueError("no parts of rows")
        rows = Rows(_counted(before) if before else 0, np.frombuffer(digits.encode(), np.uint8).astype(np.int64) - 48)
        if len(np.unique(rows.parts)) != rows.count or rows.written() != written:
            raise ValueError("a part without rows")
        yield int(name), rows


def _counted(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and digits == str(int(digits))):
        raise ValueError("no number")
    return int(digits)


def _check_joined(entry: LockEntry, written: object) -> None:
    """Refuse pairs that are none, that come twice, or in another order than they are written."""
    joined = entry.joined or []
    units = [unit for each in joined for unit in each]
    known = {unit for unit in entry.units() if entry.roles[unit[0]] in "so"}
    if (
        [[list(unit) for unit in each] for each in joined] != written
        or any(len(each) < 2 or each != sorted(each) for each in joined)
        or len(set(units)) != len(units)
        or not set(units) <= known
    ):
        raise not_unlockable("a lock entry of another format")


def not_unlockable(seen: str) -> ArtifactRefused:
    """E837."""
    return ArtifactRefused(
        "E837",
        seen=seen,
        expected="an ONNX model as vambrace locked it",
        fix="give the file as it was written; optimise or convert a model after unlocking it, not before",
    )
