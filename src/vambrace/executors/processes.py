"""Units in other processes: fresh interpreters, one unit in flight each, replaced when they die.

Workers are started as programs, not forked and not through `multiprocessing`: no lock or thread of this process is
copied, the caller's script needs no main guard, and only JSON crosses the pipes. A worker that dies (a crash in
native code, the kernel's out-of-memory killer) costs one more try of its unit on a new worker; a unit that kills two is
handed out as lost. Not for models that live in memory: a worker builds its own from the plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vambrace import errors
from vambrace.errors import ResourceError, VambraceError
from vambrace.executors.base import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ProcessExecutor"]

Json = Any

_PROGRAM = Path(__file__).with_name("child.py")
_HELD_BACK = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_TRIES = 2
_LOOK = 0.5  # seconds between looks at whether a worker lives although its pipe is open


class ProcessExecutor:
    """Runs tasks in `workers` other processes.

    Args:
        factory: "pkg.mod:factory", built in each worker.
        argument: its JSON argument.
        workers: how many at a time; started as they are needed.
    """

    def __init__(self, factory: str, argument: Json, *, workers: int) -> None:
        self._hello = {"path": sys.path, "factory": factory, "argument": argument}
        self._workers = workers
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()

    def run(self, tasks: Iterable[tuple[int, Json]]) -> Iterator[Outcome]:
        """Run the tasks, as many at a time as there are workers; see `Executor`."""
        feed = iter(tasks)
        again: deque[_Work] = deque()
        while True:
            self._assign(feed, again)
            if not any(child.work for child in self._children):
                return
            for child in self._ready():
                yield from self._hear(child, again)

    def close(self) -> None:
        """Kill every worker."""
        for child in self._children:
            child.end()
        self._children.clear()
        self._selector.close()

    def _assign(self, feed: Iterator[tuple[int, Json]], again: deque[_Work]) -> None:
        """Give work to whoever is free; the feed is asked only when somebody is."""
        while True:
            idle = next((child for child in self._children if child.work is None), None)
            if idle is None and len(self._children) >= self._workers:
                return
            if again:
                work = again.popleft()
            else:
                drawn = next(feed, None)
                if drawn is None:
                    return
                work = _Work(*drawn)
            if idle is None:
                idle = _Child.start(self._hello)
                self._children.append(idle)
                self._selector.register(idle.read, selectors.EVENT_READ, idle)
            idle.give(work)

    def _ready(self) -> list[_Child]:
        """Workers that said something or died; waits until there is one."""
        while True:
            found = [key.data for key, _ in self._selector.select(_LOOK)]
            # A process that a worker forked may hold its pipe open after its death.
            found += [child for child in self._children if child not in found and child.process.poll() is not None]
            if found:
                return found

    def _hear(self, child: _Child, again: deque[_Work]) -> Iterator[Outcome]:
        alive = child.listen()
        for answer in child.answers():
            if "failed" in answer:
                raise _startup_error(answer)
            if "raised" in answer:
                raise RuntimeError(f"a task raised in a worker:\n{answer['raised']}")
            if "value" in answer and child.work is not None:
                work, child.work = child.work, None
                yield Outcome(index=work.index, value=answer["value"], deaths=tuple(work.deaths))
        if not alive:
            self._selector.unregister(child.read)
            self._children.remove(child)
            death = child.end()
            if child.work is None:
                return
            work = child.work
            work.deaths.append(death)
            if len(work.deaths) < _TRIES:
                again.append(work)
            elif not child.ready:
                raise ResourceError(
                    "E612",
                    seen=f"a worker that {death} before it began to work, twice",
                    expected="worker processes that start",
                    fix="see the lines it wrote above; try --workers 1, which needs no other process",
                )
            else:
                yield Outcome(index=work.index, value=None, deaths=tuple(work.deaths), lost=True)


@dataclass(slots=True)
class _Work:
    index: int
    task: Json
    deaths: list[str] = field(default_factory=list[str])


@dataclass(slots=True, eq=False)
class _Child:
    """One worker process and our ends of its two pipes."""

    process: subprocess.Popen[bytes]
    read: int
    write: int
    work: _Work | None = None
    ready: bool = False
    heard: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls, hello: Json) -> _Child:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Signals wait until the worker ignores them: a Ctrl-C must not kill it while it starts.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            process = subprocess.Popen(  # noqa: S603  our own program, no shell
                [sys.executable, "-P", str(_PROGRAM), str(theirs_in), str(theirs_out)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs_in, theirs_out),
            )
        except OSError as error:
            os.close(ours_in)
            os.close(ours_out)
            raise ResourceError(
                "E612", seen=f"{error.strerror} starting a worker", expected="room for a process", fix="lower --workers"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(ours_in, False)
        child = cls(process, ours_in, ours_out)
        child.say(hello)
        return child

    def give(self, work: _Work) -> None:
        self.work = work
        self.say(work.task)

    def say(self, value: Json) -> None:
        data = memoryview(json.dumps(value, allow_nan=False).encode() + b"\n")
        # A worker that died meanwhile is found by listening to it.
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self.write, data) :]

    def listen(self) -> bool:
        """Take in what it said; False when it is dead and everything was heard."""
        dead = self.process.poll() is not None
        while True:
            try:
                block = os.read(self.read, 2**20)
            except BlockingIOError:
                return not dead
            if not block:
                return False
            self.heard += block

    def answers(self) -> Iterator[Json]:
        *lines, rest = bytes(self.heard).split(b"\n")
        self.heard = bytearray(rest)
        for line in lines:
            answer = json.loads(line)
            self.ready = self.ready or "ready" in answer
            yield answer

    def end(self) -> str:
        """Make sure that it is gone, and say how it went."""
        with contextlib.suppress(OSError):
            self.process.kill()
        code = self.process.wait()
        for fd in (self.read, self.write):
            os.close(fd)
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
            return f"was killed by signal {-code}"
        return f"ended with exit code {code}"


def _startup_error(answer: Json) -> Exception:
    failed = answer["failed"]
    kind = getattr(errors, failed["type"], None) if failed else None
    if isinstance(kind, type) and issubclass(kind, VambraceError):
        return kind(failed["code"], seen=failed["seen"], expected=failed["expected"], fix=failed["fix"])
    return RuntimeError(f"a worker could not be built:\n{answer['log']}")
