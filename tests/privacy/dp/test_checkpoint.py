"""Checkpoints: with the ledger they were made with, at its number of steps, whole, and without a secret."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from assess.assess_harness import Failing
from vambrace.core import files
from vambrace.errors import ConfigError, ResourceError
from vambrace.privacy.dp.charges import Charge
from vambrace.privacy.dp.checkpoint import load_checkpoint, save_checkpoint
from vambrace.privacy.dp.history import Terms
from vambrace.privacy.dp.ledger import Ledger

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "dp-checkpoint").glob("*.json"))
TERMS = Terms(dataset_size=60000, delta=1e-5, unit="sample", relation="add_or_remove_one", sampler="poisson")
CHARGE = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=0.01)


def save(path: Path, ledger: Ledger, extra: Any = None) -> None:
    save_checkpoint(
        path,
        module_state={},
        optimizer_state={},
        extra=extra,
        ledger_head=ledger.head,
        ledger_position=ledger.position,
    )


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 17


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path, tmp_path: Path) -> None:
    vector = json.loads(path.read_text(encoding="utf-8"))
    (tmp_path / "checkpoint").write_bytes(base64.b64decode(vector["checkpoint"]))
    (tmp_path / "ledger").write_bytes(vector["ledger"].encode("latin-1"))
    expect = vector["expect"]
    with Ledger.open(tmp_path / "ledger") as ledger:
        if "error" in expect:
            with pytest.raises(ConfigError) as caught:
                load_checkpoint(tmp_path / "checkpoint", ledger)
            assert caught.value.code == expect["error"]
            assert expect["seen"] in caught.value.seen
        else:
            assert load_checkpoint(tmp_path / "checkpoint", ledger).extra == expect["extra"]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, kind: type[torch.optim.Optimizer]) -> None:
    def begun() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.GroupNorm(1, 2))
        return module, kind(module.parameters(), lr=0.1)

    def step(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        module(torch.ones(4, 3)).pow(2).sum().backward()
        optimizer.step()

    module, optimizer = begun()
    step(module, optimizer)
    with Ledger.create(tmp_path / "ledger", TERMS) as ledger:
        ledger.reserve(CHARGE, 10)
        save_checkpoint(
            tmp_path / "last",
            module_state=module.state_dict(),
            optimizer_state=optimizer.state_dict(),
            extra={"clip_norm": 0.7, "epoch": 3},
            ledger_head=ledger.head,
            ledger_position=ledger.position,
        )
        found = load_checkpoint(tmp_path / "last", ledger)
    again, others = begun()
    again.load_state_dict(found.module_state)
    others.load_state_dict(found.optimizer_state)
    assert found.extra == {"clip_norm": 0.7, "epoch": 3}
    step(module, optimizer)
    step(again, others)
    for one, other in zip(module.parameters(), again.parameters(), strict=True):
        assert one.equal(other)


def test_an_old_checkpoint_gains_nothing(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger", TERMS) as ledger:
        save(tmp_path / "first", ledger)
        ledger.reserve(CHARGE, 100)
        save(tmp_path / "second", ledger)
        ledger.reserve(CHARGE, 100)
        save(tmp_path / "third", ledger)
    for restored, charged in (("second", 250), ("first", 300), ("third", 350)):
        with Ledger.open(tmp_path / "ledger") as ledger:
            load_checkpoint(tmp_path / restored, ledger)
            ledger.reserve(CHARGE, 50)
            assert ledger.steps == ledger.spent.steps == charged


def test_a_ledger_that_was_put_back_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger.create(path, TERMS) as ledger:
        ledger.reserve(CHARGE, 100)
        older = path.read_bytes()
        ledger.reserve(CHARGE, 100)
        save(tmp_path / "last", ledger)
    newer = path.read_bytes()
    for cut in range(len(older), len(newer) - 1, 9):
        path.write_bytes(newer[:cut])
        with Ledger.open(path) as ledger, pytest.raises(ConfigError, match="E585.*is older than"):
            load_checkpoint(tmp_path / "last", ledger)
    path.write_bytes(older)
    with Ledger.open(path) as ledger:
        ledger.reserve(CHARGE, 1)  # going on from the copy makes it another ledger
        ledger.reserve(CHARGE, 1)
        with pytest.raises(ConfigError, match="E585.*is not the ledger of"):
            load_checkpoint(tmp_path / "last", ledger)
    path.write_bytes(newer)
    with Ledger.open(path) as ledger:
        load_checkpoint(tmp_path / "last", ledger)


def test_a_foreign_ledger_is_refused_however_alike(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "one", TERMS) as one, Ledger.create(tmp_path / "two", TERMS) as two:
        for ledger in (one, two):
            ledger.reserve(CHARGE, 100)
        save(tmp_path / "last", one)
        with pytest.raises(ConfigError, match="E585.*two is not the ledger of .*last"):
            load_checkpoint(tmp_path / "last", two)


def test_no_checkpoint(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger", TERMS) as ledger, pytest.raises(ConfigError, match="E585: no checkpoint"):
        load_checkpoint(tmp_path / "last", ledger)


@pytest.mark.parametrize(
    "secret",
    [os.urandom(32), bytearray(16), memoryview(b"key"), torch.Generator(), random.SystemRandom(), random.Random(1)],
    ids=lambda secret: type(secret).__name__,
)
def test_what_keys_and_noise_are_made_of_is_not_stored(tmp_path: Path, secret: object) -> None:
    with Ledger.create(tmp_path / "ledger", TERMS) as ledger:
        with pytest.raises(ConfigError, match=r"E109: tree\['extra'\]\['noise'\]\[0\]"):
            save(tmp_path / "last", ledger, {"noise": [secret]})
        assert not (tmp_path / "last").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_every_call_fails_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with Ledger.create(tmp_path / "ledger", TERMS) as ledger:
        save(tmp_path / "last", ledger, "old")
        for at in range(1, 10):
            with monkeypatch.context() as patch:
                patch.setattr(files, "system", shim := Failing(at, code))
                try:
                    save(tmp_path / "last", ledger, "new")
                except ResourceError as error:
                    assert error.code == "E601"  # noqa: PT017
            assert load_checkpoint(tmp_path / "last", ledger).extra in {"old", "new"}
            if len(shim.calls) < at:
                break
            save(tmp_path / "last", ledger, "old")
        assert at == 5
        assert load_checkpoint(tmp_path / "last", ledger).extra == "new"
