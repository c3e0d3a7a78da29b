"""Where a run takes place: versions that may change numbers, and facts about the machine that may not.

`versions` and `device_class` are part of unit keys. `environment` is for people: it stands beside the results.

    >>> sorted(versions())
    ['numpy', 'python', 'torch', 'vambrace']
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import vambrace
from vambrace.core.clock import now

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["device_class", "environment", "versions"]

_PACKAGES = ("vambrace", "torch", "numpy", "scipy", "scikit-learn", "safetensors", "pillow", "onnx", "onnxruntime")


def versions(kind: str = "") -> dict[str, str]:
    """Versions that results name and unit keys hold; `kind` is that of the model's identity."""
    found = {
        "vambrace": vambrace.__version__,
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    if kind == "onnx":
        found["onnxruntime"] = _version("onnxruntime")
    return found


def device_class(device: torch.device | str) -> str:
    """What kind of arithmetic a device does: a CPU with its vector instructions, or the accelerator's name."""
    device = torch.device(device)
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return device.type


def environment(device: torch.device | str, *, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Facts for environment.json; see `docs/formats/results-v1.md`.

    Args:
        device: where the model runs.
        command: the command line as typed; None: this process's.
    """
    typed = list(sys.argv if command is None else command)
    return {
        "command": [Path(typed[0]).name, *typed[1:]] if typed else [],
        "plan_file": "plan.json",
        "started": now(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "device": device_class(device),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count() or 1} cores"
