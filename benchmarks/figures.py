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

HERE = Path(__file__).parent
README, OBFUSCATION = HERE.parent / "README.md", HERE.parent / "docs" / "assets" / "obfuscation.md"
BEGIN, END = "<!-- figures: written by benchmarks/figures.py, do not edit -->", "<!-- end of figures -->"

_FEW = 8  # rounds below which a quartile is a guess

Json = dict[str, object]


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
            parts.append(_where(data, name))
    if missing:
        parts.append(f"Not measured yet: {', '.join(dict.fromkeys(missing))}.")
    return "\n\n".join(parts)


def rewritten(text: str, inside: str) -> str:
    """`text` with `inside` between the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"the text needs one {BEGIN} and one {END} after it")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{inside}\n\n{END}{rest.split(END)[1]}"


def attackers(results: Path = HERE / "results") -> str:
    """How often the family of a network is told from our output: who knows it first, who does not behind."""
    data = json.loads((results / "obfuscate.json").read_text())
    lines = ["| profile | file | who trained on our output | who did not | chance, networks |", "|---|---|---|---|---|"]
    for profile, found in data["classifier"].items():
        for how, kind in found.items():
            rows = {row["attacker"]: _share(row) for row in kind["rows"]}
            count = f"{kind['chance']:.4f}, {kind['rows'][0]['n']}"
            lines.append(f"| {profile} | {how} | **{rows['adaptive']}** | {rows['naive']} | {count} |")
    return "\n".join([*lines, "", _where({**data, "nets": {}}, "obfuscate")])


def _start(data: Json) -> Iterator[tuple[str, str]]:
    if (wall := _at(data, "help", "wall", "median")) is not None:
        bare = _at(data, "python", "wall", "median")
        beside = "" if bare is None else f" (an empty Python: {bare:.2f} s)"
        yield "`vambrace --help`", f"{wall:.2f} s{beside}, median of {_at(data, 'help', 'n'):.0f}"
    if (wall := _at(data, "demo", "wall", "median")) is not None:
        least, most = _at(data, "demo", "wall", "least"), _at(data, "demo", "wall", "most")
        yield (
            "`vambrace demo`: train, measure, report",
            (
                f"{wall:.0f} s, median ({least:.0f} to {most:.0f} s in {_at(data, 'demo', 'n'):.0f} runs), "
                f"{_at(data, 'demo', 'cpu', 'median'):.0f} s of CPU"
            ),
        )
    if (size := _at(data, "demo", "html_bytes")) is not None:
        yield "its report, one HTML file", f"{size / 1e6:.2f} MB"


def _pgd(data: Json) -> Iterator[tuple[str, str]]:
    count = _at(data, "strength", "images")
    if (ours := _at(data, "strength", "left_by_ours")) is not None:
        loop = _at(data, "strength", "left_by_loop_last_iterate")
        yield (
            f"PGD-40, linf 0.3, {count:.0f} MNIST images, CNN-A: images left standing",
            (f"{ours:.0f} (a loop that judges its last iterate: {loop:.0f})"),
        )
    for batch in (64, 128, 250):
        if said := _ratio(data, "overhead", f"batch_{batch}", "ours_over_loop", "wall", digits=2):
            yield f"the same steps, nothing stops early, batch {batch}: time over a hand-written loop", said
    if said := _ratio(data, "speed", "torchattacks_over_ours", "wall", digits=1):
        yield "PGD-40 on a standard network, batches as each is fastest: torchattacks' time over ours", said


def _dp(data: Json) -> Iterator[tuple[str, str]]:
    for net in _parts(data, "nets"):
        title = net.get("title", "?")
        if said := _ratio(net, "speed", "over_sgd", "private", "cpu", digits=2):
            yield f"private training, {title}: CPU time over plain SGD's", said
        if said := _ratio(net, "speed", "over_engine", "ghost", "cpu", digits=2):
            yield f"the same without noise, {title}: CPU time of Opacus' ghost clipping over ours", said


def _dp_utility(data: Json) -> Iterator[tuple[str, str]]:
    for task in _parts(data, "tasks"):
        mean, low, high = (_at(task, "accuracy", each) for each in ("mean", "low", "high"))
        seeds = task.get("seeds")
        if mean is not None and low is not None and high is not None and isinstance(seeds, list):
            yield (
                f"MNIST, {task.get('title')}, epsilon {_at(task, 'epsilon'):g} at delta {_at(task, 'delta'):g}",
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
            if said := _ratio(data, *at, name, "wall", digits=2):
                yield f"{title}, {beside}: speed over a bare loop's of the cipher", said
        if said := _ratio(data, "mebibytes", *at[1:], "to_file", "wall", digits=2):
            yield f"sealing tensors that each lie across two chunks, {beside}: speed over a bare loop's", said
    for key, title in (("plain", "one tensor of 1 MiB out of a sealed GiB"), ("signed", "the same, with a signer")):
        if (median := _at(data, "lazy_milliseconds", key, "median")) is not None:
            most = _at(data, "lazy_milliseconds", key, "most")
            yield f"{title}, opening included", f"{median:.1f} ms, median (at most {most:.1f} ms)"
    if (median := _at(data, "rewrap_milliseconds", "median")) is not None:
        most = _at(data, "rewrap_milliseconds", "most")
        yield "another recipient for a sealed file of 4 GiB", f"{median:.0f} ms, median (at most {most:.0f} ms)"
    for key, title in (
        ("seal_stream_1", "memory to seal a GiB from a stream"),
        ("open_stream_1", "memory to open it as a stream"),
    ):
        grew, buffers = (_at(data, "memory", key, name) for name in ("grew_mib", "buffers_mib"))
        if grew is not None and buffers is not None:
            yield title, f"{grew:.1f} MiB more than before, buffers of {buffers:.0f} MiB included"
    for peer, title, key in (
        ("tensorizer", "tensorizer's encrypted load: its time over ours", "load"),
        ("pyrage", "pyrage opening: its time over ours", "open"),
        ("pyrage", "pyrage sealing: its time over ours", "seal"),
    ):
        if said := _ratio(data, "peers", peer, "threads_1", key, "wall", digits=1):
            yield f"{title}, one thread", said


def _obfuscate(data: Json) -> Iterator[tuple[str, str]]:
    for net in _parts(data, "nets"):
        for profile in ("exact", "tolerance"):
            at = ("profiles", profile)
            title = f"obfuscation, {profile}, {net.get('title', '?')}"
            largest, rows = _at(net, *at, "equality", "real", "max_row"), _at(net, "rows")
            same, of = (_at(net, *at, "equality", "real", name) for name in ("top1_same", "top1_of"))
            time = _ratio(net, *at, "overhead", "cpu", digits=2, quarters=("low_quarter", "high_quarter"))
            size = _at(net, *at, "overhead", "size_ratio")
            free, bare = (
                _ratio(net, *at, kind, "cpu", digits=2, quarters=("low_quarter", "high_quarter"))
                for kind in ("unbounded", "bare_if")
            )
            dropped = _held(net, *at, "planned", "dropped")
            gone = ", ".join(f"`{name}`" for name in dropped) if isinstance(dropped, list) and dropped else "nothing"
            if largest is None or rows is None or size is None or not time:
                continue
            decided = f", {100 * same / of:.0f} % of decisions the same" if of else ""
            yield (
                f"{title}: largest difference over a sample's largest value; CPU time over the original's, and what "
                "was left out for it; the same with all that was left out, and with nothing but one If; size over the "
                "original's",
                f"{largest:.2g} on {rows:.0f} real inputs{decided}; {time}, {gone}; {free or 'not measured'}; "
                f"{bare or 'not measured'}; {size:.2f}",
            )
            yield from _read(title, net, *at)
        yield from _left_out(net)
    for profile in ("exact", "tolerance"):
        for how, found in sorted((data.get("classifier") or {}).get(profile, {}).items()):
            rows = {row["attacker"]: _share(row) for row in found["rows"]}
            if how != "our de-obfuscator" and all(rows.values()):
                yield (
                    f"families of networks told apart, {profile}, {how}: clean; on our output: adaptive, naive, "
                    "branch by branch; chance",
                    f"{rows['clean']}; {rows['adaptive']}, {rows['naive']}, {rows['branches']}; {found['chance']:.4f}; "
                    f"95 % intervals, {found['rows'][0]['n']} networks",
                )


def _read(title: str, net: Json, *at: str) -> Iterator[tuple[str, str]]:
    """How alike a graph is to the original's, before simplifiers and behind each."""
    tools = {"before": "as given", "ort-all": "onnxruntime all", "onnxsim": "onnxsim", "onnxslim": "onnxslim"}
    found = {called: _at(net, *at, "readability", tool, "kernel") for tool, called in tools.items()}
    brought = [_at(net, *at, "gates", f"survival:{tool}", "value") for tool in tools if tool != "before"]
    known = [each for each in brought if each is not None]
    if all(each is not None for each in found.values()) and len(known) == len(brought):
        yield (
            f"{title}: likeness of its graph to the original's (kernel, 1: the same) {', '.join(found)}; the most that "
            "one of these tools brought back of any likeness",
            f"{', '.join(f'{each:.2f}' for each in found.values())}; {max(known):.3f}",
        )


def _left_out(net: Json) -> Iterator[tuple[str, str]]:
    """Passes that moved answers too far; what moved them to no number at all says so itself."""
    found = _held(net, "profiles", "tolerance", "fitted")
    for name, each in sorted(found.items()) if isinstance(found, dict) else []:
        moved = each["relative"]
        yield (
            f"obfuscation, tolerance, {net.get('title', '?')}: how far `{name}`, which was left out, moves answers by "
            "itself, over a sample's largest value",
            moved if isinstance(moved, str) else f"{moved:.2g}",
        )


def _ensembles(data: Json) -> Iterator[tuple[str, str]]:
    titles = {"standard": "`Standard`", "adaptive": "`Adaptive`", "adaptive_tenth": "`Adaptive`, a tenth of the calls"}
    for name in sorted(data.keys() - {"surroundings"}):
        net, published = data[name], _at(data, name, "published", "left")
        if not isinstance(net, dict) or published is None:
            continue
        for key, title in titles.items():
            runs = (net.get("runs") or {}).get(key) or ()
            at = (name, "means", key)
            mean, least, most = (_at(data, *at, each) for each in ("accuracy", "accuracy_least", "accuracy_most"))
            rows, images = _at(data, *at, "rows_an_input"), _at(data, name, "images")
            if None not in (mean, least, most, rows, images):
                yield (
                    f"{title} on {name}, linf 0.3: left standing (AutoAttack published: "
                    f"{100 * published / images:.1f} %); forwards, backwards and verifications an image",
                    f"{mean:.2f} %, mean of {len(runs)} seeds ({least:.1f} to {most:.1f} %) over {images:.0f} images; "
                    f"{rows:.0f}",
                )


def _ensembles_speed(data: Json) -> Iterator[tuple[str, str]]:
    if said := _ratio(data, "torchattacks_over_ours", "cpu", digits=1):
        yield (
            f"`Standard` on {data.get('model')}, which falls early: CPU time of torchattacks' AutoAttack over ours",
            said,
        )


def _nearest(data: Json) -> Iterator[tuple[str, str]]:
    rows = data.get("against_foolbox")
    if isinstance(rows, list) and rows:
        ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
        yield (
            f"least changes (FMN, DDN, DeepFool, C&W), {_at(data, 'images'):.0f} images, "
            f"{len({row['network'] for row in rows})} networks: cases whose median is at most 1 % above foolbox's",
            f"{sum(bool(row['passes']) for row in rows)} of {len(rows)}; over foolbox's median {min(ratios):.2f} to "
            f"{max(ratios):.2f}; foolbox broke under half of the images in {len(rows) - len(ratios)}",
        )


def _square(data: Json) -> Iterator[tuple[str, str]]:
    for case in data.get("cases") or ():
        title = f"Square, {case['norm']} {case['eps']:g}, {case['model']}"
        count, queries = _at(data, "images"), _at(data, "queries")
        theirs = _at(case, "torchattacks", "mean_left")
        beside = "" if theirs is None else f" (torchattacks: {theirs:.1f})"
        left, rows = case["ours"]["left"], case["ours"]["rows"]
        share, least, most = (
            _at(case, "ours", "share_of_forward", "wall", each) for each in ("median", "least", "most")
        )
        yield (
            f"{title}, {queries:.0f} queries: left of {count:.0f}; queries taken an image; share of time in the "
            "network's own forward",
            f"{_at(case, 'ours', 'mean_left'):.1f}{beside}, mean of {len(left)} seeds "
            f"(ours {min(left)} to {max(left)}); {sum(rows) / len(rows) / count:.0f}; "
            f"{share:.2f}, median ({least:.2f} to {most:.2f})",
        )
        if said := _ratio(case, "torchattacks_over_ours", "cpu", digits=2):
            bound = _ratio(case, "bound", "cpu", digits=2)
            yield f"{title}: CPU time of torchattacks over ours; over that of our forwards alone", f"{said}; {bound}"


def _black_box(data: Json) -> Iterator[tuple[str, str]]:
    for title, case in (data.get("overhead") or {}).items():
        if share := _ratio(case, "share_in_forward", digits=2):
            yield (
                f"{title}, {case['queries_an_image']:.0f} queries: share of time in the network's own forward",
                f"{share}; {case['microseconds_a_row_in_forward']:.0f} microseconds a row",
            )


def _art(data: Json) -> Iterator[tuple[str, str]]:
    for title in sorted(data.keys() - {"surroundings"}):
        case = data[title]
        if not isinstance(case, dict) or not (said := _ratio(case, "as_near", "art_over_ours", "cpu", digits=1)):
            continue
        ours = max(each["ours"] for each in case["as_near"]["seeds"])
        yield (
            f"{title}, {_at(case, 'images'):.0f} images: CPU time of ART over ours where ours is as near",
            f"{said}; medians {ours:.3g} after {_at(case, 'as_near', 'queries'):.0f} queries and "
            f"{min(case['art']['medians']):.3g} after {_at(case, 'art', 'queries'):.0f}",
        )


def _throughput(data: Json) -> Iterator[tuple[str, str]]:
    for title in sorted(data.keys() - {"surroundings", "device"}):
        for called in sorted(data[title].keys() - {"loop"}):
            rate, loop = (_at(data, title, each, "rows_a_second") for each in (called, "loop"))
            over = _ratio(data, title, called, "rate_over_loop", digits=2)
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
    "obfuscate": _obfuscate,
}


def _parts(data: Json, key: str) -> list[Json]:
    """The objects that the object at `key` holds."""
    found = data.get(key)
    return [each for each in found.values() if isinstance(each, dict)] if isinstance(found, dict) else []


def _ratio(data: Json, *path: str, digits: int, quarters: tuple[str, str] = ("quarter", "three_quarters")) -> str:
    """The median of a ratio taken round by round, with its middle half, or its ends where rounds are few."""
    rounds, median = _at(data, *path, "rounds"), _at(data, *path, "median")
    ends, called = quarters, "middle half"
    if rounds is not None and rounds < _FEW:
        ends, called = ("least", "most"), "all"
    low, high = (_at(data, *path, end) for end in ends)
    if rounds is None or median is None or low is None or high is None:
        return ""
    if rounds == 1:
        return f"{median:.{digits}f}, one round"
    return f"{median:.{digits}f}, median ({called} {low:.{digits}f} to {high:.{digits}f}, {rounds:.0f} rounds)"


def _share(row: Json) -> str:
    """A share of networks that were told apart, with its interval; nothing where it has none."""
    share, low, high = (_at(row, *path) for path in (("accuracy",), ("interval", "low"), ("interval", "high")))
    return "" if share is None or low is None or high is None else f"{share:.2f} ({low:.2f} to {high:.2f})"


def _at(data: Json, *path: str) -> float | None:
    """The number at a path, or None."""
    found = _held(data, *path)
    return float(found) if isinstance(found, int | float) else None


def _held(data: Json, *path: str) -> object:
    """What is at a path, or None."""
    found: object = data
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _where(data: Json, name: str) -> str:
    there = data.get("surroundings")
    known = there if isinstance(there, dict) else {}
    versions = known.get("versions")
    torch = versions.get("torch") if isinstance(versions, dict) else None
    measured = [rows for net in _parts(data, "nets") for rows in _parts(net, "profiles")]
    measured += [rows for profile in data.get("classifier", {}) for rows in _parts(data["classifier"], profile)]
    places = [rows.get("surroundings") for rows in measured]
    again = sorted({str(place.get("commit", "?"))[:12] for place in places if isinstance(place, dict)})
    facts = [
        str(known.get("cpu", "unknown processor")),
        f"{known.get('cores', '?')} cores, {known.get('threads', '?')} in use",
        f"Python {known.get('python', '?')}",
        f"torch {torch}",
        f"commit {str(known.get('commit', '?'))[:12]}" + (f", some rows at {', '.join(again)}" if again else ""),
    ]
    return f"({'; '.join(facts)}; `benchmarks/results/{name}.json`)"


def main() -> int:
    """Rewrite, or say that it is due."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check, due = parser.parse_args().check, 0
    for file, inside in ((README, block()), (OBFUSCATION, attackers())):
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
