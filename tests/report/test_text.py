"""Text of strangers and numbers for people."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report import sample
from vambrace.core.findings import Interval
from vambrace.report.text import (
    eps_text,
    interval_text,
    norm_text,
    on_a_line,
    seconds_text,
    share,
    shorten,
    thousands,
    value_text,
    visible,
)

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
STEERING = ["\x00", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\ufeff", "\ud800", "\u00ad"]


@given(st.text())
def test_nothing_hidden_is_left(text: str) -> None:
    shown = visible(text)
    for char in shown:
        assert char in "\n\t\u200c\u200d" or unicodedata.category(char) not in {
            "Cc",
            "Cf",
            "Cs",
            "Co",
            "Cn",
            "Zl",
            "Zp",
        }
    assert len(shown) == len(text) or len(text) > 2000


@pytest.mark.parametrize(
    "char", ["\x00", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\ufeff", "\ud800", "\u00ad"]
)
def test_what_steers_is_marked(char: str) -> None:
    assert visible(f"a{char}b") == "a\ufffdb"


@pytest.mark.parametrize("text", ["naïve", "日本語", "می\u200cخواهم", "L∞", "👩\u200d🔬", "a\tb\nc", "5\u00a0%"])
def test_what_people_write_is_kept(text: str) -> None:
    assert visible(text) == text


def test_cut() -> None:
    assert visible("x" * 11, 10) == "x" * 10 + "…"
    assert visible("x" * 10, 10) == "x" * 10


def test_a_line_stays_one() -> None:
    assert on_a_line("a\nb\tc\x1bd\u2028e") == "a\ufffdb c\ufffdd\ufffde"
    assert on_a_line("\n" * 11, 10) == "\ufffd" * 10 + "…"
    assert on_a_line("plain Ä") == "plain Ä"


@given(st.text(), st.integers(0, 60))
def test_shorten(text: str, width: int) -> None:
    short = shorten(text, width)
    assert len(short) <= width
    line = " ".join(text.split())
    if len(line) <= width:
        assert short == line


def test_shorten_keeps_both_ends() -> None:
    assert shorten("natural-gaussian_noise", 11) == "natur…noise"


@pytest.mark.parametrize(
    ("value", "n", "expected"),
    [
        (0.9312, 1000, "93.1 %"),
        (0.98501, 10_000, "98.50 %"),
        (1.0, 5, "100.0 %"),
        (0, 5, "0.0 %"),
        (0.00049, 100, "0.05 %"),
    ],
)
def test_share(value: float, n: int, expected: str) -> None:
    assert share(value, n) == expected


@pytest.mark.parametrize(
    ("eps", "expected"),
    [(8 / 255, "8/255"), (1 / 255, "1/255"), (0.2, "0.2"), (0.3, "0.3"), (0.5, "0.5"), (2, "2"), (0, "0"),
     (0.031, "0.031"), (254 / 255, "254/255"), (0.0313, "0.0313")],
)  # fmt: skip
def test_eps(eps: float, expected: str) -> None:
    assert eps_text(eps) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0"), (950, "950"), (999, "999"), (1000, "1k"), (999.6, "1k"), (41_200, "41.2k"), (99_960, "100k"),
     (999_600, "1M"), (3_400_000, "3.4M"), (12e9, "12G")],
)  # fmt: skip
def test_thousands(count: float, expected: str) -> None:
    assert thousands(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (0.41, "0.4 s"), (12.3, "12 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_seconds(seconds: float, expected: str) -> None:
    assert seconds_text(seconds) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(0.5, "share", "50.0 %"), (4.21, "points", "4.2 points"), (0.53412, "auc", "0.534"), (41200.0, "count", "41,200"),
     (0.031372, "distance", "0.03137"), (0.1312, "nats", "0.1312 nats"), (7, "neurons", "7 neurons")],
)  # fmt: skip
def test_value(value: float, unit: str, expected: str) -> None:
    assert value_text(value, unit) == expected


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("share", "[12.3, 45.7]"), ("points", "[0.1, 0.5]"), ("auc", "[0.123, 0.457]"), ("distance", "[0.1234, 0.4567]")],
)
def test_interval(unit: str, expected: str) -> None:
    interval = Interval(low=0.12341, high=0.45671, method="x")
    assert interval_text(sample.finding("a", "b", "c", 0.3, unit=unit, interval=interval)) == expected
    assert interval_text(sample.finding("a", "b", "c", 0.3, unit=unit, interval=None)) == ""


def test_norms() -> None:
    assert [norm_text(norm) for norm in ("linf", "l2", "lpips")] == ["L∞", "L2", "lpips"]
