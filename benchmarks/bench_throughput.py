"""How many rows a second attacks get through on a GPU, in single precision and with a search in bfloat16.

    python benchmarks/bench_throughput.py                     # needs CUDA; says so and stops elsewhere
    python benchmarks/bench_throughput.py --device cpu --rows 8 --steps 2     # whether it runs at all

A ResNet-18 as it is used at CIFAR size (3 x 3 stem, no pooling) and a ResNet-50 at 224 x 224, both with random weights:
speed does not depend on them. A goal that no point meets, so that every step of every sample is run. Rows are forwards
and backwards of the ledger. Beside ours stands a hand-written loop of PGD's steps, in the same rounds.

Results: `results/throughput.json`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import bench_pgd
import interleave
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vambrace.attacks import APGD, PGD
from vambrace.models import LowPrecision, from_torch

SEED = 0
ROUNDS = 5


class Block(nn.Module):
    """A residual block; `narrow` puts its 3 x 3 convolution between two of 1 x 1, as ResNet-50 does."""

    def __init__(self, inside: int, width: int, stride: int, *, narrow: bool) -> None:
        super().__init__()
        outside = width * 4 if narrow else width
        sizes = [(inside, width, 1, 1), (width, width, 3, stride), (width, outside, 1, 1)]
        if not narrow:
            sizes = [(inside, width, 3, stride), (width, width, 3, 1)]
        parts: list[nn.Module] = []
        for begin, end, kernel, step in sizes:
            parts += [nn.Conv2d(begin, end, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(end), nn.ReLU()]
        self.body = nn.Sequential(*parts[:-1])
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.skip = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, points: Tensor) -> Tensor:
        """Images to images."""
        return torch.relu(self.body(points) + self.skip(points))


def resnet(depths: tuple[int, ...], *, narrow: bool, large: bool, classes: int) -> nn.Module:
    """A residual network; `large` has the stem for images of 224."""
    torch.manual_seed(SEED)
    stem: list[nn.Module] = [nn.Conv2d(3, 64, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)]
    stem += [nn.BatchNorm2d(64), nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if large else [])]
    inside, blocks = 64, []
    for stage, depth in enumerate(depths):
        for place in range(depth):
            width = 64 * 2**stage
            blocks.append(Block(inside, width, 2 if stage and not place else 1, narrow=narrow))
            inside = width * 4 if narrow else width
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes)).eval()


def loop(net: nn.Module, inputs: Tensor, labels: Tensor, steps: int) -> None:
    """PGD by hand on one batch: the bound of what a framework can reach."""
    point = inputs.clone()
    for _ in range(steps):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(point), labels, reduction="sum"), point)
        point = (point.detach() + 0.01 * gradient.sign()).clamp(0, 1)
    with torch.no_grad():
        net(point)


def waited(run: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """A run that is over when the device has done its work."""

    def finished() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished


def measured(net: nn.Module, shape: tuple[int, ...], device: torch.device, rows: int, steps: int) -> dict[str, object]:
    """Rows a second of each contender on one network."""
    net = net.to(device, memory_format=torch.channels_last)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    inputs = torch.rand(rows, *shape, generator=torch.Generator().manual_seed(SEED)).to(device)
    labels = torch.zeros(rows, dtype=torch.int64, device=device)
    model = from_torch(net, bounds=(0, 1))
    goal = bench_pgd.Never(labels)
    found: dict[str, object] = {}
    contenders: dict[str, Callable[[], object]] = {"loop": lambda: loop(net, inputs, labels, steps)}
    for attack in (PGD(eps=8 / 255, steps=steps), APGD(eps=8 / 255, steps=steps)):
        for called, asked in (("float32", model), ("bfloat16", LowPrecision(model))):
            contenders[f"{attack.name} {called}"] = lambda attack=attack, asked=asked: attack(
                asked, inputs, goal, batch_size=rows
            )
    total = rows * (2 * steps + 1)
    times = interleave.interleaved({called: waited(run, device) for called, run in contenders.items()}, ROUNDS)
    for called, taken in times.items():
        rate = total / statistics.median(each["wall"] for each in taken)
        found[called] = {
            "rows_a_second": rate,
            "seconds": [each["wall"] for each in taken],
            "rate_over_loop": interleave.ratio(times["loop"], taken)["wall"],
        }
        interleave.say(f"  {called}: {rate:,.0f} rows a second")
    return found


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        interleave.say("bench_throughput: skipped, no CUDA device (--device cpu --rows 8 --steps 2 tries it out)")
        return
    device = torch.device(given.device)
    result: dict[str, object] = {"surroundings": interleave.surroundings(SEED, torch.get_num_threads())}
    if device.type == "cuda":
        result["device"] = torch.cuda.get_device_name(device)
    nets = {
        "resnet-18 at 32": (resnet((2, 2, 2, 2), narrow=False, large=False, classes=10), (3, 32, 32)),
        "resnet-50 at 224": (resnet((3, 4, 6, 3), narrow=True, large=True, classes=1000), (3, 224, 224)),
    }
    for called, (net, shape) in nets.items():
        interleave.say(called)
        result[called] = measured(net, shape, device, given.rows, given.steps)
    if device.type == "cuda":
        interleave.write("throughput", result)


if __name__ == "__main__":
    main()
