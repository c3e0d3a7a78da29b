"""What the lines of a privacy ledger say: bytes to charges, strictly. Writes nothing.

    parse((folder / "ledger").read_bytes()).spent  # what epsilon is computed from

Guarantees: every line is the one that was written, behind the one it was written behind; anything else is E585, never a
smaller number. Format: docs/formats/dp-ledger-v1.md. Imports no torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from vambrace.core import canonical
from vambrace.core.options import Options, require
from vambrace.core.spec import read
from vambrace.errors import ConfigError
from vambrace.privacy.dp.charges import Charge, Spent

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Block", "FORMAT", "History", "ORIGIN", "Terms", "limit", "parse", "refusal", "sealed"]

FORMAT = "vambrace-dp-ledger/1"

ORIGIN = "0" * 64
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RUN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms(Options):
    """What all steps of one ledger share, and what its epsilon is about.

    Attributes:
        dataset_size: samples in the training set, at least 1.
        delta: for which epsilon is to be told, in [0, 1).
        unit: what one person is taken to own, such as "sample". This and the next two are words: a lower-case
            letter and up to 63 more letters, digits or "_".
        relation: how neighbouring data sets differ, such as "add_or_remove_one".
        sampler: how batches are chosen, such as "poisson".
    """

    dataset_size: int
    delta: float
    unit: str
    relation: str
    sampler: str

    def __post_init__(self) -> None:
        limit(self.dataset_size >= 1, "dataset_size", self.dataset_size, "1 or more")
        limit(0 <= self.delta < 1, "delta", self.delta, "0 or more, below 1")
        for name in ("unit", "relation", "sampler"):
            word = getattr(self, name)
            limit(bool(_WORD.fullmatch(word)), name, word, "a word of lower-case letters, digits and _")


@dataclass(slots=True)
class Block:
    """Steps that were charged together.

    Attributes:
        charge: what each of them costs.
        steps: how many.
        used: how many of them ran, where somebody said so; else None. Nobody's epsilon depends on it.
    """

    charge: Charge
    steps: int
    used: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header(Options):
    format: Literal["vambrace-dp-ledger/1"]
    run: str
    terms: Terms

    def __post_init__(self) -> None:
        limit(bool(_RUN.fullmatch(self.run)), "run", self.run, "32 hex digits")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Charged(Options):
    charge: Charge
    first: int
    steps: int

    def __post_init__(self) -> None:
        limit(self.steps >= 1, "steps", self.steps, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Closed(Options):
    used: int


_KINDS = {"charged": _Charged, "closed": _Closed}


class History:
    """What the lines of a ledger say.

    Attributes:
        run: random id, 32 hex digits.
        terms: what its steps share.
        blocks: what was charged, in order.
        chain: the hash of every line; the last is the head.
        steps: charged so far, which is the number of the next one.
        keep: bytes of its lines with their line feeds.
    """

    def __init__(self, line: bytes) -> None:
        head, record = _unsealed(line, ORIGIN)
        header = read(_Header, record)
        self.run = header.run
        self.terms = header.terms
        self.blocks: list[Block] = []
        self.chain = [head]
        self.steps = 0
        self.keep = len(line) + 1

    @property
    def spent(self) -> Spent:
        """All that was charged."""
        return Spent((block.charge, block.steps) for block in self.blocks)

    def check(self, line: bytes) -> tuple[str, _Charged | _Closed]:
        """The hash and the record of a line that may follow; raises ValueError for any other."""
        head, record = _unsealed(line, self.chain[-1])
        kind = _KINDS.get(str(record.pop("kind", None)))
        if kind is None:
            raise ValueError("is of no known kind")
        entry = read(kind, record)
        if isinstance(entry, _Closed):
            if not self.blocks or self.blocks[-1].used is not None or not 0 <= entry.used <= self.blocks[-1].steps:
                raise ValueError("closes no block, or more of one than there was")
        elif entry.first != self.steps:
            raise ValueError(f"begins at step {entry.first} and not at {self.steps}")
        return head, entry

    def add(self, line: bytes, head: str, entry: _Charged | _Closed) -> None:
        """Take in what `check` gave for the line."""
        if isinstance(entry, _Charged):
            self.blocks.append(Block(entry.charge, entry.steps))
            self.steps += entry.steps
        else:
            self.blocks[-1].used = entry.used
        self.chain.append(head)
        self.keep += len(line) + 1


def parse(data: bytes, *, name: str = "the ledger") -> History:
    """What a ledger's bytes say; needs no lock and writes nothing.

    A last line that was not finished is left out (`keep` is then less than there is), one that lacks but its line feed
    counts (`keep` is then one more).

    Args:
        data: the file's content.
        name: what messages call it.

    Raises:
        ConfigError: E585, for damage of any kind, or another version.
    """
    *lines, rest = data.split(b"\n")
    if _whole(rest):
        lines.append(rest)
    if not lines:
        raise _damage(name, 1, "is not there, or was not finished")
    if (version := _version(lines[0])) not in {None, FORMAT}:
        raise refusal(f"{name} is of version {version!r}", FORMAT, "go on with the release of vambrace that wrote it")
    number = 1
    try:
        history = History(lines[0])
        for number, line in enumerate(lines[1:], 2):  # noqa: B007  for the message below
            history.add(line, *history.check(line))
    except ConfigError as error:
        raise _damage(name, number, f"holds {error.seen}") from error
    except (ValueError, RecursionError) as error:
        raise _damage(name, number, str(error)) from error
    return history


def refusal(seen: str, expected: str, fix: str) -> ConfigError:
    """E585: a ledger that training cannot go on with."""
    return ConfigError("E585", seen=seen, expected=expected, fix=fix)


def _damage(name: str, number: int, why: str) -> ConfigError:
    return refusal(
        f"line {number} of {name} {why}",
        "every line as it was written",
        "restore the file as it was; without it nobody knows what was spent",
    )


def limit(holds: bool, name: str, value: object, expected: str) -> None:
    """E103 unless `holds`."""
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: {expected}", fix=f"correct {name}")


def sealed(record: Mapping[str, object], previous: str) -> bytes:
    """The line of a record, without its line feed; `previous` is the hash of the line before it."""
    body = {**record, "previous": previous}
    return canonical.dumps({**body, "sha256": canonical.digest(body)})


def _unsealed(line: bytes, previous: str) -> tuple[str, dict[str, Any]]:
    """The hash and the record of a line; ValueError for one that was not written so, or not behind `previous`."""
    try:
        data: Any = canonical.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(data, dict) or canonical.dumps(cast("object", data)) != line:
        raise ValueError("is not a canonical object")
    record = cast("dict[str, Any]", data)
    head = record.pop("sha256", None)
    if head != canonical.digest(record):
        raise ValueError("does not match its hash")
    if record.pop("previous", None) != previous:
        raise ValueError("does not follow the line before it")
    return head, record


def _whole(rest: bytes) -> bool:
    """Whether bytes without a line feed are more than the beginning of a line: a whole object, whatever follows it."""
    try:
        json.JSONDecoder().raw_decode(rest.decode("latin-1"))
    except (ValueError, RecursionError):
        return False
    return True


def _version(line: bytes) -> str | None:
    """What a first line says it is; None where it says nothing of the kind."""
    try:
        data: Any = canonical.loads(line)
    except (ValueError, RecursionError):
        return None
    found = cast("dict[str, Any]", data).get("format") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None
