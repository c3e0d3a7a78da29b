"""Progress as an argument: long work reports to whoever asked, and the library itself stays quiet."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent", "silent"]


class Progress(Protocol):
    """Who listens to long work. Every method must return quickly and never raise."""

    def start(self, name: str, total: int) -> None:
        """A piece of work called `name` begins; `total` steps are planned."""

    def advance(self, name: str, steps: int = 1, note: str = "") -> None:
        """`steps` more are done; `note` is one short line about how it stands."""

    def finish(self, name: str, note: str = "") -> None:
        """The piece of work called `name` ended."""


class Silent:
    """Hears everything and says nothing."""

    def start(self, name: str, total: int) -> None:
        """Say nothing."""

    def advance(self, name: str, steps: int = 1, note: str = "") -> None:
        """Say nothing."""

    def finish(self, name: str, note: str = "") -> None:
        """Say nothing."""


silent = Silent()
