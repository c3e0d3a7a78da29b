"""Trained networks as programs, once for all tests; in CI, the draws of locks and of obfuscation without a seed."""

from __future__ import annotations

import hashlib
import itertools
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from vambrace.assets.obfuscate import keyed, keyinput, locking

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@pytest.fixture(scope="session")
def resnet() -> ExportedProgram:
    from exported_nets import ResNet, exported

    return exported(ResNet)


@pytest.fixture(scope="session")
def encoder() -> ExportedProgram:
    from exported_nets import Encoder, exported

    return exported(Encoder)


@pytest.fixture(autouse=True)
def _repeatable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As hypothesis: other draws on every run of a developer, and the same ones for a test on every run of CI."""
    if not os.environ.get("CI"):
        return
    numbers = itertools.count()

    def draw(size: int = 32) -> bytes:
        return hashlib.shake_256(f"{request.node.nodeid} {next(numbers)}".encode()).digest(size)

    for module in (keyinput, locking):
        monkeypatch.setattr(module, "secrets", SimpleNamespace(token_hex=lambda size: draw(size).hex()))
    monkeypatch.setattr(keyed, "os", SimpleNamespace(urandom=draw))
