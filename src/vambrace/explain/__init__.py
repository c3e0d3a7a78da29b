"""The page of every code, as data: Markdown files with one `## CODE title` section each.

>>> page("E900").splitlines()[0]
'## E900 a bug in vambrace'
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

__all__ = ["codes", "page", "pages"]

_HEADING = re.compile(r"^## (E\d{3}) (.+)$", re.MULTILINE)


@cache
def pages() -> dict[str, str]:
    """Every code with its page; a code with two pages is a defect that the tests catch."""
    found: dict[str, str] = {}
    for file in sorted(resources.files(__name__).iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".md"):
            text = file.read_text(encoding="utf-8")
            starts = [*_HEADING.finditer(text)]
            ends = [*(match.start() for match in starts[1:]), len(text)]
            found.update(
                {match.group(1): text[match.start() : end].strip() for match, end in zip(starts, ends, strict=True)}
            )
    return found


def codes() -> dict[str, str]:
    """Every code with its title."""
    return {code: text.splitlines()[0].split(" ", 2)[2] for code, text in pages().items()}


def page(code: str) -> str | None:
    """The page of one code, in Markdown; None for a code that does not exist."""
    return pages().get(code.strip().upper())
