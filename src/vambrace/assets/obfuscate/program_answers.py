"""How far the answers of two programs of torch.export are apart, run as they are or compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from vambrace.assets.obfuscate.measure.difference import NOTHING, compare, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.export import ExportedProgram

    from vambrace.assets.obfuscate.measure.difference import Difference

__all__ = ["compare_programs"]


def compare_programs(
    first: ExportedProgram,
    second: ExportedProgram,
    calls: Sequence[tuple[Any, ...]],
    *,
    compiled: bool = False,
    freezing: bool = False,
) -> Difference:
    """How far the answers of two programs are apart.

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
        answers = [[_plain(leaf) for leaf in pytree.tree_leaves(run(*call))] for run in (one, two)]
        found = joined(found, compare(*answers))
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


def _plain(leaf: Any) -> Any:  # noqa: ANN401  a tensor or a number
    tensor = torch.as_tensor(leaf).detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
