"""Script injections in every text field: nothing of them becomes markup."""

from __future__ import annotations

import html
from functools import cache
from typing import TYPE_CHECKING

import pytest

from report.injections import CORPUS, poisoned
from report.markup import dangers, read
from vambrace.report.html import render

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECTIONS = ("verdict", "reliability", "scorecard", "tested", "not-tested", "reproduce", "cost")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """The page with a text in every field, made once a text."""
    run: Path = tmp_path_factory.mktemp("runs") / "run"
    run.mkdir()

    @cache
    def made(text: str) -> bytes:
        results, environment, timings = poisoned(text, run)
        return render(results, run, environment=environment, timings=timings)

    return made


@cache
def shape(content: bytes) -> list[tuple[str, tuple[str, ...]]]:
    """Elements with the names of their attributes, without what depends on the words."""
    return [(element.tag, tuple(sorted(element.attributes))) for element in read(content).elements]


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_nothing_becomes_markup(text: str, page: Callable[[str], bytes]) -> None:
    content = page(text)
    assert dangers(content) == []
    # The page has the very elements that it has with harmless text of the same kind.
    assert shape(content) == shape(page("harmless"))


def test_corpus_is_large() -> None:
    assert len(set(CORPUS)) >= 40


def test_template_syntax_is_text(page: Callable[[str], bytes]) -> None:
    content = page("{{7*7}}{% raw %}").decode()
    assert "{{7*7}}{% raw %}" in html.unescape(content)
    assert ">49<" not in content


def test_text_reaches_every_section(page: Callable[[str], bytes]) -> None:
    """Negative control of the poison itself: it does stand on the page, in all of its sections, as text."""
    marker = "zqx<b>poison</b>"
    content = page(marker)
    assert "".join(read(content).text).count(marker) > 150
    for place in (*(f'id="{name}"' for name in SECTIONS), 'class="heat"', 'class="strips"', 'class="plot"'):
        section = content.decode().partition(place)[2].partition("</section>")[0]
        assert html.escape(marker) in section, place


def test_detector_sees_markup(page: Callable[[str], bytes]) -> None:
    """Negative control: pages that do not escape are caught, but for texts that are no markup in any page."""
    unescaped = [html.unescape(page(text).decode()).encode("utf-8", "replace") for text in CORPUS]
    missed = [text for text, content in zip(CORPUS, unescaped, strict=True) if not dangers(content)]
    assert len(missed) <= 8
    assert all("<script" not in text and "<img" not in text for text in missed)


DANGERS = (
    '<img src="data:text/html,x">',
    '<a href="https://example.org">x</a>',
    '<p onclick="x">x</p>',
    '<p style="x">x</p>',
    "<script></script>",
    "<p><b></p></b>",
    "<!-- x -->",
    '<meta http-equiv="refresh" content="0">',
    "<style></style>",
)


@pytest.mark.parametrize("piece", DANGERS)
def test_detector_sees_each_danger(piece: str) -> None:
    assert dangers(b"<style></style><p>x</p>") == []
    assert dangers(f"<style></style>{piece}".encode())
