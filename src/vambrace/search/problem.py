"""The world of one search, checked once at the border: `Problem`, and `pose` that makes one from a caller's arguments.

Everything a caller can get wrong is said here, before the model is asked anything. Integer images, images outside
the model's box, an `eps` meant in 1/255, labels that are not classes: each is an error that names its fix, because
each otherwise gives a number that looks fine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, cast

import torch

from vambrace.core.goals import Goal, Targeted, Untargeted, as_goal
from vambrace.core.options import require
from vambrace.core.rng import as_streams

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.options import Norm
    from vambrace.core.rng import Streams
    from vambrace.models.contract import Model

__all__ = ["Problem", "batch_rows", "pose", "require_classes", "require_radius"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Problem:
    """Checked arguments of a search over n samples.

    Attributes:
        model: what is attacked.
        inputs: float (n, ...), n >= 0, on the model's device, inside its bounds, without gradient.
        goal: of n samples; plain goals have int64 classes on the same device.
        rng: the stream of the search.
        ids: int64 (n,), distinct, on the same device.
        start: start points like `inputs`, or None.
        batch_size: physical rows a forward, >= 1.
        quantised: whether a success must be one as 8-bit images save it, and is handed back like that.
        withheld: whether a success ends no search, because the points are meant for another model: every step is run.
    """

    model: Model
    inputs: Tensor
    goal: Goal
    rng: Streams
    ids: Tensor
    start: Tensor | None
    batch_size: int
    quantised: bool = False
    withheld: bool = False

    @property
    def most_class(self) -> int:
        """The largest class that the goal names; -1 where it names none."""
        named = _named_classes(self.goal)
        return -1 if named is None else int(named.max())

    def take(self, index: Tensor) -> Problem:
        """The problem of the samples at `index`, int64 (m,), in that order."""
        return replace(
            self,
            inputs=self.inputs[index],
            goal=self.goal.take(index),
            ids=self.ids[index],
            start=None if self.start is None else self.start[index],
        )


def pose(
    model: Model,
    inputs: Tensor,
    goal: Goal | Tensor,
    *,
    rng: Streams | int,
    ids: Tensor | None,
    start: Tensor | None,
    batch_size: int | None,
    quantised: bool = False,
) -> Problem:
    """Check and normalise a caller's arguments; the data itself is not copied.

    Raises:
        ConfigError: E108, E131 to E134, E136 to E138, E142; their pages say what each means.
    """
    for name, given, code in (("inputs", inputs, "E131"), ("ids", ids, "E136"), ("start", start, "E137")):
        _require_tensor(name, given, code)
    inputs = inputs.detach()
    _require_inputs(model, inputs)
    require(
        not quantised or model.bounds is not None,
        seen="quantised on a model without bounds",
        expected="bounds, whose ends are the levels 0 and 255",
        fix="state the model's bounds, or leave quantised out",
        code="E142",
    )
    return Problem(
        model=model,
        inputs=inputs,
        goal=_usable_goal(as_goal(goal), inputs, model.num_classes),
        rng=as_streams(rng),
        ids=_usable_ids(ids, inputs),
        start=None if start is None else _usable_start(start.detach(), inputs),
        batch_size=batch_rows(batch_size, inputs.device),
        quantised=quantised,
    )


def batch_rows(batch_size: int | None, device: torch.device) -> int:
    """The physical batch: the caller's, else 512, or 128 on CPU: larger leaves the cache, smaller waits for Python."""
    if batch_size is None:
        return 128 if device.type == "cpu" else 512
    require(
        isinstance(batch_size, Integral) and batch_size >= 1,  # pyright: ignore[reportUnnecessaryIsInstance]
        seen=f"batch_size {batch_size}",
        expected="a whole number, at least 1",
        fix="leave batch_size out, or give a positive number",
        code="E138",
    )
    return int(batch_size)


def require_radius(eps: float, norm: Norm, model: Model, inputs: Tensor) -> None:
    """Raise `ConfigError` E139 when `eps` is wider than the whole box: nearly always 8 in place of 8/255."""
    if model.bounds is None or not inputs.shape[0]:
        return
    features = math.prod(inputs.shape[1:])
    widest = model.bounds.span * {"l1": features, "l2": math.sqrt(features)}.get(norm, 1.0)
    widest = features if norm == "l0" else widest
    require(
        eps <= widest,
        seen=f"eps {eps:g} in {norm}, where the widest possible change is {widest:g}",
        expected="a radius in the units of the inputs",
        fix=f"write eps={eps:g}/255 if you meant grey levels of images in (0, 1)",
        code="E139",
    )


def require_classes(*, least: int, most: int, classes: int | None) -> None:
    """Raise `ConfigError` E133 unless classes from `least` to `most` exist among `classes` (None: not known yet)."""
    require(
        least >= 0 and (classes is None or most < classes),
        seen=f"classes from {least} to {most}",
        expected="0 or more" if classes is None else f"0 to {classes - 1}, the model's classes",
        fix="check that labels start at 0 and belong to this model",
        code="E133",
    )


def _require_tensor(name: str, given: object, code: str) -> None:
    dense = isinstance(given, torch.Tensor) and given.layout == torch.strided
    require(
        not (isinstance(given, torch.Tensor) and given.is_meta),
        seen=f"{name} on the meta device, which holds no values",
        expected="a tensor of numbers",
        fix=f"make the {name} outside of torch.device('meta')",
        code=code,
    )
    require(
        dense or (given is None and name != "inputs"),
        seen=f"{name} that are a {'sparse ' if isinstance(given, torch.Tensor) else ''}{type(given).__name__}",
        expected="a dense tensor",
        fix=f"give {name}.to_dense()" if isinstance(given, torch.Tensor) else f"give torch.as_tensor({name})",
        code=code,
    )


def _require_inputs(model: Model, inputs: Tensor) -> None:
    require(
        inputs.is_floating_point(),
        seen=f"inputs of dtype {inputs.dtype}",
        expected="floating point inputs in the units of the model's bounds",
        fix="convert first, such as images.float() / 255 for bounds (0, 1)",
        code="E131",
    )
    require(
        inputs.dim() >= 2 and math.prod(inputs.shape[1:]) > 0,
        seen=f"inputs of shape {tuple(inputs.shape)}",
        expected="(n, ...) with the samples along the first dimension",
        fix="give one sample as inputs[None]",
        code="E131",
    )
    shape = model.input_shape
    require(
        shape is None or tuple(shape) == tuple(inputs.shape[1:]),
        seen=f"samples of shape {tuple(inputs.shape[1:])}",
        expected=f"samples of shape {shape}, as the model takes them",
        fix="reshape or resize the inputs",
        code="E131",
    )
    require(
        _same(inputs.device, torch.device(model.device)) or not inputs.shape[0],
        seen=f"inputs on {inputs.device} and a model on {model.device}",
        expected="both on one device",
        fix="move the inputs with inputs.to(model.device)",
        code="E131",
    )
    bounds = model.bounds
    inside = inputs.flatten(1).isfinite().all(dim=1) if bounds is None else bounds.to(inputs).contains(inputs)
    if bool(inside.all()):
        return
    worst = inputs[int((~inside).nonzero()[0])]
    require(
        False,
        seen=f"{int((~inside).sum())} of {len(inside)} samples outside the box, the first one from"
        f" {float(worst.min()):.9g} to {float(worst.max()):.9g}",
        expected="finite inputs" if bounds is None else f"inputs inside {_named(bounds.as_json())}",
        fix="scale the inputs to the model's bounds; if only rounding is at fault, use model.bounds.clip(inputs)",
        code="E132",
    )


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def _named(ends: object) -> str:
    text = str(ends)
    return text if len(text) < 60 else "the model's per-feature bounds"


def _usable_goal(goal: Goal, inputs: Tensor, classes: int | None) -> Goal:
    require(
        goal.size == inputs.shape[0],
        seen=f"a goal for {goal.size} samples and {inputs.shape[0]} inputs",
        expected="one condition per sample",
        fix="give as many labels as inputs",
        code="E134",
    )
    named = _named_classes(goal)
    if named is None or not len(named):
        return goal
    require(
        not named.is_meta,
        seen="classes on the meta device, which holds no values",
        expected="one class a sample",
        fix="make the labels outside of torch.device('meta')",
        code="E134",
    )
    require_classes(least=int(named.min()), most=int(named.max()), classes=classes)
    if named.device == inputs.device:
        return goal
    moved = named.to(inputs.device)
    return (
        replace(goal, labels=moved) if isinstance(goal, Untargeted) else replace(cast("Targeted", goal), classes=moved)
    )


def _named_classes(goal: Goal) -> Tensor | None:
    return goal.labels if isinstance(goal, Untargeted) else goal.classes if isinstance(goal, Targeted) else None


def _usable_ids(ids: Tensor | None, inputs: Tensor) -> Tensor:
    if ids is None:
        return torch.arange(inputs.shape[0], device=inputs.device)
    require(
        ids.dtype == torch.int64 and tuple(ids.shape) == (inputs.shape[0],),
        seen=f"ids of shape {tuple(ids.shape)} and dtype {ids.dtype}",
        expected=f"int64 of shape ({inputs.shape[0]},)",
        fix="give one id per input, or leave ids out to use positions",
        code="E136",
    )
    repeated = len(ids) - len(set(cast("list[int]", ids.tolist())))
    require(
        repeated == 0,
        seen=f"{repeated} ids that occur before",
        expected="distinct ids: samples with one id share their random draws",
        fix="give every sample its own id",
        code="E136",
    )
    return ids.to(inputs.device)


def _usable_start(start: Tensor, inputs: Tensor) -> Tensor:
    require(
        start.shape == inputs.shape and start.dtype == inputs.dtype and start.device == inputs.device,
        seen=f"start points of shape {tuple(start.shape)}, {start.dtype}, on {start.device}",
        expected=f"the form of the inputs: {tuple(inputs.shape)}, {inputs.dtype}, on {inputs.device}",
        fix="derive the start points from the inputs",
        code="E137",
    )
    require(
        bool(start.isfinite().all()),
        seen="start points that are not finite",
        expected="finite start points; they are projected into the allowed ball",
        fix="check how the start points were made",
        code="E137",
    )
    return start
