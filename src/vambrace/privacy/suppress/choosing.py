"""Which parameters names and patterns mean: each once, whatever its names, and nothing silently missed."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch.nn.parameter import is_lazy

from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.optim import Optimizer

__all__ = ["chosen"]


def chosen(module: nn.Module, patterns: Sequence[str], optimizer: Optimizer) -> dict[str, nn.Parameter]:
    """The trainable parameters that patterns match, by name, in the module's order.

    A pattern is a parameter's full name or an fnmatch pattern (`*`, `?`, `[...]`; `*` goes across dots; case counts).
    A tied parameter is found by any of its names and called by the first. Frozen parameters are left alone: they
    learn nothing from the data.

    Raises:
        ConfigError: E181, for a pattern that matches no trainable parameter, and for a match that is complex, has no
            shape yet, or is not in the optimizer.
    """
    named = list(module.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, parameter in named:
        first.setdefault(id(parameter), name)
    wanted: set[int] = set()
    for pattern in patterns:
        matched = [(name, parameter) for name, parameter in named if name == pattern or fnmatchcase(name, pattern)]
        if not matched:
            raise _unmatched(pattern, [name for name, _ in named])
        trainable = [(name, parameter) for name, parameter in matched if parameter.requires_grad]
        if not trainable:
            name, parameter = matched[0]
            raise _unusable(
                f"the pattern {pattern!r}, which matches only frozen parameters ({name}, {parameter.dtype})",
                "unfreeze it before attaching, or leave the pattern out: what is not trained learns nothing",
            )
        wanted |= {id(parameter) for _, parameter in trainable}
    found = {first[id(parameter)]: parameter for _, parameter in named if id(parameter) in wanted}
    _check(found, optimizer)
    return found


def _check(found: dict[str, nn.Parameter], optimizer: Optimizer) -> None:
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in found.items():
        if is_lazy(parameter):
            raise _unusable(f"{name}, which has no shape yet", "run the module once on a batch before attaching")
        if not parameter.is_floating_point():
            raise _unusable(f"{name} of {parameter.dtype}", f"choose patterns that do not match {name}")
        if id(parameter) not in trained:
            raise _unusable(
                f"{name}, which this optimizer does not hold", "attach to the optimizer that trains it, or freeze it"
            )


def _unmatched(pattern: str, names: list[str]) -> ConfigError:
    inside = [name for name in names if name.startswith(f"{pattern}.")]
    lowered = {name.lower(): name for name in reversed(names)}
    nearest = difflib.get_close_matches(pattern.lower(), lowered, n=1, cutoff=0.0)
    close = inside[:1] or [lowered[name] for name in nearest]
    return ConfigError(
        "E181",
        seen=f"the pattern {pattern!r}, which matches no parameter",
        expected="the full name of a parameter, or a pattern such as 'conv*.weight'",
        fix=f"the nearest name is {close[0]!r}" if close else "give a module that has parameters",
    )


def _unusable(seen: str, fix: str) -> ConfigError:
    return ConfigError(
        "E181", seen=seen, expected="trainable parameters of a floating-point type in the optimizer", fix=fix
    )
