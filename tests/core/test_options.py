"""Options as values: JSON form, ratios, durations."""

from __future__ import annotations

import dataclasses
import math
import pickle
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vambrace.core.canonical import digest
from vambrace.core.options import Options, Ratio, parse_duration, parse_ratio, require
from vambrace.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Options):
    depth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer(Options):
    eps: Ratio = 0.5
    sizes: tuple[int, ...] = ()
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    extras: dict[str, float] = field(default_factory=dict)


class TestJson:
    def test_nested_values_become_plain_data(self):
        value = Outer(sizes=(1, 2), inner=Inner(depth=3), many=(Inner(), Inner(depth=2)), extras={"a": 1.5})
        assert value.as_json() == {
            "eps": 0.5,
            "sizes": [1, 2],
            "inner": {"depth": 3},
            "many": [{"depth": 1}, {"depth": 2}],
            "extras": {"a": 1.5},
        }

    def test_the_data_is_a_copy(self):
        value = Outer(extras={"a": 1.0})
        value.as_json()["extras"]["a"] = 2.0
        assert value.extras == {"a": 1.0}

    def test_equal_options_share_a_key_whatever_the_number_was_written_as(self):
        assert digest(Outer(eps=1).as_json()) == digest(Outer(eps=1.0).as_json())
        assert digest(Outer(eps=parse_ratio("8/255")).as_json()) == digest(Outer(eps=8 / 255).as_json())
        assert digest(Outer(eps=8 / 255).as_json()) != digest(Outer(eps=8.0001 / 255).as_json())

    def test_options_are_values(self):
        value = Inner(depth=4)
        assert {value: 1}[Inner(depth=4)] == 1
        assert pickle.loads(pickle.dumps(value)) == value
        assert repr(value) == "Inner(depth=4)"
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.depth = 5


class TestRatio:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("8/255", 8 / 255),
            (" 8 / 255 ", 8 / 255),
            ("0.5", 0.5),
            ("-.5", -0.5),
            ("+1", 1.0),
            ("1e-3", 1e-3),
            ("1E3", 1000.0),
            ("0.5/255", 0.5 / 255),
            ("3/0.5", 6.0),
            ("3.", 3.0),
            (3, 3.0),
            (0.25, 0.25),
        ],
    )
    def test_reads(self, text, value):
        assert parse_ratio(text) == value
        assert isinstance(parse_ratio(text), float)

    @given(st.integers(0, 10**6), st.integers(1, 10**6))
    def test_is_the_nearest_float(self, above, below):
        assert parse_ratio(f"{above}/{below}") == float(Fraction(above, below)) == above / below

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_reads_what_python_prints(self, value):
        assert parse_ratio(repr(value)) == value or abs(value) >= 1e308

    @pytest.mark.parametrize(
        "value",
        ["", "x", "8/", "/255", "8/0", "8/0.0", "1/2/3", "1_000", "0x10", "inf", "nan", "-inf", "1e400", "1e999999999",
         "٣", "8//255", "1 2", True, False, None, [], (1,), {}, math.nan, math.inf, -math.inf, 10**400, b"1"],
    )  # fmt: skip
    def test_refuses(self, value):
        with pytest.raises(ConfigError, match="E102"):
            parse_ratio(value)

    def test_an_endless_number_is_refused_at_once(self):
        with pytest.raises(ConfigError, match="E102") as caught:
            parse_ratio("9" * 100_000)
        assert len(caught.value.seen) < 120


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("90s", 90),
            ("10m", 600),
            ("1h", 3600),
            ("1h30m", 5400),
            ("1m0.5s", 60.5),
            (" 10m ", 600),
            (45, 45),
            (0.5, 0.5),
        ],
    )
    def test_reads(self, text, seconds):
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize(
        "value", ["", "10", "10 m", "m", "1d", "30m1h", "-5m", "1.5h", True, None, -1, math.nan, math.inf, 1e13, "10M"]
    )
    def test_refuses(self, value):
        with pytest.raises(ConfigError, match="E107"):
            parse_duration(value)


def test_require():
    require(True, seen="", expected="", fix="")
    with pytest.raises(ConfigError, match="E103: steps 0; expected >= 1"):
        require(False, seen="steps 0", expected=">= 1", fix="use 40")
