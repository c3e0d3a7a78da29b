"""Cost: twice the work takes longer, a larger model is larger, and the original costs what it costs."""

from __future__ import annotations

import math
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

import disguises
import onnx_nets
from vambrace.assets.obfuscate.keyinput import key_tensor, lock_by_input
from vambrace.assets.obfuscate.measure import height, overhead
from vambrace.assets.obfuscate.measure.inputs import Rows, read_rows
from vambrace.assets.obfuscate.measure.overhead import Latency, Memory, OverheadOptions, measure_cost, memory, size
from vambrace.assets.obfuscate.measure.runtime import Network, Settings
from vambrace.errors import ConfigError

LAYERS = disguises.weights(widths=(256, 1024, 1024, 64))
ORIGINAL = disguises.dense(LAYERS)
QUICK = OverheadOptions(rounds=15, processes=1)


@pytest.fixture(scope="module")
def real() -> Rows:
    return read_rows(disguises.inputs(16, 256), Network(ORIGINAL))


def test_the_original_over_itself_is_one_and_more_work_is_more(real: Rows) -> None:
    found = measure_cost(ORIGINAL, disguises.split(LAYERS), real, options=QUICK)
    first, second = found.milliseconds
    wall, cpu, null = found.wall, found.cpu, found.null_cpu
    # By processor time: the wall clock belongs to whoever else is at the machine.
    assert 0.7 < null.median < 1.4
    assert cpu.median > 1.3
    assert cpu.fastest > 1.3
    assert wall.low_quarter <= wall.median <= wall.high_quarter
    assert second > first > 0
    assert found.calls >= 1
    assert wall.rounds >= 18
    assert wall.sessions == 9
    assert wall.interval is not None
    assert wall.interval.low <= wall.median <= wall.interval.high


def test_no_session_speaks_for_its_model(real: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a session's memory lies makes it faster or slower as long as it lives, however many rounds there are.

    The interval of one session's rounds was narrow, and said of some networks what was not so.
    """
    made: list[float] = []
    clock = 0.0

    class Session(Network):
        def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
            nonlocal clock
            clock += self.seconds
            return []

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            # Three of eight, of sets of three in whatever order, have slow ones of the second model.
            self.seconds = 1.0 if given[0] is ORIGINAL else 1.1 if len(made) // 3 % 3 == 0 else 0.9
            made.append(self.seconds)

    monkeypatch.setattr(overhead, "Network", Session)
    monkeypatch.setattr(overhead, "time", SimpleNamespace(perf_counter=lambda: clock, process_time=lambda: clock))
    other = ModelProto.FromString(ORIGINAL.SerializeToString())
    options = OverheadOptions(rounds=80, sessions=8, processes=0)
    both = measure_cost(ORIGINAL, other, real, options=options)
    assert len(made) == 24
    found = both.cpu
    assert (found.rounds, found.median) == (80, pytest.approx(0.9))
    assert (found.low_quarter, found.high_quarter) == pytest.approx((0.9, 1.1))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((0.9, 1.1))
    assert both.null_cpu.interval is None


def test_long_calls_take_few_turns(real: Rows) -> None:
    times = Latency(ORIGINAL, ORIGINAL, real, settings=Settings())
    times.session(12, seconds=0.0)
    assert times.ratios()["cpu"].rounds == 3
    times.session(5)
    assert times.ratios()["cpu"].rounds >= 8
    assert times.ratios()["cpu"].sessions == 2
    few = times.ratios()["cpu"].interval
    assert few is not None
    assert few.method == "student"
    assert all(each > 0 for each in times.milliseconds())


def test_turns_go_on_for_as_long_as_making_the_sessions_took(real: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve turns of four milliseconds beside sessions that took a second to make were told by noise alone."""
    clock = 0.0

    class Session(Network):
        def __init__(self, *given: Any) -> None:
            nonlocal clock
            super().__init__(*given)
            clock += 8.0

        def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
            nonlocal clock
            clock += 1.0
            return []

    monkeypatch.setattr(overhead, "Network", Session)
    monkeypatch.setattr(overhead, "time", SimpleNamespace(perf_counter=lambda: clock, process_time=lambda: clock))
    times = Latency(ORIGINAL, ORIGINAL, real, settings=Settings(), null=False)
    for rounds, seconds, took in ((2, math.inf, 6), (9, math.inf, 9), (2, 12.0, 5), (9, 0.0, 3)):
        before = sum(map(len, times._cpu["original"]))
        times.session(rounds, seconds=seconds)
        # Sixteen seconds are eight rounds of two calls, the two that do not count among them.
        assert sum(map(len, times._cpu["original"])) - before == took


def test_the_original_beside_itself_only_where_it_is_wanted(real: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(overhead, "Network", lambda *given: made.append(given) or Network(*given))
    times = Latency(ORIGINAL, ORIGINAL, real, settings=Settings(), null=False)
    times.session(5)
    assert len(made) == 2
    assert set(times.ratios()) == {"wall", "cpu"}


def test_sessions_of_before_are_gone(real: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six networks at once stood in memory, where three do."""
    alive: weakref.WeakSet[Network] = weakref.WeakSet()
    most = 0

    class Kept(Network):
        def __init__(self, *given: Any) -> None:
            nonlocal most
            super().__init__(*given)
            alive.add(self)
            most = max(most, len(alive))

    monkeypatch.setattr(overhead, "Network", Kept)
    measure_cost(ORIGINAL, ORIGINAL, real, options=OverheadOptions(rounds=5, processes=0))
    assert most == 3


def test_bytes_of_the_file(real: Rows) -> None:
    found = size(ORIGINAL, disguises.split(LAYERS))
    assert found.original == len(ORIGINAL.SerializeToString())
    assert found.ratio == pytest.approx(2.0, rel=0.01)


@pytest.mark.skipif(height.of_this_process() is None, reason="the system does not keep VmHWM")
def test_memory_is_that_of_the_model_and_not_of_who_asks(real: Rows) -> None:
    """A heavy parent must not show: this process holds more while it asks than the one it asks about ever does."""
    ballast = np.ones(30_000_000)
    larger = ModelProto.FromString(ORIGINAL.SerializeToString())
    more = numpy_helper.from_array(np.ones((64, 200_000), np.float32), "more")
    larger.graph.initializer.append(more)
    larger.graph.node[-1].output[0] = "still"
    larger.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["more"], ["top"], axes=[1], keepdims=0),
            helper.make_node("Mul", ["still", "top"], ["logits"]),
        ]
    )
    found = memory(ORIGINAL, larger, real, options=QUICK, keys=None)
    assert ballast.nbytes == 240_000_000
    assert found is not None
    assert found.idle < found.original < 200_000_000
    assert found.obfuscated - found.original > 40_000_000
    assert found.ratio_above_idle is not None
    assert found.ratio_above_idle > 2


@pytest.mark.skipif(height.of_this_process() is None, reason="the system does not keep VmHWM")
def test_a_key_is_given_to_the_model_that_takes_it() -> None:
    """The original got it too, and the measurement ended in an error of a subprocess."""
    model = onnx_nets.residual()
    taking = lock_by_input(model, bytes(32))
    rows = read_rows(onnx_nets.feeds(model, rows=4), Network(model))
    keys = dict([key_tensor(taking, bytes(32))])
    found = memory(model, taking, rows, options=QUICK, keys=keys)
    assert found is not None
    assert found.idle < found.original <= found.obfuscated + 2**20


def test_a_process_that_dies_measures_nothing(real: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(height, "__file__", "/nowhere.py")
    assert memory(ORIGINAL, ORIGINAL, real, options=QUICK, keys=None) is None


def test_nothing_above_idle_has_no_ratio() -> None:
    assert Memory(idle=1000, original=1000, obfuscated=5000).ratio_above_idle is None


def test_all_of_it(real: Rows) -> None:
    found = measure_cost(ORIGINAL, ORIGINAL, real, options=OverheadOptions(rounds=5, processes=0))
    assert found.memory is None
    assert found.size.ratio == 1.0
    assert found.judged == (found.cpu, found.null_cpu)
    threads = OverheadOptions(rounds=5, processes=0, settings=Settings(threads=2))
    two = measure_cost(ORIGINAL, ORIGINAL, real, options=threads)
    assert two.judged == (two.wall, two.null_wall)
    data = found.as_json()
    assert data["memory_ratio"] is None
    assert data["size_ratio"] == 1.0


def test_too_few_rounds_are_refused() -> None:
    for few in ({"rounds": 2}, {"sessions": 0}):
        with pytest.raises(ConfigError, match="E820"):
            OverheadOptions(**few)
