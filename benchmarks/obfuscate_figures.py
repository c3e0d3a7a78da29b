"""The figures of obfuscation, for `benchmarks/figures.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from telling import Json, held_at, number_at, parts_of, ratio_at, share_of, where


def attackers(results: Path) -> str:
    """How often the family of a network is told from our output: who knows it first, who does not behind."""
    data = json.loads((results / "obfuscate.json").read_text())
    lines = ["| profile | file | who trained on our output | who did not | chance, networks |", "|---|---|---|---|---|"]
    for profile, found in data["classifier"].items():
        for how, kind in found.items():
            rows = {row["attacker"]: share_of(row) for row in kind["rows"]}
            count = f"{kind['chance']:.4f}, {kind['rows'][0]['n']}"
            lines.append(f"| {profile} | {how} | **{rows['adaptive']}** | {rows['naive']} | {count} |")
    told = [
        f"Of {kept['made']} networks, those of the attackers among them, in the {profile} profile at a budget of "
        f"{kept['budget']}: {_lost(kept)}. {_cost(kept)}."
        for profile, found in data["classifier"].items()
        if (kept := outputs_of(found))
    ]
    return "\n".join([*lines, "", *told, "", where({**data, "nets": {}}, "obfuscate")])


def outputs_of(found: Json) -> Json | None:
    """What the networks of a profile's classifier lost and took; the same ones whatever attackers do to them first."""
    kinds = [each["outputs"] for each in found.values() if isinstance(each, dict) and "outputs" in each]
    return kinds[0] if kinds else None


def _lost(kept: Json) -> str:
    left_out = kept["left_out"]
    assert isinstance(left_out, dict)
    ranked = sorted(left_out.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"`{name}` left out of {count}" for name, count in ranked) or "nothing left out"


def _cost(kept: Json) -> str:
    median, low, high, most = (
        number_at(kept, "time", key) for key in ("median", "low_quarter", "high_quarter", "most")
    )
    return (
        f"CPU time over the original's, the upper end of what each plan measured: {median:.3f}, median (middle half "
        f"{low:.3f} to {high:.3f}, most {most:.3f})"
    )


def obfuscate(data: Json) -> Iterator[tuple[str, str]]:
    """What a figure is about, and the figure: networks one by one, and the classifier."""
    for net in parts_of(data, "nets"):
        for profile in ("exact", "tolerance"):
            at = ("profiles", profile)
            title = f"obfuscation, {profile}, {net.get('title', '?')}"
            largest, rows = number_at(net, *at, "equality", "real", "max_row"), number_at(net, "rows")
            same, of = (number_at(net, *at, "equality", "real", name) for name in ("top1_same", "top1_of"))
            time = ratio_at(net, *at, "overhead", "cpu", digits=2, quarters=("low_quarter", "high_quarter"))
            size = number_at(net, *at, "overhead", "size_ratio")
            free, bare = (
                ratio_at(net, *at, kind, "cpu", digits=2, quarters=("low_quarter", "high_quarter"))
                for kind in ("unbounded", "bare_if")
            )
            dropped = held_at(net, *at, "planned", "dropped")
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
        taking = ratio_at(net, "key_as_input", "cpu", digits=2, quarters=("low_quarter", "high_quarter"))
        differing = number_at(net, "key_as_input", "differing", "real")
        if taking and differing is not None:
            shares = (number_at(net, "key_as_input", "alignment", name) for name in ("share", "chance"))
            yield (
                f"obfuscation, {net.get('title', '?')} that takes its key as an input: CPU time over the original's "
                "with the right key; elements that differ then; channels of the original found again in its file, and "
                "by guessing",
                f"{taking}; {differing:.0f}; {', '.join('?' if each is None else f'{each:.3f}' for each in shares)}",
            )
    for profile in ("exact", "tolerance"):
        kinds = (data.get("classifier") or {}).get(profile, {})
        if kept := outputs_of(kinds):
            yield (
                f"networks of the classifier, {profile}, budget of {kept['budget']}: how many of "
                f"{kept['made']} lost what",
                f"{_lost(kept)}; {_cost(kept)}",
            )
        for how, found in sorted(kinds.items()):
            rows = {row["attacker"]: share_of(row) for row in found["rows"]}
            if how != "our de-obfuscator" and all(rows.values()):
                yield (
                    f"families of networks told apart, {profile}, {how}: clean; on our output: adaptive, naive, branch "
                    "by branch; chance",
                    f"{rows['clean']}; {rows['adaptive']}, {rows['naive']}, {rows['branches']}; {found['chance']:.4f}; "
                    f"95 % intervals, {found['rows'][0]['n']} networks",
                )


def _read(title: str, net: Json, *at: str) -> Iterator[tuple[str, str]]:
    """How alike a graph is to the original's, before simplifiers and behind each."""
    tools = {"before": "as given", "ort-all": "onnxruntime all", "onnxsim": "onnxsim", "onnxslim": "onnxslim"}
    found = {called: number_at(net, *at, "readability", tool, "kernel") for tool, called in tools.items()}
    brought = [number_at(net, *at, "gates", f"survival:{tool}", "value") for tool in tools if tool != "before"]
    known = [each for each in brought if each is not None]
    if all(each is not None for each in found.values()) and len(known) == len(brought):
        yield (
            f"{title}: likeness of its graph to the original's (kernel, 1: the same) {', '.join(found)}; the most that "
            "one of these tools brought back of any likeness",
            f"{', '.join(f'{each:.2f}' for each in found.values())}; {max(known):.3f}",
        )


def _left_out(net: Json) -> Iterator[tuple[str, str]]:
    """Passes that moved answers too far; what moved them to no number at all says so itself."""
    found = held_at(net, "profiles", "tolerance", "fitted")
    for name, each in sorted(found.items()) if isinstance(found, dict) else []:
        moved = each["relative"]
        yield (
            f"obfuscation, tolerance, {net.get('title', '?')}: how far `{name}`, which was left out, moves answers by "
            "itself, over a sample's largest value",
            moved if isinstance(moved, str) else f"{moved:.2g}",
        )
