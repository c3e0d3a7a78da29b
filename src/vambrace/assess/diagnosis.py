"""Whether this machine is fit: versions, devices, memory, disk and known-bad combinations, for `vambrace doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Diagnosis", "FLOORS", "diagnose"]

FLOORS = {
    "torch": ((2, 10), "weights_only loading could be made to run code before 2.10 (CVE-2025-32434, CVE-2026-24747)"),
    "onnx": ((1, 21), "external data could be read from outside the model's folder before 1.21 (CVE-2026-34446)"),
    "pillow": ((10, 3), "colour management could overflow a buffer before 10.3 (CVE-2024-28219)"),
    "numpy": ((1, 26), "older releases are not tested"),
    "safetensors": ((0, 4), "older releases do not check the header fully"),
}
_SHOWN = (
    "vambrace",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "pillow",
    "pydantic",
    "onnx",
    "onnxruntime",
)
_OPTIONAL = frozenset({"onnx", "onnxruntime"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found.

    Attributes:
        versions: package to version; "not installed" for an optional one that is absent.
        machine: facts about the machine.
        problems: what must be changed, each with its reason and fix.
        notes: what is worth knowing.
    """

    versions: dict[str, str]
    machine: dict[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """The diagnosis as JSON data."""
        return {
            "versions": self.versions,
            "machine": self.machine,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The diagnosis for people, one fact a line."""
        width = max(map(len, (*self.versions, *self.machine)))
        facts = [f"{name:<{width}}  {value}" for name, value in (self.versions | self.machine).items()]
        marks = [f"PROBLEM  {text}" for text in self.problems] + [f"note     {text}" for text in self.notes]
        return [*facts, *marks] if marks else [*facts, "ok       nothing to mend"]


def diagnose() -> Diagnosis:
    """Look at the installed versions and the machine; imports torch, changes nothing."""
    versions = {name: _version(name) for name in _SHOWN}
    problems = [
        f"{name} {versions[name]} is below {'.'.join(map(str, floor))}: {why}. Fix: pip install -U {name}"
        for name, (floor, why) in FLOORS.items()
        if _numbers(versions.get(name, "")) and _numbers(versions[name]) < floor
    ]
    problems += [
        f"{name} is not installed. Fix: pip install vambrace"
        for name in _SHOWN
        if versions[name] == "not installed" and name not in _OPTIONAL
    ]
    notes = [
        "ONNX models need the extra: pip install 'vambrace[onnx]'"
        for name in ("onnxruntime",)
        if versions[name] == "not installed"
    ]
    machine, torch_notes = _machine()
    return Diagnosis(versions=versions, machine=machine, problems=tuple(problems), notes=tuple(notes + torch_notes))


def _machine() -> tuple[dict[str, str], list[str]]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    facts = {
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "free disk here": f"{free:.1f} GiB",
    }
    notes = [f"only {free:.1f} GiB of disk are free here; a run with saved images may need more"] if free < 1 else []
    try:
        import torch
    except ImportError:
        return facts, notes
    facts["torch threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        facts["cuda"] = f"{torch.version.cuda}, {torch.cuda.get_device_name(0)}"
    else:
        facts["cuda"] = "not available: models run on the CPU"
    return facts, notes


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
