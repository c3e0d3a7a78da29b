"""One assessment: plan, preflight, units, findings, gates, verdict.

    from vambrace import assess
    report = assess.run(model, batches, profile="ci", seed=0)
    report.exit_code, report.results, report.path
    report.write("report.html")

Names are resolved on first use: judging a finished run again needs parts of this package, and no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace.assess.plan import DataSpec, GateSpec, ModelSpec, Plan, PlannedCheck, RunSpec, TrustSpec
    from vambrace.assess.report import Report
    from vambrace.assess.running import execute, rehearse, resume, run

__all__ = [
    "DataSpec",
    "GateSpec",
    "ModelSpec",
    "Plan",
    "PlannedCheck",
    "Report",
    "RunSpec",
    "TrustSpec",
    "execute",
    "rehearse",
    "resume",
    "run",
]

_MODULES = {"Report": "report", "execute": "running", "rehearse": "running", "resume": "running", "run": "running"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'vambrace.assess' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vambrace.assess.{_MODULES.get(name, 'plan')}"), name)


def __dir__() -> list[str]:
    return __all__
