"""The journal of a run: what finished, written so that a kill loses nothing and damage is never a number.

`parse` is pure: bytes to records and named damage, for any bytes whatever. `Journal` is the one writer of a file.
The format is `docs/formats/run-directory-v1.md`. Not a log for people: incidents and units only.

    >>> run = "0" * 32
    >>> text = HEADER + line({"seq": 1, "kind": "incident", "code": "E602", "text": "so", "at": "now"}, run)
    >>> [entry.text for entry in parse(text + b"half a rec", run).incidents], parse(text[:-1], run).damage[0].kind
    (['so'], 'torn')
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from vambrace.core import canonical
from vambrace.core.files import Appender, read_file
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Damage", "HEADER", "Incident", "Journal", "Parsed", "UnitRecord", "line", "parse"]

HEADER = b"vambrace-journal/1\n"

_VERSION = re.compile(rb"vambrace-journal/[0-9]{1,9}")
_LINE = re.compile(rb"([0-9a-f]{64}) (\{.*\})", re.DOTALL)
_EXACT = 2**53

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRecord:
    """One unit that ended: with a result, or with an error.

    Attributes:
        seq: its place among all records of the journal, from 1.
        key: the unit key.
        check, role, chunk: which unit it was, for people.
        seconds: wall time.
        result: records, cost and flags as JSON; None where `error` is not.
        error: the error as JSON, or None.
        log: traceback of an unforeseen error, else "".
    """

    seq: int
    key: str
    check: str
    role: str
    chunk: int
    seconds: float
    result: Mapping[str, Json] | None
    error: Mapping[str, str] | None
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that happened to the run and that its reader must be able to learn.

    Attributes:
        seq: its place among all records of the journal, from 1.
        code: the page that `vambrace explain` prints.
        text: one plain sentence.
        at: when, UTC.
    """

    seq: int
    code: str
    text: str
    at: str


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of the file that holds no record.

    Attributes:
        kind: "torn" the last record was not finished; "header" the version line; "damaged" a line that does not verify;
            "repeated" a record that stands there twice; "lost" records that are gone.
        line: number of the line, from 1; 0 where there is none.
        count: how many records it may have held.
    """

    kind: Literal["torn", "header", "damaged", "repeated", "lost"]
    line: int
    count: int = 1

    @property
    def text(self) -> str:
        """One plain sentence."""
        return {
            "torn": "The last record of the journal was not finished and was dropped.",
            "header": "The first line of the journal is damaged.",
            "damaged": f"Line {self.line} of the journal is damaged; the unit it held runs again.",
            "repeated": f"Line {self.line} of the journal repeats a record and was skipped.",
            "lost": f"{self.count} record(s) of the journal are gone; their units run again.",
        }[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a journal holds.

    Attributes:
        units: every unit record, by `seq`.
        incidents: every incident, by `seq`.
        damage: what is wrong with the file, in its order.
        keep: bytes up to the last line feed; what follows is torn.
        last: largest `seq` seen, 0 where there is none.
    """

    units: tuple[UnitRecord, ...]
    incidents: tuple[Incident, ...]
    damage: tuple[Damage, ...]
    keep: int
    last: int

    @property
    def latest(self) -> dict[str, UnitRecord]:
        """By unit key, the record that holds: the last one written."""
        return {record.key: record for record in self.units}


def line(record: Mapping[str, Json], run: str) -> bytes:
    """One line of the journal of `run`.

    Raises:
        ConfigError: E105, for a record that is not JSON data.
    """
    text = canonical.dumps(record)
    return _checksum(text, run) + b" " + text + b"\n"


def parse(data: bytes, run: str) -> Parsed:
    """Read a journal, whatever its bytes are.

    Raises:
        ConfigError: E506, for a journal of another version.
    """
    *lines, rest = data.split(b"\n")
    header, body = (lines[0], lines[1:]) if lines else (HEADER[:-1], [])
    damage: list[Damage] = [] if header == HEADER[:-1] else [Damage("header", 1)]
    found: dict[int, UnitRecord | Incident] = {}
    bad = 0
    for number, text in enumerate(body, 2):
        record = _record(text, run)
        if record is None:
            bad += 1
            damage.append(Damage("damaged", number))
        elif record.seq in found:
            damage.append(Damage("repeated", number))
        else:
            found[record.seq] = record
    if not found and damage and damage[0].kind == "header" and _VERSION.fullmatch(header):
        raise ConfigError(
            "E506",
            seen=f"a journal of version {header.decode()}",
            expected=HEADER.decode().strip(),
            fix="resume it with the release of vambrace that wrote it",
        )
    last = max(found, default=0)
    if last - len(found) > bad:
        damage.append(Damage("lost", 0, last - len(found) - bad))
    if rest:
        damage.append(Damage("torn", len(lines) + 1))
    ordered = [found[seq] for seq in sorted(found)]
    return Parsed(
        units=tuple(record for record in ordered if isinstance(record, UnitRecord)),
        incidents=tuple(record for record in ordered if isinstance(record, Incident)),
        damage=tuple(damage),
        keep=len(data) - len(rest),
        last=last,
    )


@dataclass(slots=True)
class Journal:
    """The one writer of a journal; `open` reads what is there, then every `append_*` is durable when it returns.

    Attributes:
        path: the file.
        run: the run's id, which every record is bound to.
        parsed: what was there when it was opened.
        incidents: what was appended since.
    """

    path: Path
    run: str
    parsed: Parsed
    incidents: list[Incident] = field(init=False, default_factory=list[Incident])
    _appender: Appender = field(repr=False, kw_only=True)
    _next: int = field(repr=False, kw_only=True)

    @classmethod
    def open(cls, path: Path, run: str) -> Journal:
        """Read the journal at `path`, cut a torn record off, and stand ready to append; a missing file is made.

        Raises:
            ConfigError: E506, for a journal of another version.
            ResourceError: E601 or E604, when it cannot be written or read.
        """
        try:
            parsed = parse(read_file(path), run)
        except FileNotFoundError:
            parsed = parse(b"", run)
        appender = Appender(path, size=parsed.keep)
        journal = cls(path, run, parsed, _appender=appender, _next=parsed.last + 1)
        if parsed.keep == 0:
            appender.append(HEADER)
        return journal

    def append_unit(
        self,
        *,
        key: str,
        check: str,
        role: str,
        chunk: int,
        seconds: float,
        result: Mapping[str, Json] | None,
        error: Mapping[str, str] | None,
        log: str = "",
    ) -> UnitRecord:
        """Record that a unit ended."""
        record = UnitRecord(
            seq=self._next,
            key=key,
            check=check,
            role=role,
            chunk=chunk,
            seconds=seconds,
            result=result,
            error=error,
            log=log,
        )
        self._append({"kind": "unit", **{name: getattr(record, name) for name in _UNIT}})
        return record

    def append_incident(self, *, code: str, text: str, at: str) -> Incident:
        """Record that something happened to the run."""
        incident = Incident(seq=self._next, code=code, text=text, at=at)
        self._append({"kind": "incident", **{name: getattr(incident, name) for name in _INCIDENT}})
        self.incidents.append(incident)
        return incident

    def close(self) -> None:
        """Release the file; twice is fine."""
        self._appender.close()

    def _append(self, record: Mapping[str, Json]) -> None:
        self._appender.append(line(record, self.run))
        self._next += 1


_UNIT = {
    "seq": int,
    "key": str,
    "check": str,
    "role": str,
    "chunk": int,
    "seconds": (int, float),
    "result": (dict, type(None)),
    "error": (dict, type(None)),
    "log": str,
}
_INCIDENT = {"seq": int, "code": str, "text": str, "at": str}


def _checksum(text: bytes, run: str) -> bytes:
    return hashlib.sha256(HEADER + run.encode() + b"\n" + text).hexdigest().encode()


def _record(text: bytes, run: str) -> UnitRecord | Incident | None:
    """The record in one line; None for a line that does not verify or whose fields are not those of the format."""
    match = _LINE.fullmatch(text)
    if match is None or _checksum(match[2], run) != match[1]:
        return None
    try:
        data: Json = canonical.loads(match[2])
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    fields = cast("dict[str, Json]", data)
    kind = fields.pop("kind", None)
    if kind == "unit" and _has(fields, _UNIT) and (fields["result"] is None) != (fields["error"] is None):
        return UnitRecord(**fields)
    if kind == "incident" and _has(fields, _INCIDENT):
        return Incident(**fields)
    return None


def _has(fields: Mapping[str, Json], wanted: Mapping[str, type | tuple[type, ...]]) -> bool:
    return (
        fields.keys() == wanted.keys()
        and all(isinstance(fields[name], kind) and not isinstance(fields[name], bool) for name, kind in wanted.items())
        and 1 <= fields["seq"] <= _EXACT
    )
