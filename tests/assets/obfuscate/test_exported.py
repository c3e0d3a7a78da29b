"""The tolerance profile and locks on networks as torch exports them, and on real ones with real inputs."""

from __future__ import annotations

import gzip
import io
import warnings
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from onnx_nets import apart, session
from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.keyinput import key_tensor, lock_by_input
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.passes import profile_names
from vambrace.assets.obfuscate.passes.disguises import Disguises
from vambrace.assets.obfuscate.passes.fission import SplitLayers
from vambrace.assets.obfuscate.passes.packing import PackWeights
from vambrace.assets.obfuscate.pipeline import SHARES, onnx_model, undo

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

KEY = bytes(range(32))
LIKE = 1e-5


class Block(nn.Module):
    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(taken, given, 3, stride, 1, bias=False), nn.BatchNorm2d(given), nn.ReLU(),
            nn.Conv2d(given, given, 3, 1, 1, bias=False), nn.BatchNorm2d(given),
        )  # fmt: skip
        same = stride == 1 and taken == given
        self.beside = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(taken, given, 1, stride), nn.BatchNorm2d(given))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(x) + self.beside(x))


def resnet() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16, 1), Block(16, 32, 2), Block(32, 32, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    for each in net.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_(0, 0.3)
            each.running_var.uniform_(0.5, 2)
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.normal_(each.bias, 0, 0.3)
    return net


class Encoder(nn.Module):
    """Patches, a transformer encoder of torch, and a class; in_proj of its attention is one packed matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 8, 8)
        self.places = nn.Parameter(torch.randn(1, 16, 64) * 0.1)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(64, 10)
        with torch.no_grad():
            for each in self.parameters():  # torch makes copies of one layer, which exporters join
                each.add_(torch.randn_like(each), alpha=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(self.patches(x).flatten(2).transpose(1, 2) + self.places).mean(1))


@pytest.fixture(scope="module", params=["resnet", "encoder", "resnet, older exporter", "encoder, older exporter"])
def exported(request: pytest.FixtureRequest) -> onnx.ModelProto:
    torch.manual_seed(0)
    net = (resnet() if "resnet" in request.param else Encoder()).eval()
    inputs, to = (torch.randn(2, 3, 32, 32),), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "older" in request.param:
            axes = {"x": {0: "n"}}
            torch.onnx.export(net, inputs, to, dynamo=False, input_names=["x"], dynamic_axes=axes, opset_version=17)
            return onnx.load_from_string(to.getvalue())
        free = ({0: torch.export.Dim("n")},)
        return torch.onnx.export(net, inputs, dynamo=True, dynamic_shapes=free, verbose=False).model_proto


def logits(model: onnx.ModelProto, inputs: np.ndarray, more: dict[str, np.ndarray] | None = None) -> np.ndarray:
    opened = session(model)
    name = opened.get_inputs()[0].name
    size = opened.get_inputs()[0].shape[0]
    rows = inputs.reshape(-1, size, *inputs.shape[1:]) if isinstance(size, int) else [inputs]
    return np.concatenate([opened.run(None, {name: each, **(more or {})})[0] for each in rows])


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("ratio", ["small", "large"])
def test_exported_networks_answer_the_same(exported: onnx.ModelProto, ratio: str) -> None:
    inputs = rows(200)
    before = logits(exported, inputs)
    # Where a share is stated, no bound of time leaves these small networks as they are.
    share = SHARES[ratio]
    stated = [SplitLayers(share=share), Disguises(share=share), PackWeights(share=share, convolutions=True)]
    named = {one.name: one for one in stated}
    passes = [named.get(name, name) for name in profile_names("tolerance")]
    for seed in range(3):
        made = onnx_model(exported, profile="tolerance", passes=passes, ratio=ratio, seed=seed)
        after = logits(made.model, inputs)
        assert apart([before], [after]) < LIKE
        assert (before.argmax(1) == after.argmax(1)).all()
        done = {entry.name: entry.done for entry in made.map.passes}
        assert all(done[name] for name in ("baked_permutation", "split_layers", "disguises", "pack_weights"))
        assert not any("no rule" in why for entry in made.map.passes for why in entry.left if entry.name == "rebasis")
        led_back = undo(made.model, made.map)
        assert apart([before], [logits(led_back.model, inputs)]) < LIKE


def test_attention_is_mixed_and_permuted(exported: onnx.ModelProto) -> None:
    made = onnx_model(exported, profile="tolerance", seed=0, passes=["rebasis", "baked_permutation"])
    rebasis, permutation = made.map.passes
    attends = any(node.op_type == "Softmax" for node in exported.graph.node)
    # The stream, and of each layer heads, the width inside of packed queries, keys and values, and hidden units.
    assert rebasis.done == (2 if attends else 0)
    assert permutation.done == (7 if attends else 5)


def test_exported_networks_can_be_locked(exported: onnx.ModelProto) -> None:
    inputs = rows(100)
    before = logits(exported, inputs)
    locked = lock(exported, KEY)
    assert np.array_equal(logits(unlock(locked, KEY), inputs), before)
    assert np.isfinite(logits(unlock(locked, bytes(32)), inputs)).all()
    by_input = lock_by_input(exported, KEY, share=1.0)
    name, tensor = key_tensor(by_input, KEY)
    assert np.array_equal(logits(by_input, inputs, {name: tensor}), before)
    wrong = logits(by_input, inputs, {name: key_tensor(by_input, bytes(32))[1]})
    assert apart([before], [wrong]) > 0.1  # random weights decide for one class whatever they see


def digits(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    folder = shared / "data/mnist"
    images = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:50] for digit in range(10)])
    return images.reshape(-1, 784, 1)[chosen].astype(np.float32) / 255, labels[chosen]


def pictures(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    with zipfile.ZipFile(shared / "data/cifar10-jpeg/test.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        kinds = sorted({name.split("/")[-2] for name in names})
        names = [name for kind in kinds for name in [each for each in names if each.split("/")[-2] == kind][:50]]
        images = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names])
    labels = np.array([kinds.index(name.split("/")[-2]) for name in names])
    scaled = (images.astype(np.float32) / 255 - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616]
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)).astype(np.float32), labels


@pytest.mark.parametrize(("file", "data"), [("mnist_fc_256x2.onnx", digits), ("cifar10_resnet2b.onnx", pictures)])
def test_real_networks(shared: Path, file: str, data) -> None:
    """500 real inputs: 1e-5 and the same decisions; 20 wrong keys within 3 points of chance, by both locks."""
    inputs, labels = data(shared)
    model = onnx.load(shared / "models" / file)
    before = logits(model, inputs)
    assert len(inputs) == 500
    assert np.mean(before.argmax(1) == labels) > 0.6
    for ratio in ("small", "medium", "large"):
        after = logits(onnx_model(model, profile="tolerance", ratio=ratio, seed=1).model, inputs)
        assert apart([before], [after]) < LIKE
        assert (before.argmax(1) == after.argmax(1)).all()
    keys = [Stream(KEY, number).bytes(32) for number in range(20)]
    locked = lock(model, KEY)
    assert np.array_equal(logits(unlock(locked, KEY), inputs), before)
    wrong = [np.mean(logits(unlock(locked, key), inputs).argmax(1) == labels) for key in keys]
    assert abs(np.mean(wrong) - 0.1) < 0.03
    by_input = lock_by_input(model, KEY)
    name, tensor = key_tensor(by_input, KEY)
    assert np.array_equal(logits(by_input, inputs, {name: tensor}), before)
    tensors = [key_tensor(by_input, key)[1] for key in keys]
    wrong = [np.mean(logits(by_input, inputs, {name: each}).argmax(1) == labels) for each in tensors]
    assert abs(np.mean(wrong) - 0.1) < 0.03
