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

import interleave
import nets
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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Never(Untargeted):
    """The untargeted goal, out of reach."""

    def margin(self, logits: Tensor) -> Tensor:
        """Always below zero."""
        return torch.full_like(logits[:, 0], -1.0)

    def take(self, index: Tensor) -> Never:
        """As the base class."""
        return Never(self.labels[index])


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
    net, (inputs, labels) = nets.cnn_a(), nets.mnist(count)
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
    """Question 2."""
    net, (inputs, labels) = nets.cnn_a(), nets.mnist(count)
    model = from_torch(net)
    attack = PGD(eps=EPS, steps=STEPS, step_size=0.01, random_start=False)
    found: dict[str, object] = {"model": "mnist_cnn_a_fgsm.pth", "images_a_round": count}
    for batch in batches:
        times = interleave.interleaved(
            {
                "loop": lambda batch=batch: hand_written(net, inputs, labels, step_size=0.01, batch=batch),
                "ours": lambda batch=batch: attack(model, inputs, Never(labels), batch_size=batch),
            },
            rounds * 3,
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
    net, (inputs, labels) = nets.conv_bn(), nets.mnist(count)
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
    if not nets.there():
        interleave.say("bench_pgd: skipped, no shared models (set VAMBRACE_SHARED to their folder)")
        return
    if torchattacks is None:
        interleave.say("bench_pgd: torchattacks is not installed here, comparisons with it are skipped (make peers)")
    torch.set_num_threads(given.threads)
    result: dict[str, object] = {"surroundings": interleave.surroundings(SEED, given.threads)}
    result["memory_kept"] = interleave.keep_memory()
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
