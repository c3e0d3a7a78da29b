"""Cost: twice the work takes longer, a larger model is larger, and the original costs what it costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

import disguises
from vambrace.assets.obfuscate.measure import height, overhead
from vambrace.assets.obfuscate.measure.inputs import Rows, read_rows
from vambrace.assets.obfuscate.measure.overhead import Memory, OverheadOptions, latency, measure_cost, memory, size
from vambrace.assets.obfuscate.measure.runtime import Network, Settings
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError

LAYERS = disguises.weights(widths=(256, 1024, 1024, 64))
ORIGINAL = disguises.dense(LAYERS)
QUICK = OverheadOptions(rounds=15, processes=1)


@pytest.fixture(scope="module")
def real() -> Rows:
    return read_rows(disguises.inputs(16, 256), Network(ORIGINAL))


def test_the_original_over_itself_is_one_and_more_work_is_more(real: Rows) -> None:
    ratios, (first, second), calls = latency(
        ORIGINAL, disguises.split(LAYERS), real, options=QUICK, keys=None, rng=Streams(0)
    )
    wall, cpu, null = ratios["wall"], ratios["cpu"], ratios["null_cpu"]
    # By processor time: the wall clock belongs to whoever else is at the machine.
    assert 0.7 < null.median < 1.4
    assert cpu.median > 1.3
    assert cpu.fastest > 1.3
    assert wall.low_quarter <= wall.median <= wall.high_quarter
    assert second > first > 0
    assert calls >= 1
    assert wall.rounds == 21
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
    options = OverheadOptions(rounds=80, sessions=8)
    ratios, *_ = latency(ORIGINAL, other, real, options=options, keys=None, rng=Streams(0))
    assert len(made) == 24
    found = ratios["cpu"]
    assert (found.rounds, found.median) == (80, pytest.approx(0.9))
    assert (found.low_quarter, found.high_quarter) == pytest.approx((0.9, 1.1))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((0.9, 1.1))
    assert ratios["null_cpu"].interval is None


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
    for few in ({"rounds": 2}, {"sessions": 1}):
        with pytest.raises(ConfigError, match="E820"):
            OverheadOptions(**few)
