"""Drives units to their end: feeds an executor, writes the journal, and stops when it must.

A unit counts as done when its record is on the disk. What is already in the journal is not run again; units in error
only when asked to, and then the old record holds until the new one is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vambrace.core.clock import now
from vambrace.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vambrace.assess.journal import Journal, UnitRecord
    from vambrace.assess.stopping import Reason, Stop
    from vambrace.assess.units import Unit
    from vambrace.core.progress import Progress
    from vambrace.executors import Executor, Outcome

__all__ = ["Ended", "run_units"]

Json = Any

_DISK = frozenset({"E601", "E604"})
_PATIENCE = 3  # lost units in a row after which no worker will live


@dataclass(slots=True, kw_only=True)
class Ended:
    """How the units stand when no more of them run.

    Attributes:
        done: unit key to the record that holds.
        reason: why it ended early; "" where nothing stopped it.
        failure: the disk or the workers gave way; None where they did not.
        fresh: how many units ran now.
        lost: how many units in a row no worker finished.
    """

    done: dict[str, UnitRecord]
    reason: Reason = ""
    failure: ResourceError | None = None
    fresh: int = 0
    lost: int = 0


def run_units(
    units: Sequence[Unit],
    executor: Executor,
    journal: Journal,
    *,
    stop: Stop,
    progress: Progress,
    retry_errors: bool = False,
) -> Ended:
    """Run what the journal does not hold yet, and write what comes back.

    Failures of the disk and of workers end the run and are handed back; they are not raised, because what was
    measured can still be reduced and reported.
    """
    latest = journal.parsed.latest
    done = {unit.key: latest[unit.key] for unit in units if unit.key in latest}
    ended = Ended(done=done)
    waiting = [unit for unit in units if unit.key not in done or (retry_errors and done[unit.key].error is not None)]
    progress.start("units", len(units))
    if len(waiting) < len(units):
        progress.advance("units", len(units) - len(waiting), "already done")

    def feed() -> Iterator[tuple[int, Json]]:
        for place, unit in enumerate(waiting):
            if stop.reason:
                return
            yield place, unit.as_json()

    stop.begin_units()
    left = len(waiting)
    try:
        outcomes = executor.run(feed())
        while True:
            with stop.interruptible():
                outcome = next(outcomes, None)
            if outcome is None:
                break
            unit = waiting[outcome.index]
            _take(outcome, unit, journal, ended)
            left -= 1
            progress.advance("units", 1, unit.name)
    except KeyboardInterrupt:
        ended.reason = "interrupted"
    except ResourceError as failure:
        ended.failure = failure
    finally:
        executor.close()
    if left and not ended.failure:
        ended.reason = ended.reason or stop.reason
    progress.finish("units", ended.reason)
    return ended


def _take(outcome: Outcome, unit: Unit, journal: Journal, ended: Ended) -> None:
    """Write what became of one unit.

    Raises:
        ResourceError: E601 for a full disk here or in the worker, E612 when no worker lives long enough.
    """
    for death in outcome.deaths:
        journal.append_incident(
            code="E611", text=f"A worker {death} over chunk {unit.chunk} of {unit.name}; it was replaced.", at=now()
        )
    value = _lost(outcome, unit) if outcome.lost else outcome.value
    error = value["error"]
    if error and error["code"] in _DISK:
        # No fault of the unit: it is left for a resume, and there is no room for its record either.
        raise ResourceError(error["code"], seen=error["seen"], expected=error["expected"], fix=error["fix"])
    record = journal.append_unit(
        key=unit.key,
        check=unit.name,
        role=unit.role,
        chunk=unit.chunk,
        seconds=value["seconds"],
        result=value["result"],
        error=error,
        log=value["log"],
    )
    ended.done[unit.key] = record
    ended.fresh += 1
    ended.lost = ended.lost + 1 if outcome.lost else 0
    if ended.lost >= _PATIENCE:
        raise ResourceError(
            "E612",
            seen=f"workers that died over {_PATIENCE} units in a row; the last one {outcome.deaths[-1]}",
            expected="workers that live long enough to finish a unit",
            fix="give the run more memory, lower --workers, or start a new run with a smaller --batch",
        )


def _lost(outcome: Outcome, unit: Unit) -> Json:
    error = ResourceError(
        "E611",
        seen=f"chunk {unit.chunk} of {unit.name} cost {len(outcome.deaths)} workers; the last one {outcome.deaths[-1]}",
        expected="a worker that finishes it",
        fix="lower --workers or give the run more memory, then --resume RUN --retry-errors",
    )
    return {"result": None, "error": error.as_json(), "log": "", "seconds": 0.0}
