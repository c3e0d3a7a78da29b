"""What `vambrace obfuscate` writes beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vambrace.cli.main import main
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


@pytest.mark.parametrize(("between", "traced"), [("Relu", True), ("Softmax", False)])
def test_a_copy_that_cannot_be_traced_is_said_to_be_none(
    between: str, traced: bool, tmp_path: Path, capsys: Any
) -> None:
    """The owner would find out when it has leaked."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 4] y)
        {{ a = MatMul (x, v) b = {between} (a) y = MatMul (b, w) }}"""
    )
    rng = np.random.default_rng(0)
    for name, sizes in {"v": (8, 32), "w": (32, 4)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(sizes).astype(np.float32), name))
    net, owner, out = (tmp_path / name for name in ("net.onnx", "owner", "out.onnx"))
    onnx.save(model, net)
    assert main(["keygen", str(owner), "--kind", "aes256"]) == 0
    call = ["obfuscate", str(net), "-o", str(out), "--no-map", "--customer", "ada", "--owner-key", str(owner)]
    assert main(call) == 0
    assert ("nothing in this copy can be traced" in capsys.readouterr().err) is not traced
