"""The keys of a file: those of the page, secret, and new for every file."""

from __future__ import annotations

import copy
import pickle

import pytest

from assets.seal.naive_sealed import subkey
from vambrace.assets.seal.schedule import FileKeys, new_file_key, new_salt
from vambrace.assets.seal.suites import KEY_BYTES, Suite

KEY, SALT = bytes(range(32)), bytes(range(32, 64))


@pytest.mark.parametrize("suite", Suite)
def test_they_are_those_of_the_page(suite: Suite) -> None:
    keys = FileKeys(KEY, SALT, suite)
    sizes = {
        "commit": 32,
        "header": 32,
        "private": KEY_BYTES[suite],
        "data": KEY_BYTES[suite],
        "nonce": 7,
        "trailer": 32,
    }
    for label, size in sizes.items():
        assert getattr(keys, label) == subkey(KEY, SALT, suite, label, size), label


def test_every_label_suite_salt_and_key_gives_another() -> None:
    labels = ("commit", "header", "private", "data", "trailer")
    files = [FileKeys(key, salt, suite) for key in (KEY, SALT) for salt in (KEY, SALT) for suite in Suite]
    found = [getattr(keys, label)[:16] for keys in files for label in labels]
    assert len(set(found)) == len(found)


def test_they_do_not_show_and_do_not_travel() -> None:
    keys = FileKeys(KEY, SALT, Suite.SM4_GCM)
    assert keys.data
    assert repr(keys) == str(keys) == "FileKeys(SM4_GCM)"
    for carry in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be stored"):
            carry(keys)


def test_sizes() -> None:
    for key, salt in ((b"", SALT), (KEY[:31], SALT), (KEY, SALT + b"x")):
        with pytest.raises(ValueError, match="32 bytes each"):
            FileKeys(key, salt, Suite.AES_256_GCM)


def test_new_ones_are_new() -> None:
    found = {make() for make in (new_file_key, new_salt) for _ in range(100)}
    assert len(found) == 200
    assert {len(each) for each in found} == {32}
