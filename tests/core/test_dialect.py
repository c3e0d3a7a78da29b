"""Text to data: TOML and JSON agree, and what only one of them has is refused with its place."""

from __future__ import annotations

import json
import time
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vambrace.core.dialect import check_data, parse_json, parse_toml, read_file
from vambrace.errors import ConfigError

scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
data = st.dictionaries(
    st.text(min_size=1), st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=6), max_size=5
)


@given(data)
def test_json_data_passes_unchanged(tree):
    if any("\0" in key or any(0xD800 <= ord(c) <= 0xDFFF for c in key) for key in tree):
        return
    assert parse_json(json.dumps(tree), where="x") == tree


@pytest.mark.parametrize(
    ("toml", "place", "seen"),
    [
        ("a = 2026-11-23", "a", "date"),
        ("a = [1, 12:30:00]", "a[1]", "date or time"),
        ("a = 2026-11-23T10:00:00Z", "a", "date"),
        ("[x]\na = inf", "x.a", "inf"),
        ("[[x]]\n[[x]]\na = -inf", "x[1].a", "-inf"),
        ("a = nan", "a", "nan"),
        ("a = 9007199254740993", "a", "54 bits"),
        ("a = 1" + "0" * 4000, "a", "bits"),
        ("a = 1" + "0" * 5000, "", "digits"),
        ('a = "\\u0000"', "a", "NUL"),
        ("a = 1\na = 2", "", "TOML"),
        ("a = ", "", "TOML"),
        ("a = " + "[" * 40 + "]" * 40, "a[0]", "too deeply"),
        ("a = " + "[" * 100_000, "", "too deeply"),
    ],
)
def test_toml_that_is_refused(toml, place, seen):
    with pytest.raises(ConfigError, match="E160") as caught:
        parse_toml(toml, where="plan.toml")
    assert caught.value.seen.startswith(f"plan.toml: {place}" if place else "plan.toml: ")
    assert seen in caught.value.seen


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ('{"x": {"b": 1, "b": 1}}', "the key 'b' twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "inf"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"a\\u0000": 1}', "NUL"),
        ('{"a": 9007199254740993}', "54 bits"),
        ('{"a": ' + "1" * 5000 + "}", "digits"),
        ("[1]", "a list"),
        ("3", "a int"),
        ("{", "no valid JSON"),
        ("", "no valid JSON"),
        ('{"a": ' + "[" * 100_000, "too deeply"),
        ("[" * 33 + "]" * 33, "a list"),
        ('{"a": ' + "[" * 33 + "]" * 33 + "}", "too deeply"),
    ],
)
def test_json_that_is_refused(text, seen):
    with pytest.raises(ConfigError, match="E160") as caught:
        parse_json(text, where="plan.json")
    assert seen in caught.value.seen


@pytest.mark.parametrize(
    ("toml", "fix"),
    [
        ("eps = 8/255", "fraction in quotes"),
        ("profile: ci", "profile = ..."),
        ("a = True", "lower case"),
        ("a = null", "leaves a key out"),
        ("source = net.onnx", "quotes"),
        ('{"a": 1}', ".json"),
    ],
)
def test_what_people_write_by_mistake(toml, fix):
    with pytest.raises(ConfigError, match="E160") as caught:
        parse_toml(toml, where="x")
    assert fix in caught.value.fix


@pytest.mark.parametrize(("number", "name"), [("inf", "linf"), ("float('inf')", None)])
def test_a_norm_written_as_infinity_is_translated(number, name):
    with pytest.raises(ConfigError, match="E160") as caught:
        parse_toml(f"[[check]]\nnorm = {number}", where="x")
    assert name is None or f'norm = "{name}"' in caught.value.fix


def test_what_code_hands_over_is_checked_too():
    check_data({"a": [1, (2, "x")], "b": None}, where="x")
    with pytest.raises(ConfigError, match="a set"):
        check_data({"a": {1}}, where="x")
    with pytest.raises(ConfigError, match="a bytes"):
        check_data({"a": [b"1"]}, where="x")


class TestFiles:
    def test_the_name_decides_the_form(self, tmp_path):
        (tmp_path / "plan.toml").write_text('a = "é"', encoding="utf-8")
        (tmp_path / "plan.JSON").write_text('{"a": "é"}', encoding="utf-8")
        (tmp_path / "windows.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")
        assert read_file(tmp_path / "plan.toml") == read_file(tmp_path / "plan.JSON") == {"a": "é"}
        assert read_file(tmp_path / "windows.toml") == {"a": 1, "b": 2}

    @pytest.mark.parametrize(
        ("raw", "seen"),
        [(b"a = '\xff'", "not UTF-8 at 5"), (b"#" * 300_000, "more than 256 KiB"), (b"\x00", "no valid TOML")],
    )
    def test_files_that_are_no_plan(self, tmp_path, raw, seen):
        (tmp_path / "plan.toml").write_bytes(raw)
        with pytest.raises(ConfigError, match="E160") as caught:
            read_file(tmp_path / "plan.toml")
        assert seen in caught.value.seen

    def test_files_that_are_not_there(self, tmp_path):
        with pytest.raises(ConfigError, match="No such file"):
            read_file(tmp_path / "plan.toml")
        with pytest.raises(ConfigError, match="Is a directory"):
            read_file(tmp_path)


def test_a_file_made_to_keep_the_parser_busy_is_refused_at_once():
    began = time.monotonic()
    with pytest.raises(ConfigError, match="thousands of dots"):
        parse_toml(".".join("a" * 60_000) + " = 1", where="x")
    assert time.monotonic() - began < 1


def code_of(parse, text):
    """The code of the error that a parser raises, or None; any other exception is a failure."""
    try:
        found = parse(text, where="x")
    except ConfigError as error:
        return error.code
    assert isinstance(found, dict)
    return None


@settings(max_examples=300)
@given(st.text(max_size=80))
def test_any_text_is_data_or_one_error(text):
    assert code_of(parse_toml, text) in {None, "E160"}
    assert code_of(parse_json, text) in {None, "E160"}


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 200))
def test_a_damaged_plan_is_data_or_one_error(noise, place):
    sound = b'schema = 1\n[[check]]\nattack = "pgd"\neps = ["2/255", 0.5]\n[run]\nbudget = "10m"\n'
    text = (sound[:place] + noise + sound[place:]).decode("utf-8", "replace")
    if code_of(parse_toml, text) is None:
        assert parse_toml(text, where="x") == tomllib.loads(text)
