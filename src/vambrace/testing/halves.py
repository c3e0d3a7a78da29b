"""What every attack must do with inputs of half precision: one check, for the conformance kits to put together.

Half precision has no 1e-8, squares 300 to infinity, and holds no number between many a decision and its input. An
attack whose own arithmetic ends in NaN there blames the model, for which the sample is then unmeasured; one that gets
lost in rounding calls it robust. On small samples neither shows, so the check also tries samples of the size of images.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch

from vambrace.attacks.nearest import Nearest
from vambrace.core.access import Access, Bounds
from vambrace.core.goals import Untargeted
from vambrace.ops.norms import distances
from vambrace.testing.counting import CountingModel
from vambrace.testing.promises import Trial, check_form, holds

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.search.outcome import Attacked

__all__ = ["check_halves", "smooth_problem"]

_SHAPES = ((4,), (1, 8, 8), (3, 32, 32))
_TYPES = (torch.float16, torch.bfloat16)
_KEPT = 0.5
"""Share of the successes on single precision that must be there on half; walks by few queries part ways by chance."""
_FURTHER = 1.5
"""How many times as far as on single precision nearest points may lie in the median, beside what rounding explains."""


def check_halves(attack: Any, *, eps: float, flat: bool = True) -> None:  # noqa: ANN401  options of any attack
    """Raise `AssertionError` unless the attack does on half precision about what it does on single.

    Checked on a model that gives nothing but finite logits, on samples of several sizes: none is unmeasured; successes
    are successes, inside bounds and radius and as far away as they say, in float64; about as many as on the same
    numbers in float32; and for nearest points, about as near.

    Args:
        attack: the options.
        eps: the scale of the changes that it makes, as for `check_refusals`.
        flat: whether it works on samples that are no images.
    """
    for shape in _SHAPES if flat else _SHAPES[1:]:
        trial = smooth_problem(shape, eps)
        for dtype in _TYPES:
            inputs = trial.inputs.to(dtype)
            labels = trial.network(inputs).argmax(dim=1)
            model = _model(attack, trial)
            low, single = (attack(model, each, labels) for each in (inputs, inputs.float()))
            _check_pair(attack, low, single, trial, inputs, labels)


def smooth_problem(shape: tuple[int, ...], eps: float, n: int = 6) -> Trial:
    """A small network of three classes on samples of any shape, whose logits are finite everywhere.

    The inputs are numbers of bfloat16 and of float16; some lie at the ends of the box, whose width is five times eps.
    """
    generator = torch.Generator().manual_seed(7)
    features = math.prod(shape)
    inner = torch.randn(features, 24, generator=generator, dtype=torch.float64) / math.sqrt(features)
    outer = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    high = float(torch.tensor(5.0 * eps, dtype=torch.bfloat16))

    def network(points: Tensor) -> Tensor:
        return torch.tanh((points.double().flatten(1) / high - 0.5) @ inner * 2.0) @ outer

    wide = torch.rand(n, *shape, generator=generator, dtype=torch.float64) * 1.2 - 0.1
    inputs = (wide.clamp(0.0, 1.0) * high).to(torch.bfloat16).half().bfloat16().double()
    return Trial(network, Bounds(0.0, high), inputs, network(inputs).argmax(dim=1))


def _model(attack: Any, trial: Trial) -> CountingModel:  # noqa: ANN401
    access = Access(getattr(attack, "needs", Access.GRADIENTS))
    return CountingModel(trial.network, access=access, bounds=trial.bounds, num_classes=3)


def _check_pair(
    attack: Any,  # noqa: ANN401
    low: Attacked,
    single: Attacked,
    trial: Trial,
    inputs: Tensor,
    labels: Tensor,
) -> None:
    where = f"on {tuple(inputs.shape[1:])} in {str(inputs.dtype).removeprefix('torch.')}"
    check_form(low, inputs)
    points, size = low.adversarial, distances(low.adversarial, inputs, low.norm)
    holds(bool(low.finite.all()), f"{where} {int((~low.finite).sum())} samples are unmeasured, all logits being finite")
    holds(bool(points.isfinite().all()), f"{where} a point that is not finite")
    holds(bool(trial.bounds.contains(points.double()).all()), f"{where} a point outside the bounds")
    with torch.no_grad():
        reached = Untargeted(labels).margin(trial.network(points)) > 0
    holds(not bool((low.success & ~reached).any()), f"{where} a success that is none")
    holds(torch.allclose(size, low.distance, rtol=1e-9, atol=0), f"{where} distance is not what the points show")
    radius = cast("float | None", attack.eps)
    holds(radius is None or bool((size[low.success] <= radius).all()), f"{where} a success beyond the radius")
    found, wanted = int(low.success.sum()), int(single.success.sum())
    holds(found >= _KEPT * wanted, f"{where} {found} successes, where single precision has {wanted}")
    both = low.success & single.success
    if isinstance(attack, Nearest) and bool(both.any()):
        features = math.prod(inputs.shape[1:])
        grain = float(inputs.abs().max()) * torch.finfo(inputs.dtype).eps
        grain *= {"l0": 1.0 / grain, "l1": features, "l2": math.sqrt(features), "linf": 1.0}[low.norm]
        far, near = float(size[both].median()), float(single.distance[both].median())
        holds(far <= _FURTHER * near + grain, f"{where} {far:g} away in the median, and {near:g} on single precision")
