"""A sealed file takes the place of another one, and of what a change of that one's recipients left beside it."""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING

from vambrace.assets.seal.holding import alone
from vambrace.assets.seal.opening import pending
from vambrace.core import files
from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Replacement"]


class Replacement(files.Draft):
    """A draft of a sealed file; with the file that it replaces, the sidecar of that file goes.

    It would belong to no file any more, and every later change of the new one's recipients would refuse for it.
    """

    def commit(self) -> None:
        """As that of any draft."""
        beside = pending(self.path) if _is_last_name(self.path) else None
        with contextlib.ExitStack() as held:
            if beside:
                try:
                    held.enter_context(alone(self.path))
                except ResourceError:  # somebody is changing its recipients, and needs what lies there
                    beside = None
            super().commit()
            if beside:
                with contextlib.suppress(ResourceError):
                    files.remove(beside)


def _is_last_name(path: Path) -> bool:
    """Whether a file goes when another takes its name; else it stays, and needs what lies beside that name."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
