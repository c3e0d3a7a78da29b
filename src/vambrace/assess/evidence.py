"""Saved inputs that show a finding: written once under the hash of their content, verified when read.

>>> import tempfile, torch, pathlib
>>> folder = pathlib.Path(tempfile.mkdtemp()) / "evidence"
>>> name = save_evidence(folder, torch.zeros(1, 2), torch.ones(1, 2))
>>> load_evidence(folder.parent, f"evidence/{name}").changed
tensor([[1., 1.]])
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from vambrace.core.files import read_file, store
from vambrace.errors import ConfigError
from vambrace.report.reading import read_results

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from vambrace.core.findings import Evidence

__all__ = ["Pair", "find_evidence", "load_evidence", "save_evidence"]

_FILE = re.compile(r"evidence/([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One sample before and after.

    Attributes:
        clean: float32, one sample without a batch dimension, in the units the model is fed.
        changed: the same shape.
    """

    clean: Tensor
    changed: Tensor


def save_evidence(folder: Path, clean: Tensor, changed: Tensor) -> str:
    """Save one sample before and after below `folder`, and return the file's name, which is the hash of its content.

    Args:
        folder: `Context.evidence`; made where there is none.
        clean: one sample without a batch dimension, any device and floating type; float64 is rounded to float32.
        changed: of the same shape.

    Raises:
        ResourceError: E601, when it cannot be written.
    """
    pair = {"clean": _plain(clean), "changed": _plain(changed)}
    return store(folder, save(pair), ".safetensors")


def load_evidence(run: Path, file: str) -> Pair:
    """The two tensors of `Evidence.file` of the run directory `run`.

    Raises:
        ConfigError: E510, for a file that is missing, is not what was saved, or lies elsewhere.
    """
    name = _FILE.fullmatch(file)
    if name is None:
        raise _refusal(file, "it is no evidence file of a run")
    try:
        data = read_file(run / file)
    except FileNotFoundError:
        raise _refusal(file, "it is missing") from None
    if hashlib.sha256(data).hexdigest() != name[1]:
        raise _refusal(file, "its content has another hash")
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _refusal(file, f"it is no safetensors file ({error})") from error
    if tensors.keys() != {"clean", "changed"} or tensors["clean"].shape != tensors["changed"].shape:
        raise _refusal(file, "it does not hold one sample before and after")
    return Pair(tensors["clean"], tensors["changed"])


def find_evidence(run: Path, finding: str) -> Evidence:
    """The evidence called `finding` in the results of the run directory `run`.

    Raises:
        ConfigError: E511 when there is none of that name; E550 to E552 for results that cannot be read.
    """
    known = [item for found in read_results(run / "results.json").findings for item in found.evidence]
    for evidence in known:
        if evidence.finding == finding:
            return evidence
    names = ", ".join(evidence.finding for evidence in known[:5]) or "none: the run saved no examples"
    raise ConfigError(
        "E511",
        seen=f"no saved example {finding!r}",
        expected=f"one of the run's {len(known)}: {names}{', ...' if len(known) > 5 else ''}",
        fix="take the name from the report, below the example",
    )


def _plain(sample: Tensor) -> Tensor:
    return sample.detach().to("cpu", torch.float32).contiguous().clone()


def _refusal(file: str, why: str) -> ConfigError:
    return ConfigError(
        "E510",
        seen=f"{file}: {why}",
        expected="the file that the run saved",
        fix="restore it from a backup, or run the assessment again",
    )
