"""Read results.json as strictly as its format says: what is not exactly that is refused, by place and reason.

Not for journals or for files that are still being written. See `docs/formats/results-v1.md`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Never, cast

from vambrace.core.findings import Results
from vambrace.errors import ConfigError
from vambrace.report.schema import VERSION, fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LARGEST_FILE", "parse_results", "read_results"]

LARGEST_FILE = 64 * 2**20
"""Bytes of the largest results.json that is read."""

_DEEPEST = 64
_EXACT = 2**53

_Json = Any


def read_results(path: Path) -> Results:
    """The results in the file `path`.

    Raises:
        ConfigError: E550 the file cannot be read or is no JSON, E551 it is JSON of another form, E552 it is of
            another version.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            _refuse("E550", f"{path.name}: {path.stat().st_size} bytes", f"at most {LARGEST_FILE} bytes")
        content = path.read_bytes()
    except OSError as error:
        _refuse("E550", f"{path}: {error.strerror}", "a readable results.json")
    return parse_results(content, name=path.name)


def parse_results(content: bytes, *, name: str = "results.json") -> Results:
    """The results in the bytes of a file called `name`; raises as `read_results` does."""
    if len(content) > LARGEST_FILE:
        _refuse("E550", f"{name}: {len(content)} bytes", f"at most {LARGEST_FILE} bytes")
    try:
        data = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant
        )
        _plain_text(data, 0)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        _refuse(
            "E550", f"{name} is not JSON as results-v1.md says: {reason}", "finite, UTF-8 JSON without duplicate keys"
        )
    if isinstance(data, dict) and (version := cast("dict[str, _Json]", data).get("schema")) != VERSION:
        _refuse("E552", f"{name} with the version {str(version)[:60]!r}", VERSION)
    wrong = fault(data) or next(_beyond_schema(data), None)
    if wrong:
        _refuse("E551", f"{name} at {wrong[0]}: {wrong[1]}", f"the form of {VERSION}")
    return Results.from_json(cast("dict[str, _Json]", data))


def _refuse(code: str, seen: str, expected: str) -> Never:
    fixes = {
        "E550": "point to the results.json of a finished run, or run the assessment again with --resume",
        "E551": "let vambrace write the file: run the assessment again with --resume",
        "E552": "read it with the release of vambrace that wrote it, or run the assessment again",
    }
    raise ConfigError(code, seen=seen, expected=expected, fix=fixes[code])


def _unique(pairs: list[tuple[str, _Json]]) -> dict[str, _Json]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:60]!r} twice in one object")
    return fields


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]}, which is too large")
    # Canonical JSON has one way to write a whole number, so reading has one type for it.
    return int(value) if value.is_integer() and abs(value) <= _EXACT else value


def _constant(text: str) -> Never:
    raise ValueError(f"the number {text}")


def _plain_text(data: _Json, depth: int) -> None:
    """Refuse what canonical JSON could not write again: lone surrogates, inexact integers, bottomless nesting."""
    if depth > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST}")
    if isinstance(data, str):
        data.encode("utf-8")
    elif isinstance(data, int) and abs(data) > _EXACT:
        raise ValueError("an integer beyond 2**53")
    elif isinstance(data, list):
        for item in cast("list[_Json]", data):
            _plain_text(item, depth + 1)
    elif isinstance(data, dict):
        for key, item in cast("dict[str, _Json]", data).items():
            key.encode("utf-8")
            _plain_text(item, depth + 1)


def _beyond_schema(data: _Json) -> Iterator[tuple[str, str]]:
    """Rules of the format that JSON Schema cannot say."""
    names: set[str] = set()
    shown: set[str] = set()
    for place, finding in enumerate(data["findings"]):
        where = f"$.findings[{place}]"
        name = f"{finding['check']}.{finding['metric']}"
        if name in names:
            yield where, f"a second finding {name[:80]!r}"
        names.add(name)
        interval = finding["interval"]
        if interval and interval["low"] > interval["high"]:
            yield f"{where}.interval", "low above high"
        for number, evidence in enumerate(finding["evidence"]):
            if evidence["finding"] in shown:
                yield f"{where}.evidence[{number}]", f"a second evidence {evidence['finding'][:80]!r}"
            shown.add(evidence["finding"])
    checks = Counter(check["id"] for check in data["plan"]["checks"])
    for place, check in enumerate(data["plan"]["checks"]):
        if checks[check["id"]] > 1:
            yield f"$.plan.checks[{place}]", f"a second check {check['id'][:80]!r}"
