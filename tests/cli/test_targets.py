"""What commands look at before they write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vambrace.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_model_that_cannot_be_read_is_refused_as_any_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Looking for its weights elsewhere ended as a bug of vambrace."""
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "me", "--kind", "x25519"]) == 0
    for name in ("net.onnx", "net.bin"):
        (tmp_path / name).symlink_to("/proc/self/mem")  # there, and not to be read: by the superuser neither
        assert main(["seal", name, "out", "-r", "me.pub"]) == 6
        assert "E604" in capsys.readouterr().err
