"""A good network and the digits that it never saw, for tests that need a model worth measuring."""

from __future__ import annotations

import pytest

from vambrace import data
from vambrace.testing.digits import train


@pytest.fixture(scope="session")
def net():
    """Right on nine of ten digits; trained on the spot."""
    part = data.load("digits:train")
    batch = part.read(range(len(part)))
    return train(batch.inputs, batch.labels, epochs=5)


@pytest.fixture(scope="session")
def digits():
    return data.load("digits:test", limit=200)
