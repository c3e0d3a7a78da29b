"""What `vambrace obfuscate` writes beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vambrace.cli.obfuscating import write_reports


class Found:
    """A report that was measured."""

    def html(self, json_name: str | None) -> str:
        return f"numbers in {json_name}"

    def as_json(self) -> dict[str, Any]:
        return {"verdict": "PASS"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("net.html",), "None"),
        (("net.html", "numbers.json"), "numbers.json"),
        (("numbers.json", "net.html"), "numbers.json"),
        (("net.html", "elsewhere/numbers.json"), "None"),
    ],
)
def test_a_page_is_told_which_json_stands_beside_it(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_reports(Found(), [tmp_path / name for name in names])  # pyright: ignore[reportArgumentType]
    assert (tmp_path / "net.html").read_text() == f"numbers in {said}"
    assert all(json.loads((tmp_path / name).read_text()) for name in names if name.endswith(".json"))
