"""How a module's per-sample gradients are found: by the tape if that is proved right, else the general way.

The module runs on two small batches of different sizes, which shows where samples are in what meets parameters, and the
tape's per-sample gradients of a few samples are held against autograd's. Where the module draws at random, all of it is
done from several starting points, for it may skip layers, or mix samples, only sometimes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vambrace.errors import ConfigError
from vambrace.privacy.dp.engine.clipped import Gathered, gather, new_tape
from vambrace.privacy.dp.engine.proof import Proof, cannot, checked_losses, crossed, mixing, moved, short
from vambrace.privacy.dp.engine.quiet import Guarded, Start, quiet
from vambrace.privacy.dp.engine.singly import WAYS, Way, singly
from vambrace.privacy.dp.engine.tape import NoRule, Place, Places, Tape, place

if TYPE_CHECKING:
    from vambrace.privacy.dp.engine.engine import Task

__all__ = ["Choice", "choose"]

_COUNTS = ((3, 5), (5, 7), (7, 11), (11, 13))
"""Sizes of the two batches of a trace; others where one of them happens to be the size of something else."""

_MOVED = 0.1
"""How far parameters are moved while gradients are proved, as a share of their spread."""

_STARTS = 5
"""Starting points of random draws; a coin of probability one half falls both ways among them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The way that was proved.

    Attributes:
        places: for the tape, where samples are.
        gathered: what the tape found on a few samples, once for every starting point.
        way: the general way, None where the tape does it.
        why: why not the tape.
    """

    places: dict[tuple[int, ...], tuple[Place, ...]]
    gathered: tuple[Gathered, ...] = ()
    way: Way | None = None
    why: str = ""


def choose(
    module: nn.Module,
    names: tuple[str, ...],
    parameters: Sequence[Tensor],
    task_of: Callable[[Sequence[int]], Task],
    many: int = 0,
) -> Choice:
    """Trace and prove; nothing of the module, and no generator, is another afterwards.

    Raises:
        ConfigError: E151, E152, E153, as `Engine.prepare`.
    """
    start = Start(module)
    with start.borrowed():
        # A layer scaled by zero lets nothing through to be compared, so parameters are moved a little meanwhile.
        for share in (_MOVED, 0.0):
            with moved(parameters, share):
                chooser = _Chooser(module, names, parameters, task_of, start, many)
                if chooser.proof.finite:
                    return chooser.choose()
    raise cannot(module, "gradients of its first samples are not finite", fix="look at loss and data first")


class _Chooser:
    def __init__(
        self,
        module: nn.Module,
        names: tuple[str, ...],
        parameters: Sequence[Tensor],
        task_of: Callable[[Sequence[int]], Task],
        start: Start,
        many: int,
    ) -> None:
        self._module, self._names, self._parameters, self._task_of = module, names, parameters, task_of
        self._start, self._many = start, many
        self.proof = self._prove()

    def choose(self) -> Choice:
        try:
            return self._by_tape()
        except ConfigError:
            raise
        except NoRule as missing:
            reason = f"no rule for {missing}"
        except Exception as error:  # the module itself has just run, so it is a rule that does not fit
            reason = f"the rules for its layers stopped: {short(error)}"
        return self._singly(reason)

    def _by_tape(self) -> Choice:
        places, gathered = self._at(self.proof)
        for seed in self._more_starts():
            self._start.seed = seed
            found, other = self._at(self._prove())
            places, gathered = _merged(places, found, self._names), gathered + other
        self._start.seed = 0
        return Choice(places, gathered)

    def _at(self, proof: Proof) -> tuple[dict[tuple[int, ...], tuple[Place, ...]], tuple[Gathered, ...]]:
        """Places and gradients from one starting point, proved."""
        seed = self._start.seed
        with quiet(seed):
            places = self._trace()
            gathered = self._run(proof.rows, places)
            agreed = proof.agrees(self._written_down(gathered, len(proof.rows)), beside=True)
            # A module that puts samples in order leaves rows alone that lie in order, but not these turned around.
            turned = self._written_down(self._run(proof.rows[::-1], places), len(proof.rows))
        if not agreed:
            raise NoRule(["parameters"], "its layers that gives its own gradients")
        if not proof.agrees([each.flip(0) for each in turned], beside=False):
            raise NoRule(["parameters"], "a forward pass that changes the order of samples")
        # The loss of the first sample must leave nothing with the others, drawing at random or not.
        for context in (quiet(seed), Guarded()):
            with context:
                alone = self._run(proof.rows, places, first_only=True)
            if crossed(self._written_down(alone, len(proof.rows))):
                raise mixing("a sample whose loss has a gradient with respect to the samples beside it")
        return places, (gathered,)

    def _singly(self, reason: str) -> Choice:
        for seed in self._more_starts():
            self._start.seed = seed
            self._prove()  # raises where samples mix, on any of these courses
        self._start.seed = 0
        proof = self.proof
        for way in WAYS:
            try:
                with quiet():
                    self._start()
                    task = self._task_of(proof.rows)
                    gradients = singly(way, task, slice(None), self._names, self._parameters)
            except ConfigError:
                raise
            except Exception as error:  # vmap refuses in many ways what it cannot do
                reason = f"{reason}; {way}: {short(error)}"
                continue
            if proof.agrees(gradients, beside=False):
                return Choice({}, way=way, why=f"{reason}; all per-sample gradients are written down, in chunks")
            reason = f"{reason}; {way}: other gradients than its own"
        raise cannot(
            self._module,
            reason,
            fix="build it from layers that are supported (docs/privacy/dp-training.md), or freeze the parameters named",
        )

    def _more_starts(self) -> range:
        """Starting points beside the first; none for a module that draws nothing, which does the same from all."""
        return range(1, _STARTS if self.proof.chance else 1)

    def _prove(self) -> Proof:
        return Proof(self._module, self._parameters, self._task_of, self._start, self._many)

    def _trace(self) -> dict[tuple[int, ...], tuple[Place, ...]]:
        reason: Exception = NoRule(["parameters"], "a forward pass whose shapes do not follow the number of samples")
        for one, two in _COUNTS:
            try:
                tapes = [self._forward(range(count), None)[0] for count in (one, two)]
            except ConfigError:
                raise
            except Exception as error:  # a wrong guess can lead anywhere; the next counts may guess right
                reason = error
                continue
            found = _places(tapes[0].shapes, tapes[1].shapes, one, two)
            if found != tapes[0].guesses or found != tapes[1].guesses:
                continue
            mixed = [
                NoRule([tapes[0].name(slot) for slot in first.slots], f"{first.what}, where they meet samples")
                for first, second in zip(*(tape.derived for tape in tapes), strict=False)
                if first.tensor.shape != second.tensor.shape
            ]
            if not mixed:
                return {key: tuple(where for where in each if where is not None) for key, each in found.items()}
            reason = mixed[0]
        raise reason

    def _forward(self, rows: Sequence[int], places: Places | None) -> tuple[Tape, Tensor]:
        task = self._task_of(rows)
        tape = new_tape(task.count, self._parameters, self._names, places)
        self._start()
        with tape:
            return tape, checked_losses(task)

    def _run(self, rows: Sequence[int], places: Places, *, first_only: bool = False) -> Gathered:
        tape, losses = self._forward(rows, places)
        total = losses[0] if first_only else losses.sum()
        if any(leaf is not tape.probe and tape.slot(leaf) is None for leaf in _leaves(total)):
            raise NoRule(["parameters"], "a forward pass with tensors of its own that require a gradient")
        return gather(tape, total, self._parameters)

    def _written_down(self, gathered: Gathered, count: int) -> list[Tensor]:
        """Per-sample gradients (n, *shape), one tensor a parameter."""
        found: list[Tensor] = []
        for pieces, parameter in zip(gathered.pieces, self._parameters, strict=True):
            total = parameter.detach().new_zeros(count, *parameter.shape)
            for piece in pieces:
                total = total + piece.per_sample(slice(None))
            found.append(total)
        return found


def _leaves(total: Tensor) -> list[Tensor]:
    """What the backward pass of `total` would end at; for the tape that should be its probe alone."""
    found: list[Tensor] = []
    seen: set[Any] = set()
    waiting = [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(variable)
        waiting.extend(next_node for next_node, _ in node.next_functions)
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


def _merged(
    places: dict[tuple[int, ...], tuple[Place, ...]],
    more: dict[tuple[int, ...], tuple[Place, ...]],
    names: Sequence[str],
) -> dict[tuple[int, ...], tuple[Place, ...]]:
    """Of two courses through a module, which must agree where they meet."""
    for key in places.keys() & more.keys():
        if len({*places[key], *more[key]}) > 1 and places[key] != more[key]:
            raise NoRule([names[each] for each in key], "different ways, after random draws")
    return {**places, **more}
