"""The doctor finds what must be changed, and nothing on a good machine."""

from __future__ import annotations

import builtins
import json
from typing import Any

import pytest
import torch

from vambrace.assess import diagnosis
from vambrace.assess.diagnosis import FLOORS, diagnose
from vambrace.assets.seal import selftest
from vambrace.core import registry

GOOD = {**diagnose().versions}


def test_this_machine_is_fit() -> None:
    found = diagnose()
    assert found.problems == ()
    assert found.versions["torch"] == torch.__version__
    assert "pgd" in found.machine["attacks"]
    assert {"python", "cores", "free disk here", "cuda"} <= found.machine.keys()
    count = len(selftest.run())
    assert count >= 18
    assert found.machine["sealing"] == f"{count} of {count} primitives give the answers of their standards"
    assert found.versions["cryptography"][0].isdigit()
    assert json.loads(json.dumps(found.as_json()))["problems"] == []


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_a_version_below_its_floor_is_a_problem(name: str) -> None:
    floor, why = FLOORS[name]
    below = ".".join(map(str, (*floor[:-1], floor[-1] - 1))) if floor[-1] else f"{floor[0] - 1}.99"
    [problem] = diagnose({**GOOD, name: f"{below}.5+cpu"}).problems
    assert name in problem
    assert why in problem
    assert f"pip install -U {name}" in problem
    at_floor = ".".join(map(str, floor))
    assert diagnose({**GOOD, name: at_floor}).problems == ()
    assert diagnose({**GOOD, name: f"{floor[0]}.{floor[1] + 90}.0"}).problems == ()
    assert diagnose({**GOOD, name: "unknown.git"}).problems == ()  # what cannot be read is not judged


def test_what_is_missing() -> None:
    [problem] = diagnose({**GOOD, "scipy": "not installed"}).problems
    assert "scipy is not installed" in problem
    found = diagnose({**GOOD, "onnxruntime": "not installed"})
    assert found.problems == ()
    assert "onnxruntime missing: ONNX models need pip install 'vambrace[onnx]'" in found.notes
    assert "note " in "\n".join(found.lines())


def test_a_torch_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *rest: Any, **named: Any) -> Any:
        if name == "torch":
            raise OSError("libcudart.so.12: cannot open shared object file\nand more")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", broken)
    [problem] = diagnose(GOOD).problems
    assert problem.startswith("torch does not import (OSError: libcudart.so.12: cannot open shared object file)")


def test_a_gpu_that_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert any("CUDA 12.8" in note and "nvidia-smi" in note for note in diagnose(GOOD).notes)
    monkeypatch.setattr(torch.version, "cuda", None)
    found = diagnose(GOOD)
    assert not any("CUDA" in note for note in found.notes)
    assert "built for the CPU" in found.machine["cuda"]


def test_a_stale_installation_knows_no_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "names", lambda group: () if group == registry.CHECKS else ("one",))
    [problem] = diagnose(GOOD).problems
    assert "no checks are registered" in problem


def test_little_disk_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(".")
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda _: usage._replace(free=2**29))
    assert any("0.5 GiB" in note for note in diagnose(GOOD).notes)


def test_a_primitive_that_answers_otherwise_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(given: Any) -> bool:
        return not given["valid"]  # a library that takes what it must refuse, and the other way round

    monkeypatch.setattr(selftest, "_CHECKS", {**selftest._CHECKS, "AES-256-GCM": wrong})
    found = diagnose(GOOD)
    [problem] = found.problems
    assert problem.startswith("AES-256-GCM is not what its standard says (another answer than")
    assert "pip install --force-reinstall cryptography" in problem
    assert found.machine["sealing"].startswith(f"{len(selftest._CHECKS) - 1} of {len(selftest._CHECKS)} ")


def test_a_primitive_that_is_missing_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(given: Any) -> bool:
        raise ImportError(given["primitive"])

    monkeypatch.setattr(selftest, "_CHECKS", {**selftest._CHECKS, "SM4-GCM": absent})
    found = diagnose(GOOD)
    assert found.problems == ()
    assert any(note.startswith("SM4-GCM is missing here: sealed files that need it") for note in found.notes)


def test_cryptography_that_does_not_work_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("undefined symbol: EVP_what")

    monkeypatch.setattr(selftest, "run", broken)
    [problem] = diagnose(GOOD).problems
    assert problem.startswith("the self test of sealed files does not run (OSError: undefined symbol: EVP_what)")

    def absent() -> None:
        raise ModuleNotFoundError("No module named 'cryptography'")

    monkeypatch.setattr(selftest, "run", absent)
    found = diagnose({**GOOD, "cryptography": "not installed"})
    assert found.problems == ("cryptography is not installed. Fix: pip install vambrace",)
    assert found.machine["sealing"] == "not available"
