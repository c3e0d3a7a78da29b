"""The questions preflight asks a model, and what the answers mean; those about gradients are in `assess.slopes`.

code   level        what it says
E406   warn         the model raises on some of the samples
E410   unreliable   logits that are NaN or infinite
E411   unreliable   the same answer, or the same class, for every input
E412   warn         a class that occurs in the data is never predicted
E413   warn         more outputs than classes
E420   unreliable   two equal calls give different answers
E421   unreliable   an answer depends on the other samples in the batch
E422   unreliable   an answer depends on the position in the batch
E424   unreliable   the model changes its input in place
E425   unreliable   the model changes an answer that it gave before
E430   unreliable   declared logits look like probabilities
E431   warn         logits so large that cross entropy is exactly zero
E432   warn         with changed inputs, or in another order of classes, it is right far more often (`assess.mistakes`)
E436   unreliable   logits that share an offset in which their differences are lost
E437   warn         the score is not surely above a guess
E438   warn         logits so alike that cross entropy cannot tell which class is nearest
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vambrace.assess.constancy import OTHER_CALL, SAME_CALL, contenders, gap, put
from vambrace.assess.mistakes import mistake_flag
from vambrace.core.access import Access
from vambrace.core.findings import Flag
from vambrace.core.intervals import wilson
from vambrace.errors import ModelMisbehaved
from vambrace.search.judge import CLEAR

if TYPE_CHECKING:
    from vambrace.models.contract import Model

__all__ = ["Probe", "bad", "behaviour_flags", "late_flags", "score_flags", "warn"]

SATURATED = 0.5
LOST = 0.01
FLAT = 1.0
_PATIENCE = 8  # samples refused in a row, from the first one, after which the model is not asked for more
_LOGITS = ("adversarial", "membership")
_ADVERSARIAL = ("adversarial",)
_PREFLIGHT = ("preflight",)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Probe:
    """The model's answers to the probing questions, all float64 and copies.

    Attributes:
        model: who was asked.
        inputs, labels: the scored samples that the model answered, (n, ...), (n,).
        size: how many of them, from the front, the behaviour questions use.
        width: rows a call.
        logits: (n, k) of all scored samples.
        refused: positions among the samples given that make the model raise, and what it said about the first.
        first, again: (size, k), two equal questions.
        reversed_order: (size, k), asked in reversed order, put back in order.
        split: (size, k), in two parts of different company, put together.
        alone: (1, k), the first sample asked by itself.
        changed_input: whether the input tensor came back changed.
        changed_answer: whether a later question changed the tensor that an earlier one was answered with.
    """

    model: Model
    inputs: Tensor
    labels: Tensor
    size: int
    width: int
    logits: Tensor
    refused: tuple[tuple[int, ...], str]
    first: Tensor
    again: Tensor
    reversed_order: Tensor
    split: Tensor
    alone: Tensor
    changed_input: bool
    changed_answer: bool

    @classmethod
    @torch.no_grad()
    def ask(cls, model: Model, inputs: Tensor, labels: Tensor, *, size: int, batch: int) -> Probe:
        """Ask all questions that need no gradient, at most `batch` rows a call; `inputs` are never handed out.

        Raises:
            ModelMisbehaved: for a model that cannot be asked, or only in smaller batches.
        """
        refused = _Refusals()
        logits = _scored(model, inputs, batch, refused)
        if refused.places:
            kept = [place for place in range(len(inputs)) if place not in refused.places]
            inputs, labels = inputs[kept], labels[kept]
        few = inputs[:size]
        size = len(few)
        handed = few[:batch].clone()
        given = model(handed) if model.access >= Access.SCORES else model.predict(handed)
        kept_answer = given.clone()
        changed = not torch.equal(handed, few[:batch])
        first, again = put(model, few, batch), put(model, few, batch)
        cut = max(1, size // 3)
        return cls(
            model=model,
            inputs=inputs,
            labels=labels,
            size=size,
            width=batch,
            logits=logits,
            refused=(tuple(refused.places), refused.why),
            first=first,
            again=again,
            reversed_order=put(model, few.flip(0), batch).flip(0),
            split=torch.cat([put(model, part, batch) for part in (few[:cut], few[cut:]) if len(part)]),
            alone=put(model, few[:1], 1),
            changed_input=changed,
            changed_answer=not torch.equal(given.nan_to_num(), kept_answer.nan_to_num()),
        )


def behaviour_flags(probe: Probe) -> list[Flag]:
    """Flags about determinism, company, position, finiteness and side effects."""
    flags: list[Flag] = []
    model = probe.model
    wrong = ~probe.logits.isfinite().all(dim=1)
    if bool(wrong.any()):
        share = float(wrong.double().mean())
        hint = " The model computes in half precision, which overflows at 65504." if _is_half(model) else ""
        flags.append(bad("E410", f"{share:.0%} of the probed samples get logits that are NaN or infinite.{hint}"))
    if probe.changed_input:
        flags.append(bad("E424", "the model changes the tensor it is given; clone the input first in forward()."))
    if probe.changed_answer:
        flags.append(bad("E425", "an answer changes after it was given: the model writes the next one into it."))
    repeat = gap(probe.first, probe.again, model.dtype)
    if repeat > SAME_CALL:
        text = f"two equal calls differ by {repeat:.2g} of the spread of the logits"
        return [*flags, bad("E420", f"{text}: the model draws numbers or keeps state.")]
    position = gap(probe.first, probe.reversed_order, model.dtype)
    if position > OTHER_CALL:
        flags.append(bad("E422", f"reversing the batch changes logits by {position:.2g} of their spread."))
    others = (
        (probe.first, probe.split),
        (probe.first, probe.logits[: probe.size]),
        (probe.first[:1], probe.alone),
    )
    company = max(gap(one, other, model.dtype) for one, other in others)
    if company > OTHER_CALL and position <= OTHER_CALL:
        text = (
            f"an answer changes by {company:.2g} of the spread of the logits with the other samples in the batch, "
            "as batch normalisation does outside eval()."
        )
        flags.append(bad("E421", text))
    return flags


def late_flags(probe: Probe) -> list[Flag]:
    """E420 where the answer to the first question is another one by now; the last question that preflight asks."""
    late = gap(probe.first, put(probe.model, probe.inputs[: probe.size], probe.width), probe.model.dtype)
    if late <= SAME_CALL:
        return []
    return [bad("E420", f"asked again later, the model's answers differ by {late:.2g} of the spread of the logits.")]


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
    better = mistake_flag(probe, class_names=class_names)
    if found := _constant(probe, finite):
        return [found, *([better] if better else [])]
    low = better or _guess(probe)
    ends = [low] if low else []
    flags = _class_flags(probe, class_names, known)
    scale = float(finite.abs().max())
    sums = finite.sum(dim=1)
    if probe.model.outputs == "logits" and bool((finite >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        text = 'rows are non-negative and sum to 1: these look like probabilities. State outputs = "probabilities".'
        flags.append(bad("E430", text, _LOGITS))
    elif float((_cross_entropy(logits, probe.labels) == 0).double().mean()) > SATURATED:
        text = f"logits reach {scale:.3g}: cross entropy is exactly zero in single precision."
        flags.append(warn("E431", text, _LOGITS))
    if probe.model.access >= Access.SCORES:
        if finite.shape[1] > 2 and (apart := float(_spread(finite).median())) < FLAT:
            text = (
                f"the logits of a sample differ by {apart:.2g} only: all classes look equally likely, so attacks on "
                'cross entropy aim at all of them at once and find less. Add an attack with loss = "dlr" or "margin".'
            )
            flags.append(warn("E438", text, _ADVERSARIAL))
        rivals = finite[:, contenders(finite)]
        lost = float((CLEAR * rivals.abs().amax(dim=1) / _spread(rivals)).median())
        if lost > LOST:
            text = (
                f"logits near {float(rivals.abs().max()):.3g} differ by {float(_spread(rivals).median()):.3g}: "
                "margins this small beside their offset prove nothing, and attacks find nothing."
            )
            flags.append(bad("E436", text, _ADVERSARIAL))
    return [*flags, *ends]


def bad(code: str, text: str, families: tuple[str, ...] = ()) -> Flag:
    """A flag that takes the meaning from the numbers of `families`; empty: of all."""
    return Flag(code=code, level="unreliable", text=text[0].upper() + text[1:], families=families)


def warn(code: str, text: str, families: tuple[str, ...] = ()) -> Flag:
    """A flag that qualifies them."""
    return Flag(code=code, level="warn", text=text[0].upper() + text[1:], families=families)


class _Refusals:
    """Which of the samples make the model raise, and what it said first."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.why = ""


def _scored(model: Model, inputs: Tensor, batch: int, refused: _Refusals) -> Tensor:
    """Answers (n - refused, k), each part that raises cut in halves until the samples at fault stand alone."""
    answers: list[Tensor] = []
    waiting = [list(range(start, min(start + batch, len(inputs)))) for start in range(0, len(inputs), batch)][::-1]
    last: ModelMisbehaved | None = None
    while waiting:
        places = waiting.pop()
        try:
            answers.append(put(model, inputs[places], batch))
        except ModelMisbehaved as error:
            last = error
            hopeless = len(refused.places) > len(inputs) // 2 or (not answers and len(refused.places) >= _PATIENCE)
            if error.code != "E406" or hopeless:
                raise
            if len(places) == 1:
                refused.places += places
                refused.why = refused.why or error.seen
            else:
                waiting += [places[len(places) // 2 :], places[: len(places) // 2]]
    if last is not None and (not refused.places or not answers):
        raise last
    return torch.cat(answers)


def _constant(probe: Probe, finite: Tensor) -> Flag | None:
    """E411: the same logits for inputs that differ, or the same class for data of several."""
    rivals = finite[:, contenders(finite)]
    alike = float((rivals - rivals[0]).abs().max()) <= 1e-6 * max(float(_spread(rivals).max()), 1e-30)
    if alike and bool((probe.inputs != probe.inputs[0]).any()):
        return bad("E411", f"all {len(finite)} probed samples get the same logits.")
    classes = finite.argmax(dim=1)
    several = int((torch.bincount(probe.labels) >= 5).sum()) >= 2
    if several and len(finite) == len(probe.labels) and bool((classes == classes[0]).all()):
        return bad("E411", f"all {len(finite)} probed samples, of several classes, are given class {int(classes[0])}.")
    return None


def _class_flags(probe: Probe, class_names: tuple[str, ...], known: int) -> list[Flag]:
    flags: list[Flag] = []
    width = probe.logits.shape[1]
    predicted = torch.bincount(probe.logits.nan_to_num(nan=-torch.inf).argmax(dim=1), minlength=width)
    present = torch.bincount(probe.labels, minlength=width)
    never = cast("list[int]", ((present >= 5) & (predicted == 0)).nonzero().flatten().tolist())
    if never:
        names = ", ".join(class_names[c] if c < len(class_names) else str(c) for c in never[:5])
        flags.append(warn("E412", f"never predicted on {len(probe.labels)} samples that contain them: {names}."))
    if width > known:
        classes = f"{known} class{'' if known == 1 else 'es'}"
        text = f"the model has {width} outputs for {classes}: where it names another one, it counts as wrong."
        # True of the data, and no reason to doubt any number.
        flags.append(warn("E413", text, _PREFLIGHT))
    return flags


def _guess(probe: Probe) -> Flag | None:
    """E437: the score may be that of a guess, at random or of the commonest class."""
    n, width = probe.logits.shape
    right = int((probe.logits.argmax(dim=1) == probe.labels).sum())
    counts = torch.bincount(probe.labels)
    commonest = float(counts.max()) / n if int((counts > 0).sum()) > 1 else 0.0
    now = wilson(right, n)
    if now is None or now.low > max(1.0 / width, commonest):
        return None
    by = "naming the commonest class" if commonest > 1.0 / width else "guessing"
    text = f"the model is right on {right} of {n} probed samples, not surely more than by {by}"
    return warn("E437", f"{text}: compare the order of classes, --mean and --std, and the axes with training.")


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def _spread(logits: Tensor) -> Tensor:
    """Logits (n, k) to the distance (n,) of the largest from the smallest, never zero."""
    return (logits.amax(dim=1) - logits.amin(dim=1)).clamp(min=1e-30)


def _is_half(model: Model) -> bool:
    return model.dtype in {torch.float16, torch.bfloat16}
