"""How the command line speaks: data on stdout, everything else on stderr; colour only for a terminal that wants it.

A reader that leaves (`vambrace explain | head`) is no failure: what it does not want is dropped, and the command ends
as it would have. What a terminal or an old locale cannot show is shown escaped. Text of strangers steers no terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import textwrap
from typing import TYPE_CHECKING, TextIO, cast

from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vambrace.errors import VambraceError

__all__ = [
    "buffer_stdout",
    "columns",
    "discard",
    "is_terminal",
    "many",
    "say",
    "say_as_is",
    "say_error",
    "say_lines",
    "tell",
    "wants_colour",
]

_PIPED = 100  # columns of text for people that no terminal shows
_NARROWEST = 40


def buffer_stdout() -> None:
    """See that what goes to stdout goes there whole, or is an error.

    Where Python does not buffer it (PYTHONUNBUFFERED, `python -u`), it drops what a full disk, or a pipe that does not
    wait, does not take at once.
    """
    raw = getattr(sys.stdout, "buffer", None)
    if isinstance(raw, io.RawIOBase):
        given = cast("io.TextIOWrapper", sys.stdout)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=given.encoding, errors=given.errors, line_buffering=given.line_buffering
        )


def discard(stream: TextIO | None) -> None:
    """From now on what goes to `stream` goes nowhere, also what Python still wants to flush at the end."""
    if stream is None:
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # it has no file: there is nothing to flush either
        return


def tell(text: str) -> None:
    """Data, on stdout.

    Raises:
        ResourceError: E579, when it cannot be written.
    """
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        discard(sys.stdout)
    except (OSError, ValueError) as error:  # ValueError: the stream is closed
        discard(sys.stdout)
        raise ResourceError(
            "E579",
            seen=f"standard output cannot be written: {getattr(error, 'strerror', None) or error}",
            expected="a place for what the command prints",
            fix="free space where the output goes, or leave the redirection out",
        ) from error


def say(text: str) -> None:
    """A line for people, on stderr, in which names may steer nothing; where it cannot be said, the command goes on."""
    from vambrace.report.text import on_a_line

    say_as_is(on_a_line(text, 20_000))


def say_as_is(text: str) -> None:
    """`say`, for lines and colours of our own."""
    try:
        _write(sys.stderr, text)
    except (OSError, ValueError):
        discard(sys.stderr)


def many(count: int, what: str) -> str:
    """The count with what is counted, in the plural but for one."""
    return f"{count} {what}{'s'[: count != 1]}"


def say_lines(lines: Iterable[str], *, indent: int = 13) -> None:
    """Lines for people, on stderr; on a terminal folded to its width, with what goes over indented."""
    for line in lines:
        say_as_is(_folded(line, indent))


def say_error(error: VambraceError) -> None:
    """The whole error: code, seen, expected, fix, and where to read more."""
    bold, plain = ("\033[1m", "\033[0m") if wants_colour(sys.stderr) else ("", "")
    say_as_is(_folded(f"{error.code} {error.seen}", 5).replace(error.code, f"{bold}{error.code}{plain}", 1))
    say_as_is(_folded(f"     expected {error.expected}", 14))
    say_as_is(_folded(f"     fix      {error.fix}", 14))
    say(f"     more     vambrace explain {error.code}")


def columns(stream: TextIO | None) -> int:
    """How wide text on `stream` may be: the terminal's width, else COLUMNS, else 100; at least 40."""
    wished = os.environ.get("COLUMNS", "")
    wide = int(wished) if wished.isascii() and wished.isdigit() else _PIPED
    if stream is not None and is_terminal(stream):
        with contextlib.suppress(OSError, ValueError):  # it says it is a terminal, and has no size
            wide = os.get_terminal_size(stream.fileno()).columns or wide
    return max(wide, _NARROWEST)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody watches `stream`."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def wants_colour(stream: TextIO | None) -> bool:
    """Colour only on a terminal, and never when NO_COLOR is set to anything (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _folded(line: str, indent: int) -> str:
    from vambrace.report.text import on_a_line

    text = on_a_line(line, 20_000)
    if not is_terminal(sys.stderr):
        return text
    folded = textwrap.wrap(
        text,
        columns(sys.stderr),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=True,
    )
    return "\n".join(folded or [""])


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        raise ValueError("it is closed")
    try:
        stream.write(f"{text}\n")
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
