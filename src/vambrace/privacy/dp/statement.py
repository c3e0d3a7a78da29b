"""What a guarantee means, for people who never heard of epsilon: whom it protects, against whom, what it leaves out.

    >>> from vambrace.privacy.dp.charges import Charge, Spent
    >>> step = Charge(mechanism="gaussian", noise_multiplier=1.1, sampling="poisson", sample_rate=256 / 60000)
    >>> print(statement(Spent([(step, 14040)]), delta=1e-5).splitlines()[0])
    Privacy statement: epsilon 2.39 at delta 1e-05

Numbers are rounded against the trainer, never in his favour. Imports no torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vambrace.core.options import require
from vambrace.privacy.dp.accounting import epsilon
from vambrace.privacy.dp.edges import rounded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vambrace.privacy.dp.accounting import Accountant, Guarantee
    from vambrace.privacy.dp.charges import Charge, Spent

__all__ = ["statement"]

_FALSE_ALARMS = 0.01  # the rate at which an attacker's gain is told
_TOO_MUCH = 10.0  # an epsilon from which on the promise is empty for most purposes

_NEIGHBOURS = {
    "add_or_remove_one": "the training with and the training without any one sample",
    "replace_one": "two trainings on equally many samples that differ in any one of them",
    "zero_out_one": "the training, and the same training with any one sample left out of its sums",
}
_ACCOUNTANTS = {
    "pld": "The number is an upper bound, from the distribution of what each step can give away.",
    "rdp": "The number is an upper bound, from the moments of what each step can give away; the truth may be smaller.",
    "zcdp": "The number is an upper bound that takes no credit for choosing samples at random; the truth is often far"
    " smaller.",
    "gdp": "The number is exact.",
}
_APPROXIMATE = "The number is an approximation that assumes many steps. It is no upper bound: the truth may be larger."
_NOT_COVERED = (
    "Choosing settings: if several trainings were tried on these data and the best was kept, every one of them counts.",
    "Scores on validation data, and any decision taken from them, such as when to stop.",
    "Steps, samples or statistics of these data used outside of the charged steps, such as a mean for normalising.",
    "People with several samples: with k samples, count on about k times the epsilon, and a larger delta.",
    "The gaps between a computer's numbers: the mathematics takes noise to have none.",
    "What the model rightly learns about everybody: it may still say things about people who were not in the data.",
)


def statement(
    spent: Spent,
    *,
    delta: float,
    accountant: Accountant = "pld",
    dataset_size: int | None = None,
    diagnostics: Iterable[str] = (),
) -> str:
    """The plain-language statement of a training, in lines.

    Args:
        spent: what the ledger charged.
        delta: above 0, below 1.
        accountant: as for `vambrace.privacy.dp.accounting.epsilon`.
        dataset_size: samples in all, to judge delta by; None: unknown.
        diagnostics: names of what was looked at and is not private, such as "training_loss".

    Raises:
        ConfigError: as `epsilon` does, and E144 for a `dataset_size` below 1.
    """
    require(
        dataset_size is None or dataset_size >= 1,
        seen=f"dataset_size {dataset_size!r}",
        expected="dataset_size: 1 or more, or None",
        fix="correct dataset_size",
        code="E144",
    )
    found = epsilon(spent, delta=delta, accountant=accountant)
    shown = tuple(diagnostics)
    lines = [_headline(found), ""]
    lines += ["What was done", *_samplings(spent), ""]
    lines += ["What holds", *_meaning(found, dataset_size), ""]
    lines += ["What this does not cover", *(f"- {line}" for line in _NOT_COVERED)]
    if shown:
        lines.append(f"- Looked at during training without protection: {', '.join(shown)}. Who saw it may know more.")
    return "\n".join(lines)


def _headline(found: Guarantee) -> str:
    if found.epsilon == math.inf:
        return "Privacy statement: no privacy is claimed"
    about = "" if found.upper_bound else "about "
    return f"Privacy statement: epsilon {about}{_up(found.epsilon)} at delta {found.delta:g}"


def _samplings(spent: Spent) -> list[str]:
    if not spent.steps:
        return ["- No step was trained."]
    shown: dict[str, int] = {}
    for charge, steps in spent:
        words = _sampling(charge)
        shown[words] = shown.get(words, 0) + steps
    lines = [f"- {steps:,} {'step' if steps == 1 else 'steps'}: {words}." for words, steps in shown.items()]
    if any(charge.count_noise_multiplier for charge, _ in spent):
        lines.append("- The clip norm followed a noisy count, which is part of the cost.")
    if any(not charge.private for charge, _ in spent):
        lines.append("- Some steps ran in debug mode: their noise can be made again and taken away.")
    return lines


def _sampling(charge: Charge) -> str:
    share = f"{100 * charge.sample_rate:.3g} %"
    how = {
        "poisson": f"each sample was in with probability {share}, on a secret coin of its own",
        "truncated_poisson": f"each sample was in with probability {share}, on a secret coin of its own, at most"
        f" {charge.batch_size:,} at a time",
        "fixed_size": f"{charge.batch_size:,} of {charge.dataset_size:,} samples, drawn in secret",
        "shuffle": f"the samples in shuffled order, each once in a pass ({share} a step); no credit is taken for that",
        "full": "all samples",
    }[charge.sampling]
    if charge.mechanism == "none":
        return f"{how}; no noise was added"
    return f"{how}; {charge.mechanism.replace('_', ' ')} noise was added to the sum of clipped gradients"


def _meaning(found: Guarantee, dataset_size: int | None) -> list[str]:
    if found.epsilon == math.inf:
        return ["- Nothing: whoever sees the model may learn what any sample was."]
    caught = _caught(found.epsilon, found.delta)
    lines = [
        "- Protected is one training sample. Compared are "
        f"{_NEIGHBOURS[found.relation]}, on everything that the training gave away: every step's weights, not only the"
        " last ones.",
        f"- Somebody who knows all other samples and guesses whether one was used, and who wrongly says yes for"
        f" {100 * _FALSE_ALARMS:g} in 100 samples that were not, rightly says yes for"
        f" {'at most' if found.upper_bound else 'about'} {_up(100 * caught)} in 100 that were. Without any model it"
        f" would be {100 * _FALSE_ALARMS:g}.",
        f"- Delta, {found.delta:g}, is the chance that a training gives away more than epsilon allows; it is in that"
        " number.",
        f"- {_ACCOUNTANTS[found.accountant] if found.upper_bound else _APPROXIMATE}",
    ]
    if found.epsilon >= _TOO_MUCH:
        lines.append(f"- An epsilon of {_TOO_MUCH:g} or more promises little. Rely on an audit, or add noise.")
    if dataset_size is not None and found.delta >= 1 / dataset_size:
        lines.append(
            f"- Delta is not below 1/{dataset_size:,}: a training that publishes one sample at random would satisfy it."
        )
    return [*lines, *(f"- Note: {note}." for note in found.notes)]


def _caught(epsilon: float, delta: float) -> float:
    """The largest rate of right alarms at a rate of false ones (Kairouz, Oh, Viswanath 2015, theorem 2.1)."""
    above = math.exp(min(epsilon, 700.0)) * _FALSE_ALARMS + delta
    below = 1 - math.exp(-epsilon) * (1 - delta - _FALSE_ALARMS)
    return min(1.0, above, below)


def _up(value: float, digits: int = 3) -> str:
    """A number of few digits, rounded up."""
    whole = rounded(value, up=True, digits=digits)
    return f"{whole:,.0f}" if whole >= 10**digits else f"{whole:.{digits}g}"
