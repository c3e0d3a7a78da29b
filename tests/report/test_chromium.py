"""The page in a real browser: no text of a stranger runs, and the detector would see it if it did."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from report import sample
from report.browser import after_loading, browse, chromium
from report.injections import CANARY, CORPUS, poisoned
from vambrace.report.html import render

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n')
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


@pytest.fixture(autouse=True)
def _browser() -> None:
    chromium()


def bundles(longest: int = 1200) -> Iterator[str]:
    """The corpus, several texts at a time."""
    held = ""
    for text in CORPUS:
        if len(held) + len(text) > longest:
            yield held
            held = ""
        held += f" {text}"
    yield held


def page(text: str, run: Path) -> str:
    results, environment, timings = poisoned(text, run)
    return render(results, run, environment=environment, timings=timings).decode()


def executed(content: str, folder: Path) -> bool:
    """Whether anything in the page changed its title."""
    file = folder / "page.html"
    file.write_bytes(content.encode("utf-8", "replace"))
    document = after_loading(file)
    assert 'id="scorecard' in document  # the page did load
    title = TITLE.search(document)
    return title is not None and title[1].strip() == CANARY


@pytest.mark.parametrize("text", list(bundles()), ids=lambda text: str(len(text)))
def test_nothing_runs(text: str, tmp_path: Path) -> None:
    content = page(text, tmp_path)
    assert POLICY.search(content)
    assert not executed(content, tmp_path)


@pytest.mark.slow
def test_nothing_runs_without_the_policy_either(tmp_path: Path) -> None:
    """Escaping holds on its own."""
    for text in bundles():
        content = page(text, tmp_path)
        bare = POLICY.sub("", content)
        assert bare != content
        assert not executed(bare, tmp_path)


def test_policy_holds_on_its_own(tmp_path: Path) -> None:
    """A page that forgot to escape runs nothing, because its policy admits no script."""
    content = page(CORPUS[0], tmp_path)
    head, _, body = content.partition("<body>")
    assert not executed(head + "<body>" + html.unescape(body), tmp_path)


def test_detector_sees_an_execution(tmp_path: Path) -> None:
    """Negative control: without escaping and without the policy, the text does run."""
    content = POLICY.sub("", page(CORPUS[0], tmp_path))
    head, _, body = content.partition("<body>")
    assert executed(head + "<body>" + html.unescape(body), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (500, False)])
def test_themes_and_widths(width: int, dark: bool, tmp_path: Path) -> None:
    """The style sheet is applied (its hash holds), in both themes."""
    file = tmp_path / "page.html"
    file.write_bytes(render(sample.results(tmp_path, classes=300), tmp_path, environment=sample.ENVIRONMENT))
    shot = tmp_path / "shot.png"
    theme = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    browse(file, f"--window-size={width},1000", f"--screenshot={shot}", *theme)
    pixels = Image.open(shot).convert("RGB")
    assert pixels.width == width
    corner = pixels.getpixel((2, 2))
    assert corner == ((0x13, 0x15, 0x19) if dark else (0xF6, 0xF6, 0xF3))


MEASURE = "<script>parent.document.title=document.documentElement.scrollWidth+'/'+innerWidth</script>"


CUT = """<script>
const cut = [];
for (const svg of document.querySelectorAll("svg.plot")) {
  const frame = svg.getBoundingClientRect();
  for (const text of svg.querySelectorAll("text")) {
    const box = text.getBoundingClientRect();
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1)
      cut.push(text.textContent);
  }
}
for (const table of document.querySelectorAll(".tight, .stack"))
  if (table.caption.getBoundingClientRect().height > 90) cut.push(table.caption.textContent);
for (const table of document.querySelectorAll(".stack"))
  if (table.scrollWidth > table.parentElement.clientWidth) cut.push(table.caption.textContent);
parent.document.title = "[" + cut.join(", ") + "]";
</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 600, 1280])
def test_no_word_of_a_picture_is_cut_off(width: int, tmp_path: Path) -> None:
    """Labels stay within their pictures, captions are read from left to right, and what is stacked fits a phone."""
    whole = sample.results(tmp_path)
    named = tuple(
        replace(finding, check={"pgd-linf": "hop_skip_jump-linf"}.get(finding.check, finding.check))
        for finding in whole.findings
    )
    content = render(replace(whole, findings=named), tmp_path).decode()
    assert "hop_ski" in content
    inner = html.escape(POLICY.sub("", content).replace("</body>", f"{CUT}</body>"))
    frame = f'<iframe srcdoc="{inner}" style="width:{width}px;height:900px;border:0"></iframe>'
    file = tmp_path / "frame.html"
    file.write_text(f"<!DOCTYPE html><title>?</title>{frame}", encoding="utf-8")
    title = TITLE.search(browse(file, "--window-size=1400,900", "--dump-dom"))
    assert title is not None
    assert html.unescape(title[1]) == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "W" * 300, "a_long_name-" * 30])
def test_nothing_sticks_out(text: str, tmp_path: Path) -> None:
    """Long names without a place to break must not make the page wider than the phone, the tablet or the desk."""
    content = page(text, tmp_path) if text else render(sample.results(tmp_path), tmp_path).decode()
    inner = html.escape(POLICY.sub("", content).replace("</body>", f"{MEASURE}</body>"))
    file = tmp_path / "frame.html"
    for width in (360, 390, 600, 768, 834, 1024, 1280):
        # A frame, because the browser's own window is never narrower than 500 pixels.
        frame = f'<iframe srcdoc="{inner}" style="width:{width}px;height:900px;border:0"></iframe>'
        file.write_text(f"<!DOCTYPE html><title>?</title>{frame}", encoding="utf-8")
        title = TITLE.search(browse(file, "--window-size=1400,900", "--dump-dom"))
        assert title is not None
        assert title[1] == f"{width}/{width}"
