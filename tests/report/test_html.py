"""The page: self-contained, accessible, honest about what is missing, and never larger than 8 MB."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from report import sample
from report.markup import dangers, read
from vambrace.core.findings import Results
from vambrace.report.html import LARGEST_PAGE, policy, render

MAKERS = {
    "full": sample.results,
    "many": lambda run: sample.results(run, classes=300),
    "bare": lambda _: sample.results(),
    "pass": sample.passing,
    "refused": lambda _: sample.refused(),
}


def page(kind: str, run: Path, **more: object) -> bytes:
    return render(MAKERS[kind](run), run, timings=sample.TIMINGS, environment=sample.ENVIRONMENT, **more)


@pytest.mark.parametrize("kind", MAKERS)
def test_structure(kind: str, tmp_path: Path) -> None:
    content = page(kind, tmp_path)
    assert content.startswith(b'<!DOCTYPE html>\n<html lang="en">')
    assert dangers(content) == []
    parsed = read(content)
    ids = Counter(e.attributes["id"] for e in parsed.elements if "id" in e.attributes)
    assert max(ids.values()) == 1
    for element in parsed.elements:
        for name in ("href", "aria-labelledby"):
            for target in element.attributes.get(name, "").replace("#", "").split():
                assert target in ids
    assert len(parsed.all("h1")) == 1
    assert b"http://" not in content
    assert b"https://" not in content


@pytest.mark.parametrize("kind", MAKERS)
def test_accessible(kind: str, tmp_path: Path) -> None:
    parsed = read(page(kind, tmp_path))
    assert len(parsed.all("caption")) == len(parsed.all("table")) > 0
    assert all(e.attributes.get("scope") in {"row", "col"} for e in parsed.all("th"))
    assert all(e.attributes.get("alt") for e in parsed.all("img"))
    for svg in parsed.all("svg"):
        assert svg.attributes.get("aria-hidden") == "true" or svg.attributes.get("aria-labelledby")
    levels = [int(e.tag[1]) for e in parsed.elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in zip(levels, levels[1:], strict=False))
    # A status is a word beside its mark, never a colour alone.
    assert all(
        e.attributes["class"].split()[1] for e in parsed.all("span") if "status" in e.attributes.get("class", "")
    )


def test_policy_admits_this_style_sheet_only(tmp_path: Path) -> None:
    parsed = read(page("full", tmp_path))
    (meta,) = [e for e in parsed.all("meta") if "http-equiv" in e.attributes]
    (style,) = parsed.all("style")
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert meta.attributes["content"] == policy(style.text)
    assert f"style-src 'sha256-{digest}'" in meta.attributes["content"]
    assert "default-src 'none'" in meta.attributes["content"]
    assert "unsafe" not in meta.attributes["content"]
    assert parsed.elements.index(meta) < parsed.elements.index(style)
    assert not re.search(r"url\(|@import|expression|</", style.text)


def test_says_everything(tmp_path: Path) -> None:
    results = sample.results(tmp_path)
    said = " ".join("".join(read(page("full", tmp_path)).text).replace("\u00a0", " ").split())
    for finding in results.findings:
        assert " ".join(finding.sentence.split()) in said
        assert finding.reason in said
    for gate in results.gates:
        assert gate.sentence in said
    for left in results.left_out:
        assert left.name in said
        assert left.reason in said
    assert all(sentence in said for sentence in results.verdict.sentences)
    for fact in (
        results.model["sha256"],
        "seed 7",
        "exit code 1",
        "torch==2.13.0",
        "2 min 02 s",
        "vambrace explain E431",
    ):
        assert fact in said
    assert "vambrace assess digits.toml --profile full --seed 7" in said
    assert f"vambrace replay {tmp_path.parent.name}/{tmp_path.name} pgd-linf-0000" in said


def test_unreliable_is_loud_and_struck(tmp_path: Path) -> None:
    text = page("full", tmp_path).decode()
    assert '<div class="loud">' in text
    assert "<s>81.2\u00a0%</s>" in text
    assert '<div class="loud">' not in page("pass", tmp_path).decode()
    assert "<s>81.2" not in page("pass", tmp_path).decode()


def test_without_gates_it_says_that_nothing_was_judged(tmp_path: Path) -> None:
    content = render(replace(sample.results(), gates=()), tmp_path)
    assert "measured, not judged" in "".join(read(content).text)


def test_no_machine_path(tmp_path: Path) -> None:
    assert str(tmp_path).encode() not in page("full", tmp_path)


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    assert page("full", tmp_path) == page("full", tmp_path)


def test_images(tmp_path: Path) -> None:
    def count(**more: object) -> int:
        return len(read(page("full", tmp_path, **more)).all("img"))

    assert count() == 3 * 10
    assert count(images=1) == 3 * 2
    assert count(images="none") == 0
    blurred = page("full", tmp_path, images="blur")
    assert "blurred on purpose" in blurred.decode()
    assert {(e.attributes["width"], e.attributes["height"]) for e in read(blurred).all("img")} == {
        ("2", "2"),
        ("6", "5"),
    }


def heavy(run: Path) -> Results:
    """Far more of everything than a page holds: noise pictures, findings, text."""
    whole = sample.results()
    rng = np.random.default_rng(0)
    shown = [
        sample.evidence(run, "big", place, *rng.random((2, 3, 300, 300)).astype(np.float32), label=0, prediction=1)
        for place in range(20)
    ]
    long = "Lang & <breit> " * 400
    first = replace(whole.findings[9], sentence=long, reason=long, evidence=tuple(shown))
    more = [replace(first, check=f"check-{i}-{long}", metric=f"m{i}", evidence=()) for i in range(1500)]
    families = [replace(first, check=f"c{i}", family=f"family {i} {long}", evidence=()) for i in range(60)]
    left = tuple(replace(whole.left_out[0], reason=long) for _ in range(900))
    gates = tuple(replace(whole.gates[0], sentence=long) for _ in range(900))
    return replace(whole, findings=(first, *more, *families), left_out=left, gates=gates)


def test_never_larger_than_promised(tmp_path: Path) -> None:
    results = heavy(tmp_path)
    content = render(results, tmp_path)
    assert len(content) <= LARGEST_PAGE
    assert dangers(content) == []
    assert "more in results.json" in content.decode()
    few = replace(results, findings=results.findings[:1], left_out=(), gates=())
    pictures = render(few, tmp_path, images=20)
    assert len(read(pictures).all("img")) == 60
    assert 1_000_000 < len(pictures) <= LARGEST_PAGE


def test_missing_facts_are_no_failure(tmp_path: Path) -> None:
    bare = replace(sample.refused(), model={}, data={}, plan={}, versions={}, findings=(), gates=(), left_out=())
    content = render(bare, tmp_path)
    assert dangers(content) == []
    assert "No check left a number." in content.decode()
    odd = {"command": 3, "plan_file": [], "device": None}
    assert dangers(render(bare, tmp_path, environment=odd, timings={"total": "x", "checks": 3})) == []
