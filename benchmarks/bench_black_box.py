"""Attacks that see only labels or scores: how much of the time is the model's own, and how they stand beside ART.

    make peers && make bench            # or: .venv-peers/bin/python benchmarks/bench_black_box.py
    python benchmarks/bench_black_box.py --images 10 --budget 500      # a quick look

Two questions about 100 MNIST images, answered in `results/black_box.json`:

1. Overhead. 5,000 queries an image, several times; of the wall time, what share is spent inside the network's own
   forward? On a network of 15 and on one of 300 microseconds an image (one thread; the latter with a fifth of the
   queries, since a share does not depend on how many there are). NES in its scene "query" searches a ball of radius
   0.3, in which it breaks 9 of the 100 on the first network and 99 on the second.
2. Speed and distance. HopSkipJump and the boundary attack in turns with ART's, which have no budget but a number of
   iterations: ART runs first, and ours gets as many queries an image as ART took on average. Distances are compared on
   the images that both break and the network gets right.

The second question is skipped with a message where ART is not installed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import interleave
import nets
import peers
import torch
from torch import Tensor, nn

from vambrace.attacks import NES, Boundary, HopSkipJump, RayS
from vambrace.models import from_torch

SEED, NES_RADIUS = 0, 0.3
# Iterations at which ART takes about 5,000 queries an image.
ART = {
    "HopSkipJump l2": ("HopSkipJump", {"norm": 2, "max_iter": 16, "max_eval": 10_000}),
    "HopSkipJump linf": ("HopSkipJump", {"norm": "inf", "max_iter": 16, "max_eval": 10_000}),
    "Boundary": ("BoundaryAttack", {"max_iter": 170}),
}


class Timed(nn.Module):
    """A network that knows how long and for how many rows it ran."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seconds, self.rows, self.calls = net, 0.0, 0, 0

    def forward(self, inputs: Tensor) -> Tensor:
        """As the network."""
        begin = time.perf_counter()
        logits = self.net(inputs)
        self.seconds += time.perf_counter() - begin
        self.rows += len(inputs)
        self.calls += 1
        return logits


def overhead(count: int, budget: int, rounds: int) -> dict[str, object]:
    """Question 1."""
    inputs, labels = nets.mnist(count)
    found: dict[str, object] = {}
    loads = {"mnist_cnn_a_fgsm.pth": (nets.cnn_a, budget), "mnist_convbn_standard.pt": (nets.conv_bn, budget // 5)}
    for name, (load, queries) in loads.items():
        attacks = {
            "HopSkipJump l2": HopSkipJump(budget=queries),
            "HopSkipJump linf": HopSkipJump(norm="linf", budget=queries),
            "Boundary": Boundary(budget=queries),
            "RayS": RayS(budget=queries),
            "NES query": NES(eps=NES_RADIUS, budget=queries),
            "NES partial": NES(scene="partial", budget=queries),
            "NES label": NES(scene="label", budget=queries),
        }
        for called, attack in attacks.items():
            net = Timed(load()).eval()
            model = from_torch(net)
            shares, walls = list[float](), list[float]()
            for _ in range(rounds):
                net.seconds, net.rows, net.calls = 0.0, 0, 0
                begin = time.perf_counter()
                out = attack(model, inputs, labels, rng=SEED)
                walls.append(time.perf_counter() - begin)
                shares.append(net.seconds / walls[-1])
            found[f"{called} on {name}"] = {
                "share_in_forward": {
                    "median": statistics.median(shares),
                    "least": min(shares),
                    "most": max(shares),
                    "rounds": rounds,
                },
                "seconds": walls,
                "microseconds_a_row_in_forward": 1e6 * net.seconds / net.rows,
                "rows_a_call": net.rows / net.calls,
                "queries_an_image": float(out.queries.double().mean() or out.forwards.double().mean()),
                "broken": int(out.success.sum()),
                "median_distance": _median(out.distance, out.success),
            }
            interleave.say(f"{called} on {name}: {found[f'{called} on {name}']}")
    return found


def beside_art(count: int, budget: int, rounds: int) -> dict[str, object]:
    """Question 2."""
    inputs, labels = nets.mnist(count)
    net = nets.cnn_a()
    with torch.no_grad():
        right = net(inputs).argmax(1) == labels
    found: dict[str, object] = {"model": "mnist_cnn_a_fgsm.pth", "images": count}
    for called, (name, options) in ART.items():
        timed = Timed(net).eval()
        iterations = max(1, round(options["max_iter"] * (budget / 5000) ** (2 / 3 if name == "HopSkipJump" else 1)))
        theirs = peers.art_attack(name, **options | {"max_iter": iterations})
        points = theirs(timed, inputs, labels)
        queries = timed.rows // count
        norm = "linf" if called.endswith("linf") else "l2"
        ours = Boundary(budget=queries) if called == "Boundary" else HopSkipJump(norm=norm, budget=queries)
        model = from_torch(net)
        out = ours(model, inputs, labels, rng=SEED)
        change = (points - inputs).flatten(1)
        away = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        with torch.no_grad():
            broken = net(points).argmax(1) != labels
        both = broken & out.success & right
        times = interleave.interleaved(
            {
                "art": lambda theirs=theirs: theirs(net, inputs, labels),
                "ours": lambda ours=ours, model=model: ours(model, inputs, labels, rng=SEED),
            },
            rounds,
            warm_up=0,
        )
        found[called] = {
            "queries_an_image": queries,
            "art_iterations": iterations,
            "art_over_ours": interleave.ratio(times["art"], times["ours"]),
            "seconds": {who: interleave.fastest(taken) for who, taken in times.items()},
            "broken": {"art": int((broken & right).sum()), "ours": int((out.success & right).sum())},
            "median_distance": {"art": _median(away, both), "ours": _median(out.distance, both)},
            "ours_nearer_on": float((out.distance < away)[both].double().mean()),
        }
        interleave.say(f"{called}: {found[called]}")
    return found


def _median(values: Tensor, chosen: Tensor) -> float | None:
    return float(values[chosen].median()) if bool(chosen.any()) else None


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--budget", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", choices=("both", "overhead", "art"), default="both")
    given = parser.parse_args()
    if not nets.there():
        interleave.say("bench_black_box: skipped, no shared models (set VAMBRACE_SHARED to their folder)")
        return
    torch.set_num_threads(given.threads)
    result: dict[str, object] = {"surroundings": interleave.surroundings(SEED, given.threads)}
    if given.part in ("both", "overhead"):
        result["overhead"] = overhead(given.images, given.budget, given.rounds)
    if given.part in ("both", "art"):
        if reason := peers.absent("art"):
            interleave.say(f"bench_black_box: the comparison with ART is skipped, {reason}")
        else:
            result["art"] = beside_art(given.images, given.budget, given.rounds)
    full = (given.images, given.budget, given.part) == (100, 5000, "both")
    interleave.say(f"written to {interleave.write('black_box' if full else 'black_box-quick', result)}")


if __name__ == "__main__":
    main()
