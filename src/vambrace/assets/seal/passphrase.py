"""File keys under a passphrase: Argon2id (RFC 9106), or scrypt (RFC 7914) where that is missing or asked for.

    >>> quick = Argon2id(memory_kib=8192, passes=1, lanes=1)
    >>> stanza = Passphrase("correct horse", kdf=quick).wrap(bytes(32), bytes(32))
    >>> [*Passphrase("correct horse").unwrap([stanza], bytes(32))] == [bytes(32)]
    True

Hashing makes each guess dear, not a weak passphrase strong: who has the file can guess for as long as he likes.
"""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from typing import TYPE_CHECKING, cast

import cryptography
from cryptography.exceptions import UnsupportedAlgorithm

from vambrace.assets.seal import stanzas as bounds
from vambrace.assets.seal.stanzas import decode, encode, of_kind
from vambrace.assets.seal.wrapping import open_key, seal_key
from vambrace.core.options import Options, require
from vambrace.errors import ConfigError, MissingExtra, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vambrace.assets.seal.stanzas import Stanza

__all__ = ["Argon2id", "Passphrase", "Scrypt", "argon2_available"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Argon2id(Options):
    """Costs of Argon2id, version 0x13. What is given here, everybody who opens pays.

    Attributes:
        memory_kib: 8,192 to 2,097,152; the default is 256 MiB.
        passes: over the memory, 1 to 16.
        lanes: 1 to 16, which may run at once.

    Raises:
        ConfigError: E732, beyond these bounds, or for work beyond 6,291,456 KiB times passes.
    """

    memory_kib: int = 262_144
    passes: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        _within("memory_kib", self.memory_kib, bounds.MEMORY_KIB)
        _within("passes", self.passes, bounds.PASSES)
        _within("lanes", self.lanes, bounds.LANES)
        _affordable({"type": "argon2id", **self.as_json()})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scrypt(Options):
    """Costs of scrypt with block size 8: 128 * 8 * 2**`log_n` bytes of memory, `p` times.

    Attributes:
        log_n: 10 to 20; the default makes it 256 MiB.
        p: 1 to 16.

    Raises:
        ConfigError: E732, beyond these bounds, or for work beyond 6,291,456 KiB times passes.
    """

    log_n: int = 18
    p: int = 1

    def __post_init__(self) -> None:
        _within("log_n", self.log_n, bounds.LOG_N)
        _within("p", self.p, bounds.P)
        _affordable({"type": "scrypt", "r": 8, **self.as_json()})


class Passphrase:
    """A recipient, and the identity that opens: all who know a passphrase.

    Args:
        value: text, or its UTF-8; taken in Unicode normal form C, so that it does not matter how a keyboard spells an
            accent. Nothing else is changed: a line end at its end belongs to it.
        kdf: how it is hashed when sealing; None: Argon2id, or scrypt where the library lacks it.
            Opening goes by the file.

    Raises:
        ConfigError: E735, for an empty passphrase, or bytes or text that are no Unicode.
    """

    kinds = bounds.PASSPHRASES
    hint = ""

    def __init__(self, value: str | bytes | bytearray, *, kdf: Argon2id | Scrypt | None = None) -> None:
        if not isinstance(value, str | bytes | bytearray):  # pyright: ignore[reportUnnecessaryIsInstance]
            # Of a number, Python would make so many zeros.
            raise ConfigError(
                "E735",
                seen=f"a passphrase that is a {type(value).__name__}",
                expected="text, or bytes in UTF-8",
                fix="put it in quotes",
            )
        try:
            text = value if isinstance(value, str) else bytes(value).decode()
            secret = unicodedata.normalize("NFC", text).encode()
        except UnicodeError:
            # The error itself shows parts of the passphrase.
            secret = None
        if not secret:
            raise ConfigError(
                "E735",
                seen="a passphrase that is empty" if secret == b"" else "a passphrase that is not Unicode",
                expected="text, or bytes in UTF-8",
                fix="give bytes that are no text as a raw key of 32 bytes",
            ) from None
        self._secret = bytearray(secret)
        self.kdf = kdf

    def __repr__(self) -> str:
        return "<a passphrase>"

    def __reduce__(self) -> str:
        raise TypeError("passphrases are not pickled or copied")

    def wrap(self, file_key: bytes, binding: bytes) -> dict[str, object]:
        """The stanza for this passphrase; see `recipients.Recipient`.

        Raises:
            MissingExtra: E730, for Argon2id where the library lacks it.
            ResourceError: E731, where the memory for hashing is not to be had.
        """
        kdf = self.kdf or (Argon2id() if argon2_available() else Scrypt())
        costs = kdf.as_json() | ({"r": 8} if isinstance(kdf, Scrypt) else {})
        kind = "scrypt" if isinstance(kdf, Scrypt) else "argon2id"
        stanza: dict[str, object] = {"type": kind, "salt": encode(os.urandom(16)), **costs}
        return stanza | {"wrapped": seal_key(self._hashed(stanza), file_key, kind, binding)}

    def unwrap(self, stanzas: Sequence[Stanza], binding: bytes) -> Iterator[bytes]:
        """The file keys that this passphrase unwraps; see `recipients.Identity`. Each stanza costs its hashing.

        Raises:
            MissingExtra: E730, ResourceError: E731, as for `wrap`, after the stanzas that can be tried.
        """
        failed: MissingExtra | ResourceError | None = None
        for stanza in of_kind(stanzas, *self.kinds):
            try:
                wrapping = self._hashed(stanza)
            except (MissingExtra, ResourceError) as error:
                failed = error
                continue
            file_key = open_key(wrapping, stanza["wrapped"], stanza["type"], binding)
            if file_key is not None:
                yield file_key
        if failed is not None:
            raise failed

    def wipe(self) -> None:
        """Overwrite the bytes held here and forget them; the text that was given, and other copies, stay."""
        self._secret[:] = bytes(len(self._secret))
        self._secret = bytearray()

    def _hashed(self, stanza: Stanza) -> bytes:
        if not self._secret:
            raise ConfigError("E735", seen="a passphrase that was wiped", expected="a passphrase", fix="give it again")
        costs, salt = cast("dict[str, int]", stanza), decode(stanza["salt"]) or b""
        try:
            if stanza["type"] == "argon2id":
                from cryptography.hazmat.primitives.kdf import argon2

                kdf = argon2.Argon2id(
                    salt=salt,
                    length=32,
                    iterations=costs["passes"],
                    lanes=costs["lanes"],
                    memory_cost=costs["memory_kib"],
                )
                return kdf.derive(bytes(self._secret))
            from cryptography.hazmat.primitives.kdf import scrypt

            kdf = scrypt.Scrypt(salt=salt, length=32, n=2 ** costs["log_n"], r=costs["r"], p=costs["p"])
            return kdf.derive(bytes(self._secret))
        except MemoryError as error:
            raise ResourceError(
                "E731",
                seen=f"no memory for the {_kib(stanza) / 1024:.0f} MiB of password hashing",
                expected="that much free memory",
                fix="free some, or raise the limit of the process; a file of your own can be sealed with lower costs",
            ) from error
        except (ImportError, UnsupportedAlgorithm) as error:
            raise MissingExtra(
                "E730",
                seen=f"cryptography {cryptography.__version__}, which lacks {stanza['type']} here",
                expected="a release and an OpenSSL that have it",
                fix="pip install --upgrade cryptography; or seal with Passphrase(..., kdf=Scrypt())",
            ) from error


def argon2_available() -> bool:
    """Whether the installed `cryptography`, with its OpenSSL, has Argon2id."""
    try:
        from cryptography.hazmat.primitives.kdf import argon2

        argon2.Argon2id(salt=bytes(16), length=32, iterations=1, lanes=1, memory_cost=8)
    except (ImportError, UnsupportedAlgorithm):
        return False
    return True


def _kib(stanza: Stanza) -> int:
    costs = cast("dict[str, int]", stanza)
    return costs["memory_kib"] if stanza["type"] == "argon2id" else 2 ** costs["log_n"] * costs["r"] // 8


def _within(name: str, value: object, limits: tuple[int, int]) -> None:
    low, high = limits
    require(
        type(value) is int and low <= value <= high,
        code="E732",
        seen=f"{name} {value!r}",
        expected=f"a whole number, {low} to {high}",
        fix="choose a cost that every reader will pay",
    )


def _affordable(costs: Stanza) -> None:
    require(
        bounds.work(costs) <= bounds.MAX_WORK,
        code="E732",
        seen=f"password hashing of {bounds.work(costs)} KiB times passes",
        expected=f"at most {bounds.MAX_WORK}, which a reader does for all recipients together",
        fix="ask for less memory or fewer passes",
    )
