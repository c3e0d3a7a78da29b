"""Where a run takes place: what may change numbers, and what people may want to know."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vambrace
from vambrace.assess.environment import device_class, environment, versions
from vambrace.core import canonical


def test_versions() -> None:
    found = versions()
    assert found["vambrace"] == vambrace.__version__
    assert found["torch"] == torch.__version__
    assert found["python"].count(".") == 1
    assert "onnxruntime" not in found
    assert "onnxruntime" in versions("onnx")


def test_a_cpu_is_known_by_its_instructions() -> None:
    assert device_class("cpu") == f"cpu {torch.backends.cpu.get_cpu_capability()}"
    assert device_class("meta") == "meta"


def test_an_accelerator_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Giant {device.index}")
    assert device_class("cuda:1") == "cuda Giant 1"


def test_environment_is_json_and_names_the_command() -> None:
    found = environment("cpu", command=["/somewhere/bin/vambrace", "assess", "plan.toml"])
    assert found["command"] == ["vambrace", "assess", "plan.toml"]
    assert found["packages"]["torch"] == torch.__version__
    assert "scikit-learn" in found["packages"]
    assert canonical.loads(canonical.dumps(found)) == found
    assert environment("cpu", command=[])["command"] == []
    assert environment("cpu")["command"][0] == Path(environment("cpu")["command"][0]).name
