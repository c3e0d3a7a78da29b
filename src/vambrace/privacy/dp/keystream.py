"""Bytes that nobody can foresee, in bulk, each used once: AES-256 in counter mode under a key of the operating system.

The operating system gives 32 bytes (`os.urandom`); AES-256-CTR stretches them, at a tenth of a nanosecond a byte here
(ChaCha20 takes a fifth more, `os.urandom` itself fifteen times as much). A key serves at most 2^36 bytes, 2^32 blocks,
where counter mode differs from chance by less than 2^-64, and never leaves the object: it is not kept, not printed, and
every way of copying or storing the object is refused.
"""

from __future__ import annotations

import hashlib
import os
from threading import RLock
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from vambrace.core.options import require
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext
    from numpy.typing import NDArray

__all__ = ["Keystream"]

KEY_SERVES = 2**36
_ZEROS = memoryview(bytes(2**19))  # what is encrypted: counter mode turns zeros into the keystream itself


class _Forks:
    """How many times this process is a fork of a fork; the interpreter counts it up in every child."""

    seen = 0

    @classmethod
    def count(cls) -> None:
        cls.seen += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_Forks.count)


class Keystream:
    """An endless stream of secret bytes. Not two objects, processes or calls ever see the same ones.

    The key is new at construction, in every forked child (counted by the interpreter, and seen from the process id
    where C code forks), and after 64 GiB. Several threads may draw from one object. What is not covered: someone who
    reads this process's memory, and a snapshot of a virtual machine that is started twice; call `renew` after restoring
    one.

    Args:
        debug_seed: None for secrets. A whole number, 0 to 2^63 - 1, gives the same bytes every time, so that a program
            can be debugged; nothing drawn from it protects anybody, and `private` says so. It is not renewed by forks.

    Raises:
        ConfigError: E148, the seed is something else.
    """

    __slots__ = ("__weakref__", "_debug_seed", "_home", "_left", "_lock", "_renewals", "_stream")

    _debug_seed: int | None
    _home: tuple[int, int]
    _left: int
    _lock: RLock
    _renewals: int
    _stream: CipherContext

    def __init__(self, *, debug_seed: int | None = None) -> None:
        require(
            debug_seed is None or (type(debug_seed) is int and 0 <= debug_seed < 2**63),
            seen=f"debug_seed {debug_seed!r}",
            expected="None, or a whole number from 0 to 2**63 - 1",
            fix="leave debug_seed out for training that is to be private",
            code="E148",
        )
        self._debug_seed = debug_seed
        self._renewals = -1
        self._lock = RLock()
        self.renew()

    @property
    def private(self) -> bool:
        """False where a seed makes the stream reproducible: what is drawn then protects nobody."""
        return self._debug_seed is None

    def renew(self) -> None:
        """Take a new key. With a `debug_seed`: the next one of its own series, since no stream is ever run twice."""
        with self._lock:
            self._renewals += 1
            if self._debug_seed is None:
                key = os.urandom(32)
            else:
                key = hashlib.sha256(f"vambrace/dp/debug/{self._debug_seed}/{self._renewals}".encode()).digest()
            # Starting the counter at zero is safe because no key is used for a second stream.
            self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
            self._left = KEY_SERVES
            self._home = _here()

    def state_dict(self) -> NoReturn:
        """Refused, like pickling and copying."""
        raise _refusal(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:  # what pickle, copy, deepcopy and torch.save ask
        raise _refusal(self)

    def _locked(self) -> RLock:
        """The lock that a draw holds; a forked child gets a new one, since a thread that is not there may hold it."""
        if self._home != _here():
            self._lock = RLock()
            self._settle()
        return self._lock

    def _settle(self) -> None:
        here = _here()
        if self._home != here:
            self._home = here
            if self._debug_seed is None:
                self.renew()

    def _fill(self, target: NDArray[Any]) -> None:
        """Overwrite a contiguous array with the next bytes of the stream."""
        view = target.reshape(-1).view(np.uint8).data
        for start in range(0, len(view), len(_ZEROS)):
            part = view[start : start + len(_ZEROS)]
            self._settle()
            if self._left < len(part):
                Keystream.renew(self)  # a new key and nothing else: what subclasses drew from the old one stays
            self._left -= len(part)
            self._stream.update_into(_ZEROS[: len(part)], part)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(private={self.private})"


def _here() -> tuple[int, int]:
    return _Forks.seen, os.getpid()


def _refusal(source: Keystream) -> ConfigError:
    return ConfigError(
        "E145",
        seen=f"a try to copy or store a {type(source).__name__}",
        expected="that it stays in the process that made it: whoever has its key can take the noise off again",
        fix="leave it out of what you save or send, and make a new one there",
    )
