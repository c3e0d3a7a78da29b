"""Square against torchattacks: what is left after as many queries, how long it takes, what of that is the model's.

    make peers && make bench            # or: .venv-peers/bin/python benchmarks/bench_square.py
    python benchmarks/bench_square.py --queries 500 --rounds 1      # a quick look

Two MNIST networks, 100 images, 5,000 queries each, in turns in one process, each round with a seed of its own; linf and
l2, which torchattacks has both, and l1, which it has not. In l2 and l1 also at radii that break few: where most samples
leave early, batches get small, and the share of the network with them. The share is the time inside of the network's
own forward over the time of the whole call, by the wall clock and by that of the processor. Queries are rows that
passed the network. What is left is judged on what an attack returns. `results/square.json`.

How much faster than torchattacks could ours be at all? Its time over what ours spends in the network's own forward is
`bound`: what would be reached if everything but the network cost nothing.

torchattacks draws the place of a window from all but the last row and column, which it therefore never touches; the
paper draws from all, and so does ours. On MNIST those are black, and the queries that are not spent there are won. So
that attacks are compared and not ranges, "torchattacks, all places" stands beside it: the same with places as in the
paper.

Where torchattacks is not installed, ours is measured alone.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import interleave
import nets
import torch
from torch import Tensor, nn

from vambrace.attacks import Square
from vambrace.models import from_torch

try:
    import torchattacks
except ImportError:
    torchattacks = None

SHARE = 0.8
CASES = (
    ("mnist_convbn_standard", nets.conv_bn, "linf", 0.3),
    ("mnist_cnn_a_fgsm", nets.cnn_a, "linf", 0.3),
    ("mnist_cnn_a_fgsm", nets.cnn_a, "l2", 2.0),
    ("mnist_cnn_a_fgsm", nets.cnn_a, "l1", 20.0),
    # Radii at which nearly all samples stand, and so take all of their queries.
    ("mnist_cnn_a_fgsm", nets.cnn_a, "l2", 0.5),
    ("mnist_cnn_a_fgsm", nets.cnn_a, "l1", 4.0),
)


class Timed(nn.Module):
    """A network with two stopwatches and a counter of rows."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.clear()

    def clear(self) -> None:
        """Start anew."""
        self.wall, self.cpu, self.rows = 0.0, 0.0, 0

    def forward(self, inputs: Tensor) -> Tensor:
        """As the network."""
        cpu, wall = time.process_time(), time.perf_counter()
        logits = self.net(inputs)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        self.rows += len(inputs)
        return logits


def ours(net: Timed, inputs: Tensor, labels: Tensor, *, norm: str, eps: float, queries: int, seed: int) -> Tensor:
    """Which samples are left."""
    attack = Square(norm=norm, eps=eps, queries=queries, share=SHARE)
    return ~attack(from_torch(net, bounds=(0, 1)), inputs, labels, rng=seed).success


def theirs(
    net: Timed,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: str,
    eps: float,
    queries: int,
    seed: int,
    everywhere: bool = False,
) -> Tensor:
    """The same, judged on what is returned, by a forward that is not timed; `everywhere`: windows as in the paper."""
    kind = {"linf": "Linf", "l2": "L2"}[norm]
    attack = torchattacks.Square(
        net, norm=kind, eps=eps, n_queries=queries, n_restarts=1, p_init=SHARE, loss="margin", seed=seed
    )
    if everywhere:
        drawn = attack.random_int
        attack.random_int = lambda low, high: drawn(low, high + 1)
    points = attack(inputs, labels)
    with torch.no_grad():
        return net.net(points).argmax(dim=1) == labels


def case(
    name: str, make: Callable[[], nn.Module], norm: str, eps: float, given: argparse.Namespace
) -> dict[str, object]:
    """One network and norm."""
    inputs, labels = nets.mnist(given.images)
    net, options = Timed(make()).eval(), {"norm": norm, "eps": eps, "queries": given.queries}
    attacks: dict[str, Callable[..., Tensor]] = {"ours": ours}
    if torchattacks is not None and norm != "l1":
        attacks |= {"torchattacks": theirs, "torchattacks, all places": functools.partial(theirs, everywhere=True)}
    found: dict[str, list[dict[str, float]]] = {each: [] for each in attacks}

    def run(label: str) -> None:
        net.clear()
        left = attacks[label](net, inputs, labels, **options, seed=len(found[label]))
        found[label].append({"left": int(left.sum()), "rows": net.rows, "cpu": net.cpu, "wall": net.wall})

    for attack in attacks.values():  # warm up
        attack(net, inputs, labels, norm=norm, eps=eps, queries=20, seed=0)
    times = interleave.interleaved(
        {label: lambda label=label: run(label) for label in attacks}, given.rounds, warm_up=0
    )
    result: dict[str, object] = {"model": name, "norm": norm, "eps": eps}
    for label, runs in found.items():
        result[label] = {
            "left": [each["left"] for each in runs],
            "mean_left": statistics.mean(each["left"] for each in runs),
            "rows": [each["rows"] for each in runs],
            "seconds": {clock: statistics.median(each[clock] for each in times[label]) for clock in ("cpu", "wall")},
            "share_of_forward": {clock: _shares(runs, times[label], clock) for clock in ("cpu", "wall")},
        }
    if "torchattacks" in attacks:
        result["torchattacks_over_ours"] = interleave.ratio(times["torchattacks"], times["ours"])
        forwards = [{clock: each[clock] for clock in ("cpu", "wall")} for each in found["ours"]]
        result["bound"] = interleave.ratio(times["torchattacks"], forwards)
    return result


def _shares(runs: list[dict[str, float]], times: list[dict[str, float]], clock: str) -> dict[str, float]:
    shares = [run[clock] / whole[clock] for run, whole in zip(runs, times, strict=True)]
    return {"median": statistics.median(shares), "least": min(shares), "most": max(shares)}


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if not nets.there():
        interleave.say("bench_square: skipped, no shared models (set VAMBRACE_SHARED to their folder)")
        return
    if torchattacks is None:
        interleave.say("bench_square: torchattacks is not installed here, ours is measured alone (make peers)")
    torch.set_num_threads(given.threads)
    result: dict[str, object] = {
        "surroundings": interleave.surroundings(0, given.threads),
        "images": given.images,
        "queries": given.queries,
        "cases": [],
    }
    for each in CASES:
        result["cases"].append(case(*each, given))
        interleave.say(f"square: {result['cases'][-1]}")
    full = given.queries == 5000 and given.images == 100 and torchattacks is not None
    interleave.say(f"written to {interleave.write('square' if full else 'square-quick', result)}")


if __name__ == "__main__":
    main()
