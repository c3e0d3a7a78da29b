"""What every executor does: JSON values in, JSON values out, in any order.

A task is a function from JSON to JSON. Other processes get it by name: "pkg.mod:factory" and one JSON argument, from
which each of them builds its own. Tasks are drawn from an iterator only when somebody is free to run one, so whoever
feeds it decides when to stop.

    >>> task = resolve("vambrace.executors.serial:echo", "hello")
    >>> task({"n": 1})
    {'said': 'hello', 'heard': {'n': 1}}
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Executor", "Outcome", "Task", "resolve"]

Json = Any
Task = Callable[[Json], Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one task ended.

    Attributes:
        index: the number that came with the task.
        value: what it returned; None when it was lost.
        deaths: why a worker died over it, once for each that did.
        lost: whether it has no value because workers keep dying over it.
    """

    index: int
    value: Json
    deaths: tuple[str, ...] = ()
    lost: bool = False


class Executor(Protocol):
    """Runs tasks."""

    def run(self, tasks: Iterable[tuple[int, Json]]) -> Iterator[Outcome]:
        """Run numbered tasks and hand out what they return, as they end.

        An exception that a task raises is a bug of the task, and ends the run.

        Raises:
            ResourceError: E612, when workers do not start.
        """
        ...

    def close(self) -> None:
        """Stop at once: what is still running is lost. Twice is fine."""
        ...


def resolve(factory: str, argument: Json) -> Task:
    """The task that "pkg.mod:factory" builds from its argument."""
    module, _, name = factory.partition(":")
    build = getattr(importlib.import_module(module), name, None)
    if not callable(build):
        raise ConfigError(
            "E512", seen=f"{factory!r}", expected='"pkg.mod:factory" that can be imported', fix="correct the name"
        )
    task = build(argument)
    if not callable(task):
        raise ConfigError("E512", seen=f"{factory!r} gave no function", expected="a task", fix="return a function")
    return task
