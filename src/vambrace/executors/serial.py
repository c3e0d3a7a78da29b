"""Units in this process, one after the other: no start-up cost, and the only way for models that live in memory.

>>> [outcome.value["heard"] for outcome in SerialExecutor(echo("")).run([(0, "a"), (1, "b")])]
['a', 'b']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.executors.base import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vambrace.executors.base import Task

__all__ = ["SerialExecutor", "echo"]

Json = Any


class SerialExecutor:
    """Runs tasks here.

    Args:
        task: what runs them; see `vambrace.executors.resolve` for one by name.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    def run(self, tasks: Iterable[tuple[int, Json]]) -> Iterator[Outcome]:
        """Run each task when its outcome is asked for."""
        for index, task in tasks:
            yield Outcome(index=index, value=self._task(task))

    def close(self) -> None:
        """Nothing runs between two outcomes."""


def echo(argument: Json) -> Task:
    """A task that says what it was built from and what it was given: for trying executors out."""
    return lambda task: {"said": argument, "heard": task}
