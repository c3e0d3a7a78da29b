"""Canonical JSON against RFC 8785: its own examples, ECMAScript's numbers, and what it must refuse."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.canonical import digest, dumps, loads
from vambrace.errors import ConfigError

# RFC 8785, appendix B: the bits of a double, and its ECMAScript form.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "text"), NUMBERS)
def test_numbers_of_the_rfc(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert dumps(value) == text.encode()


@pytest.mark.parametrize("value", [1.1, -1.1, 5e-7, 2.0, 1e30, -0.0])
def test_a_subclass_of_float_is_written_as_the_float_it_is(value: float) -> None:
    assert dumps(np.float64(value)) == dumps(value)


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_numbers_that_json_does_not_have(bits: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    with pytest.raises(ConfigError, match="E105"):
        dumps({"x": [value]})


def test_example_of_section_3_2_2() -> None:
    data = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    wanted = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert dumps(data) == wanted.encode()


def test_keys_are_sorted_by_utf16_as_section_3_2_3_shows() -> None:
    data = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    wanted = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(dumps(data))) == wanted


@pytest.mark.parametrize(
    "data",
    [2**53 + 1, -(2**53) - 1, "\ud800", {"\udfff": 1}, {1: 2}, {"a": {1, 2}}, b"bytes", object(), [math.nan]],
)
def test_what_is_refused(data: object) -> None:
    with pytest.raises(ConfigError, match="E105"):
        dumps(data)


def test_the_place_is_named() -> None:
    with pytest.raises(ConfigError, match=r"\$\.a\[1\]\.b"):
        dumps({"a": [0, {"b": math.inf}]})


texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_reading_gives_the_data_back_and_writing_again_the_bytes(data: object) -> None:
    once = dumps(data)
    read = loads(once)
    assert read == data
    assert dumps(read) == once
    assert b"\n" not in once


@given(numbers)
def test_every_number_reads_back_exactly(value: float) -> None:
    assert float(dumps(value)) == value


@given(st.dictionaries(texts, st.integers(0, 9), max_size=6))
def test_order_of_insertion_does_not_matter(data: dict[str, int]) -> None:
    backwards = dict(reversed(list(data.items())))
    assert dumps(backwards) == dumps(data)
    assert digest(backwards) == digest(data)


@pytest.mark.parametrize(
    "text", [b"NaN", b"[Infinity]", b"1e999", b"-" + b"9" * 400, b'{"a":1,"a":2}', b"", b"{", b"\xff", b"[1,]"]
)
def test_what_is_not_read(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  any of json's own
        loads(text)


def test_digest_is_sha256_of_the_bytes() -> None:
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("code", [0xD7FF, 0xD800, 0xDBFF, 0xDC00, 0xDFFF, 0xE000, 0x10FFFF])
@pytest.mark.parametrize("around", [("", ""), ("a", ""), ("\U0001f600", "b")])
def test_halves_of_characters_are_no_text_wherever_they_stand(code: int, around: tuple[str, str]) -> None:
    text = chr(code).join(around)
    for data in (text, [text], {"name": text}, {text: 1}):
        if 0xD800 <= code <= 0xDFFF:
            with pytest.raises(ConfigError, match="E105"):
                dumps(data)
        else:
            assert dumps(data) == json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
