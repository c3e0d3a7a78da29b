"""Passes within a budget: costly ones go, and a model that runs the same graph is not timed."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import onnx_nets
from stopwatches import stopwatch
from vambrace.assets.obfuscate import budget, pipeline
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.core.findings import Interval
from vambrace.errors import ConfigError

INPUTS = onnx_nets.feeds(onnx_nets.residual(), rows=6)
FREE = ("metadata", "names", "order", "scaling", "signs")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Operators that the original does not have cost 4 % each; every model that was timed."""
    seen: list[set[str]] = []

    def slower(original: Any, obfuscated: Any) -> float:
        extra = Counter(onnx_nets.operators(obfuscated)) - Counter(onnx_nets.operators(original))
        seen.append(set(extra))
        return 1.0 + 0.04 * extra.total()

    monkeypatch.setattr(budget, "Latency", stopwatch(slower))
    return seen


def planned(limit: float, **given: Any) -> Any:
    return budget.plan_passes(onnx_nets.residual(), INPUTS, limit, seed=bytes(32), **given)


def test_within_a_wide_budget_nothing_goes(timed: list[set[str]]) -> None:
    found = planned(100.0, profile="tolerance")
    assert found.dropped == ()
    assert len(timed) == 1


def test_costly_ones_go_and_the_rest_stays(timed: list[set[str]]) -> None:
    found = planned(1.15, profile="tolerance")
    assert found.fits
    assert found.dropped
    kept = {one.name for one in found.kept}
    assert set(FREE) <= kept
    assert {"baked_permutation"} <= kept
    made = onnx_model(onnx_nets.residual(), profile="tolerance", passes=found.kept, seed=bytes(32))
    extra = Counter(onnx_nets.operators(made.model)) - Counter(onnx_nets.operators(onnx_nets.residual()))
    assert extra.total() <= 3


class Times:
    """In place of `Latency`: ends of intervals by how many sessions there were."""

    asked: ClassVar[list[int]] = []
    ends: ClassVar[dict[int, tuple[float, float]]] = {}
    clock = 0.0
    call = 0.0
    models: ClassVar[list[Any]] = []

    def __init__(self, _original: Any, model: Any, _real: Any, *, settings: Any, null: bool) -> None:
        assert (settings, null) == (budget.Settings(), False)
        self.sessions = 0
        Times.models.append(model)

    def session(self, rounds: int, *, seconds: float) -> None:
        assert (rounds, seconds) == (12, pytest.approx(30 / 35))
        self.sessions += 1
        Times.clock += Times.call

    def ratios(self) -> Any:
        Times.asked.append(self.sessions)
        low, high = Times.ends[self.sessions]
        interval = Interval(low=low, high=high, method="m") if low < high else None
        return {"cpu": SimpleNamespace(median=(low + high) / 2, interval=interval)}


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> type[Times]:
    Times.asked.clear()
    Times.models.clear()
    Times.ends = dict.fromkeys((3, 6, 12, 35), (0.9, 1.2))
    Times.clock, Times.call = 0.0, 0.01
    monkeypatch.setattr(budget, "Latency", Times)
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: Times.clock))
    return Times


@pytest.mark.parametrize(("limit", "most"), [(1.0, 0.005), (1.05, 0.005), (1.5, 0.05)])
def test_a_larger_budget_gives_passes_more_in_proportion(limit: float, most: float, times: type[Times]) -> None:
    times.ends[3] = (limit, limit)
    found = {one.name: one for one in planned(limit, profile="tolerance").kept}
    assert found["split_layers"].slowdown == pytest.approx(most)
    assert found["permutation"].slowdown == 0.02  # its own


def test_models_are_timed_once_each(times: type[Times]) -> None:
    """Beside others, or at another share, a pass is done as often at other places, which cost something else."""
    cost = {"alone": 1.02, "beside": 1.3, "fewer": 1.1}

    def make(passes: Any) -> Any:
        entries = [SimpleNamespace(name=name, done=int(name != "predicates")) for name, _ in passes]
        shares = dict(passes)
        model = "fewer" if shares.get("chain_layers") == 0.5 else "beside" if "rebasis" in shares else "alone"
        times.ends[3] = (cost[model], cost[model])
        return SimpleNamespace(model=model, map=SimpleNamespace(passes=entries, obfuscated=model))

    measure: Any = budget._timed(None, None, make, 1.15)  # type: ignore[arg-type]  nothing of them is looked at
    chain = ("chain_layers", 1.0)
    assert measure([chain]) == 1.02
    assert measure([("rebasis", 1.0), chain]) == 1.3
    assert measure([("chain_layers", 0.5)]) == 1.1
    assert measure([("predicates", 1.0), chain]) == 1.02
    assert measure([("rebasis", 1.0), ("predicates", 1.0)]) == 1.0
    assert times.models == ["alone", "beside", "fewer"]


def test_what_may_be_over_the_budget_is(times: type[Times]) -> None:
    """Medians of a busy machine are below it by chance now and then."""
    dropped = planned(1.1, profile="tolerance").dropped
    assert {"disguises", "phantoms"} <= set(dropped)
    assert "split_layers" not in dropped, "it finds no place in this network, and is not to blame"
    times.ends[35] = (0.9, 1.05)
    assert planned(1.1, profile="tolerance").dropped == ()


@pytest.mark.parametrize(
    ("ends", "asked", "dropped"),
    [
        ({6: (1.0, 1.06)}, [3, 6], ()),
        ({35: (1.08, 1.1)}, [3, 6, 12, 35], ()),
        ({3: (0.9, 1.1)}, [3], ()),  # no more than it for certain
        ({3: (1.1, 1.2), 35: (1.08, 1.1)}, [3, 6, 12, 35], ()),
        ({3: (1.11, 1.2)}, [3], ("phantoms",)),  # above it for certain
        ({12: (1.095, 1.104)}, [3, 6, 12], ("phantoms",)),  # more of them would say the same but for a hair
        ({12: (0.95, 1.3), 35: (0.9, 1.0)}, [3, 6, 12], ("phantoms",)),  # not likely to come down so far
        ({6: (0.95, 1.3), 35: (0.9, 1.0)}, [3, 6, 12, 35], ()),  # of few it may
        ({}, [3, 6, 12, 35], ("phantoms",)),
    ],
)
def test_what_is_left_open_is_measured_for_longer(
    ends: dict[int, tuple[float, float]], asked: list[int], dropped: tuple[str, ...], times: type[Times]
) -> None:
    times.ends |= ends
    assert planned(1.1).dropped == dropped
    assert times.asked[: len(asked)] == asked
    assert set(times.asked) == set(asked)


def test_a_measurement_ends_after_a_while(times: type[Times]) -> None:
    times.call = 0.9  # seconds: 31 for the longest
    assert planned(1.1).dropped == ("phantoms",)
    assert set(times.asked) == {3, 6, 12}


def test_what_runs_the_same_is_not_timed(timed: list[set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "profile_names", lambda profile: FREE)
    found = planned(1.0)
    assert found.ratio == 1.0
    assert timed == []


def test_refused() -> None:
    with pytest.raises(ConfigError, match="E820"):
        budget.plan_passes(onnx_nets.residual(), np.zeros((3, 99), np.float32), 1.05)
    with pytest.raises(ConfigError, match="E839"):
        planned(0.0)
