"""How far the answers of two programs of torch.export are apart, run as they are or compiled, and values inside."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from vambrace.assets.obfuscate.measure.difference import NOTHING, compare, joined
from vambrace.assets.obfuscate.programs import values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch.export import ExportedProgram

    from vambrace.assets.obfuscate.measure.difference import Difference
    from vambrace.assets.obfuscate.programs import Flat

__all__ = ["compare_programs", "differing", "noise_like"]

_NOISES = 2


def compare_programs(
    first: ExportedProgram,
    second: ExportedProgram,
    calls: Sequence[tuple[Any, ...]],
    *,
    compiled: bool = False,
    freezing: bool = False,
) -> Difference:
    """How far the answers of two programs are apart; what is no tensor or number in both (None, a word) does not count.

    Args:
        first: a program.
        second: another one that is called in the same way.
        calls: positional arguments of each call.
        compiled: run both under torch.compile, which needs a C++ compiler.
        freezing: with `compiled`, let it fold weights, as `torch.compile(options={"freezing": True})` does.
    """
    one, two = (_runnable(each, compiled=compiled, freezing=freezing) for each in (first, second))
    found = NOTHING
    for call in calls:
        leaves = zip(*(pytree.tree_leaves(run(*call)) for run in (one, two)), strict=True)
        counted = [tuple(map(_plain, pair)) for pair in leaves if any(map(_counts, pair))]
        found = joined(found, compare([pair[0] for pair in counted], [pair[1] for pair in counted]))
    return found


def _runnable(program: ExportedProgram, *, compiled: bool, freezing: bool) -> Callable[..., Any]:
    module = program.module()

    # A module writes into the buffers of its program, and into its inputs.
    held: dict[str, Any] = {**program.constants, **program.state_dict}
    written = [held[name] for name in program.graph_signature.buffers]

    def run(*call: Any) -> Any:  # noqa: ANN401
        before = [tensor.clone() for tensor in written]
        with torch.no_grad():
            answer = made(*pytree.tree_map_only(torch.Tensor, torch.clone, call))
            for tensor, values in zip(written, before, strict=True):
                tensor.copy_(values)
        return answer

    made: Callable[..., Any] = module
    if compiled:
        made = torch.compile(module, options={"freezing": True} if freezing else None)
    return run


def _counts(leaf: Any) -> bool:  # noqa: ANN401  whatever modules give
    return isinstance(leaf, (torch.Tensor, int, float, complex))


def _plain(leaf: Any) -> Any:  # noqa: ANN401  a tensor or a number
    tensor = torch.as_tensor(leaf if _counts(leaf) else ()).detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def noise_like(flat: Flat, call: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Calls with noise in the place of a call's tensors: all of some kinds that the program takes.

    Floating numbers are normal, or between 0 and 1 for what takes roots and logarithms; single bytes are any, as in
    pictures; bytes and other whole numbers lie in the range of the call's, as numbers of words must.
    """
    made = torch.Generator().manual_seed(0)
    taken: list[tuple[Any, ...]] = []
    for floating, wide in itertools.product((torch.randn, torch.rand), (True, False)):
        for _ in range(_NOISES):
            noisy = pytree.tree_map_only(torch.Tensor, lambda given: _noise(given, floating, wide, made), call)  # noqa: B023
            try:
                values_of(flat, noisy, ())
            except Exception:  # noqa: BLE001, S112  programs check their inputs by errors of many kinds
                continue
            taken.append(noisy)
    return taken


def _noise(
    given: torch.Tensor, floating: Callable[..., torch.Tensor], wide: bool, made: torch.Generator
) -> torch.Tensor:
    if given.is_floating_point():
        return floating(given.shape, generator=made).to(given)
    if given.is_complex() or not given.numel():
        return given
    kind = torch.iinfo(given.dtype) if given.dtype != torch.bool else None
    low, high = (kind.min, kind.max) if kind and kind.bits == 8 and wide else (int(given.min()), int(given.max()))
    return torch.randint(low, high + 1, given.shape, generator=made).to(given)


def differing(
    flat: Flat, calls: Sequence[tuple[Any, ...]], names: Collection[str], others: Sequence[dict[str, torch.Tensor]]
) -> list[str]:
    """Which nodes make other bits of a call than `others` has for it, in the order in which they run.

    So do those of which no call but the first, which is the caller's, makes numbers that could differ: constant ones
    and NaN are the same in any order of sums.
    """
    same = dict.fromkeys(names, True)
    told = dict.fromkeys(names, False)
    for place, (call, other) in enumerate(zip(calls, others, strict=True)):
        values = values_of(flat, call, names)
        same = {name: same[name] and _same_bits(value, other[name]) for name, value in values.items()}
        told = {name: told[name] or (place > 0 and _tells(value)) for name, value in values.items()}
    return [name for name in same if not (same[name] and told[name])]


def _tells(value: torch.Tensor) -> bool:
    """Whether at least half of the numbers are finite, and not all the same."""
    finite = value[value.isfinite()]
    return 2 * finite.numel() >= value.numel() > 0 and bool(finite.min() < finite.max())


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """But for those of NaN."""
    if not one.is_floating_point():
        return torch.equal(one, other)
    nan = one.isnan()
    if not torch.equal(nan, other.isnan()):
        return False
    one, other = one.masked_fill(nan, 0.0), other.masked_fill(nan, 0.0)
    return torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())
