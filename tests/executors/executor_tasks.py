"""Tasks for executor tests, built by name in whatever process runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vambrace.errors import ModelRefused


def build(argument: Any) -> Callable[[Any], Any]:
    """A task that does what it is told: {"do": what, ...}."""

    def task(value: Any) -> Any:
        match value["do"]:
            case "double":
                return {"n": 2 * value["n"], "said": argument, "pid": os.getpid()}
            case "die":
                os.kill(os.getpid(), value.get("signal", signal.SIGKILL))
            case "die once":
                if not Path(value["mark"]).exists():
                    Path(value["mark"]).write_text("")
                    os.kill(os.getpid(), signal.SIGKILL)
                return {"n": 1}
            case "exit":
                os._exit(7)
            case "die, child lives":
                # A grandchild keeps the pipe open after its parent's death.
                if os.fork() == 0:
                    time.sleep(20)
                    os._exit(0)
                os.kill(os.getpid(), signal.SIGKILL)
            case "sleep":
                Path(value["mark"]).write_text(str(os.getpid()))
                time.sleep(value["seconds"])
                return {"n": 0}
            case "raise":
                raise KeyError("not foreseen")
            case "print":
                print("noise on stdout")
                sys.stdout.flush()
                subprocess.run([sys.executable, "-c", "print('more noise')"])
                return {"n": 0}
            case "big":
                return {"text": "x" * value["size"]}
        raise AssertionError(value)

    return task


def refuses(_argument: Any) -> Callable[[Any], Any]:
    raise ModelRefused("E203", seen="a", expected="b", fix="c")


def breaks(_argument: Any) -> Callable[[Any], Any]:
    raise ZeroDivisionError("while building")


def dies(_argument: Any) -> Callable[[Any], Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


no_factory = 3
