"""From the sources that a plan names to a model and batches: the same way in every process of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vambrace import data
from vambrace.core.progress import silent
from vambrace.errors import ConfigError
from vambrace.models.load import load_model

if TYPE_CHECKING:
    from vambrace.assess.plan import Plan
    from vambrace.core.progress import Progress
    from vambrace.data.batches import Batches
    from vambrace.models.contract import Model

__all__ = ["open_data", "open_model"]


def open_model(plan: Plan) -> Model:
    """The model of the plan.

    Raises:
        ConfigError: E512, for a plan whose model was given in memory.
        ModelRefused: E200 to E239, see `vambrace.models.load`.
    """
    if not plan.model.source and not plan.model.factory:
        raise ConfigError(
            "E512",
            seen="a plan whose model was given in memory",
            expected="a model that can be opened from the plan: a file, a factory, or both",
            fix="hand the model to resume(), or name its source; use one worker for a model in memory",
        )
    return load_model(plan.model, plan.contract, plan.trust, Path(plan.base), plan.run.device)


def open_data(plan: Plan, *, progress: Progress = silent) -> dict[str, Batches]:
    """The data of every role of the plan.

    Raises:
        ConfigError: E512, for a plan whose data was given in memory.
        DataRefused: E300 to E333, see `vambrace.data.load`.
    """
    found: dict[str, Batches] = {}
    for role, spec in plan.data.items():
        if not spec.source:
            raise ConfigError(
                "E512",
                seen=f"a plan whose {role} data was given in memory",
                expected="data that can be opened from the plan",
                fix="hand the data to resume(), or name its source; use one worker for data in memory",
            )
        found[role] = data.load(
            spec.source,
            contract=plan.contract,
            labels=spec.labels,
            limit=spec.limit,
            base=Path(plan.base),
            trust_code=plan.trust.code,
            progress=progress,
        )
    return found
