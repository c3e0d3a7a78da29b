"""The usual mistakes in how a model is fed: undone one at a time, each says how much of the data it explains (E432).

Two kinds are tried on the probed samples. Inputs are changed: other units, other channels, swapped axes. And answers
are read in another order of classes: the order that explains most is the assignment of outputs to labels with the
largest number of agreements (Kuhn, Naval Research Logistics Quarterly 2, 1955). An assignment that is fitted to few
samples explains them by luck, so it is fitted to one half of every class and counted on the other, both ways.

A mistake counts as an explanation where it makes the model right on surely ten points more of the samples than it is,
and on surely more than naming the commonest class would. Several may explain the same data (where classes differ by
their colour, swapped channels are a change of the order of classes), so all that are not surely worse than the best
one are named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from vambrace.assess.constancy import put
from vambrace.core.findings import Flag
from vambrace.core.intervals import wilson
from vambrace.errors import ModelMisbehaved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.assess.probes import Probe
    from vambrace.core.findings import Interval

__all__ = ["FEWEST", "GAIN", "mistake_flag"]

FEWEST = 50
"""Samples below which nothing is tried."""
GAIN = 0.1
"""By how much more an explanation must surely be right."""
_SHOWN = 4  # moved classes that a sentence names


def mistake_flag(probe: Probe, *, class_names: Sequence[str]) -> Flag | None:
    """E432 with what explains the data, or None.

    The order of classes is tried on every model, because nothing is asked for it; inputs are changed where the score is
    near chance, or where another order explains it.

    Args:
        probe: the answers.
        class_names: names in label order, may be empty.
    """
    n, width = probe.logits.shape
    guesses = probe.logits.nan_to_num(nan=-torch.inf).argmax(dim=1)
    right = int((guesses == probe.labels).sum())
    now = wilson(right, n)
    if now is None or n < FEWEST:
        return None
    bar = max(now.high + GAIN, float(torch.bincount(probe.labels).max()) / n)
    found: list[tuple[Interval, str]] = []
    hits, order = _other_order(guesses.numpy(force=True), probe.labels.numpy(force=True), class_names)
    then = wilson(hits, n)
    if then is not None and then.low > bar:
        found.append((then, order))
    if found or now.high <= 2.0 / width + 0.1:
        found += [(then, name) for name, then in _changed_inputs(probe) if then.low > bar]
    if not found:
        return None
    best = max(then.low for then, _ in found)
    kept = sorted((each for each in found if each[0].high >= best), key=lambda each: -each[0].low)
    least = min(then.low for then, _ in kept)
    which = ". Each of these explains it; which one is true, the training code tells" if len(kept) > 1 else ""
    text = (
        f"The model is right on {right} of {n} samples, but on at least {least:.0%} "
        f"{', or '.join(name for _, name in kept)}{which}."
    )
    return Flag(code="E432", level="warn", text=text)


def _other_order(guesses: NDArray[np.int64], labels: NDArray[np.int64], class_names: Sequence[str]) -> tuple[int, str]:
    """Samples that are right in the best order of classes, fitted on others; and that order, in words."""
    kinds, places = np.unique(np.concatenate([guesses, labels]), return_inverse=True)
    said, true = places[: len(guesses)], places[len(guesses) :]
    order = np.argsort(true, kind="stable")
    half = np.empty(len(true), np.int64)
    _, sizes = np.unique(true, return_counts=True)
    half[order] = (np.arange(len(true)) - np.repeat(np.cumsum(sizes) - sizes, sizes)) % 2
    hits = sum(
        int(
            (
                _assigned(said[half != part], true[half != part], len(kinds))[said[half == part]] == true[half == part]
            ).sum()
        )
        for part in (0, 1)
    )
    meant = kinds[_assigned(said, true, len(kinds))]
    moved = [(int(output), int(label)) for output, label in zip(kinds, meant, strict=True) if output != label]
    shown = ", ".join(f"{output} means {_named(label, class_names)}" for output, label in moved[:_SHOWN])
    more = ", ..." if len(moved) > _SHOWN else ""
    return hits, f"with the outputs in another order of classes (output {shown}{more}): see --classes"


def _assigned(said: NDArray[np.int64], true: NDArray[np.int64], kinds: int) -> NDArray[np.int64]:
    """Output (kinds,) to the label that it most likely means; one that nothing is known of keeps its own."""
    together = np.eye(kinds) / (2 * kinds)  # less than one sample in all: it decides between ties only
    np.add.at(together, (said, true), 1.0)
    return cast("NDArray[np.int64]", linear_sum_assignment(together, maximize=True)[1])


def _named(label: int, class_names: Sequence[str]) -> str:
    return f"label {label}" + (f" {class_names[label]!r}" if label < len(class_names) else "")


def _changed_inputs(probe: Probe) -> list[tuple[str, Interval]]:
    found: list[tuple[str, Interval]] = []
    for name, change in _changes(probe.inputs).items():
        try:
            again = put(probe.model, change(probe.inputs), probe.width).argmax(dim=1)
        except ModelMisbehaved:
            continue  # such inputs are outside the bounds: the model need not answer them
        then = wilson(int((again == probe.labels).sum()), len(again))
        if then is not None:
            found.append((name, then))
    return found


def _changes(inputs: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    units = "or write --mean and --std in the units of the bounds, if they are not"
    found: dict[str, Callable[[Tensor], Tensor]] = {
        f"when fed values 255 times larger: use --bounds 0,255, {units}": lambda part: part * 255,
        f"when fed values 255 times smaller: use --bounds 0,1, {units}": lambda part: part / 255,
        "when black and white are swapped": lambda part: part.amax() + part.amin() - part,
    }
    if inputs.dim() == 4 and inputs.shape[1] == 3:
        mean, std = _channels((0.485, 0.456, 0.406), inputs), _channels((0.229, 0.224, 0.225), inputs)
        found["with red and blue swapped (BGR)"] = lambda part: part.flip(1)
        found["when normalised: use --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"] = lambda part: (
            (part - mean) / std
        )
        found["without normalisation: drop --mean and --std, it is done twice"] = lambda part: part * std + mean
    if inputs.dim() == 4 and inputs.shape[2] == inputs.shape[3]:
        found["when height and width are swapped"] = lambda part: part.transpose(2, 3)
    return found


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None]
