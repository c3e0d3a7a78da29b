"""One saved example, run through the model again: what `vambrace replay RUN FINDING` does.

A number that does not replay is not a number. Everything is taken from the saved file: the model must still give
the recorded predictions, before and after the change; the change, measured in float64, must lie inside its radius and
the model's bounds; and what is called adversarial must be classified wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from vambrace.assess.evidence import find_evidence, load_evidence
from vambrace.assess.facts import check_same_model, model_facts
from vambrace.assess.opening import open_model
from vambrace.assess.planfile import plan_from_json
from vambrace.assess.rundir import read_run_file
from vambrace.assess.worker import arithmetic
from vambrace.errors import ConfigError
from vambrace.ops.norms import distances

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from vambrace.core.options import Norm
    from vambrace.models.contract import Model

__all__ = ["Replayed", "replay"]

UNRELIABLE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a saved example did this time.

    Attributes:
        finding: its id.
        recorded: the recorded prediction on the changed input.
        prediction: the prediction now.
        label: the true class.
        clean_recorded: the recorded prediction on the unchanged input, or None where there is none.
        clean_prediction: the prediction on it now.
        wrong: whether the prediction must not be the true class, because the example is adversarial.
        distance: size of the change in `norm`, measured in float64; None where no norm is recorded.
        norm: what it is measured in, or "".
        eps: the radius it must lie in, or None.
        inside: whether the changed input lies inside the model's bounds.
    """

    finding: str
    recorded: int
    prediction: int
    label: int
    clean_recorded: int | None
    clean_prediction: int
    wrong: bool
    distance: float | None
    norm: str
    eps: float | None
    inside: bool

    @property
    def holds(self) -> bool:
        """Whether prediction and constraint are what was recorded; a radius without a distance does not hold."""
        within = self.eps is None or (self.distance is not None and self.distance <= self.eps)
        same = self.prediction == self.recorded and self.clean_recorded in {None, self.clean_prediction}
        return same and within and self.inside and not (self.wrong and self.prediction == self.label)

    @property
    def exit_code(self) -> int:
        """0 when it holds, 5 (unreliable) when it does not."""
        return 0 if self.holds else UNRELIABLE

    def lines(self) -> list[str]:
        """The outcome for people."""
        size = "" if self.distance is None else f"{self.norm} distance {self.distance:.6g}"
        limit = "" if self.eps is None else f" (radius {self.eps:.6g})"
        return [
            f"example     {self.finding}",
            f"true class  {self.label}",
            f"prediction  {self.prediction} now, {self.recorded} recorded",
            *(
                []
                if self.clean_recorded is None
                else [f"unchanged   {self.clean_prediction} now, {self.clean_recorded} recorded"]
            ),
            *([f"change      {size}{limit}"] if size else []),
            f"bounds      {'inside' if self.inside else 'OUTSIDE'}",
            "holds       the finding is reproduced" if self.holds else "DOES NOT HOLD: the finding is unreliable",
        ]


def replay(run: Path, finding: str, *, model: Model | None = None) -> Replayed:
    """Run the saved example `finding` of the run directory `run` through the model again.

    Args:
        run: a run directory.
        finding: id of the example, as the report shows it.
        model: the model of a run that was made in memory; None: opened from the run's plan.

    Raises:
        ConfigError: E500, E501, E510, E511, E584 for what is missing or damaged; E503, E505 for another model; E512
            for a run whose model was given in memory.
        ModelRefused: when the model cannot be opened.
    """
    file = read_run_file(run)
    plan = plan_from_json(file.plan)
    evidence = find_evidence(run, finding)
    data = evidence.data
    if lost := [name for name in ("label", "prediction") if not isinstance(data.get(name), int)]:
        raise ConfigError(
            "E584",
            seen=f"the saved example {finding!r} without {' and '.join(lost)}",
            expected="an example that says what the model answered",
            fix="ask the author of the check that saved it to record both",
        )
    pair = load_evidence(run, evidence.file)
    with arithmetic(plan), torch.no_grad():
        if model is None:
            model = open_model(plan)
            check_same_model(cast("Mapping[str, Any]", file.facts["model"]), model_facts(model))
        clean, prediction = (
            int(model.predict(part.unsqueeze(0).to(model.device, model.dtype))) for part in (pair.clean, pair.changed)
        )
    norm = str(data.get("norm") or "")
    return Replayed(
        finding=finding,
        recorded=int(data["prediction"]),
        prediction=prediction,
        label=int(data["label"]),
        clean_recorded=data.get("clean_prediction"),
        clean_prediction=clean,
        wrong=evidence.kind == "adversarial",
        distance=_distance(pair.changed, pair.clean, cast("Norm", norm)) if norm else None,
        norm=norm,
        eps=None if data.get("eps") is None else float(data["eps"]),
        inside=model.bounds is None or bool(model.bounds.contains(pair.changed.unsqueeze(0))),
    )


def _distance(changed: Tensor, clean: Tensor, norm: Norm) -> float:
    return float(distances(changed.unsqueeze(0), clean.unsqueeze(0), norm))
