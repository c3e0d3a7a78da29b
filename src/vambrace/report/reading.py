"""Read results.json as strictly as its format says: what is not exactly that is refused, by place and reason.

Not for journals or for files that are still being written. See `docs/formats/results-v1.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never, cast

from vambrace.core.canonical import loads
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
_MARK = b"\xef\xbb\xbf"  # a byte order mark, which RFC 8259 forbids to write
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
        if b"\0" in content or content.startswith(_MARK):
            raise ValueError("not plain UTF-8")  # the JSON reader would try other encodings
        content.decode("utf-8")
        data = _normal(loads(content), "$", 0)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        _refuse("E550", f"{name} is not JSON as results-v1.md says: {reason}", "finite UTF-8 JSON, no key twice")
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


def _normal(data: _Json, where: str, depth: int) -> _Json:
    """The data as canonical JSON would give it back: whole numbers are integers, text can be encoded, depth ends."""
    if depth > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST} at {where[:80]}")
    if isinstance(data, str):
        data.encode("utf-8")
    elif isinstance(data, float) and data.is_integer() and abs(data) <= _EXACT:
        return int(data)
    elif isinstance(data, list):
        items = cast("list[_Json]", data)
        return [_normal(item, f"{where}[{place}]", depth + 1) for place, item in enumerate(items)]
    elif isinstance(data, dict):
        pairs = cast("dict[str, _Json]", data)
        return {
            _normal(key, where, depth): _normal(item, f"{where}.{key[:40]}", depth + 1) for key, item in pairs.items()
        }
    return data


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
    ids: set[str] = set()
    for place, check in enumerate(data["plan"]["checks"]):
        if check["id"] in ids:
            yield f"$.plan.checks[{place}]", f"a second check {check['id'][:80]!r}"
        ids.add(check["id"])
