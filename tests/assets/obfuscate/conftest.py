"""Trained networks as programs, once for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
