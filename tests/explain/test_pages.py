"""Every code that can be raised or flagged has one page, and every page belongs to a code that exists."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from vambrace import explain

SOURCE = Path(explain.__file__).parents[1]
CODE = re.compile(r"""["'(](E\d{3})["')]""")
CLI_ONLY = {"E900"}


def used_codes(text: str) -> set[str]:
    return set(CODE.findall(text))


@pytest.fixture(scope="module")
def used() -> set[str]:
    return set().union(*(used_codes(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")))


def test_every_code_in_the_source_has_a_page(used):
    assert sorted(used - set(explain.pages())) == []


def test_every_page_belongs_to_a_code_in_the_source(used):
    assert sorted(set(explain.pages()) - used - CLI_ONLY) == []


def test_no_code_has_two_pages():
    headings = [
        heading
        for file in resources.files(explain).iterdir()
        if file.name.endswith(".md")
        for heading in re.findall(r"^## (E\d{3})", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(headings) == sorted(set(headings))


@pytest.mark.parametrize("code", sorted(explain.pages()))
def test_a_page_says_something_and_how_to_help_oneself(code):
    text = explain.page(code)
    assert text is not None
    assert len(text.split()) >= 15
    assert re.search(r"\b(Fix|fix)\b", text), f"{code} names no fix"


def test_lookup_forgives_case_and_spaces_and_knows_what_it_does_not_know():
    assert explain.page(" e900 ") == explain.page("E900")
    assert explain.page("E000") is None


def test_the_scan_sees_codes():
    """Negative control: the pattern finds what it is meant to find."""
    assert used_codes('raise ConfigError("E999", seen=...)') == {"E999"}
