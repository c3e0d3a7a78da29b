"""PGD and APGD against a hand-written loop and torchattacks, on two MNIST networks that others trained.

    make peers && make bench            # or: .venv-peers/bin/python benchmarks/bench_pgd.py
    python benchmarks/bench_pgd.py --images 100 --rounds 1      # a quick look

Three questions, answered in `results/pgd.json`:

1. Strength. CNN-A, fast adversarial training, linf 0.3, 40 steps of 0.01 from the image itself. How many images does a
   loop leave that judges its last iterate, and torchattacks, and ours, which judges every iterate? Which image does
   anyone break that we do not?
2. Overhead. A goal that no point can meet, so that nothing stops early: our time over that of the loop.
3. Speed. A standard network, step 0.01875 from a random start: our time over that of torchattacks.

Parts that need torchattacks are skipped with a message where it is not installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import os
from pathlib import Path

import interleave
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vambrace.attacks import APGD, PGD
from vambrace.core.goals import Untargeted
from vambrace.models import from_torch

try:
    import torchattacks
except ImportError:
    torchattacks = None

EPS, STEPS, SEED = 0.3, 40, 0
SHARED = Path(os.environ.get("VAMBRACE_SHARED") or Path(__file__).parents[2] / "shared")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Never(Untargeted):
    """The untargeted goal, out of reach."""

    def margin(self, logits: Tensor) -> Tensor:
        """Always below zero."""
        return torch.full_like(logits[:, 0], -1.0)

    def take(self, index: Tensor) -> Never:
        """As the base class."""
        return Never(self.labels[index])


class ConvBN(nn.Module):
    """Four convolutions with batch normalisation, three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        layers, width = [], 1
        for place, wide in enumerate((32, 32, 64, 64)):
            layers += [nn.Conv2d(width, wide, 3), nn.BatchNorm2d(wide), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if place % 2 else []
            width = wide
        self.features = nn.Sequential(*layers)
        self.fc1, self.fc2, self.fc3 = nn.Linear(1024, 200), nn.Linear(200, 200), nn.Linear(200, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) to logits."""
        features = self.features(inputs)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(features.view(features.size(0), -1))))))


def cnn_a() -> nn.Module:
    """Two strided convolutions, two linear layers, adversarially trained."""
    layers = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))
    net.load_state_dict(_state("mnist_cnn_a_fgsm.pth"))
    return net.eval().requires_grad_(False)


def conv_bn() -> nn.Module:
    """A network trained without adversarial examples."""
    net = ConvBN()
    state = {name.removeprefix("module."): value for name, value in _state("mnist_convbn_standard.pt").items()}
    net.load_state_dict(state, strict=False)  # old files lack `num_batches_tracked`, which eval mode never reads
    return net.eval().requires_grad_(False)


def _state(name: str) -> dict[str, Tensor]:
    return torch.load(SHARED / "models" / name, map_location="cpu", weights_only=True)


def images(count: int) -> tuple[Tensor, Tensor]:
    """The first MNIST test images in 0..1, and their labels."""

    def raw(name: str, skip: int) -> np.ndarray:
        with gzip.open(SHARED / "data/mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=skip)

    pixels = raw("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:count]
    labels = raw("t10k-labels-idx1-ubyte.gz", 8)[:count]
    return torch.from_numpy(pixels / np.float32(255)), torch.from_numpy(labels.astype(np.int64))


def hand_written(net: nn.Module, inputs: Tensor, labels: Tensor, *, step_size: float, batch: int) -> Tensor:
    """PGD as one writes it: last iterates, nothing else. Parameters are frozen already; the final forward judges."""
    left = []
    for part, label in zip(inputs.split(batch), labels.split(batch), strict=True):
        low, high = (part - EPS).clamp(0, 1), (part + EPS).clamp(0, 1)
        point = part.clone()
        for _ in range(STEPS):
            point.requires_grad_()
            loss = F.cross_entropy(net(point), label, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
            point = point.detach() + step_size * gradient.sign()
            point = torch.minimum(torch.maximum(point, low), high)
        with torch.no_grad():
            left.append(net(point).argmax(1) == label)
    return torch.cat(left)


def peer_pgd(net: nn.Module, inputs: Tensor, labels: Tensor, *, step_size: float, random: bool, batch: int) -> Tensor:
    """torchattacks, judged on what it returns."""
    attack = torchattacks.PGD(net, eps=EPS, alpha=step_size, steps=STEPS, random_start=random)
    left = []
    for part, label in zip(inputs.split(batch), labels.split(batch), strict=True):
        points = attack(part, label)
        with torch.no_grad():
            left.append(net(points).argmax(1) == label)
    return torch.cat(left)


def peer_apgd(net: nn.Module, inputs: Tensor, labels: Tensor, steps: int) -> Tensor:
    """torchattacks' copy of the authors' code."""
    attack = torchattacks.APGD(net, norm="Linf", eps=EPS, steps=steps, n_restarts=1, seed=SEED, loss="ce")
    with torch.no_grad():
        return net(attack(inputs, labels)).argmax(1) == labels


def strength(count: int) -> dict[str, object]:
    """Question 1."""
    net, (inputs, labels) = cnn_a(), images(count)
    with torch.no_grad():
        clean = net(inputs).argmax(1) == labels
    loop = hand_written(net, inputs, labels, step_size=0.01, batch=250)
    out = PGD(eps=EPS, steps=STEPS, step_size=0.01, random_start=False)(from_torch(net), inputs, labels)
    missed = (~loop & ~out.success).nonzero().flatten().tolist()
    found: dict[str, object] = {
        "model": "mnist_cnn_a_fgsm.pth",
        "images": count,
        "clean_correct": int(clean.sum()),
        "left_by_loop_last_iterate": int(loop.sum()),
        "left_by_ours": int((~out.success).sum()),
        "broken_by_loop_and_not_by_ours": [{"image": row, "margin": float(out.margin[row])} for row in missed],
        "cost": dataclasses.asdict(out.cost),
    }
    if torchattacks is None:
        return found
    peer = peer_pgd(net, inputs, labels, step_size=0.01, random=False, batch=250)
    found["left_by_torchattacks"] = int(peer.sum())
    found["loop_and_torchattacks_differ_on"] = (loop != peer).nonzero().flatten().tolist()
    few = min(count, 300)
    steps = 100
    ours = APGD(eps=EPS, steps=steps)(from_torch(net), inputs[:few], labels[:few], rng=SEED)
    theirs = peer_apgd(net, inputs[:few], labels[:few], steps)
    found["apgd"] = {
        "images": few,
        "steps": steps,
        "left_by_ours": int((~ours.success).sum()),
        "left_by_torchattacks": int(theirs.sum()),
        "only_we_break": (ours.success & theirs).nonzero().flatten().tolist(),
        "only_torchattacks_breaks": [
            {"image": row, "our_margin": float(ours.margin[row])}
            for row in (~ours.success & ~theirs).nonzero().flatten().tolist()
        ],
    }
    return found


def overhead(count: int, rounds: int, batches: tuple[int, ...]) -> dict[str, object]:
    """Question 2. Measured on a quarter of the images at a time: more rounds for the same minutes."""
    net, (inputs, labels) = cnn_a(), images(count)
    model = from_torch(net)
    attack = PGD(eps=EPS, steps=STEPS, step_size=0.01, random_start=False)
    size = max(1, count // 4)
    inputs, labels = inputs[:size], labels[:size]
    found: dict[str, object] = {"model": "mnist_cnn_a_fgsm.pth", "images_a_round": size}
    for batch in batches:
        times = interleave.interleaved(
            {
                "loop": lambda batch=batch: hand_written(net, inputs, labels, step_size=0.01, batch=batch),
                "ours": lambda batch=batch: attack(model, inputs, Never(labels), batch_size=batch),
            },
            rounds * 4,
        )
        found[f"batch_{batch}"] = {
            "ours_over_loop": interleave.ratio(times["ours"], times["loop"]),
            "loop_seconds": interleave.fastest(times["loop"]),
        }
    out = attack(model, inputs, Never(labels))
    found["cost"] = dataclasses.asdict(out.cost)
    return found


def speed(count: int, rounds: int, batches: tuple[int, ...]) -> dict[str, object]:
    """Question 3. torchattacks runs at each batch size, and its fastest one is what we are compared with."""
    net, (inputs, labels) = conv_bn(), images(count)
    model = from_torch(net)
    attack = PGD(eps=EPS, steps=STEPS, step_size=0.01875)
    out = attack(model, inputs, labels, rng=SEED)
    found: dict[str, object] = {
        "model": "mnist_convbn_standard.pt",
        "images": count,
        "left_by_ours": int((~out.success).sum()),
        "cost": dataclasses.asdict(out.cost),
    }
    if torchattacks is None:
        return found
    contenders = {"ours": lambda: attack(model, inputs, labels, rng=SEED)}
    for batch in batches:
        contenders[f"torchattacks_{batch}"] = lambda batch=batch: peer_pgd(
            net, inputs, labels, step_size=0.01875, random=True, batch=batch
        )
    torch.manual_seed(SEED)
    found["left_by_torchattacks"] = int(contenders[f"torchattacks_{batches[0]}"]().sum())
    times = interleave.interleaved(contenders, rounds, warm_up=0)
    best = min((name for name in times if name != "ours"), key=lambda name: interleave.fastest(times[name])["wall"])
    found["seconds"] = {name: interleave.fastest(taken) for name, taken in times.items()}
    found["compared_with"] = best
    found["torchattacks_over_ours"] = interleave.ratio(times[best], times["ours"])
    return found


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if not (SHARED / "models").is_dir():
        interleave.say("bench_pgd: skipped, no shared models (set VAMBRACE_SHARED to their folder)")
        return
    if torchattacks is None:
        interleave.say("bench_pgd: torchattacks is not installed here, comparisons with it are skipped (make peers)")
    torch.set_num_threads(given.threads)
    result: dict[str, object] = {"surroundings": interleave.surroundings(SEED, given.threads)}
    result["strength"] = strength(given.images)
    interleave.say(f"strength: {result['strength']}")
    result["overhead"] = overhead(given.images, given.rounds, (64, 128, 250))
    interleave.say(f"overhead: {result['overhead']}")
    result["speed"] = speed(given.images, max(2, given.rounds // 2), (64, 128, 250))
    interleave.say(f"speed: {result['speed']}")
    full = given.images == 1000
    interleave.say(f"written to {interleave.write('pgd' if full else 'pgd-quick', result)}")


if __name__ == "__main__":
    main()
