"""Whether this machine is fit: versions, devices, disk, known-bad combinations, cryptography; for `vambrace doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vambrace.core import registry

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Diagnosis", "FLOORS", "diagnose"]

FLOORS = {
    "torch": ((2, 10), "weights_only loading could be made to run code before 2.10 (CVE-2025-32434, CVE-2026-24747)"),
    "onnx": ((1, 21), "external data could be read from outside the model's folder before 1.21 (CVE-2026-34446)"),
    "pillow": ((10, 3), "colour management could overflow a buffer before 10.3 (CVE-2024-28219)"),
    "cryptography": ((47, 0), "older releases cannot encrypt into a buffer that is there"),
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
    "cryptography",
    "onnx",
    "onnxruntime",
)
_ABSENT = "not installed"
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


def diagnose(versions: Mapping[str, str] | None = None) -> Diagnosis:
    """Look at the installed versions and the machine; imports torch, changes nothing.

    Args:
        versions: package to version, in place of what is installed.
    """
    versions = {name: _version(name) for name in _SHOWN} if versions is None else dict(versions)
    problems = [
        f"{name} {versions[name]} is below {'.'.join(map(str, floor))}: {why}. Fix: pip install -U {name}"
        for name, (floor, why) in FLOORS.items()
        if _numbers(versions.get(name, "")) and _numbers(versions[name]) < floor
    ]
    problems += [
        f"{name} is not installed. Fix: pip install vambrace"
        for name in _SHOWN
        if versions.get(name, _ABSENT) == _ABSENT and name not in _OPTIONAL
    ]
    absent = [name for name in ("onnx", "onnxruntime") if versions.get(name, _ABSENT) == _ABSENT]
    notes = [f"{' and '.join(absent)} missing: ONNX models need pip install 'vambrace[onnx]'"] if absent else []
    machine, more_problems, more_notes = _machine()
    methods, lost = _methods()
    primitives, wrong, missing = _primitives()
    return Diagnosis(
        versions=versions,
        machine=machine | methods | primitives,
        problems=(*problems, *more_problems, *lost, *wrong),
        notes=(*notes, *more_notes, *missing),
    )


def _primitives() -> tuple[dict[str, str], list[str], list[str]]:
    """What the library under sealed files answers to official vectors: facts, problems and notes."""
    again = "Fix: pip install --force-reinstall cryptography"
    try:
        from vambrace.assets.seal import selftest

        results = selftest.run()
    except ModuleNotFoundError:
        return {"sealing": "not available"}, [], []  # the package that lacks is a problem of its own
    except Exception as error:  # noqa: BLE001  a broken installation raises what it likes, and that is the finding
        said = f"the self test of sealed files does not run ({type(error).__name__}: {str(error)[:200]})"
        return {"sealing": "broken"}, [f"{said}. {again}"], []
    right = sum(result.passed for result in results)
    wrong = [
        f"{result.name} is not what its standard says ({result.note}): do not trust what it seals or opens. {again}"
        for result in results
        if not result.passed and not result.missing
    ]
    missing = [
        f"{result.name} is missing here: sealed files that need it cannot be made or opened ({result.note})"
        for result in results
        if result.missing
    ]
    return {"sealing": f"{right} of {len(results)} primitives give the answers of their standards"}, wrong, missing


def _methods() -> tuple[dict[str, str], list[str]]:
    """What is registered, and what is wrong with that: an installation that knows no methods is stale."""
    counts: dict[str, str] = {}
    lost: list[str] = []
    for group in (registry.ATTACKS, registry.PERTURBATIONS, registry.CHECKS):
        word = group.rpartition(".")[2]
        names = registry.names(group)
        counts[word] = f"{len(names)}: {', '.join(names)}" if names else "none"
        if not names:
            lost.append(
                f"no {word} are registered: the installation is stale. Fix: pip install --force-reinstall vambrace"
            )
    return counts, lost


def _machine() -> tuple[dict[str, str], list[str], list[str]]:
    """Facts, problems and notes."""
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
    except Exception as error:  # noqa: BLE001  a broken installation raises what it likes, and that is the finding
        text = f"torch does not import ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        return facts, [f"{text}. Fix: install it again, as pytorch.org says for this system"], notes
    facts["torch threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        facts["cuda"] = f"{torch.version.cuda}, {torch.cuda.get_device_name(0)}"
    elif torch.version.cuda:
        facts["cuda"] = "not available"
        notes.append(
            f"torch is built for CUDA {torch.version.cuda} and finds no usable GPU: see the driver (nvidia-smi)"
        )
    else:
        facts["cuda"] = "not available: this torch is built for the CPU"
    return facts, [], notes


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _ABSENT


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
