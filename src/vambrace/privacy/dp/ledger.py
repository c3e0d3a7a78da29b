"""The ledger of private training: steps are charged on disk before they run. An append-only file, every line sealed.

    with Ledger.create(folder / "ledger", terms) as ledger:
        ledger.reserve(charge, 100)  # durable when it returns; now 100 steps may run
        ...
        ledger.spent  # what epsilon is computed from

Guarantees: a step that ran after its `reserve` returned is charged, whatever kills the process and when; a crash
over-charges by at most the steps of the open block. Damage, a second holder and use after a fork are refused. Not for
proving anything to somebody who rewrites files. Format: docs/formats/dp-ledger-v1.md. Imports no torch.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Self

from vambrace.core.files import Appender, make_folder, read_file, write_file
from vambrace.core.lock import Lock
from vambrace.errors import ConfigError, ResourceError
from vambrace.privacy.dp.history import FORMAT, ORIGIN, limit, parse, refusal, sealed

if TYPE_CHECKING:
    from pathlib import Path

    from vambrace.privacy.dp.charges import Charge, Spent
    from vambrace.privacy.dp.history import Terms

__all__ = ["Ledger"]


class Ledger:
    """The one writer of a ledger, from `create` or `open` until `close` or the end of the process.

    Attributes:
        path: the file.
        history: what it says.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        """For `create` and `open`, which hold the lock."""
        self.path = path
        self.history = parse(data := _content(path), name=str(path))
        self._lock = lock
        self._pid = os.getpid()
        self._unsettled = 0  # steps of the block that this process reserved last and has not settled
        self._sure = True  # that memory and file say the same
        self._appender = Appender(path, size=min(self.history.keep, len(data)))
        try:
            if self.history.keep > len(data):
                self._appender.append(b"\n")
            self._place = _found(path)[:2]
        except BaseException:
            self._appender.close()
            raise

    @classmethod
    def create(cls, path: Path, terms: Terms) -> Self:
        """Begin a ledger at `path`, in a folder that is made where it is missing.

        Raises:
            ConfigError: E585, when something is there already.
            ResourceError: E600 in use, E601 not writable, E603 no locks.
        """
        path = path.resolve()
        make_folder(path.parent)
        lock = _locked(path)
        try:
            if os.path.lexists(path):
                raise refusal(f"{path} is there already", "a new name", "go on with it, or begin another one elsewhere")
            header = {"format": FORMAT, "run": secrets.token_hex(16), "terms": terms.as_json()}
            write_file(path, sealed(header, ORIGIN) + b"\n")
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """Go on with the ledger at `path`.

        Raises:
            ConfigError: E585, when there is none, it is damaged, or of another version.
            ResourceError: E600 in use, E601 not writable, E603 no locks, E604 not readable.
        """
        path = path.resolve()
        if not path.exists():  # before the lock's own file is made
            raise _missing(path)
        lock = _locked(path)
        try:
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def spent(self) -> Spent:
        """All that was charged: what epsilon is computed from."""
        return self.history.spent

    @property
    def steps(self) -> int:
        """Steps charged so far, which is the number of the next one."""
        return self.history.steps

    @property
    def head(self) -> str:
        """Hash of the last line, which vouches for all; 64 hex digits."""
        return self.history.chain[-1]

    @property
    def position(self) -> int:
        """How many lines stand before the head."""
        return len(self.history.chain) - 1

    def reserve(self, charge: Charge, steps: int) -> None:
        """Charge the next `steps` steps, durably: only when this has returned may they run.

        Raises:
            ConfigError: E103 for less than one step; E585 when the ledger may not or cannot be written here: closed,
                forked, moved away, interrupted in an earlier write.
            ResourceError: E601, when it cannot be written. Nothing may run; trying again is fine.
        """
        limit(steps >= 1, "steps", steps, "1 or more")
        self._append({"kind": "charged", "charge": charge.as_json(), "first": self.history.steps, "steps": steps})
        self._unsettled = steps

    def settle(self, used_steps: int) -> None:
        """Note how many steps of the block reserved last did run. Gives nothing back: see the format for the reason.

        Where more ran than were reserved, the rest is charged at once, and E585 raised: the caller has a bug.

        Raises:
            ConfigError: E103 for less than no steps; E585 when this process has no block to settle, or as `reserve`.
            ResourceError: E601, as `reserve`.
        """
        limit(used_steps >= 0, "used_steps", used_steps, "0 or more")
        reserved = self._unsettled
        if not reserved:
            raise refusal("no block to settle", "one settle for each reserve", "settle after the steps have run")
        if used_steps > reserved:
            self.reserve(self.history.blocks[-1].charge, used_steps - reserved)
            raise refusal(
                f"{used_steps} steps ran where {reserved} were reserved; the others are charged now",
                "steps that run after they were reserved",
                "reserve enough steps before they run",
            )
        self._append({"kind": "closed", "used": used_steps})
        self._unsettled = 0

    def close(self) -> None:
        """Let others in; twice is fine."""
        self._sure = False
        self._appender.close()
        if os.getpid() == self._pid:  # a forked process shares the lock with its parent, and would end it for both
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, record: dict[str, object]) -> None:
        if os.getpid() != self._pid:
            raise refusal(
                f"{self.path} used in a forked process", "the process that opened it", "reserve before the fork"
            )
        if not self._sure:
            raise refusal(
                f"{self.path} closed, or a write to it interrupted", "an open ledger", "open it again, and resume"
            )
        line = sealed(record, self.head)
        head, entry = self.history.check(line)  # what cannot be read again is not written
        self._sure = False
        try:
            self._appender.append(line + b"\n")
        except ResourceError:
            self._sure = True  # cut back; where even that failed, the appender writes no more
            raise
        if _found(self.path) != (*self._place, self.history.keep + len(line) + 1):
            raise refusal(
                f"{self.path} was moved, replaced or written to by somebody else",
                "the ledger in its place, written by its holder only",
                "put it back, open it again, and resume",
            )
        self.history.add(line, head, entry)
        self._sure = True


def _missing(path: Path) -> ConfigError:
    return refusal(
        f"no ledger at {path}",
        "the one that was written beside the checkpoints",
        "bring it back; without it nobody knows what was spent",
    )


def _locked(path: Path) -> Lock:
    return Lock.take(path.with_name(f"{path.name}.lock"), shown=path)


def _content(path: Path) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        raise _missing(path) from None


def _found(path: Path) -> tuple[int, int, int]:
    """Which file has this name now, and its size; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_dev, found.st_ino, found.st_size
