"""Whose code may run: the roots that a human listed, and where they are imported from.

Roots are top-level names ("mypkg") or packages ("mypkg.nets"); each stands for everything below it.

    >>> is_trusted("mypkg.nets.small", ["mypkg"]), is_trusted("mypkgs", ["mypkg"])
    (True, False)
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path

__all__ = ["importable", "is_trusted"]


def is_trusted(module: str, trusted: Sequence[str]) -> bool:
    """Whether `module` is one of the trusted roots or lies under one."""
    return any(module == root or module.startswith(root + ".") for root in trusted)


@contextlib.contextmanager
def importable(base: Path, trusted: Sequence[str]) -> Generator[None]:
    """Inside, trusted roots that lie in the folder `base` are imported from there, before anything installed.

    Its other modules can be imported too, as trusted code may need them, but only where nothing installed has the name:
    a stray `json.py` or an optional package that some library looks for is not taken from there first.
    """
    finder = _Trusted(base, {root.split(".")[0] for root in trusted})
    place = str(base)
    added = place not in sys.path
    sys.meta_path.insert(0, finder)
    if added:
        sys.path.append(place)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(finder)
            if added:
                sys.path.remove(place)


class _Trusted:
    """A finder for `sys.meta_path`: the trusted top-level modules of one folder."""

    def __init__(self, base: Path, roots: set[str]) -> None:
        self._base = base
        self._roots = roots

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The spec of a trusted top-level module in the folder."""
        del target
        if path is None and name in self._roots:
            return importlib.machinery.PathFinder.find_spec(name, [str(self._base)])
        return None
