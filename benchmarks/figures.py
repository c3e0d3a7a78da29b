"""The figures of README.md and of the documentation, from the JSON below results/: nothing there is typed by hand.

    python benchmarks/figures.py            # rewrite the block between the markers
    python benchmarks/figures.py --check    # exit 1 when it is not what the JSON says

A file that is not there is said to be missing; a figure that a file does not hold is left out. A ratio is the median of
the ratios of all rounds with their spread, never that of the fastest rounds, which flatters whoever varies more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from obfuscate_figures import attackers, obfuscate
from telling import Json, number_at, parts_of, ratio_at, where

HERE = Path(__file__).parent
README, OBFUSCATION = HERE.parent / "README.md", HERE.parent / "docs" / "assets" / "obfuscation.md"
BEGIN, END = "<!-- figures: written by benchmarks/figures.py, do not edit -->", "<!-- end of figures -->"


def block(results: Path = HERE / "results") -> str:
    """The Markdown between the markers."""
    parts: list[str] = []
    missing: list[str] = []
    for name, rows in SECTIONS.items():
        file = results / f"{name}.json"
        if not file.is_file():
            missing.append(f"`benchmarks/bench_{name.split('-')[0]}.py`")
            continue
        data = json.loads(file.read_text())
        found = list(rows(data))
        if found:
            parts.append(
                "\n".join(["| what | figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in found)])
            )
            parts.append(where(data, name))
    if missing:
        parts.append(f"Not measured yet: {', '.join(dict.fromkeys(missing))}.")
    return "\n\n".join(parts)


def rewritten(text: str, inside: str) -> str:
    """`text` with `inside` between the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"the text needs one {BEGIN} and one {END} after it")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{inside}\n\n{END}{rest.split(END)[1]}"


def _start(data: Json) -> Iterator[tuple[str, str]]:
    if (wall := number_at(data, "help", "wall", "median")) is not None:
        bare = number_at(data, "python", "wall", "median")
        beside = "" if bare is None else f" (an empty Python: {bare:.2f} s)"
        yield "`vambrace --help`", f"{wall:.2f} s{beside}, median of {number_at(data, 'help', 'n'):.0f}"
    if (wall := number_at(data, "demo", "wall", "median")) is not None:
        least, most = number_at(data, "demo", "wall", "least"), number_at(data, "demo", "wall", "most")
        yield (
            "`vambrace demo`: train, measure, report",
            (
                f"{wall:.0f} s, median ({least:.0f} to {most:.0f} s in {number_at(data, 'demo', 'n'):.0f} runs), "
                f"{number_at(data, 'demo', 'cpu', 'median'):.0f} s of CPU"
            ),
        )
    if (size := number_at(data, "demo", "html_bytes")) is not None:
        yield "its report, one HTML file", f"{size / 1e6:.2f} MB"


def _pgd(data: Json) -> Iterator[tuple[str, str]]:
    count = number_at(data, "strength", "images")
    if (ours := number_at(data, "strength", "left_by_ours")) is not None:
        loop = number_at(data, "strength", "left_by_loop_last_iterate")
        yield (
            f"PGD-40, linf 0.3, {count:.0f} MNIST images, CNN-A: images left standing",
            (f"{ours:.0f} (a loop that judges its last iterate: {loop:.0f})"),
        )
    for batch in (64, 128, 250):
        if said := ratio_at(data, "overhead", f"batch_{batch}", "ours_over_loop", "wall", digits=2):
            yield f"the same steps, nothing stops early, batch {batch}: time over a hand-written loop", said
    if said := ratio_at(data, "speed", "torchattacks_over_ours", "wall", digits=1):
        yield "PGD-40 on a standard network, batches as each is fastest: torchattacks' time over ours", said


def _dp(data: Json) -> Iterator[tuple[str, str]]:
    for net in parts_of(data, "nets"):
        title = net.get("title", "?")
        if said := ratio_at(net, "speed", "over_sgd", "private", "cpu", digits=2):
            yield f"private training, {title}: CPU time over plain SGD's", said
        if said := ratio_at(net, "speed", "over_engine", "ghost", "cpu", digits=2):
            yield f"the same without noise, {title}: CPU time of Opacus' ghost clipping over ours", said


def _dp_utility(data: Json) -> Iterator[tuple[str, str]]:
    for task in parts_of(data, "tasks"):
        mean, low, high = (number_at(task, "accuracy", each) for each in ("mean", "low", "high"))
        seeds = task.get("seeds")
        if mean is not None and low is not None and high is not None and isinstance(seeds, list):
            yield (
                f"MNIST, {task.get('title')}, epsilon {number_at(task, 'epsilon'):g} at delta "
                f"{number_at(task, 'delta'):g}",
                f"{mean:.2%} of the test images right, mean of {len(seeds)} seeds "
                f"(95 % interval {low:.2%} to {high:.2%})",
            )


def _seal(data: Json) -> Iterator[tuple[str, str]]:
    shares = {
        "open": "opening a sealed GiB to a state dict",
        "signed_open": "opening it with a signer demanded",
        "to_file": "sealing it to a file",
        "to_memory": "sealing it in memory",
        "signed_to_file": "sealing it with a signature",
    }
    for threads in (1, 2):
        at = ("matrices", f"threads_{threads}", "share_of_bare")
        beside = "one thread" if threads == 1 else f"{threads} threads"
        for name, title in shares.items():
            if said := ratio_at(data, *at, name, "wall", digits=2):
                yield f"{title}, {beside}: speed over a bare loop's of the cipher", said
        if said := ratio_at(data, "mebibytes", *at[1:], "to_file", "wall", digits=2):
            yield f"sealing tensors that each lie across two chunks, {beside}: speed over a bare loop's", said
    for key, title in (("plain", "one tensor of 1 MiB out of a sealed GiB"), ("signed", "the same, with a signer")):
        if (median := number_at(data, "lazy_milliseconds", key, "median")) is not None:
            most = number_at(data, "lazy_milliseconds", key, "most")
            yield f"{title}, opening included", f"{median:.1f} ms, median (at most {most:.1f} ms)"
    if (median := number_at(data, "rewrap_milliseconds", "median")) is not None:
        most = number_at(data, "rewrap_milliseconds", "most")
        yield "another recipient for a sealed file of 4 GiB", f"{median:.0f} ms, median (at most {most:.0f} ms)"
    for key, title in (
        ("seal_stream_1", "memory to seal a GiB from a stream"),
        ("open_stream_1", "memory to open it as a stream"),
    ):
        grew, buffers = (number_at(data, "memory", key, name) for name in ("grew_mib", "buffers_mib"))
        if grew is not None and buffers is not None:
            yield title, f"{grew:.1f} MiB more than before, buffers of {buffers:.0f} MiB included"
    for peer, title, key in (
        ("tensorizer", "tensorizer's encrypted load: its time over ours", "load"),
        ("pyrage", "pyrage opening: its time over ours", "open"),
        ("pyrage", "pyrage sealing: its time over ours", "seal"),
    ):
        if said := ratio_at(data, "peers", peer, "threads_1", key, "wall", digits=1):
            yield f"{title}, one thread", said


def _ensembles(data: Json) -> Iterator[tuple[str, str]]:
    titles = {"standard": "`Standard`", "adaptive": "`Adaptive`", "adaptive_tenth": "`Adaptive`, a tenth of the calls"}
    for name in sorted(data.keys() - {"surroundings"}):
        net, published = data[name], number_at(data, name, "published", "left")
        if not isinstance(net, dict) or published is None:
            continue
        for key, title in titles.items():
            runs = (net.get("runs") or {}).get(key) or ()
            at = (name, "means", key)
            mean, least, most = (number_at(data, *at, each) for each in ("accuracy", "accuracy_least", "accuracy_most"))
            rows, images = number_at(data, *at, "rows_an_input"), number_at(data, name, "images")
            if None not in (mean, least, most, rows, images):
                yield (
                    f"{title} on {name}, linf 0.3: left standing (AutoAttack published: "
                    f"{100 * published / images:.1f} %); forwards, backwards and verifications an image",
                    f"{mean:.2f} %, mean of {len(runs)} seeds ({least:.1f} to {most:.1f} %) over {images:.0f} images; "
                    f"{rows:.0f}",
                )


def _ensembles_speed(data: Json) -> Iterator[tuple[str, str]]:
    if said := ratio_at(data, "torchattacks_over_ours", "cpu", digits=1):
        yield (
            f"`Standard` on {data.get('model')}, which falls early: CPU time of torchattacks' AutoAttack over ours",
            said,
        )


def _nearest(data: Json) -> Iterator[tuple[str, str]]:
    rows = data.get("against_foolbox")
    if isinstance(rows, list) and rows:
        ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
        yield (
            f"least changes (FMN, DDN, DeepFool, C&W), {number_at(data, 'images'):.0f} images, "
            f"{len({row['network'] for row in rows})} networks: cases whose median is at most 1 % above foolbox's",
            f"{sum(bool(row['passes']) for row in rows)} of {len(rows)}; over foolbox's median {min(ratios):.2f} to "
            f"{max(ratios):.2f}; foolbox broke under half of the images in {len(rows) - len(ratios)}",
        )


def _square(data: Json) -> Iterator[tuple[str, str]]:
    for case in data.get("cases") or ():
        title = f"Square, {case['norm']} {case['eps']:g}, {case['model']}"
        count, queries = number_at(data, "images"), number_at(data, "queries")
        theirs = number_at(case, "torchattacks", "mean_left")
        beside = "" if theirs is None else f" (torchattacks: {theirs:.1f})"
        left, rows = case["ours"]["left"], case["ours"]["rows"]
        share, least, most = (
            number_at(case, "ours", "share_of_forward", "wall", each) for each in ("median", "least", "most")
        )
        yield (
            f"{title}, {queries:.0f} queries: left of {count:.0f}; queries taken an image; share of time in the "
            "network's own forward",
            f"{number_at(case, 'ours', 'mean_left'):.1f}{beside}, mean of {len(left)} seeds "
            f"(ours {min(left)} to {max(left)}); {sum(rows) / len(rows) / count:.0f}; "
            f"{share:.2f}, median ({least:.2f} to {most:.2f})",
        )
        if said := ratio_at(case, "torchattacks_over_ours", "cpu", digits=2):
            bound = ratio_at(case, "bound", "cpu", digits=2)
            yield f"{title}: CPU time of torchattacks over ours; over that of our forwards alone", f"{said}; {bound}"


def _black_box(data: Json) -> Iterator[tuple[str, str]]:
    for title, case in (data.get("overhead") or {}).items():
        if share := ratio_at(case, "share_in_forward", digits=2):
            yield (
                f"{title}, {case['queries_an_image']:.0f} queries: share of time in the network's own forward",
                f"{share}; {case['microseconds_a_row_in_forward']:.0f} microseconds a row",
            )


def _art(data: Json) -> Iterator[tuple[str, str]]:
    for title in sorted(data.keys() - {"surroundings"}):
        case = data[title]
        if not isinstance(case, dict) or not (said := ratio_at(case, "as_near", "art_over_ours", "cpu", digits=1)):
            continue
        ours = max(each["ours"] for each in case["as_near"]["seeds"])
        yield (
            f"{title}, {number_at(case, 'images'):.0f} images: CPU time of ART over ours where ours is as near",
            f"{said}; medians {ours:.3g} after {number_at(case, 'as_near', 'queries'):.0f} queries and "
            f"{min(case['art']['medians']):.3g} after {number_at(case, 'art', 'queries'):.0f}",
        )


def _throughput(data: Json) -> Iterator[tuple[str, str]]:
    for title in sorted(data.keys() - {"surroundings", "device"}):
        for called in sorted(data[title].keys() - {"loop"}):
            rate, loop = (number_at(data, title, each, "rows_a_second") for each in (called, "loop"))
            over = ratio_at(data, title, called, "rate_over_loop", digits=2)
            if rate and loop and over:
                yield (
                    f"{title} on {data['device']}, {called}: rows a second; over those of PGD by hand in float32",
                    f"{rate:,.0f}; {over}",
                )


SECTIONS: dict[str, Callable[[Json], Iterator[tuple[str, str]]]] = {
    "start": _start,
    "pgd": _pgd,
    "ensembles": _ensembles,
    "ensembles-speed": _ensembles_speed,
    "nearest": _nearest,
    "square": _square,
    "black_box": _black_box,
    "art": _art,
    "throughput": _throughput,
    "dp": _dp,
    "dp_utility": _dp_utility,
    "seal": _seal,
    "obfuscate": obfuscate,
}


def main() -> int:
    """Rewrite, or say that it is due."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check, due = parser.parse_args().check, 0
    for file, inside in ((README, block()), (OBFUSCATION, attackers(HERE / "results"))):
        text = file.read_text(encoding="utf-8")
        new = rewritten(text, inside)
        if not check:
            file.write_text(new, encoding="utf-8")
        elif new != text:
            due = 1
            sys.stderr.write(f"{file.name} is not what benchmarks/results say: run python benchmarks/figures.py\n")
    return due


if __name__ == "__main__":
    sys.exit(main())
