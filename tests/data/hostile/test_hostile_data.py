"""Every row of rows.toml: the class, exit, code and sentence, bounded memory and time, and nothing written or run."""

from __future__ import annotations

import importlib
import os
import time
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vambrace import data
from vambrace.core.contract import InputContract
from vambrace.errors import DataRefused
from vambrace.explain import page

ROWS = tomllib.loads((Path(__file__).parent / "rows.toml").read_text(encoding="utf-8"))["row"]
BUILDERS = [importlib.import_module(f"data.hostile.{name}") for name in ("arrays", "images", "zips")]
MOST_BYTES = 256 * 2**20
MOST_SECONDS = 10


def _builder(name: str, modules: list[ModuleType] = BUILDERS) -> Any:
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def _resident(field: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _tree(folder: Path) -> list[bytes]:
    return sorted(
        os.path.join(os.fsencode(parent), name)
        for parent, folders, files in os.walk(folder)
        for name in map(os.fsencode, folders + files)
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['number']}-{row['build']}")
def test_row(row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "set"
    inside.mkdir()
    case = _builder(row["build"])(inside)
    monkeypatch.chdir(tmp_path)
    before = _tree(tmp_path)
    measured = _reset_peak()
    resident = _resident("VmRSS") if measured else 0
    started = time.monotonic()
    if row["exit"]:
        with pytest.raises(DataRefused) as caught:
            data.load(case.source, **case.options)
        assert caught.value.exit_code == row["exit"]
        assert caught.value.code == row["code"]
        assert row["says"] in str(caught.value)
        assert page(row["code"])
    else:
        loaded = data.load(case.source, **case.options)
        batch = loaded.read(range(len(loaded)))
        assert batch.labels.tolist() == list(case.labels)
        assert np.array_equal((batch.inputs * 255).round().numpy().astype(np.uint8), np.stack(case.pixels))
        assert len(loaded.skipped) == case.skipped
        assert "".join([*loaded.names, *loaded.class_names]).isprintable()
    assert time.monotonic() - started < MOST_SECONDS
    if measured:
        assert _resident("VmHWM") - resident < MOST_BYTES
    assert _tree(tmp_path) == before


def test_rows_are_numbered_once() -> None:
    numbers = [row["number"] for row in ROWS]
    assert numbers == list(range(30, 30 + len(ROWS)))
    assert len({row["build"] for row in ROWS}) == len(ROWS)


def test_every_builder_has_a_row() -> None:
    def public(module: ModuleType) -> set[str]:
        found = vars(module).items()
        return {
            name
            for name, value in found
            if getattr(value, "__module__", "") == module.__name__ and name.islower() and not name.startswith("_")
        }

    assert {name for module in BUILDERS for name in public(module)} == {row["build"] for row in ROWS}


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """Unpickling the builders' object does create what the rows look for: the net has no hole."""
    import pickle

    touch = importlib.import_module("data.hostile.arrays").Touch(tmp_path)
    pickle.loads(pickle.dumps(touch))
    assert (tmp_path / "canary").exists()


def test_memory_is_measured() -> None:
    """The gauge sees memory that is taken and given back."""
    if not _reset_peak():
        pytest.skip("this system does not tell the peak of memory")
    before = _resident("VmRSS")
    np.ones(MOST_BYTES + 2**20, np.uint8).sum()
    assert _resident("VmHWM") - before > MOST_BYTES


def test_contract_does_not_open_a_door(tmp_path: Path) -> None:
    """The caps hold under every contract: a header of 50,000 x 50,000 with a resize is still refused."""
    case = _builder("png_50k_header")(tmp_path)
    with pytest.raises(DataRefused, match="over the cap"):
        data.load(case.source, contract=InputContract(size=(8, 8), resize="squash", channels=3))
