"""nn.LSTM, nn.GRU, nn.RNN and their cells: W_ih meets the inputs of all steps, W_hh the states before them.

Each of them receives the gradients of the gates, so the pieces are outer products over time, whatever the layer is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vambrace.privacy.dp.engine.cells import GRU, LSTM, Cell, Elman, Weights, run
from vambrace.privacy.dp.engine.pieces import Direct, Piece, over_positions, wide
from vambrace.privacy.dp.engine.products import Outer
from vambrace.privacy.dp.engine.rules import linear, name_of, record, sample_place
from vambrace.privacy.dp.engine.tape import NoRule, Place, Tape

__all__ = ["RECURRENT"]


def _recurrent(tape: Tape, func: Callable[..., Any], inputs: Tensor, hx: Any, weights: Any, *options: Any) -> Any:  # noqa: ANN401
    """Any of them, layer by layer and direction by direction, with dropout between layers."""
    what = name_of(func)
    names = tape.names_in((inputs, hx, weights, *options))
    if len(options) != 6 or not isinstance(options[0], bool):
        raise NoRule(names, f"{what} of a packed sequence (pad it and mask the loss instead)")
    biased, layers, dropout, train, both, batch_first = options
    states: Sequence[Tensor] = (hx,) if isinstance(hx, Tensor) else hx
    first = next((slot for slot in map(tape.slot, weights) if slot is not None), None)
    where = None if first is None else sample_place(tape, first, inputs, what)
    expected = where is not None and (
        where.kind == "fold" or where.at == 0 if batch_first else where == Place("dim", 1)
    )
    if not expected or any(tape.slot(each) is not None for each in states):
        raise NoRule(
            names or ["parameters"], f"{what} of an input of shape {tuple(inputs.shape)} or a bare first state"
        )
    each = len(weights) // (layers * (2 if both else 1))
    groups = [_weights(weights[at : at + each], biased=biased) for at in range(0, len(weights), each)]
    given = inputs.transpose(0, 1) if batch_first else inputs
    ends: list[tuple[Tensor, Tensor | None]] = []
    for layer in range(layers):
        outputs: list[Tensor] = []
        for direction in range(2 if both else 1):
            at = len(ends)
            memory = states[1][at] if len(states) > 1 else None
            found, end, last = _layer(tape, func, given, states[0][at], memory, groups[at], reverse=direction == 1)
            outputs.append(found)
            ends.append((end, last))
        given = torch.cat(outputs, dim=2) if both else outputs[0]
        if dropout and train and layer < layers - 1:
            given = F.dropout(given, dropout)
    out = given.transpose(0, 1) if batch_first else given
    last_states = torch.stack([end for end, _ in ends])
    if len(states) == 1:
        return out, last_states
    return out, last_states, torch.stack([last for _, last in ends if last is not None])


def _weights(flat: Sequence[Tensor], *, biased: bool) -> Weights:
    if biased:
        return Weights(*flat)
    return Weights(*flat[:2], hr=flat[2] if len(flat) > 2 else None)


def _layer(
    tape: Tape,
    func: Callable[..., Any],
    inputs: Tensor,
    state: Tensor,
    memory: Tensor | None,
    weights: Weights,
    *,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    plain = Weights(*(None if each is None else wide(each.detach()) for each in _all(weights)))  # pyright: ignore[reportArgumentType]
    cell: Cell
    if func is torch.lstm:
        cell = LSTM(plain, reverse)
    elif func is torch.gru:
        cell = GRU(plain, reverse)
    else:
        cell = Elman(plain, reverse, relu=func is torch.rnn_relu)
    found = run(tape.probe, inputs, state, memory, cell)
    count, what = tape.count, name_of(func)

    def rows(tensor: Tensor) -> Tensor:
        """(T, n, features), or a fold of it, to (n, T, features)."""
        return tensor.transpose(0, 1).reshape(count, -1, tensor.shape[2])

    def sums(gradient: Tensor) -> Piece:
        return Direct(over_positions(rows(gradient)))

    read = inputs.detach(), cell.states
    record(tape, tape.slot(weights.ih), what, cell.at_inputs, lambda at: Outer(rows(cell.inputs), rows(at)), *read)
    record(tape, tape.slot(weights.hh), what, cell.at_states, lambda at: Outer(rows(cell.before()), rows(at)), *read)
    record(tape, tape.slot(weights.bias_ih), what, cell.at_inputs, sums)
    record(tape, tape.slot(weights.bias_hh), what, cell.at_states, sums)
    record(tape, tape.slot(weights.hr), what, cell.at_outputs, lambda at: Outer(rows(cell.hidden), rows(at)), *read)
    return found


def _all(weights: Weights) -> tuple[Tensor | None, ...]:
    return weights.ih, weights.hh, weights.bias_ih, weights.bias_hh, weights.hr


def _gates(tape: Tape, inputs: Tensor, state: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """W_ih x + b_ih and W_hh h + b_hh of one step."""
    at_inputs = linear(tape, F.linear, inputs, weights.ih, weights.bias_ih)
    return at_inputs, linear(tape, F.linear, state, weights.hh, weights.bias_hh)


def _lstm_cell(
    tape: Tape, func: Callable[..., Any], inputs: Tensor, states: Sequence[Tensor], *weights: Tensor
) -> tuple[Tensor, Tensor]:
    at_inputs, at_states = _gates(tape, inputs, states[0], Weights(*weights))
    enter, forget, candidate, leave = (at_inputs + at_states).chunk(4, dim=1)
    memory = forget.sigmoid() * states[1] + enter.sigmoid() * candidate.tanh()
    return leave.sigmoid() * memory.tanh(), memory


def _gru_cell(tape: Tape, func: Callable[..., Any], inputs: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
    at_inputs, at_states = _gates(tape, inputs, state, Weights(*weights))
    size = state.shape[1]
    reset, update = (at_inputs[:, : 2 * size] + at_states[:, : 2 * size]).sigmoid().chunk(2, dim=1)
    candidate = (at_inputs[:, 2 * size :] + reset * at_states[:, 2 * size :]).tanh()
    return candidate + update * (state - candidate)


def _elman_cell(tape: Tape, func: Callable[..., Any], inputs: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
    at_inputs, at_states = _gates(tape, inputs, state, Weights(*weights))
    total = at_inputs + at_states
    return total.relu() if func is torch.rnn_relu_cell else total.tanh()


RECURRENT: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.lstm: _recurrent,
    torch.gru: _recurrent,
    torch.rnn_tanh: _recurrent,
    torch.rnn_relu: _recurrent,
    torch.lstm_cell: _lstm_cell,
    torch.gru_cell: _gru_cell,
    torch.rnn_tanh_cell: _elman_cell,
    torch.rnn_relu_cell: _elman_cell,
}
