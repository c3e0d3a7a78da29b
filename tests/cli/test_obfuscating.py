"""What `vambrace obfuscate` writes beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from vambrace.assets.obfuscate.measure import measuring
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


def cancelling(common: float) -> onnx.ModelProto:
    """Two layers, with a term that the first adds to all its channels and that is taken from what comes out."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 4] y)
        { a = Gemm (x, v, b) r = Relu (a) s = MatMul (r, w) y = Sub (s, far) }"""
    )
    bias = (rng.standard_normal(32) + common).astype(np.float32)
    after = rng.standard_normal((32, 4)).astype(np.float32)
    given = {"v": rng.standard_normal((8, 32)).astype(np.float32), "b": bias, "w": after, "far": bias @ after}
    for name, array in given.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@pytest.mark.parametrize(("common", "left_out"), [(1e4, True), (0.0, False)])
def test_what_moves_answers_too_far_is_left_out_and_named(
    common: float, left_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the file that is written holds the bound, as without inputs it would not; locked or not."""
    net, data, key = (tmp_path / name for name in ("net.onnx", "rows.npy", "key"))
    rows = np.random.default_rng(1).standard_normal((40, 8)).astype(np.float32)
    onnx.save(cancelling(common), net)
    np.save(data, rows)
    assert main(["keygen", str(key), "--kind", "aes256"]) == 0
    told: list[dict[str, str]] = []

    def measured(*_: Any, **given: Any) -> Any:
        told.append(given["left_out"])
        return SimpleNamespace(verdict="PASS", judged=())

    monkeypatch.setattr(measuring, "measure", measured)

    def far(name: str, *options: str) -> float:
        call = ["obfuscate", str(net), "-o", str(tmp_path / name), "--no-map", "--seed", "1", "--profile", "tolerance"]
        assert main([*call, *options]) == 0
        opened = tmp_path / name
        if "--key-file" in options:
            opened = tmp_path / f"open-{name}"
            assert main(["unlock", str(tmp_path / name), str(opened), "--key-file", str(key)]) == 0
        one, two = (onnxruntime.InferenceSession(path).run(None, {"x": rows})[0] for path in (net, opened))
        return float((np.abs(one - two).max(axis=1) / np.abs(one).max(axis=1)).max())

    capsys.readouterr()
    assert (far("plain.onnx") > 1e-4) is left_out
    assert "nothing was measured: --data" in capsys.readouterr().err
    for name, options in {"kept.onnx": (), "locked.onnx": ("--key-file", str(key))}.items():
        assert far(name, "--data", str(data), *options) <= 1e-5
        said = capsys.readouterr()
        assert ("left out, since answers move too far: baked_permutation by 0.0" in said.err) is left_out
        assert ("1 that move answers by 0.0" in said.out) is left_out
    assert [list(each) for each in told] == [["baked_permutation"] * left_out] * 2
    same = (tmp_path / "plain.onnx").read_bytes() == (tmp_path / "kept.onnx").read_bytes()
    assert same is not left_out
