"""Our checker against jsonschema, on documents damaged in many ways."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report import sample
from vambrace.core.canonical import dumps
from vambrace.core.findings import Cost, Evidence, Finding, Flag, GateResult, Interval, Left, Status, Verdict
from vambrace.report import schema as module
from vambrace.report.schema import VERSION, fault, schema

JUDGE = jsonschema.Draft202012Validator(schema())
WHOLE = json.loads(dumps(sample.results().as_json()))
# A short list of findings keeps the search inside the parts that matter.
SMALL = WHOLE | {
    "findings": [WHOLE["findings"][0], WHOLE["findings"][9], WHOLE["findings"][-1]],
    "gates": WHOLE["gates"][:2],
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**60)
    | st.sampled_from([0.5, -1.5, 1.0, 256.0, 1e300])
    | st.sampled_from(["", "a", "E401", "e401", "0" * 64, "0" * 64 + "\n", "pass", "PASS", VERSION])
    | st.text(max_size=5)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, item in items for place in ((*path, key), *places(item, (*path, key)))]


PLACES = places(SMALL)


@settings(max_examples=400)
@given(st.sampled_from(PLACES), st.sampled_from(["set", "drop", "add"]), values, st.text(max_size=6))
def test_agrees_with_jsonschema(path: tuple[Any, ...], how: str, value: Any, name: str) -> None:
    data = copy.deepcopy(SMALL)
    *way, last = path
    inner = data
    for key in way:
        inner = inner[key]
    if how == "set":
        inner[last] = value
    elif how == "drop":
        del inner[last]
    elif isinstance(inner, dict):
        inner[name] = value
    else:
        inner.append(value)
    assert (fault(data) is None) == JUDGE.is_valid(data)


def test_sound_document() -> None:
    assert fault(SMALL) is None
    assert JUDGE.is_valid(SMALL)


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_keyword_is_known() -> None:
    known = set(module._KEYWORDS) | module._NOTES | module._BESIDE

    def keywords(rule: Any) -> set[str]:
        found: set[str] = set()
        for key, value in rule.items():
            found.add(key)
            if key in {"properties", "$defs"}:
                found |= {word for inner in value.values() for word in keywords(inner)}
            elif isinstance(value, dict):
                found |= keywords(value)
            elif key == "anyOf":
                found |= {word for inner in value for word in keywords(inner)}
        return found

    assert keywords(schema()) <= known


def test_unknown_keyword_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "schema", lambda: {"type": "object", "maxProperties": 1})
    with pytest.raises(KeyError, match="maxProperties"):
        fault({"a": 1, "b": 2})


def test_closed_objects_are_closed() -> None:
    """Every object of the format that is built from a dataclass refuses unknown fields."""
    definitions = schema()["$defs"]
    closed = {name for name, rule in definitions.items() if rule.get("additionalProperties") is False}
    assert closed == {"finding", "interval", "flag", "cost", "evidence", "gate", "left", "verdict"}


CONTRACT = {
    "finding": Finding,
    "cost": Cost,
    "evidence": Evidence,
    "flag": Flag,
    "gate": GateResult,
    "left": Left,
    "verdict": Verdict,
    "interval": Interval,
}


@pytest.mark.parametrize("name", CONTRACT)
def test_schema_has_the_fields_of_the_contract(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(CONTRACT[name])}
    rule = schema()["$defs"][name]
    assert set(rule["properties"]) == fields == set(rule["required"])


def test_status_words_are_those_of_the_contract() -> None:
    assert set(schema()["$defs"]["finding"]["properties"]["status"]["enum"]) == {status.value for status in Status}
