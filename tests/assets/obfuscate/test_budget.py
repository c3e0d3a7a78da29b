"""Passes within a budget: costly ones go, and a model that runs the same graph is not timed."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import onnx_nets
from vambrace.assets.obfuscate import budget, pipeline
from vambrace.assets.obfuscate.measure.overhead import OverheadOptions
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.core.findings import Interval
from vambrace.errors import ConfigError

INPUTS = onnx_nets.feeds(onnx_nets.residual(), rows=6)
FREE = ("metadata", "names", "order", "scaling", "signs")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Operators that the original does not have cost 4 % each; every model that was timed."""
    seen: list[set[str]] = []

    def latency(original: Any, obfuscated: Any, real: Any, **_: Any) -> Any:
        before, after = (onnx_nets.operators(model) for model in (original, obfuscated))
        extra = Counter(after) - Counter(before)
        seen.append(set(extra))
        return {"cpu": SimpleNamespace(median=1.0 + 0.04 * extra.total(), interval=None)}, (1.0, 1.0), 1

    monkeypatch.setattr(budget, "latency", latency)
    return seen


def planned(limit: float, **given: Any) -> Any:
    return budget.plan_passes(onnx_nets.residual(), INPUTS, limit, seed=bytes(32), ratio="large", **given)


def test_within_a_wide_budget_nothing_goes(timed: list[set[str]]) -> None:
    found = planned(100.0, profile="tolerance")
    assert found.dropped == ()
    assert len(timed) == 1


@pytest.mark.parametrize(("limit", "most"), [(1.0, 0.005), (1.05, 0.005), (1.5, 0.05)])
def test_a_larger_budget_gives_passes_more_in_proportion(
    limit: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = SimpleNamespace(median=limit, interval=None)
    monkeypatch.setattr(budget, "latency", lambda *_, **__: ({"cpu": same}, (1.0, 1.0), 1))
    found = {one.name: one for one in planned(limit, profile="tolerance").kept}
    assert found["split_layers"].slowdown == pytest.approx(most)
    assert found["permutation"].slowdown == 0.02  # its own


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


def test_models_are_timed_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside others, or at another share, a pass is done as often at other places, which cost something else."""
    cost = {"alone": 1.02, "beside": 1.3, "fewer": 1.1}
    timed: list[str] = []

    def latency(_: Any, model: str, *__: Any, **___: Any) -> Any:
        timed.append(model)
        return {"cpu": SimpleNamespace(median=cost[model], interval=None)}, (1.0, 1.0), 1

    def make(passes: Any) -> Any:
        entries = [SimpleNamespace(name=name, done=int(name != "predicates")) for name, _ in passes]
        shares = dict(passes)
        model = "fewer" if shares.get("chain_layers") == 0.5 else "beside" if "rebasis" in shares else "alone"
        return SimpleNamespace(model=model, map=SimpleNamespace(passes=entries, obfuscated=model))

    monkeypatch.setattr(budget, "latency", latency)
    measure: Any = budget._timed(None, None, make, 1.15)  # type: ignore[arg-type]  nothing of them is looked at
    chain = ("chain_layers", 1.0)
    assert measure([chain]) == 1.02
    assert measure([("rebasis", 1.0), chain]) == 1.3
    assert measure([("chain_layers", 0.5)]) == 1.1
    assert measure([("predicates", 1.0), chain]) == 1.02
    assert measure([("rebasis", 1.0), ("predicates", 1.0)]) == 1.0
    assert timed == ["alone", "beside", "fewer"]


def test_what_may_be_over_the_budget_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Medians of a busy machine are below it by chance now and then."""
    high = {"end": 1.2}

    def latency(*_: Any, **__: Any) -> Any:
        unsure = Interval(low=0.9, high=high["end"], method="order statistics")
        return {"cpu": SimpleNamespace(median=1.01, interval=unsure)}, (1.0, 1.0), 1

    monkeypatch.setattr(budget, "latency", latency)
    dropped = planned(1.1, profile="tolerance").dropped
    assert {"disguises", "phantoms"} <= set(dropped)
    assert "split_layers" not in dropped, "it finds no place in this network, and is not to blame"
    high["end"] = 1.05
    assert planned(1.1, profile="tolerance").dropped == ()


def test_what_is_left_open_is_measured_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ends = {36: (0.9, 1.2), 150: (0.9, 1.2), 768: (0.9, 1.2)}
    call, now = 0.001, 0.0

    def latency(*_: Any, options: OverheadOptions, **__: Any) -> Any:
        nonlocal now
        asked.append(options.rounds)
        assert options.rounds / options.sessions in {12, 25, 64}
        now += call * options.rounds
        low, high = ends[options.rounds]
        found = SimpleNamespace(median=(low + high) / 2, interval=Interval(low=low, high=high, method="m"))
        return {"cpu": found}, (1.0, 1.0), 2

    monkeypatch.setattr(budget, "latency", latency)
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: now))
    ends[150] = (1.0, 1.06)
    assert planned(1.1).dropped == ()
    assert asked == [36, 150]
    asked.clear()
    ends[150] = (0.9, 1.2)
    ends[768] = (1.08, 1.1)
    assert planned(1.1).dropped == ()
    assert asked == [36, 150, 768]
    asked.clear()
    ends[36] = (0.9, 1.1)  # no more than it for certain
    assert planned(1.1).dropped == ()
    assert asked == [36]
    asked.clear()
    ends[36] = (1.1, 1.2)
    assert planned(1.1).dropped == ()
    assert asked == [36, 150, 768]
    asked.clear()
    ends[36] = (1.11, 1.2)  # above it for certain
    assert planned(1.1).dropped == ("phantoms",)
    assert set(asked) == {36}
    asked.clear()
    ends[36] = (0.9, 1.2)
    call = 0.04  # seconds: 31 for the longest
    assert planned(1.1).dropped == ("phantoms",)
    assert set(asked) == {36, 150}
    asked.clear()
    call = 0.001
    ends[36] = (1.095, 1.104)  # a longer one would say the same but for a hair
    assert planned(1.1).dropped == ("phantoms",)
    assert set(asked) == {36}


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
