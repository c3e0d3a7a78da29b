"""Audits of the private trainer: how often a right one is accused, and how often a faulty one is found out.

    python benchmarks/bench_dp_audit.py                # a minute on one core
    python benchmarks/bench_dp_audit.py --runs 2       # a quick look
    python benchmarks/bench_dp_audit.py --page         # the table of docs/privacy/dp-audit.md again

Claims of epsilon 1.0 and 2.0 at delta 1e-5, by calibrated noise. Each run throws its canary coins anew, trains once
through `dp.make_private` and proves a 95 % lower bound. How many canaries comes from the power calculation, which is
printed. Faults are put in on purpose: noise divided by 4, clipping off, noise divided by the square root of 2. Two
settings: Poisson batches (the bound of every mechanism, "one_run"), and every sample in every step, where the claim is
a Gaussian's own curve ("f_dp"). Coins and noise come from the operating system, so no run can be repeated; the seed in
the file is for nothing. `results/dp_audit.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import interleave
import torch

from vambrace.privacy import dp
from vambrace.privacy.dp.clipping import Clipping
from vambrace.privacy.dp.noise import Gaussian

PAGE = Path(__file__).parents[1] / "docs" / "privacy" / "dp-audit.md"
BEGIN, END = (
    "<!-- figures: written by benchmarks/bench_dp_audit.py --page, do not edit -->",
    "<!-- end of figures -->",
)
CLAIMS, DELTA, RATE, STEPS = (1.0, 2.0), 1e-5, 0.25, 16
SETTINGS = {
    "poisson, one_run": ("one_run", dp.Poisson(), RATE, STEPS),
    "every sample, f_dp": ("f_dp", dp.Everything(), 1.0, 4),
}
NEEDED = {"right": 20, "noise / 4": 10, "no clipping": 10, "noise / sqrt 2": 10}


@contextlib.contextmanager
def fault(name: str) -> Iterator[None]:
    """Inside, the trainer is wrong in one way."""
    add, factors = Gaussian._add, Clipping.factors
    less = {"noise / 4": 4.0, "noise / sqrt 2": math.sqrt(2)}.get(name, 1.0)
    Gaussian._add = lambda self, flat, multiplier, *rest: add(self, flat, multiplier / less, *rest)
    if name == "no clipping":
        Clipping.factors = lambda self, norms, bounds: torch.ones_like(norms)
    try:
        yield
    finally:
        Gaussian._add, Clipping.factors = add, factors


def case(setting: str, claim: float, given: argparse.Namespace) -> dict[str, object]:
    """One claim in one setting: its power calculation, then all runs of the right trainer and of each faulty one."""
    method, sampling, rate, steps = SETTINGS[setting]
    design = dp.AuditDesign(epsilon=claim, delta=DELTA, sample_rate=rate, steps=steps, method=method)
    powers = dp.canaries_needed(design)
    interleave.say(f"{setting}\n{powers}")
    needed = powers.enough or powers.rows[-1]
    look = dp.Audit(canaries=needed.canaries, guesses=needed.guesses, method=method)
    found: dict[str, object] = {}
    for name, runs in NEEDED.items():
        bounds, seconds, claimed = [], [], 0.0
        for _ in range(min(runs, given.runs)):
            began = time.perf_counter()
            with fault(name):
                audited = look(
                    clip=dp.Flat(clip_norm=1.0),
                    noise=dp.Gaussian(noise_multiplier=design.noise),
                    sample_rate=rate,
                    steps=steps,
                    delta=DELTA,
                    sampling=sampling,
                )
            bounds.append(audited.bound.epsilon)
            claimed = audited.claim.epsilon
            seconds.append(time.perf_counter() - began)
        found[name] = {
            "runs": len(bounds),
            "above_zero": sum(each > 0 for each in bounds),
            "within_the_claim": sum(each <= claimed for each in bounds),
            "above_the_claim": sum(each > claimed for each in bounds),
            "claimed": claimed,
            "bounds": sorted(bounds),
            "median": statistics.median(bounds),
            "seconds_in_all": sum(seconds),
        }
        shown = found[name]
        interleave.say(
            f"{setting}, claim {claim}, {name}: {shown['above_zero']} of {shown['runs']} above 0, "
            f"{shown['above_the_claim']} above the claim, median {shown['median']:.3f}, {sum(seconds):.1f} s in all"
        )
    return {
        "setting": setting,
        "claim": claim,
        "delta": DELTA,
        "confidence": 0.95,
        "noise_multiplier": design.noise,
        "sample_rate": rate,
        "steps": steps,
        "canaries": needed.canaries,
        "guesses": needed.guesses,
        "power": [row.as_json() for row in powers.rows],
        "trainers": found,
    }


def block(result: dict[str, object]) -> str:
    """The table of the page."""
    lines = [
        "| training, proof | claim | canaries | trainer | bound above 0 | bound above the claim | median bound |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in result["cases"]:
        for name, found in each["trainers"].items():
            counts = [f"{found[key]} of {found['runs']}" for key in ("above_zero", "above_the_claim")]
            cells = [each["setting"], each["claim"], f"{each['canaries']:,}", name, *counts, f"{found['median']:.2f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    known = result["surroundings"]
    measured = f"torch {known['versions']['torch']}, commit {known['commit'][:12]}"
    return "\n".join([*lines, "", f"({measured}; `benchmarks/results/dp_audit.json` has every bound.)"])


def rewritten(text: str, inside: str) -> str:
    """`text` with `inside` between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"the page needs one {BEGIN} and one {END} after it")
    return f"{before}{BEGIN}\n\n{inside}\n\n{END}{after}"


def main() -> None:
    """Measure, say, write; or only write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    if given.page:
        result = json.loads((interleave.RESULTS / "dp_audit.json").read_text())
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), block(result)), encoding="utf-8")
        return
    torch.set_num_threads(given.threads)
    result: dict[str, object] = {
        "surroundings": interleave.surroundings(0, given.threads),
        "cases": [case(setting, claim, given) for setting in SETTINGS for claim in CLAIMS],
    }
    name = "dp_audit" if given.runs >= 20 else "dp_audit-quick"
    interleave.say(f"written to {interleave.write(name, result)}")


if __name__ == "__main__":
    main()
