from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn import datasets

from vambrace import data
from vambrace.core.contract import InputContract
from vambrace.errors import DataRefused


def test_all_of_them() -> None:
    out = data.load("digits")
    bunch = datasets.load_digits()
    assert len(out) == 1797
    assert out.class_names == tuple("0123456789")
    batch = out.read(range(1797))
    assert np.array_equal(batch.inputs.numpy()[:, 0] * 16, bunch.images)
    assert batch.labels.tolist() == bunch.target.tolist()
    assert (batch.inputs.min(), batch.inputs.max()) == (0, 1)


def test_the_split_is_honest() -> None:
    whole, train, test = (data.load(part) for part in ("digits", "digits:train", "digits:test"))
    assert (len(train), len(test)) == (797, 1000)
    assert not set(train.ids) & set(test.ids)
    assert not set(train.hashes) & set(test.hashes)
    assert set(train.ids) | set(test.ids) == set(whole.ids)
    assert all(abs(ours - 797 * count / 1797) < 1 for ours, count in zip(train.counts, whole.counts, strict=True))


def test_the_split_is_fixed() -> None:
    """Runs of different versions are comparable only while this holds."""
    names = data.load("digits:train").names
    assert names[:8] == FIRST
    assert hashlib.sha256(" ".join(names).encode()).hexdigest() == SPLIT


FIRST = ("0", "1", "3", "4", "8", "9", "10", "11")
SPLIT = "dca3debc340f3e7d1a086c7d25b087bdf909f90a4ba8bcecdb67c36c277ed571"


def test_samples_are_those_of_the_whole() -> None:
    whole, test = data.load("digits"), data.load("digits:test", limit=50)
    assert test.counts == (5,) * 10
    for at in (0, 17, 49):
        assert test.read([at]).inputs.equal(whole.read([int(test.names[at])]).inputs)


def test_contract_applies() -> None:
    out = data.load("digits", head=3, contract=InputContract(size=(16, 16), resize="squash", channels=3))
    assert out.read([0]).inputs.shape == (1, 3, 16, 16)
    with pytest.raises(DataRefused, match="E309"):
        data.load("digits", contract=InputContract(bounds=(0, 255)))
    with pytest.raises(DataRefused, match="E307"):
        data.load("digits", contract=InputContract(classes=("even", "odd")))
    with pytest.raises(DataRefused, match="E333"):
        data.load("digits:members")
    with pytest.raises(DataRefused, match="E306"):
        data.load("digits", labels="y.npy")
