"""What a locked model says of its lock: the entry `vambrace.lock` of its metadata, and how tensors are locked by it.

**Format 2.** The entry `vambrace.lock` of the model's metadata is canonical JSON {"format": 2, "joined": J, "roles": R,
"salt": S}. S is 64 hexadecimal digits, random for each lock, so that two versions of a model locked by one key do not
share arrangements. R has one letter for each tensor in the order of `roles.stated_tensors`: "s" places and signs; "o"
places alone; "-" untouched; "k" places alone, of those elements that are not zero, not infinite and not of a mask
(`roles.staying`): all others stay, and n counts those that move. J lists lists of two numbers or more, in order: of
tensors from 0, of one type and both "s" or both "o", that are locked as if joined into one, in order. For tensor i, or
the first tensor i of those joined, the stream is `keyed.Stream(key, "lock/1", S, i)`. For n elements it gives n
little-endian 64-bit words, of which the b lowest bits (2**b >= n, smallest b, at least 1) are replaced by 0 to n - 1;
sorted, these bits say from where each element is taken. For "s", ceil(n / 8) more bytes follow, bit k % 8 of byte
k // 8 for element k (before it moves): where it is set, the sign bit of a floating number is flipped, or all bits of a
whole number. Types of less than a byte move and flip by bytes, and for "k" a byte stays where one of its elements does
or it is not full.

**Format 1**, which is still read, has no J. Its letters "p" and "v" are "s" and "o" of tensors that are joined with all
others of the same letter and type.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

from vambrace.core import canonical
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ENTRY", "LockEntry", "lock_entry", "not_unlockable"]

ENTRY = "vambrace.lock"

_OLD = {"p": "s", "v": "o"}
"""Letters of format 1 for what is joined, and what they do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """What a locked model's metadata say.

    Attributes:
        roles: a letter for each tensor.
        salt: 64 hexadecimal digits.
        joined: tensors that are locked together; None in format 1, where letters say it.
    """

    roles: str
    salt: str
    joined: list[list[int]] | None

    def groups(self, tensors: Sequence[Any]) -> list[tuple[list[int], str]]:
        """Which tensors are locked together, and the letter that says how.

        Args:
            tensors: onnx.TensorProto, all that the model states, as many as there are `roles`.

        Raises:
            ArtifactRefused: E837, where tensors of several types are joined.
        """
        roles, joined = self.roles, self.joined
        if joined is None:
            alike: dict[tuple[str, int], list[int]] = {}
            for number, (letter, tensor) in enumerate(zip(roles, tensors, strict=True)):
                if letter in _OLD:
                    alike.setdefault((letter, tensor.data_type), []).append(number)
            joined = list(alike.values())
        if any(len({(roles[number], tensors[number].data_type) for number in numbers}) > 1 for numbers in joined):
            raise not_unlockable("a lock of tensors of several types in one")
        together = {number for numbers in joined for number in numbers}
        alone = [[number] for number, letter in enumerate(roles) if letter != "-" and number not in together]
        return [(numbers, _OLD.get(roles[numbers[0]], roles[numbers[0]])) for numbers in [*joined, *alone]]

    def write(self, model: Any) -> None:  # noqa: ANN401  onnx.ModelProto
        """Add the entry, in format 2, to a model's metadata."""
        entry = {"format": 2, "joined": self.joined, "roles": self.roles, "salt": self.salt}
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
    number, roles, salt, joined = (entry.get(name) for name in ("format", "roles", "salt", "joined"))
    named = {"format", "roles", "salt"} if number == 1 else {"format", "joined", "roles", "salt"}
    letters = set("spovk-" if number == 1 else "sok-")
    if not (
        set(entry) == named
        and type(number) is int
        and 1 <= number <= 2
        and isinstance(roles, str)
        and set(roles) <= letters
        and isinstance(salt, str)
        and len(salt) == 64
        and (number == 1 or _is_joined(joined, roles))
    ):
        raise not_unlockable("a lock entry of another format")
    return LockEntry(roles=roles, salt=salt, joined=None if number == 1 else cast("list[list[int]]", joined))


def _is_joined(joined: object, roles: str) -> bool:
    """Whether these are lists of numbers of tensors that can be joined, each of them once."""
    if not isinstance(joined, list):
        return False
    lists = cast("list[object]", joined)
    if not all(isinstance(each, list) and len(cast("list[object]", each)) > 1 for each in lists):
        return False
    numbers = [number for each in cast("list[list[object]]", lists) for number in each]
    return (
        all(type(number) is int and 0 <= number < len(roles) and roles[number] in "so" for number in numbers)
        and len(set(numbers)) == len(numbers)
        and all(each == sorted(each) for each in cast("list[list[int]]", lists))
    )


def not_unlockable(seen: str) -> ArtifactRefused:
    """E837."""
    return ArtifactRefused(
        "E837",
        seen=seen,
        expected="an ONNX model as vambrace locked it",
        fix="give the file as it was written; optimise or convert a model after unlocking it, not before",
    )
