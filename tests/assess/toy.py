"""A small plug-in check and a small assessment around it, for tests of the engine.

`install` declares the check in a folder as an installed package would, so that other processes find it too.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vambrace.assess.checks.base import Context, Measured, Reduction
from vambrace.assess.evidence import save_evidence
from vambrace.assess.plan import DataSpec, GateSpec, ModelSpec, Plan, PlannedCheck, RunSpec, TrustSpec
from vambrace.core import registry
from vambrace.core.access import Access
from vambrace.core.contract import InputContract
from vambrace.core.findings import Cost, Evidence, Finding, Flag, Status
from vambrace.core.options import Options, Ratio
from vambrace.data.batches import Batch
from vambrace.errors import ResourceError

NET = """
import torch
from torch import nn

CALLS = []

class Net(nn.Module):
    def __init__(self, scale):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(scale * torch.randn(64, 10, generator=generator))

    def forward(self, inputs):
        return inputs.flatten(1) @ self.weight

def net(scale: float = 1.0):
    return Net(scale)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyCheck(Options):
    """Measures the brightness of samples times `scale`, and does what `does` says in the unit that holds the mark.

    Attributes:
        scale: factor.
        does: misbehaviour: "" or one of the words of `_misbehave`.
        mark: a file; misbehave only while it exists, where given.
        pause: seconds a unit takes.
        images: save one example a unit.
    """

    scale: Ratio = 1.0
    does: str = ""
    mark: str = ""
    pause: Ratio = 0.0
    saves: bool = False

    kind: ClassVar[str] = "toy"
    version: ClassVar[int] = 1
    roles: ClassVar[tuple[str, ...]] = ("eval",)

    @property
    def needs(self) -> Access:
        return Access.LABELS

    def measure(self, context: Context, batch: Batch) -> Measured:
        time.sleep(self.pause)
        predictions = context.model.predict(batch.inputs)
        if self.does and (not self.mark or Path(self.mark).exists()):
            self._misbehave()
        records: list[dict[str, Any]] = []
        for i, sample in enumerate(batch.ids.tolist()):
            record = {
                "id": str(sample),
                "value": float(batch.inputs[i].mean()) * self.scale,
                "draw": context.rng.child("toy", sample).key % 997,
                "prediction": int(predictions[i]),
            }
            if self.saves and i == 0:
                record["file"] = save_evidence(context.evidence, batch.inputs[i], 1 - batch.inputs[i])
            records.append(record)
        if self.does == "nan" and (not self.mark or Path(self.mark).exists()):
            records[0]["value"] = float("nan")
        if self.does == "short":
            records.pop()
        flags = [Flag(code="E499", level="warn", text="toy")] if self.scale < 0 else []
        return Measured(records=records, cost=Cost(forwards=len(batch)), flags=flags)

    def _misbehave(self) -> None:
        match self.does:
            case "bug":
                raise KeyError("not foreseen at 0x7f001122 in /some/where/toy.py")
            case "memory":
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
            case "disk":
                raise ResourceError("E601", seen="ENOSPC writing evidence", expected="room", fix="make some")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                sys.exit(3)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)
            case "int":
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            case _:
                pass

    def reduce(self, reduction: Reduction) -> list[Finding]:
        if self.does == "bad reduce":
            raise ZeroDivisionError("in reduce")
        if self.does == "no finding":
            return []
        records = reduction.records["eval"]
        planned = reduction.planned["eval"]
        complete = len(records) == planned
        value = sum(record["value"] * (1 + record["draw"]) for record in records) / max(1, len(records)) / 1000
        finding = Finding(
            check=reduction.check,
            family="toy",
            metric="brightness",
            value=float("inf") if self.does == "infinite" else value if complete else None,
            n=len(records),
            status=Status.MEASURED
            if complete
            else Status.ERROR
            if "error" in reduction.missing
            else Status.NOT_MEASURED,
            sentence=f"Brightness is {value:.17g} of {len(records)}.",
            reason="" if complete else reduction.missing,
            flags=tuple(reduction.flags),
            cost=reduction.cost,
            parameters=self.as_json(),
            series={"values": [record["value"] for record in records], "clean": len(reduction.clean)},
            evidence=tuple(
                Evidence(
                    finding=f"{reduction.check}-{record['id']}",
                    kind="perturbed",
                    file=f"evidence/{record['file']}",
                    sample=record["id"],
                    data={"label": 0, "prediction": record["prediction"]},
                )
                for record in records
                if "file" in record
            ),
        )
        return [finding, finding] if self.does == "twice" else [finding]


@contextmanager
def install(folder: Path) -> Iterator[None]:
    """Declare the toy check below `folder` and put the toy network there, for this process and those it starts."""
    info = folder / "toy_checks-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-checks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vambrace.checks]\ntoy = assess.toy:ToyCheck\n")
    (folder / "toy_net.py").write_text(NET)
    sys.path.insert(0, str(folder))
    registry._table.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("toy_net", None)
        registry._table.cache_clear()


def toy_plan(folder: Path, *checks: PlannedCheck, **changes: Any) -> Plan:
    """Seven checks' worth of nothing: the toy network on 60 digits, 3 chunks a check, no real method."""
    planned = checks or (
        PlannedCheck(id="one", check=ToyCheck(saves=True)),
        PlannedCheck(id="two", check=ToyCheck(scale=-0.5), limit=35),
        PlannedCheck(id="three", check=ToyCheck(scale=3.0), required=False),
    )
    run = {"threads": 1, "batch": 10, "chunk": 20, "out": str(folder / "runs"), **changes.pop("run", {})}
    plan = {
        "profile": "smoke",
        "seed": 5,
        "model": ModelSpec(factory="toy_net:net"),
        "contract": InputContract(bounds=(0.0, 1.0)),
        "data": {"eval": DataSpec(source="digits:test", limit=60)},
        "trust": TrustSpec(code=("toy_net",)),
        "checks": planned,
        # The network guesses, and that is all right here.
        "gates": (GateSpec(metric="clean.accuracy", min=0.0), GateSpec(metric="one.brightness", min=0.0, use="value")),
        "base": str(folder),
        **changes,
    }
    return Plan(run=RunSpec(**run), **plan)
