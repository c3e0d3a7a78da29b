"""Networks and real inputs for the benchmark of obfuscation: models of others as they came, and two exported here."""

from __future__ import annotations

import gzip
import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nets
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

MODELS = nets.SHARED / "models"


@dataclass(frozen=True)
class Case:
    """A network to obfuscate."""

    title: str
    model: Callable[[], onnx.ModelProto]
    inputs: Callable[[int], np.ndarray]
    inputs_title: str
    decide: Callable[[list[np.ndarray]], np.ndarray] | None = None


class ResNet20(nn.Module):
    """He et al. for CIFAR, shortcuts of option A, with its normalisation in front."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 32, 64)
        for number, width in enumerate(widths, 1):
            before = widths[max(number - 2, 0)]
            blocks = [Block(before if place == 0 else width, width) for place in range(3)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (n, 3, 32, 32) in 0..1 to logits."""
        x = F.relu(self.bn1(self.conv1((inputs - self.mean) / self.std)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


class Block(nn.Module):
    """Two convolutions and a shortcut that is cut down and padded where the width changes."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.stride, self.more = (2 if before != width else 1), width - before
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, self.stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, h, w) to (n, width, ...)."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(inner + x)


class Transformer(nn.Module):
    """Patches of 7 x 7, two encoder blocks of four heads, the mean of the tokens."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.ModuleList(Encoder(width, 4) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) in 0..1 to logits."""
        x = self.patches(inputs).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


class Encoder(nn.Module):
    """Attention, then a small dense net, each with its normalisation before it and a shortcut around."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) to the same."""
        n, tokens, width = x.shape
        normed = self.norm1(x)
        query, key, value = (
            layer(normed).reshape(n, tokens, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        shares = torch.softmax(query @ key.transpose(2, 3) * (width // self.heads) ** -0.5, dim=-1)
        x = x + self.out((shares @ value).transpose(1, 2).reshape(n, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def exported(net: nn.Module, sample: Tensor) -> onnx.ModelProto:
    """By torch's own exporter, names and metadata as it leaves them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = {0: torch.export.Dim("batch")}
        program = torch.onnx.export(
            net.eval(), (sample,), dynamo=True, dynamic_shapes=(sizes,), input_names=["images"], verbose=False
        )
    data = io.BytesIO()
    program.save(data)
    return onnx.load_from_string(data.getvalue())


def resnet20() -> onnx.ModelProto:
    """With weights of others."""
    net = ResNet20()
    state = torch.load(MODELS / "cifar10_resnet20_standard.th", map_location="cpu", weights_only=True)["state_dict"]
    net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return exported(net, torch.zeros(2, 3, 32, 32))


def transformer() -> onnx.ModelProto:
    """Trained here for a minute, on 12,000 digits, the same each time."""
    torch.manual_seed(0)
    net = Transformer()
    pixels, labels = digits("train", 12_000)
    steps = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(3):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch))
        for part in order.split(100):
            steps.zero_grad()
            F.cross_entropy(net(pixels[part]), labels[part]).backward()
            steps.step()
    return exported(net, torch.zeros(2, 1, 28, 28))


def digits(part: str, count: int) -> tuple[Tensor, Tensor]:
    """MNIST images in 0..1 and labels: "train" or "t10k"."""

    def raw(name: str, skip: int) -> np.ndarray:
        with gzip.open(nets.SHARED / "data/mnist" / f"{part}-{name}.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=skip)

    pixels = raw("images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)[:count]
    labels = raw("labels-idx1-ubyte", 8)[:count]
    return torch.from_numpy(pixels / np.float32(255)), torch.from_numpy(labels.astype(np.int64))


def mnist(count: int) -> np.ndarray:
    """Test images (n, 1, 28, 28) in 0..1."""
    return digits("t10k", count)[0].numpy()


def cifar(count: int) -> np.ndarray:
    """Test images of the JPEG copy (n, 3, 32, 32) in 0..1, of all classes in turn."""
    with zipfile.ZipFile(nets.SHARED / "data/cifar10-jpeg/test.zip") as folder:
        names = sorted(folder.namelist(), key=lambda name: (Path(name).name, name))
        names = [name for name in names if name.endswith((".jpg", ".jpeg"))][:count]
        images = [np.asarray(Image.open(io.BytesIO(folder.read(name))).convert("RGB")) for name in names]
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def crops(count: int, height: int, width: int) -> np.ndarray:
    """Parts of photos of streets and people (n, 3, height, width), RGB, 0..255: several of each."""
    rng, found = np.random.default_rng(0), list[np.ndarray]()
    for image in _photos(count, (height, width)):
        top, left = (rng.integers(size - part + 1) for size, part in zip(image.shape, (height, width), strict=False))
        found.append(image[top : top + height, left : left + width])
    return np.stack(found).transpose(0, 3, 1, 2).astype(np.float32)


def _photos(count: int, least: tuple[int, int]) -> Iterator[np.ndarray]:
    files = [
        path
        for folder in ("faces-dlib", "street", "plates-dashcam")
        for path in sorted((nets.SHARED / "data" / folder).iterdir())
        if path.suffix in {".jpg", ".png"}
    ]
    for number in range(count):
        image = Image.open(files[number % len(files)]).convert("RGB")
        scale = max(1.0, least[0] / image.height, least[1] / image.width)
        size = (round(image.width * scale + 0.5), round(image.height * scale + 0.5))
        yield np.asarray(image.resize(size) if scale > 1 else image)


def faces_of_yunet(outputs: list[np.ndarray]) -> np.ndarray:
    """Which places hold a face, at the usual threshold."""
    classes, objects = outputs[:3], outputs[3:6]
    scores = [np.sqrt(np.clip(one, 0, 1) * np.clip(two, 0, 1)) for one, two in zip(classes, objects, strict=True)]
    return (np.concatenate(scores, axis=1)[:, :, 0] >= 0.6).astype(np.int64)


def faces_of_rfb(outputs: list[np.ndarray]) -> np.ndarray:
    """Which places hold a face, at the usual threshold."""
    return (outputs[0][:, :, 1] >= 0.7).astype(np.int64)


def objects_of_yolox(outputs: list[np.ndarray]) -> np.ndarray:
    """The class of each place, or -1 where its score is below the usual threshold."""
    scores = outputs[0][:, :, 4:5] * outputs[0][:, :, 5:]
    return np.where(scores.max(axis=2) >= 0.3, scores.argmax(axis=2), -1)


def _loaded(name: str) -> Callable[[], onnx.ModelProto]:
    return lambda: onnx.load(MODELS / name)


_MEAN = np.array(nets.CIFAR_MEAN, np.float32).reshape(1, 3, 1, 1)
_STD = np.array((0.2470, 0.2435, 0.2616), np.float32).reshape(1, 3, 1, 1)
_PHOTOS = "parts of photos of streets, people and cars"
CASES = {
    "mnist_fc": Case(
        "MNIST dense 3 x 256 (ONNX as it came)",
        _loaded("mnist_fc_256x2.onnx"),
        lambda count: mnist(count).reshape(-1, 784, 1),
        "MNIST test",
    ),
    "resnet2b": Case(
        "CIFAR-10 ResNet-2b (ONNX as it came)",
        _loaded("cifar10_resnet2b.onnx"),
        lambda count: (cifar(count) - _MEAN) / _STD,
        "CIFAR-10 (JPEG copy) test",
    ),
    "resnet20": Case("CIFAR-10 ResNet-20 (exported here)", resnet20, cifar, "CIFAR-10 (JPEG copy) test"),
    "transformer": Case("MNIST transformer (trained and exported here)", transformer, mnist, "MNIST test"),
    "yunet": Case(
        "YuNet, face locator (ONNX as it came)",
        _loaded("locators/yunet_n_dynamic.onnx"),
        lambda count: np.ascontiguousarray(crops(count, 320, 320)[:, ::-1]),
        _PHOTOS,
        faces_of_yunet,
    ),
    "rfb": Case(
        "RFB-640, face locator (ONNX as it came)",
        _loaded("locators/version-RFB-640.onnx"),
        lambda count: (crops(count, 480, 640) - np.float32(127)) / np.float32(128),
        _PHOTOS,
        faces_of_rfb,
    ),
    "yolox": Case(
        "YOLOX-nano, object locator (ONNX as it came)",
        _loaded("locators/yolox_nano.onnx"),
        lambda count: np.ascontiguousarray(crops(count, 416, 416)[:, ::-1]),
        _PHOTOS,
        objects_of_yolox,
    ),
}
