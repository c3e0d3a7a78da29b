"""`Standard` and `Adaptive` against AutoAttack, as torchattacks carries it: what is left, for how many calls, how fast.

    make peers && make bench            # or: .venv-peers/bin/python benchmarks/bench_ensembles.py
    python benchmarks/bench_ensembles.py --part strength --images 200 --seeds 1      # a quick look

Three parts, each with a file of its own under `results/`:

1. "strength" (`ensembles.json`): two MNIST networks at linf 0.3. `Standard` and `Adaptive`, at its default budget
   and at a tenth of AutoAttack's calls, for every seed; which samples one breaks and the other does not.
2. "speed" (`ensembles-speed.json`): a network without any defence, in turns with torchattacks: at AutoAttack's 100
   steps, and as it ships, with 10.
3. "others" (`ensembles-others.json`): networks that nobody tuned on, at other radii and norms; torchattacks' AutoAttack
   on the same samples, and every sample that it breaks and we do not.

Calls are rows: forwards, backwards and, for ours, verifications. AutoAttack's are counted by hooks on the network.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import interleave
import nets
import torch
from torch import Tensor, nn

from vambrace.attacks import Adaptive, Standard
from vambrace.models import from_torch

try:
    import torchattacks
except ImportError:
    torchattacks = None

STEPS = 100  # of AutoAttack's APGD and FAB
TENTH = 800
"""A tenth of the rows an input that the original AutoAttack took on these two networks (8,047 and 8,458)."""
PUBLISHED = {
    "mnist_cnn_a_fgsm": {"left": 801, "rows": 8047, "source": "original AutoAttack code, seed 0"},
    "mnist_cnn_a_pgd": {"left": 855, "rows": 8458, "source": "original AutoAttack code, seed 0"},
}


class Rows:
    """Rows that pass a network forward and backward."""

    def __init__(self, net: nn.Module) -> None:
        self.forwards = self.backwards = 0
        net.register_forward_hook(self._forward)

    def _forward(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.forwards += len(inputs[0])
        if output.requires_grad:
            output.register_hook(lambda gradient: self._backward(len(gradient)))

    def _backward(self, rows: int) -> None:
        self.backwards += rows


def ours(attack: Standard | Adaptive, net: nn.Module, inputs: Tensor, labels: Tensor, seed: int, how: dict) -> dict:
    """One run of ours, with its ledger."""
    model = from_torch(net, bounds=(0, 1), **how)
    cpu, wall = time.process_time(), time.perf_counter()
    out = attack(model, inputs, labels, rng=seed)
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    n = len(inputs)
    cost = out.cost
    return {
        "seed": seed,
        "left": int((~out.success).sum()),
        "rows_an_input": (cost.forwards + cost.backwards + cost.verifications) / n,
        "forwards_an_input": cost.forwards / n,
        "backwards_an_input": cost.backwards / n,
        "verifications_an_input": cost.verifications / n,
        "unspent_an_input": None if out.unspent is None else out.unspent / n,
        "parts": [
            {"name": part.name, "attacked": part.attacked, "broken": part.broken, "rows": _rows(part.cost)}
            for part in out.parts
        ],
        **spent,
        "stopped": out.stopped,
        "survivors": (~out.success).nonzero().flatten().tolist(),
        "by": [out.parts[part].name if part >= 0 else "" for part in out.by.tolist()],
    }


def theirs(
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: str,
    eps: float,
    seed: int,
    batch: int,
    shipped: bool = False,
) -> dict:
    """torchattacks' AutoAttack, judged on what it returns; in batches, as its users run it.

    It ships with 10 steps of APGD and FAB where AutoAttack has 100; unless `shipped`, it gets the 100.
    """
    rows = Rows(net)
    attack = torchattacks.AutoAttack(net, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, n_classes=10, seed=seed)
    for part in attack._autoattack.attacks:
        if hasattr(part, "steps") and not shipped:
            part.steps = STEPS
    cpu, wall = time.process_time(), time.perf_counter()
    left: list[Tensor] = []
    for part, label in zip(inputs.split(batch), labels.split(batch), strict=True):
        points = attack(part, label)
        with torch.no_grad():
            left.append(net(points).argmax(1) == label)
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    survivors = torch.cat(left).nonzero().flatten().tolist()
    n = len(inputs)
    return {
        "seed": seed,
        "left": len(survivors),
        "rows_an_input": (rows.forwards + rows.backwards) / n,
        "forwards_an_input": rows.forwards / n,
        "backwards_an_input": rows.backwards / n,
        **spent,
        "survivors": survivors,
    }


def strength(count: int, seeds: int) -> dict[str, object]:
    """Part 1."""
    found: dict[str, object] = {}
    for name in ("mnist_cnn_a_fgsm", "mnist_cnn_a_pgd"):
        net, (inputs, labels) = nets.cnn_a(name), nets.mnist(count)
        attacks = {
            "standard": Standard(norm="linf", eps=0.3),
            "adaptive": Adaptive(norm="linf", eps=0.3),
            "adaptive_tenth": Adaptive(norm="linf", eps=0.3, budget=TENTH),
        }
        runs: dict[str, list[dict]] = {which: [] for which in attacks}
        for seed in range(seeds):
            for which, attack in attacks.items():
                runs[which].append(ours(attack, net, inputs, labels, seed, {}))
                interleave.say(f"{name} {which}: {_short(runs[which][-1])}")
        found[name] = {"images": count, "published": PUBLISHED[name], **_compared(runs, count)}
    return found


def _compared(runs: dict[str, list[dict]], count: int) -> dict[str, object]:
    means = {
        which: {
            "accuracy": 100 * statistics.mean(run["left"] for run in each) / count,
            "accuracy_least": 100 * min(run["left"] for run in each) / count,
            "accuracy_most": 100 * max(run["left"] for run in each) / count,
            "rows_an_input": statistics.mean(run["rows_an_input"] for run in each),
            "wall": statistics.mean(run["wall"] for run in each),
        }
        for which, each in runs.items()
    }
    standard, adaptive = means["standard"], means["adaptive"]
    always = set.intersection(*(set(range(count)) - set(run["survivors"]) for run in runs["standard"]))
    never = set.intersection(*(set(run["survivors"]) for run in runs["adaptive"]))
    return {
        "means": means,
        "standard_rows_over_adaptive": standard["rows_an_input"] / adaptive["rows_an_input"],
        "standard_wall_over_adaptive": standard["wall"] / adaptive["wall"],
        "broken_by_standard_always_and_adaptive_never": {
            sample: {
                "standard_by": [run["by"][sample] for run in runs["standard"]],
                "adaptive_tenth_by": [run["by"][sample] for run in runs.get("adaptive_tenth", ())],
            }
            for sample in sorted(always & never)
        },
        "runs": {which: [_without(run) for run in each] for which, each in runs.items()},
    }


def speed(count: int, rounds: int) -> dict[str, object]:
    """Part 2."""
    net, (inputs, labels) = nets.conv_bn(), nets.mnist(count)
    model, attack = from_torch(net, bounds=(0, 1)), Standard(norm="linf", eps=0.3)
    contenders: dict[str, Callable[[], object]] = {"ours": lambda: attack(model, inputs, labels, rng=0)}
    found: dict[str, object] = {"model": "mnist_convbn_standard", "images": count}
    found["left_by_ours"] = int((~attack(model, inputs, labels, rng=0).success).sum())
    if torchattacks is None:
        return found
    for name, shipped in (("torchattacks", False), ("torchattacks_as_shipped", True)):
        contenders[name] = lambda shipped=shipped: theirs(
            net, inputs, labels, norm="linf", eps=0.3, seed=0, batch=64, shipped=shipped
        )
    times = interleave.interleaved(contenders, rounds, warm_up=0)
    found["seconds"] = {name: interleave.fastest(taken) for name, taken in times.items()}
    for name in list(contenders)[1:]:
        found[f"{name}_over_ours"] = interleave.ratio(times[name], times["ours"])
    return found


def others(count: int, seeds: int) -> dict[str, object]:
    """Part 3."""
    found: dict[str, object] = {}
    for title, load, samples, norm, eps, how in nets.untuned(count):
        net, (inputs, labels) = load(), samples()
        runs: dict[str, list[dict]] = {"standard": [], "adaptive": []}
        for seed in range(seeds):
            runs["standard"].append(ours(Standard(norm=norm, eps=eps), net, inputs, labels, seed, how))
            runs["adaptive"].append(ours(Adaptive(norm=norm, eps=eps), net, inputs, labels, seed, how))
            interleave.say(f"{title}: {_short(runs['standard'][-1])} | {_short(runs['adaptive'][-1])}")
        entry = {"norm": norm, "eps": eps, "images": len(inputs), **_compared(runs, len(inputs))}
        if torchattacks is not None:
            peer = theirs(nets.normalised(net, **how), inputs, labels, norm=norm, eps=eps, seed=0, batch=250)
            broken = set(range(len(inputs))) - set(peer["survivors"])
            entry["torchattacks"] = _without(peer)
            for which, each in runs.items():
                missed = set.intersection(*(set(run["survivors"]) for run in each))
                entry[f"broken_by_torchattacks_and_never_by_{which}"] = sorted(broken & missed)
            interleave.say(f"{title}: torchattacks {_short(peer)}")
        found[title] = entry
    return found


def _rows(cost: object) -> int:
    return cost.forwards + cost.backwards + cost.verifications


def _short(run: dict) -> str:
    return f"{run['left']} left, {run['rows_an_input']:.0f} rows an input, {run['wall']:.0f} s"


def _without(run: dict) -> dict:
    return {name: value for name, value in run.items() if name not in ("survivors", "by")}


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("strength", "speed", "others"), action="append")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if not nets.there():
        interleave.say("bench_ensembles: skipped, no shared models (set VAMBRACE_SHARED to their folder)")
        return
    if torchattacks is None:
        interleave.say("bench_ensembles: torchattacks is not installed here, its comparisons are skipped (make peers)")
    torch.set_num_threads(given.threads)
    full = given.images == 1000 and given.seeds >= 3
    parts = {
        "strength": ("ensembles", lambda: strength(given.images, given.seeds)),
        "speed": ("ensembles-speed", lambda: speed(given.images, max(1, given.seeds - 1))),
        "others": ("ensembles-others", lambda: others(given.images, given.seeds)),
    }
    for part in given.part or parts:
        name, measure = parts[part]
        result = {"surroundings": interleave.surroundings(0, given.threads), **measure()}
        interleave.say(f"written to {interleave.write(name if full else f'{name}-quick', result)}")


if __name__ == "__main__":
    main()
