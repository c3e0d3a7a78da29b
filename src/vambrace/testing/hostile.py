"""Models that misbehave on purpose: each is one way in which a measurement goes silently wrong.

Every builder takes a well-behaved classifier and returns a module that misbehaves around it. A tool that
calls any of them robust, or lets it pass unremarked, is broken. `MODELS` lists them by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["LATE", "MODELS", "Misbehaving", "build"]

LATE = 30
"""Calls that models which change late answer well: more than preflight makes."""


class Misbehaving(nn.Module):
    """A classifier with one fault.

    Args:
        base: the well-behaved classifier.
        fault: called with (self, inputs) in place of `forward`.
        marker: the one sample (1, ...) that sample-dependent faults react to.
    """

    def __init__(
        self, base: nn.Module, fault: Callable[[Misbehaving, Tensor], object], marker: Tensor | None = None
    ) -> None:
        super().__init__()
        self.base = base
        self.marker = marker
        self._fault = fault
        self.count = 0
        self.store: Tensor | None = None

    def forward(self, inputs: Tensor) -> object:
        """Inputs (n, ...) to whatever the fault makes of them."""
        self.count += 1
        return self._fault(self, inputs)

    def is_marked(self, inputs: Tensor) -> Tensor:
        """Which rows (n,) equal the marker."""
        if self.marker is None:
            return torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        return ((inputs - self.marker.to(inputs)).flatten(1) == 0).all(dim=1)


def build(name: str, base: nn.Module, marker: Tensor | None = None) -> nn.Module:
    """The hostile model called `name` around `base`; unknown names raise `KeyError`."""
    return Misbehaving(base, MODELS[name], marker).eval()


def _nan_logits(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs) * float("nan")


def _inf_logits(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs) * float("inf")


def _nan_on_one_sample(model: Misbehaving, inputs: Tensor) -> Tensor:
    return torch.where(model.is_marked(inputs)[:, None], float("nan"), model.base(inputs))


def _constant_output(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs) * 0.0 + torch.arange(10.0).to(inputs)


def _one_class_never_predicted(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return torch.cat([logits[:, :7], logits[:, 7:8] - 1e3, logits[:, 8:]], dim=1)


def _fewer_outputs(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs)[:, :7]


def _more_outputs(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return torch.cat([logits, logits[:, :3] - 30.0], dim=1)


def _one_dimensional(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs).amax(dim=1)


def _tuple_output(model: Misbehaving, inputs: Tensor) -> tuple[Tensor, Tensor]:
    return model.base(inputs), inputs


def _dropout_forced_on(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(nn.functional.dropout(inputs, 0.3, training=True))


def _batch_norm_on_batch(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return nn.functional.batch_norm(logits, None, None, training=True) if len(logits) > 1 else logits


def _batch_dependent(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return logits + 0.3 * logits.mean(dim=0, keepdim=True)


def _position_dependent(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    steps = torch.arange(len(inputs)).to(logits)[:, None]
    return logits + torch.where(steps % 2 == 1, logits.roll(1, dims=1), torch.zeros_like(logits))


def _stateful_counter(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs).roll(model.count // 2, dims=1)


def _random_output(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return logits + 3.0 * torch.randn_like(logits)


def _changes_its_input(model: Misbehaving, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        inputs.mul_(0.5)
    return model.base(inputs)


def _changes_its_input_unseen(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    inputs.data.mul_(0.5)
    return logits


def _raises_at_one_sample(model: Misbehaving, inputs: Tensor) -> Tensor:
    if bool(model.is_marked(inputs).any()):
        raise ValueError("unsupported value in sample")
    return model.base(inputs)


def _raises_on_second_call(model: Misbehaving, inputs: Tensor) -> Tensor:
    if model.count >= 2:
        raise RuntimeError("stream is closed")
    return model.base(inputs)


def _half_overflow(model: Misbehaving, inputs: Tensor) -> Tensor:
    return (model.base(inputs) * 3e4).half()


def _integer_output(model: Misbehaving, inputs: Tensor) -> Tensor:
    return (model.base(inputs) * 100).long()


def _softmaxed(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs).softmax(dim=1)


def _zero_gradients(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base((inputs * 16).round() / 16) + 0.0 * inputs.flatten(1).sum(dim=1, keepdim=True)


def _detached(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs).detach()


def _huge_logits(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs) * 1e4


def _sleeps(model: Misbehaving, inputs: Tensor) -> Tensor:
    time.sleep(0.1)
    return model.base(inputs)


def _changes_late(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return logits if model.count <= LATE else logits.roll(1, dims=1)


def _drifts(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return torch.cat([logits[:, :1] + 1e-4 * max(0, model.count - LATE), logits[:, 1:]], dim=1)


def _surer_with_gradients(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    if not torch.is_grad_enabled():
        return logits
    coarse = model.base((inputs * 4).round() / 4).argmax(dim=1)
    return logits + 50.0 * nn.functional.one_hot(coarse, logits.shape[1])


def _raises_with_gradients(model: Misbehaving, inputs: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        raise RuntimeError("built for inference only")
    return model.base(inputs)


def _reuses_its_output(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    if logits.requires_grad:
        return logits
    store = model.store
    if store is None or len(store) < len(logits):
        model.store = store = logits.clone()
    return store[: len(logits)].copy_(logits)


def _wrong_gradients(model: Misbehaving, inputs: Tensor) -> Tensor:
    # The right answer to every question, and the slope of another sample's.
    slope = model.base(inputs.flip(-1, -2))
    return model.base(inputs).detach() + slope - slope.detach()


def _nan_off_the_grid(model: Misbehaving, inputs: Tensor) -> Tensor:
    return torch.where(_off_the_grid(inputs)[:, None], float("nan"), model.base(inputs))


def _raises_off_the_grid(model: Misbehaving, inputs: Tensor) -> Tensor:
    if bool(_off_the_grid(inputs).any()):
        raise ValueError("pixel values must be multiples of 1/16")
    return model.base(inputs)


def _off_the_grid(inputs: Tensor) -> Tensor:
    steps = inputs.detach().flatten(1) * 16
    return ((steps - steps.round()).abs() > 1e-3).any(dim=1)


def _squeezes(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs).squeeze()


def _other_path_for_large_batches(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return logits if len(inputs) <= 32 else logits.roll(1, dims=1)


def _exits(model: Misbehaving, inputs: Tensor) -> Tensor:
    raise SystemExit(0)


def _out_of_memory(model: Misbehaving, inputs: Tensor) -> Tensor:
    raise MemoryError("weights")


def _one_column(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs)[:, :1]


def _no_columns(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs)[:, :0]


def _sparse(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs).to_sparse()


def _one_class_always(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return torch.cat([logits[:, :3], logits[:, 3:4] + 1e3, logits[:, 4:]], dim=1)


def _noise_under_an_offset(model: Misbehaving, inputs: Tensor) -> Tensor:
    logits = model.base(inputs)
    return logits + 3.0 * torch.randn_like(logits) + 1e6


def _margins_lost_in_an_offset(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(inputs) + 1e6


def _half_detached(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(_cut(inputs, inputs[0].numel() // 2))


def _seven_values_detached(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(_cut(inputs, 7))


def _six_values_detached(model: Misbehaving, inputs: Tensor) -> Tensor:
    return model.base(_cut(inputs, 6))


def _one_value_decides(model: Misbehaving, inputs: Tensor) -> Tensor:
    # One value of the input alone, cut off from the gradient, shifts all classes round.
    logits = model.base(_cut(inputs, 1))
    return torch.where(inputs.flatten(1)[:, :1] > 0.5, logits.roll(1, dims=1), logits)


def _cut(inputs: Tensor, count: int) -> Tensor:
    """Inputs whose first `count` values, in the order of columns, are cut off from the gradient."""
    rows = inputs.transpose(-1, -2).flatten(1)
    cut = torch.cat([rows[:, :count].detach(), rows[:, count:]], dim=1)
    return cut.reshape(inputs.transpose(-1, -2).shape).transpose(-1, -2)


MODELS: dict[str, Callable[[Misbehaving, Tensor], object]] = {
    "nan_logits": _nan_logits,
    "inf_logits": _inf_logits,
    "nan_on_one_sample": _nan_on_one_sample,
    "constant_output": _constant_output,
    "one_class_never_predicted": _one_class_never_predicted,
    "fewer_outputs": _fewer_outputs,
    "more_outputs": _more_outputs,
    "one_dimensional": _one_dimensional,
    "tuple_output": _tuple_output,
    "dropout_forced_on": _dropout_forced_on,
    "batch_norm_on_batch": _batch_norm_on_batch,
    "batch_dependent": _batch_dependent,
    "position_dependent": _position_dependent,
    "stateful_counter": _stateful_counter,
    "random_output": _random_output,
    "changes_its_input": _changes_its_input,
    "changes_its_input_unseen": _changes_its_input_unseen,
    "raises_at_one_sample": _raises_at_one_sample,
    "raises_on_second_call": _raises_on_second_call,
    "half_overflow": _half_overflow,
    "integer_output": _integer_output,
    "softmaxed": _softmaxed,
    "zero_gradients": _zero_gradients,
    "detached": _detached,
    "huge_logits": _huge_logits,
    "sleeps": _sleeps,
    "changes_late": _changes_late,
    "drifts": _drifts,
    "surer_with_gradients": _surer_with_gradients,
    "raises_with_gradients": _raises_with_gradients,
    "reuses_its_output": _reuses_its_output,
    "wrong_gradients": _wrong_gradients,
    "nan_off_the_grid": _nan_off_the_grid,
    "raises_off_the_grid": _raises_off_the_grid,
    "squeezes": _squeezes,
    "other_path_for_large_batches": _other_path_for_large_batches,
    "exits": _exits,
    "out_of_memory": _out_of_memory,
    "one_column": _one_column,
    "no_columns": _no_columns,
    "sparse": _sparse,
    "one_class_always": _one_class_always,
    "noise_under_an_offset": _noise_under_an_offset,
    "margins_lost_in_an_offset": _margins_lost_in_an_offset,
    "half_detached": _half_detached,
    "seven_values_detached": _seven_values_detached,
    "six_values_detached": _six_values_detached,
    "one_value_decides": _one_value_decides,
}
