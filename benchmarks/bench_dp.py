"""What a private step costs: ours and Opacus', over a plain step of SGD on the same rows.

    make peers && .venv-peers/bin/python benchmarks/bench_dp.py
    .venv-peers/bin/python benchmarks/bench_dp.py --nets mlp,cnn --rounds 11        # a quick look

Contenders take turns, each on its own copy of the network with the same first weights and the same batch, as many real
rows for each; a turn is a few steps. Clip norm 1, learning rate 1e-4:

- `sgd`: a plain step;
- `engine`: our private step with noise multiplier 0, so clipping without noise;
- `private`: with noise from the operating system's generator, multiplier 1.1;
- `poisson`: the same on batches that the sampler drew, which are padded: told apart, by rows and by time a real row;
- `ghost`, `hooks`: Opacus' two ways to clip, without noise. Layers that it does not know are replaced by its own.

What Opacus computes is held against ours: the difference of the clipped sums on the same weights, relative. With its
attention it is not small: `DPMultiheadAttention(batch_first=True)` gives other outputs than torch's, though as many.

Memory is measured apart, in a fresh process for each contender, twice: by torch's allocator (bytes alive at the height
of a step, network and batch included), and by the system (the whole process at its height, torch and all). The bar is
on the first. `results/dp.json`.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable

import dp_nets
import interleave
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vambrace.privacy import dp
from vambrace.privacy.dp.sampling import buckets

try:
    import opacus
except ImportError:
    opacus = None

SEED, CLIP, NOISE, LEARNING_RATE = 0, 1.0, 1.1, 1e-4
SAMPLES = 8  # batches' worth of samples in the data that Poisson batches come from
OURS, THEIRS = {"engine": 0.0, "private": NOISE}, ("ghost", "hooks")


def optimizer(net: nn.Module) -> torch.optim.Optimizer:
    """The same for all."""
    return torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)


def plain(net: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], object]:
    """A step without privacy."""
    steps = optimizer(net)

    def step() -> None:
        steps.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        steps.step()

    return step


def ours(net: nn.Module, case: dp_nets.Case, noise: float, samples: tuple[Tensor, Tensor]) -> dp.Private:
    """Our private training."""
    return dp.make_private(
        net,
        optimizer(net),
        samples,
        loss="cross_entropy",
        clip=dp.Flat(clip_norm=CLIP),
        noise=dp.Gaussian(noise_multiplier=noise),
        expected_batch_size=case.shape[0],
        delta=1e-5,
    )


def theirs(net: nn.Module, inputs: Tensor, labels: Tensor, how: str) -> Callable[[], object]:
    """A step of Opacus without noise."""
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    options = {"noise_multiplier": 0.0, "max_grad_norm": CLIP, "expected_batch_size": len(inputs)}
    if how == "ghost":
        module = GradSampleModuleFastGradientClipping(net, max_grad_norm=CLIP, use_ghost_clipping=True)
        steps = DPOptimizerFastGradientClipping(optimizer(net), **options)
        compare = DPLossFastGradientClipping(module, steps, nn.CrossEntropyLoss())
    else:
        module, steps = GradSampleModule(net), DPOptimizer(optimizer(net), **options)
        compare = nn.CrossEntropyLoss()

    def step() -> None:
        steps.zero_grad()
        compare(module(inputs), labels).backward()
        steps.step()

    return step


def known(net: nn.Module) -> nn.Module:
    """The network with what Opacus has for the layers that it does not know; their weights are kept."""
    from opacus.validators import ModuleValidator

    return net if ModuleValidator.is_valid(net) else ModuleValidator.fix(net).train()


def contender(name: str, case: dp_nets.Case, net: nn.Module) -> Callable[[], object]:
    """One step of any of them on a batch of its own size, all rows real."""
    inputs, labels = dp_nets.batch(case, SEED)
    if name == "sgd":
        return plain(net, inputs, labels)
    if name in OURS:
        private = ours(net, case, OURS[name], (inputs, labels))
        return lambda: private.step_unsampled(inputs, labels)
    if name == "poisson":
        private = ours(net, case, NOISE, dp_nets.batch(case, SEED, SAMPLES * len(inputs)))
        drawn = private.batches(steps=10**9)
        return lambda: private.step(next(drawn))
    return theirs(known(net), inputs, labels, name)


def first(case: dp_nets.Case) -> nn.Module:
    """A network, with the same weights each time."""
    torch.manual_seed(SEED)
    return case.make()


def repeated(step: Callable[[], object], times: int) -> Callable[[], None]:
    """A turn."""

    def turn() -> None:
        for _ in range(times):
            step()

    return turn


def speed(case: dp_nets.Case, names: list[str], rounds: int) -> dict[str, object]:
    """Every contender over SGD, and Opacus' ghost over our engine."""
    start = first(case)
    steps = {name: contender(name, case, copy.deepcopy(start)) for name in names}
    times = interleave.interleaved(
        {name: repeated(step, case.steps) for name, step in steps.items()}, rounds, warm_up=2
    )
    found: dict[str, object] = {
        "steps_a_turn": case.steps,
        "milliseconds": {
            name: {
                clock: 1e3 * sorted(each[clock] for each in taken)[rounds // 2] / case.steps
                for clock in ("cpu", "wall")
            }
            for name, taken in times.items()
        },
        "over_sgd": {name: interleave.ratio(taken, times["sgd"]) for name, taken in times.items() if name != "sgd"},
        "over_engine": {name: interleave.ratio(times[name], times["engine"]) for name in THEIRS if name in names},
    }
    return found


def padding(case: dp_nets.Case, rounds: int) -> dict[str, object]:
    """Poisson batches, rows counted, against full ones of our own: time a real row over time a real row."""
    start = first(case)
    inputs, labels = dp_nets.batch(case, SEED)
    private = ours(copy.deepcopy(start), case, NOISE, dp_nets.batch(case, SEED, SAMPLES * len(inputs)))
    full = contender("private", case, copy.deepcopy(start))
    drawn, seen, padded = private.batches(steps=10**9), [], []

    def step() -> None:
        batch = next(drawn)
        seen.append(len(batch.indices))
        padded.append(sum(rows for _, _, rows in buckets(len(batch.indices), case.shape[0])))
        private.step(batch)

    times = interleave.interleaved({"poisson": step, "full": full}, 4 * rounds, warm_up=2)
    by_row = {
        clock: sum(each[clock] for each in times["poisson"]) / sum(seen[2:])
        / (sum(each[clock] for each in times["full"]) / (len(times["full"]) * len(inputs)))
        for clock in ("cpu", "wall")
    }  # fmt: skip
    return {"steps": len(seen), "padded_rows_over_real": sum(padded) / sum(seen), "time_a_real_row_over_full": by_row}


def agreement(case: dp_nets.Case, names: list[str]) -> dict[str, float]:
    """How far Opacus' clipped sums are from ours on the same weights, relative."""
    inputs, labels = dp_nets.batch(case, SEED)
    own = first(case)
    ours(own, case, 0.0, (inputs, labels)).step_unsampled(inputs, labels)
    reference = torch.linalg.vector_norm(torch.stack([each.grad.norm() for each in own.parameters()]))
    found = {}
    for name in names:
        net = known(first(case))
        theirs(net, inputs, labels, name)()
        if [each.shape for each in net.parameters()] != [each.shape for each in own.parameters()]:
            total = torch.linalg.vector_norm(torch.stack([each.grad.norm() for each in net.parameters()]))
            found[f"{name}_norm"] = float((total - reference).abs() / reference)
            continue
        apart = [(one.grad - other.grad).norm() for one, other in zip(net.parameters(), own.parameters(), strict=True)]
        found[name] = float(torch.linalg.vector_norm(torch.stack(apart)) / reference)
    return found


def heights(name: str, contender_name: str) -> dict[str, float]:
    """In a fresh process: MiB of one contender at its height: what torch allocated in a step, and the process."""
    from torch.profiler import ProfilerActivity, profile, record_function

    case, mib = dp_nets.CASES[name], 2**20
    step = contender(contender_name, case, first(case))
    repeated(step, 3)()
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del step
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step = contender(contender_name, case, first(case))
        repeated(step, 2)()
        with record_function("measured"):
            step()
    events = watched.profiler.kineto_results.events()
    window = next(each for each in events if each.name() == "measured")
    begin, end = window.start_ns(), window.start_ns() + window.duration_ns()
    alive, height = 0, 0
    for moment, size in sorted((each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]"):
        alive += size
        if begin <= moment <= end:
            height = max(height, alive)
    return {"allocator_mib": height / mib, "process_mib": process}


def memory(name: str, names: list[str]) -> dict[str, object]:
    """The heights of all contenders, each from a process of its own, and over SGD's."""
    found = {}
    for each in names:
        command = [sys.executable, __file__, "--height", name, each]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[each] = json.loads(said.strip().splitlines()[-1])
    over = {
        each: {key: size / found["sgd"][key] for key, size in sizes.items()}
        for each, sizes in found.items()
        if each != "sgd"
    }
    return {
        "mib": found,
        "over_sgd": {
            each: {key.removesuffix("_mib"): value for key, value in two.items()} for each, two in over.items()
        },
    }


def measure(name: str, rounds: int) -> dict[str, object]:
    """All of one network."""
    case = dp_nets.CASES[name]
    peers = list(THEIRS) if opacus is not None else []
    names = ["sgd", *OURS, *peers]
    net = first(case)
    private = ours(net, case, NOISE, dp_nets.batch(case, SEED))
    found: dict[str, object] = {
        "title": case.title,
        "parameters": sum(each.numel() for each in net.parameters()),
        "methods": {row.name: row.method for row in private.table},
        "bars": {"engine": case.engine_bar, "private": case.private_bar, "ghost_over_engine": case.ghost_bar},
        "speed": speed(case, names, rounds),
        "poisson": padding(case, rounds),
        "memory": memory(name, ["sgd", "private", *peers]),
    }
    if peers:
        found["difference_from_ours"] = agreement(case, peers)
    return found


def said(name: str, found: dict[str, object]) -> str:
    """A line for whoever waits."""
    over = {each: f"{ratio['cpu']['median']:.2f}" for each, ratio in found["speed"]["over_sgd"].items()}
    ghost = found["speed"]["over_engine"].get("ghost")
    beside = f"; ghost over engine {ghost['cpu']['median']:.2f}" if ghost else ""
    heights = {each: f"{two['allocator']:.2f}" for each, two in found["memory"]["over_sgd"].items()}
    return f"{name}: over SGD {over}{beside}; memory {heights}; Poisson {found['poisson']}"


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default=",".join(dp_nets.CASES))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--height", nargs=2, metavar=("NET", "CONTENDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # Opacus and torch warn of hooks at every step
    logging.disable(logging.WARNING)  # Opacus turns on what dp-accounting says about orders that it leaves out
    torch.set_num_threads(given.threads)
    if given.height:
        sys.stdout.write(json.dumps(heights(*given.height)) + "\n")
        return
    if opacus is None:
        interleave.say("bench_dp: Opacus is not installed here, comparisons with it are skipped (make peers)")
    result: dict[str, object] = {"surroundings": interleave.surroundings(SEED, given.threads)}
    result["surroundings"]["versions"]["opacus"] = getattr(opacus, "__version__", None)
    result["memory_kept"] = interleave.keep_memory()
    result["nets"] = {}
    for name in given.nets.split(","):
        result["nets"][name] = measure(name, given.rounds)
        interleave.say(said(name, result["nets"][name]))
    full = given.nets == ",".join(dp_nets.CASES) and given.rounds >= 11
    interleave.say(f"written to {interleave.write('dp' if full else 'dp-quick', result)}")


if __name__ == "__main__":
    main()
