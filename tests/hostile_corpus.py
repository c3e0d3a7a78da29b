"""Numbered hostile files: what a row says, and how rows are run and measured.

A corpus is a file with a list `ROWS` and a function `warm(folder)`. Each `Row` builds its files in an empty folder (no
binary is stored), and says what a user does with them and how that must end: which error, code, exit and sentence,
within how much time and memory, and without the canary that its payload would leave. Numbers are unique over all
corpora: models have 1 to 29 and 60 to 99, images 30 to 49, zips and folders 50 to 59.

All rows of a corpus run in one other process, one after the other, so that a crash is seen as one and memory can be
measured; after a crash the next row starts a fresh process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

CANARY = "canary"
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SRC = Path(__file__).resolve().parents[1] / "src"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One hostile case.

    Attributes:
        number: unique over all corpora.
        title: what is wrong with the file.
        build: writes the files into an empty folder; runs in the test process.
        act: what a user does with that folder; runs in the other process, with the folder as working directory.
        error: class name of the error that must be raised; "" where the case must load (a control).
        exit: exit code of that error.
        code: its code.
        sentence: a part of its message, so that the reason is known to be the right one.
        seconds, mebibytes: most time and most additional memory that `act` may take.
    """

    number: int
    title: str
    build: Callable[[Path], None]
    act: Callable[[Path], object]
    error: str
    exit: int
    code: str
    sentence: str
    seconds: float = 10.0
    mebibytes: int = 200


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a row ended; `error` is "crash" when the process died with it."""

    number: int
    error: str
    exit: int
    code: str
    message: str
    seconds: float
    mebibytes: float


def canary_code(folder: Path) -> str:
    """Python source that leaves the canary in `folder` when it is run."""
    return f"open({str(folder / CANARY)!r}, 'w').close()"


def run(corpus: Path, rows: Iterable[Row], folder: Path) -> dict[int, Outcome]:
    """Build every row in `folder/<number>` and run them in another process."""
    waiting = []
    for row in rows:
        place = folder / str(row.number)
        place.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that write the files
            row.build(place)
        waiting.append(row)
    outcomes: dict[int, Outcome] = {}
    while waiting:
        limit = sum(row.seconds for row in waiting) + 60
        command = [sys.executable, __file__, str(corpus), str(folder), *(str(row.number) for row in waiting)]
        path = os.pathsep.join([str(SRC), str(Path(__file__).parent)])
        environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment)
            said, log = done.stdout, done.stderr
        except subprocess.TimeoutExpired as error:
            said, log = (error.stdout or b"").decode(), "timed out"
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        outcomes.update({line["number"]: Outcome(**line) for line in lines})
        waiting = [row for row in waiting if row.number not in outcomes]
        if waiting:
            died = waiting.pop(0)
            outcomes[died.number] = Outcome(
                number=died.number, error="crash", exit=-1, code="", message=log[-2000:], seconds=0, mebibytes=0
            )
    return outcomes


def check(row: Row, outcome: Outcome, folder: Path) -> None:
    """Assert that `row` ended as it must."""
    assert (outcome.error, outcome.code, outcome.exit) == (row.error, row.code, row.exit), outcome.message
    assert row.sentence in outcome.message
    assert list(folder.rglob(CANARY + "*")) == []
    assert outcome.seconds <= row.seconds
    assert outcome.mebibytes <= row.mebibytes


def load_corpus(path: Path) -> tuple[list[Row], Callable[[Path], object]]:
    """The rows and the warm-up of a corpus file."""
    spec = importlib.util.spec_from_file_location(f"corpus_{path.parent.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.ROWS, module.warm


def _status(name: str) -> float:
    """A memory figure of this process in MiB: VmRSS (now) or VmHWM (peak)."""
    if not STATUS.exists():
        return 0.0  # not Linux: memory is not measured
    for line in STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def _measure(row: Row, place: Path) -> Outcome:
    os.chdir(place)
    if RESET.exists():
        RESET.write_text("5")  # the peak starts again, so that each row is measured by itself
    before, began = _status("VmRSS"), time.perf_counter()
    error, code, leave, message = "", "", 0, ""
    try:
        row.act(place)
    except Exception as caught:
        error, message = type(caught).__name__, str(caught)
        code, leave = getattr(caught, "code", ""), getattr(caught, "exit_code", -1)
    return Outcome(
        number=row.number,
        error=error,
        exit=leave,
        code=code,
        message=message,
        seconds=time.perf_counter() - began,
        mebibytes=_status("VmHWM") - before,
    )


def _main(corpus: str, folder: str, *numbers: str) -> None:
    rows, warm = load_corpus(Path(corpus))
    place = Path(folder) / f"warm-{os.getpid()}"
    place.mkdir()
    warm(place)
    known = {row.number: row for row in rows}
    for number in map(int, numbers):
        outcome = _measure(known[number], Path(folder) / str(number))
        sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    # The rows must be instances of the class that other files import by this module's name.
    import hostile_corpus

    hostile_corpus._main(*sys.argv[1:])
