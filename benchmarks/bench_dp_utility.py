"""How accurate a private classifier of MNIST is: a convolutional network, and a linear one on features of no data.

    python benchmarks/bench_dp_utility.py                           # about a quarter of an hour on one core
    python benchmarks/bench_dp_utility.py --only features --seeds 1

All 60,000 images train through `dp.make_private` (Poisson batches, flat clipping, Gaussian noise from the operating
system's generator); delta is 1e-5, the noise is the least that the budget allows, and the epsilon reported is what was
charged, by privacy loss distributions. Accuracy is that on the 10,000 test images after the last step, once a seed;
nothing was chosen on them. Seeds draw first weights; noise and batches are secret and new each time.

Options were chosen by hand on 5,000 training images held out of the other 55,000, in some forty runs; that choice is
not charged, as is usual, and the run with these options on the held-out images is reported beside. The interval is
Student's over seeds. `results/dp_utility.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Callable

import dp_features
import dp_nets
import interleave
import nets
import torch
from scipy import stats
from torch import Tensor, nn

from vambrace.privacy import dp

DELTA, HELD_OUT, SPLIT_SEED, MOMENTUM = 1e-5, 5000, 5, 0.9


@dataclasses.dataclass(frozen=True)
class Plan:
    """A task with its budget, its bar, and what was chosen for it.

    Attributes:
        learning_rate: over `clip_norm`: of the mean of gradients cut to length 1.
    """

    title: str
    epsilon: float
    bar: float
    make: Callable[[], nn.Module]
    batch: int
    epochs: int
    clip_norm: float
    learning_rate: float


def linear() -> nn.Module:
    """A linear classifier of features, from zero."""
    net = nn.Linear(KEPT, 10)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    return net


def cnn() -> nn.Module:
    """Opacus' network with tanh, which Papernot et al. 2021 (arXiv 2007.14191) found better under clipping."""
    return dp_nets.opacus_cnn(nn.Tanh)


KEPT = 1000
PLANS = {
    "features": Plan("linear on scattering features", 1.5, 0.98, linear, 2048, 20, 0.1, 10.0),
    "cnn": Plan("Opacus' CNN with tanh", 2.4, 0.966, cnn, 2048, 20, 0.1, 0.4),
}

Samples = tuple[Tensor, Tensor]


def train(plan: Plan, seed: int, samples: Samples, judged: Samples) -> dict[str, float]:
    """One private training from the first to the last step, and how well it does on `judged`."""
    size = len(samples[1])
    steps = plan.epochs * math.ceil(size / plan.batch)
    fits = dp.calibrate(epsilon=plan.epsilon, delta=DELTA, steps=steps, batch_size=plan.batch, dataset_size=size)
    cpu, wall = time.process_time(), time.perf_counter()
    torch.manual_seed(seed)
    net = plan.make()
    private = dp.make_private(
        net,
        torch.optim.SGD(net.parameters(), lr=plan.learning_rate / plan.clip_norm, momentum=MOMENTUM),
        samples,
        loss="cross_entropy",
        clip=dp.Flat(clip_norm=plan.clip_norm),
        noise=dp.Gaussian(noise_multiplier=fits.noise_multiplier),
        expected_batch_size=plan.batch,
        delta=DELTA,
        max_epsilon=plan.epsilon,
    )
    for batch in private.batches(steps=steps):
        private.step(batch)
    charged = private.epsilon()
    spent = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    with torch.no_grad():
        guessed = torch.cat([net(part).argmax(dim=1) for part in judged[0].split(1000)])
    return {
        "accuracy": float((guessed == judged[1]).double().mean()),
        "epsilon": charged.epsilon,
        "steps": private.spent.steps,
        "noise_multiplier": fits.noise_multiplier,
        **spent,
    }


def interval(values: list[float]) -> dict[str, float]:
    """The mean over seeds with Student's 95 % interval; no interval of one seed."""
    found = {"mean": statistics.fmean(values), "least": min(values)}
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
        found |= {"low": found["mean"] - half, "high": found["mean"] + half}
    return found


def prepared(name: str) -> tuple[Samples, Samples]:
    """Training and test samples as the task's classifier takes them."""
    (images, labels), (unseen, truth) = dp_nets.mnist("train"), dp_nets.mnist("t10k")
    if name == "cnn":
        return (2 * images - 1, labels), (2 * unseen - 1, truth)
    features = dp_features.Features(kept=KEPT)
    return (features(images), labels), (features(unseen), truth)


def measure(name: str, seeds: int) -> dict[str, object]:
    """All of one task."""
    plan = PLANS[name]
    cpu, wall = time.process_time(), time.perf_counter()
    known, unseen = prepared(name)
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    order = torch.randperm(len(known[1]), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    chosen_on = train(plan, 0, tuple(each[rest] for each in known), tuple(each[held] for each in known))
    interleave.say(f"{name}: held out {chosen_on['accuracy']:.4f}")
    runs = []
    for seed in range(seeds):
        runs.append(train(plan, seed, known, unseen))
        interleave.say(f"{name}, seed {seed}: {runs[-1]}")
    options = {each.name: getattr(plan, each.name) for each in dataclasses.fields(plan) if each.name != "make"}
    return {
        **options,
        "delta": DELTA,
        "momentum": MOMENTUM,
        "preparing_seconds": spent,
        "held_out": chosen_on,
        "seeds": runs,
        "accuracy": interval([run["accuracy"] for run in runs]),
    }


def main() -> None:
    """Train, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=list(PLANS))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if not nets.there():
        interleave.say("bench_dp_utility: skipped, no shared data (set VAMBRACE_SHARED to its folder)")
        return
    torch.set_num_threads(given.threads)
    result: dict[str, object] = {"surroundings": interleave.surroundings(0, given.threads), "tasks": {}}
    for name in [given.only] if given.only else PLANS:
        result["tasks"][name] = measure(name, given.seeds)
    full = given.only is None and given.seeds >= 3
    interleave.say(f"written to {interleave.write('dp_utility' if full else 'dp_utility-quick', result)}")


if __name__ == "__main__":
    main()
