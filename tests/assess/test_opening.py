"""Model and data from the sources of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from assess.toy import install, toy_plan
from vambrace.assess.opening import open_data, open_model
from vambrace.assess.plan import DataSpec, ModelSpec, TrustSpec
from vambrace.core.contract import InputContract
from vambrace.errors import ConfigError, ModelRefused


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


def test_paths_start_at_the_folder_of_the_plan(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    np.savez(base / "set.npz", x=np.zeros((4, 1, 8, 8), np.float32), y=np.arange(4))
    monkeypatch.chdir(tmp_path)
    plan = toy_plan(
        base, data={"eval": DataSpec(source="set.npz", limit=3), "members": DataSpec(source="digits:train", limit=7)}
    )
    found = open_data(plan)
    assert {role: len(source) for role, source in found.items()} == {"eval": 3, "members": 7}
    assert found["eval"].name == "set.npz"
    assert open_model(plan).identity is not None


def test_the_contract_reaches_model_and_data(base: Path) -> None:
    np.savez(base / "bright.npz", x=np.full((4, 1, 8, 8), 1.5, np.float32), y=np.arange(4))
    contract = InputContract(bounds=(0.0, 2.0), mean=(1.0,), std=(0.5,))
    plan = toy_plan(base, contract=contract, data={"eval": DataSpec(source="bright.npz")})
    model = open_model(plan)
    assert model.bounds is not None
    assert model.bounds.as_json() == [0.0, 2.0]
    assert open_data(plan)["eval"].read([0]).inputs.max() > 1
    assert "mean" in str(model.identity)


def test_code_that_was_not_trusted_does_not_run(base: Path) -> None:
    with pytest.raises(ModelRefused):
        open_model(toy_plan(base, trust=TrustSpec()))


def test_what_was_in_memory_cannot_be_opened(base: Path) -> None:
    with pytest.raises(ConfigError, match="E512.*model"):
        open_model(toy_plan(base, model=ModelSpec()))
    with pytest.raises(ConfigError, match="E512.*eval"):
        open_data(toy_plan(base, data={"eval": DataSpec(source="")}))
