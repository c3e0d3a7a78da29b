"""What obfuscation hides, what it keeps, and what it costs, on real networks, against attackers of ours.

    python benchmarks/bench_obfuscate.py
    python benchmarks/bench_obfuscate.py --nets mnist_fc,resnet2b --rows 50 --keys 0        # a quick look
    python benchmarks/bench_obfuscate.py --nets yunet,yolox --profiles tolerance --again    # these rows only
    python benchmarks/bench_obfuscate.py --nets "" --again                                  # the classifier only

For each network and profile, one obfuscation with a fixed seed as `vambrace obfuscate --data` makes it, measured by
`vambrace.assets.obfuscate.measure`; it is given the same real inputs, so that what is too slow on them, or in the
tolerance profile moves answers too far, is left out:

- `fitted`: what moved answers too far, and what each of these passes does to them by itself;
- `planned`: what was too slow, and the passes by themselves where not all of them fitted at once;
- `gates`: every gate with its value, threshold, n and interval;
- `equality`: the largest difference on real, random, edge and extreme inputs, over all runtime settings;
- `unbounded`: the time of a call where nothing is left out for time;
- `bare_if`: the time of a call with nothing but one If around part of the network, its predicate and an all but empty
  other branch: the least that hiding anything in a branch costs there;
- `readability`: similarities to the original before and after each simplifier and our de-obfuscator; of the two
  readings after (beside the original, and beside what the same tool left of the original) the larger one;
- `brought`: how much of a similarity each simplifier brings back, beyond what it does for unrelated networks;
- `key_as_input`: the original as it takes its key at every run: time with the right key, elements that differ, channels
  of the original found again in the file;
- `alignment`: channels of the original found again in the model that runs, in what the de-obfuscator left, and in the
  same model locked by a key, as it lies on disk, beside guessing.

The classifier is trained once a profile, on networks of its own, as wide as those in use, obfuscated within the same
budget: attackers that know clean graphs, and attackers that know our output under other keys; on graphs as they are,
after onnxruntime's full optimisation, after onnxsim, and after our de-obfuscator; `outputs` says what was left out of
those networks and what they cost. Latency ratios belong to this machine. `results/obfuscate.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import warnings
from importlib import metadata
from pathlib import Path

import interleave
import nets
import numpy as np
import obfuscate_nets
import onnx
from obfuscate_families import Outputs

from vambrace.assets.obfuscate import measure as measures
from vambrace.assets.obfuscate.keyinput import key_tensor, lock_by_input
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.measure.inputs import random_rows, read_rows
from vambrace.assets.obfuscate.measure.readability import SIMILARITIES, Readability
from vambrace.assets.obfuscate.measure.runtime import Network, optimised, simplifier
from vambrace.assets.obfuscate.passes.phantoms import Phantoms
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.assets.obfuscate.planning import BUDGET
from vambrace.assets.obfuscate.rehearsal import Rehearsal
from vambrace.core.rng import Streams

SEED = 0
PROFILES = ("exact", "tolerance")
COST = ("wall", "cpu", "null_wall", "null_cpu", "clock", "milliseconds", "size", "size_ratio", "memory",
        "memory_ratio_above_idle")  # fmt: skip
BARE = Phantoms(ifs=1, times=0, fewest=0, growth=0, spare=0)
PREPARED = ("", "onnxruntime all", "onnxsim", "our de-obfuscator")


def read(found: Readability, other: Readability | None = None) -> dict[str, float]:
    """The similarities; the larger ones of two readings."""
    both = [each for each in (found, other) if each is not None]
    return {name: max(getattr(each, name) for each in both) for name in SIMILARITIES}


def summary(report: measures.Report) -> dict[str, object]:
    """What of a report goes into the table."""
    data = report.as_json()
    worst = {
        kind: report.equality.worst(kind)
        for kind in ("real", "random", "edge", "nan", "infinite", "extreme")
        if any(each.kind == kind for each in report.equality.found)
    }
    after = {each.tool: read(each.after, each.after_both) for each in report.survival if each.measured}
    apart = report.apart
    return {
        "verdict": report.verdict,
        "gates": {gate["gate"]: {key: gate[key] for key in ("word", "value", "threshold", "n", "interval")}
                  for gate in data["gates"]},
        "equality": {
            kind: {"rows": each.rows, "elements": each.elements, "differing": each.differing,
                   "max_abs": finite(each.max_abs), "max_row": finite(each.max_row),
                   "of_output": finite(report.equality.relative("output", kind)), "max_ulp": finite(each.max_ulp),
                   "nan_apart": each.nan_apart, **decisions(report, kind)}
            for kind, each in worst.items()
        },
        "drift_of_the_original": {title: each.max_row for title, each in report.equality.drift.items()},
        "overhead": {key: data["overhead"][key] for key in COST},
        "operators": list(report.readability.operators),
        "readability": {"before": read(report.readability), **after,
                        **({"our de-obfuscator": read(apart.after, apart.after_both)} if apart else {})},
        "risen": {each.tool: each.risen for each in report.survival if each.measured},
        "brought": {each.tool: each.brought for each in report.survival if each.measured},
        "not_measured": {each.tool: each.why for each in report.survival if not each.measured},
        "names": data["readability"]["names"],
        "deobfuscator": apart.taken.as_json() if apart else None,
        "alignment": {
            "that runs": rows(report.alignment),
            "after our de-obfuscator": rows(apart.aligned) if apart else None,
            "locked, at rest": rows(report.locked) if report.locked else None,
        },
    }  # fmt: skip


def decisions(report: measures.Report, kind: str) -> dict[str, int]:
    """How many, and how many are the same."""
    found = report.equality.decided(kind)
    return {"top1_same": found.top1_same, "top1_of": found.top1_of, "near_ties": found.near_ties}


def rows(found: measures.Alignment) -> dict[str, object]:
    """An alignment without its layers."""
    kept = {key: value for key, value in found.as_json().items() if key != "layers"}
    interval = found.interval
    return kept | {"layers": len(found.layers), "interval": [interval.low, interval.high] if interval else None}


def finite(value: float) -> float | str:
    """JSON has no infinity."""
    return value if np.isfinite(value) else str(value)


def one(name: str, profile: str, model: onnx.ModelProto, inputs: np.ndarray, given: argparse.Namespace) -> dict:
    """A network under one profile."""
    case = obfuscate_nets.CASES[name]
    wanted = {"profile": profile, "ratio": given.ratio, "seed": SEED}
    begin = time.perf_counter()
    free = onnx_model(model, **wanted)
    seconds = [time.perf_counter() - begin]
    if profile == "tolerance":
        free = onnx_model(model, **wanted, inputs=inputs, decide=case.decide)
    begin = time.perf_counter()
    obfuscated = onnx_model(model, **wanted, inputs=inputs, budget=BUDGET, decide=case.decide)
    seconds.append(time.perf_counter() - begin)
    fitted, planned = obfuscated.fitted, obfuscated.planned
    assert fitted is not None
    assert planned is not None
    key = hashlib.sha256(f"{name} {profile}".encode()).digest()
    locked = lock(obfuscated.model, key)
    unlocked = unlock(locked, key)
    report = measures.measure(
        model,
        unlocked,
        inputs,
        gates=measures.Gates(profile=profile),
        options=measures.MeasureOptions(
            equality=measures.EqualityOptions(rows=given.rows, fewer=min(50, given.rows)),
            overhead=measures.OverheadOptions(rounds=given.rounds),
        ),
        at_rest=locked,
        decide=case.decide,
        name=name,
        rng=SEED,
    )
    if given.pages:
        given.pages.mkdir(parents=True, exist_ok=True)
        (given.pages / f"{name}-{profile}.html").write_text(report.html(), encoding="utf-8")
    same = unlocked.SerializeToString(deterministic=True) == obfuscated.model.SerializeToString(deterministic=True)
    entries = {entry.name: [entry.done, entry.eligible] for entry in obfuscated.map.passes}
    return {
        "seconds_to_obfuscate": seconds[0],
        "seconds_with_inputs": seconds[1],
        "passes": entries,
        "unlocked_is_the_same": same,
        "fitted": {
            each.name: {"relative": finite(each.moved.relative), "decisions": each.moved.decisions}
            for each in fitted.left_out
        },
        "planned": {"budget": BUDGET, "dropped": planned.dropped, "alone": planned.alone},
        **summary(report),
        "unbounded": cost(model, free.model, inputs, given),
        "bare_if": cost(model, onnx_model(model, passes=[BARE], seed=SEED).model, inputs, given),
    }


def cost(
    model: onnx.ModelProto,
    made: onnx.ModelProto,
    inputs: np.ndarray,
    given: argparse.Namespace,
    keys: dict[str, np.ndarray] | None = None,
) -> dict:
    """Times of calls beside the original's, and its size."""
    found = measures.measure_cost(
        model,
        made,
        read_rows(inputs, Network(model)),
        options=measures.OverheadOptions(rounds=given.rounds, processes=0),
        keys=keys,
    ).as_json()
    return {key: found[key] for key in ("cpu", "null_cpu", "size_ratio")}


def key_as_input(name: str, model: onnx.ModelProto, inputs: np.ndarray, given: argparse.Namespace) -> dict:
    """A model that takes its key at every run: what that costs with the right one, and what its file still shows."""
    key = hashlib.sha256(name.encode()).digest()
    taking = lock_by_input(model, key)
    keys = dict([key_tensor(taking, key)])
    equality = measures.compare_answers(
        model,
        taking,
        read_rows(inputs, Network(model)),
        options=measures.EqualityOptions(rows=given.rows, fewer=min(50, given.rows)),
        keys=keys,
        rng=SEED,
    )
    kinds = {each.kind for each in equality.found}
    return {
        "differing": {kind: equality.worst(kind).differing for kind in sorted(kinds & {"real", "random", "edge"})},
        "alignment": rows(measures.align(model, taking)),
        **cost(model, taking, inputs, given, keys),
    }


def prepared(how: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """What an attacker does to a graph first."""
    if how == "onnxruntime all":
        return optimised(model, "all")
    if how == "onnxsim":
        run = simplifier("onnxsim")
        assert run is not None, "onnxsim is not installed"
        return run(model)
    network = Network(model)
    shapes = [tuple(size or 1 for size in each.shape[1:]) for each in network.inputs]
    arrays = [np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32) for shape in shapes]
    real = read_rows(arrays, network)
    return measures.take_apart(model, real, random_rows(real, 1, Streams(SEED))).model


def attackers(given: argparse.Namespace) -> measures.ClassifierOptions:
    """What they have."""
    return measures.ClassifierOptions(keys=given.keys, size="usual")


def classified(outputs: Outputs, how: str, given: argparse.Namespace) -> dict[str, object]:
    """The classifier's rows."""
    found = measures.classify(
        outputs,
        options=attackers(given),
        prepare=(lambda model: prepared(how, model)) if how else None,
        prepared=how,
    )
    return found.as_json() | {"outputs": outputs.as_json()}


def said(name: str, profile: str, found: dict) -> str:
    """A line for whoever waits."""
    bad = [gate for gate, each in found["gates"].items() if each["word"] == "fail"]
    real, cpu = found["equality"]["real"], found["overhead"]["cpu"]["median"]
    measured = {title: each for title, each in found["alignment"].items() if each and each["share"] is not None}
    aligned = {title: f"{each['share']:.3f} (chance {each['chance']:.3f})" for title, each in measured.items()}
    kernel = {title: round(each["kernel"], 2) for title, each in found["readability"].items()}
    return (
        f"{name}, {profile}: {found['verdict']}, fails {bad}; differing {real['differing']} of {real['elements']}, "
        f"max abs {real['max_abs']}, of sample {real['max_row']}; top-1 {real['top1_same']}/{real['top1_of']}; "
        f"latency {cpu:.3f} without {', '.join(found['planned']['dropped']) or 'nothing'}, "
        f"unbounded {found['unbounded']['cpu']['median']:.3f}, "
        f"a bare If {found['bare_if']['cpu']['median']:.3f}, "
        f"size {found['overhead']['size_ratio']:.3f}; operators {found['operators']}; "
        f"kernel {kernel}; alignment {aligned}"
    )


def merged(result: dict) -> dict:
    """Figures that are there, with these networks and profiles in place of theirs, which say where they come from."""
    known = json.loads((interleave.RESULTS / "obfuscate.json").read_text())
    assert known["ratio"] == result["ratio"], "other figures at another ratio"
    for rows in [*(net["profiles"] for net in known["nets"].values()), *known["classifier"].values()]:
        for each in rows.values():
            each.setdefault("surroundings", known["surroundings"])
    known["surroundings"] = result["surroundings"]
    for name, found in result["nets"].items():
        profiles = {
            profile: rows | {"surroundings": result["surroundings"]} for profile, rows in found["profiles"].items()
        }
        known["nets"][name] = found | {"profiles": known["nets"].get(name, {}).get("profiles", {}) | profiles}
    known["classifier"] |= {
        profile: {how: rows | {"surroundings": result["surroundings"]} for how, rows in found.items()}
        for profile, found in result["classifier"].items()
    }
    return known


def version(name: str) -> str | None:
    """Of a package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Run, say, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default=",".join(obfuscate_nets.CASES))
    parser.add_argument("--profiles", default=",".join(PROFILES))
    parser.add_argument("--ratio", default=None, choices=("small", "medium", "large"))
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--processes", type=int, default=2, help="that make the classifier's networks")
    parser.add_argument("--keys", type=int, default=2, help="keys that the adaptive attacker saw; 0: no classifier")
    parser.add_argument(
        "--again",
        action="store_true",
        help="put these into results/obfuscate.json; the classifier where no network is named",
    )
    parser.add_argument("--pages", type=Path, help="folder for the HTML report of every network and profile")
    given = parser.parse_args()
    if not nets.there():
        interleave.say("bench_obfuscate: no shared models here (VAMBRACE_SHARED)")
        return
    warnings.simplefilter("ignore")
    result: dict = {
        "surroundings": interleave.surroundings(SEED, 1),
        "ratio": given.ratio,
        "nets": {},
        "classifier": {},
    }
    packages = ("onnx", "onnxruntime", "onnxsim", "onnxslim", "scikit-learn")
    result["surroundings"]["versions"] |= {name: version(name) for name in packages}
    profiles = given.profiles.split(",")
    for name in filter(None, given.nets.split(",")):
        case = obfuscate_nets.CASES[name]
        model, inputs = case.model(), case.inputs(given.rows)
        found = {"title": case.title, "inputs": case.inputs_title, "rows": len(inputs), "profiles": {}}
        for profile in profiles:
            found["profiles"][profile] = one(name, profile, model, inputs, given)
            interleave.say(said(name, profile, found["profiles"][profile]))
        found["key_as_input"] = taking = key_as_input(name, model, inputs, given)
        interleave.say(f"{name}, key as an input: {taking['cpu']['median']:.3f}, differing {taking['differing']}")
        result["nets"][name] = found
    for profile in profiles if given.keys and not (given.again and given.nets) else []:
        result["classifier"][profile] = {}
        with tempfile.TemporaryDirectory() as folder:
            outputs = Outputs(Rehearsal(profile=profile, ratio=given.ratio, budget=BUDGET), Path(folder))
            outputs.make_all(attackers(given), given.processes)
            interleave.say(f"classifier, {profile}: {outputs.as_json()}")
            for how in PREPARED:
                rows_found = result["classifier"][profile][how or "as given"] = classified(outputs, how, given)
                shares = {row["attacker"]: f"{row['accuracy']:.3f}" for row in rows_found["rows"]}
                interleave.say(
                    f"classifier, {profile}, {how or 'as given'}: {shares}, chance {rows_found['chance']:.4f}"
                )
    if given.again:
        interleave.say(f"written to {interleave.write('obfuscate', merged(result))}")
        return
    full = given.nets == ",".join(obfuscate_nets.CASES) and given.rows >= 500 and given.keys and profiles == [*PROFILES]
    interleave.say(f"written to {interleave.write('obfuscate' if full else 'obfuscate-quick', result)}")


if __name__ == "__main__":
    main()
