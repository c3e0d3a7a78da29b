"""How every benchmark here measures: contenders take turns in one process; reported are ratios with their spread.

Turns, because a shared machine is not equally fast from one minute to the next; the order is reversed from round to
round, because the second one finds warm caches. A result file says on what it was measured, with which versions, at
which commit and with which seed.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "numpy", "torchattacks")


def interleaved(
    contenders: dict[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    before: Callable[[], object] = lambda: None,
) -> dict[str, list[dict[str, float]]]:
    """CPU and wall seconds of each contender in each round; `warm_up` rounds before are not reported.

    `before` is called before each turn, outside of what is measured.
    """
    times: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for turn in range(-warm_up, rounds):
        names = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
        for name in names:
            gc.collect()
            before()
            cpu, wall = time.process_time(), time.perf_counter()
            contenders[name]()
            spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            if turn >= 0:
                times[name].append(spent)
    return times


def keep_memory() -> bool:
    """Let glibc keep what is freed, for all contenders alike; False where there is no glibc.

    Left alone it hands large blocks back to the system between two layers, and a network at batch 250 then spends up
    to a quarter of a round, another share in each round, on the page faults of getting them again.
    """
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold = -1, -3
    taken = [set_option(option, 32 * 2**20) for option in (trim_threshold, mmap_threshold)]
    return taken == [1, 1]


def ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Ours over theirs, round by round: the median, the middle half, both ends, and the ratio of the fastest rounds.

    Noise on a shared machine only ever adds time, so the ratio of the fastest rounds is the steadier figure.
    """
    found = {}
    for clock in ("cpu", "wall"):
        paired = sorted(one[clock] / other[clock] for one, other in zip(ours, theirs, strict=True))
        quarter = statistics.quantiles(paired, n=4) if len(paired) > 1 else paired * 3
        found[clock] = {
            "median": paired[len(paired) // 2] if len(paired) % 2 else statistics.median(paired),
            "quarter": quarter[0],
            "three_quarters": quarter[2],
            "least": paired[0],
            "most": paired[-1],
            "fastest": min(one[clock] for one in ours) / min(other[clock] for other in theirs),
            "rounds": len(paired),
        }
    return found


def fastest(times: list[dict[str, float]]) -> dict[str, float]:
    """Seconds of the fastest round by each clock."""
    return {clock: min(one[clock] for one in times) for clock in ("cpu", "wall")}


def surroundings(seed: int, threads: int) -> dict[str, object]:
    """What a figure depends on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": {name: _version(name) for name in ("vambrace", *PACKAGES)},
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "seed": seed,
    }


def write(name: str, result: dict[str, object]) -> Path:
    """`results/<name>.json`, with floats to six digits."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(_rounded(result), indent=2) + "\n")
    return file


def say(text: str) -> None:
    """One line for whoever waits."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    found = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return found.stdout.strip()
