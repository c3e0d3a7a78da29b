"""The exact profile computes the same: many networks, every level of the runtime, inputs that are no numbers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exact_nets import LEVELS, differences, half_images, halved, images, random_net, session
from vambrace.assets.obfuscate import gauge, layers, places
from vambrace.assets.obfuscate.passes.permutation import Permutation
from vambrace.assets.obfuscate.passes.predicates import Predicates
from vambrace.assets.obfuscate.passes.scaling import Scaling
from vambrace.assets.obfuscate.pipeline import onnx_model, undo

EVERYWHERE = (
    Permutation(share=1.0, slowdown=1e9),
    Scaling(reach=8),
    "signs",
    Predicates(share=1.0, growth=9, slowdown=1e9),
    *("order", "metadata", "names"),
)


def real(shared: Path) -> dict[str, tuple[Path, dict[str, np.ndarray]]]:
    """Real networks, with inputs in the shape that each takes."""
    shapes = {
        "models/cifar10_resnet2b.onnx": (1, 3, 32, 32),
        "models/mnist_fc_256x2.onnx": (1, 784, 1),
        "models/locators/yunet_n_dynamic.onnx": (2, 3, 64, 32),
        "models/locators/version-RFB-640.onnx": (1, 3, 480, 640),
        "models/locators/yolox_nano.onnx": (1, 3, 416, 416),
    }
    return {Path(name).stem: (shared / name, images(0, shape)) for name, shape in shapes.items()}


@pytest.mark.parametrize("seed", range(4))
def test_networks_of_all_kinds_with_every_place_taken(seed: int) -> None:
    model = random_net(seed + 100)
    done = onnx_model(model, passes=EVERYWHERE, seed=seed)
    assert sum(entry.done for entry in done.map.passes[:4]) > 0
    assert differences(model, done.model, images(seed)) == []
    assert undo(done.model, done.map).model == model


@pytest.mark.slow
def test_a_hundred_networks() -> None:
    for seed in range(200, 300):
        model = random_net(seed)
        done = onnx_model(model, passes=EVERYWHERE, seed=seed)
        assert differences(model, done.model, images(seed)) == [], seed


@pytest.mark.slow
def test_places_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where any reader may stand behind a place, sums of branches are fused differently, and numbers change."""
    monkeypatch.setattr(places._Search, "_loud", lambda *_, **__: "")
    changed = 0
    for seed in range(20):
        model = random_net(seed)
        done = onnx_model(model, passes=EVERYWHERE[:1], seed=seed)
        changed += bool(differences(model, done.model, {"plain": images(seed)["plain"]}))
    assert changed >= 3


@pytest.mark.slow
@pytest.mark.parametrize("place", range(2))
def test_in_half_precision_only_signs_are_exact(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """Gathers and factors, where they are let near such layers, change the numbers of some networks."""
    half = partial(layers.layer_weights, halves=True)
    monkeypatch.setattr(places, "layer_weights", half)
    monkeypatch.setattr(gauge, "layer_weights", lambda *given, **_: half(*given))
    changed = 0
    for seed in range(100, 120):
        model = halved(random_net(seed))
        done = onnx_model(model, passes=EVERYWHERE[place : place + 1], seed=seed)
        changed += bool(differences(model, done.model, half_images(seed)))
    assert changed >= 3


@pytest.mark.slow
def test_two_threads() -> None:
    for seed in range(300, 310):
        model = random_net(seed)
        done = onnx_model(model, passes=EVERYWHERE, seed=seed)
        assert differences(model, done.model, images(seed), threads=2) == [], seed


def test_small_real_networks(shared: Path) -> None:
    for name in ("cifar10_resnet2b", "mnist_fc_256x2", "yunet_n_dynamic"):
        path, inputs = real(shared)[name]
        chosen = {what: inputs[what] for what in ("plain", "one NaN", "infinite")}
        done = onnx_model(path, passes=EVERYWHERE, seed=1)
        assert differences(onnx.load(path), done.model, chosen) == [], name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["version-RFB-640", "yolox_nano"])
def test_large_real_networks(shared: Path, name: str) -> None:
    path, inputs = real(shared)[name]
    chosen = {what: inputs[what] for what in ("plain", "one NaN", "infinite")}
    for passes in (None, EVERYWHERE):
        done = onnx_model(path, passes=passes, seed=1, ratio="large")
        assert differences(onnx.load(path), done.model, chosen) == []
        assert undo(done.model, done.map).kept == ()


def _exported(kind: str) -> tuple[onnx.ModelProto, np.ndarray]:
    import io
    import warnings

    import torch

    torch.manual_seed(0)
    net: Any
    if kind == "transformer":
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="relu")
        encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        net, values = torch.nn.Sequential(encoder, torch.nn.Linear(32, 5)), torch.randn(2, 7, 32)
    else:
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(16, 8, 2, 2),
            torch.nn.LeakyReLU(),
            torch.nn.Conv2d(8, 16, 3),
            torch.nn.GELU(),
            torch.nn.Conv2d(16, 8, 1),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, 4),
            torch.nn.Softmax(1),
        )
        values = torch.randn(2, 3, 12, 12)
    net.eval()
    with torch.no_grad():
        for parameter in net.parameters():  # layers of one encoder begin as copies of each other
            parameter.add_(0.1 * torch.randn_like(parameter))
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (values,), buffer, dynamo=False, opset_version=17)
    return onnx.load_model_from_string(buffer.getvalue()), values.numpy()


@pytest.mark.parametrize("kind", ["transformer", "convolutions"])
def test_exported_networks(kind: str) -> None:
    model, values = _exported(kind)
    done = onnx_model(model, passes=EVERYWHERE, seed=4)
    assert [entry.done > 0 for entry in done.map.passes[:2]] == [True, True]
    for factor in (1.0, 1e-6, np.nan, np.inf):
        assert differences(model, done.model, {"values": values * np.float32(factor)}) == []
    assert undo(done.model, done.map).model == model


def test_quantised_models_are_left_alone(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"image": images(seed)["plain"]} for seed in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    onnx.save(random_net(3), tmp_path / "net.onnx")
    for style in (QuantFormat.QDQ, QuantFormat.QOperator):
        target = tmp_path / f"{style.name}.onnx"
        quantize_static(tmp_path / "net.onnx", target, Reader(), quant_format=style)
        quantised = onnx.load(target)
        if any(node.domain not in {"", "ai.onnx"} for node in quantised.graph.node):
            continue
        done = onnx_model(quantised, passes=EVERYWHERE, seed=1)
        assert differences(quantised, done.model, images(0), levels=LEVELS) == []
        assert undo(done.model, done.map).kept == ()
        assert session(done.model)
