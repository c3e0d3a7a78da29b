"""What a network emits, made into logits or refused: the one place that knows a wrong form and its fix.

>>> import torch
>>> checked_logits(torch.tensor([[0.5, 0.5]]), 1, "probabilities").exp()
tensor([[0.5000, 0.5000]])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from vambrace.errors import ModelMisbehaved

if TYPE_CHECKING:
    from vambrace.models.contract import Outputs

__all__ = ["checked_logits"]

_SMALL = frozenset({torch.float16, torch.bfloat16})


def checked_logits(
    given: object, rows: int, outputs: Outputs, width: int | None = None, source: object = None
) -> Tensor:
    """The logits (rows, k) that `given` holds; half precision is widened to float32, values are not looked at.

    Probabilities are mapped by `log(max(p, smallest normal number))`: finite everywhere, with the true gradient
    wherever p is a normal number.

    Args:
        given: whatever the network returned.
        rows: how many samples it was asked about.
        outputs: what the network says it emits.
        width: how many columns it promised; None: any.
        source: the network, for the message.

    Raises:
        ModelMisbehaved: E401 not a dense tensor, E402 not two-dimensional or fewer than two columns, E403 another
            number of rows, E404 not floating.
    """
    if not _is_form(given, rows):
        raise _wrong_form(given, rows, _name(source))
    if width is not None and given.shape[1] != width:
        raise ModelMisbehaved(
            "E402",
            seen=f"{_name(source)} returned {given.shape[1]} columns",
            expected=f"the {width} classes that were declared",
            fix="correct num_classes, or check that weights and architecture belong together",
        )
    logits = given.float() if given.dtype in _SMALL else given
    if outputs == "probabilities":
        logits = logits.clamp(min=torch.finfo(logits.dtype).tiny).log()
    return logits


def _is_form(given: object, rows: int) -> TypeGuard[Tensor]:
    if not isinstance(given, Tensor) or given.layout != torch.strided or given.dim() != 2:
        return False
    return given.shape[0] == rows and given.shape[1] >= 2 and given.is_floating_point()


def _wrong_form(given: object, rows: int, name: str) -> ModelMisbehaved:
    if not isinstance(given, Tensor) or given.layout != torch.strided:
        layout = (
            f"a {str(given.layout).removeprefix('torch.')} tensor" if isinstance(given, Tensor) else _described(given)
        )
        return ModelMisbehaved(
            "E401",
            seen=f"{name} returned {layout}",
            expected="one tensor of logits (n, k)",
            fix="wrap the network in a module whose forward() returns only the logits, "
            "such as `return self.net(inputs)[0]` or `.logits`",
        )
    shape = tuple(given.shape)
    if given.dim() != 2 or given.shape[1] < 2:
        fix = (
            "return one column a class; for a single score s of a yes/no model: torch.stack([-s, s], dim=1)"
            if given.dim() <= 2
            else "reduce the outputs to (n, k), such as outputs.flatten(1) or a mean over positions"
        )
        return ModelMisbehaved("E402", seen=f"{name} returned shape {shape}", expected=f"({rows}, k), k >= 2", fix=fix)
    if given.shape[0] != rows:
        return ModelMisbehaved(
            "E403",
            seen=f"{name} returned {given.shape[0]} rows for {rows} samples",
            expected="one row a sample",
            fix="keep the batch dimension first through forward(); "
            "look for a reshape or mean that mixes it with another",
        )
    return ModelMisbehaved(
        "E404",
        seen=f"{name} returned {str(given.dtype).removeprefix('torch.')} values",
        expected="floating logits",
        fix="return the scores before argmax or rounding",
    )


def _name(source: object) -> str:
    return "the model" if source is None else type(source).__name__


def _described(given: object) -> str:
    if isinstance(given, Tensor):
        return f"a {str(given.layout).removeprefix('torch.')} tensor"
    kind = type(given).__name__
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    if isinstance(given, Mapping):
        return f"{article} {kind} with keys {', '.join(map(str, list(given)[:5]))}"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(given, tuple | list):
        return f"{article} {kind} of {len(given)}"  # pyright: ignore[reportUnknownArgumentType]
    return f"{article} {kind}" if given is not None else "None"
