"""What every attack must refuse, and what it must take as it comes: one function that plug-ins run on theirs.

    from vambrace.testing.refusals import check_refusals
    def test_mine():
        check_refusals(Mine(eps=0.1), eps=0.1)

Refused with a code and before the model is asked: integer images, arrays, inputs outside the bounds or not finite,
labels that are not classes or no whole numbers, goals and ids of another size, a batch of nothing, a radius that is
none, is wider than the box or is one a sample, a network that nobody wrapped, a model that gives too little. Taken: one
sample, strided and channels-last inputs, half precision (`testing.halves`), a goal that is reached already, logits that
are NaN at some points. A model that breaks its contract is named.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

import torch

from vambrace.attacks.nearest import Nearest
from vambrace.core.access import Access
from vambrace.core.goals import Targeted
from vambrace.errors import AccessError, ConfigError, ModelMisbehaved, VambraceError
from vambrace.testing.attacks import curved_problem
from vambrace.testing.counting import CountingModel
from vambrace.testing.halves import check_halves
from vambrace.testing.promises import Trial, check_holes, holds

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.access import Bounds
    from vambrace.search.outcome import Attacked
    from vambrace.testing.attacks import Function

__all__ = ["check_refusals"]


def check_refusals(attack: Any, *, eps: float, flat: bool = True) -> None:  # noqa: ANN401  options of any attack
    """Raise `AssertionError` unless the attack refuses what cannot be meant, and takes what can.

    Args:
        attack: the options.
        eps: the scale of the changes that it makes: its radius, or the distance that it may be expected to need.
        flat: whether it works on samples that are no images.
    """
    needs = Access(getattr(attack, "needs", Access.GRADIENTS))
    function, bounds, inputs, labels = curved_problem(eps, 6)

    def model(**how: Any) -> CountingModel:
        given: dict[str, Any] = {"access": needs, "bounds": bounds, "num_classes": 3, "dtype": torch.float64}
        return CountingModel(function, **(given | how))

    def refused(
        code: str, kind: type[VambraceError], *arguments: Any, asked: CountingModel | _Bare | None = None, **how: Any
    ) -> None:
        subject = model() if asked is None else asked
        try:
            attack(subject, *arguments, **how)
        except kind as error:
            holds(error.code == code, f"{error.code} in place of {code}: {error}")
            holds(subject.forward_rows == 0, f"{code} is said after the model was asked")
        else:
            raise AssertionError(f"nothing is said where {code} is due")

    refused("E131", ConfigError, (inputs * 10).to(torch.uint8), labels)
    refused("E131", ConfigError, inputs.tolist(), labels)
    refused("E132", ConfigError, inputs + 100 * eps, labels)
    refused("E132", ConfigError, inputs.index_fill(0, torch.tensor([2]), math.nan), labels)
    for wrong in (labels.float(), labels.int(), labels.numpy()):
        refused("E108", ConfigError, inputs, wrong)
    refused("E133", ConfigError, inputs, labels + 3)
    refused("E133", ConfigError, inputs, labels - 3)
    refused("E134", ConfigError, inputs, labels[:4])
    refused("E136", ConfigError, inputs, labels, ids=torch.zeros(6, dtype=torch.int64))
    refused("E138", ConfigError, inputs, labels, batch_size=0)
    refused("E138", ConfigError, inputs, labels, batch_size=2.5)
    refused("E110", AccessError, inputs, labels, asked=_Bare(function))
    for radius in (math.nan, -eps, str(eps), torch.full((6,), eps)):
        _check_radius(attack, radius, "E130", model(), inputs, labels)
    _check_radius(attack, 1e6 * eps, "E139", model(), inputs, labels)
    if needs > Access.LABELS:
        refused("E110", AccessError, inputs, labels, asked=model(access=Access(needs - 1)))
    _check_forms(attack, model, inputs, labels)
    check_halves(attack, eps=eps, flat=flat)
    if flat:
        weights = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3) / eps
        rows = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * bounds.high
        found = attack(_model_of(_rows(weights), bounds, needs), rows, (rows @ weights).argmax(dim=1))
        holds(found.adversarial.shape == rows.shape, "features come back in another shape")
    _check_broken_model(attack, model, inputs, labels)
    # On a model that gives more than labels, what needs no more sees logits.
    check_holes(attack, Trial(function, bounds, inputs, labels))


class _Bare:
    """A network that nobody made a model of: it says neither what it gives nor what it takes."""

    forward_rows = 0

    def __init__(self, function: Function) -> None:
        self._function = function

    def __call__(self, points: Tensor) -> Tensor:
        self.forward_rows += len(points)
        return self._function(points)


def _check_radius(attack: Any, radius: object, code: str, model: CountingModel, *arguments: Tensor) -> None:  # noqa: ANN401
    """Refused when the options are made, or when the attack is called; and before the model is asked."""
    try:
        dataclasses.replace(attack, eps=radius)(model, *arguments)
    except ConfigError as error:
        holds(error.code == code, f"with eps {radius!r} {error.code} in place of {code}: {error}")
        holds(model.forward_rows == 0, f"with eps {radius!r} {code} is said after the model was asked")
    else:
        raise AssertionError(f"nothing is said about eps {radius!r}")


def _model_of(function: Function, bounds: Bounds | None, access: Access) -> CountingModel:
    """A counting model in float64 over `function`."""
    return CountingModel(function, access=access, bounds=bounds, dtype=torch.float64)


def _rows(weights: Tensor) -> Function:
    """A linear model of rows."""
    return lambda points: points @ weights


def _check_forms(
    attack: Any,  # noqa: ANN401
    model: Any,  # noqa: ANN401
    inputs: Tensor,
    labels: Tensor,
) -> None:
    whole: Attacked = attack(model(), inputs, labels)
    strided = torch.stack((inputs, inputs), dim=-1)[..., 0]
    for form, how in ((strided, "strided"), (inputs.contiguous(memory_format=torch.channels_last), "channels-last")):
        other = attack(model(), form, labels)
        holds(torch.equal(other.success, whole.success), f"{how} inputs have another outcome")
        holds(torch.allclose(other.adversarial, whole.adversarial, atol=1e-9), f"{how} inputs have other points")
    one = attack(model(), inputs[:1], labels[:1])
    holds(torch.equal(one.success, whole.success[:1]), "one sample alone has another outcome")
    if (
        getattr(attack, "targets", None) is None
    ):  # what aims at classes in turn flees a label, and has no goal of its own
        there = attack(model(), inputs, Targeted(labels), start=inputs)
        holds(bool(there.success.all()), "a target that is the present class is not a success")
        if isinstance(attack, Nearest):
            holds(bool((there.distance == 0).all()), "a goal that is reached at the input costs a change")


def _check_broken_model(attack: Any, model: Any, inputs: Tensor, labels: Tensor) -> None:  # noqa: ANN401
    asked = model()
    asked._function = cast("Any", _in_a_tuple)  # noqa: SLF001
    try:
        attack(asked, inputs, labels)
    except (ModelMisbehaved, AttributeError, TypeError) as error:
        if asked.access > Access.LABELS:
            holds(isinstance(error, ModelMisbehaved) and error.code == "E401", f"a tuple of logits gives {error!r}")
    else:
        raise AssertionError("a model that gives a tuple is believed")


def _in_a_tuple(points: Tensor) -> tuple[Tensor]:
    return (points.flatten(1)[:, :3],)
