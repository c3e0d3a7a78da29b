"""Attacks on labels against ART: how long each takes to come equally near, and to ask equally often.

    make peers && make bench            # or: .venv-peers/bin/python benchmarks/bench_art.py
    python benchmarks/bench_art.py --nets mnist_cnn_a_fgsm --images 20 --iterations 0.2     # a quick look

ART's attacks have no budget but a number of iterations; here one at which they take about 5,000 queries an image. On
every network, for HopSkipJump in l2 and linf and for the boundary attack:

1. ART runs from two seeds: its queries, and its median distances.
2. Ours is given ever more queries until its median distance is no larger than either of ART's, for each of three seeds.
   More queries only go on from where fewer stop, so this budget is found by halving.
3. ART and ours take turns: ours with that budget ("as_near") and with as many queries as ART took ("as_often").

Medians are over the images that the network gets right and that both break; at every budget tried, ours must break no
fewer than ART. The first network, over 100 images, is what claims are about; on the others fewer images are taken and
ART runs once. `results/art.json`. Where ART is not installed, all is skipped with a message.
"""

from __future__ import annotations

import argparse
import bisect
import functools
from collections.abc import Callable

import interleave
import nets
import peers
import torch
from torch import Tensor, nn

from vambrace.attacks import Boundary, HopSkipJump
from vambrace.models import from_torch

SEEDS = (0, 1, 2)
LADDER = (100, 150, 200, 250, 300, 400, 500, 600, 700, 800, 900, 1000, 1200, 1400, 1600, 2000, 2500, 3000, 4000, 5000)
# Iterations at which ART takes about 5,000 queries an image.
ART = {
    "HopSkipJump l2": ("HopSkipJump", {"norm": 2, "max_iter": 16, "max_eval": 10_000}),
    "HopSkipJump linf": ("HopSkipJump", {"norm": "inf", "max_iter": 16, "max_eval": 10_000}),
    "Boundary": ("BoundaryAttack", {"max_iter": 170}),
}
NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, Tensor]]]] = {
    "mnist_cnn_a_fgsm": (nets.cnn_a, nets.mnist),
    "mnist_cnn_a_pgd": (functools.partial(nets.cnn_a, "mnist_cnn_a_pgd"), nets.mnist),
    "mnist_convbn_standard": (nets.conv_bn, nets.mnist),
    "cifar10_cnn_a_adv": (
        lambda: nets.normalised(
            nets.cnn_a("cifar10_cnn_a_adv", channels=3, flat=2048), nets.CIFAR_MEAN, nets.CIFAR_STD
        ),
        lambda count: tuple(each[:count] for each in nets.cifar()),
    ),
}


class Counted(nn.Module):
    """A network that knows for how many rows it ran."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.rows = net, 0

    def forward(self, inputs: Tensor) -> Tensor:
        """As the network."""
        self.rows += len(inputs)
        return self.net(inputs)


def beside(
    net: nn.Module, inputs: Tensor, labels: Tensor, called: str, *, share: float, runs: int, rounds: int
) -> dict[str, object]:
    """One attack on one network; `share` is that of ART's iterations."""
    kind, options = ART[called]
    norm = "linf" if called.endswith("linf") else "l2"
    theirs = peers.art_attack(kind, **options | {"max_iter": max(1, round(options["max_iter"] * share))})
    counted, model = Counted(net).eval(), from_torch(net)
    with torch.no_grad():
        right = net(inputs).argmax(1) == labels
    stood = [stands(art_points(theirs, counted, inputs, labels, seed), inputs, norm) for seed in range(runs)]
    with torch.no_grad():
        art = [(away, (net(points).argmax(1) != labels) & right) for points, away in stood]
    queries = counted.rows // len(inputs) // runs

    def ours(budget: int) -> Boundary | HopSkipJump:
        return Boundary(budget=budget) if called == "Boundary" else HopSkipJump(norm=norm, budget=budget)

    def compared(budget: int) -> list[dict[str, float]]:
        """For each seed and each run of ART: both medians, and how many of those that ART breaks ours does not."""
        found = []
        for seed in SEEDS:
            out = ours(budget)(model, inputs, labels, rng=seed)
            for away, broken in art:
                both = broken & out.success
                medians = (out.distance[both].median(), away[both].median()) if bool(both.any()) else (1.0, 0.0)
                missed = int((broken & ~out.success).sum())
                found.append({"ours": float(medians[0]), "art": float(medians[1]), "missed": missed})
        return found

    def as_near(budget: int) -> bool:
        return all(each["missed"] == 0 and each["ours"] <= each["art"] for each in compared(budget))

    place = bisect.bisect_left(LADDER, x=True, key=as_near)
    medians = [float(away[broken].median()) for away, broken in art]
    found: dict[str, dict[str, object]] = {
        "art": {"queries": queries, "broken": [int(broken.sum()) for _, broken in art], "medians": medians},
        "as_often": {"queries": queries, "seeds": compared(queries)},
    }
    contenders: dict[str, Callable[[], object]] = {
        "art": lambda: theirs(net, inputs, labels),
        "as_often": lambda: ours(queries)(model, inputs, labels),
    }
    if place < len(LADDER):
        near = LADDER[place]
        found["as_near"] = {"queries": near, "seeds": compared(near)}
        contenders["as_near"] = lambda: ours(near)(model, inputs, labels)
    times = interleave.interleaved(contenders, rounds, warm_up=0)
    for who, taken in times.items():
        found[who]["seconds"] = interleave.fastest(taken)
        if who != "art":
            found[who]["art_over_ours"] = interleave.ratio(times["art"], taken)
    return dict(found)


def art_points(theirs: peers.Function, net: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    """What ART finds from one of its seeds."""
    usual, peers.SEED = peers.SEED, seed
    try:
        return theirs(net, inputs, labels)
    finally:
        peers.SEED = usual


def stands(points: Tensor, inputs: Tensor, norm: str) -> tuple[Tensor, Tensor]:
    """The points and how far they are from their inputs."""
    change = (points - inputs).flatten(1)
    return points, change.abs().amax(1) if norm == "linf" else change.norm(dim=1)


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=tuple(NETS), default=list(NETS))
    parser.add_argument("--attacks", nargs="+", choices=tuple(ART), default=list(ART))
    parser.add_argument("--images", type=int, default=100, help="on the first network; half as many on the others")
    parser.add_argument("--iterations", type=float, default=1.0, help="of ART, as a share of those for 5,000 queries")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if not nets.there():
        interleave.say("bench_art: skipped, no shared models (set VAMBRACE_SHARED to their folder)")
        return
    if reason := peers.absent("art"):
        interleave.say(f"bench_art: skipped, {reason}")
        return
    torch.set_num_threads(given.threads)
    full = (given.nets, given.attacks, given.images, given.iterations) == (list(NETS), list(ART), 100, 1.0)
    result: dict[str, object] = {"surroundings": interleave.surroundings(SEEDS[0], given.threads)}
    for name in given.nets:
        load, images = NETS[name]
        net, first = load(), name == next(iter(NETS))
        inputs, labels = images(given.images if first else given.images // 2)
        runs, rounds = (2, given.rounds) if first else (1, 1)
        for called in given.attacks:
            found = beside(net, inputs, labels, called, share=given.iterations, runs=runs, rounds=rounds)
            result[f"{called} on {name}"] = {"images": len(inputs)} | found
            interleave.say(f"{called} on {name}: {_short(found)}")
        # After each network: all of them take an hour.
        interleave.say(f"written to {interleave.write('art' if full else 'art-quick', result)}")


def _short(found: dict[str, object]) -> str:
    """The line of one attack on one network."""
    art: dict = found["art"]  # type: ignore[assignment]
    words = [f"ART {art['queries']} queries, {art['seconds']['cpu']:.3g} s of CPU, medians {art['medians']}"]
    for who in ("as_near", "as_often"):
        part: dict = found.get(who, {})  # type: ignore[assignment]
        if not part:
            words.append(f"{who} never")
            continue
        faster = " and ".join(f"{part['art_over_ours'][clock]['median']:.3g}x ({clock})" for clock in ("cpu", "wall"))
        words.append(f"{who} {part['queries']} queries, {faster}, medians {sorted({x['ours'] for x in part['seeds']})}")
    return "; ".join(words)


if __name__ == "__main__":
    main()
