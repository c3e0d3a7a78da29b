"""Errors: codes, builtin kin, exit codes, and the way they travel between processes."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

from vambrace import errors

KINDS = [getattr(errors, name) for name in errors.__all__]
EXITS = {
    "VambraceError": 70,
    "ConfigError": 2,
    "NotThere": 2,
    "AccessError": 2,
    "MissingExtra": 2,
    "ModelRefused": 3,
    "DataRefused": 3,
    "ArtifactRefused": 3,
    "BudgetSpent": 4,
    "ModelMisbehaved": 5,
    "ResourceError": 6,
}
KIN = {
    "ConfigError": ValueError,
    "NotThere": FileNotFoundError,
    "AccessError": TypeError,
    "MissingExtra": ImportError,
    "ModelRefused": ValueError,
    "DataRefused": ValueError,
    "ArtifactRefused": ValueError,
    "BudgetSpent": RuntimeError,
    "ModelMisbehaved": RuntimeError,
    "ResourceError": OSError,
}


def make(kind):
    return kind("E123", seen="a cat", expected="a dog", fix="look again")


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_was_seen_what_was_expected_and_the_fix(kind):
    error = make(kind)
    assert str(error) == "E123: a cat; expected a dog. Fix: look again"
    assert error.as_json() == {
        "type": kind.__name__,
        "code": "E123",
        "seen": "a cat",
        "expected": "a dog",
        "fix": "look again",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_exit_code_and_kin(kind):
    assert kind.exit_code == EXITS[kind.__name__]
    assert issubclass(kind, errors.VambraceError)
    assert issubclass(kind, KIN.get(kind.__name__, Exception))


def test_the_table_is_complete():
    assert set(EXITS) == set(errors.__all__)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_survives_the_way_between_processes(kind, travel):
    error = travel(make(kind))
    assert type(error) is kind
    assert error.as_json() == make(kind).as_json()
    assert str(error) == str(make(kind))


def test_a_path_where_nothing_is_can_be_caught_as_either_sort():
    error = pickle.loads(pickle.dumps(make(errors.NotThere)))
    assert isinstance(error, errors.ConfigError)
    assert error.errno == errno.ENOENT
