"""What tests of commands on sealed files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vambrace.cli.main import main

MIB = 2**20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "me"]) == 0
    assert main(["keygen", "maker", "--kind", "ed25519"]) == 0
    Path("plain").write_bytes(b"plain" + os.urandom(9 * MIB))
    folder = Path("folder/below")
    folder.mkdir(parents=True)
    for name, size in (("a", 2 * MIB), ("b", 0), ("c", MIB + 1)):
        (folder / name).write_bytes(os.urandom(size))
    return tmp_path
