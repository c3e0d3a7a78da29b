"""`F.multi_head_attention_forward` in terms of recorded projections: the packed path hides none of its parameters.

The function is one call to torch, so a tape that looked only at modules would miss the output projection, and one that
looked only at kernels would never see the inside of it. Here it is taken apart into the three parts that have
parameters or do not: input projections, scaled dot products, output projection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vambrace.privacy.dp.engine.operators import spread
from vambrace.privacy.dp.engine.pieces import Block, Direct, Piece, folded, over_positions
from vambrace.privacy.dp.engine.products import Outer
from vambrace.privacy.dp.engine.rules import linear, positions, record, sample_place
from vambrace.privacy.dp.engine.tape import Kept, NoRule, Tape

__all__ = ["ATTENTION"]


def _attention(
    tape: Tape,
    func: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Shapes as torch has them: (L, n, e), or (L, e) for one sample, which is refused."""
    odd = bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or static_v is not None
    if odd or query.dim() != 3:
        found = [tape.slot(each) for each in (in_proj_weight, out_proj_weight, q_proj_weight, bias_k)]
        names = [tape.name(slot) for slot in found if slot is not None]
        raise NoRule(
            names or ["attention"], "an attention with bias_k, add_zero_attn or static keys, or without samples"
        )
    if use_separate_proj_weight:
        projected = _apart(tape, (query, key, value), (q_proj_weight, k_proj_weight, v_proj_weight), in_proj_bias)
    else:
        projected = _packed(tape, query, key, value, in_proj_weight, in_proj_bias)
    heads = [folded(each, 2, (num_heads, -1)).permute(1, 2, 0, 3) for each in projected]  # (n, heads, L, e / heads)
    mask = _mask(attn_mask, key_padding_mask, heads[0], num_heads)
    if attn_mask is None and is_causal:
        raise RuntimeError("is_causal needs an attn_mask, as in torch")
    shares: Tensor | None = None
    dropped = dropout_p if training else 0.0
    if need_weights:
        scores = heads[0] / math.sqrt(heads[0].shape[3]) @ heads[1].mT
        shares = (scores if mask is None else scores + mask).softmax(dim=3)
        shares = F.dropout(shares, dropped) if dropped else shares
        mixed = shares @ heads[2]
    else:
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=mask, dropout_p=dropped)
    out = linear(tape, F.linear, mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    return out, shares.mean(dim=1) if shares is not None and average_attn_weights else shares


def _packed(
    tape: Tape, query: Tensor, key: Tensor, value: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Query, key and value by one matrix (3 e, e) whose three blocks may have inputs of their own."""
    assert weight is not None  # torch gives this or three
    if query is key and key is value:
        return linear(tape, F.linear, query, weight, bias).chunk(3, dim=2)
    size = weight.shape[0] // 3
    return tuple(_block(tape, given, weight, bias, at * size, size) for at, given in enumerate((query, key, value)))


def _apart(
    tape: Tape, givens: tuple[Tensor, ...], weights: tuple[Tensor | None, ...], bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Query, key and value by three matrices and one bias (3 e,)."""
    out: list[Tensor] = []
    for at, (given, weight) in enumerate(zip(givens, weights, strict=True)):
        assert weight is not None  # torch gives all three or none
        found, size = linear(tape, F.linear, given, weight), weight.shape[0]
        out.append(found if bias is None else _block_bias(tape, found, bias, at * size, size))
    return tuple(out)


def _block(tape: Tape, given: Tensor, weight: Tensor, bias: Tensor | None, start: int, size: int) -> Tensor:
    slot = tape.slot(weight)
    part = weight.detach()[start : start + size]
    if slot is None:
        out = F.linear(given, part)
    else:
        where = sample_place(tape, slot, given, "attention")
        if where is None:
            raise NoRule([tape.name(slot)], "attention to something that has no samples")
        kept, count, shape, held = Kept(), tape.count, tuple(weight.shape), given.detach()
        out = tape.watch(kept, lambda: F.linear(given, part), given)

        def piece(gradient: Tensor) -> Piece:
            inner = Outer(positions(held, where, count), positions(gradient, where, count))
            return Block(inner, start, start + size, shape)

        record(tape, slot, "attention", kept, piece, held)
    return out if bias is None else _block_bias(tape, out, bias, start, size)


def _block_bias(tape: Tape, out: Tensor, bias: Tensor, start: int, size: int) -> Tensor:
    slot, part = tape.slot(bias), bias.detach()[start : start + size]
    if slot is None:
        return out + part
    where, kept, count, shape = tape.locate(slot, tuple(out.shape), "attention"), Kept(), tape.count, tuple(bias.shape)
    if where.kind == "none":
        raise NoRule([tape.name(slot)], "attention to something that has no samples")
    found = tape.watch(kept, lambda: out + part, out)

    def piece(gradient: Tensor) -> Piece:
        return Block(Direct(over_positions(positions(gradient, where, count))), start, start + size, shape)

    record(tape, slot, "attention", kept, piece)
    return found


def _mask(attn_mask: Tensor | None, padding: Tensor | None, queries: Tensor, heads: int) -> Tensor | None:
    """One additive mask that broadcasts against (n, heads, L, S), or None."""
    total: Tensor | None = None
    if attn_mask is not None:
        total = _additive(attn_mask, queries)
        if total.dim() == 3:
            total = folded(total, 0, (-1, heads))
    if padding is not None:
        hidden = _additive(padding, queries)[:, None, None, :]
        total = hidden if total is None else total + hidden
    return total


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def _scaled_products(
    tape: Tape,
    func: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *args: Any,
    **options: Any,
) -> Tensor:
    """Attention whose mask is a parameter, or made of one: a bias by relative position."""
    slot = tape.slot(attn_mask)
    others = [tape.name(each) for each in map(tape.slot, (query, key, value)) if each is not None]
    if slot is None or attn_mask is None or others:
        raise NoRule(others, "attention to something that has no samples")
    shape = (*query.shape[:-1], key.shape[-2])
    where = tape.locate(slot, shape, "attention")
    if where.kind == "none":
        raise NoRule([tape.name(slot)], "attention to something that has no samples")
    mask = spread(tape, slot, attn_mask, where, attn_mask.detach().expand(shape))
    return func(query, key, value, mask, *args, **options)


ATTENTION: dict[Callable[..., Any], Callable[..., Any]] = {
    F.multi_head_attention_forward: _attention,
    F.scaled_dot_product_attention: _scaled_products,
}
