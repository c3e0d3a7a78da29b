"""How long a beginner waits: `vambrace --help`, and `vambrace demo` from its start to its report.

    python benchmarks/bench_start.py                   # on an idle machine; writes results/start.json
    python benchmarks/bench_start.py --helps 5 --demos 1

`--help` takes turns with an interpreter that does nothing, so that its own share can be seen. The demo trains, measures
and reports in a process of its own and in a folder of its own; CPU seconds are those of that process and its children.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import interleave


def spent(command: list[str], folder: Path) -> dict[str, float]:
    """Wall and CPU seconds of one command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def spread(times: list[dict[str, float]]) -> dict[str, object]:
    """Median, middle half and ends of each clock."""
    found: dict[str, object] = {"n": len(times)}
    for clock in ("wall", "cpu"):
        values = sorted(one[clock] for one in times)
        quarters = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        found[clock] = {
            "median": statistics.median(values),
            "quarter": quarters[0],
            "three_quarters": quarters[2],
            "least": values[0],
            "most": values[-1],
        }
    return found


def start_up(rounds: int, vambrace: list[str]) -> dict[str, object]:
    """`vambrace --help` beside an interpreter that does nothing."""
    contenders = {"help": [*vambrace, "--help"], "python": [sys.executable, "-c", "pass"]}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for turn in range(-1, rounds):
        for name, command in contenders.items():
            taken = spent(command, Path.cwd())
            if turn >= 0:
                times[name].append(taken)
    return {name: spread(taken) for name, taken in times.items()}


def demo(rounds: int, vambrace: list[str]) -> dict[str, object]:
    """`vambrace demo`, and what it leaves behind."""
    times: list[dict[str, float]] = []
    sizes: dict[str, int] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            times.append(spent([*vambrace, "demo"], Path(folder)))
            run = Path(folder, "runs", "demo")
            sizes = {
                "html_bytes": (run / "report.html").stat().st_size,
                "run_bytes": sum(file.stat().st_size for file in run.rglob("*") if file.is_file()),
            }
        interleave.say(f"demo: {times[-1]}")
    return {**spread(times), **sizes}


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--helps", type=int, default=20)
    parser.add_argument("--demos", type=int, default=3)
    given = parser.parse_args()
    vambrace = [sys.executable, "-m", "vambrace"]
    result: dict[str, object] = {"surroundings": interleave.surroundings(0, 1)}
    result |= start_up(given.helps, vambrace)
    interleave.say(f"--help: {result['help']}")
    result["demo"] = demo(given.demos, vambrace)
    full = given.helps >= 20 and given.demos >= 3
    interleave.say(f"written to {interleave.write('start' if full else 'start-quick', result)}")


if __name__ == "__main__":
    main()
