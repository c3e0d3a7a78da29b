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
from vambrace.privacy.dp.engine.crossing import refuse_modules
from vambrace.privacy.dp.engine.exact import unwarned
from vambrace.privacy.dp.engine.pieces import WHY, Direct, wide
from vambrace.privacy.dp.engine.proof import Proof, checked_losses, crossed, mixing, moved, short
from vambrace.privacy.dp.engine.quiet import Guarded, Start, quiet
from vambrace.privacy.dp.engine.tape import NoRule, Place, Places, place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.privacy.dp.engine.tape import Tape

__all__ = ["Added", "Engine", "Row", "Task"]

_COUNTS = ((3, 5), (5, 7), (7, 11), (11, 13))
"""Sizes of the two batches of a trace; others where one of them happens to be the size of something else."""

_MOVED = 0.1
"""How far parameters are moved while gradients are proved, as a share of their spread."""

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
    _places: dict[tuple[int, ...], tuple[Place, ...]] = field(
        init=False, default_factory=dict[tuple[int, ...], tuple[Place, ...]]
    )
    _ids: list[int] = field(init=False)

    def __post_init__(self) -> None:
        named = [(name, each) for name, each in self.module.named_parameters() if each.requires_grad]
        self.names = tuple(name for name, _ in named)
        self.parameters = tuple(each for _, each in named)
        self._ids = [id(each) for each in self.parameters]

    @property
    def size(self) -> int:
        """Trainable elements in all."""
        return sum(each.numel() for each in self.parameters)

    def prepare(self, task_of: Callable[[Sequence[int]], Task]) -> None:
        """Trace, choose, prove, and fill `table`. Nothing of the module, and no generator, is another afterwards.

        Args:
            task_of: numbers of samples, small ones, possibly repeated, to a task on them.

        Raises:
            ConfigError: E151 for samples that influence one another, E152 for a module that cannot be differentiated
                sample by sample, E153 for losses of the wrong form.
        """
        refuse_modules(self.module)
        if not self.parameters:
            raise _cannot(self.module, "no parameter of it is trained", fix="let a parameter require a gradient")
        odd = [name for name, each in zip(self.names, self.parameters, strict=True) if not each.is_floating_point()]
        if odd:
            raise _cannot(self.module, f"{', '.join(odd)} of a type that has no norm here", fix="train real parameters")
        start = Start(self.module)
        with start.borrowed():
            # A layer scaled by zero lets nothing through to be compared, so parameters are moved a little meanwhile.
            for share in (_MOVED, 0.0):
                with moved(self.parameters, share):
                    proved = Proof(self.module, self.parameters, task_of, start)
                    if proved.finite:
                        self._choose(task_of, proved, start)
                        return
        raise _cannot(self.module, "gradients of its first samples are not finite", fix="look at loss and data first")

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
            views: of the parameters' shapes, contiguous, float32 or float64.
            groups: numbers of the parameters that are clipped together.
            mask: bool (n,), which rows are samples; None: all.

        Raises:
            ConfigError: E152 for a forward pass that takes another course than the one that was proved, or other
                trainable parameters.
        """
        if not task.count:
            return Added(views[0].new_zeros(len(groups), 0), torch.zeros(0, dtype=torch.bool), None)
        if [id(each) for each in self.module.parameters() if each.requires_grad] != self._ids:
            raise _cannot(self.module, "other parameters are trained than were prepared", fix="prepare it anew")
        if any(leaf.requires_grad for leaf in task.leaves):
            raise _cannot(self.module, "the batch itself requires a gradient", fix="detach() it")
        if self.fallback:
            return self._add_singly(task, factors_of, views, groups, mask)
        try:
            tape = new_tape(task.count, self.parameters, self.names, self._places)
            with tape:
                losses = checked_losses(task)
                total = (losses if mask is None else torch.where(mask, losses, 0.0)).sum()
            gathered = gather(tape, total, self.parameters)
        except NoRule as missing:
            fix = "prepare it anew on batches that take this course, or make every batch take the same one"
            raise _cannot(self.module, f"{missing}", fix=fix) from missing
        norms, counted = clip_and_add(
            gathered, groups, factors_of, views, count=task.count, mask=mask, order=self.order
        )
        return Added(norms, counted, losses.detach())

    def _choose(self, task_of: Callable[[Sequence[int]], Task], proved: Proof, start: Start) -> None:
        reason = ""
        try:
            with quiet():
                self._places = self._trace(task_of, start)
                gathered = self._run(task_of(proved.rows), start)
                agreed = proved.agrees(_written_down(gathered, self.parameters, len(proved.rows)), beside=True)
            if agreed:
                self._refuse_crossing(task_of, proved, start)
                self.table, self.fallback = _table(self, gathered), ""
                return
            reason = "the rules for its layers gave other gradients than its own"
        except NoRule as missing:
            reason = f"no rule for {missing}"
        except RuntimeError as error:
            reason = f"the rules for its layers stopped: {short(error)}"
        for way in ("vmap", "one by one"):
            self.fallback = way
            try:
                with quiet():
                    start()
                    gradients = self._singly(task_of(proved.rows), slice(None))
            except RuntimeError as error:
                reason = f"{reason}; {way}: {short(error)}"
                continue
            if proved.agrees(gradients, beside=False):
                uses = ("anything",)
                why = f"{reason}; all per-sample gradients are written down, in chunks"
                self.table = tuple(
                    Row(name, each.numel(), uses, way, why)
                    for name, each in zip(self.names, self.parameters, strict=True)
                )
                return
            reason = f"{reason}; {way}: other gradients than its own"
        raise _cannot(
            self.module,
            reason,
            fix="build it from layers that are supported (docs/privacy/dp-training.md), or freeze the parameters named",
        )

    def _refuse_crossing(self, task_of: Callable[[Sequence[int]], Task], proved: Proof, start: Start) -> None:
        """The loss of the first sample must leave nothing with the others, drawing at random or not."""
        for context in (quiet, Guarded):
            with context():
                gathered = self._run(task_of(proved.rows), start, first_only=True)
            if crossed(_written_down(gathered, self.parameters, len(proved.rows))):
                raise mixing("a sample whose loss has a gradient with respect to the samples beside it")

    def _trace(
        self, task_of: Callable[[Sequence[int]], Task], start: Start
    ) -> dict[tuple[int, ...], tuple[Place, ...]]:
        reason = NoRule(["parameters"], "a forward pass whose shapes do not follow the number of samples")
        for one, two in _COUNTS:
            try:
                tapes = [self._forward(task_of(range(count)), start, None)[0] for count in (one, two)]
            except (NoRule, RuntimeError) as error:
                # A wrong guess can lead anywhere; the next counts may guess right.
                reason = error
                continue
            found = _places(tapes[0].shapes, tapes[1].shapes, one, two)
            derived = [[tuple(each.tensor.shape) for each in tape.derived] for tape in tapes]
            if found == tapes[0].guesses == tapes[1].guesses and derived[0] == derived[1]:
                return {key: tuple(where for where in each if where is not None) for key, each in found.items()}
        raise reason

    def _forward(self, task: Task, start: Start, places: Places | None) -> tuple[Tape, Tensor]:
        tape = new_tape(task.count, self.parameters, self.names, places)
        start()
        with tape:
            return tape, checked_losses(task)

    def _run(self, task: Task, start: Start, *, first_only: bool = False) -> Gathered:
        tape, losses = self._forward(task, start, self._places)
        return gather(tape, losses[0] if first_only else losses.sum(), self.parameters)

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
        with Guarded(), unwarned():
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
    """Per-sample gradients (n, *shape), one tensor a parameter."""
    found: list[Tensor] = []
    for pieces, parameter in zip(gathered.pieces, parameters, strict=True):
        total = parameter.detach().new_zeros(count, *parameter.shape)
        for piece in pieces:
            total = total + piece.per_sample(slice(None))
        found.append(total)
    return found


def _places(
    shapes: Mapping[tuple[int, ...], Sequence[tuple[int, ...]]],
    others: Mapping[tuple[int, ...], Sequence[tuple[int, ...]]],
    count: int,
    other: int,
) -> dict[tuple[int, ...], list[Place | None]]:
    """Where samples are at every use, from the shapes of two traces; empty where the traces are not the same."""
    if {key: len(each) for key, each in shapes.items()} != {key: len(each) for key, each in others.items()}:
        return {}
    return {
        key: [place(one, two, count, other) for one, two in zip(shapes[key], others[key], strict=True)]
        for key in shapes
    }


def _cannot(module: nn.Module, seen: str, *, fix: str) -> ConfigError:
    return ConfigError(
        "E152",
        seen=f"{type(module).__name__}: {seen}",
        expected="a module that gives one gradient a sample",
        fix=fix,
    )


def _table(engine: Engine, gathered: Gathered) -> tuple[Row, ...]:
    rows: list[Row] = []
    for name, parameter, pieces, uses in zip(
        engine.names, engine.parameters, gathered.pieces, gathered.uses, strict=True
    ):
        methods = tuple(dict.fromkeys(piece.method for piece in pieces))
        why = " and ".join(WHY[method] for method in methods) or "no gradient arrives"
        rows.append(Row(name, parameter.numel(), uses, ", ".join(methods) or "unused", why))
    return tuple(rows)
