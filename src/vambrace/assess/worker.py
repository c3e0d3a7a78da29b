"""Runs units: one model and one data set a process, one unit a call, and no exception gets out.

What a unit raises becomes its error. An error of the tree stands as it is: that is how a model that misbehaves
(`ModelMisbehaved`, from the model's adapter) differs from everything else. Memory that ran out is E610. Any other
exception is a bug of a method or a check, ours or a plug-in's: type "Bug", code E900, with the traceback kept apart.

Results leave in their canonical form, so that a unit that ran here, in another process or before a crash looks
the same to whoever reduces it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from vambrace.assess.checks.base import Context
from vambrace.assess.constancy import Constancy
from vambrace.assess.documents import DOCUMENTS, documents_digest, read_documents
from vambrace.assess.facts import (
    Samples,
    check_same_data,
    check_same_model,
    data_facts,
    model_facts,
    samples_digest,
)
from vambrace.assess.opening import open_data, open_model
from vambrace.assess.planfile import plan_from_json
from vambrace.core import canonical
from vambrace.core.rng import Streams
from vambrace.data.batches import Batch
from vambrace.errors import ConfigError, DataRefused, ModelMisbehaved, ResourceError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from vambrace.assess.checks.base import Measured
    from vambrace.assess.plan import Plan, PlannedCheck
    from vambrace.data.batches import Batches
    from vambrace.models.contract import Model

__all__ = ["BUG", "Worker", "arithmetic", "build", "explain_failure", "memory_error"]

Json = Any

BUG = "Bug"
"""The type of an error that no adapter and no method foresaw."""

_log = logging.getLogger(__name__)
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cudaerrormemoryallocation")


def build(argument: Json) -> Callable[[Json], Json]:
    """The factory of worker processes: open what the plan names, and compare it with what the run began with.

    Args:
        argument: "plan" and "facts" as plan.json has them, "evidence": the folder's path.

    Raises:
        VambraceError: what opening the model or the data raises; E503 to E505, when they are not those of the run.
    """
    plan = plan_from_json(argument["plan"])
    _set_arithmetic(plan)  # for as long as this process lives
    model, batches = open_model(plan), open_data(plan)
    facts = argument["facts"]
    check_same_model(facts["model"], model_facts(model))
    check_same_data(facts["data"], {role: data_facts(source, Samples.of(source)) for role, source in batches.items()})
    return Worker(plan, model, batches, evidence=Path(argument["evidence"])).run


class Worker:
    """Measures units.

    Args:
        plan: with every choice made.
        model: the model under assessment.
        batches: data by role.
        evidence: folder for saved inputs.
    """

    def __init__(self, plan: Plan, model: Model, batches: Mapping[str, Batches], *, evidence: Path) -> None:
        self._plan = plan
        self._model = model
        self._batches = batches
        self._evidence = evidence
        self._constancy = Constancy(model, batch=plan.run.batch or 1)

    def run(self, unit: Json) -> Json:
        """Measure `Unit.as_json()`: {"result", "error", "log", "seconds"}, of which result or error is None."""
        began = time.perf_counter()
        result = error = None
        log = ""
        try:
            result = self._measure(unit)
        except (Exception, SystemExit) as raised:  # noqa: BLE001  the run must survive whatever one unit does
            error, log = explain_failure(raised)
        if error:
            gc.collect()  # what the failed unit held may be what the next one needs
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return {"result": result, "error": error, "log": log, "seconds": time.perf_counter() - began}

    def _measure(self, unit: Json) -> Json:
        planned = self._plan.checks[int(unit["check"])]
        role = unit["role"]
        if role == DOCUMENTS:
            return self._examine(planned, unit)
        source = self._batches[role]
        batch = _read(source, cast("list[int]", unit["positions"]), role)
        ids = cast("list[int]", batch.ids.tolist())
        if samples_digest(ids, batch.hashes) != unit["samples"]:
            raise DataRefused(
                "E504",
                seen=f"samples of {role} that are not those that the run began with",
                expected="the same data for the whole run",
                fix="leave the data alone during a run, and start a new run",
            )
        device = self._model.device
        context = self._context(planned, role, len(batch), tuple(source.class_names))
        moved = Batch(batch.inputs.to(device), batch.labels.to(device), batch.ids.to(device), batch.hashes, batch.names)
        self._constancy.begin(moved.inputs)
        measured = planned.check.measure(context, moved)
        changed = self._constancy.end()
        return _as_json(dataclasses.replace(measured, flags=(*measured.flags, *changed)), [str(each) for each in ids])

    def _examine(self, planned: PlannedCheck, unit: Json) -> Json:
        """A unit of documents: the very bytes that its key speaks of."""
        contents = read_documents(planned.check, self._plan.base)
        if documents_digest(contents) != unit["samples"]:
            raise DataRefused(
                "E504",
                seen=f"files of {planned.id} that are not those that the run began with",
                expected="the same files for the whole run",
                fix="leave them alone during a run; --resume with --retry-errors measures them as they are now",
            )
        nothing = torch.zeros(0, dtype=torch.int64)
        context = dataclasses.replace(self._context(planned, DOCUMENTS, 1, ()), documents=contents)
        measured = planned.check.measure(context, Batch(torch.zeros(0), nothing, nothing, (), ()))
        return _as_json(measured, list(contents))

    def _context(self, planned: PlannedCheck, role: str, n: int, class_names: tuple[str, ...]) -> Context:
        return Context(
            check=planned.id,
            role=role,
            model=self._model,
            rng=Streams(self._plan.seed).child(planned.id),
            batch_size=self._plan.run.batch or n,
            images=self._plan.run.images,
            evidence=self._evidence,
            class_names=class_names,
        )


@contextlib.contextmanager
def arithmetic(plan: Plan) -> Generator[None]:
    """Inside, PyTorch computes as every worker of this plan does; outside, as it did before.

    Threads are the plan's. On an accelerator, kernels are deterministic where there are such, and no TF32 is used.
    """
    undo = _set_arithmetic(plan)
    try:
        yield
    finally:
        undo()


def explain_failure(raised: BaseException) -> tuple[dict[str, str], str]:
    """An exception as an error record, and the traceback where it is a bug, else ""."""
    if starved := memory_error(raised):
        return starved.as_json(), ""
    if isinstance(raised, SystemExit):
        misbehaved = ModelMisbehaved(
            "E406",
            seen=f"the model or the data asked the process to exit ({raised.code})",
            expected="logits",
            fix="take sys.exit() out of the code that is assessed",
        )
        return misbehaved.as_json(), ""
    if isinstance(raised, VambraceError):
        return raised.as_json(), ""
    log = "".join(traceback.format_exception(raised))
    _log.error("a unit raised what nobody foresaw\n%s", log)
    where = traceback.extract_tb(raised.__traceback__)
    module = _module(raised)
    return {
        "type": BUG,
        "code": "E900",
        "seen": f"{type(raised).__name__} in {module}: {raised}" if where else f"{type(raised).__name__}: {raised}",
        "expected": "a method that ends, or an error of vambrace",
        "fix": f"report it to whoever maintains {module.split('.')[0]}; the traceback is in timings.json",
    }, log


def memory_error(raised: BaseException) -> ResourceError | None:
    """E610 where memory ran out, here or in what this was raised from; None for everything else."""
    if not _is_memory(raised):
        return None
    return ResourceError(
        "E610",
        seen=f"memory ran out ({type(raised).__name__})",
        expected="room for a unit at the plan's batch",
        fix="start a new run with a smaller --batch",
    )


def _set_arithmetic(plan: Plan) -> Callable[[], None]:
    """Returns what puts the settings back."""
    threads = torch.get_num_threads()
    if plan.run.threads:
        torch.set_num_threads(plan.run.threads)
    if not plan.run.device.startswith("cuda"):
        return lambda: torch.set_num_threads(threads)
    matmul, cudnn = cast("Any", torch.backends.cuda.matmul), cast("Any", torch.backends.cudnn)
    flags = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # cuBLAS reads it when its first handle is made; without it, matrix products may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False

    def undo() -> None:
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = flags
        torch.set_num_threads(threads)

    return undo


def _read(source: Batches, positions: Sequence[int], role: str) -> Batch:
    try:
        return source.read(positions)
    except VambraceError:
        raise
    except Exception as error:
        if _is_memory(error):
            raise
        raise DataRefused(
            "E513",
            seen=f"{type(error).__name__} reading {role}: {error}",
            expected="data that can be read during the whole run",
            fix="read those samples by hand; then --resume with --retry-errors",
        ) from error


def _as_json(measured: Measured, ids: list[str]) -> Json:
    """The result of a unit, as it looks after it was written and read; refuses what cannot be reduced."""
    given = [record.get("id") for record in measured.records]
    if given != ids:
        wrong = next((at for at, pair in enumerate(zip(given, ids, strict=False)) if pair[0] != pair[1]), None)
        seen = f"{len(given)} records for {len(ids)} samples" if wrong is None else f"id {given[wrong]!r} at {wrong}"
        raise _unusable(seen, "one record a sample, in order, with its id as text")
    data = {
        "records": [dict(record) for record in measured.records],
        "cost": dataclasses.asdict(measured.cost),
        "flags": [dataclasses.asdict(flag) for flag in measured.flags],
    }
    try:
        return canonical.loads(canonical.dumps(data))
    except ConfigError as error:
        raise _unusable(error.seen, error.expected) from error


def _unusable(seen: str, expected: str) -> _UnusableError:
    return _UnusableError(f"the check gave {seen}; expected {expected}")


class _UnusableError(ValueError):
    """A check gave something that is no result: its own bug, whatever the model did."""


def _is_memory(raised: BaseException | None) -> bool:
    while raised is not None:
        if isinstance(raised, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(raised, RuntimeError) and any(words in str(raised).lower() for words in _MEMORY):
            return True
        raised = raised.__cause__
    return False


def _module(raised: BaseException) -> str:
    """The module that raised, from the innermost frame that has a name."""
    found = type(raised).__module__
    frame = raised.__traceback__
    while frame is not None:
        found = frame.tb_frame.f_globals.get("__name__", found)
        frame = frame.tb_next
    return str(found)
