"""Numbers from the JSON of a benchmark as words: what is not there, or has no spread, is nothing."""

from __future__ import annotations

Json = dict[str, object]

_FEW = 8  # rounds below which a quartile is a guess


def parts_of(data: Json, key: str) -> list[Json]:
    """The objects that the object at `key` holds."""
    found = data.get(key)
    return [each for each in found.values() if isinstance(each, dict)] if isinstance(found, dict) else []


def ratio_at(data: Json, *path: str, digits: int, quarters: tuple[str, str] = ("quarter", "three_quarters")) -> str:
    """The median of a ratio taken round by round, with its middle half, or its ends where rounds are few."""
    rounds, median = number_at(data, *path, "rounds"), number_at(data, *path, "median")
    ends, called = quarters, "middle half"
    if rounds is not None and rounds < _FEW:
        ends, called = ("least", "most"), "all"
    low, high = (number_at(data, *path, end) for end in ends)
    if rounds is None or median is None or low is None or high is None:
        return ""
    if rounds == 1:
        return f"{median:.{digits}f}, one round"
    return f"{median:.{digits}f}, median ({called} {low:.{digits}f} to {high:.{digits}f}, {rounds:.0f} rounds)"


def share_of(row: Json) -> str:
    """A share of networks that were told apart, with its interval; nothing where it has none."""
    share, low, high = (number_at(row, *path) for path in (("accuracy",), ("interval", "low"), ("interval", "high")))
    return "" if share is None or low is None or high is None else f"{share:.3f} ({low:.3f} to {high:.3f})"


def number_at(data: Json, *path: str) -> float | None:
    """The number at a path, or None."""
    found = held_at(data, *path)
    return float(found) if isinstance(found, int | float) else None


def held_at(data: Json, *path: str) -> object:
    """What is at a path, or None."""
    found: object = data
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def where(data: Json, name: str) -> str:
    """On what, and from which commit, a file of results was taken."""
    there = data.get("surroundings")
    known = there if isinstance(there, dict) else {}
    versions = known.get("versions")
    torch = versions.get("torch") if isinstance(versions, dict) else None
    measured = [rows for net in parts_of(data, "nets") for rows in parts_of(net, "profiles")]
    measured += [rows for profile in data.get("classifier", {}) for rows in parts_of(data["classifier"], profile)]
    places = [rows.get("surroundings") for rows in measured]
    commit = str(known.get("commit", "?"))[:12]
    again = sorted({str(place.get("commit", "?"))[:12] for place in places if isinstance(place, dict)} - {commit})
    facts = [
        str(known.get("cpu", "unknown processor")),
        f"{known.get('cores', '?')} cores, {known.get('threads', '?')} in use",
        f"Python {known.get('python', '?')}",
        f"torch {torch}",
        f"commit {commit}" + (f", some rows at {', '.join(again)}" if again else ""),
    ]
    return f"({'; '.join(facts)}; `benchmarks/results/{name}.json`)"
