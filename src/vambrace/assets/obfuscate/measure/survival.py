"""Whether what was hidden stays hidden when somebody simplifies the file with the tools that everybody has.

Each tool is applied to the obfuscated model and to the original. What it leaves of the first is held against the
original as it was and against what the same tool leaves of the original, and the larger similarity counts: somebody who
suspects an original can simplify that too.

`risen` says by how much a similarity is larger than before the tool, from 0 to 1, and `brought` how much of that is the
original's: a tool that writes every graph in one way makes all more alike, so what it raises for unrelated networks
(`vambrace.assets.obfuscate.measure.strangers`) is taken off. Order kept in a longer sequence is not counted, because a
tool that shortens the original raises it by chance. A tool that is not installed or fails is not measured, which is not
the same as withstood.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, cast

from vambrace.assets.obfuscate.measure.readability import JUDGED, Readability, read_structure
from vambrace.assets.obfuscate.measure.runtime import clone, optimised, simplifier
from vambrace.assets.obfuscate.measure.strangers import control
from vambrace.core.reason import reason
from vambrace.errors import ArtifactRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

    from vambrace.assets.obfuscate.measure.strangers import Control

__all__ = ["Survived", "TOOLS", "Tool", "try_tools"]

Tool = Literal["ort-basic", "ort-extended", "ort-all", "onnxsim", "onnxslim"]
TOOLS: tuple[Tool, ...] = ("ort-basic", "ort-extended", "ort-all", "onnxsim", "onnxslim")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survived:
    """What one tool brought back.

    Attributes:
        tool: its name.
        measured: whether it ran on both models.
        why: why not.
        after: of what it left of the obfuscated model, beside the original.
        after_both: the same beside what it left of the original.
        risen: similarity -> by how much it rose, 0 to 1; empty where not measured.
        brought: similarity -> how much of that the tool does not do for unrelated networks; empty where not measured.
        control: what it does for those; None where it fails on too many, and nothing is taken off.
        hidden: 1 less the lowest of the same similarities before: no more can come back.
    """

    tool: Tool
    measured: bool
    why: str
    after: Readability | None
    after_both: Readability | None
    risen: dict[str, float]
    brought: dict[str, float]
    control: Control | None
    hidden: float

    @property
    def most(self) -> float | None:
        """The largest of `brought`; None where not measured."""
        return max(self.brought.values(), default=None) if self.measured else None

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        return {
            "tool": self.tool,
            "measured": self.measured,
            "why": self.why,
            "after": self.after.as_json() if self.after else None,
            "after_both": self.after_both.as_json() if self.after_both else None,
            "risen": self.risen,
            "brought": self.brought,
            "control": asdict(self.control) if self.control else None,
            "hidden": self.hidden,
        }


def try_tools(
    original: ModelProto, obfuscated: ModelProto, before: Readability, *, tools: tuple[Tool, ...] = TOOLS
) -> tuple[Survived, ...]:
    """What each tool brings back of an original whose readability in the obfuscated file is `before`."""
    return tuple(_survived(tool, original, obfuscated, before) for tool in tools)


def _survived(tool: Tool, original: ModelProto, obfuscated: ModelProto, before: Readability) -> Survived:
    run = _runner(tool)
    if run is None:
        return _not_measured(tool, "the package is not installed")
    try:
        plain, left = run(clone(original)), run(clone(obfuscated))
        others = control(obfuscated, left, tool, run)
    except ArtifactRefused as error:
        return _not_measured(tool, error.seen)
    except Exception as error:  # a third party's tool may fail in its own way on any model
        _LOG.info("%s failed", tool, exc_info=True)
        return _not_measured(tool, f"it failed: {reason(error, 160)}")
    after, both = read_structure(original, left), read_structure(plain, left)
    known = {name: _of(before, name) for name in JUDGED}
    reached = {name: max(_of(after, name), _of(both, name)) for name in JUDGED}
    return Survived(
        tool=tool,
        measured=True,
        why="",
        after=after,
        after_both=both,
        risen={name: max(0.0, reached[name] - known[name]) for name in JUDGED},
        brought={
            name: others.beyond(name, known[name], reached[name]) if others else max(0.0, reached[name] - known[name])
            for name in JUDGED
        },
        control=others,
        hidden=1.0 - min(known.values()),
    )


def _of(found: Readability, name: str) -> float:
    return float(getattr(found, name))


def _runner(tool: Tool) -> Callable[[ModelProto], ModelProto] | None:
    if tool.startswith("ort-"):
        level = cast("Literal['basic', 'extended', 'all']", tool.removeprefix("ort-"))
        return lambda model: optimised(model, level)
    return simplifier(cast("Literal['onnxsim', 'onnxslim']", tool))


def _not_measured(tool: Tool, why: str) -> Survived:
    return Survived(
        tool=tool, measured=False, why=why, after=None, after_both=None, risen={}, brought={}, control=None, hidden=0.0
    )
