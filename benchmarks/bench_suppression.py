"""What privacy suppression does to the membership attack, and what it costs: a heuristic measured, not defended.

    python benchmarks/bench_suppression.py                          # about ten minutes on one core
    python benchmarks/bench_suppression.py --seeds 2 --epochs 20    # a quick look
    python benchmarks/bench_suppression.py --page                   # the tables of docs/privacy/suppression.md again

Small networks are trained on scikit-learn's digits for far longer than they need, so that they remember; then the
loss-threshold attack (`vambrace.privacy.membership`) tells members from 1,000 digits that were not trained on. Two
settings: true labels, and labels of which a fifth is drawn anew, for members and others alike, which can only be
learnt by heart. Each seed draws split, labels, first weights and order, and all ways of training share them: so they
are compared pairwise, and the interval is Student's over seeds. All seeds share the 1,797 digits, so it speaks of these
digits.

Beside suppression stands what costs nothing: the same training without it, stopped after a quarter of the steps.
Utility is accuracy on true labels of the 1,000. `results/suppression.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import interleave
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from vambrace import data, models
from vambrace.privacy.membership import loss_scores, measure
from vambrace.privacy.suppress import Suppression
from vambrace.testing.digits import network

PAGE = Path(__file__).parents[1] / "docs" / "privacy" / "suppression.md"
BEGIN, END = (
    "<!-- figures: written by benchmarks/bench_suppression.py --page, do not edit -->",
    "<!-- end of figures -->",
)
OTHERS, BATCH, LEARNING_RATE, REDRAWN = 1000, 32, 1e-3, 0.2
PLAIN, EARLY = "without suppression", "without, a quarter of the steps"
CHANGED = {"add_noise": 0.01, "lower_clip": 0.005, "upper_clip": 1.2}  # MindArmour's magnitudes
ARMS: dict[str, dict[str, float]] = {
    "half of the weights": {"end_sparsity": 0.5},
    "90 %": {"end_sparsity": 0.9},
    "90 %, noise and clips": {"end_sparsity": 0.9, **CHANGED},
    "97 %": {"end_sparsity": 0.97},
}


def mlp() -> nn.Module:
    """64-256-128-10."""
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


def cnn() -> nn.Module:
    """The demo's network, with torch's own first weights."""
    net = network(16)
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.reset_parameters()
    return net


CASES: tuple[tuple[str, Callable[[], nn.Module], int, float], ...] = (
    ("MLP, 200 members, true labels", mlp, 200, 0.0),
    ("CNN, 200 members, true labels", cnn, 200, 0.0),
    ("MLP, 797 members, a fifth of the labels drawn anew", mlp, 797, REDRAWN),
    ("CNN, 797 members, a fifth of the labels drawn anew", cnn, 797, REDRAWN),
)


@dataclasses.dataclass
class Drawn:
    """What a seed draws: inputs, labels as recorded, true labels; members first."""

    inputs: Tensor
    recorded: Tensor
    true: Tensor
    members: int


def draw(seed: int, members: int, redrawn: float) -> Drawn:
    """A split, and labels."""
    digits = data.load("digits")
    batch = digits.read(range(len(digits)))
    chance = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(batch.labels), generator=chance)[: members + OTHERS]
    true = batch.labels[order]
    other = torch.randint(10, true.shape, generator=chance)
    recorded = torch.where(torch.rand(true.shape, generator=chance) < redrawn, other, true)
    return Drawn(batch.inputs[order], recorded, true, members)


def run(
    make: Callable[[], nn.Module], drawn: Drawn, seed: int, epochs: int, options: dict[str, float] | None
) -> dict[str, float]:
    """Train once, attack once."""
    torch.manual_seed(seed)
    net, chance = make(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    steps = math.ceil(drawn.members / BATCH) * epochs
    if options is not None:
        schedule = {"start_step": steps // 10, "end_step": max(steps // 2, 1)}
        Suppression(layers=("*.weight",), **schedule, **options).attach(net, optimizer, rng=seed)
    for _ in range(epochs):
        for index in torch.randperm(drawn.members, generator=chance).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(drawn.inputs[index]), drawn.recorded[index]).backward()
            optimizer.step()
    net.eval()
    model = models.from_torch(net, bounds=(0, 1))
    scores = loss_scores(model, drawn.inputs, drawn.recorded)
    found = measure(scores[: drawn.members], scores[drawn.members :], rng=seed)
    with torch.no_grad():
        guessed = net(drawn.inputs).argmax(dim=1)
    weights = torch.cat([each.detach().flatten() for name, each in net.named_parameters() if name.endswith("weight")])
    return {
        "auc": found.auc,
        "auc_low": found.interval.low,
        "auc_high": found.interval.high,
        "tpr_at_0.1": found.tpr[0].value,
        "accuracy": float((guessed == drawn.true)[drawn.members :].double().mean()),
        "accuracy_on_members": float((guessed == drawn.recorded)[: drawn.members].double().mean()),
        "zeros": float((weights == 0).double().mean()),
    }


def mean(values: list[float]) -> dict[str, float]:
    """The mean over seeds with Student's 95 % interval; no interval of one seed."""
    centre = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": centre}
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": centre, "low": centre - half, "high": centre + half}


def case(
    name: str, make: Callable[[], nn.Module], members: int, redrawn: float, given: argparse.Namespace
) -> dict[str, object]:
    """All ways of training on the same draws."""
    arms: dict[str, tuple[int, dict[str, float] | None]] = {
        PLAIN: (given.epochs, None),
        EARLY: (max(given.epochs // 4, 1), None),
        **{arm: (given.epochs, options) for arm, options in ARMS.items()},
    }
    runs: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for seed in range(given.seeds):
        drawn = draw(seed, members, redrawn)
        for arm, (epochs, options) in arms.items():
            runs[arm].append(run(make, drawn, seed, epochs, options))
    found: dict[str, object] = {}
    for arm, each in runs.items():
        over = {key: [one[key] for one in each] for key in each[0]}
        changes = {
            key: mean([one[key] - plain[key] for one, plain in zip(each, runs[PLAIN], strict=True)])
            for key in ("auc", "tpr_at_0.1", "accuracy")
        }
        found[arm] = {
            "options": arms[arm][1],
            "epochs": arms[arm][0],
            "seeds": over,
            "over_seeds": {key: mean(values) for key, values in over.items() if key not in ("auc_low", "auc_high")},
            "minus_plain": changes,
        }
    return {"case": name, "members": members, "others": OTHERS, "labels_redrawn": redrawn, "arms": found}


def block(result: dict[str, object]) -> str:
    """The tables of the page."""
    parts: list[str] = []
    for each in result["cases"]:
        lines = [
            f"**{each['case']}**",
            "",
            "| training | weights at 0 | accuracy, unseen | change | membership AUC | change | found at 10 % false |",
            "|---|---|---|---|---|---|---|",
        ]
        for arm, found in each["arms"].items():
            over, change = found["over_seeds"], found["minus_plain"]
            cells = [
                arm,
                f"{100 * over['zeros']['mean']:.0f} %",
                f"{100 * over['accuracy']['mean']:.1f} %",
                "" if arm == PLAIN else f"{_signed(change['accuracy'], 100, 1)} points",
                f"{over['auc']['mean']:.3f}",
                "" if arm == PLAIN else _signed(change["auc"], 1, 3),
                f"{100 * over['tpr_at_0.1']['mean']:.1f} %",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    known = result["surroundings"]
    parts.append(
        f"(Means over {result['seeds']} seeds, changes against training without suppression on the same draws, with "
        "Student's 95 % interval. "
        f"{result['epochs']} epochs of Adam; {known['cpu']}, torch {known['versions']['torch']}, commit "
        f"{known['commit'][:12]}; `benchmarks/results/suppression.json`, which also has every seed "
        "and its DeLong interval. Found: members above the threshold that lets 10 % of the others through.)"
    )
    return "\n\n".join(parts)


def rewritten(text: str, inside: str) -> str:
    """`text` with `inside` between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"the page needs one {BEGIN} and one {END} after it")
    return f"{before}{BEGIN}\n\n{inside}\n\n{END}{after}"


def _signed(change: dict[str, float], times: float, digits: int) -> str:
    centre, low, high = (times * change[key] for key in ("mean", "low", "high"))
    return f"{centre:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def main() -> None:
    """Measure, say, write; or only write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    if given.page:
        result = json.loads((interleave.RESULTS / "suppression.json").read_text())
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), block(result)), encoding="utf-8")
        return
    torch.set_num_threads(given.threads)
    result: dict[str, object] = {
        "surroundings": interleave.surroundings(0, given.threads),
        "seeds": given.seeds,
        "epochs": given.epochs,
        "cases": [],
    }
    for each in CASES:
        result["cases"].append(case(*each, given))
        arms = result["cases"][-1]["arms"]
        shown = {arm: [found["over_seeds"][key]["mean"] for key in ("auc", "accuracy")] for arm, found in arms.items()}
        interleave.say(f"suppression: {each[0]}: {shown}")
    full = given.seeds == 10 and given.epochs == 100
    interleave.say(f"written to {interleave.write('suppression' if full else 'suppression-quick', result)}")


if __name__ == "__main__":
    main()
