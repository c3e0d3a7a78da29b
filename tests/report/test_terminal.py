"""The summary for the terminal: within its width, in words, and never steered by strangers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report import sample
from vambrace.core.findings import Left, Status, Verdict
from vambrace.report.terminal import _wide, summary

RUNS = {
    "full": sample.results(),
    "many": sample.results(classes=300),
    "pass": sample.passing(),
    "refused": sample.refused(),
}
WRITTEN = ("results.json", "report.html", "junit.xml")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("width", [40, 44, 60, 80, 100, 133, 200])
def test_never_wider_than_asked(kind: str, width: int) -> None:
    for colour in (False, True):
        lines = ANSI.sub("", summary(RUNS[kind], width=width, colour=colour)).split("\n")
        assert max(map(_wide, lines)) <= width


def test_colour_changes_nothing_but_colour() -> None:
    plain = summary(RUNS["full"], width=90)
    painted = summary(RUNS["full"], width=90, colour=True)
    assert "\x1b" not in plain
    assert painted != plain
    assert ANSI.sub("", painted) == plain


def test_says_what_matters() -> None:
    text = summary(RUNS["full"], width=120, run="runs/x y/", written=WRITTEN)
    lines = text.split("\n")
    assert lines[0] == "FAIL"
    assert lines[-1] == "exit code 1: a gate does not hold"
    assert "  fails       Accuracy under attack, L∞ 8/255 (pgd-linf)" in text
    assert "43.1 %  [40.1, 46.2]  n=1,000" in text
    assert "square: The profile runs it only on models without gradients." in text
    assert "report   runs/x y/report.html" in text
    assert "fgsm-l1: Accuracy under attack, L1 2: The model raised on sample 311" in text
    assert "vambrace explain E412  (also E431)" in text


def test_unreliable_numbers_stand_in_brackets() -> None:
    text = summary(RUNS["full"], width=120)
    assert re.search(r"unreliable +Accuracy under attack, L2 0.5 \(pgd-l2\) +\(81\.2 %\)", text)


def test_replay_line_can_be_pasted() -> None:
    import shlex

    first = RUNS["full"].findings[1]
    evidence = sample.Evidence(finding="a b;c", kind="adversarial", file="", sample="1", data={})
    results = replace(RUNS["full"], findings=(replace(first, evidence=(evidence,)),))
    text = summary(results, run="runs/x y", written=WRITTEN)
    (line,) = [line for line in text.split("\n") if line.startswith("replay")]
    assert shlex.split(line)[1:] == ["vambrace", "replay", "runs/x y", "a b;c"]


@pytest.mark.parametrize(
    ("written", "pointers"),
    [
        (
            ("results.json", "report.html", "junit.xml"),
            ["report   run/report.html", "replay   vambrace replay run one"],
        ),
        (
            ("results.json", "junit.xml"),
            ["results  run/results.json", "report   vambrace report run", "replay   vambrace replay run one"],
        ),
        (("report.html",), ["report   run/report.html"]),
        ((), []),
    ],
)
def test_only_what_was_written_is_pointed_at(written: tuple[str, ...], pointers: list[str]) -> None:
    """A disk that was full before the report: no path to a file that is not there, no replay that must fail."""
    evidence = sample.Evidence(finding="one", kind="adversarial", file="", sample="1", data={})
    results = replace(RUNS["full"], findings=(replace(RUNS["full"].findings[1], evidence=(evidence,)),))
    lines = summary(results, width=120, run="run", written=written).split("\n")
    found = [line for line in lines if line.startswith(("report ", "results ", "replay "))]
    assert [line.partition("  (")[0] for line in found] == pointers


@given(st.text(max_size=80), st.integers(20, 120))
def test_any_text_of_strangers(text: str, width: int) -> None:
    whole = RUNS["refused"]
    finding = replace(whole.findings[0], check=text, family=text, metric=text, unit=text, sentence=text, reason=text)
    results = replace(
        whole,
        findings=(
            finding,
            replace(whole.findings[0], value=3.0, unit=text, status=Status.MEASURED, family="x", metric=text),
        ),
        gates=(replace(whole.gates[0], sentence=text),),
        left_out=(Left(name=text, reason=text),),
        verdict=Verdict(exit_code=3, word="ERROR", sentences=(text,)),
    )
    shown = summary(results, width=width, run=text, written=WRITTEN)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    copied = ("report   ", "results  ", "replay   ")
    lines = shown.split("\n")
    assert max(_wide(line) for line in lines if not line.startswith(copied)) <= max(width, 40)
    assert sum(line.startswith("report   ") and line.endswith("/report.html") for line in lines) == 1


def test_paths_and_commands_are_not_broken() -> None:
    """A line end inside would stay in what people copy."""
    run = "a folder/" + "deep/" * 30 + "run"
    shown = summary(RUNS["full"], width=60, run=run, written=WRITTEN)
    assert f"report   {run}/report.html" in shown.split("\n")


def test_wide_characters_count_two() -> None:
    whole = RUNS["refused"]
    finding = replace(whole.findings[0], family="clean", metric="accuracy", check="検査" * 30, reason="理由" * 60)
    lines = summary(replace(whole, findings=(finding,)), width=60).split("\n")
    assert max(map(_wide, lines)) <= 60
    assert any("検査" in line for line in lines)


def test_unknown_words_do_not_fail() -> None:
    verdict = Verdict(exit_code=99, word="NEW WORD", sentences=())
    text = summary(replace(RUNS["pass"], verdict=verdict, findings=(), gates=()))
    assert text.startswith("NEW WORD")
    assert "exit code 99" in text
