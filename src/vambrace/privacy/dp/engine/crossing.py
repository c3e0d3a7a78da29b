"""What looks across samples by its very nature, and is therefore refused wherever it stands, trained or frozen.

Statistics over the batch let one sample change the gradients of all others, by any amount, after which clipping bounds
nothing. And running statistics are released with the model without noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]

from vambrace.errors import ConfigError

__all__ = ["CROSSING", "refuse_crossing", "refuse_modules"]

_TRAINING = {F.batch_norm: 5, torch.batch_norm: 5, torch.native_batch_norm: 5, torch.instance_norm: 5}
"""Position of the flag "training", or "use_input_stats"."""

_MEAN = {F.batch_norm: 1, torch.batch_norm: 3, torch.native_batch_norm: 3, F.instance_norm: 1, torch.instance_norm: 3}
"""Position of the running mean."""


_TABLES = frozenset((F.embedding, F.embedding_bag))

CROSSING = frozenset((*_MEAN, *_TABLES))
"""Functions that `refuse_crossing` has to look at."""


def refuse_modules(module: nn.Module) -> None:
    """Refuse a module with batch statistics, before anything runs.

    Raises:
        ConfigError: E151.
    """
    for name, each in cast("Iterable[tuple[str, nn.Module]]", module.named_modules()):
        kind = type(each).__name__
        if isinstance(each, _InstanceNorm):
            if each.track_running_stats and each.training:
                raise _crossing(f"{name} ({kind}), which keeps running statistics of the samples")
        elif isinstance(each, _BatchNorm) and (each.training or each.running_mean is None):
            raise _crossing(f"{name} ({kind}), which normalises each sample by the others of its batch")


def refuse_crossing(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a function with batch statistics, about to be called.

    Raises:
        ConfigError: E151.
    """
    if func in _TABLES:
        largest = args[3] if len(args) > 3 else kwargs.get("max_norm")
        often = args[5] if len(args) > 5 else kwargs.get("scale_grad_by_freq", False)
        if largest is not None or often:
            raise _crossing("an embedding with max_norm or scale_grad_by_freq, which look at the whole batch", _UNSET)
    place = _MEAN.get(func)
    if place is None:
        return
    mean = args[place] if len(args) > place else kwargs.get("running_mean")
    if func in (F.instance_norm, torch.instance_norm):
        flag = args[5] if len(args) > 5 else kwargs.get("use_input_stats", True)
        if flag and isinstance(mean, Tensor):
            raise _crossing("instance_norm, which keeps running statistics of the samples")
        return
    place = _TRAINING[func]
    training = args[place] if len(args) > place else kwargs.get("training", False)
    if training or mean is None:
        raise _crossing("batch_norm, which normalises each sample by the others of its batch")


_FIXED = "dp.fix_modules(module) replaces BatchNorm by GroupNorm; or put the layer into eval() and train on"
_UNSET = "leave both at their defaults"


def _crossing(what: str, fix: str = _FIXED) -> ConfigError:
    return ConfigError(
        "E151",
        seen=what,
        expected="samples that do not influence one another, or clipping bounds nothing",
        fix=fix,
    )
