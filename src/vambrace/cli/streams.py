"""Bytes on standard input and output, as far as commands carry content there and not words.

What cannot be read or written is an error of its own, never an end: content that stops early must not look whole.
"""

from __future__ import annotations

import contextlib
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vambrace.cli.speaking import discard, is_terminal
from vambrace.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from vambrace.core.progress import Progress

__all__ = ["BytesOut", "CountedIn", "STREAM", "bytes_in", "file_place", "is_stream", "mebibytes", "path_text", "place"]

STREAM = Path("-")
_PIECE = 2**20


def place(text: str) -> Path:
    """The path of an argument. `./-` is a file of that name, which `Path` alone would take for the stream `-`.

    Raises:
        BadParameter: for no text, as of a variable that is not set: `Path` would take it for the folder we are in.
    """
    if not text:
        raise typer.BadParameter("an empty path, as of a variable that is not set")
    path = Path(text)
    return path.absolute() if path == STREAM and text != "-" else path


def path_text(value: str | None) -> str | None:
    """A callback of options that take a path as text. Raises as `place`."""
    if value is not None:
        place(value)
    return value


def file_place(text: str) -> Path:
    """`place`, for commands that take no streams.

    Raises:
        BadParameter: for `-` too, which would be taken for a file of that name.
    """
    if text == "-":
        raise typer.BadParameter("- stands for a stream, and this command takes files (./- is one of that name)")
    return place(text)


def is_stream(source: Path) -> bool:
    """Whether `source` is read in order and once: standard input, a pipe or a device."""
    if source == STREAM:
        return True
    try:
        mode = source.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def bytes_in(source: Path) -> Generator[Any]:
    """The stream at `source`, see `is_stream`.

    Raises:
        ResourceError: E604, when it cannot be opened.
    """
    if source == STREAM:
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  so it is where it was closed
            raise _unread("standard input", "it is closed")
        yield sys.stdin.buffer
        return
    try:
        stream = source.open("rb", buffering=0)
    except OSError as error:
        raise _unread(str(source), error.strerror or str(error)) from error
    with stream:
        yield stream


class BytesOut:
    """Standard output for content.

    Raises:
        ConfigError: E774, when it is a terminal.
        ResourceError: E579, when it is closed.
    """

    def __init__(self) -> None:
        if is_terminal(sys.stdout):
            raise ConfigError(
                "E774", seen="bytes for a terminal", expected="a file or a pipe", fix="redirect stdout, or name a file"
            )
        if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  so it is where it was closed
            raise _unwritten("it is closed")

    def write(self, data: memoryview | bytearray, /) -> int:
        """Take `data`, or its first bytes, and say how many.

        Raises:
            ResourceError: E579, when they cannot be written: also when the reader has left, since it lacks the rest.
        """
        with _told():
            return sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Return when all that was taken is written. Raises as `write`."""
        with _told():
            sys.stdout.buffer.flush()


class CountedIn:
    """A stream that tells how much has come out of it, up to `finish`. How much there will be is not known."""

    def __init__(self, stream: Any, progress: Progress, name: str) -> None:  # noqa: ANN401  whatever has `readinto`
        self._stream = stream
        self._tell = mebibytes(progress, name)
        self._done = 0

    def readinto(self, buffer: memoryview, /) -> int | None:
        """As the stream does."""
        got = self._stream.readinto(buffer)
        self._done += got or 0
        self._tell(self._done, None)
        return got

    def finish(self) -> None:
        """Tell that the work is over, of which reading may be a part only."""
        self._tell(self._done, self._done)


def mebibytes(progress: Progress, name: str) -> Callable[[int, int | None], None]:
    """A callback of bytes that are done, and those there are or None; it reports them as steps of 1 MiB.

    Work of which the end is not known has a total of 0; it is over when a total is named that has been reached.
    """
    reported = -1

    def hear(done: int, total: int | None) -> None:
        nonlocal reported
        if reported < 0:
            progress.start(name, -(-(total or 0) // _PIECE))
            reported = 0
        if steps := -(-done // _PIECE) - reported:
            reported += steps
            progress.advance(name, steps, f"{done // _PIECE} MiB")
        if total is not None and done >= total:
            progress.finish(name)

    return hear


@contextlib.contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        discard(sys.stdout)
        raise _unwritten(getattr(error, "strerror", None) or str(error)) from error


def _unwritten(why: str) -> ResourceError:
    return ResourceError(
        "E579",
        seen=f"standard output cannot be written: {why}",
        expected="a place for all of the content",
        fix="free space where the output goes, let its reader take all of it, or name a file",
    )


def _unread(name: str, why: str) -> ResourceError:
    return ResourceError(
        "E604",
        seen=f"{name} cannot be read: {why}",
        expected="a readable stream",
        fix="check the redirection, or name a file",
    )
