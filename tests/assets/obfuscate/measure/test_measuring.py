"""Gates, the report, and all measures in one call."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import disguises
from vambrace.assets.obfuscate import measure as package
from vambrace.assets.obfuscate.measure import (
    EqualityOptions,
    Gates,
    MeasureOptions,
    OverheadOptions,
    Report,
    Settings,
    align,
    measure,
)
from vambrace.assets.obfuscate.measure.classifier import Attacker, Classified, Row
from vambrace.assets.obfuscate.measure.difference import Difference
from vambrace.assets.obfuscate.measure.equality import Equality, Found
from vambrace.assets.obfuscate.measure.gates import Judged
from vambrace.assets.obfuscate.measure.judging import (
    judge_classifier,
    judge_equality,
    judge_locked,
    judge_names,
    judge_overhead,
    judge_survival,
)
from vambrace.assets.obfuscate.measure.overhead import Memory, Overhead, Ratio, Size
from vambrace.assets.obfuscate.measure.readability import read_structure
from vambrace.assets.obfuscate.measure.report import LIMITS
from vambrace.assets.obfuscate.measure.survival import Survived
from vambrace.core import canonical
from vambrace.errors import ConfigError

LAYERS = disguises.weights()
ORIGINAL = disguises.dense(LAYERS)
QUICK = MeasureOptions(
    equality=EqualityOptions(fewer=5, settings=(Settings(), Settings(level="basic"))),
    overhead=OverheadOptions(rounds=5, processes=0),
    tools=("ort-basic", "ort-all"),
)
LOOSE = Gates(
    latency=1000,
    size=1000,
    memory=1000,
    survival=1.0,
    required=("equality", "top1", "nan", "latency", "size", "names"),
)


def words(judged: list[Judged] | tuple[Judged, ...]) -> dict[str, str]:
    return {each.gate: each.word for each in judged}


def equality(repeat: int = 0, **difference: Any) -> Equality:
    found = Difference(**({"rows": 9, "elements": 90, "top1_same": 9, "top1_of": 9} | difference))
    kinds = ("real", "random", "edge", "nan", "infinite")
    return Equality(
        found=tuple(Found(settings="all", kind=kind, output="y", difference=found) for kind in kinds),
        repeat=Difference(rows=9, elements=90, differing=repeat),
        drift={},
        decisions=("y",),
    )


def overhead(median: float = 1.0, *, null: float = 1.0, size: int = 100, memory: int | None = 200) -> Overhead:
    ratio = Ratio(
        median=median, low_quarter=median, high_quarter=median, fastest=median, interval=None, rounds=9, sessions=9
    )
    return Overhead(
        wall=ratio,
        cpu=ratio,
        null_wall=replace(ratio, median=9.0),
        null_cpu=replace(ratio, median=null),
        milliseconds=(1.0, median),
        calls=1,
        clock="processor time",
        settings="all, 1 thread",
        size=Size(original=100, obfuscated=size),
        memory=Memory(idle=10_000_000, original=10_010_000, obfuscated=10_000_000 + 50 * memory) if memory else None,
    )


def classified(naive: int, adaptive: int = 60) -> Classified:
    def row(attacker: Attacker, right: int) -> Row:
        return Row(
            attacker=attacker, accuracy=right / 100, interval=None, right=right, n=100, learners={"a": 0.1}, best="a"
        )

    rows = (row("clean", 99), row("naive", naive), row("branches", 70), row("adaptive", adaptive))
    names = tuple(str(number) for number in range(10))
    return Classified(rows=rows, families=names, variants=10, folds=5, keys=1, size="tiny", chance=0.1, prepared="")


@pytest.mark.parametrize(
    ("profile", "difference", "expected"),
    [
        ("exact", {}, "pass"),
        ("exact", {"differing": 1}, "fail"),
        ("exact", {"shapes_apart": 1}, "fail"),
        ("tolerance", {"differing": 9, "max_row": 1e-5}, "pass"),
        ("tolerance", {"differing": 9, "max_row": 1.1e-5}, "fail"),
        ("tolerance", {"differing": 9, "nan_apart": 1}, "fail"),
        ("tolerance", {"max_row": np.inf, "shapes_apart": 1}, "fail"),
    ],
)
def test_equality(profile: Any, difference: dict[str, Any], expected: str) -> None:
    assert words(judge_equality(equality(**difference), Gates(profile=profile)))["equality"] == expected


def test_the_tolerance_is_asked_for_on_real_inputs_and_exactness_everywhere() -> None:
    close = equality()
    far = Difference(rows=9, elements=90, differing=9, max_abs=1.0, max_row=0.5)
    mixed = replace(close, found=(*close.found[:1], *(replace(each, difference=far) for each in close.found[1:])))
    exact, tolerance = (judge_equality(mixed, Gates(profile=profile)) for profile in ("exact", "tolerance"))  # type: ignore[arg-type]
    assert (words(exact)["equality"], words(tolerance)["equality"]) == ("fail", "pass")
    assert "On random and edge inputs it is 0.5" in tolerance[1].sentence
    wide = Difference(rows=9, elements=90, differing=9, max_abs=1e-3, max_row=0.5, largest=400.0)
    mixed = replace(close, found=tuple(replace(each, difference=wide) for each in close.found))
    by_output = Gates(profile="tolerance", relative_to="output")
    assert words(judge_equality(mixed, Gates(profile="tolerance")))["equality"] == "fail"
    assert words(judge_equality(mixed, by_output))["equality"] == "pass"


def test_decisions_and_nan() -> None:
    gates = Gates(profile="tolerance")
    assert words(judge_equality(equality(), gates)) == dict.fromkeys(("repeat", "equality", "top1", "nan"), "pass")
    assert words(judge_equality(equality(top1_same=8), gates))["top1"] == "fail"
    assert words(judge_equality(equality(top1_of=0, top1_same=0), gates))["top1"] == "does not apply"
    assert words(judge_equality(equality(nan_apart=1), gates))["nan"] == "fail"
    assert set(words(judge_equality(None, gates)).values()) == {"not measured"}


@pytest.mark.parametrize(
    ("profile", "infinite", "nan", "word", "value"),
    [
        ("exact", 3, 0, "fail", 3.0),
        ("exact", 0, 2, "fail", 2.0),
        ("tolerance", 3, 0, "pass", 0.0),
        ("tolerance", 3, 2, "fail", 2.0),
    ],
)
def test_only_the_tolerance_profile_makes_nan_of_infinities(
    profile: Any, infinite: int, nan: int, word: str, value: float
) -> None:
    apart = {"infinite": infinite, "nan": nan}
    close = equality()
    found = [
        replace(each, difference=replace(each.difference, nan_apart=apart.get(each.kind, 0))) for each in close.found
    ]
    judged = judge_equality(replace(close, found=tuple(found)), Gates(profile=profile))
    gate = next(each for each in judged if each.gate == "nan")
    assert (gate.word, gate.value, gate.threshold) == (word, value, 0.0)
    assert f"{infinite + nan} elements are NaN on one side only" in gate.sentence


def test_an_original_that_differs_from_itself_judges_nothing() -> None:
    found = words(judge_equality(equality(repeat=1), Gates()))
    assert found == {"repeat": "fail", "equality": "not measured", "top1": "not measured", "nan": "not measured"}


def test_cost() -> None:
    assert words(judge_overhead(overhead(1.05, size=110, memory=220), Gates())) == {
        "latency": "pass",
        "size": "pass",
        "memory": "pass",
    }
    tight = Gates(size_spare=0, memory_spare=0)
    assert set(words(judge_overhead(overhead(1.06, size=111, memory=225), tight)).values()) == {"fail"}
    spare = {"size": 100 + 2**18, "memory": 200 + 3 * 2**23 // 50}
    assert set(words(judge_overhead(overhead(**spare), Gates())).values()) == {"pass"}
    for name, most in spare.items():
        assert words(judge_overhead(overhead(**{name: most + 1}), Gates()))[name] == "fail"
    assert words(judge_overhead(overhead(memory=None), Gates()))["memory"] == "not measured"
    assert words(judge_overhead(overhead(1.0, null=0.9), Gates()))["latency"] == "not measured"
    assert words(judge_overhead(overhead(1.2, null=1.3), Gates()))["latency"] == "not measured"
    for most, word in ((0.9, "pass"), (0.8, "fail")):
        assert words(judge_overhead(overhead(0.85), Gates(latency=most)))["latency"] == word
    assert set(words(judge_overhead(None, Gates())).values()) == {"not measured"}


def test_names() -> None:
    clean, told = (read_structure(ORIGINAL, model) for model in (disguises.renamed(ORIGINAL), ORIGINAL))
    assert words(judge_names(clean, Gates())) == {"names": "pass"}
    assert words(judge_names(told, Gates())) == {"names": "fail"}
    assert words(judge_names(None, Gates())) == {"names": "not measured"}
    called = disguises.renamed(ORIGINAL)
    for each, name in ((called.graph.output[0], "logits"), (called.graph.node[-1], "")):
        if name:
            each.name = name
        else:
            each.output[0] = "logits"
    found = read_structure(ORIGINAL, called)
    assert found.names.interface == 1
    assert words(judge_names(found, Gates())) == {"names": "pass"}
    assert words(judge_names(found, Gates(interface=True))) == {"names": "fail"}


def test_survival() -> None:
    def survived(most: float | None, *, hidden: float = 0.5, risen: float = 0.9) -> Survived:
        return Survived(
            tool="ort-all",
            measured=most is not None,
            why="not installed",
            after=None,
            after_both=None,
            risen={"kernel": risen},
            brought={"kernel": most or 0.0},
            control=None,
            hidden=hidden,
        )

    gates = Gates(required=("survival:ort-all", "survival:onnxsim"))
    for most, word in ((0.05, "pass"), (0.06, "fail"), (None, "not measured")):
        found = judge_survival((survived(most),), gates)
        assert words(found) == {"survival:ort-all": word, "survival:onnxsim": "not measured"}
    assert words(judge_survival((survived(0.05, hidden=0.05),), gates))["survival:ort-all"] == "does not apply"
    assert "rises by 0.000." in judge_survival((survived(0.0, risen=-1e-5),), gates)[0].sentence


def test_classifier() -> None:
    assert words(judge_classifier(classified(20), Gates())) == {"naive": "pass"}
    assert words(judge_classifier(classified(21), Gates())) == {"naive": "fail"}
    assert words(judge_classifier(classified(20, adaptive=99), Gates())) == {"naive": "pass"}
    assert words(judge_classifier(None, Gates())) == {"naive": "not measured"}


def test_locked() -> None:
    truth = align(ORIGINAL, ORIGINAL)
    mixed, open_file = (
        align(ORIGINAL, disguises.dense(each), truth=truth) for each in (disguises.locked(LAYERS), LAYERS)
    )
    loose = Gates(locked=0.1)
    assert words(judge_locked(mixed, loose)) == {"locked": "pass"}
    assert words(judge_locked(open_file, loose)) == {"locked": "fail"}
    assert words(judge_locked(truth, loose)) == {"locked": "not measured"}
    assert words(judge_locked(None, loose)) == {"locked": "not measured"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"profile": "close"},
        {"relative_to": "all"},
        {"latency": 0.0},
        {"survival": 1.1},
        {"relative": -1.0},
        {"naive": 0.5},
    ],
)
def test_gates_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="E825"):
        Gates(**wrong)


@pytest.fixture(scope="module")
def report() -> Report:
    return measure(
        ORIGINAL,
        disguises.renamed(disguises.decoyed(LAYERS)),
        disguises.inputs(),
        gates=LOOSE,
        options=QUICK,
        at_rest=disguises.dense(disguises.locked(LAYERS)),
        classified=classified(15),
        name="a <b>net</b>\u202egpj",
        left_out={},
    )


def test_a_good_model_passes_and_the_original_does_not(report: Report) -> None:
    assert report.passed
    assert report.verdict == "PASS"
    same = measure(ORIGINAL, ORIGINAL, disguises.inputs(), gates=LOOSE, options=QUICK)
    assert same.verdict == "FAIL"
    assert [each.gate for each in same.judged if each.word == "fail"] == ["names"]
    assert same.alignment.share == 1.0
    assert [getattr(same.readability, name) for name in ("kernel", "edit_similarity")] == [1.0, 1.0]


def test_a_wrong_function_fails(report: Report) -> None:
    wrong = measure(
        ORIGINAL,
        disguises.renamed(disguises.dense(disguises.locked(LAYERS))),
        disguises.inputs(),
        gates=LOOSE,
        options=QUICK,
    )
    assert {"equality", "top1"} <= {each.gate for each in wrong.judged if each.word == "fail"}
    assert wrong.verdict == "FAIL"


def test_what_was_not_measured_never_passes(report: Report) -> None:
    stricter = replace(report, gates=replace(LOOSE, required=(*LOOSE.required, "memory")))
    assert (stricter.verdict, stricter.passed) == ("INCOMPLETE", False)
    unknown = replace(report, gates=replace(LOOSE, required=("no such gate",)))
    assert unknown.verdict == "INCOMPLETE"


def test_the_deobfuscator_is_measured_too(report: Report) -> None:
    assert report.apart is not None
    assert report.apart.taken.steps["branches"] == 4
    assert report.apart.after.kernel == pytest.approx(1.0)
    assert report.readability.kernel < 0.5
    assert report.apart.aligned.share == 1.0


def test_json_is_canonical_and_whole(report: Report) -> None:
    data = json.loads(canonical.dumps(report.as_json()))
    assert data["format"] == "vambrace-obfuscation-report/1"
    assert data["verdict"] == "PASS"
    assert data["limits"] == list(LIMITS)
    assert {gate["gate"] for gate in data["gates"]} >= {
        "equality",
        "latency",
        "names",
        "naive",
        "locked",
        "survival:ort-all",
    }
    assert data["deobfuscator"]["cpu_seconds"] > 0
    assert data["locked"]["judged_by"] == "truth"
    assert data["equality"]["found"][0]["kind"] == "real"
    assert data["readability"]["names"]["clean"] is True


def test_what_is_not_finite_is_text_in_json(report: Report) -> None:
    broken = replace(report, equality=equality(max_abs=np.inf, max_row=float("nan")))
    found: Mapping[str, Any] = json.loads(canonical.dumps(broken.as_json()))["equality"]["found"][0]
    assert (found["max_abs"], found["max_row"]) == ("infinity", "nan")


def test_the_page_stands_alone_and_says_what_it_does_not_show(report: Report) -> None:
    page = report.html()
    assert page.startswith("<!DOCTYPE html>")
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)[1]  # type: ignore[index]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert all(sentence.split(":")[0] in page for sentence in LIMITS)
    assert "&lt;b&gt;net" in page
    assert "\u202e" not in page
    rows = page[page.index('id="classifier"') :]
    assert rows.index('scope="row">adaptive') < rows.index('scope="row">naive') < rows.index('scope="row">clean')
    assert re.findall(r"[^.]*encr[^.]*\.", re.sub(r"<[^>]+>", "", page)) == [
        " It is not encryption: whoever can run the model has its function."
    ]


def test_a_page_names_only_the_json_that_is_there(report: Report) -> None:
    assert "which was not written beside this page." in report.html()
    assert "Every number is in &lt;b&gt;.json beside it." in report.html("<b>.json")


def test_a_page_without_the_optional_parts(report: Report) -> None:
    bare = replace(report, locked=None, apart=None, classified=None, survival=())
    page = bare.html()
    assert page.count("not measured") >= 3
    assert "Not measured" in page


def test_what_was_left_out_is_told(report: Report) -> None:
    assert "Left out" not in report.html()
    told = replace(report, left_out={"one": "moves <b> by 0.1", "two": "takes too long"})
    assert "Left out: <code>one</code>, which moves &lt;b&gt; by 0.1; <code>two</code>, which takes" in told.html()
    assert told.as_json()["left_out"] == {"one": "moves <b> by 0.1", "two": "takes too long"}


def test_names_of_the_package_are_what_they_say() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.nothing  # noqa: B018
