"""Every error a user can meet, one tree.

    VambraceError                       code, seen, expected, fix
    |-- ConfigError      (ValueError)   exit 2   a plan, option or command line that cannot be used
    |   `-- NotThere     (FileNotFoundError)      a path where nothing is
    |-- AccessError      (TypeError)    exit 2   a method needs more than the model gives
    |-- MissingExtra     (ImportError)  exit 2   an optional package is not installed
    |-- ModelRefused     (ValueError)   exit 3   a model file that is unsafe or cannot be read
    |-- DataRefused      (ValueError)   exit 3   data that is unsafe or cannot be read
    |-- ArtifactRefused  (ValueError)   exit 3   a sealed, signed or obfuscated file that is not what it should be
    |-- ModelMisbehaved  (RuntimeError) exit 5   a model whose answers cannot be measured
    |-- BudgetSpent      (RuntimeError) exit 4   a hard budget of queries or time is used up
    `-- ResourceError    (OSError)      exit 6   disk, memory, lock or workers

A message says what was seen, what was expected and the one likely fix. Codes are stable; each has a
page that `vambrace explain CODE` prints.
"""

from __future__ import annotations

import errno
from typing import ClassVar

__all__ = [
    "AccessError",
    "ArtifactRefused",
    "BudgetSpent",
    "ConfigError",
    "DataRefused",
    "MissingExtra",
    "ModelMisbehaved",
    "ModelRefused",
    "NotThere",
    "ResourceError",
    "VambraceError",
]


class VambraceError(Exception):
    """Root of the tree.

    Attributes:
        code: stable identifier, such as `E201`; `vambrace explain E201` prints its page.
        seen: what was found.
        expected: what would have been right.
        fix: the one thing most likely to help.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, code: str, *, seen: str, expected: str, fix: str) -> None:
        self.code = code
        self.seen = seen
        self.expected = expected
        self.fix = fix
        super().__init__(f"{code}: {seen}; expected {expected}. Fix: {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling that carries errors between workers.
        return (_rebuild, (type(self), self.code, self.seen, self.expected, self.fix))

    def as_json(self) -> dict[str, str]:
        """The error as data for a journal or a JSON answer."""
        return {
            "type": type(self).__name__,
            "code": self.code,
            "seen": self.seen,
            "expected": self.expected,
            "fix": self.fix,
        }


class ConfigError(VambraceError, ValueError):
    """A plan, option or command line that cannot be used."""

    exit_code = 2


class NotThere(ConfigError, FileNotFoundError):
    """A path where nothing is."""

    def __init__(self, code: str, *, seen: str, expected: str, fix: str) -> None:
        super().__init__(code, seen=seen, expected=expected, fix=fix)
        # As who catches an OSError looks at it. A file name here as well would replace the message.
        self.errno = errno.ENOENT


class AccessError(VambraceError, TypeError):
    """A method needs more access than the model gives."""

    exit_code = 2


class MissingExtra(VambraceError, ImportError):
    """An optional package is not installed."""

    exit_code = 2


class ModelRefused(VambraceError, ValueError):
    """A model file that is unsafe to open or cannot be read."""

    exit_code = 3


class DataRefused(VambraceError, ValueError):
    """Data that is unsafe to open or cannot be read."""

    exit_code = 3


class ArtifactRefused(VambraceError, ValueError):
    """A sealed, signed or obfuscated file that is damaged, forged, or opened by nothing that was given."""

    exit_code = 3


class ModelMisbehaved(VambraceError, RuntimeError):
    """A model whose answers cannot be measured: it raised, or its outputs have the wrong form."""

    exit_code = 5


class BudgetSpent(VambraceError, RuntimeError):
    """A hard budget of queries or time is used up."""

    exit_code = 4


class ResourceError(VambraceError, OSError):
    """Disk, memory, lock or workers failed."""

    exit_code = 6


def _rebuild(kind: type[VambraceError], code: str, seen: str, expected: str, fix: str) -> VambraceError:
    return kind(code, seen=seen, expected=expected, fix=fix)
