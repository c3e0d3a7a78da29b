"""What the report calls things: statuses, families, numbers, exit codes, in words a manager can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vambrace.core.findings import Status
from vambrace.report.text import eps_text, norm_text, value_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.core.findings import Finding, Verdict

__all__ = [
    "ACCESS",
    "FAMILIES",
    "Look",
    "STATUSES",
    "VERDICTS",
    "exit_meaning",
    "family_order",
    "family_title",
    "metric_label",
    "metric_phrase",
    "number_parameter",
    "shown_value",
    "text_parameter",
]

Look = Literal["pass", "fail", "warn", "measured", "missing", "unreliable", "error"]
"""Shape and colour of a status mark; the word stands beside it."""

STATUSES: dict[Status, tuple[Look, str]] = {
    Status.PASS: ("pass", "holds"),
    Status.FAIL: ("fail", "fails"),
    Status.WARN: ("warn", "warning"),
    Status.MEASURED: ("measured", "measured"),
    Status.NOT_MEASURED: ("missing", "not measured"),
    Status.UNRELIABLE: ("unreliable", "unreliable"),
    Status.ERROR: ("error", "error"),
}

VERDICTS: dict[str, Look] = {
    "PASS": "pass",
    "FAIL": "fail",
    "INCOMPLETE": "missing",
    "UNRELIABLE": "unreliable",
    "RESOURCES": "error",
    "MEASURED, NOT JUDGED": "measured",
    "ERROR": "error",
    "INTERRUPTED": "missing",
}

_EXIT_CODES = {
    0: "every required gate ran and holds",
    1: "a gate does not hold",
    2: "the command or the plan could not be used",
    3: "the model or the data were refused",
    4: "incomplete: something required was not measured",
    5: "unreliable: the model's behaviour takes the numbers' meaning away",
    6: "out of resources: disk, memory, lock or workers",
    70: "a bug in vambrace",
    130: "interrupted",
}
_UNJUDGED = "everything required was measured, and no gate was asked to judge it"

ACCESS = {"labels": "labels only", "scores": "scores", "gradients": "gradients", "internals": "gradients"}
"""What a model gives, in words; inner layers are gradients too, as far as any attack goes."""

FAMILIES = {
    "preflight": ("Preflight", "Is the model fit to be measured at all?"),
    "clean": ("Ordinary inputs", "How often is the model right when nothing is changed?"),
    "adversarial": ("Under attack", "How often does it stay right when someone changes the input on purpose?"),
    "natural": ("Everyday changes", "How often does it stay right when the input is noisy, turned or compressed?"),
    "membership": ("Privacy", "Can an outsider tell who was in the training data?"),
    "dp": ("Private training", "How much of any one sample can the model give away, by what training charged?"),
}
"""Families in the order of the report: title and the question they answer."""


def exit_meaning(verdict: Verdict) -> str:
    """What the exit code of `vambrace assess` means here; "" for a code that it does not give."""
    if verdict.exit_code == 0 and verdict.word == "MEASURED, NOT JUDGED":
        return _UNJUDGED
    return _EXIT_CODES.get(verdict.exit_code, "")


def family_order(findings: Sequence[Finding]) -> list[str]:
    """The families that occur, known ones first and in their order."""
    there = dict.fromkeys(finding.family for finding in findings)
    return [name for name in FAMILIES if name in there] + [name for name in there if name not in FAMILIES]


def family_title(family: str) -> str:
    """A family's title; a plug-in's word stands for itself."""
    return FAMILIES[family][0] if family in FAMILIES else family


def metric_label(finding: Finding) -> str:
    """What the number is, without the check's id."""
    name, _, point = finding.metric.partition("@")
    changed = text_parameter(finding, "perturbation")
    norm, eps = text_parameter(finding, "norm"), number_parameter(finding, "eps")
    radius = f"{norm_text(norm)} {eps_text(eps)}" if norm is not None and eps is not None else point
    match finding.family, name:
        case "preflight", "ok":
            return "Fit to be measured"
        case "clean", "accuracy":
            return "Accuracy"
        case "clean", "loss":
            return "Mean loss"
        case "adversarial", "robust_accuracy":
            return f"Accuracy under attack, {radius}"
        case "adversarial", "success":
            return f"Attacks that succeed, {radius}"
        case "natural", "accuracy":
            return f"Accuracy, {changed or finding.check}, severity {point}"
        case "natural", "drop":
            return f"Points lost, {changed or finding.check}, severity {point}"
        case "natural", "mean_accuracy":
            return f"Mean accuracy, {changed or finding.check}"
        case "membership", "auc":
            return "Membership AUC"
        case "membership", "tpr":
            rate = number_parameter(finding, "fpr")
            return f"Members found at {rate * 100:g} % false alarms" if rate is not None else f"Members found @{point}"
        case "dp", "epsilon":
            return "Epsilon"
        case "dp", "audit_epsilon":
            return "Epsilon that the audit found, at least"
        case _:
            return finding.metric


def metric_phrase(finding: Finding) -> str:
    """What the number is, as the subject of a sentence."""
    name, _, point = finding.metric.partition("@")
    changed = (text_parameter(finding, "perturbation") or finding.check).replace("_", " ")
    norm, eps = text_parameter(finding, "norm"), number_parameter(finding, "eps")
    radius = f"{norm_text(norm)} {eps_text(eps)}" if norm is not None and eps is not None else point
    match finding.family, name:
        case "adversarial", "robust_accuracy":
            return f"Accuracy under attack within {radius}"
        case "adversarial", "success":
            return f"The share of attacks that succeed within {radius}"
        case "natural", "accuracy":
            return f"Accuracy under {changed} at severity {point}"
        case "natural", "drop":
            return f"The loss of accuracy under {changed} at severity {point}"
        case "natural", "mean_accuracy":
            return f"Mean accuracy under {changed}"
        case "membership", "tpr":
            return f"The share of m{metric_label(finding)[1:]}"
        case _:
            return metric_label(finding)


def shown_value(finding: Finding) -> str:
    """The value with its unit; a dash where there is none, and a word for preflight, which is no measurement."""
    if finding.value is None:
        return "\u2013"
    if (finding.family, finding.metric) == ("preflight", "ok"):
        return "yes" if finding.value >= 1 else "no"
    return value_text(finding.value, finding.unit, finding.n)


def number_parameter(finding: Finding, name: str) -> float | None:
    """A parameter of the finding if it is there and a number (not a boolean)."""
    value = finding.parameters.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def text_parameter(finding: Finding, name: str) -> str | None:
    """A parameter of the finding if it is there and text."""
    value = finding.parameters.get(name)
    return value if isinstance(value, str) else None
