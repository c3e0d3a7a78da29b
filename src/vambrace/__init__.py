"""Vambrace measures whether a model can be trusted, and hardens it where it cannot.

    import vambrace
    model = vambrace.load("net.onnx", bounds=(0, 1))

Importing the package does no work: subpackages and `load` are resolved on first use, so that
reading a finished run never needs torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace import assess, attacks, data, models, perturb, privacy
    from vambrace.models.load import load

__all__ = ["__version__", "assess", "attacks", "data", "load", "models", "perturb", "privacy"]

__version__ = "0.1.0"

_SUBPACKAGES = frozenset({"assess", "attacks", "data", "models", "perturb", "privacy"})


def __getattr__(name: str) -> object:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"vambrace.{name}")
    if name == "load":
        from vambrace.models.load import load

        return load
    raise AttributeError(f"module 'vambrace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
