"""The figures of the README are what the JSON says, and nothing else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")  # as for a script that lies there
        spec.loader.exec_module(module)
    return module


ATTACKS = ("ensembles", "nearest", "square", "black_box", "art", "throughput")
LATER = ("dp", "dp_utility", "seal", "obfuscate")
START = {
    "surroundings": {"cpu": "Some CPU", "cores": 2, "threads": 1, "python": "3.11.7", "commit": "abc" * 14},
    "help": {"n": 20, "wall": {"median": 0.1234}},
    "python": {"n": 20, "wall": {"median": 0.0123}},
    "demo": {
        "n": 3,
        "wall": {"median": 13.2, "least": 12.6, "most": 14.4},
        "cpu": {"median": 12.5},
        "html_bytes": 1_234_567,
    },
}


def test_the_readme_is_up_to_date(figures: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == figures.rewritten(text, figures.block()), "run python benchmarks/figures.py"


def test_the_documentation_of_obfuscation_is_up_to_date(figures: ModuleType) -> None:
    text = (ROOT / "docs" / "assets" / "obfuscation.md").read_text(encoding="utf-8")
    found = figures.attackers(ROOT / "benchmarks" / "results")
    assert text == figures.rewritten(text, found), "run python benchmarks/figures.py"
    assert text.count(" | **") == 8, "one figure for each profile and each kind of file"


def test_every_figure_comes_from_a_file(figures: ModuleType, tmp_path: Path) -> None:
    said = figures.block(tmp_path)
    names = ("start", "pgd", *ATTACKS, *LATER)
    assert said == f"Not measured yet: {', '.join(f'`benchmarks/bench_{name}.py`' for name in names)}."
    (tmp_path / "start.json").write_text(json.dumps(START))
    said = figures.block(tmp_path)
    for words in (
        "| `vambrace --help` | 0.12 s (an empty Python: 0.01 s), median of 20 |",
        "13 s, median (13 to 14 s in 3 runs), 12 s of CPU",
        "1.23 MB",
        "Some CPU; 2 cores, 1 in use; Python 3.11.7",
        "commit abcabcabcabc;",
        "benchmarks/results/start.json",
        "Not measured yet: `benchmarks/bench_pgd.py`",
    ):
        assert words in said


def test_what_a_file_does_not_hold_is_left_out(figures: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "start.json").write_text("{}")
    few = {"median": 6.54, "least": 6.01, "most": 7.2, "quarter": 5, "three_quarters": 8, "fastest": 9.9, "rounds": 3}
    many = {**few, "median": 1.051, "quarter": 1.02, "three_quarters": 1.08, "rounds": 20}
    measured = {
        "speed": {"torchattacks_over_ours": {"wall": few}},
        "overhead": {"batch_64": {"ours_over_loop": {"wall": many}}, "batch_128": {"ours_over_loop": {"wall": {}}}},
    }
    (tmp_path / "pgd.json").write_text(json.dumps(measured))
    said = figures.block(tmp_path)
    assert "--help" not in said
    assert "torchattacks' time over ours | 6.5, median (all 6.0 to 7.2, 3 rounds) |" in said
    assert "hand-written loop | 1.05, median (middle half 1.02 to 1.08, 20 rounds) |" in said
    assert "batch 128" not in said
    assert "9.9" not in said, "the ratio of the fastest rounds is nobody's time"
    missing = ", ".join(f"`benchmarks/bench_{name}.py`" for name in (*ATTACKS, *LATER))
    assert said.endswith(f"Not measured yet: {missing}.")


def test_attacks_are_told_beside_their_peers(figures: ModuleType, tmp_path: Path) -> None:
    ratio = {"median": 1.432, "quarter": 1.39, "three_quarters": 1.5, "least": 1.31, "most": 2.04, "rounds": 3}
    mean = {"accuracy": 79.3667, "accuracy_least": 79.3, "accuracy_most": 79.4, "rows_an_input": 7191.2}
    net = {"images": 1000, "published": {"left": 801}, "means": {"standard": mean}, "runs": {"standard": [{}, {}]}}
    rows = [{"network": "a", "ratio": each, "passes": passes} for each, passes in ((0.5, 1), (1.2, 0), (None, 1))]
    share = {"share_of_forward": {"wall": {"median": 0.824, "least": 0.81, "most": 0.83}}}
    share |= {"mean_left": 81.4, "left": [81, 82], "rows": [420_000, 419_000]}
    square = {"norm": "linf", "eps": 0.3, "model": "a net", "ours": share}
    beside = {**square, "torchattacks": {"mean_left": 82.8}, "torchattacks_over_ours": {"cpu": ratio}, "bound": {}}
    near = {"queries": 900, "seeds": [{"ours": 1.8}, {"ours": 1.84}], "art_over_ours": {"cpu": ratio}}
    art = {"images": 100, "art": {"queries": 4663, "medians": [1.9, 1.85]}}
    share = {"median": 0.614, "least": 0.601, "most": 0.622, "rounds": 3}
    alone = {"share_in_forward": share, "microseconds_a_row_in_forward": 12.4, "queries_an_image": 5000.0}
    for name, measured in {
        "ensembles": {"a net": net, "surroundings": {}},
        "ensembles-speed": {"model": "early", "torchattacks_over_ours": {"cpu": {**ratio, "rounds": 1}}},
        "nearest": {"images": 200, "against_foolbox": rows},
        "square": {"images": 100, "queries": 5000, "cases": [beside, {**square, "norm": "l1"}]},
        "black_box": {"overhead": {"Boundary on a net": alone}},
        "art": {"HSJ": {**art, "as_near": near}, "never as near": art},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(measured))
    said = figures.block(tmp_path)
    for words in (
        "left standing (AutoAttack published: 80.1 %)",
        "| 79.37 %, mean of 2 seeds (79.3 to 79.4 %) over 1000 images; 7191 |",
        "| `Standard` on early, which falls early: CPU time of torchattacks' AutoAttack over ours | 1.4, one round |",
        "| 2 of 3; over foolbox's median 0.50 to 1.20; foolbox broke under half of the images in 1 |",
        "| 81.4 (torchattacks: 82.8), mean of 2 seeds (ours 81 to 82); 4195; 0.82, median (0.81 to 0.83) |",
        "| Square, linf 0.3, a net: CPU time of torchattacks over ours",
        "own forward | 81.4, mean of 2 seeds (ours 81 to 82); 4195; 0.82,",
        "| Boundary on a net, 5000 queries: share of time in the network's own forward | 0.61, median (all 0.60 to "
        "0.62, 3 rounds); 12",
        "where ours is as near | 1.4, median (all 1.3 to 2.0, 3 rounds)",
        "medians 1.84 after 900 queries and 1.85 after 4663 |",
    ):
        assert words in said, words
    assert "never as near" not in said
    assert "`Adaptive`" not in said, "what is not there is not told"


def test_private_training_is_told_by_net_and_by_task(figures: ModuleType, tmp_path: Path) -> None:
    ratio = {"median": 1.432, "quarter": 1.39, "three_quarters": 1.5, "least": 1, "most": 2, "rounds": 15}
    net = {"title": "MLP", "speed": {"over_sgd": {"private": {"cpu": ratio}}, "over_engine": {}}}
    task = {"title": "linear", "epsilon": 1.5, "delta": 1e-5, "seeds": [{}, {}, {}]}
    unsure = {**task, "title": "of one seed", "seeds": [{}], "accuracy": {"mean": 0.9, "least": 0.9}}
    (tmp_path / "dp.json").write_text(json.dumps({"nets": {"mlp": net}}))
    told = {"linear": {**task, "accuracy": {"mean": 0.98461, "low": 0.98351, "high": 0.9857}}, "one": unsure}
    (tmp_path / "dp_utility.json").write_text(json.dumps({"tasks": told}))
    said = figures.block(tmp_path)
    assert "| private training, MLP: CPU time over plain SGD's | 1.43, median (middle half 1.39 to 1.50, 15" in said
    assert "ghost" not in said
    assert "| MNIST, linear, epsilon 1.5 at delta 1e-05 | 98.46% of the test images right, mean of 3 seeds" in said
    assert "(95 % interval 98.35% to 98.57%)" in said
    assert "of one seed" not in said, "no interval, no figure"


def test_sealing_is_told_with_what_a_signature_costs(figures: ModuleType, tmp_path: Path) -> None:
    share = {"median": 0.912, "quarter": 0.88, "three_quarters": 0.95, "least": 0.7, "most": 1.2, "rounds": 9}
    measured = {
        "matrices": {"threads_1": {"share_of_bare": {"open": {"wall": share}, "signed_open": {"cpu": share}}}},
        "mebibytes": {"threads_2": {"share_of_bare": {"to_file": {"wall": share}}}},
        "lazy_milliseconds": {"plain": {"median": 1.234, "most": 4.56}},
        "rewrap_milliseconds": {"median": 32.4, "most": 48.9},
        "memory": {"seal_stream_1": {"grew_mib": 3.5, "buffers_mib": 2}, "open_stream_1": {"grew_mib": 1.0}},
        "peers": {"tensorizer": "skipped", "pyrage": {"threads_1": {"open": {"wall": {**share, "median": 12.34}}}}},
    }
    (tmp_path / "seal.json").write_text(json.dumps(measured))
    said = figures.block(tmp_path)
    for words in (
        "| opening a sealed GiB to a state dict, one thread: speed over a bare loop's of the cipher | 0.91, median",
        "| sealing tensors that each lie across two chunks, 2 threads: speed over a bare loop's | 0.91, median (middle",
        "| one tensor of 1 MiB out of a sealed GiB, opening included | 1.2 ms, median (at most 4.6 ms) |",
        "| another recipient for a sealed file of 4 GiB | 32 ms, median (at most 49 ms) |",
        "| memory to seal a GiB from a stream | 3.5 MiB more than before, buffers of 2 MiB included |",
        "| pyrage opening: its time over ours, one thread | 12.3, median",
    ):
        assert words in said, words
    for words in ("signer", "as a stream", "tensorizer", "pyrage sealing"):
        assert words not in said, "what is not there is not told"


def test_obfuscation_is_told_by_net_with_all_attackers(figures: ModuleType, tmp_path: Path) -> None:
    real = {"max_row": 2.34e-6, "top1_same": 490, "top1_of": 500}
    time = {"median": 1.044, "low_quarter": 1.012, "high_quarter": 1.067, "rounds": 101}
    within = {"cpu": {**time, "median": 1.021}}
    profile: dict[str, Any] = {
        "equality": {"real": real},
        "overhead": {"cpu": time, "size_ratio": 1.156},
        "unbounded": within,
        "planned": {"dropped": ["phantoms", "pack_weights"]},
        "bare_if": {"cpu": {**time, "median": 1.033}},
        "readability": {tool: {"kernel": 0.271} for tool in ("before", "ort-all", "onnxsim", "onnxslim")},
        "gates": {f"survival:{tool}": {"value": value} for tool, value in (("ort-all", 0), ("onnxsim", 0.0123))},
    }
    apart = {"equality": {"real": {**real, "max_row": "inf"}}, "overhead": profile["overhead"]}
    unsure = {**profile, "overhead": {"cpu": {"median": 1.044}, "size_ratio": 1.156}}
    shares = {"clean": 0.99, "naive": 0.106, "branches": 0.92, "adaptive": 0.31}
    bare = [{"attacker": name, "accuracy": share, "n": 160} for name, share in shares.items()]
    rows = [{**row, "interval": {"low": row["accuracy"] - 0.061, "high": row["accuracy"] + 0.003}} for row in bare]
    spread = {"median": 1.0312, "low_quarter": 1.0214, "high_quarter": 1.0424, "most": 1.0499}
    outputs = {"budget": 1.05, "made": 480, "left_out": {"pack": 2, "phantoms": 12, "chain": 2}, "time": spread}
    row = {"rows": rows, "chance": 0.0625, "outputs": outputs}
    measured: dict[str, dict[str, Any]] = {
        "nets": {
            "one": {
                "title": "A net",
                "rows": 50,
                "profiles": {"tolerance": profile, "exact": apart},
                "key_as_input": {"cpu": time, "differing": {"real": 0}, "alignment": {"share": 0.9876, "chance": 0.1}},
            },
            "two": {"title": "Timed once", "rows": 50, "profiles": {"exact": unsure}},
        },
        "classifier": {"exact": {"onnxsim": row, "as given": {**row, "rows": bare}, "our de-obfuscator": row}},
    }
    (tmp_path / "obfuscate.json").write_text(json.dumps(measured))
    said = figures.block(tmp_path)
    assert "| obfuscation, tolerance, A net: " in said
    assert (
        "| 2.3e-06 on 50 real inputs, 98 % of decisions the same; 1.04, median (middle half 1.01 to 1.07, "
        "101 rounds), `phantoms`, `pack_weights`; 1.02, median (middle half 1.01 to 1.07, 101 rounds); 1.03, median "
        "(middle half 1.01 to 1.07, "
        "101 rounds); 1.16 |"
    ) in said
    assert "obfuscation, exact" not in said, "what is no number is no figure"
    assert "| obfuscation, A net that takes its key as an input: " in said
    assert "| 1.04, median (middle half 1.01 to 1.07, 101 rounds); 0; 0.988, 0.100 |" in said
    assert said.count("that takes its key") == 1
    assert "kernel" not in said, "onnxslim was not tried"
    assert "exact, onnxsim: clean; on our output: adaptive, naive, branch by branch; chance |" in said
    assert (
        "| 0.990 (0.929 to 0.993); 0.310 (0.249 to 0.313), 0.106 (0.045 to 0.109), 0.920 (0.859 to 0.923); 0.0625; "
        "95 % intervals, 160 networks |"
    ) in said
    lost = "`phantoms` left out of 12, `chain` left out of 2, `pack` left out of 2"
    assert "| networks of the classifier, exact, budget of 1.05: how many of 480 lost what |" in said
    assert f"| {lost}; CPU time over the original's, the upper end of what each plan measured: 1.031, median (" in said
    assert "(middle half 1.021 to 1.042, most 1.050) |" in said
    assert (
        f"480 networks, those of the attackers among them, in the exact profile at a budget of 1.05: {lost}. CPU"
        in (figures.attackers(tmp_path))
    )
    for words in ("Timed once", "as given"):
        assert words not in said, "no spread, no figure"
    assert "de-obfuscator" not in said
    assert "some rows" not in said
    assert "which was left out" not in said
    profile["fitted"] = {"rebasis": {"relative": 0.00123}, "disguises": {"relative": "inf"}}
    again = {**profile, "surroundings": {"commit": "0123456789abcdef"}, "unbounded": {}, "bare_if": {}, "planned": {}}
    measured["nets"]["one"]["profiles"]["tolerance"] = again
    (tmp_path / "obfuscate.json").write_text(json.dumps(measured))
    assert "commit ?, some rows at 0123456789ab;" in figures.block(tmp_path)
    said = figures.block(tmp_path)
    assert "101 rounds), nothing; not measured; not measured; 1.16 |" in said
    profile["gates"]["survival:onnxslim"] = {"value": 0}
    (tmp_path / "obfuscate.json").write_text(json.dumps(measured))
    assert "of any likeness | 0.27, 0.27, 0.27, 0.27; 0.012 |" in figures.block(tmp_path)
    moves = "which was left out, moves answers by itself, over a sample's largest value"
    assert f"| obfuscation, tolerance, A net: how far `rebasis`, {moves} | 0.0012 |" in said
    assert f"`disguises`, {moves} | inf |" in said


def test_throughput_is_told_by_contender_beside_the_loop(figures: ModuleType, tmp_path: Path) -> None:
    def taken(rate: float, over: float) -> dict[str, Any]:
        ends = {"least": over - 0.011, "most": over + 0.011}
        return {"rows_a_second": rate, "rate_over_loop": {"median": over, **ends, "rounds": 5}}

    measured = {"device": "A card", "resnet-18": {"loop": taken(70_000, 1), "pgd bfloat16": taken(103_637.2, 1.348)}}
    (tmp_path / "throughput.json").write_text(json.dumps(measured))
    title = "resnet-18 on A card, pgd bfloat16: rows a second; over those of PGD by hand in float32"
    assert f"| {title} | 103,637; 1.35, median (all 1.34 to 1.36, 5 rounds) |" in figures.block(tmp_path)


def test_only_the_block_changes_and_markers_are_needed(figures: ModuleType) -> None:
    text = f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n"
    new = figures.rewritten(text, "new")
    assert new == f"before\n{figures.BEGIN}\n\nnew\n\n{figures.END}\nafter\n"
    assert figures.rewritten(new, "new") == new
    for wrong in ("none", f"{figures.END}{figures.BEGIN}", f"{figures.BEGIN}{figures.BEGIN}{figures.END}"):
        with pytest.raises(SystemExit):
            figures.rewritten(wrong, "new")
