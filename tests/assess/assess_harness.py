"""Shared by tests that run, break and resume whole assessments: system calls that fail or kill, and what must hold."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vambrace.assess.journal import parse
from vambrace.assess.rundir import read_run_file
from vambrace.core import files


class Counting(files.System):
    """Counts the system calls that durability rests on, and acts at the N-th."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.calls: list[str] = []

    def act(self, call: str, fd: int, data: bytes) -> None:
        """At the N-th call."""

    def _call(self, call: str, fd: int = -1, data: bytes = b"") -> None:
        self.calls.append(call)
        if len(self.calls) == self.at:
            self.act(call, fd, data)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._call("write", fd, bytes(data))
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self._call("fsync")
        super().fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._call("truncate")
        super().truncate(fd, size)

    def replace(self, source: Path, target: Path) -> None:
        self._call(f"replace {target.name}")
        super().replace(source, target)

    def mkdir(self, path: Path) -> None:
        self._call("mkdir")
        super().mkdir(path)


class Failing(Counting):
    """The N-th call fails, after half of its bytes where it writes."""

    def __init__(self, at: int, code: int = errno.ENOSPC) -> None:
        super().__init__(at)
        self.code = code

    def act(self, call: str, fd: int, data: bytes) -> None:
        if call == "write":
            os.write(fd, data[: len(data) // 2])
        raise OSError(self.code, os.strerror(self.code))


class Killing(Counting):
    """The process is killed in the N-th call, after half of its bytes where it writes."""

    def act(self, call: str, fd: int, data: bytes) -> None:
        if call == "write":
            os.write(fd, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)


def in_fork(work: Callable[[], Any]) -> int:
    """Run `work` in a forked process; its exit code, or minus the signal that killed it."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            outcome = work()
            code = outcome if isinstance(outcome, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def only_run(out: Path) -> Path | None:
    """The one run directory below `out`; None where there is none."""
    found = [entry for entry in out.iterdir() if not entry.name.startswith(".")] if out.exists() else []
    assert len(found) <= 1, found
    return found[0] if found else None


def finished_keys(run: Path) -> dict[str, int]:
    """Unit keys that the journal of `run` holds, with the number of their records."""
    parsed = parse((run / "journal").read_bytes(), read_run_file(run).run)
    assert all(damage.kind == "torn" for damage in parsed.damage)
    keys = [record.key for record in parsed.units]
    return {key: keys.count(key) for key in keys}


def leftovers(run: Path) -> list[str]:
    """Temporary files below `run`."""
    return [path.name for path in run.rglob("*") if path.name.startswith(".")]
