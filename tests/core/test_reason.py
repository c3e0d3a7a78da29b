"""What errors of other libraries say, within messages of ours."""

from __future__ import annotations

from vambrace.core.reason import reason


def test_one_line_without_colours_and_not_too_long() -> None:
    assert reason(ValueError("of \x1b[96mtwo\x1b[0m\n  lines")) == "of two lines"
    assert reason(ValueError("a" * 300)) == "a" * 200
    assert reason(ValueError("a b"), 2) == "a "
