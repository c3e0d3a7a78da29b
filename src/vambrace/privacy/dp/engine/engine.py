"""One module's engine: finds out how its parameters are used, proves it on a few samples, then gives clipped sums.

`prepare` runs the module on two small batches of different sizes to see where samples are, and holds the clipped sum of
a few samples against the gradients of the same samples one by one. What does not agree is never used: a module whose
samples influence one another is refused, and one that the tape cannot read is differentiated sample by sample under
`vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from vambrace.errors import ConfigError
from vambrace.privacy.dp.engine.clipped import Gathered, clip_and_add, gather, new_tape
from vambrace.privacy.dp.engine.pieces import WHY, Direct, wide
from vambrace.privacy.dp.engine.proof import Proof, checked_losses, short
from vambrace.privacy.dp.engine.quiet import Quiet
from vambrace.privacy.dp.engine.tape import NoRule, Place, place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.privacy.dp.engine.tape import Tape

__all__ = ["Added", "Engine", "Row", "Task"]

_COUNTS = ((3, 5), (5, 7), (7, 11), (11, 13))
"""Sizes of the two batches of a trace; others where one of them happens to be the size of something else."""

_CHUNK = 2**24
"""Elements of per-sample gradients that are written down at a time where there is no better way: 64 MiB."""


@dataclass(frozen=True, slots=True)
class Task:
    """A batch and what to do with it.

    Attributes:
        losses: runs the module and gives one loss a sample, (n,).
        count: n.
        leaves: the tensors of the batch, samples first.
        single: parameters by name and one sample of each leaf to its loss, a scalar; None where batches cannot be taken
            apart.
    """

    losses: Callable[[], Tensor]
    count: int
    leaves: tuple[Tensor, ...] = ()
    single: Callable[..., Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter in the table of a dry run.

    Attributes:
        name: of the parameter.
        size: elements.
        uses: functions that it was used in.
        method: "ghost", "instantiated", "direct", "rows", joined where there are several; "vmap"; "unused".
        why: in words.
    """

    name: str
    size: int
    uses: tuple[str, ...]
    method: str
    why: str


@dataclass(slots=True)
class Engine:
    """Clipped sums of one module.

    Attributes:
        module: whose trainable parameters count; nothing of it is changed.
        order: the norm that is clipped.
    """

    module: nn.Module
    order: Literal["l1", "l2"] = "l2"
    names: tuple[str, ...] = field(init=False)
    parameters: tuple[nn.Parameter, ...] = field(init=False)
    table: tuple[Row, ...] = field(init=False, default=())
    fallback: str = field(init=False, default="")
    _places: dict[tuple[int, int], Place] = field(init=False, default_factory=dict[tuple[int, int], Place])

    def __post_init__(self) -> None:
        named = [(name, each) for name, each in self.module.named_parameters() if each.requires_grad]
        self.names = tuple(name for name, _ in named)
        self.parameters = tuple(each for _, each in named)

    @property
    def size(self) -> int:
        """Trainable elements in all."""
        return sum(each.numel() for each in self.parameters)

    def prepare(self, task_of: Callable[[Sequence[int]], Task]) -> None:
        """Trace, choose, prove, and fill `table`.

        Args:
            task_of: numbers of samples, small ones, possibly repeated, to a task on them.

        Raises:
            ConfigError: E151 for samples that influence one another, E152 for a module that cannot be differentiated
                sample by sample, E153 for losses of the wrong form.
        """
        buffers = {name: each.clone() for name, each in self.module.named_buffers()}
        try:
            with torch.random.fork_rng(devices=[]), Quiet():
                proved = Proof(self.parameters, task_of)
                self._choose(task_of, proved)
        finally:
            for name, each in self.module.named_buffers():
                each.copy_(buffers[name])

    def add(
        self,
        task: Task,
        factors_of: Callable[[Tensor], Tensor],
        views: Sequence[Tensor],
        groups: Sequence[Sequence[int]],
        mask: Tensor | None = None,
    ) -> Added:
        """Add the clipped sum of a batch to `views`, one tensor a parameter, in place.

        Args:
            task: the batch.
            factors_of: norms (g, n) to clip factors (g, n).
            views: of the parameters' shapes, float32 or float64.
            groups: numbers of the parameters that are clipped together.
            mask: bool (n,), which rows are samples; None: all.
        """
        if self.fallback:
            return self._add_singly(task, factors_of, views, groups, mask)
        tape = new_tape(task.count, self.parameters, self.names, self._places)
        with tape:
            losses = checked_losses(task)
            kept = losses if mask is None else torch.where(mask, losses, 0.0)
            total = kept.sum()
        gathered = gather(tape, total)
        norms, counted = clip_and_add(
            gathered, groups, factors_of, views, count=task.count, mask=mask, order=self.order
        )
        return Added(norms, counted, losses.detach())

    def _choose(self, task_of: Callable[[Sequence[int]], Task], proved: Proof) -> None:
        reason = ""
        try:
            self._places = self._trace(task_of)
            tape, gathered = self._run(task_of(proved.rows), self._places)
            if proved.agrees(_written_down(gathered, self.parameters, len(proved.rows))):
                self.table = _table(self, gathered)
                return
            reason = "the rules for its layers gave other gradients than its own"
        except NoRule as missing:
            reason = f"no rule for {missing}"
        for way in ("vmap", "one by one"):
            self.fallback = way
            try:
                gradients = self._singly(task_of(proved.rows), slice(None))
            except RuntimeError as error:
                reason = f"{reason}; {way}: {short(error)}"
                continue
            if proved.agrees([each.flatten(1) for each in gradients]):
                uses = ("anything",)
                why = f"{reason}; all per-sample gradients are written down, in chunks"
                self.table = tuple(
                    Row(name, each.numel(), uses, way, why)
                    for name, each in zip(self.names, self.parameters, strict=True)
                )
                return
        raise ConfigError(
            "E152",
            seen=f"{type(self.module).__name__}: {reason}",
            expected="a module that gives one gradient a sample",
            fix="build it from layers that are supported (docs/privacy/dp-training.md), or freeze the parameters named",
        )

    def _trace(self, task_of: Callable[[Sequence[int]], Task]) -> dict[tuple[int, int], Place]:
        for one, two in _COUNTS:
            tapes = [self._forward(task_of(range(count)), None)[0] for count in (one, two)]
            shapes = [tape.shapes for tape in tapes]
            if shapes[0].keys() == shapes[1].keys():
                found = {key: place(shapes[0][key], shapes[1][key], one, two) for key in shapes[0]}
                if found == tapes[0].guesses == tapes[1].guesses:
                    return {key: where for key, where in found.items() if where is not None}
        raise NoRule(["parameters"], "a forward pass whose shapes do not follow the number of samples")

    def _forward(self, task: Task, places: Mapping[tuple[int, int], Place] | None) -> tuple[Tape, Tensor]:
        tape = new_tape(task.count, self.parameters, self.names, places)
        with tape:
            return tape, checked_losses(task).sum()

    def _run(self, task: Task, places: Mapping[tuple[int, int], Place]) -> tuple[Tape, Gathered]:
        tape, total = self._forward(task, places)
        return tape, gather(tape, total)

    def _add_singly(
        self,
        task: Task,
        factors_of: Callable[[Tensor], Tensor],
        views: Sequence[Tensor],
        groups: Sequence[Sequence[int]],
        mask: Tensor | None,
    ) -> Added:
        """A chunk of written-down gradients at a time, each used and let go."""
        rows = max(1, _CHUNK // max(1, self.size))
        parts: list[tuple[Tensor, Tensor]] = []
        for first in range(0, task.count, rows):
            chosen = slice(first, min(task.count, first + rows))
            gradients = self._singly(task, chosen)
            gathered = Gathered([[Direct(wide(each))] for each in gradients], [() for _ in gradients])
            part = None if mask is None else mask[chosen]
            count = chosen.stop - chosen.start
            parts.append(clip_and_add(gathered, groups, factors_of, views, count=count, mask=part, order=self.order))
        norms, counted = torch.cat([each[0] for each in parts], dim=1), torch.cat([each[1] for each in parts])
        return Added(norms, counted, None)

    def _singly(self, task: Task, rows: slice) -> tuple[Tensor, ...]:
        """Per-sample gradients (m, *shape) of some rows, by vmap or one after the other."""
        if task.single is None:
            raise RuntimeError("this batch cannot be taken apart into samples")
        values = {name: each.detach() for name, each in zip(self.names, self.parameters, strict=True)}
        leaves = [leaf[rows] for leaf in task.leaves]
        slope = torch.func.grad(task.single)
        if self.fallback == "vmap":
            dims = (None, *(0,) * len(leaves))
            found = torch.func.vmap(slope, in_dims=dims, randomness="different")(values, *leaves)
            return tuple(found[name] for name in self.names)
        each = [slope(values, *sample) for sample in zip(*leaves, strict=True)]
        return tuple(torch.stack([found[name] for found in each]) for name in self.names)


@dataclass(frozen=True, slots=True)
class Added:
    """What was added, for diagnostics.

    Attributes:
        norms: (g, n) before clipping; 0 where a sample does not count.
        counted: bool (n,): no padding, and a gradient that is finite.
        losses: (n,), where they are known.
    """

    norms: Tensor
    counted: Tensor
    losses: Tensor | None


def _written_down(gathered: Gathered, parameters: Sequence[Tensor], count: int) -> list[Tensor]:
    """Per-sample gradients (n, elements), one tensor a parameter."""
    found: list[Tensor] = []
    for pieces, parameter in zip(gathered.pieces, parameters, strict=True):
        total = parameter.detach().new_zeros(count, parameter.numel())
        for piece in pieces:
            total = total + piece.per_sample(slice(None)).flatten(1)
        found.append(total)
    return found


def _table(engine: Engine, gathered: Gathered) -> tuple[Row, ...]:
    rows: list[Row] = []
    for name, parameter, pieces, uses in zip(
        engine.names, engine.parameters, gathered.pieces, gathered.uses, strict=True
    ):
        methods = tuple(dict.fromkeys(piece.method for piece in pieces))
        why = " and ".join(WHY[method] for method in methods) or "no gradient arrives"
        rows.append(Row(name, parameter.numel(), uses, ", ".join(methods) or "unused", why))
    return tuple(rows)
