"""The loops of LSTM, GRU and RNN over time, forward and backward, for one layer and direction.

The forward loop keeps what the backward loop needs in buffers that hold all steps. Derivatives that do not depend on
later steps are taken for all steps at once, which leaves one product and a few multiplications a step. The gradients
of the gates, which the weights' per-sample gradients are made of, come out as whole buffers too.

Time comes first: (T, n, features). Gates stand as in torch: LSTM i, f, g, o; GRU r, z, n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vambrace.privacy.dp.engine.pieces import folded, split, wide
from vambrace.privacy.dp.engine.tape import Kept

__all__ = ["Cell", "Elman", "GRU", "LSTM", "Weights", "run"]


@dataclass(frozen=True, slots=True)
class Weights:
    """Of one layer and direction, as torch names them; gates are stacked along the first dimension.

    Attributes:
        ih: (gates * hidden, inputs).
        hh: (gates * hidden, outputs).
        bias_ih: (gates * hidden,).
        bias_hh: (gates * hidden,).
        hr: (outputs, hidden), the projection of an LSTM with `proj_size`.
    """

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    hr: Tensor | None = None


@dataclass(slots=True)
class Cell:
    """One layer and direction on its way through time.

    Attributes:
        weights: detached, float32 or float64.
        reverse: from the last step to the first.
        inputs: (T, n, inputs).
        first: the state before the first step, (n, outputs).
        states: the state after each step, (T, n, outputs).
        hidden: before the projection, (T, n, hidden); `states` where there is none.
        at_inputs: what W_ih and its bias receive, (T, n, gates * hidden).
        at_states: what W_hh and its bias receive.
        at_outputs: what the projection receives, (T, n, outputs).
    """

    weights: Weights
    reverse: bool
    inputs: Tensor = field(init=False)
    first: Tensor = field(init=False)
    states: Tensor = field(init=False)
    hidden: Tensor = field(init=False)
    at_inputs: Kept = field(init=False, default_factory=Kept)
    at_states: Kept = field(init=False, default_factory=Kept)
    at_outputs: Kept = field(init=False, default_factory=Kept)

    def forward(self, inputs: Tensor, first: Tensor, memory: Tensor | None) -> Tensor | None:
        """Run all steps; gives the last memory of an LSTM."""
        raise NotImplementedError

    def backward(
        self, slopes: Tensor | None, last: Tensor | None, memory: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """From gradients of states (T, n, outputs), last state and last memory to those of gates, first state, memory.

        Fills `at_inputs`, `at_states` and `at_outputs`.
        """
        raise NotImplementedError

    @property
    def steps(self) -> range:
        """The order of the steps."""
        length = len(self.inputs)
        return range(length - 1, -1, -1) if self.reverse else range(length)

    def before(self) -> Tensor:
        """The state before each step, (T, n, outputs)."""
        own = self.first.unsqueeze(0)
        return torch.cat((self.states[1:], own)) if self.reverse else torch.cat((own, self.states[:-1]))

    def projected(self, bias: Tensor | None) -> Tensor:
        """W_ih and a bias applied to the inputs of all steps."""
        flat, matrix = self.inputs.flatten(0, 1), self.weights.ih.t()
        found = flat @ matrix if bias is None else torch.addmm(bias, flat, matrix)
        return found.view(*self.inputs.shape[:2], -1)

    def arriving(self, slopes: Tensor | None, last: Tensor | None, carried: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Steps backwards, each with the gradient of its state: what arrived there plus, of the step after, `carried`.

        `carried` (n, outputs) is read anew before each step but the last, and holds the gradient of `first` at the end.
        """
        given = None if slopes is None else slopes.unbind(0)
        if last is None:
            carried.zero_()
        else:
            carried.copy_(last)
        for step in reversed(self.steps):
            if given is not None:
                carried.add_(given[step])
            yield step, carried


@dataclass(slots=True)
class Elman(Cell):
    """h = tanh(W_ih x + W_hh h), or relu.

    Attributes:
        relu: which.
    """

    relu: bool = False

    def forward(self, inputs: Tensor, first: Tensor, memory: Tensor | None) -> None:
        self.inputs, self.first = inputs, first
        self.states = self.hidden = self.projected(_total(self.weights))
        matrix, state = self.weights.hh.t(), first
        each = self.states.unbind(0)
        for step in self.steps:
            state = each[step].addmm_(state, matrix)
            state.relu_() if self.relu else state.tanh_()

    def backward(
        self, slopes: Tensor | None, last: Tensor | None, memory: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        states = self.states
        gates = (states > 0).to(states.dtype) if self.relu else states.square().neg_().add_(1.0)
        carried, each = torch.empty_like(self.first), gates.unbind(0)
        for step, slope in self.arriving(slopes, last, carried):
            torch.mm(each[step].mul_(slope), self.weights.hh, out=carried)
        self.at_inputs.hook(gates)
        self.at_states.hook(gates)
        return gates, carried, None


@dataclass(slots=True)
class GRU(Cell):
    """Cho et al. 2014 as torch has it: the reset gate scales W_hn h + b_hn."""

    _gates: Tensor = field(init=False)
    _turned: Tensor = field(init=False)

    def forward(self, inputs: Tensor, first: Tensor, memory: Tensor | None) -> None:
        self.inputs, self.first = inputs, first
        weights, size = self.weights, first.shape[1]
        self._gates = self.projected(weights.bias_ih)
        self._turned = torch.empty_like(self._gates)
        self.states = self.hidden = self._gates.new_empty(*self._gates.shape[:2], size)
        matrix, state = weights.hh.t(), first
        two, candidate = _parts(self._gates, 2 * size, size)
        turned_two, turned_candidate = _parts(self._turned, 2 * size, size)
        reset, update = _parts(self._gates, size, size)
        turned, states = self._turned.unbind(0), self.states.unbind(0)
        for step in self.steps:
            if weights.bias_hh is None:
                torch.mm(state, matrix, out=turned[step])
            else:
                torch.addmm(weights.bias_hh, state, matrix, out=turned[step])
            two[step].add_(turned_two[step]).sigmoid_()
            candidate[step].addcmul_(reset[step], turned_candidate[step]).tanh_()
            state = torch.lerp(candidate[step], state, update[step], out=states[step])

    def backward(
        self, slopes: Tensor | None, last: Tensor | None, memory: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        size = self.first.shape[1]
        reset, update, candidate = split(self._gates, size, 2)
        keeps = 1.0 - update
        at_candidate = candidate.square().neg_().add_(1.0).mul_(keeps)
        turned = torch.empty_like(self._gates)
        at_reset, at_update, at_turned = split(turned, size, 2)
        torch.mul(at_candidate, reset, out=at_turned)
        torch.mul(at_turned, self._turned[..., 2 * size :], out=at_reset).mul_(1.0 - reset)
        torch.sub(self.before(), candidate, out=at_update).mul_(update).mul_(keeps)
        arrived, carried = torch.empty_like(self.states), torch.empty_like(self.first)
        by_gate, flat = folded(turned, 2, (3, size)).unbind(0), turned.unbind(0)
        arrivals, updates = arrived.unbind(0), update.unbind(0)
        for step, slope in self.arriving(slopes, last, carried):
            arrivals[step].copy_(slope)
            by_gate[step].mul_(slope.unsqueeze(1))
            carried.mul_(updates[step]).addmm_(flat[step], self.weights.hh)
        gates = torch.cat((turned[..., : 2 * size], at_candidate.mul_(arrived)), dim=2)
        self.at_inputs.hook(gates)
        self.at_states.hook(turned)
        return gates, carried, None


@dataclass(slots=True)
class LSTM(Cell):
    """Hochreiter and Schmidhuber 1997 as torch has it, with or without projection."""

    _gates: Tensor = field(init=False)
    _memories: Tensor = field(init=False)
    _bent: Tensor = field(init=False)
    _memory: Tensor = field(init=False)

    def forward(self, inputs: Tensor, first: Tensor, memory: Tensor | None) -> Tensor:
        assert memory is not None  # an LSTM has one
        self.inputs, self.first, self._memory = inputs, first, memory
        weights, size = self.weights, memory.shape[1]
        self._gates = self.projected(_total(weights))
        self._memories, self._bent, self.hidden = (
            self._gates.new_empty(*self._gates.shape[:2], size) for _ in range(3)
        )
        self.states = self.hidden if weights.hr is None else self._gates.new_empty(*inputs.shape[:2], first.shape[1])
        matrix, state = weights.hh.t(), first
        projection = None if weights.hr is None else weights.hr.t()
        whole, memories, bent = self._gates.unbind(0), self._memories.unbind(0), self._bent.unbind(0)
        hidden, states = self.hidden.unbind(0), self.states.unbind(0)
        two, _ = _parts(self._gates, 2 * size, size)
        enter, forget = _parts(self._gates, size, size)
        candidate, leave = _parts(self._gates[..., 2 * size :], size, size)
        for step in self.steps:
            whole[step].addmm_(state, matrix)
            two[step].sigmoid_()
            candidate[step].tanh_()
            leave[step].sigmoid_()
            memory = torch.mul(forget[step], memory, out=memories[step]).addcmul_(enter[step], candidate[step])
            torch.mul(leave[step], torch.tanh(memory, out=bent[step]), out=hidden[step])
            state = states[step] if projection is None else torch.mm(hidden[step], projection, out=states[step])
        return memory.clone()

    def backward(
        self, slopes: Tensor | None, last: Tensor | None, memory: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        size, weights = self._memory.shape[1], self.weights
        enter, forget, candidate, leave = split(self._gates, size, 2)
        own = self._memory.unsqueeze(0)
        earlier = torch.cat((self._memories[1:], own) if self.reverse else (own, self._memories[:-1]))
        gates = torch.empty_like(self._gates)
        at_enter, at_forget, at_candidate, at_leave = split(gates, size, 2)
        torch.mul(candidate, enter, out=at_enter).mul_(1.0 - enter)
        torch.mul(earlier, forget, out=at_forget).mul_(1.0 - forget)
        torch.square(candidate, out=at_candidate).neg_().add_(1.0).mul_(enter)
        torch.mul(self._bent, leave, out=at_leave)
        through = torch.addcmul(leave, at_leave, self._bent, value=-1.0)
        at_leave.mul_(1.0 - leave)
        by_gate, leaving, flat = folded(gates, 2, (4, size))[:, :, :3].unbind(0), at_leave.unbind(0), gates.unbind(0)
        throughs, forgets = through.unbind(0), forget.unbind(0)
        carried = torch.empty_like(self.first)
        remembered = torch.zeros_like(self._memory) if memory is None else memory.clone()
        arrived = torch.empty_like(self.states) if weights.hr is not None else None
        for step, slope in self.arriving(slopes, last, carried):
            at_hidden = slope
            if weights.hr is not None and arrived is not None:
                arrived[step].copy_(slope)
                at_hidden = slope @ weights.hr
            remembered.addcmul_(at_hidden, throughs[step])
            by_gate[step].mul_(remembered.unsqueeze(1))
            leaving[step].mul_(at_hidden)
            remembered.mul_(forgets[step])
            torch.mm(flat[step], weights.hh, out=carried)
        self.at_inputs.hook(gates)
        self.at_states.hook(gates)
        if arrived is not None:
            self.at_outputs.hook(arrived)
        return gates, carried, remembered


class _Run(torch.autograd.Function):
    """A cell as one node of the graph; `probe` makes sure that there is one."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        probe: Tensor,
        inputs: Tensor,
        first: Tensor,
        memory: Tensor | None,
        cell: Cell,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.cell, ctx.types = cell, (inputs.dtype, first.dtype, None if memory is None else memory.dtype)
        with torch.autocast(inputs.device.type, enabled=False):
            plain = wide(inputs.detach()).contiguous(), wide(first.detach())
            found = cell.forward(*plain, None if memory is None else wide(memory.detach()))
        # The cell outlives the graph, so it must not hold the output itself, which holds the graph.
        out, cell.states, cell.hidden = cell.states, cell.states.detach(), cell.hidden.detach()
        return out, out[cell.steps[-1]].clone(), found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Any) -> Any:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        cell: Cell = ctx.cell
        gates, first, memory = cell.backward(*slopes)
        inputs = (gates.flatten(0, 1) @ cell.weights.ih).view_as(cell.inputs) if ctx.needs_input_grad[1] else None
        given = [
            None if each is None else each.to(kind)
            for each, kind in zip((inputs, first, memory), ctx.types, strict=True)
        ]
        return None, *given, None


def run(
    probe: Tensor, inputs: Tensor, first: Tensor, memory: Tensor | None, cell: Cell
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs (T, n, inputs), first state and memory to states (T, n, outputs), last state and memory."""
    states, last, end = cast(
        "tuple[Tensor, Tensor, Tensor | None]",
        _Run.apply(probe, inputs, first, memory, cell),
    )
    kind = inputs.dtype
    return states.to(kind), last.to(kind), None if end is None else end.to(kind)


def _total(weights: Weights) -> Tensor | None:
    """Both biases, where they are only ever added."""
    return None if weights.bias_ih is None or weights.bias_hh is None else weights.bias_ih + weights.bias_hh


def _parts(gates: Tensor, one: int, two: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The first `one` and the next `two` features, step by step."""
    return gates[..., :one].unbind(0), gates[..., one : one + two].unbind(0)
