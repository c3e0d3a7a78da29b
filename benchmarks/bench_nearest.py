"""Nearest-point attacks against foolbox's, on three MNIST networks that others trained, at equal budgets.

    make peers && make bench            # or: .venv-peers/bin/python benchmarks/bench_nearest.py
    python benchmarks/bench_nearest.py --images 50      # a quick look

Per network and norm, a table in `results/nearest.json`: how many images each attack moves across the decision, the
median distance (a failure counts as infinite), the forwards and backwards an image, and AttackBench's local optimality.
Both sides are judged alike, on the points they return, and counted by one model that sees every row.

A budget is forwards plus backwards an image: both get as many steps as fit it, and ours pays its verifications from it.
DeepFool stops by itself; foolbox's takes one forward for each gradient of a class and ours one for all, and ours also
stops sample by sample. foolbox's Carlini-Wagner attack runs without its early abort, which the whole batch shares, and
where it finds nothing it returns a black image; that is a failure, whatever class a black image has (`blank`).
"""

from __future__ import annotations

import argparse
import functools
import time
import warnings
from collections.abc import Callable

import interleave
import nets
import torch
from torch import Tensor, nn

from vambrace.attacks import DDN, FAB, FMN, CarliniWagner, DeepFool
from vambrace.models import from_torch
from vambrace.ops.norms import distances

try:
    import foolbox
except ImportError:
    foolbox = None

BUDGET, CARLINI_BUDGET, SEED = 200, 1000, 0
SEARCHES, CARLINI_STEP = 5, 0.05
NETWORKS = {
    "mnist_cnn_a_fgsm": functools.partial(nets.cnn_a, "mnist_cnn_a_fgsm"),
    "mnist_cnn_a_pgd": functools.partial(nets.cnn_a, "mnist_cnn_a_pgd"),
    "mnist_convbn_standard": nets.conv_bn,
}
TITLES = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "LInf"}
CONTENDERS = [("fmn", norm) for norm in TITLES]
CONTENDERS += [("ddn", "l2"), ("carlini_wagner", "l2"), ("deep_fool", "l2"), ("deep_fool", "linf")]
ALONE = [("fab", norm) for norm in ("l1", "l2", "linf")]


class Counting(nn.Module):
    """A network that counts the rows that go through it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = self.backwards = 0

    def forward(self, inputs: Tensor) -> Tensor:
        """As the network."""
        rows = len(inputs)
        self.forwards += rows
        logits = self.inner(inputs)
        if logits.requires_grad:
            logits.register_hook(functools.partial(self._back, rows))
        return logits

    def _back(self, rows: int, gradient: Tensor) -> None:
        self.backwards += rows


def ours(name: str, norm: str) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """One of our attacks, with as many steps as the budget pays for."""
    half = BUDGET // 2 - 1  # steps cost two, the last look and its verification one each
    attack = {
        "fmn": lambda: FMN(norm=norm, steps=half),
        "ddn": lambda: DDN(steps=half),
        "carlini_wagner": lambda: CarliniWagner(
            steps=CARLINI_BUDGET // SEARCHES // 2 - 1, searches=SEARCHES, step_size=CARLINI_STEP
        ),
        "deep_fool": lambda: DeepFool(norm=norm, steps=50),
        "fab": lambda: FAB(norm=norm, steps=BUDGET // 10 - 1),  # a step costs one forward and nine backwards
    }[name]()

    def run(net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        out = attack(from_torch(net, bounds=(0, 1)), inputs, labels, rng=SEED)
        failed = (~out.success).reshape(-1, 1, 1, 1)
        return torch.where(failed, torch.nan, out.adversarial)

    return run


def theirs(name: str, norm: str) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The same from foolbox; steps cost a forward and a backward there."""
    kinds = foolbox.attacks
    attack = {
        "fmn": lambda: getattr(kinds, f"{TITLES[norm]}FMNAttack")(steps=BUDGET // 2),
        "ddn": lambda: kinds.DDNAttack(steps=BUDGET // 2),
        "carlini_wagner": lambda: kinds.L2CarliniWagnerAttack(
            steps=CARLINI_BUDGET // SEARCHES // 2,
            binary_search_steps=SEARCHES,
            stepsize=CARLINI_STEP,
            abort_early=False,
        ),
        "deep_fool": lambda: {"l2": kinds.L2DeepFoolAttack, "linf": kinds.LinfDeepFoolAttack}[norm](steps=50),
    }[name]()

    def run(net: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        _, points, _ = attack(foolbox.PyTorchModel(net, bounds=(0, 1)), inputs, labels, epsilons=None)
        return points

    return run


def measured(attack: Callable, network: nn.Module, inputs: Tensor, labels: Tensor, norm: str) -> dict[str, object]:
    """What an attack returns, judged: distances (n,), infinite where the class is still the label, and the rows."""
    counting = Counting(network).eval()
    wall = time.perf_counter()
    points = attack(counting, inputs, labels).detach()
    wall = time.perf_counter() - wall
    blank = points.flatten(1).abs().amax(dim=1) == 0
    with torch.no_grad():
        fooled = (network(points.nan_to_num(nan=0.0)).argmax(dim=1) != labels) & points.flatten(1).isfinite().all(dim=1)
    assert bool(((points >= 0) & (points <= 1) | points.isnan()).all())
    away = torch.where(fooled & ~blank, distances(points, inputs, norm), torch.inf)
    return {
        "distances": away,
        "blank": int(blank.sum()),
        "median_with_blank": middle(torch.where(fooled, distances(points, inputs, norm), torch.inf)),
        "forwards": counting.forwards / len(inputs),
        "backwards": counting.backwards / len(inputs),
        "seconds": wall,
    }


def middle(away: Tensor) -> float | None:
    """The median; None where it is infinite."""
    both = away.sort().values[[(len(away) - 1) // 2, len(away) // 2]]
    return float(both.mean()) if bool(both.isfinite().all()) else None


def optimality(away: Tensor, best: Tensor, clean: float) -> float | None:
    """AttackBench's: 1 where no attack is nearer on any image, 0 where the attack finds nothing within reach."""
    if not bool(best.isfinite().any()):
        return None
    most = float(best[best.isfinite()].max())
    area, least = (float(each.clamp(max=most).mean()) for each in (away, best))
    return 1.0 - (area - least) / (clean * most - least)


def table(title: str, network: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, object]:
    """All attacks on one network, by norm."""
    with torch.no_grad():
        clean = float((network(inputs).argmax(dim=1) == labels).double().mean())
    rows: dict[str, dict[str, dict[str, object]]] = {norm: {} for norm in TITLES}
    for name, norm in CONTENDERS + ALONE:
        rows[norm][f"vambrace {name}"] = measured(ours(name, norm), network, inputs, labels, norm)
        if foolbox is not None and (name, norm) in CONTENDERS:
            rows[norm][f"foolbox {name}"] = measured(theirs(name, norm), network, inputs, labels, norm)
    for norm, found in rows.items():
        away = {name: row.pop("distances") for name, row in found.items()}
        best = torch.stack(list(away.values())).amin(dim=0)
        for name, row in found.items():
            row["success"] = int(away[name].isfinite().sum())
            row["median"] = middle(away[name])
            row["local_optimality"] = optimality(away[name], best, clean)
            if not name.endswith("carlini_wagner") or name.startswith("vambrace"):
                del row["blank"], row["median_with_blank"]
            interleave.say(f"{title} {norm} {name}: {row}")
    return {"clean_accuracy": clean, "norms": rows}


def verdict(networks: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """Where both have an attack: our median over theirs, at most 1.01 to pass (None: only theirs finds nothing)."""
    lines: list[dict[str, object]] = []
    for title, found in networks.items():
        for name, norm in CONTENDERS:
            rows = found["norms"][norm]
            if f"foolbox {name}" not in rows:
                continue
            mine, other = rows[f"vambrace {name}"], rows[f"foolbox {name}"]
            both = mine["median"] is not None and other["median"] is not None
            ratio = mine["median"] / other["median"] if both else None
            passes = ratio <= 1.01 if both else other["median"] is None
            spent = [row["forwards"] + row["backwards"] for row in (mine, other)]
            lines.append(
                {
                    "network": title,
                    "attack": name,
                    "norm": norm,
                    "ratio": ratio,
                    "passes": passes,
                    "propagations": spent,
                }
            )
    return lines


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if not nets.there():
        interleave.say("bench_nearest: skipped, no shared models (set VAMBRACE_SHARED to their folder)")
        return
    if foolbox is None:
        interleave.say("bench_nearest: foolbox is not installed here, comparisons with it are skipped (make peers)")
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore", module="eagerpy|foolbox")
    inputs, labels = nets.mnist(given.images)
    result: dict[str, object] = {
        "surroundings": interleave.surroundings(SEED, given.threads),
        "foolbox": None if foolbox is None else foolbox.__version__,
        "images": given.images,
        "budget": BUDGET,
        "carlini_wagner_budget": CARLINI_BUDGET,
    }
    networks = {title: table(title, make(), inputs, labels) for title, make in NETWORKS.items()}
    result["networks"], result["against_foolbox"] = networks, verdict(networks)
    for line in result["against_foolbox"]:
        interleave.say(str(line))
    full = given.images == 200
    interleave.say(f"written to {interleave.write('nearest' if full else 'nearest-quick', result)}")


if __name__ == "__main__":
    main()
