"""The first point that reaches the goal, from which attacks on decisions set out.

An input that the model gets wrong needs none. Start points of the caller come first. Without them, or where they fail,
points are drawn: uniform noise alone ends in one or two classes of many a network, and samples of these classes would
have nowhere to start from, so noise of several kinds takes turns: single elements, blocks of few values, elements that
are either low or high. A targeted goal is not met by chance, so it needs start points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vambrace.core.goals import Targeted
from vambrace.core.options import require
from vambrace.ops import draws
from vambrace.ops.norms import peaks
from vambrace.ops.rows import spread

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.rng import Streams
    from vambrace.search.desk import Desk
    from vambrace.search.problem import Problem

__all__ = ["TURNS", "opened", "require_start"]

TURNS = 48
"""Random points that a sample tries at most."""

_KINDS = 4


def require_start(problem: Problem) -> None:
    """Raise `ConfigError` E141 for a targeted goal without start points."""
    require(
        problem.start is not None or not isinstance(problem.goal, Targeted) or not len(problem.inputs),
        seen="a targeted goal without start points",
        expected="one start point a sample that the model gives the wanted class",
        fix="pass start=, such as images of the wanted classes",
        code="E141",
    )


def opened(desk: Desk, stream: Streams) -> tuple[Tensor, Tensor]:
    """Ask about the inputs, then look for a first point that reaches the goal.

    Args:
        desk: fresh.
        stream: of the draws.

    Returns:
        int64 (m,), ascending: the samples that have a point and may still ask; and their points (m, ...).

    Raises:
        ConfigError: E141, when a targeted goal is not reached at a start point.
    """
    count = len(desk.inputs)
    points = desk.inputs.clone()
    open_ = torch.zeros(count, dtype=torch.bool, device=points.device)
    desk.ask_inputs()
    desk.settle()
    if desk.problem.start is not None:
        live = desk.live()
        _try(desk, live, desk.problem.start[live], points, open_)
        if isinstance(desk.problem.goal, Targeted):
            failed = int((~open_[live] & desk.finite[live]).sum())
            require(
                failed == 0,
                seen=f"{failed} of {len(live)} start points that do not reach their target",
                expected="start points that the model gives the wanted class",
                fix="take inputs that the model classifies as the target, whatever their labels say",
                code="E141",
            )
    for turn in range(0 if isinstance(desk.problem.goal, Targeted) else TURNS):
        rows = (~open_ & (desk.left > 0)).nonzero().squeeze(1)
        if not len(rows):
            break
        _try(desk, rows, _drawn(desk, stream, rows, turn), points, open_)
    desk.settle()
    owner = (open_ & (desk.left > 0)).nonzero().squeeze(1)
    return owner, points[owner]


def _try(desk: Desk, owner: Tensor, asked: Tensor, points: Tensor, open_: Tensor) -> None:
    won = desk.reached(asked, owner)
    points[owner[won]] = asked[won]
    open_[owner[won]] = True


def _drawn(desk: Desk, stream: Streams, index: Tensor, turn: int) -> Tensor:
    """Random points (m, ...) all over the box; without one, around the inputs, ever wider."""
    inputs, ids = desk.inputs[index], desk.problem.ids[index]
    if desk.problem.model.bounds is None:
        reach = spread(peaks(inputs).clamp_(min=1.0) * 2.0 ** (turn // _KINDS), inputs)
        low, high = inputs - reach, inputs + reach
    else:
        low, high = desk.low, desk.high
    return _unit(stream, ids, turn, inputs) * (high - low) + low


def _unit(stream: Streams, ids: Tensor, turn: int, like: Tensor) -> Tensor:
    """Noise in 0..1 like the samples of `like`, of the kind whose turn it is."""
    shape = tuple(like.shape[1:])
    kind, blocky = turn % _KINDS, like.dim() == 4
    if blocky and kind in (1, 3):
        side = 3 + turn // _KINDS % 5
        shape = (shape[0], min(side, shape[1]), min(side, shape[2]))
    noise = draws.uniform(stream, ids, step=turn, shape=shape, dtype=like.dtype)
    if kind in (1, 2):
        share = draws.uniform(stream.child("share"), ids, step=turn, shape=(1,), low=0.1, high=0.9)
        noise = (noise < spread(share.flatten(), noise)).to(like.dtype)
    return F.interpolate(noise, size=like.shape[2:], mode="nearest") if blocky else noise
