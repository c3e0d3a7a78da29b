"""The suite on another device: tensors that tests make appear there, with the numbers that they have on the CPU.

Only what tests and the conformance kit make themselves is placed. What the product makes is left alone: a tensor that
it forgot to put beside its inputs fails as it would for a user.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_TESTS = Path(__file__).resolve().parent
_KIT = _TESTS.parent / "src" / "vambrace" / "testing"
_TORCH = Path(torch.__file__).resolve().parent
_PLAIN = {
    torch.tensor, torch.as_tensor, torch.scalar_tensor, torch.empty, torch.zeros, torch.ones, torch.full, torch.eye,
    torch.arange, torch.linspace, torch.logspace,
}  # fmt: skip
_RANDOM = {torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal}
_IN_PLACE = {Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_}
_OUT = {Tensor.numpy, Tensor.__array__}


def start(device: str) -> None:
    """Have CUDA ready in this thread and in that of its gradients, where the first use warns of a missing context."""
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        square = torch.ones((2, 2), device=device, requires_grad=True)
        (square @ square).sum().backward()


class Placed(TorchFunctionMode):
    """While active, tensors made by tests are on `device`; random ones are drawn on the CPU and moved."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = torch.device(device)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """As `func`, on the device where a test asked for a new tensor."""
        options = dict(kwargs or {})
        if func in _OUT:
            return func(args[0].cpu(), *args[1:], **options)
        if (
            (func in _IN_PLACE or getattr(func, "__module__", "") == "torch.nn.init")
            and args
            and isinstance(args[0], Tensor)
        ):
            return _drawn_elsewhere(func, args, options)
        made = func in _PLAIN or func in _RANDOM
        if not made or options.get("device") is not None or not _asked_by_a_test():
            return func(*args, **options)
        if func in _RANDOM or func is torch.as_tensor:
            return func(*args, **options).to(self._device)
        return func(*args, **options | {"device": self._device})


def _drawn_elsewhere(func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    target = args[0]
    with torch.no_grad():
        copy = target.detach().cpu()
        func(copy, *args[1:], **options)
        if copy.data_ptr() != target.data_ptr():
            target.copy_(copy)
    return target


def _asked_by_a_test() -> bool:
    """Whether the code that calls torch, past torch's own and modes that pass calls on, is a test or the kit."""
    frame = sys._getframe(2)
    while frame is not None:
        whose = _owner(frame.f_code.co_filename)
        if whose != "torch" and frame.f_code.co_name != "__torch_function__":
            return whose == "test"
        frame = frame.f_back
    return False


@functools.cache
def _owner(file: str) -> str:
    path = Path(file)
    if path == Path(__file__) or path.is_relative_to(_TORCH):
        return "torch"
    return "test" if path.is_relative_to(_TESTS) or path.is_relative_to(_KIT) else "product"
