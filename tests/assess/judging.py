"""Findings, gates on them and the runs around them, for tests of gates."""

from __future__ import annotations

from vambrace.assess.gates import judge
from vambrace.core.findings import Finding, Interval, Results, Status, Verdict
from vambrace.core.outcomes import KEY, pack


def finding(name="clean.accuracy", value=0.9, *, low=0.88, high=0.92, **other):
    check, _, metric = name.partition(".")
    interval = None if low is None else Interval(low=low, high=high, method="x")
    fields = {"family": "clean", "n": 1000, "status": Status.MEASURED, "sentence": "", "interval": interval}
    return Finding(check=check, metric=metric, value=value, **(fields | other))


def one(gate, *findings, **world):
    (result,) = judge([gate], findings or [finding()], **world)
    return result


def world(*findings, sha="a", ids="i", **chosen):
    """Data and plan of a run that measured `findings`: all samples of its data, or those in `chosen`, by check."""
    masks = {each.check: pack([True] * each.n) for each in findings} | {
        name: pack(mask) for name, mask in chosen.items()
    }
    checks = [{"id": check, "samples": {"eval": mask}} for check, mask in masks.items()]
    return {"data": {"eval": {"sha256": sha, "ids": ids}}, "plan": {"checks": checks}}


def results(*findings, **other):
    return Results(
        schema="vambrace/results/1", model={}, versions={}, findings=findings, gates=(), left_out=(),
        verdict=Verdict(exit_code=0, word="PASS", sentences=("",)), **world(*findings, **other),
    )  # fmt: skip


def paired(now, before, **other):
    """Two findings with outcomes, and the shares they are."""
    return [
        finding(value=sum(each) / len(each), n=len(each), low=0.0, high=1.0, series={KEY: pack(each)}, **other)
        for each in (now, before)
    ]
