"""Passphrases: hashed as the format says, whatever the keyboard; bounds, memory, and libraries that lack a function."""

from __future__ import annotations

import base64
import copy
import hashlib
import pickle
import resource
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf import argon2

from vambrace.assets.seal import passphrase
from vambrace.assets.seal.passphrase import Argon2id, Passphrase, Scrypt
from vambrace.errors import ConfigError, MissingExtra, ResourceError

FILE_KEY, BINDING = bytes(range(32)), bytes(range(100, 132))
QUICK = Argon2id(memory_kib=8192, passes=1, lanes=1)


def test_scrypt_is_that_of_the_format() -> None:
    """By another scrypt, Python's own, and the associated data of the page."""
    stanza = Passphrase("naïve", kdf=Scrypt(log_n=11, p=2)).wrap(FILE_KEY, BINDING)
    costs = {name: stanza[name] for name in ("type", "log_n", "r", "p")}
    assert costs == {"type": "scrypt", "log_n": 11, "r": 8, "p": 2}
    salt, wrapped = (base64.b64decode(str(stanza[name])) for name in ("salt", "wrapped"))
    secret = unicodedata.normalize("NFC", "naïve").encode()
    wrapping = hashlib.scrypt(secret, salt=salt, n=2048, r=8, p=2, dklen=32, maxmem=2**26)
    assert AESGCM(wrapping).decrypt(bytes(12), wrapped, b"vambrace-sealed/1 scrypt " + BINDING) == FILE_KEY


def test_argon2id_is_that_of_the_format() -> None:
    stanza = Passphrase("word", kdf=Argon2id(memory_kib=9000, passes=2, lanes=3)).wrap(FILE_KEY, BINDING)
    assert {name: stanza[name] for name in ("type", "memory_kib", "passes", "lanes")} == {
        "type": "argon2id",
        "memory_kib": 9000,
        "passes": 2,
        "lanes": 3,
    }
    salt, wrapped = (base64.b64decode(str(stanza[name])) for name in ("salt", "wrapped"))
    kdf = argon2.Argon2id(salt=salt, length=32, iterations=2, lanes=3, memory_cost=9000)
    wrapping = kdf.derive(b"word")
    assert AESGCM(wrapping).decrypt(bytes(12), wrapped, b"vambrace-sealed/1 argon2id " + BINDING) == FILE_KEY


def test_defaults_are_those_of_the_format() -> None:
    assert Argon2id() == Argon2id(memory_kib=256 * 1024, passes=3, lanes=4)
    assert 128 * 8 * 2 ** Scrypt().log_n == 256 * 2**20


@pytest.mark.parametrize(
    ("sealed", "typed"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u212b", "\u00c5"),
        ("한", "\u1112\u1161\u11ab"),
        ("text", b"text"),
        ("caf\u00e9", "cafe\u0301".encode()),
        ("text", bytearray(b"text")),
    ],
)
def test_spellings_of_one_passphrase_are_one(sealed: str, typed: str | bytes) -> None:
    stanza = Passphrase(sealed, kdf=QUICK).wrap(FILE_KEY, BINDING)
    assert [*Passphrase(typed).unwrap([stanza], BINDING)] == [FILE_KEY]


@pytest.mark.parametrize("typed", ["Text", "text ", " text", "text\n", "tex", "ｔｅｘｔ", "t\u0435xt"])
def test_other_passphrases_are_others(typed: str) -> None:
    stanza = Passphrase("text", kdf=QUICK).wrap(FILE_KEY, BINDING)
    assert [*Passphrase(typed).unwrap([stanza], BINDING)] == []


@pytest.mark.parametrize("value", ["", b"", b"\xff\xfe", "half \ud83d", b"caf\xe9"])
def test_unusable_passphrases_are_refused(value: str | bytes) -> None:
    with pytest.raises(ConfigError, match="E735") as caught:
        Passphrase(value)
    assert "half" not in str(caught.value)
    assert "caf" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_passphrases_do_not_show() -> None:
    one = Passphrase("hunter2")
    assert "hunter2" not in f"{one!r}{one}"
    for leak in (lambda: pickle.dumps(one), lambda: copy.deepcopy(one)):
        with pytest.raises(TypeError):
            leak()
    held = one._secret
    one.wipe()
    assert bytes(held) == bytes(7)
    stanza = Passphrase("hunter2", kdf=QUICK).wrap(FILE_KEY, BINDING)
    with pytest.raises(ConfigError, match="wiped"):
        next(one.unwrap([stanza], BINDING))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Argon2id(memory_kib=8191),
        lambda: Argon2id(memory_kib=2_097_153, passes=1),
        lambda: Argon2id(passes=0),
        lambda: Argon2id(passes=17),
        lambda: Argon2id(lanes=0),
        lambda: Argon2id(lanes=17),
        lambda: Argon2id(passes=True),
        lambda: Argon2id(memory_kib=1e6),  # type: ignore[arg-type]
        lambda: Argon2id(memory_kib=2_097_152, passes=4),
        lambda: Scrypt(log_n=9),
        lambda: Scrypt(log_n=21),
        lambda: Scrypt(p=0),
        lambda: Scrypt(p=17),
        lambda: Scrypt(log_n=20, p=7),
    ],
)
def test_costs_that_no_reader_accepts_are_refused(make) -> None:
    with pytest.raises(ConfigError, match="E732"):
        make()


def test_where_argon2_is_missing_scrypt_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = Passphrase("word", kdf=QUICK).wrap(FILE_KEY, BINDING)

    class Absent:
        def __init__(self, **_: object) -> None:
            raise UnsupportedAlgorithm("no Argon2id here")

    monkeypatch.setattr(argon2, "Argon2id", Absent)
    assert not passphrase.argon2_available()
    weak = Passphrase("word", kdf=Scrypt(log_n=10)).wrap(FILE_KEY, BINDING)
    # What can be opened is; then it is said what is lacking.
    found = Passphrase("word").unwrap([hashed, weak], BINDING)
    assert next(found) == FILE_KEY
    with pytest.raises(MissingExtra, match=r"E730.*argon2id"):
        next(found)
    with pytest.raises(MissingExtra, match="E730"):
        Passphrase("word", kdf=QUICK).wrap(FILE_KEY, BINDING)
    assert chosen_by_default() == "scrypt"
    monkeypatch.undo()
    assert chosen_by_default() == "argon2id"


def chosen_by_default() -> str:
    """How a passphrase is hashed where nothing is said, without hashing it."""

    class Idle(Passphrase):
        def _hashed(self, stanza: object) -> bytes:
            return bytes(32)

    return str(Idle("word").wrap(FILE_KEY, BINDING)["type"])


def test_memory_that_is_not_there_is_said() -> None:
    """In a process of its own, since its limit cannot be lifted again."""
    code = """
import resource
from vambrace.assets.seal.passphrase import Argon2id, Passphrase, Scrypt
small = Passphrase("word", kdf=Scrypt(log_n=10)).wrap(bytes(32), bytes(32))
big = small | {"log_n": 20}
resource.setrlimit(resource.RLIMIT_AS, (800 * 2**20,) * 2)
found = Passphrase("word").unwrap([big, small], bytes(32))
assert next(found) == bytes(32)
for run in (lambda: next(found), lambda: Passphrase("word", kdf=Argon2id(memory_kib=2**20)).wrap(bytes(32), bytes(32))):
    try:
        run()
    except Exception as error:
        print(error.code, error.exit_code, error.seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["E731 6 no memory for the 1024 MiB of password hashing"] * 2, done.stderr
    assert ResourceError.exit_code == 6
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 800 * 2**20


@pytest.mark.parametrize("value", [1234, None, 1.5, ["word"]])
def test_a_number_is_no_passphrase(value: Any) -> None:
    """Of 1234, so many zeros were taken."""
    with pytest.raises(ConfigError, match="E735: a passphrase that is a") as caught:
        Passphrase(value)
    assert "1234" not in str(caught.value)
