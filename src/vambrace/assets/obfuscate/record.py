"""The obfuscation map: what was done to a model, and what it takes to undo it. docs/formats/obfuscation-map-v1.md.

Whoever holds the map has the original: it is written sealed, and kept apart from the model.
"""

from __future__ import annotations

import dataclasses
import hashlib
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

from vambrace.core import canonical
from vambrace.core.reason import reason
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Entry", "ObfuscationMap", "check_map", "model_digest"]

FORMAT = "vambrace-obfuscation-map/1"

_ENTRY = {"name", "options", "eligible", "done", "left", "record", "marks"}
_MAP = {"format", "profile", "customer", "original", "obfuscated", "passes"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One pass that was done.

    Attributes:
        name: of the pass.
        options: its fields.
        eligible, done, left, record, marks: as in `vambrace.assets.obfuscate.passes.base.Applied`.
    """

    name: str
    options: Mapping[str, Any]
    eligible: int
    done: int
    left: Mapping[str, int]
    record: Mapping[str, Any] | None = dataclasses.field(repr=False)
    marks: tuple[Mapping[str, Any], ...] = dataclasses.field(default=(), repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ObfuscationMap:
    """All that was done, in order.

    Attributes:
        profile: "exact" or "tolerance".
        customer: whose copy it is, or None.
        original, obfuscated: `model_digest` before and after.
        passes: what was done.
    """

    profile: str
    customer: str | None
    original: str
    obfuscated: str
    passes: tuple[Entry, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical.dumps({"format": FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> ObfuscationMap:
        """Read a map.

        Raises:
            ArtifactRefused: E803, for bytes that are no map of this version.
        """
        try:
            loaded: object = canonical.loads(data)
            read = cast("dict[str, Any]", loaded if isinstance(loaded, dict) else {})
            if set(read) != _MAP or read["format"] != FORMAT:
                raise ValueError("no map of version 1")
            entries: list[dict[str, Any]] = list(read["passes"])
            if any(set(entry) != _ENTRY for entry in entries):
                raise ValueError("a pass without its fields")
            passes = tuple(_entry(entry) for entry in entries)
            return cls(
                profile=str(read["profile"]),
                customer=None if read["customer"] is None else str(read["customer"]),
                original=str(read["original"]),
                obfuscated=str(read["obfuscated"]),
                passes=passes,
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise ArtifactRefused(
                "E803",
                seen=f"an obfuscation map that cannot be read ({reason(error, 120)})",
                expected=f"one JSON object of the format {FORMAT}",
                fix="open the sealed map again, and give it as it was written",
            ) from error


def check_map(thing: object) -> None:
    """Refuse what is no map, such as the path of one.

    Raises:
        ArtifactRefused: E803.
    """
    if not isinstance(thing, ObfuscationMap):
        raise ArtifactRefused(
            "E803",
            seen=f"a {type(thing).__name__} in place of an obfuscation map",
            expected="an ObfuscationMap",
            fix="read it: ObfuscationMap.from_bytes(seal.load(path, identity=...))",
        )


_KINDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "options": (dict,),
    "eligible": (int,),
    "done": (int,),
    "left": (dict,),
    "record": (dict, NoneType),
    "marks": (list,),
}


def _entry(read: dict[str, Any]) -> Entry:
    if not all(isinstance(read[name], kinds) for name, kinds in _KINDS.items()):
        raise ValueError("a pass with a field of another kind")
    marks: tuple[Mapping[str, Any], ...] = tuple(read.pop("marks"))
    return Entry(marks=marks, **read)


def model_digest(model: Any) -> str:  # noqa: ANN401  onnx.ModelProto
    """SHA-256 of the bytes of a model, 64 hexadecimal digits."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
