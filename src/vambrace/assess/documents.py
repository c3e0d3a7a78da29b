"""Files that a check reads beside the model, such as the ledger of its training.

A check of documents has no data roles, `documents` (name to path; relative paths start at the plan's folder) and one
unit. That unit's key and its digest are made of the files' content: a changed file is measured anew, and a file that
changes during a run is no longer the one that the unit is for.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vambrace.core import canonical
from vambrace.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assess.checks.base import Check

__all__ = ["DOCUMENTS", "documents_digest", "documents_of", "packages_of", "read_documents", "roles_of"]

DOCUMENTS = "documents"
"""What stands for a data role where a unit has documents and no samples."""

LARGEST = 64 * 2**20
"""Bytes of a document; a ledger of ten million steps has fewer."""


def documents_of(check: Check) -> Mapping[str, str]:
    """Name to path as the plan has it; empty for a check of samples."""
    return cast("Mapping[str, str]", getattr(check, "documents", {}))


def roles_of(check: Check) -> tuple[str, ...]:
    """The roles that records of this check come from."""
    return (DOCUMENTS,) if documents_of(check) else check.roles


def packages_of(check: Check) -> dict[str, str]:
    """Versions of the optional packages that decide what this check finds.

    Raises:
        MissingExtra: E112, for one that is not installed.
    """
    found: dict[str, str] = {}
    for package, extra in cast("Mapping[str, str]", getattr(check, "packages", {})).items():
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingExtra(
                "E112",
                seen=f"the package {package} is not installed, which check {check.kind} needs",
                expected=f"the extra {extra!r}",
                fix=f"pip install 'vambrace[{extra}]'",
            ) from error
    return found


def read_documents(check: Check, base: Path | str) -> dict[str, bytes]:
    """The content of all documents of a check; nothing for a check of samples.

    Args:
        check: of the plan.
        base: folder at which relative paths start.

    Raises:
        ConfigError: E174, for a file that is missing, cannot be read, is no regular file or is too large.
    """
    return {name: _read(Path(base) / path, f"{check.kind}.{name}") for name, path in documents_of(check).items()}


def documents_digest(contents: Mapping[str, bytes]) -> str:
    """SHA-256 that stands for names and contents, 64 hex digits."""
    return canonical.digest({name: hashlib.sha256(data).hexdigest() for name, data in contents.items()})


def _read(path: Path, called: str) -> bytes:
    def refused(why: str) -> ConfigError:
        return ConfigError(
            "E174",
            seen=f"{called} = {path}: {why}",
            expected=f"a regular file of at most {LARGEST // 2**20} MiB",
            fix="correct the path, which starts at the plan's folder, or leave the check out",
        )

    try:
        # A pipe would be waited for without O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        raise refused(getattr(error, "strerror", None) or str(error)) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise refused("it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:  # noqa: PTH123  a descriptor has no path
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise refused(error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    if len(data) > LARGEST:
        raise refused("it is larger")
    return data
