"""Reductions: pure, in the order of samples, and one check's fault is that check's fault."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest

from assess.toy import ToyCheck, toy_plan
from vambrace.assess.journal import UnitRecord
from vambrace.assess.plan import PlannedCheck
from vambrace.assess.reduction import Reduced, quiet, reduce_units
from vambrace.assess.units import Unit
from vambrace.core.findings import Flag, Status

PLAN = toy_plan(
    Path(),
    PlannedCheck(id="one", check=ToyCheck()),
    PlannedCheck(id="two", check=ToyCheck(scale=2.0)),
)
UNITS = tuple(
    Unit(
        key=f"{check}{chunk}" * 32,
        check=check,
        name=("one", "two")[check],
        role="eval",
        chunk=chunk,
        positions=tuple(range(3 * chunk, 3 * chunk + 3)),
        samples="s",
    )
    for check in range(2)
    for chunk in range(3)
)


def record(unit: Unit, *, error: dict[str, str] | None = None, flags: list[Any] | None = None) -> UnitRecord:
    result = {
        "records": [{"id": str(place), "value": 0.5 + place, "draw": place} for place in unit.positions],
        "cost": {"forwards": 3},
        "flags": flags or [],
    }
    return UnitRecord(
        seq=1,
        key=unit.key,
        check=unit.name,
        role="eval",
        chunk=unit.chunk,
        seconds=1.0,
        result=None if error else result,
        error=error,
        log="",
    )


DONE = {unit.key: record(unit) for unit in UNITS}
ERROR = {"type": "ModelMisbehaved", "code": "E406", "seen": "Net raised at 0x7f0011aa in /home/me/net.py", "fix": "f"}


def reduced(done: dict[str, UnitRecord], **options: Any) -> Reduced:
    return reduce_units(PLAN, UNITS, done, **{"flags": (), "num_classes": 10, "class_names": (), **options})


def test_records_come_in_the_order_of_samples_whatever_the_order_of_units() -> None:
    shuffled = list(DONE.items())
    random.Random(1).shuffle(shuffled)
    found = reduced(DONE)
    assert reduced(dict(shuffled)) == found
    assert found.findings[0].series["values"] == [0.5 + place for place in range(9)]
    assert found.findings[0].cost.forwards == 9
    assert (found.errors, found.bugs, found.unfinished) == ((), (), 0)


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("budget", "budget"),
        ("stopped", "told to stop"),
        ("interrupted", "was interrupted"),
        ("resources: E601", "resources: E601"),
        ("", "did not run"),
    ],
)
def test_missing_units_are_never_a_number(reason: str, why: str) -> None:
    done = {key: value for key, value in DONE.items() if key != UNITS[1].key}
    found = reduced(done, reason=reason)
    assert found.unfinished == 1
    assert found.findings[0].status is Status.NOT_MEASURED
    assert found.findings[0].value is None
    assert why in found.findings[0].reason
    assert found.findings[1].status is Status.MEASURED


def test_an_error_says_more_than_a_stop_and_knows_no_place() -> None:
    done = {UNITS[1].key: record(UNITS[1], error=ERROR)}
    found = reduced(done, reason="budget")
    assert found.findings[0].reason == "error: E406: Net raised at 0x... in net.py"
    assert found.errors == (ERROR,)
    assert found.unfinished == 5


def test_flags_are_distinct_and_those_of_preflight_are_with_them() -> None:
    seen = {"code": "E499", "level": "warn", "text": "toy", "families": ["toy"]}
    done = {unit.key: record(unit, flags=[seen]) for unit in UNITS}
    flag = Flag(code="E420", level="unreliable", text="random")
    found = reduced(done, flags=(flag,))
    assert found.findings[0].flags == (Flag(code="E499", level="warn", text="toy", families=("toy",)), flag)


def test_the_clean_check_is_there_for_pairs() -> None:
    assert reduced(DONE).findings[0].series["clean"] == 0

    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Clean(ToyCheck):
        kind = "clean"

    plan = toy_plan(Path(), PlannedCheck(id="one", check=Clean()), PLAN.checks[1])
    found = reduce_units(plan, UNITS, DONE, flags=(), num_classes=10, class_names=())
    assert [finding.series["clean"] for finding in found.findings] == [9, 9]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain words: 1/2 and 8/255, and/or", "plain words: 1/2 and 8/255, and/or"),
        ("in /home/me/my.nets/net.py, line 3", "in net.py, line 3"),
        ("open('/tmp/x/y.bin') at 0xDEADBEEF01", "open('y.bin') at 0x..."),
        (r"C:\Users\me\net.py failed", "net.py failed"),
        ("https://example.org/a/b is kept", "https://example.org/a/b is kept"),
        ("shape (3, 4) / 0x1F", "shape (3, 4) / 0x1F"),
    ],
)
def test_quiet(text: str, wanted: str) -> None:
    assert quiet(text) == wanted
