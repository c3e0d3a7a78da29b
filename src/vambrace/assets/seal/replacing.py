"""A sealed file takes the place of another one, and of what a change of that one's recipients left beside it."""

from __future__ import annotations

import contextlib
import os

from vambrace.assets.seal.opening import pending
from vambrace.core import files
from vambrace.errors import ResourceError

__all__ = ["Replacement"]


class Replacement(files.Draft):
    """A draft of a sealed file; with the file that it replaces, the sidecar of that file goes.

    It would belong to no file any more, and every later change of the new one's recipients would refuse for it.
    """

    def commit(self) -> None:
        """As that of any draft."""
        # Of a link only the link is replaced: the file stays, and needs what lies beside it.
        beside = None if os.path.islink(self.path) else pending(self.path)  # noqa: PTH114  of a name that is too long it says no
        super().commit()
        if beside:
            with contextlib.suppress(ResourceError):
                files.remove(beside)
