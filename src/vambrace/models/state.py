"""From what a file holds to the weights of a network; when the two do not fit, say what would make them fit.

>>> import torch
>>> checkpoint = {"epoch": 3, "state_dict": {"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}}
>>> net = torch.nn.Linear(2, 1)
>>> fill(net, pick(checkpoint, state_key="state_dict"), strip_prefix="module.")
>>> net.weight.tolist()
[[1.0, 1.0]]
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn, cast

from torch import Tensor
from torch.nn.parameter import is_lazy

from vambrace.core.reason import reason
from vambrace.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["fill", "pick"]

_SHOWN = 4


def pick(checkpoint: object, *, state_key: str = "", network: nn.Module | None = None) -> Mapping[str, Tensor]:
    """The state dict inside a checkpoint.

    Args:
        checkpoint: what the file held.
        state_key: where in it the state dict lies; dots descend; "" is the top.
        network: whose weights are looked for; makes the suggestion in the error sharper.

    Raises:
        ModelRefused: E209, when there is no state dict at that place.
    """
    found: object = checkpoint
    for part in state_key.split(".") if state_key else []:
        inner = cast("Mapping[object, object]", found).get(part) if isinstance(found, Mapping) else None
        if inner is None:
            raise _no_state(
                f"no {state_key!r} in the checkpoint, which has {_keys(cast('object', found))}", checkpoint, network
            )
        found = inner
    if not _is_state(found):
        place = f"at {state_key!r}" if state_key else "at the top of the checkpoint"
        raise _no_state(f"no state dict {place}, which has {_keys(found)}", checkpoint, network)
    return cast("Mapping[str, Tensor]", found)


def fill(network: nn.Module, state: Mapping[str, Tensor], *, strip_prefix: str = "", name: str = "the file") -> None:
    """Copy `state` into `network`; every parameter and saved buffer must be given, and nothing else.

    Args:
        network: changed in place.
        state: tensors by name.
        strip_prefix: removed from every name that starts with it.
        name: of the file, for messages.

    Raises:
        ModelRefused: E208, naming what is missing, unexpected or of another shape, and the option that would mend it.
    """
    wanted = cast("Mapping[str, Tensor]", network.state_dict())
    given: OrderedDict[str, Tensor] = OrderedDict(
        (key.removeprefix(strip_prefix), value) for key, value in state.items()
    )
    if len(given) < len(state):
        _misfit(name, f"two names that become one without {strip_prefix!r}", "correct --strip-prefix")
    wrong = [text for key, value in given.items() if key in wanted and (text := _difference(key, value, wanted[key]))]
    if wrong:
        _misfit(name, "; ".join(wrong[:_SHOWN]), "check the factory's arguments: this is another architecture or width")
    given._metadata = _versions(state, strip_prefix)  # type: ignore[attr-defined]  # load_state_dict reads it there
    try:
        told = network.load_state_dict(given, strict=False)
    except RuntimeError as error:
        _misfit(name, reason(error, 300), "check the factory's arguments")
    missing = [key for key in cast("list[str]", told.missing_keys) if not _is_tied(key, wanted, given)]
    unexpected = cast("list[str]", told.unexpected_keys)
    if missing or unexpected:
        parts = (("missing", missing), ("unexpected", unexpected))
        text = "; ".join(f"{len(keys)} {word} ({_listed(keys)})" for word, keys in parts if keys)
        _misfit(name, text, _mend(set(wanted), list(state), strip_prefix))


def _mend(wanted: set[str], keys: list[str], strip_prefix: str) -> str:
    """The option that would make the names fit, where there is one."""
    # Older checkpoints have no batch counters; they load all the same.
    wanted = {key for key in wanted if not key.endswith("num_batches_tracked")}
    if strip_prefix and set(keys) >= wanted:
        return f"drop --strip-prefix {strip_prefix!r}"
    stripped = {prefix: len(wanted & {key.removeprefix(prefix) for key in keys}) for prefix in _prefixes(keys)}
    best = max(stripped, key=lambda prefix: stripped[prefix], default="")
    if best != strip_prefix and stripped.get(best) == len(wanted):
        return f'add --strip-prefix "{best}" (strip_prefix={best!r})'
    for prefix in _prefixes(sorted(wanted)):
        if {prefix + key.removeprefix(strip_prefix) for key in keys} >= wanted:
            return f"let the factory return the inner network: it wraps it as {prefix.rstrip('.')!r}"
    check = "check that the factory builds the network these weights were saved from, with the same arguments"
    fitting = stripped.get(best, 0)
    if best != strip_prefix and 2 * fitting > len(wanted):
        found = f"{fitting} of {len(wanted)} names fit"
        return f'add --strip-prefix "{best}" (strip_prefix={best!r}), so that {found}; then {check}'
    return check


def _prefixes(keys: list[str]) -> Iterator[str]:
    """Leading parts, up to the dots, that occur in the keys: `a.`, `a.b.`, `a.b.c.`, shortest first."""
    seen: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        seen.update(dict.fromkeys(".".join(parts[:depth]) + "." for depth in range(1, min(len(parts), 4))))
        if len(seen) > 64:
            break
    yield from sorted(seen, key=lambda prefix: prefix.count("."))


def _difference(key: str, value: object, target: object) -> str:
    if not isinstance(value, Tensor) or not isinstance(target, Tensor) or is_lazy(target):
        return ""  # extra state of a module's own making, or a parameter without a shape yet
    if value.shape != target.shape:
        return f"{key} has shape {tuple(value.shape)}, the network needs {tuple(target.shape)}"
    if value.is_floating_point() != target.is_floating_point() or value.is_complex() != target.is_complex():
        return f"{key} is {value.dtype}, the network needs {target.dtype}"
    return ""


def _is_tied(key: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
    # Safetensors saves weights that are shared in the network under one of their names only.
    tensor = wanted.get(key)
    if tensor is None or tensor.numel() == 0:
        return False
    here = (tensor.data_ptr(), tensor.shape, tensor.stride())
    return any((wanted[k].data_ptr(), wanted[k].shape, wanted[k].stride()) == here for k in given if k in wanted)


def _versions(state: Mapping[str, Tensor], prefix: str) -> object:
    """The versions that modules saved beside their tensors, under the new names."""
    saved: object = getattr(state, "_metadata", None)
    if not isinstance(saved, Mapping) or not prefix:
        return saved  # pyright: ignore[reportUnknownVariableType]
    versions = cast("Mapping[str, object]", saved)
    return OrderedDict(
        (key.removeprefix(prefix).removeprefix(prefix.rstrip(".")), value) for key, value in versions.items()
    )


def _is_state(found: object) -> bool:
    if not isinstance(found, Mapping) or not found:
        return False
    items = cast("Mapping[object, object]", found).items()
    return all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith("_extra_state")) for key, value in items
    )


def _no_state(seen: str, checkpoint: object, network: nn.Module | None) -> ModelRefused:
    places = list(_states("", checkpoint, 0))
    wanted: set[str] = set() if network is None else set(network.state_dict())
    places.sort(key=lambda place: -_overlap(wanted, place[1]))
    if places:
        path = places[0][0]
        fix = f'add --state-key "{path}" (state_key={path!r})' if path else "drop --state-key: it lies at the top"
    else:
        fix = "save the weights as torch.save(net.state_dict(), path)"
    return ModelRefused("E209", seen=seen, expected="a state dict: names and tensors only", fix=fix)


def _overlap(wanted: set[str], keys: Iterable[str]) -> int:
    tails = {tail for key in keys for tail in (key, key.partition(".")[2])}
    return len(wanted & tails)


def _states(place: str, value: object, depth: int) -> Iterator[tuple[str, list[str]]]:
    if _is_state(value):
        yield place, list(cast("Mapping[str, Tensor]", value))
    elif isinstance(value, Mapping) and depth < 3:
        for key, inner in cast("Mapping[object, object]", value).items():
            if isinstance(key, str) and "." not in key:
                yield from _states(f"{place}.{key}" if place else key, inner, depth + 1)


def _keys(value: object) -> str:
    if not isinstance(value, Mapping):
        return f"only a {type(value).__name__}"
    return f"the keys {_listed([str(key) for key in cast('Mapping[object, object]', value)])}"


def _listed(keys: list[str]) -> str:
    shown = ", ".join(key[:80] for key in keys[:_SHOWN])
    return f"{shown}, ..." if len(keys) > _SHOWN else shown


def _misfit(name: str, seen: str, fix: str) -> NoReturn:
    raise ModelRefused(
        "E208", seen=f"{name} does not fit the network: {seen}", expected="the network's own weights", fix=fix
    )
