"""One module's engine: finds out how its parameters are used, proves it on a few samples, then gives clipped sums.

What does not agree in the proof is never used: a module whose samples influence one another is refused, and one that
the tape cannot read is differentiated sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from vambrace.privacy.dp.engine.choosing import Choice, choose
from vambrace.privacy.dp.engine.clipped import Gathered, clip_and_add, gather, new_tape
from vambrace.privacy.dp.engine.crossing import refuse_modules
from vambrace.privacy.dp.engine.pieces import WHY, Direct, wide
from vambrace.privacy.dp.engine.proof import cannot, checked_losses
from vambrace.privacy.dp.engine.singly import Way, singly
from vambrace.privacy.dp.engine.tape import NoRule

__all__ = ["Added", "Engine", "Row", "Task"]

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
    _choice: Choice = field(init=False, default_factory=lambda: Choice({}))

    def __post_init__(self) -> None:
        named = [(name, each) for name, each in self.module.named_parameters() if each.requires_grad]
        self.names = tuple(name for name, _ in named)
        self.parameters = tuple(each for _, each in named)

    @property
    def fallback(self) -> str:
        """The general way, where there is no better one: "vmap", "one by one" or ""."""
        return self._choice.way or ""

    @property
    def size(self) -> int:
        """Trainable elements in all."""
        return sum(each.numel() for each in self.parameters)

    def prepare(self, task_of: Callable[[Sequence[int]], Task], many: int = 0) -> None:
        """Trace, choose, prove, and fill `table`. Nothing of the module, and no generator, is another afterwards.

        Args:
            task_of: numbers of samples, small ones, possibly repeated, to a task on them.
            many: samples in a large batch, on which it is tried as well; 0: none.

        Raises:
            ConfigError: E151 for samples that influence one another, E152 for a module that cannot be differentiated
                sample by sample, E153 for losses of the wrong form.
        """
        refuse_modules(self.module)
        if not self.parameters:
            raise cannot(self.module, "no parameter of it is trained", fix="let a parameter require a gradient")
        odd = [name for name, each in zip(self.names, self.parameters, strict=True) if not each.is_floating_point()]
        if odd:
            raise cannot(self.module, f"{', '.join(odd)} of a type that has no norm here", fix="train real parameters")
        choice = choose(self.module, self.names, self.parameters, task_of, many)
        self.table = _table(self, choice)
        self._choice = replace(choice, gathered=())  # which holds activations

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
        if not all(each.requires_grad for each in self.parameters):
            raise cannot(self.module, "other parameters are trained than were prepared", fix="prepare it anew")
        if any(leaf.requires_grad for leaf in task.leaves):
            raise cannot(self.module, "the batch itself requires a gradient", fix="detach() it")
        if self._choice.way is not None:
            return self._add_singly(self._choice.way, task, factors_of, views, groups, mask)
        try:
            gathered, losses = self._gathered(task, mask)
        except NoRule as missing:
            fix = "prepare it anew on batches that take this course, or make every batch take the same one"
            raise cannot(self.module, f"{missing}", fix=fix) from missing
        norms, counted = clip_and_add(
            gathered, groups, factors_of, views, count=task.count, mask=mask, order=self.order
        )
        return Added(norms, counted, losses)

    def _gathered(self, task: Task, mask: Tensor | None) -> tuple[Gathered, Tensor]:
        """Pieces and losses; the graph, whose hooks hold gradients, ends here."""
        tape = new_tape(task.count, self.parameters, self.names, self._choice.places)
        with tape:
            losses = checked_losses(task)
            total = (losses if mask is None else torch.where(mask, losses, 0.0)).sum()
        return gather(tape, total, self.parameters), losses.detach()

    def _add_singly(
        self,
        way: Way,
        task: Task,
        factors_of: Callable[[Tensor], Tensor],
        views: Sequence[Tensor],
        groups: Sequence[Sequence[int]],
        mask: Tensor | None,
    ) -> Added:
        """A chunk of written-down gradients at a time, each used and let go."""
        refuse_modules(self.module)
        rows = max(1, _CHUNK // max(1, self.size))
        parts: list[tuple[Tensor, Tensor]] = []
        for first in range(0, task.count, rows):
            chosen = slice(first, min(task.count, first + rows))
            gradients = singly(way, task, chosen, self.names, self.parameters)
            gathered = Gathered([[Direct(wide(each))] for each in gradients], [() for _ in gradients])
            part = None if mask is None else mask[chosen]
            count = chosen.stop - chosen.start
            parts.append(clip_and_add(gathered, groups, factors_of, views, count=count, mask=part, order=self.order))
        norms, counted = torch.cat([each[0] for each in parts], dim=1), torch.cat([each[1] for each in parts])
        return Added(norms, counted, None)


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


def _table(engine: Engine, choice: Choice) -> tuple[Row, ...]:
    rows: list[Row] = []
    for slot, (name, parameter) in enumerate(zip(engine.names, engine.parameters, strict=True)):
        if choice.way is not None:
            rows.append(Row(name, parameter.numel(), ("anything",), choice.way, choice.why))
            continue
        # A parameter that not every course through the module meets is described by the first that does.
        met = next((each for each in choice.gathered if each.pieces[slot]), choice.gathered[0])
        methods = tuple(dict.fromkeys(piece.method for piece in met.pieces[slot]))
        why = " and ".join(WHY[method] for method in methods) or "no gradient arrives"
        rows.append(Row(name, parameter.numel(), met.uses[slot], ", ".join(methods) or "unused", why))
    return tuple(rows)
