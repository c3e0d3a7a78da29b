"""The journal: vectors of its format, any damage anywhere, and a model of appending, crashing and resuming."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vambrace.assess.journal import HEADER, Journal, Parsed, UnitRecord, line, parse
from vambrace.core import files
from vambrace.errors import ConfigError, ResourceError

VECTORS = sorted((Path(__file__).parents[1] / "vectors" / "journal").glob("*.json"))
RUN = "00112233445566778899aabbccddeeff"
RESULT = {"records": [{"id": "1"}], "cost": {}, "flags": []}
ERROR = {"type": "ModelMisbehaved", "code": "E406", "seen": "a", "expected": "b", "fix": "c"}


def unit(seq: int, key: str, result: dict[str, Any] | None = RESULT) -> dict[str, Any]:
    return {
        "seq": seq,
        "kind": "unit",
        "key": key,
        "check": "clean",
        "role": "eval",
        "chunk": 0,
        "seconds": 0.25,
        "result": result,
        "error": None if result else ERROR,
        "log": "",
    }


def seqs(parsed: Parsed) -> list[int]:
    return sorted(record.seq for record in (*parsed.units, *parsed.incidents))


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 24


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    vector = json.loads(path.read_text(encoding="utf-8"))
    data, expect = vector["journal"].encode("latin-1"), vector["expect"]
    if "error" in expect:
        with pytest.raises(ConfigError, match=expect["error"]):
            parse(data, vector["run"])
        return
    parsed = parse(data, vector["run"])
    assert seqs(parsed) == expect["records"]
    assert [damage.kind for damage in parsed.damage] == expect["damage"]
    assert parsed.keep == expect["keep"]
    assert all(damage.text.endswith(".") for damage in parsed.damage)


JOURNAL = HEADER + b"".join(line(unit(n, f"{n:x}" * 64), RUN) for n in range(1, 7))
WRITTEN = {record.seq: record for record in parse(JOURNAL, RUN).units}


def check_mutant(data: bytes) -> None:
    """Whatever happened to the bytes: no traceback, no record that was not written, and damage is named."""
    try:
        parsed = parse(data, RUN)
    except ConfigError as refusal:
        assert refusal.code == "E506"  # noqa: PT017
        return
    assert all(record == WRITTEN[record.seq] for record in parsed.units)
    assert not parsed.incidents
    if data != JOURNAL and len(parsed.units) < len(WRITTEN):
        # Losing the end of the file at a line feed is the one loss that the file itself cannot show.
        assert parsed.damage or JOURNAL.startswith(data)


@settings(max_examples=300)
@given(st.integers(0, len(JOURNAL) - 1), st.integers(1, 255))
@example(len(HEADER) - 1, ord("\n") ^ ord(" "))
@example(len(HEADER) - 2, ord("1") ^ ord("2"))
def test_any_byte_changed(place: int, flip: int) -> None:
    data = bytearray(JOURNAL)
    data[place] ^= flip
    check_mutant(bytes(data))


def test_every_byte_flipped_once() -> None:
    for place in range(len(JOURNAL)):
        data = bytearray(JOURNAL)
        data[place] ^= 1 << (place % 8)
        check_mutant(bytes(data))


def test_every_truncation_keeps_every_whole_record() -> None:
    ends = [place + 1 for place, byte in enumerate(JOURNAL) if byte == 10]
    for size in range(len(JOURNAL) + 1):
        parsed = parse(JOURNAL[:size], RUN)
        whole = [end for end in ends if end <= size]
        assert len(parsed.units) == max(0, len(whole) - 1)
        assert parsed.keep == (whole[-1] if whole else 0)
        assert [damage.kind for damage in parsed.damage] == (["torn"] if size != parsed.keep else [])


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, len(JOURNAL)), st.integers(0, 40), st.binary(max_size=20)), min_size=1, max_size=4
    )
)
def test_anything_cut_out_and_put_in(edits: list[tuple[int, int, bytes]]) -> None:
    data = JOURNAL
    for place, length, new in edits:
        data = data[:place] + new + data[place + length :]
    check_mutant(data)


@given(st.permutations(list(range(6))), st.lists(st.integers(0, 5), max_size=4))
def test_order_and_repetition_of_lines_do_not_matter(order: list[int], again: list[int]) -> None:
    lines = JOURNAL.split(b"\n")[1:-1]
    data = HEADER + b"".join(lines[place] + b"\n" for place in [*order, *again])
    assert parse(data, RUN).units == parse(JOURNAL, RUN).units


@given(st.binary(max_size=200))
def test_any_bytes_at_all(data: bytes) -> None:
    check_mutant(data)


def test_a_record_of_another_run_never_counts() -> None:
    foreign = line(unit(1, "f" * 64), "0" * 32)
    assert parse(HEADER + foreign, RUN).units == ()
    assert parse(HEADER + foreign, "0" * 32).units


def test_the_later_record_of_a_key_holds() -> None:
    data = HEADER + line(unit(1, "a" * 64, None), RUN) + line(unit(2, "a" * 64), RUN)
    assert parse(data, RUN).latest["a" * 64].error is None
    assert parse(data[:-1], RUN).latest["a" * 64].error == ERROR


def append(journal: Journal, key: str, result: dict[str, Any] | None, seen: str = "a") -> UnitRecord:
    return journal.append_unit(
        key=key,
        check="clean",
        role="eval",
        chunk=0,
        seconds=0.0,
        result=result,
        error=None if result else {**ERROR, "seen": seen},
    )


def test_incidents_are_kept(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal", RUN)
    journal.append_incident(code="E602", text="A stale lock.", at="now")
    append(journal, "a" * 64, RESULT)
    journal.close()
    again = Journal.open(tmp_path / "journal", RUN)
    assert [incident.text for incident in again.parsed.incidents] == ["A stale lock."]
    assert append(again, "b" * 64, RESULT).seq == 3
    again.close()


def test_a_foreign_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"vambrace-journal/7\nwhatever\n")
    with pytest.raises(ConfigError, match="E506"):
        Journal.open(tmp_path / "journal", RUN)
    assert (tmp_path / "journal").read_bytes() == b"vambrace-journal/7\nwhatever\n"


def test_a_result_that_is_not_json_writes_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal", RUN)
    with pytest.raises(ConfigError, match="E105"):
        append(journal, "a" * 64, {"records": [float("nan")]})
    assert append(journal, "a" * 64, RESULT).seq == 1
    journal.close()
    assert len(parse((tmp_path / "journal").read_bytes(), RUN).units) == 1


class _Failing(files.System):
    """Fails once, at one call, after writing some of the bytes; cutting back may fail too."""

    def __init__(self, call: str, share: float, *, stuck: bool) -> None:
        self.call, self.share, self.stuck = call, share, stuck

    def write(self, fd: int, data: bytes | memoryview) -> int:
        if self.call == "write":
            super().write(fd, bytes(data)[: int(len(data) * self.share)])
            raise OSError(errno.ENOSPC, "full")
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        if self.call == "fsync":
            raise OSError(errno.EIO, "broken")
        super().fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        if self.stuck:
            raise OSError(errno.EIO, "broken")
        super().truncate(fd, size)


class JournalMachine(RuleBasedStateMachine):
    """Appending, failing, crashing with a torn tail, resuming, damage from outside: against a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "journal"
        self.durable: dict[str, tuple[int, bool]] = {}  # key -> (value, is it a result)
        self.perhaps: dict[str, tuple[int, bool]] = {}  # appends that failed may or may not be there
        self.count = 0
        self.journal: Journal | None = None

    @initialize()
    def begin(self) -> None:
        self.journal = Journal.open(self.path, RUN)

    def _append(self, key: int, good: bool) -> tuple[str, tuple[int, bool]]:
        self.count += 1
        assert self.journal
        name = f"{key:x}" * 64
        append(self.journal, name, {"records": [{"id": str(self.count)}]} if good else None, str(self.count))
        return name, (self.count, good)

    @precondition(lambda self: self.journal)
    @rule(key=st.integers(0, 5), good=st.booleans())
    def append(self, key: int, good: bool) -> None:
        try:
            name, value = self._append(key, good)
        except ResourceError:  # an earlier append could not be cut back: the writer must have closed itself
            self.crash(0.0)
            return
        self.durable[name] = value
        self.perhaps.pop(name, None)

    @precondition(lambda self: self.journal)
    @rule(
        key=st.integers(0, 5),
        call=st.sampled_from(["write", "fsync"]),
        share=st.floats(0, 1),
        stuck=st.booleans(),
    )
    def append_fails(self, key: int, call: str, share: float, stuck: bool) -> None:
        real, files.system = files.system, _Failing(call, share, stuck=stuck)
        try:
            with pytest.raises(ResourceError):
                self._append(key, True)
        finally:
            files.system = real
        if stuck:
            self.perhaps[f"{key:x}" * 64] = (self.count, True)
            self.crash(0.0)

    @precondition(lambda self: self.journal)
    @rule(share=st.floats(0, 1))
    def crash(self, share: float) -> None:
        """The process dies in the middle of a write."""
        assert self.journal
        self.journal.close()
        self.journal = None
        torn = line(unit(10**6, "e" * 64), RUN)[:-1]
        with self.path.open("ab") as file:
            file.write(torn[: int(len(torn) * share)])

    @precondition(lambda self: self.journal is None)
    @rule()
    def resume(self) -> None:
        self.journal = Journal.open(self.path, RUN)
        self._compare(self.journal.parsed)
        held = {key: self._value(record) for key, record in self.journal.parsed.latest.items()}
        self.durable, self.perhaps = held, {}
        assert self.path.read_bytes().endswith(b"\n")

    @precondition(lambda self: self.journal)
    @rule()
    def somebody_else_looks(self) -> None:
        self._compare(parse(self.path.read_bytes(), RUN))

    def _value(self, record: UnitRecord) -> tuple[int, bool]:
        if record.error is not None:
            return int(record.error["seen"]), False
        assert record.result is not None
        return int(record.result["records"][0]["id"]), True

    def _compare(self, parsed: Parsed) -> None:
        assert all(damage.kind == "torn" for damage in parsed.damage)
        for key, (value, good) in self.durable.items():
            record = parsed.latest[key]
            found = self._value(record)
            assert found == (value, good) or found == self.perhaps.get(key)
        assert parsed.latest.keys() <= {*self.durable, *self.perhaps}

    @invariant()
    def never_two_records_of_one_number(self) -> None:
        if self.path.exists():
            assert not [each for each in parse(self.path.read_bytes(), RUN).damage if each.kind == "repeated"]

    def teardown(self) -> None:
        if self.journal:
            self.journal.close()
        shutil.rmtree(self.folder)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


@pytest.mark.slow
def test_journal_machine_at_length() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(JournalMachine, settings=settings(max_examples=2000, stateful_step_count=40))
