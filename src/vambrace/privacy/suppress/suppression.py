"""Privacy suppression: while a network trains, more and more of the weights of chosen layers are held at zero.

A HEURISTIC WITHOUT A GUARANTEE. It is magnitude pruning during training, which leaves a layer less room to remember
single samples; how much that helps, if at all, must be measured on your own model (docs/privacy/suppression.md shows
how, and what it did on ours). Where a promise is needed, train with differential privacy instead.

    >>> import torch
    >>> module = torch.nn.Linear(8, 2)
    >>> optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    >>> with Suppression(layers=("weight",), end_step=10, end_sparsity=0.75).attach(module, optimizer) as handle:
    ...     for _ in range(10):
    ...         optimizer.zero_grad()
    ...         module(torch.ones(1, 8)).sum().backward()
    ...         optimizer.step()
    >>> handle.counts(), int((module.weight == 0).sum())
    ({'weight': (12, 16)}, 12)

After MindArmour's SuppressPrivacy (docs/privacy/suppression.md lists what differs): cubic schedule, masks, noise on
large weights, clipped magnitudes; here for any torch optimizer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from vambrace.core.options import Options, Ratio, require
from vambrace.core.rng import Streams, as_streams
from vambrace.errors import ConfigError
from vambrace.ops import draws
from vambrace.privacy.suppress.choosing import chosen
from vambrace.privacy.suppress.masking import altered, emptied, kept_bits, smallest, zero_
from vambrace.privacy.suppress.schedule import cubic, last_growth, masked_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from torch import Tensor

__all__ = ["Handle", "Suppression"]

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression(Options):
    """What is suppressed, and when. Step t is the moment after the t-th optimizer step since attaching.

    Attributes:
        layers: names of parameters, or fnmatch patterns such as "conv*.weight"; `*` goes across dots.
        end_step: the last step at which masks grow; from there on they stay. 1 or more.
        start_step: where the schedule begins; before, nothing is done. 0 to `end_step`.
        start_sparsity: share of each chosen tensor's elements that is masked at `start_step`. 0 to `end_sparsity`.
        end_sparsity: the same from `end_step` on; below 1. In each tensor `floor(sparsity * elements)` are masked.
        every: masks grow at `start_step`, every so many steps after it, and at `end_step`. 1 or more; a growth costs
            several times what holding the masks costs in a step.
        keep_at_least: elements that every tensor keeps in any case. 1 or more.
        add_noise: half width, in units of the weights, of uniform noise added to large kept weights whenever masks
            grow; 0: none.
        noise_above: weights above this share of the largest kept magnitude of their tensor are large. 0 to 1.
        lower_clip: whenever masks grow, smaller kept magnitudes are raised to it, once the masks have reached half
            of it; None: never. Rounded to the weights' type.
        upper_clip: whenever masks grow, larger magnitudes are lowered to it; None: never.

    Raises:
        ConfigError: E180, for values out of range.
    """

    layers: tuple[str, ...]
    end_step: int
    start_step: int = 0
    start_sparsity: Ratio = 0.0
    end_sparsity: Ratio = 0.9
    every: int = 10
    keep_at_least: int = 1
    add_noise: Ratio = 0.0
    noise_above: Ratio = 0.75
    lower_clip: Ratio | None = None
    upper_clip: Ratio | None = None

    def __post_init__(self) -> None:
        named = type(cast("object", self.layers)) is tuple and all(type(cast("object", n)) is str for n in self.layers)
        _require(named and len(self.layers) > 0, "layers", self.layers, 'a tuple of names such as ("fc1.weight",)')
        for name in ("end_step", "start_step", "every", "keep_at_least"):
            value = getattr(self, name)
            least = 0 if name == "start_step" else 1
            _require(type(value) is int and value >= least, name, value, f"a whole number, {least} or more")
        _require(self.start_step <= self.end_step, "start_step", self.start_step, f"at most end_step {self.end_step}")
        _require(0 <= self.end_sparsity < 1, "end_sparsity", self.end_sparsity, "0 or more and below 1")
        low = 0 <= self.start_sparsity <= self.end_sparsity
        _require(low, "start_sparsity", self.start_sparsity, f"0 to end_sparsity {self.end_sparsity:g}")
        _require(0 <= self.add_noise < math.inf, "add_noise", self.add_noise, "a finite number, 0 or more")
        _require(0 <= self.noise_above <= 1, "noise_above", self.noise_above, "0 to 1")
        lower, upper = self.lower_clip, self.upper_clip
        _require(lower is None or 0 < lower < math.inf, "lower_clip", lower, "above 0, or None")
        _require(upper is None or (lower or 0) < upper < math.inf, "upper_clip", upper, "above lower_clip, or None")
        idle = self.end_sparsity == 0 and not self.add_noise and lower is None and upper is None
        _require(not idle, "end_sparsity", self.end_sparsity, "above 0 where neither noise nor a clip is asked for")

    def sparsity(self, step: int) -> float:
        """The share of elements that the schedule masks at a step."""
        return cubic(
            step,
            start_step=self.start_step,
            end_step=self.end_step,
            start_sparsity=self.start_sparsity,
            end_sparsity=self.end_sparsity,
        )

    def last_growth(self, step: int) -> int | None:
        """The last step up to this one at which masks grow; None before the first."""
        return last_growth(step, start_step=self.start_step, end_step=self.end_step, every=self.every)

    def masked(self, elements: int, step: int) -> int:
        """How many elements of a tensor of so many are masked after a step."""
        last = self.last_growth(step)
        return 0 if last is None else masked_count(elements, self.sparsity(last), keep_at_least=self.keep_at_least)

    def attach(self, module: nn.Module, optimizer: Optimizer, *, rng: Streams | int = 0) -> Handle:
        """Suppress from now on, in a training loop that stays as it is; nothing changes before the first step.

        Args:
            module: its parameters are found by name once, now.
            optimizer: any torch optimizer that trains the chosen ones.
            rng: for `add_noise`. Noise is a function of it, the parameter's name and the step: no secret.

        Returns:
            A handle, also a context manager that detaches at its end.

        Raises:
            ConfigError: E181, for layers that are not there or cannot be suppressed; E182, for an optimizer that is
                none of torch's.
        """
        if not isinstance(cast("object", module), nn.Module) or not isinstance(cast("object", optimizer), Optimizer):
            raise ConfigError(
                "E182",
                seen=f"attach({type(module).__name__}, {type(optimizer).__name__})",
                expected="a torch.nn.Module and a torch.optim.Optimizer, in this order",
                fix="hand over the optimizer whose step() trains the module",
            )
        return Handle(self, chosen(module, self.layers, optimizer), optimizer, as_streams(rng))


class Handle:
    """A suppression at work, made by `Suppression.attach`.

    After every optimizer step the masked elements of the chosen parameters are exactly 0, and so are they in every
    tensor of the parameter's shape in the optimizer's state (momentum, Adam's moments) and in its gradient: whatever
    momentum, weight decay or a gradient of NaN would have made of them. What is masked stays masked.

    Gradients are emptied as soon as autograd has summed them up, so that norms taken of them leave masked elements
    out, and again before the step, for those that are written otherwise.

    Attributes:
        suppression: the options.
        steps: optimizer steps so far; those that a gradient scaler skips do not count.
    """

    def __init__(
        self, suppression: Suppression, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, rng: Streams
    ) -> None:
        self.suppression = suppression
        self.steps = 0
        self._parameters = dict(parameters)
        self._optimizer = optimizer
        self._rng = rng
        self._bits: dict[str, Tensor] = {}  # of parameters with masked elements
        self._before_step = False
        self._hooks: list[Any] = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
            *(
                parameter.register_post_accumulate_grad_hook(partial(self._accumulated, name))
                for name, parameter in parameters.items()
            ),
        ]

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self) -> None:
        """Stop. Nothing is restored: masked weights are 0, and free to change from now on."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def counts(self) -> dict[str, tuple[int, int]]:
        """Masked elements and all elements of every chosen parameter, by its name."""
        return {
            name: (self.suppression.masked(parameter.numel(), self.steps), parameter.numel())
            for name, parameter in self._parameters.items()
        }

    def sparsity(self) -> float:
        """Masked elements over all elements of the chosen parameters; 0 where they are all empty."""
        masked, elements = (sum(each) for each in zip(*self.counts().values(), strict=True))
        return masked / elements if elements else 0.0

    def masks(self) -> dict[str, Tensor]:
        """Copies of the masks by name of parameter: bool, of its shape, on its device, True where masked."""
        return {
            name: self._bits[name] == 0
            if name in self._bits
            else torch.zeros(parameter.shape, dtype=torch.bool, device=parameter.device)
            for name, parameter in self._parameters.items()
        }

    def state(self) -> dict[str, object]:
        """What `restore` needs, as a tree for `vambrace.core.tree`; module and optimizer are saved apart."""
        return {
            "version": _VERSION,
            "suppression": self.suppression.as_json(),
            "seed": self._rng.seed,
            "path": list(self._rng.path),
            "steps": self.steps,
            "masks": self.masks(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, and set masked weights and what the optimizer keeps of them to 0 at once.

        Load module and optimizer before, and attach with the same options and `rng`.

        Raises:
            ConfigError: E182, for the state of another suppression or of other parameters.
        """
        own = self.state()
        for key in ("version", "suppression", "seed", "path"):
            if key not in state or state[key] != own[key]:
                raise _foreign(f"{key} {state.get(key)!r}", f"{key} {own[key]!r}")
        steps, masks = state.get("steps"), state.get("masks")
        if type(steps) is not int or steps < 0 or not isinstance(masks, dict):
            raise _foreign(f"steps {steps!r} and masks of type {type(masks).__name__}", "what state() gave")
        given = cast("dict[str, Tensor]", masks)
        if given.keys() != self._parameters.keys():
            raise _foreign(f"masks of {', '.join(given)}", f"masks of {', '.join(self._parameters)}")
        counts = {name: self.suppression.masked(each.numel(), steps) for name, each in self._parameters.items()}
        for name, parameter in self._parameters.items():
            if not _is_mask(given[name], parameter.shape, counts[name]):
                raise _foreign(
                    f"another mask of {name}",
                    f"one of torch.bool, {tuple(parameter.shape)}, {counts[name]} marked after step {steps}",
                )
        self.steps = steps
        self._bits = {
            name: kept_bits(given[name].to(parameter.device), parameter)
            for name, parameter in self._parameters.items()
            if counts[name]
        }
        self._empty()

    def _accumulated(self, name: str, _: Tensor) -> None:
        self._empty_gradient(name)

    def _before(self, *_: object) -> None:
        # The step of an optimizer that calls its base class's step runs the hooks of both, one inside the other: only
        # the first end after a beginning is counted. A step that raised leaves nothing behind that could be wrong.
        self._before_step = True
        for name in self._bits:
            self._empty_gradient(name)

    @torch.no_grad()
    def _after(self, *_: object) -> None:
        if self._before_step:
            self._before_step = False
            self.steps += 1
            if self.suppression.last_growth(self.steps) == self.steps:
                self._grow()
        self._empty()

    def _grow(self) -> None:
        """Masks of this step's size, noise and clips, for every parameter."""
        options = self.suppression
        for name, parameter in self._parameters.items():
            if not parameter.numel():
                continue
            count = options.masked(parameter.numel(), self.steps)
            bits = self._bits.get(name)
            mask = smallest(parameter, count, None if bits is None else bits == 0)
            parameter.copy_(
                altered(
                    parameter,
                    mask,
                    noise=self._noise(name, parameter) if options.add_noise else None,
                    noise_above=options.noise_above,
                    lower_clip=options.lower_clip,
                    upper_clip=options.upper_clip,
                )
            )
            if count:
                self._bits[name] = kept_bits(mask, parameter)
                self._empty_gradient(name)

    def _noise(self, name: str, parameter: Tensor) -> Tensor:
        half = self.suppression.add_noise
        return draws.uniform(
            self._rng.child("suppress", name),
            torch.zeros(1, dtype=torch.int64, device=parameter.device),
            shape=tuple(parameter.shape),
            step=self.steps,
            low=-half,
            high=half,
            dtype=torch.float64 if parameter.dtype == torch.float64 else torch.float32,
        )[0]

    @torch.no_grad()
    def _empty(self) -> None:
        """Masked elements are 0: of weights, and of all that the optimizer keeps in the parameter's shape."""
        for name, bits in self._bits.items():
            parameter = self._parameters[name]
            zero_(parameter, bits)
            # get: the state is a defaultdict, in which a look would leave an entry.
            for kept in self._optimizer.state.get(parameter, {}).values():
                if isinstance(kept, torch.Tensor) and kept.shape == parameter.shape:
                    zero_(kept, bits)

    @torch.no_grad()
    def _empty_gradient(self, name: str) -> None:
        bits, parameter = self._bits.get(name), self._parameters[name]
        if bits is not None and parameter.grad is not None:
            parameter.grad = emptied(parameter.grad, bits)


def _is_mask(value: object, shape: torch.Size, count: int) -> bool:
    if not isinstance(value, torch.Tensor) or value.dtype != torch.bool or value.shape != shape:
        return False
    return int(value.sum()) == count


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    require(holds, seen=f"{name} {value!r}", expected=f"{name}: {expected}", fix=f"correct {name}", code="E180")


def _foreign(seen: str, expected: str) -> ConfigError:
    return ConfigError(
        "E182",
        seen=f"a state with {seen}",
        expected=f"the state of this suppression, with {expected}",
        fix="attach with the options, rng and module that the state was taken with",
    )
