"""Realistic results for the tests of the report: every family, every status, evidence on disk where asked for."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save
from sklearn.datasets import load_digits

from vambrace.core.findings import (
    Cost,
    Evidence,
    Finding,
    Flag,
    GateResult,
    Interval,
    Left,
    Results,
    Status,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENVIRONMENT = {
    "command": ["vambrace", "assess", "digits.toml", "--profile", "full", "--seed", "7"],
    "plan_file": "plan.json",
    "started": "2026-11-23T10:02:11Z",
    "platform": "Linux x86_64",
    "cpu": "8 cores",
    "device": "cpu",
    "packages": {"torch": "2.13.0", "numpy": "2.4.1"},
}
TIMINGS = {
    "total": 412.7,
    "phases": {"load": 1.2, "preflight": 4.1, "units": 404.0, "report": 1.9},
    "checks": {"clean": 2.2, "pgd-linf": 121.5, "apgd-linf": 190.0, "pgd-l2": 44.0, "natural-rotate": 9.1},
}
PERTURBATIONS = ("gaussian_noise", "gaussian_blur", "rotate", "contrast", "jpeg")
EPS = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)
N = 1000


def wilson(value: float, n: int) -> Interval:
    z = 1.959964
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half), method="wilson")


def finding(check: str, family: str, metric: str, value: float | None, **other: Any) -> Finding:
    other.setdefault("n", N)
    other.setdefault("status", Status.MEASURED)
    if value is not None and other.get("unit", "share") == "share":
        other.setdefault("interval", wilson(value, other["n"]))
    other.setdefault("sentence", f"{metric} of {check} is {value}.")
    return Finding(check=check, family=family, metric=metric, value=value, **other)


def gate(text: str, name: str, status: Status, observed: float | None, threshold: float, **other: Any) -> GateResult:
    other.setdefault("required", True)
    word = {Status.PASS: "holds", Status.FAIL: "does not hold"}.get(status, "could not be judged")
    other.setdefault("sentence", f"{text} {word}: {observed} against {threshold}.")
    return GateResult(gate=text, finding=name, status=status, observed=observed, threshold=threshold, **other)


def names(count: int) -> list[str]:
    first = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    return first if count == 10 else [f"class {i:03d} with a rather long readable name" for i in range(count)]


def results(run: Path | None = None, *, classes: int = 10, pictures: int = 6) -> Results:
    """A full run that fails one gate, with one unreliable attack and numbers that could not be measured."""
    found = [
        preflight(),
        *clean(classes),
        *adversarial(run, pictures),
        *natural(run, pictures),
        *membership(),
    ]
    gates = (
        gate("clean.accuracy ci_low >= 0.9", "clean.accuracy", Status.PASS, 0.9527, 0.9),
        gate(
            "pgd-linf.robust_accuracy@0.0313725 ci_low >= 0.42",
            "pgd-linf.robust_accuracy@0.0313725",
            Status.FAIL,
            0.400,
            0.42,
        ),  # fmt: skip
        *(
            gate("natural-*.drop@1 ci_high <= 10", f"natural-{p}.drop@1", Status.PASS, 3.1, 10.0)
            for p in PERTURBATIONS[:4]
        ),
        gate("loss.auc ci_high <= 0.6", "loss.auc", Status.PASS, 0.561, 0.6),
        gate(
            "pgd-l2.robust_accuracy@* ci_low >= 0.3",
            "pgd-l2.robust_accuracy@0.5",
            Status.NOT_MEASURED,
            None,
            0.3,
            required=False,
        ),  # fmt: skip
    )
    verdict = Verdict(
        exit_code=1,
        word="FAIL",
        sentences=(
            "1 of 7 required gates does not hold: under an L∞ change of 8/255 the model may be right on as few as "
            "40.0 % of the images, and 42 % were asked for.",
            "On unchanged images it is right on 96.4 % (95.0 to 97.4 %).",
            "One attack is unreliable: its gradients vanish on 31 % of the samples, so its numbers say nothing.",
        ),
    )
    return Results(
        schema="vambrace/results/1",
        model=model(classes),
        data=data(classes),
        plan=plan(),
        versions={"vambrace": "0.1.0", "torch": "2.13.0", "numpy": "2.4.1", "python": "3.11"},
        findings=tuple(found),
        gates=gates,
        left_out=(
            Left(name="square", reason="The profile runs it only on models without gradients."),
            Left(name="membership on reference models", reason="No reference models were given."),
        ),
        verdict=verdict,
    )


def model(classes: int = 10) -> dict[str, Any]:
    return {
        "name": "digits_cnn.safetensors",
        "sha256": hashlib.sha256(b"weights").hexdigest(),
        "kind": "torch",
        "access": "gradients",
        "bounds": [0.0, 1.0],
        "outputs": "logits",
        "input_shape": [1, 8, 8],
        "num_classes": classes,
        "class_names": names(classes),
    }


def data(classes: int = 10) -> dict[str, Any]:
    def role(name: str, n: int) -> dict[str, Any]:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return {"name": name, "n": n, "classes": classes, "counts": [n // classes] * classes, "sha256": digest}

    return {"eval": role("digits test", N), "members": role("digits train", 400), "nonmembers": role("held out", 400)}


def plan() -> dict[str, Any]:
    ids = ["clean", "pgd-linf", "apgd-linf", "pgd-l2", *(f"natural-{p}" for p in PERTURBATIONS), "loss", "fgsm-l1"]
    kinds = ["clean", *["adversarial"] * 3, *["natural"] * 5, "membership", "adversarial"]
    options: dict[str, dict[str, Any]] = {
        "pgd-linf": {
            "attack": {
                "name": "pgd",
                "norm": "linf",
                "eps": 16 / 255,
                "steps": 40,
                "step_size": None,
                "random_start": True,
            },
            "eps": list(EPS),
        },
        "natural-rotate": {"perturbation": {"name": "rotate", "degrees": None}, "severities": [1, 2, 3, 4, 5]},
        "loss": {"attack": "loss"},
    }
    checks = [
        {"id": i, "kind": k, "required": i not in {"pgd-l2", "fgsm-l1"}, "limit": None, "options": options.get(i, {})}
        for i, k in zip(ids, kinds, strict=True)
    ]
    fixed = {"chunk": 256, "batch": 64, "threads": 2, "dtype": "float32", "device": "cpu"}
    return {"profile": "full", "seed": 7, "checks": checks, "gates": [], **fixed}


def preflight() -> Finding:
    return finding(
        "preflight", "preflight", "ok", 1.0, n=9, interval=None, cost=Cost(forwards=612, backwards=64),
        sentence="The model answered nine probes as the contract says.", status=Status.WARN,
        flags=(Flag(code="E412", level="warn", text="Class 7 was never predicted.", families=("clean",)),),
    )  # fmt: skip


def clean(classes: int) -> list[Finding]:
    rng = np.random.default_rng(1)
    values = np.clip(0.97 - rng.gamma(1.2, 0.025, classes), 0, 1).round(4)
    n = max(N // classes, 1)
    intervals = [wilson(float(v), n) for v in values]
    series = {
        "class": list(range(classes)),
        "accuracy": [float(v) for v in values],
        "n": [n] * classes,
        "low": [i.low for i in intervals],
        "high": [i.high for i in intervals],
    }
    cost = Cost(forwards=N)
    return [
        finding("clean", "clean", "accuracy", 0.964, status=Status.PASS, series=series, cost=cost,
                sentence="The model is right on 96.4 % of 1,000 unchanged images (95.0 to 97.4 %)."),
        finding("clean", "clean", "loss", 0.1312, unit="nats", higher_is_better=False, cost=cost,
                interval=Interval(low=0.101, high=0.166, method="bootstrap"),
                sentence="The mean loss on unchanged images is 0.131 nats."),
    ]  # fmt: skip


def adversarial(run: Path | None, pictures: int) -> list[Finding]:
    found: list[Finding] = []
    curves = {"pgd-linf": (0.95, 0.91, 0.78, 0.431, 0.08), "apgd-linf": (0.95, 0.90, 0.75, 0.395, 0.04)}
    for check, values in curves.items():
        cost = Cost(forwards=41_000, backwards=40_000, verifications=570, idle_forwards=90, padding_forwards=1200)
        for eps, value in zip(EPS, values, strict=True):
            parameters = {"norm": "linf", "eps": eps, "attack": check.split("-")[0], "steps": 40, "restarts": 1}
            tag = format(eps, ".6g")
            fails = check == "pgd-linf" and eps == 8 / 255
            series = curve(EPS, values) if eps == EPS[-1] else {}
            found.append(
                finding(check, "adversarial", f"robust_accuracy@{tag}", value, parameters=parameters, cost=cost,
                        status=Status.FAIL if fails else Status.MEASURED, series=series,
                        evidence=shown(run, check, eps, pictures if fails else 0),
                        sentence=f"{value:.1%} of the images stay right when each pixel may move by {eps:.3g}.")
            )  # fmt: skip
            found.append(
                finding(check, "adversarial", f"success@{tag}", 1 - value / 0.964, parameters=parameters, cost=cost,
                        n=964, higher_is_better=False, sentence="Share of right answers that the attack turned wrong.")
            )  # fmt: skip
    flag = Flag(
        code="E431", level="unreliable", text="Gradients vanish on 31 % of the samples.", families=("adversarial",)
    )
    found += [
        finding("pgd-l2", "adversarial", "robust_accuracy@0.5", 0.812, status=Status.UNRELIABLE, flags=(flag,),
                parameters={"norm": "l2", "eps": 0.5, "attack": "pgd"}, series=curve((0.25, 0.5), (0.9, 0.812)),
                reason="Gradients vanish on 31 % of the samples, so the attack had nothing to follow.",
                sentence="81.2 % survived, but the attack was blind on a third of them."),
        finding("fgsm-l1", "adversarial", "robust_accuracy@2", None, n=0, status=Status.ERROR, interval=None,
                parameters={"norm": "l1", "eps": 2.0, "attack": "fgsm"},
                reason="The model raised on sample 311: CUDA error: device-side assert.", sentence="No number."),
    ]  # fmt: skip
    return found


def curve(eps: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    intervals = [wilson(v, N) for v in (0.964, *values)]
    return {
        "eps": [0.0, *eps],
        "accuracy": [0.964, *values],
        "low": [i.low for i in intervals],
        "high": [i.high for i in intervals],
    }


def natural(run: Path | None, pictures: int) -> list[Finding]:
    found: list[Finding] = []
    slope = {"gaussian_noise": 0.05, "gaussian_blur": 0.09, "rotate": 0.15, "contrast": 0.02, "jpeg": 0.008}
    for name in PERTURBATIONS:
        check = f"natural-{name}"
        cost = Cost(forwards=5 * N)
        skipped = name == "jpeg"
        for severity in range(1, 6):
            value = max(0.1, 0.964 - slope[name] * severity**1.3)
            options = {"perturbation": name, "severity": severity}
            state = Status.NOT_MEASURED if skipped and severity > 3 else Status.MEASURED
            lost = (0.964 - value) * 100
            common = {
                "cost": cost,
                "parameters": options,
                "reason": "The time budget ended." if state != Status.MEASURED else "",
            }
            gone = state is Status.NOT_MEASURED
            found.append(
                finding(check, "natural", f"accuracy@{severity}", None if gone else value, status=state,
                        evidence=shown(run, check, None, 4 if name == "rotate" and severity == 3 and pictures else 0),
                        sentence=f"{value:.1%} right under {name} at severity {severity}.", **common)
            )  # fmt: skip
            found.append(
                finding(check, "natural", f"drop@{severity}", None if gone else lost, unit="points",
                        status=state if severity > 1 or gone else Status.PASS, higher_is_better=False,
                        interval=None if gone else Interval(low=lost - 1.2, high=lost + 1.3, method="paired"),
                        sentence=f"{lost:.1f} points are lost.", **common)
            )  # fmt: skip
        found.append(
            finding(check, "natural", "mean_accuracy", None if skipped else 0.93 - slope[name] * 2.9, cost=cost,
                    parameters={"perturbation": name}, reason="Two severities are missing." if skipped else "",
                    status=Status.NOT_MEASURED if skipped else Status.MEASURED,
                    sentence=f"Mean over the five severities of {name}.")
        )  # fmt: skip
    return found


def membership() -> list[Finding]:
    fpr = np.unique(np.concatenate([[1 / 400], np.logspace(np.log10(1 / 400), 0, 120)]))
    tpr = np.clip(fpr**0.83 * 1.02, fpr, 1)
    options = {"members": 400, "nonmembers": 400, "score": "loss"}
    cost = Cost(forwards=800)
    return [
        finding("loss", "membership", "auc", 0.534, n=800, unit="auc", higher_is_better=False, cost=cost,
                status=Status.PASS, interval=Interval(low=0.507, high=0.561, method="bootstrap"), parameters=options,
                series={"fpr": fpr.tolist(), "tpr": tpr.tolist()},
                sentence="An outsider who sees the loss tells members from others with AUC 0.534; 0.5 is guessing."),
        finding("loss", "membership", "tpr@0.1", 0.145, n=400, higher_is_better=False, cost=cost,
                parameters=options | {"fpr": 0.1}, sentence="At 10 % false alarms 14.5 % of the members are found."),
        finding("loss", "membership", "tpr@0.01", 0.0225, n=400, higher_is_better=False, cost=cost, status=Status.WARN,
                parameters=options | {"fpr": 0.01}, sentence="At 1 % false alarms 2.2 % of the members are found."),
        finding("loss", "membership", "tpr@0.001", None, n=400, higher_is_better=False, cost=cost, interval=None,
                status=Status.NOT_MEASURED, parameters=options | {"fpr": 0.001},
                reason="400 non-members were given; 10,000 are needed to measure 0.1 % false alarms.",
                sentence="There is no number for 0.1 % false alarms."),
    ]  # fmt: skip


@cache
def _digits() -> Any:
    return load_digits()


def shown(run: Path | None, check: str, eps: float | None, count: int) -> tuple[Evidence, ...]:
    """Evidence files of real digits (attacks: 8 x 8 grey) or coloured pictures (perturbations: 96 x 120)."""
    if run is None or not count:
        return ()
    digits = _digits()
    rng = np.random.default_rng(3)
    made: list[Evidence] = []
    for place in range(count):
        label = int(digits.target[place])
        if eps is None:
            x, y = np.meshgrid(np.linspace(0, 1, 120), np.linspace(0, 1, 96))
            picture = np.stack([x, y * 0.8, 0.5 + 0.5 * np.sin(9 * (x + y + place))]).astype(np.float32)
            changed = np.roll(picture, 9, axis=2)
            more: dict[str, Any] = {"perturbation": "rotate", "severity": 3}
        else:
            picture = (digits.images[place] / 16).astype(np.float32)[None]
            changed = np.clip(picture + eps * rng.choice([-1, 1], picture.shape), 0, 1).astype(np.float32)
            more = {"norm": "linf", "eps": eps, "distance": eps, "margin": 0.31 + place / 10}
        made.append(
            evidence(run, check, place, picture, changed, label=label, prediction=(label + 3) % 10,
                     label_name=names(10)[label], prediction_name=names(10)[(label + 3) % 10],
                     name=f"test/{label}/{place:05d}.png", **more)
        )  # fmt: skip
    return tuple(made)


def evidence(run: Path, check: str, place: int, clean: Any, changed: Any, **data: Any) -> Evidence:
    content = save({"clean": np.ascontiguousarray(clean), "changed": np.ascontiguousarray(changed)})
    folder = run / "evidence"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
    (folder / name).write_bytes(content)
    sample = int(hashlib.sha256(str(place).encode()).hexdigest()[:15], 16)
    kind = "perturbed" if "severity" in data else "adversarial"
    return Evidence(finding=f"{check}-{place:04x}", kind=kind, file=f"evidence/{name}", sample=str(sample), data=data)


def passing(run: Path | None = None) -> Results:
    """The same run with nothing wrong: every gate holds, nothing is missing."""
    whole = results(run)
    good = {Status.MEASURED, Status.PASS}
    checks = {"pgd-l2", "fgsm-l1", "natural-jpeg"}
    found = [
        replace(f, flags=(), status=Status.PASS if f.status in {Status.FAIL, Status.WARN} else f.status)
        for f in whole.findings
        if f.check not in checks and (f.status in good or f.value is not None)
    ]
    gates = tuple(
        replace(g, status=Status.PASS, observed=g.observed or 0.5, sentence=f"{g.gate} holds.")
        for g in whole.gates
        if g.required
    )
    said = ("All 7 required gates hold.", "The weakest number is 43.1 % under an L∞ change of 8/255.")
    kept = [check for check in whole.plan["checks"] if check["id"] not in checks]
    return replace(
        whole,
        findings=tuple(found),
        gates=gates,
        left_out=(),
        plan={**whole.plan, "checks": kept},
        verdict=Verdict(exit_code=0, word="PASS", sentences=said),
    )


def refused() -> Results:
    """Preflight found a model that cannot be measured: nothing else ran."""
    whole = results()
    failed = finding(
        "preflight", "preflight", "ok", 0.0, n=4, interval=None, status=Status.UNRELIABLE,
        sentence="The model gave NaN on 3 of 64 samples.", reason="The model gave NaN on 3 of 64 samples.",
        flags=(Flag(code="E402", level="unreliable", text="The model's outputs are not finite on 3 of 64 samples."),),
    )  # fmt: skip
    said = ("The model could not be measured: its outputs are not finite on 3 of 64 samples.", "No check ran.")
    return replace(
        whole,
        findings=(failed,),
        gates=(gate("preflight.ok value >= 1", "preflight.ok", Status.FAIL, 0.0, 1.0),),
        left_out=tuple(Left(name=c["id"], reason="Preflight failed before it could run.") for c in plan()["checks"]),
        verdict=Verdict(exit_code=3, word="ERROR", sentences=said),
    )
