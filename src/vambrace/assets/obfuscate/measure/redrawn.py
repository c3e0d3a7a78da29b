"""Networks of the same graph with weights drawn anew: what they have in common with a network is no knowledge of it.

Any network of a graph may rank pictures by brightness, or name the place of a cell for the cell itself. So what a
locked file shares with its original counts only beyond what these do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.openness import as_tensors, open_tensors
from vambrace.assets.obfuscate.roles import held_tensors, stated_tensors, staying
from vambrace.assets.obfuscate.stored import bytes_of, element, in_a_byte, store
from vambrace.models.onnx_file import onnx_package

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.roles import Role
    from vambrace.core.rng import Streams

__all__ = ["Redrawing"]


class Redrawing:
    """Of one network."""

    def __init__(self, model: ModelProto) -> None:
        """Copy it, and see what may be drawn anew."""
        self._model = onnx_package().ModelProto()
        self._model.CopyFrom(model)
        as_tensors(self._model)
        self._roles: list[Role | None] = [each.role for each in held_tensors(self._model)]
        self.whole = not open_tensors(self._model) and any(self._roles)
        """Whether all weights can be: else some would stay the network's own, and share with it what they know."""

    def draw(self, rng: Streams) -> ModelProto:
        """Floating weights normal with the mean square that they had, others in another order."""
        made = onnx_package().ModelProto()
        made.CopyFrom(self._model)
        draw = np.random.default_rng(rng.key)
        for (_, _, tensor, _), role in zip(stated_tensors(made), self._roles, strict=True):
            if role is not None:
                _redraw(tensor, role, draw)
        return made


def _redraw(tensor: Any, role: Role, draw: np.random.Generator) -> None:  # noqa: ANN401  onnx.TensorProto
    raw = bytes_of(tensor)
    array: NDArray[Any] = onnx_package().numpy_helper.to_array(tensor)
    if role in {"signed", "apart"} and array.dtype.kind in "fV" and in_a_byte(tensor) == 1:
        wide = array.astype(np.float64)
        size = math.sqrt(float(np.square(wide, where=np.isfinite(wide), out=np.zeros_like(wide)).mean()))
        store(tensor, (size * draw.standard_normal(array.shape)).astype(array.dtype).tobytes())
        return
    width, _ = element(tensor, raw)
    elements = np.frombuffer(raw, f"<u{width}").copy()
    moves = np.ones(elements.size, np.bool_)
    if role == "kept":
        moves = ~staying(array.reshape(-1), in_a_byte(tensor))[:: in_a_byte(tensor)]
    elements[moves] = draw.permutation(elements[moves])
    store(tensor, elements.tobytes())
