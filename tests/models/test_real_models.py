"""Third-party networks as they come: names with prefixes, nested checkpoints, ONNX with a batch of one."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import vambrace
from vambrace.core.contract import InputContract
from vambrace.errors import ModelRefused
from vambrace.models.load import load_model


def cnn_a(channels: int = 1, features: int = 1568) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(features, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


class ConvBN(nn.Module):
    """Four times convolution, batch normalisation, ReLU, with two poolings; then three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for taken, given, pool in ((1, 32, False), (32, 32, True), (32, 64, False), (64, 64, True)):
            layers += [nn.Conv2d(taken, given, 3), nn.BatchNorm2d(given), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] if pool else []
        self.features = nn.Sequential(*layers)
        self.fc1, self.fc2, self.fc3 = nn.Linear(1024, 200), nn.Linear(200, 200), nn.Linear(200, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self.features(inputs).view(len(inputs), -1)
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(out)))))


class Block(nn.Module):
    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(taken, given, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(given)
        self.conv2 = nn.Conv2d(given, given, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(given)
        self.padding = (given - taken) // 2

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(inputs)))))
        if self.padding:
            inputs = functional.pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(out + inputs)


class ResNet20(nn.Module):
    """He et al. for CIFAR, with shortcuts of option A."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(inputs)))
        return self.linear(self.layer3(self.layer2(self.layer1(out))).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def mnist(shared: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The first 1,000 test images in [0, 1] and their labels."""
    pixels = gzip.decompress((shared / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((shared / "data/mnist/t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = torch.from_numpy(np.frombuffer(pixels, np.uint8).reshape(-1, 1, 28, 28)[:1000].copy())
    return images.float() / 255, torch.from_numpy(np.frombuffer(labels, np.uint8)[:1000].astype(np.int64))


@pytest.fixture(scope="module")
def cifar(shared: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The first 100 test images, lossless, in [0, 1], and their labels."""
    with np.load(shared / "data/cifar10-jpeg/test-lossless-first100.npz", allow_pickle=False) as saved:
        images, labels = torch.from_numpy(saved["x"]), torch.from_numpy(saved["y"]).long()
    return images.permute(0, 3, 1, 2).float() / 255, labels


def _without_last(net: nn.Module) -> nn.Module:
    net.fc3 = nn.Sequential(net.fc3)
    return net


def right(model: object, data: tuple[torch.Tensor, torch.Tensor]) -> int:
    return int((model.predict(data[0]) == data[1]).sum())


@pytest.mark.parametrize(("name", "expected"), [("fgsm", 983), ("pgd", None), ("certified_eps0.1", None)])
def test_cnn_a(shared: Path, mnist: tuple[torch.Tensor, torch.Tensor], name: str, expected: int | None) -> None:
    model = vambrace.load(shared / f"models/mnist_cnn_a_{name}.pth", factory=cnn_a)
    found = right(model, mnist)
    assert found == expected if expected else found >= 970
    assert model.queries == 1000


def test_convbn_with_a_prefix(shared: Path, mnist: tuple[torch.Tensor, torch.Tensor]) -> None:
    path = shared / "models/mnist_convbn_standard.pt"
    with pytest.raises(ModelRefused, match="strip_prefix='module.'"):
        vambrace.load(path, factory=ConvBN)
    with pytest.raises(ModelRefused, match="so that 28 of 30 names fit; then check that the factory"):
        vambrace.load(path, factory=lambda: _without_last(ConvBN()))
    model = vambrace.load(path, factory=ConvBN, strip_prefix="module.")
    assert right(model, mnist) >= 990
    assert model.was_training == ()
    channels_last = mnist[0].expand(-1, 1, -1, -1).to(memory_format=torch.channels_last)
    assert torch.allclose(model(channels_last[:8]), model(mnist[0][:8]), atol=1e-4)


def test_resnet_in_a_checkpoint(shared: Path, cifar: tuple[torch.Tensor, torch.Tensor]) -> None:
    path, mean, std = shared / "models/cifar10_resnet20_standard.th", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    with pytest.raises(ModelRefused, match="state_key='state_dict'"):
        vambrace.load(path, factory=ResNet20)
    with pytest.raises(ModelRefused, match="strip_prefix='module.'"):
        vambrace.load(path, factory=ResNet20, state_key="state_dict")
    options = {"factory": ResNet20, "state_key": "state_dict", "strip_prefix": "module."}
    assert right(vambrace.load(path, mean=mean, std=std, **options), cifar) == 94
    assert right(vambrace.load(path, **options), cifar) < 90, "the normalisation matters"


def test_cnn_a_for_cifar(shared: Path, cifar: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = vambrace.load(
        shared / "models/cifar10_cnn_a_adv.pth",
        factory=cnn_a,
        factory_args={"channels": 3, "features": 2048},
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    )
    assert right(model, cifar) >= 65


def test_onnx_that_takes_vectors_one_by_one(shared: Path, mnist: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = vambrace.load(shared / "models/mnist_fc_256x2.onnx", input_shape=(1, 28, 28))
    assert right(model, mnist) == 978
    assert model.num_classes == 10


def test_onnx_resnet(shared: Path, cifar: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = vambrace.load(
        shared / "models/cifar10_resnet2b.onnx", std=(0.2470, 0.2435, 0.2616), mean=(0.4914, 0.4822, 0.4465)
    )
    assert model.input_shape == (3, 32, 32)
    assert right(model, cifar) >= 70


@pytest.mark.parametrize("name", ["yunet_n_dynamic", "version-RFB-640"])
def test_locators_are_no_classifiers(shared: Path, name: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        vambrace.load(shared / f"models/locators/{name}.onnx")
    assert caught.value.code == "E237"


def test_the_contract_of_a_plan(shared: Path, mnist: tuple[torch.Tensor, torch.Tensor]) -> None:
    from types import SimpleNamespace

    from vambrace.assess.plan import ModelSpec

    spec = ModelSpec(source="mnist_fc_256x2.onnx")
    trust = SimpleNamespace(code=(), artifacts=())
    model = load_model(spec, InputContract(size=(28, 28)), trust, shared / "models", "cpu")
    assert right(model, mnist) == 978
