"""The questions preflight asks a model, and what the answers mean.

code   level        what it says
E405   unreliable   gradients promised, none given (detached graph)
E410   unreliable   logits that are NaN or infinite
E411   unreliable   the same answer for every input
E412   warn         a class that occurs in the data is never predicted
E413   warn         more outputs than classes
E420   unreliable   two equal calls give different answers
E421   unreliable   an answer depends on the other samples in the batch
E422   unreliable   an answer depends on the position in the batch
E424   unreliable   the model changes its input in place
E430   unreliable   declared logits look like probabilities
E431   warn         logits so large that cross entropy is exactly zero
E432   warn         the score is at chance, and a transformed input scores far better
E433   unreliable   input gradients that are exactly zero
E434   unreliable   input gradients that are NaN or infinite
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vambrace.core.findings import Flag
from vambrace.core.intervals import wilson

if TYPE_CHECKING:
    from vambrace.models.contract import Model

__all__ = ["Probe", "behaviour_flags", "gradient_flags", "score_flags"]

SAME_CALL = 1e-5
OTHER_CALL = 1e-3
ZERO_GRADIENTS = 0.1
PROBE_BATCH = 64
SATURATED = 0.5
_GRADIENT = ("adversarial",)
_LOGITS = ("adversarial", "membership")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Probe:
    """The model's answers to the probing questions.

    Attributes:
        model: who was asked.
        inputs, labels: the scored samples (n, ...), (n,).
        size: how many of them, from the front, the behaviour questions use.
        logits: (n, k) of all scored samples.
        first, again: (size, k), two equal calls.
        reversed_order: (size, k), a call in reversed order, put back in order.
        split: (size, k), two calls on halves of different company, put together.
        changed_input: whether the input tensor came back changed.
    """

    model: Model
    inputs: Tensor
    labels: Tensor
    size: int
    logits: Tensor
    first: Tensor
    again: Tensor
    reversed_order: Tensor
    split: Tensor
    changed_input: bool

    @classmethod
    @torch.no_grad()
    def ask(cls, model: Model, inputs: Tensor, labels: Tensor, *, size: int, batch: int) -> Probe:
        """Ask all questions that need no gradient; `inputs` are never handed out, only copies."""
        few = inputs[:size]
        handed = few.clone()
        first = model(handed)
        changed = not torch.equal(handed, few)
        again = model(few.clone())
        back = model(few.flip(0).clone()).flip(0)
        cut = max(1, size // 3)
        split = torch.cat([model(part.clone()) for part in (few[:cut], few[cut:]) if len(part)])
        logits = torch.cat([model(part.clone()) for part in torch.split(inputs, batch)])
        return cls(
            model=model,
            inputs=inputs,
            labels=labels,
            size=size,
            logits=logits.double(),
            first=first.double(),
            again=again.double(),
            reversed_order=back.double(),
            split=split.double(),
            changed_input=changed,
        )


def behaviour_flags(probe: Probe) -> list[Flag]:
    """Flags about determinism, company, position, finiteness and side effects."""
    flags: list[Flag] = []
    bad = ~probe.logits.isfinite().all(dim=1)
    if bool(bad.any()):
        share = float(bad.double().mean())
        hint = " The model computes in half precision, which overflows at 65504." if _is_half(probe.model) else ""
        flags.append(_bad("E410", f"{share:.0%} of the probed samples get logits that are NaN or infinite.{hint}"))
    if probe.changed_input:
        flags.append(_bad("E424", "the model changes the tensor it is given; clone the input first in forward()."))
    repeat = _gap(probe.first, probe.again)
    if repeat > SAME_CALL:
        flags.append(
            _bad(
                "E420",
                f"two equal calls differ by {repeat:.2g} of the largest logit: the model draws numbers or keeps state.",
            )
        )
        return flags
    company, position = _gap(probe.first, probe.split), _gap(probe.first, probe.reversed_order)
    if position > OTHER_CALL:
        flags.append(_bad("E422", f"reversing the batch changes logits by {position:.2g} of the largest one."))
    if company > OTHER_CALL and position <= OTHER_CALL:
        flags.append(
            _bad(
                "E421",
                f"an answer changes by {company:.2g} of the largest logit with the other samples in the batch, "
                "as batch normalisation does outside eval().",
            )
        )
    return flags


def score_flags(probe: Probe, *, class_names: tuple[str, ...], known: int) -> list[Flag]:
    """Flags about what the answers say: constant, unused classes, probabilities, saturation, score at chance.

    Args:
        probe: the answers.
        class_names: names in label order, may be empty.
        known: how many classes the data has.
    """
    logits = probe.logits
    finite = logits[logits.isfinite().all(dim=1)]
    if len(finite) < 2:
        return []
    flags: list[Flag] = []
    scale = float(finite.abs().max())
    better = _better_input(probe)
    alike = float((finite - finite[0]).abs().max()) <= 1e-6 * max(scale, 1e-30)
    if alike and bool((probe.inputs != probe.inputs[0]).any()):
        flags.append(_bad("E411", f"all {len(finite)} probed samples get the same logits."))
        return [*flags, better] if better else flags
    flags += _class_flags(probe, class_names, known)
    sums = finite.sum(dim=1)
    if probe.model.outputs == "logits" and bool((finite >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        flags.append(
            _bad(
                "E430",
                'rows are non-negative and sum to 1: these look like probabilities. State outputs = "probabilities".',
                _LOGITS,
            )
        )
    elif float((_cross_entropy(logits, probe.labels) == 0).double().mean()) > SATURATED:
        flags.append(
            _warn("E431", f"logits reach {scale:.3g}: cross entropy is exactly zero in single precision.", _LOGITS)
        )
    return [*flags, better] if better else flags


def gradient_flags(model: Model, probe: Probe) -> tuple[list[Flag], float]:
    """Flags about input gradients, and the seconds that one forward and backward row took."""
    inputs = probe.inputs[: probe.size].clone().requires_grad_(True)  # noqa: FBT003
    began = time.perf_counter()
    with torch.enable_grad():
        logits = model(inputs)
        if not logits.requires_grad:
            text = "the logits do not depend on the input for autograd (detach(), no_grad() or NumPy inside forward())."
            return [_bad("E405", text, _GRADIENT)], 0.0
        top = logits.topk(min(2, logits.shape[1]), dim=1).values
        (gradient,) = torch.autograd.grad((top[:, 0] - top[:, -1]).sum(), inputs, materialize_grads=True)
    seconds = (time.perf_counter() - began) / len(inputs)
    rows = gradient.flatten(1)
    flags: list[Flag] = []
    if bool((~rows.isfinite()).any()):
        flags.append(_bad("E434", "input gradients are NaN or infinite.", _GRADIENT))
    dead = float((rows == 0).all(dim=1).double().mean())
    if dead > ZERO_GRADIENTS:
        text = f"{dead:.0%} of the probed samples have an input gradient of exactly zero: gradient attacks are blind."
        flags.append(_bad("E433", text, _GRADIENT))
    return flags, seconds


def _class_flags(probe: Probe, class_names: tuple[str, ...], known: int) -> list[Flag]:
    flags: list[Flag] = []
    width = probe.logits.shape[1]
    predicted = torch.bincount(probe.logits.nan_to_num(nan=-torch.inf).argmax(dim=1), minlength=width)
    present = torch.bincount(probe.labels, minlength=width)
    never = cast("list[int]", ((present >= 5) & (predicted == 0)).nonzero().flatten().tolist())
    if never:
        names = ", ".join(class_names[c] if c < len(class_names) else str(c) for c in never[:5])
        flags.append(_warn("E412", f"never predicted on {len(probe.labels)} samples that contain them: {names}."))
    if width > known:
        flags.append(_warn("E413", f"the model has {width} outputs for {known} classes."))
    return flags


def _better_input(probe: Probe) -> Flag | None:
    """At chance, try the usual mistakes: a transformation that scores far better names the one that was made."""
    n, width = probe.logits.shape
    right = int((probe.logits.argmax(dim=1) == probe.labels).sum())
    now = wilson(right, n)
    if now is None or now.high > 2.0 / width + 0.1 or n < 50:
        return None
    best: tuple[float, str] | None = None
    for name, change in _mistakes(probe.inputs).items():
        with torch.no_grad():
            again = torch.cat([probe.model(change(part)) for part in torch.split(probe.inputs, PROBE_BATCH)]).argmax(dim=1)
        then = wilson(int((again == probe.labels).sum()), n)
        if then is not None and then.low > now.high + 0.1 and (best is None or then.low > best[0]):
            best = (then.low, name)
    if best is None:
        return None
    return _warn("E432", f"the model is right on {right} of {n} samples, but on at least {best[0]:.0%} {best[1]}.")


def _mistakes(inputs: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "when fed values 255 times larger: use --bounds 0,255": lambda part: part * 255,
        "when fed values 255 times smaller: use --bounds 0,1": lambda part: part / 255,
        "when black and white are swapped": lambda part: part.amax() + part.amin() - part,
    }
    if inputs.dim() == 4 and inputs.shape[1] == 3:
        mean = torch.tensor([0.485, 0.456, 0.406], device=inputs.device, dtype=inputs.dtype)[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225], device=inputs.device, dtype=inputs.dtype)[:, None, None]
        found["with red and blue swapped (BGR)"] = lambda part: part.flip(1)
        found["when normalised: use --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"] = lambda part: (
            (part - mean) / std
        )
        found["without normalisation: drop --mean and --std, it is done twice"] = lambda part: part * std + mean
    if inputs.dim() == 4 and inputs.shape[2] == inputs.shape[3]:
        found["when height and width are swapped"] = lambda part: part.transpose(2, 3)
    return found


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def _gap(one: Tensor, other: Tensor) -> float:
    """Largest difference relative to the largest absolute logit; a NaN on one side only counts as infinite."""
    if one.shape != other.shape or not torch.equal(one.isnan(), other.isnan()):
        return float("inf")
    scale = float(one[one.isfinite()].abs().max()) if bool(one.isfinite().any()) else 1.0
    difference = (one - other).abs()
    difference = difference[difference.isfinite()]
    return float(difference.max()) / max(scale, 1e-30) if difference.numel() else 0.0


def _is_half(model: Model) -> bool:
    return model.dtype in {torch.float16, torch.bfloat16}


def _bad(code: str, text: str, families: tuple[str, ...] = ()) -> Flag:
    return Flag(code=code, level="unreliable", text=text[0].upper() + text[1:], families=families)


def _warn(code: str, text: str, families: tuple[str, ...] = ()) -> Flag:
    return Flag(code=code, level="warn", text=text[0].upper() + text[1:], families=families)
