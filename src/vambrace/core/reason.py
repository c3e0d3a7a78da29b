"""What an error of another library says, short enough to stand in a message of ours."""

from __future__ import annotations

import re

__all__ = ["reason"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def reason(error: BaseException, most: int = 200) -> str:
    """The text of an error on one line, without colours, cut at `most` characters.

    >>> reason(ValueError("of two    words"))
    'of two words'
    """
    return " ".join(_COLOUR.sub("", str(error)).split())[:most]
