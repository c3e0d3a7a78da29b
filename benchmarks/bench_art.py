"""Attacks on labels against ART: how long each takes to come equally near, and to ask equally often.

    make peers && make bench            # or: .venv-peers/bin/python benchmarks/bench_art.py
    python benchmarks/bench_art.py --nets mnist_cnn_a_fgsm --images 20 --iterations 0.2     # a quick look

ART's attacks have no budget but a number of iterations; here one at which they take about 5,000 queries an image. On
every network, for HopSkipJump in l2 and linf and for the boundary attack:

1. ART runs once: its queries, and its median distance.
2. Ours is given ever more queries until its median distance is no larger than ART's, for each of three seeds. More
   queries only go on from where fewer stop, so this budget is found by halving.
3. ART and ours take turns: ours with that budget ("as_near") and with as many queries as ART took ("as_often").

Medians are over the images that the network gets right and that both break; at every budget tried, ours must break no
fewer than ART. The first network, over 100 images, is what claims are about; no constant was chosen on the others, of
which fewer images are taken. `results/art.json`. Where ART is not installed, all is skipped with a message.
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


def beside(net: nn.Module, inputs: Tensor, labels: Tensor, called: str, share: float, rounds: int) -> dict[str, object]:
    """One attack on one network."""
    kind, options = ART[called]
    norm = "linf" if called.endswith("linf") else "l2"
    theirs = peers.art_attack(kind, **options | {"max_iter": max(1, round(options["max_iter"] * share))})
    counted, model = Counted(net).eval(), from_torch(net)
    points = theirs(counted, inputs, labels)
    queries = counted.rows // len(inputs)
    change = (points - inputs).flatten(1)
    away = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    with torch.no_grad():
        right = net(inputs).argmax(1) == labels
        broken = (net(points).argmax(1) != labels) & right

    def ours(budget: int) -> Boundary | HopSkipJump:
        return Boundary(budget=budget) if called == "Boundary" else HopSkipJump(norm=norm, budget=budget)

    def stands(budget: int) -> list[dict[str, float]]:
        """Of each seed, both medians and how many we break."""
        found = []
        for seed in SEEDS:
            out = ours(budget)(model, inputs, labels, rng=seed)
            both = broken & out.success
            median = {"ours": out.distance[both].median(), "art": away[both].median()} if bool(both.any()) else {}
            found.append({who: float(value) for who, value in median.items()} | {"broken": int(both.sum())})
        return found

    def as_near(budget: int) -> bool:
        return all(each["broken"] >= int(broken.sum()) and each["ours"] <= each["art"] for each in stands(budget))

    place = bisect.bisect_left(LADDER, x=True, key=as_near)
    found: dict[str, object] = {
        "art": {"queries": queries, "broken": int(broken.sum()), "median": float(away[broken].median())},
        "as_often": {"queries": queries, "seeds": stands(queries)},
    }
    contenders = {"art": lambda: theirs(net, inputs, labels), "as_often": lambda: ours(queries)(model, inputs, labels)}
    if place < len(LADDER):
        near = LADDER[place]
        found["as_near"] = {"queries": near, "seeds": stands(near)}
        contenders["as_near"] = lambda: ours(near)(model, inputs, labels)
    times = interleave.interleaved(contenders, rounds, warm_up=0)
    for who, taken in times.items():
        found[who] |= {"seconds": interleave.fastest(taken)}  # type: ignore[operator]
        if who != "art":
            found[who] |= {"art_over_ours": interleave.ratio(times["art"], taken)}  # type: ignore[operator]
    return found


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
    result: dict[str, object] = {"surroundings": interleave.surroundings(SEEDS[0], given.threads)}
    for name in given.nets:
        load, images = NETS[name]
        net = load()
        inputs, labels = images(given.images if name == next(iter(NETS)) else given.images // 2)
        for called in given.attacks:
            rounds = given.rounds if name == next(iter(NETS)) else 1
            found = beside(net, inputs, labels, called, given.iterations, rounds)
            result[f"{called} on {name}"] = {"images": len(inputs)} | found
            interleave.say(f"{called} on {name}: {_short(found)}")
    full = (given.nets, given.attacks, given.images, given.iterations) == (list(NETS), list(ART), 100, 1.0)
    interleave.say(f"written to {interleave.write('art' if full else 'art-quick', result)}")


def _short(found: dict[str, object]) -> str:
    """The line of one attack on one network."""
    words = [f"ART {found['art']}"]
    for who in ("as_near", "as_often"):
        if who in found:
            part = found[who]
            faster = {clock: f"{part['art_over_ours'][clock]['median']:.3g}x" for clock in ("cpu", "wall")}  # type: ignore[index]
            words.append(f"{who}: {part['queries']} queries, {faster}, {part['seeds']}")  # type: ignore[index]
        else:
            words.append(f"{who}: never")
    return "; ".join(words)


if __name__ == "__main__":
    main()
