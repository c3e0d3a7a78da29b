"""Optional packages: imported where they are used, or missed with the exact line that installs them.

Each optional package has one adapter file, which is the only one to call `require` for it.

    >>> require("json", extra="onnx").loads("[1]")
    [1]
"""

from __future__ import annotations

import importlib
from typing import Any

from vambrace.errors import MissingExtra

__all__ = ["require"]


def require(module: str, *, extra: str) -> Any:  # noqa: ANN401  a module has no narrower type
    """The imported package `module`, which belongs to the extra `extra`.

    Raises:
        MissingExtra: E112, when it is not installed or does not import.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not import ({error})"
        raise MissingExtra(
            "E112",
            seen=f"the package {module} {why}",
            expected=f"the extra {extra!r}",
            fix=f"pip install 'vambrace[{extra}]'",
        ) from error
