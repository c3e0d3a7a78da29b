"""What every value of a model is on a few inputs: the dynamic half of a de-obfuscator, which no disguise of text stops.

The model is run with all values of its main graph as outputs, unoptimised, and each run is boiled down to digests, so
that no more than one run's values are ever held. Values with equal digests in every run are taken to be the same; a
value whose digest never changes is taken to be a constant. Both are guesses from a sample, as an attacker's are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assets.obfuscate.measure.runtime import Network, Settings, clone, onnx

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.inputs import Rows

__all__ = ["Observed", "observe"]

Values = dict[str, "NDArray[Any]"]


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What the values of the main graph were.

    Attributes:
        digests: name -> one digest a run; equal digests mean equal types, shapes and bytes.
        last: name -> its value in the last run.
        runs: how many.
    """

    digests: dict[str, tuple[bytes, ...]]
    last: Values
    runs: int

    def constant(self, name: str) -> bool:
        """Whether the value was the same in every run."""
        found = self.digests.get(name)
        return found is not None and len(set(found)) == 1


def observe(model: ModelProto, rows: Rows, *, watch: Callable[[Values], None] | None = None) -> Observed:
    """Run a model call by call over all rows.

    Args:
        model: an onnx.ModelProto without functions.
        rows: for its inputs, in order.
        watch: is shown all values of each run, inputs included.

    Raises:
        ArtifactRefused: E821 or E822, where it does not run.
    """
    exposed = clone(model)
    there = {each.name for each in exposed.graph.output}
    names = [name for node in exposed.graph.node for name in node.output if name and name not in there]
    exposed.graph.output.extend([onnx().ValueInfoProto(name=name) for name in names])
    network = Network(exposed, Settings(level="disabled"))
    digests: dict[str, list[bytes]] = {name: [] for name in network.outputs}
    values: Values = {}
    runs = 0
    for _, arrays in rows.calls():
        given: list[Any] = network.run(arrays)
        # Sequences, which are no arrays, are left alone.
        values = {name: value for name, value in zip(network.outputs, given, strict=True) if hasattr(value, "dtype")}
        values |= {each.name: array for each, array in zip(network.inputs, arrays, strict=True)}
        for name, value in values.items():
            digests.setdefault(name, []).append(_digest(value))
        runs += 1
        if watch is not None:
            watch(values)
    return Observed({name: tuple(found) for name, found in digests.items()}, values, runs)


def _digest(value: NDArray[Any]) -> bytes:
    head = f"{value.dtype}{value.shape}".encode()
    whole = np.ascontiguousarray(value)
    body = repr(whole.tolist()).encode() if whole.dtype.kind == "O" else whole.tobytes()
    return hashlib.blake2b(head + body, digest_size=16).digest()
