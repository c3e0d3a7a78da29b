"""Saved examples: deterministic bytes, verified on reading, found by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from vambrace.assess.evidence import find_evidence, load_evidence, save_evidence
from vambrace.core import canonical
from vambrace.core.findings import Evidence, Finding, Results, Status, Verdict
from vambrace.errors import ConfigError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    clean = torch.rand(3, 5, 4).to(dtype)
    changed = (clean * 0.5).permute(1, 0, 2)
    pair = load_evidence(tmp_path, "evidence/" + save_evidence(tmp_path / "evidence", clean.permute(1, 0, 2), changed))
    assert pair.clean.dtype == pair.changed.dtype == torch.float32
    assert torch.equal(pair.clean, clean.permute(1, 0, 2).float())
    assert torch.equal(pair.changed, changed.float())


def test_equal_values_have_equal_bytes(tmp_path: Path) -> None:
    base = torch.rand(8, 6)
    names = {
        save_evidence(tmp_path / "a", base[:4], base[4:]),
        save_evidence(tmp_path / "a", base.clone()[:4].T.T.requires_grad_(), base[4:].clone()),
        save_evidence(tmp_path / "a", base.T.contiguous().T[:4], base[4:]),
    }
    assert len(names) == 1
    assert len(list((tmp_path / "a").iterdir())) == 1
    assert save_evidence(tmp_path / "a", base[4:], base[:4]) not in names


def test_extreme_values_survive(tmp_path: Path) -> None:
    odd = torch.tensor([0.0, -0.0, 1e-45, 3.4e38, float("inf"), float("nan")])
    pair = load_evidence(tmp_path, "evidence/" + save_evidence(tmp_path / "evidence", odd, odd))
    assert pair.clean.view(torch.int32).equal(odd.view(torch.int32))


def saved(tmp_path: Path) -> Path:
    name = save_evidence(tmp_path / "evidence", torch.zeros(2), torch.ones(2))
    return tmp_path / "evidence" / name


def refused(tmp_path: Path, file: str) -> str:
    with pytest.raises(ConfigError, match="E510") as caught:
        load_evidence(tmp_path, file)
    return caught.value.seen


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << (place % 8)]) + content[place + 1 :])
        assert "another hash" in refused(tmp_path, f"evidence/{path.name}")
    path.write_bytes(content[:-1])
    refused(tmp_path, f"evidence/{path.name}")
    path.unlink()
    assert "missing" in refused(tmp_path, f"evidence/{path.name}")


@pytest.mark.parametrize(
    "file",
    [
        "plan.json",
        "../evidence/" + "0" * 64 + ".safetensors",
        "evidence/../evidence/" + "0" * 64 + ".safetensors",
        "/etc/" + "0" * 64 + ".safetensors",
        "evidence/" + "0" * 63 + ".safetensors",
        "evidence/" + "0" * 64 + ".safetensors\n",
        "",
    ],
)
def test_only_evidence_is_read(tmp_path: Path, file: str) -> None:
    assert "no evidence file" in refused(tmp_path, file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not safetensors",
        save({"clean": torch.zeros(2)}),
        save({"clean": torch.zeros(2), "changed": torch.zeros(3)}),
        save({"clean": torch.zeros(2), "changed": torch.zeros(2), "more": torch.zeros(1)}),
    ],
)
def test_content_of_another_form_is_refused_although_its_hash_is_right(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evidence").mkdir()
    name = f"evidence/{hashlib.sha256(content).hexdigest()}.safetensors"
    (tmp_path / name).write_bytes(content)
    refused(tmp_path, name)


def results_with(*evidence: Evidence) -> Results:
    finding = Finding(
        check="pgd",
        family="adversarial",
        metric="success@0.1",
        value=0.5,
        n=2,
        status=Status.MEASURED,
        sentence="Half.",
        evidence=evidence,
    )
    model = {"name": "n", "sha256": None, "kind": "torch", "access": "scores", "bounds": None, "outputs": "logits"}
    return Results(
        schema="vambrace/results/1",
        model={**model, "input_shape": None, "num_classes": None, "class_names": []},
        data={},
        plan={
            "profile": "ci",
            "seed": 0,
            "checks": [],
            "gates": None,
            "chunk": 1,
            "batch": 1,
            "threads": 1,
            "dtype": "float32",
            "device": "cpu",
        },
        versions={"vambrace": "0", "python": "3"},
        findings=(finding,),
        gates=(),
        left_out=(),
        verdict=Verdict(exit_code=0, word="PASS", sentences=("Good.",)),
    )


def test_find_evidence(tmp_path: Path) -> None:
    file = "evidence/" + "0" * 64 + ".safetensors"
    evidence = Evidence(finding="pgd-0.1-77", kind="adversarial", file=file, sample="77", data={"label": 3})
    (tmp_path / "results.json").write_bytes(canonical.dumps(results_with(evidence).as_json()))
    assert find_evidence(tmp_path, "pgd-0.1-77") == evidence
    with pytest.raises(ConfigError, match="E511.*pgd-0.1-77"):
        find_evidence(tmp_path, "pgd-0.1-78")
    (tmp_path / "results.json").write_bytes(canonical.dumps(results_with().as_json()))
    with pytest.raises(ConfigError, match="E511.*saved no examples"):
        find_evidence(tmp_path, "pgd-0.1-77")
    with pytest.raises(ConfigError, match="E550"):
        find_evidence(tmp_path / "absent", "x")
