"""The pictures of docs/attacks, each from what `pictures.py` measured for it: plain data in, SVG out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import drawing as d
from markupsafe import Markup

__all__ = ["DRAWN", "drawn"]

Found = dict[str, Any]

_SIZE, _GAP, _LEFT, _PART = 68.0, 10.0, 24.0, 14.0
"""Side of an image, the space beside it, where the first begins, and the space between attacks, in strips."""


def draw_gradient(found: Found) -> str:
    """A strip a digit: clean, then what each attack made of it, with the change beside it."""
    heads = [
        (name, f"{found['cost'][name]:.0f} rows, {left:.0%} left", found["eps"]) for name, left in found["left"].items()
    ]
    return _strips(
        found["rows"],
        heads,
        lambda name, point: "change",
        title="Attacks with gradients on four digits",
        description=f"linf radius {found['eps']:g}, {found['digits']} digits. A red frame: the network is fooled. Rows "
        "are forwards, backwards and verifications an input; left is the share of digits that stand.",
    )


def draw_nearest(found: Found) -> str:
    """The least change of three digits by four measures."""
    heads = [
        (norm, f"median {_size(norm, median)}", 1.0 if norm in ("l0", "l1") else 0.25)
        for norm, median in found["median"].items()
    ]
    return _strips(
        found["rows"],
        heads,
        lambda norm, point: _size(norm, point["distance"]),
        title="The least change that fools a network, by four measures",
        description=f"FMN on {found['digits']} digits. Orange: brighter, blue: darker; colours are full from 0.25 for "
        "l2 and linf, and from 1 for l0 and l1.",
    )


def draw_transfer(found: Found) -> str:
    """Bars: the share of digits that fool the network they were not made on."""
    left, right, top = 120.0, 570.0, 78.0
    rows = [(name, tuple(shares)) for name, shares in found["rows"].items()]
    names = ("made on one other network", "made on three other networks")
    parts = [
        *(
            Markup("").join(
                (
                    d.element("rect", x=left + 210 * n, y=24, width=12, height=12, class_=f"f{n}"),
                    d.words(left + 210 * n + 18, 34, name),
                )
            )
            for n, name in enumerate(names)
        ),
        d.words(
            left, 58, f"BIM on the network itself: {found['direct']:.0%}; linf radius {found['eps']:g}", class_="muted"
        ),
        d.bars(rows, left=left, right=right, top=top),
    ]
    return d.sheet(
        *parts,
        width=640,
        height=top + len(rows) * 31 + 12,
        title="How often examples made elsewhere fool a network",
        description=f"{found['digits']} digits that all networks get right; shares that fool the one under attack.",
    )


def draw_black_box(found: Found) -> str:
    """Two panels of median distances against queries, and what gradients reach."""
    parts: list[Markup] = []
    budgets = found["budgets"]
    for number, (norm, panel) in enumerate(found["panels"].items()):
        values = [value for line in panel["lines"].values() for value in line]
        step = 0.5 if norm == "l2" else 0.1
        most = step * -(-max(values) // step)
        ends = (budgets[0], budgets[-1])
        frame = d.Frame(left=56 + 350 * number, right=336 + 350 * number, top=48, bottom=250, x=ends, y=(0.0, most))
        ticks = [round(step * tick, 3) for tick in range(round(most / step) + 1)]
        floor = panel["gradients"]["median"]
        lines = [
            d.Curve(name, tuple(zip(budgets, line, strict=True)), place=2 * number if place and number else place)
            for place, (name, line) in enumerate(panel["lines"].items())
        ]
        lines.append(d.Curve(f"{panel['gradients']['name']}, with gradients", tuple((x, floor) for x in ends), place=3))
        parts += [
            d.words(frame.left, 28, f"median distance in {norm}", class_="ink head"),
            d.axes(frame, x=budgets, y=ticks),
            d.curves(frame, lines),
            d.words(frame.right, 284, "queries a digit", class_="muted small", anchor="end"),
            d.legend(lines, frame.left + 110, 64),
        ]
    return d.sheet(
        *parts,
        width=710,
        height=300,
        title="What labels alone tell an attacker, query by query",
        description=f"Median over {found['digits']} digits of the distance of the nearest example found.",
    )


def draw_ensembles(found: Found) -> str:
    """A curve of what `Adaptive` leaves for what it spends, and the point of `Standard`."""
    adaptive = tuple((each["rows"], each["left"]) for each in found["adaptive"])
    standard = (found["standard"]["rows"], found["standard"]["left"])
    most = 0.05 * -(-max(left for _, left in adaptive) // 0.05)
    frame = d.Frame(left=64, right=600, top=48, bottom=260, x=(5, 3000), y=(0.0, most))
    lines = [
        d.Curve("Adaptive, by budget", adaptive, place=0),
        d.Curve("Standard", (standard,), place=1, dots=True),
    ]
    ticks = [round(0.05 * tick, 2) for tick in range(round(most / 0.05) + 1)]
    return d.sheet(
        d.words(frame.left, 28, f"digits left standing, linf radius {found['eps']:g}", class_="ink head"),
        d.axes(frame, x=(10, 30, 100, 300, 1000, 3000), y=ticks, share=True),
        d.curves(frame, lines),
        d.legend(lines, 420, 70),
        d.words(
            frame.right, 296, "rows an input: forwards, backwards, verifications", class_="muted small", anchor="end"
        ),
        width=640,
        height=312,
        title="Accuracy left against the work spent",
        description=f"{found['digits']} digits. Adaptive at rising budgets, and the standard ensemble.",
    )


def draw_helpers(found: Found) -> str:
    """Bars: how many digits break behind two defences, without and with the helper."""
    left, right = 190.0, 570.0
    names = {"none": "APGD as it is", "BPDA": "APGD through BPDA", "Expectation": "APGD on Expectation"}
    rounded = [(names.get(name, name), (share,)) for name, share in found["rounded"].items()]
    noisy = [(names[name], (held, claimed)) for name, (claimed, held) in found["noisy"].items()]
    parts = [
        d.words(24, 34, f"inputs rounded to {found['levels']} levels", class_="ink head"),
        d.bars(rounded, left=left, right=right, top=48, thick=15),
        d.words(24, 146, "noise at every call", class_="ink head"),
        d.bars(noisy, left=left, right=right, top=160, thick=15),
    ]
    for number, text in enumerate((f"holds on the average of {found['draws']} calls", "was claimed")):
        x = left + 250 * number
        parts.append(d.element("rect", x=x, y=246, width=12, height=12, class_=f"f{number}"))
        parts.append(d.words(x + 18, 256, text))
    return d.sheet(
        *parts,
        width=640,
        height=274,
        title="Two defences that make nothing robust",
        description=f"Shares of {found['digits']} digits that break within linf radius {found['eps']:g}.",
    )


DRAWN: dict[str, Callable[[Found], str]] = {
    "gradient": draw_gradient,
    "transfer": draw_transfer,
    "nearest": draw_nearest,
    "black-box": draw_black_box,
    "ensembles": draw_ensembles,
    "helpers": draw_helpers,
}


def drawn(result: Found) -> dict[str, str]:
    """File name to SVG, for all that was measured."""
    return {f"{name}.svg": draw(result[name]) for name, draw in DRAWN.items()}


def _strips(
    rows: list[Found],
    heads: list[tuple[str, str, float]],
    beside: Callable[[str, Found], str],
    *,
    title: str,
    description: str,
) -> str:
    """Digits under each other; heads are names, what stands below them, and the change of the strongest colour."""
    top, step = 74.0, _SIZE + 34.0
    columns = [_LEFT + (1 + 2 * place) * (_SIZE + _GAP) + _PART * (place + 1) for place in range(len(heads))]
    parts = [d.words(_LEFT, 36, "clean", class_="ink head")]
    for x, (name, below, _) in zip(columns, heads, strict=True):
        parts += [d.words(x, 36, name, class_="ink head"), d.words(x, 53, below, class_="muted small")]
    for number, row in enumerate(rows):
        y = top + number * step
        under = y + _SIZE + 16
        parts.append(d.image(row["clean"], _LEFT, y, _SIZE))
        parts.append(d.words(_LEFT, under, f"a {row['label']}", class_="muted small"))
        for x, (name, _, most) in zip(columns, heads, strict=True):
            point = row["found"][name]
            parts += [
                d.image(point["pixels"], x, y, _SIZE, hit=point["won"]),
                d.change(_difference(point["pixels"], row["clean"]), x + _SIZE + _GAP, y, _SIZE, most=most),
                d.words(x, under, f"says {point['says']}", class_="won small" if point["won"] else "muted small"),
                d.words(x + _SIZE + _GAP, under, beside(name, point), class_="muted small"),
            ]
    width = columns[-1] + 2 * _SIZE + _GAP + _LEFT
    return d.sheet(*parts, width=width, height=top + len(rows) * step, title=title, description=description)


def _size(norm: str, distance: float) -> str:
    return f"{distance:.0f} pixels" if norm == "l0" else f"{distance:.2g}"


def _difference(one: list[list[float]], other: list[list[float]]) -> list[list[float]]:
    return [[a - b for a, b in zip(above, below, strict=True)] for above, below in zip(one, other, strict=True)]
