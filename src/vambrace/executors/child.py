"""The program of a worker process: builds one task, then runs values from one pipe and answers on another.

Started as a file, not imported: `python -P child.py READ WRITE`. Its first line is JSON with the import path of the
process that started it, so that it finds the same modules; nothing of vambrace is imported before that.
Each further line is a value to run; each gets one line in answer. It ends at once when the other side is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]


def main(read: int, write: int) -> int:
    """Serve one executor until it closes the pipe."""
    # The process that started us decides when to stop: a Ctrl-C in its terminal reaches us too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    os.dup2(2, 1)  # stdout belongs to the results of whoever started us
    os.set_inheritable(read, False)
    os.set_inheritable(write, False)
    lines = _lines(read)
    hello = json.loads(next(lines))
    sys.path[:] = hello["path"]
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines, inbox), daemon=True).start()
    try:
        from vambrace.executors.base import resolve

        task = resolve(hello["factory"], hello["argument"])
    except Exception as error:  # noqa: BLE001  whatever it is, the other side must learn it
        as_json = getattr(error, "as_json", None)
        _answer(write, {"failed": as_json() if as_json else None, "log": traceback.format_exc()})
        return 1
    _answer(write, {"ready": True})
    while True:
        value = json.loads(inbox.get())
        try:
            answer: dict[str, Any] = {"value": task(value)}
        except Exception:  # noqa: BLE001  a task reports its own errors; what it lets through is a bug, said as such
            answer = {"raised": traceback.format_exc()}
        _answer(write, answer)


def _listen(lines: Iterator[bytes], inbox: queue.SimpleQueue[bytes]) -> None:
    for line in lines:
        inbox.put(line)
    os._exit(0)  # nobody is left to hear an answer


def _lines(read: int) -> Iterator[bytes]:
    rest = b""
    while block := os.read(read, 2**20):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines


def _answer(write: int, answer: dict[str, Any]) -> None:
    data = memoryview(json.dumps(answer, allow_nan=False).encode() + b"\n")
    while data:
        data = data[os.write(write, data) :]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
