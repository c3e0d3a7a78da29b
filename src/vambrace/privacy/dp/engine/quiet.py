"""Contexts in which a batch and its samples one by one give the same numbers, though the module draws at random.

Dropout is switched off wherever it is called. Any other draw from torch's generators gives the same number for every
element; what would pick or order samples still does so, differently for other numbers of samples, so that a module that
mixes samples is seen to do it. Python's and NumPy's generators, and buffers, start anew each time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vambrace.privacy.dp.engine.crossing import refuse_crossing

__all__ = ["Guarded", "Start", "Still", "put_back", "quiet"]

_DROPOUTS = frozenset(
    (
        F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
        torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout,
    )
)  # fmt: skip
_SHARES = {F.scaled_dot_product_attention: ("dropout_p", 4), F.multi_head_attention_forward: ("dropout_p", 10)}
_RECURRENT = frozenset((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu))

_aten = torch.ops.aten
_CONSTANT = frozenset(
    (
        _aten.rand, _aten.rand_like, _aten.randn, _aten.randn_like, _aten.normal, _aten.normal_, _aten.uniform,
        _aten.uniform_, _aten.bernoulli, _aten.bernoulli_, _aten.exponential, _aten.exponential_, _aten.log_normal,
        _aten.log_normal_, _aten.cauchy, _aten.cauchy_, _aten.geometric, _aten.geometric_, _aten.poisson,
        _aten._standard_gamma,
    )
)  # fmt: skip
_INTEGERS = frozenset((_aten.randint, _aten.randint_like, _aten.random, _aten.random_))
_DRAWS = (0.5, 0.05, 0.95, 0.25, 0.75)
"""What every draw gives, by starting point: a coin thrown by comparing a draw falls on either side among them."""


class Guarded(TorchFunctionMode):
    """A context in which functions that look across samples are refused."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        refuse_crossing(func, args, kwargs)
        return func(*args, **kwargs)


class _NoDropout(TorchFunctionMode):
    """A context in which functions that drop at random do not."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func in _SHARES:
            name, place = _SHARES[func]
            if len(args) > place:
                args = (*args[:place], 0.0, *args[place + 1 :])
            else:
                kwargs[name] = 0.0
        elif func in _RECURRENT:
            args = tuple(0.0 if type(each) is float else each for each in args)  # the share is their only float
        return func(*args, **kwargs)


def _drops_only(func: Any) -> bool:  # noqa: ANN401
    """Whether all that an operation draws is its dropout, which is switched off: attention and recurrent layers."""
    return any(part in str(func) for part in ("attention", "rnn", "lstm", "gru"))


class Still(TorchDispatchMode):
    """A context in which draws are constant.

    Attributes:
        half: whether anything was computed in half precision.
        drew: whether anything was drawn.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.half = self.drew = False
        self._draw = _DRAWS[seed % len(_DRAWS)]

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        self.half = self.half or (isinstance(out, Tensor) and out.dtype in (torch.float16, torch.bfloat16))
        if torch.Tag.nondeterministic_seeded in func.tags and not _drops_only(func):
            self.drew = True
        packet = getattr(func, "overloadpacket", None)
        if packet in _CONSTANT:
            return out.fill_(self._draw if out.is_floating_point() else 1)
        if packet in _INTEGERS and out.numel():
            # Any value that was possible, the same for all: the largest that came under this seed may depend on the
            # number of samples, so the bounds are read from the call.
            bounds = [each for each in args if type(each) is int]
            return out.fill_(sum(bounds[:2]) // 2 if len(bounds) > 1 else bounds[0] // 2 if bounds else 1)
        if packet is _aten.randperm:
            return out.copy_(out.sort(descending=True).values)
        return out


@contextmanager
def quiet(seed: int = 0) -> Generator[Still]:
    """The context; see above. `seed` is the number of a starting point."""
    with Guarded(), _NoDropout(), Still(seed) as still:
        yield still


def put_back(values: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give tensors the values that they had: pairs of a tensor and its values."""
    with torch.no_grad():
        for each, value in values:
            each.copy_(value)


class Start:
    """Puts generators and buffers where they were at first, before each of several runs, and in the end.

    Args:
        module: whose buffers.

    Attributes:
        seed: number of the starting point of generators.
    """

    def __init__(self, module: nn.Module) -> None:
        self.seed = 0
        self._untouched = _elsewhere()
        owned = [(owner, owner._buffers) for owner in module.modules()]  # pyright: ignore[reportPrivateUsage]
        # A scripted module's are no dictionary, and always the same.
        self._buffers = [(own, dict(own)) for _, own in owned if isinstance(own, dict)]  # pyright: ignore[reportUnnecessaryIsInstance]
        self._values = [(each, each.clone()) for each in module.buffers()]
        self._devices = sorted({each.device.index or 0 for each in module.parameters() if each.device.type == "cuda"})

    def __call__(self) -> None:
        """Before a run."""
        torch.manual_seed(self.seed)
        random.seed(self.seed)
        np.random.seed(self.seed)
        self._untouched = _elsewhere()
        self.put_back()

    @property
    def touched(self) -> bool:
        """Whether the generators of Python or NumPy were used since."""
        return self._untouched != _elsewhere()

    def put_back(self) -> None:
        """The same buffers with the same values."""
        for own, known in self._buffers:
            own.clear()
            own.update(known)
        put_back(self._values)

    @contextmanager
    def borrowed(self) -> Generator[None]:
        """A context after which buffers and the generators of torch, Python and NumPy are where they were."""
        python, numpy = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng(devices=self._devices):
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            self.put_back()


def _elsewhere() -> tuple[object, ...]:
    """Where the generators of Python and NumPy are."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), kind, np.asarray(keys).tobytes(), *rest
