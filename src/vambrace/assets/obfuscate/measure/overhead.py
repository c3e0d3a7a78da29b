"""What obfuscation costs: time of a call, bytes of the file, and memory of a process that loads and runs the model.

Time is measured in one process, under the same settings, in turns of every order, because a shared machine
is not equally fast from one minute to the next and who comes second finds warm caches. A turn is as
many calls as fill a few milliseconds. Nor is a session as fast as another of the same model: where its memory lies
makes a small network faster or slower by a few percent as long as the session lives, which no number of rounds evens
out. So there are several of each model, one after the other, and what is judged is the median of what they say.

With one thread, processor time is judged: it is the latency of a machine that has nothing else to do. With more, the
wall clock is. `null` is the original beside a second session of itself, by the same clock: what its ratio is away from
1 is noise.

Memory is the height of a fresh process (VmHWM, of Linux), least of several, and beside it the height of a process that
only imports the runtime. Where the system does not keep that figure, memory is not measured.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vambrace.assets.obfuscate.measure import height
from vambrace.assets.obfuscate.measure.equality import check_pair
from vambrace.assets.obfuscate.measure.runtime import LEVELS, Network, Settings
from vambrace.core.intervals import median_interval, student
from vambrace.core.options import Options
from vambrace.core.options import require as hold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.inputs import Rows
    from vambrace.core.findings import Interval

__all__ = ["Latency", "Memory", "Overhead", "OverheadOptions", "Ratio", "Size", "measure_cost", "memory", "size"]

_TURN_SECONDS = 0.004
_FEWEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OverheadOptions(Options):
    """How cost is measured.

    Attributes:
        settings: of all sessions.
        rounds: pairs of turns, at least.
        sessions: of each model, which share the rounds evenly; fewer than six have a wide interval.
        processes: fresh processes for each memory figure; 0 measures none.
    """

    settings: Settings = Settings()
    rounds: int = 101
    sessions: int = 9
    processes: int = 3

    def __post_init__(self) -> None:
        hold(
            self.rounds >= 5 and self.sessions >= 1 and self.processes >= 0,
            code="E820",
            seen=f"{self.rounds} rounds, {self.sessions} sessions and {self.processes} processes",
            expected="at least 5 rounds, a session, and no negative number",
            fix="leave them out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Times of one session over those of another, round by round.

    Attributes:
        median: of the medians of sessions.
        low_quarter, high_quarter: of all ratios.
        fastest: of the fastest turns: noise only ever adds time, so this is the steadier figure.
        interval: of the median, by the sessions' own; of few of them Student's, and none of one.
        rounds: how many ratios.
        sessions: from how many sessions of each model.
    """

    median: float
    low_quarter: float
    high_quarter: float
    fastest: float
    interval: Interval | None
    rounds: int
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Bytes of the two models as files."""

    original: int
    obfuscated: int

    @property
    def ratio(self) -> float:
        """Obfuscated over original."""
        return self.obfuscated / self.original


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Heights of processes in bytes.

    Attributes:
        idle: imports the runtime and reads the rows.
        original, obfuscated: also loads the model and runs the rows.
    """

    idle: int
    original: int
    obfuscated: int

    @property
    def ratio(self) -> float:
        """Of whole processes."""
        return self.obfuscated / self.original

    @property
    def ratio_above_idle(self) -> float | None:
        """Of what the models add; None where the original adds less than a page."""
        added = self.original - self.idle
        return (self.obfuscated - self.idle) / added if added > 4096 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """What `measure_cost` found.

    Attributes:
        wall, cpu: obfuscated over original, by either clock.
        null_wall, null_cpu: the original over itself.
        milliseconds: median of one call of the original and of the obfuscated model, by the wall clock.
        calls: in a turn.
        clock: which one is judged: "processor time" or "wall clock".
        settings: of all sessions.
        size: of the files.
        memory: None where it was not measured.
    """

    wall: Ratio
    cpu: Ratio
    null_wall: Ratio
    null_cpu: Ratio
    milliseconds: tuple[float, float]
    calls: int
    clock: Literal["processor time", "wall clock"]
    settings: str
    size: Size
    memory: Memory | None

    @property
    def judged(self) -> tuple[Ratio, Ratio]:
        """By the clock that is judged: the obfuscated over the original, and the original over itself."""
        by_cpu = self.clock == "processor time"
        return (self.cpu, self.null_cpu) if by_cpu else (self.wall, self.null_wall)

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        found: dict[str, object] = asdict(self)
        return found | {
            "size_ratio": self.size.ratio,
            "memory_ratio": self.memory.ratio if self.memory else None,
            "memory_ratio_above_idle": self.memory.ratio_above_idle if self.memory else None,
        }


def measure_cost(
    original: ModelProto,
    obfuscated: ModelProto,
    real: Rows,
    *,
    options: OverheadOptions | None = None,
    keys: Mapping[str, NDArray[Any]] | None = None,
) -> Overhead:
    """Time, size and memory of two models that compute the same.

    Args:
        original: an onnx.ModelProto.
        obfuscated: another.
        real: rows for the original; calls go through them in turn.
        options: settings, rounds and processes.
        keys: inputs that only the obfuscated model has.

    Raises:
        ArtifactRefused: E821 to E823.
    """
    chosen = options or OverheadOptions()
    measured = memory(original, obfuscated, real, options=chosen, keys=keys) if chosen.processes else None
    times = Latency(original, obfuscated, real, settings=chosen.settings, keys=keys)
    for _ in range(chosen.sessions):
        times.session(-(-chosen.rounds // chosen.sessions))
    return Overhead(
        **times.ratios(),
        milliseconds=times.milliseconds(),
        calls=times.calls,
        clock="processor time" if chosen.settings.threads == 1 else "wall clock",
        settings=chosen.settings.title,
        size=size(original, obfuscated),
        memory=measured,
    )


def size(original: ModelProto, obfuscated: ModelProto) -> Size:
    """Bytes of the serialised models, weights inside."""
    return Size(original=original.ByteSize(), obfuscated=obfuscated.ByteSize())


class Latency:
    """Times of two models, and of the first beside itself unless that is not wanted, session by session.

    Args:
        original: an onnx.ModelProto.
        obfuscated: another.
        real: rows for the original.
        settings: of all sessions.
        keys: inputs that only the obfuscated model has.
        null: whether the first is also measured beside itself.

    Attributes:
        calls: in a turn; 0 before the first session.

    Raises:
        ArtifactRefused: E821 to E823, by `session`.
    """

    def __init__(
        self,
        original: ModelProto,
        obfuscated: ModelProto,
        real: Rows,
        *,
        settings: Settings,
        keys: Mapping[str, NDArray[Any]] | None = None,
        null: bool = True,
    ) -> None:
        self.calls = 0
        self._made: dict[str, Callable[[], Network]] = {
            "original": lambda: Network(original, settings),
            "obfuscated": lambda: Network(obfuscated, settings, keys),
        }
        if null:
            self._made["again"] = lambda: Network(original, settings)
        self._orders = list(itertools.permutations(self._made))
        self._rows = [arrays for _, arrays in real.first(16 * real.batch).calls()]
        self._wall: dict[str, list[list[float]]] = {name: [] for name in self._made}
        self._cpu: dict[str, list[list[float]]] = {name: [] for name in self._made}

    def session(self, rounds: int, *, seconds: float = math.inf) -> None:
        """Make a session of each, and let them take so many turns, and more until that took as long as making them.

        More turns than wanted cost little beside what a session costs, and are what makes it exact where the machine
        is not at rest. After so many seconds there are no more than three.
        """
        orders, number = self._orders, len(self._wall["original"])
        begin = time.perf_counter()
        networks = {name: self._made[name]() for name in orders[number % len(orders)]}
        made = time.perf_counter() - begin
        check_pair(networks["original"], networks["obfuscated"])
        self.calls = self.calls or _calls_a_turn(networks["original"], self._rows)
        for name in networks:
            self._wall[name].append([])
            self._cpu[name].append([])
        begin = time.perf_counter()
        for lap in itertools.count(-2):
            passed = time.perf_counter() - begin
            if (lap >= rounds and passed >= made) or (lap >= _FEWEST and passed > seconds):
                break
            for name in orders[(number + lap) % len(orders)]:
                took, work = _taken(networks[name], self._rows, self.calls)
                if lap >= 0:
                    self._wall[name][-1].append(took)
                    self._cpu[name][-1].append(work)

    def ratios(self) -> dict[str, Ratio]:
        """By name: wall, cpu, and where it was wanted null_wall, null_cpu."""
        wall, cpu = self._wall, self._cpu
        found = {
            "wall": _ratio(wall["obfuscated"], wall["original"]),
            "cpu": _ratio(cpu["obfuscated"], cpu["original"]),
        }
        if "again" in self._made:
            found["null_wall"] = _ratio(wall["again"], wall["original"])
            found["null_cpu"] = _ratio(cpu["again"], cpu["original"])
        return found

    def milliseconds(self) -> tuple[float, float]:
        """Medians of a call of both, by the wall clock."""
        first, second = (float(np.median(np.concatenate(self._wall[name]))) for name in ("original", "obfuscated"))
        return 1e3 * first / self.calls, 1e3 * second / self.calls


def memory(
    original: ModelProto,
    obfuscated: ModelProto,
    real: Rows,
    *,
    options: OverheadOptions,
    keys: Mapping[str, NDArray[Any]] | None,
) -> Memory | None:
    """Heights of fresh processes, each the least of several; None where the system does not say."""
    if height.of_this_process() is None:
        return None
    with tempfile.TemporaryDirectory(prefix="vambrace-") as folder:
        rows = Path(folder, "rows.npz")
        arrays = next(iter(real.first(real.batch).calls()))[1]
        _write(rows, {f"row{place}": array for place, array in enumerate(arrays)})
        none, fixed = Path(folder, "none.npz"), Path(folder, "fixed.npz")
        _write(none, {})
        _write(fixed, dict(keys or {}))
        found: dict[str, int] = {}
        for name, model in (("idle", None), ("original", original), ("obfuscated", obfuscated)):
            path = Path(folder, f"{name}.onnx")
            if model is not None:
                path.write_bytes(model.SerializeToString())
            more = fixed if name == "obfuscated" else none
            command = [sys.executable, "-P", height.__file__, *(str(each) for each in (path, rows, more))]
            command += [LEVELS[options.settings.level], str(options.settings.threads)]
            heights = [_height(command) for _ in range(options.processes)]
            if None in heights:  # it was killed, or could not be started
                return None
            found[name] = min(each for each in heights if each is not None)
    return Memory(**found)


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def _height(command: list[str]) -> int | None:
    said = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own file
    return int(said.stdout) if said.returncode == 0 else None


def _taken(network: Network, calls: list[list[NDArray[Any]]], turn: int) -> tuple[float, float]:
    """Seconds of a turn, by the wall clock and of the processor."""
    cpu, wall = time.process_time(), time.perf_counter()
    for place in range(turn):
        network.run(calls[place % len(calls)])
    return time.perf_counter() - wall, time.process_time() - cpu


def _calls_a_turn(network: Network, calls: list[list[NDArray[Any]]]) -> int:
    network.run(calls[0])
    begin = time.perf_counter()
    network.run(calls[0])
    return max(1, min(1000, round(_TURN_SECONDS / max(time.perf_counter() - begin, 1e-6))))


def _ratio(ours: list[list[float]], theirs: list[list[float]]) -> Ratio:
    """Of times by session and round."""
    rounds = [np.asarray(one) / np.maximum(np.asarray(other), 1e-9) for one, other in zip(ours, theirs, strict=True)]
    each, ratios = [float(np.median(one)) for one in rounds], np.concatenate(rounds)
    low, high = np.quantile(ratios, (0.25, 0.75))
    return Ratio(
        median=float(np.median(each)),
        low_quarter=float(low),
        high_quarter=float(high),
        fastest=min(map(min, ours)) / max(min(map(min, theirs)), 1e-9),
        interval=median_interval(each) or student(each),
        rounds=len(ratios),
        sessions=len(each),
    )
