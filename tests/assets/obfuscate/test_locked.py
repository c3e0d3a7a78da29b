"""Keys from files, and locked models that are loaded in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import vambrace
from vambrace.assets import obfuscate, seal
from vambrace.assets.obfuscate.locked import key_bytes, load_model
from vambrace.assets.seal import keys
from vambrace.errors import ArtifactRefused, ConfigError, ModelRefused

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))


def net() -> Any:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((40, 6)).astype("f4"), "v": rng.standard_normal((3, 40)).astype("f4")}
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", 6])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(net(), tmp_path / "net.onnx")
    onnx.save(obfuscate.lock(net(), KEY), tmp_path / "locked.onnx")
    keys.write(tmp_path / "lock.key", keys.Secret("aes256", KEY))
    seal.save(tmp_path / "locked.onnx", tmp_path / "locked.sealed", recipients=[bytes(32)])
    return tmp_path


def answers(model: vambrace.models.Model) -> torch.Tensor:
    inputs = torch.rand(20, 6, generator=torch.Generator().manual_seed(1))
    return model(inputs)


@pytest.mark.parametrize("name", ["locked.onnx", "locked.sealed"])
@pytest.mark.parametrize("as_file", [True, False])
def test_in_order_with_its_key(folder: Path, name: str, as_file: bool) -> None:
    identity = bytes(32) if name.endswith("sealed") else None
    key = folder / "lock.key" if as_file else KEY
    found = answers(load_model(folder / name, key=key, identity=identity, bounds=(0, 1)))
    assert torch.equal(found, answers(vambrace.load(folder / "net.onnx")))
    wrong = answers(load_model(folder / name, key=bytes(32), identity=identity, bounds=(0, 1)))
    assert (wrong - found).abs().max() > 0.5


def test_a_locked_model_is_not_loaded_without_its_key(folder: Path) -> None:
    for name, identity in (("locked.onnx", None), ("locked.sealed", bytes(32))):
        with pytest.raises(ModelRefused, match="E855"):
            vambrace.load(folder / name, identity=identity)


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("locked.sealed", {}, "E770"),
        ("locked.onnx", {"identity": bytes(32)}, "E771"),
        ("net.onnx", {}, "E837"),
        ("tensors.sealed", {"identity": bytes(32)}, "E764"),
        ("locked.onnx", {"key": bytes(31)}, "E853"),
        ("locked.onnx", {"key": keys.Secret("x25519", KEY)}, "E853"),
        ("locked.onnx", {"key": "nothing.key"}, "E853"),
    ],
)
def test_refused(folder: Path, name: str, given: dict[str, Any], code: str) -> None:
    seal.save({"w": torch.ones(2)}, folder / "tensors.sealed", recipients=[bytes(32)])
    with pytest.raises((ArtifactRefused, ConfigError), match=code) as raised:
        load_model(folder / name, **{"key": KEY, **given})
    assert KEY.hex() not in str(raised.value)


@pytest.mark.parametrize("name", ["two.onnx", "two.sealed"])
def test_networks_that_are_no_classifiers_are_told_how_to_run(folder: Path, name: str) -> None:
    """Exporting the model anew, as for a plain file of another form, helps nobody who has a locked one."""
    two = net()
    two.graph.output.append(helper.make_tensor_value_info("h", 1, ["n", 40]))
    onnx.save(obfuscate.lock(two, KEY), folder / "two.onnx")
    seal.save(folder / "two.onnx", folder / "two.sealed", recipients=[bytes(32)])
    identity = bytes(32) if name.endswith("sealed") else None
    with pytest.raises(ModelRefused) as caught:
        load_model(folder / name, key=KEY, identity=identity)
    error = caught.value
    assert error.code == "E856"
    assert error.seen == f"{name} gives y tensor(float)['n', 3], h tensor(float)['n', 40], and is locked"
    assert error.expected == "a classifier to assess: one floating output (n, k)"
    assert "obfuscate.unlock(model, key)" in error.fix
    source = folder / name if identity is None else seal.load(folder / name, identity=identity)
    assert obfuscate.unlock(source, KEY).graph.initializer == two.graph.initializer


def test_keys() -> None:
    assert key_bytes(KEY) == key_bytes(keys.Secret("aes256", KEY)) == KEY
