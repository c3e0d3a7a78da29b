"""Tasks in this process: drawn one at a time, run when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vambrace.errors import ConfigError
from vambrace.executors import Outcome, SerialExecutor, resolve


def test_tasks_run_lazily_and_in_order() -> None:
    events: list[str] = []

    def feed() -> Iterator[tuple[int, Any]]:
        for n in range(3):
            events.append(f"draw {n}")
            yield n, n

    def task(value: Any) -> Any:
        events.append(f"run {value}")
        return 10 * value

    outcomes = SerialExecutor(task).run(feed())
    assert events == []
    assert next(outcomes) == Outcome(index=0, value=0)
    assert events == ["draw 0", "run 0"]
    assert [outcome.value for outcome in outcomes] == [10, 20]
    assert events == ["draw 0", "run 0", "draw 1", "run 1", "draw 2", "run 2"]


def test_the_same_task_by_name() -> None:
    executor = SerialExecutor(resolve("executors.executor_tasks:build", "hi"))
    (outcome,) = executor.run([(3, {"do": "double", "n": 4})])
    assert (outcome.index, outcome.value["n"], outcome.value["said"]) == (3, 8, "hi")
    executor.close()


@pytest.mark.parametrize("name", ["json:absent", "json:__name__"])
def test_what_is_no_factory(name: str) -> None:
    with pytest.raises(ConfigError, match="E512"):
        resolve(name, None)


def test_a_factory_that_gives_no_task() -> None:
    with pytest.raises(ConfigError, match="E512"):
        resolve("json:dumps", {})
