"""The way back: a search on the line between the nearest success of a sample and its input, by evaluations of one each.

A few tries at the end bring a success that a search stumbled on close to the decision. Each try lies where a straight
line through the goal's margins at both ends is zero; a try that succeeds becomes the outer end, one that does not the
inner end.

Reference: Croce & Hein 2020, arXiv 1907.02044, section 2.4 ("final search").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vambrace.ops.norms import lengths
from vambrace.ops.rows import assign, spread
from vambrace.search.judge import CLEAR

if TYPE_CHECKING:
    from torch import Tensor

    from vambrace.core.options import Norm
    from vambrace.search.rule import Answer, Tensors

__all__ = ["clear_lead", "noted", "opened", "point_between"]

_AIM = 2.0
"""The margin that tries aim at, over the least that is clear."""


def clear_lead(answer: Answer) -> Tensor:
    """The margin (m,) to aim at: at zero, or at what is just clear, rounding would decide what is a success."""
    return answer.logits.topk(2, dim=1).values.abs().amax(dim=1) * (_AIM * CLEAR)


def opened(points: Tensor, before: Tensors | None = None) -> dict[str, Tensor]:
    """The columns of a search that has no success yet.

    "outer" (m, ...) is the nearest success, "outer_length" its distance and "outer_margin" the goal's margin there;
    "inner" is the inner end as a share of the outer one's way, "inner_margin" the margin there, "input_margin" that at
    the input. Margins are less what makes a success clear.

    Args:
        points: (m, ...), of the form of samples.
        before: the columns at the end of an earlier search of the same samples, for the margin at the input.
    """
    nothing = torch.full((len(points),), float("inf"), dtype=torch.float64, device=points.device)
    return {
        "outer": points.clone(),
        "outer_length": nothing,
        "outer_margin": nothing.clone(),
        "inner": torch.zeros_like(nothing),
        "inner_margin": nothing.clone() if before is None else before["input_margin"].clone(),
        "input_margin": nothing.clone() if before is None else before["input_margin"].clone(),
    }


def noted(
    state: Tensors, change: Tensor, answer: Answer, success: Tensor, norm: Norm, tried: Tensor
) -> dict[str, Tensor]:
    """The columns after one more evaluation; overwrites "outer" of `state`.

    Args:
        state: the columns before, and "point".
        change: from the inputs to the points that were evaluated.
        answer: at the points.
        success: which are successes.
        norm: what is made small.
        tried: which points were tries, chosen by `point_between`.
    """
    length = lengths(change, norm).double()
    margin = answer.goal.margin(answer.logits).double() - clear_lead(answer).double()
    better = success & (length < state["outer_length"])
    assign(state["outer"], better, state["point"])
    outer_length = torch.where(better, length, state["outer_length"])
    at_input = length == 0
    short = tried & ~success
    place = torch.where(short, length / outer_length, state["inner"])
    # The same place is another share of a way that has become shorter.
    place = torch.where(better & state["outer_length"].isfinite(), place * state["outer_length"] / outer_length, place)
    input_margin = torch.where(at_input, margin, state["input_margin"])
    inner_margin = torch.where(short | (at_input & (state["inner"] == 0)), margin, state["inner_margin"])
    return {
        "outer": state["outer"],
        "outer_length": outer_length,
        "outer_margin": torch.where(better, margin, state["outer_margin"]),
        "inner": place.clamp_(max=1.0),
        "inner_margin": inner_margin,
        "input_margin": input_margin,
    }


def point_between(inputs: Tensor, columns: Tensors) -> Tensor:
    """The next try, (m, ...); where the margins do not tell, halfway between the ends."""
    outer, inner = columns["outer_margin"].clamp(min=0.0), columns["inner_margin"]
    share = torch.where(inner < 0, outer / (outer - inner), 0.5)
    place = 1.0 - share * (1.0 - columns["inner"])
    return torch.lerp(inputs, columns["outer"], spread(place, inputs).to(inputs.dtype))
