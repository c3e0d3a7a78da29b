"""nn.MultiheadAttention under the tape: the same outputs as torch's, and clipped sums of all its parameters."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privacy.dp.engine.nets import COUNT, Net, head, labels, numbers
from privacy.dp.engine.toolkit import assert_equal
from vambrace.privacy.dp.engine.clipped import new_tape

T, S, E, HEADS = 5, 4, 8, 2


class Attention(nn.Module):
    """Attention over a sample's own positions, or over a memory made of them, under masks."""

    def __init__(self, *, crossed=False, weights=False, average=True, masks=(), **options) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(E, HEADS, **options)
        self.memory = nn.Linear(E, E) if crossed else None
        self.weights, self.average, self.masks, self.h = weights, average, masks, head()

    def forward(self, x):
        first = self.inner.batch_first
        memory = x if self.memory is None else self.memory(x)[:, :S]
        given = [each if first else each.transpose(0, 1) for each in (x, memory)]
        keys, values = (given[1][..., :width] for width in (self.inner.kdim, self.inner.vdim))
        if self.memory is None and self.inner._qkv_same_embed_dim:
            keys = values = given[0]
        length = memory.shape[1]
        options = {}
        if "padding" in self.masks:
            hidden = (x[:, 0] > 0.5).sum(1) % 3
            options["key_padding_mask"] = torch.arange(length)[None] >= length - hidden[:, None]
        if "float padding" in self.masks:
            options["key_padding_mask"] = -x[:, :length, 0].detach().abs()
        if "bool" in self.masks:
            options["attn_mask"] = torch.ones(T, length, dtype=torch.bool).triu(2)
        if "float" in self.masks:
            options["attn_mask"] = torch.linspace(-1, 1, T * length, dtype=x.dtype).view(T, length)
        if "each head" in self.masks:
            each = torch.linspace(-1, 1, HEADS * T * length, dtype=x.dtype).view(HEADS, T, length)
            options["attn_mask"] = each.repeat(len(x), 1, 1)
        if "causal" in self.masks:
            options["attn_mask"] = nn.Transformer.generate_square_subsequent_mask(T, dtype=x.dtype)
            options["is_causal"] = True
        out, shares = self.inner(
            given[0], keys, values, need_weights=self.weights, average_attn_weights=self.average, **options
        )
        found = self.h((out if first else out.transpose(0, 1)).tanh().mean(1))
        if shares is not None:
            found = found + (shares**2).flatten(1).sum(1, keepdim=True) * self.h.bias
        return found


KINDS = {
    "packed": {},
    "crossed": {"crossed": True},
    "other widths": {"crossed": True, "kdim": 6, "vdim": 5},
    "other widths of itself": {"kdim": 6, "vdim": 5},
    "no bias": {"bias": False},
    "crossed, no bias": {"crossed": True, "bias": False},
}
MASKS = [(), ("padding",), ("float padding", "float"), ("bool",), ("each head",), ("bool", "padding")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [True, False])
def test_sums(kind, first):
    torch.manual_seed(1)
    dtypes = (torch.float64, torch.float32) if first else (torch.float64,)
    assert_equal(Attention(**KINDS[kind], batch_first=first), numbers(T, E), labels(), dtypes=dtypes)


@pytest.mark.parametrize("masks", [*MASKS, ("causal",)])
def test_sums_under_masks(masks):
    torch.manual_seed(2)
    net = Attention(masks=masks, weights=len(masks) == 1, average=False, batch_first=True)
    assert_equal(net, numbers(T, E), labels(), dtypes=(torch.float64,))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_torchs(kind):
    torch.manual_seed(3)
    for masks, weights, average in itertools.product([*MASKS, ("causal",)], (True, False), (True, False)):
        if masks == ("causal",) and "crossed" in KINDS[kind]:
            continue
        net = Attention(**KINDS[kind], masks=masks, weights=weights, average=average, batch_first=True).double()
        inputs = numbers(T, E).double()
        names = tuple(name for name, _ in net.named_parameters())
        with new_tape(COUNT, tuple(net.parameters()), names, None):
            found = net(inputs)
        torch.testing.assert_close(found.detach(), net(inputs).detach(), rtol=1e-12, atol=1e-12)


def test_dropout_is_torchs():
    torch.manual_seed(4)
    for weights in (True, False):
        net = Attention(weights=weights, average=False, batch_first=True, dropout=0.3).double()
        inputs = numbers(T, E).double()
        names = tuple(name for name, _ in net.named_parameters())
        torch.manual_seed(5)
        with new_tape(COUNT, tuple(net.parameters()), names, None):
            found = net(inputs)
        torch.manual_seed(5)
        torch.testing.assert_close(found.detach(), net(inputs).detach(), rtol=1e-12, atol=1e-12)


def test_parts_that_are_frozen():
    torch.manual_seed(6)
    for frozen in (
        ("inner.in_proj_weight",),
        ("inner.in_proj_bias", "inner.out_proj.weight"),
        ("inner.out_proj.bias",),
    ):
        for crossed in (True, False):
            net = Attention(crossed=crossed, batch_first=True)
            for name, each in net.named_parameters():
                each.requires_grad_(name not in frozen)
            engine = assert_equal(net, numbers(T, E), labels(), dtypes=(torch.float64,))
            assert not set(frozen) & set(engine.names)


def test_what_it_does_not_take_apart():
    """Extra keys go to vmap, and are right there."""
    torch.manual_seed(7)
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        engine = assert_equal(
            Attention(batch_first=True, **options), numbers(T, E), labels(), dtypes=(torch.float64,), fallback="vmap"
        )
        assert "bias_k" in engine.table[0].why


def test_a_decoder():
    torch.manual_seed(8)
    layer = nn.TransformerDecoderLayer(E, HEADS, 16, dropout=0.0, batch_first=True, norm_first=True)
    net = Net(lambda net, x: net.h(net.m(x, net.memory(x)[:, :S]).mean(1)), m=layer, memory=nn.Linear(E, E), h=head())
    assert_equal(net, numbers(T, E), labels())


def test_a_query_for_all_samples():
    torch.manual_seed(9)
    for spread in (lambda p, n: p.expand(n, -1, -1), lambda p, n: p.repeat(n, 1, 1), lambda p, n: p.tile((n, 1, 1))):
        net = Net(
            lambda net, x, spread=spread: net.h(net.m(spread(net.asked, len(x)), x, x)[0].mean(1)),
            m=nn.MultiheadAttention(E, HEADS, batch_first=True),
            asked=nn.Parameter(torch.randn(1, 3, E)),
            h=head(),
        )
        assert_equal(net, numbers(T, E), labels(), dtypes=(torch.float64,))


def test_attention_that_is_used_twice():
    """Blocks of the packed matrix of both uses lie over each other, so they must add up before they are measured."""
    torch.manual_seed(11)

    def forward(net, x):
        once = net.m(x, net.one(x), x, need_weights=False)[0]
        return net.h(net.m(once, x, once, need_weights=False)[0].mean(1))

    net = Net(forward, m=nn.MultiheadAttention(E, HEADS, batch_first=True), one=nn.Linear(E, E), h=head())
    assert_equal(net, numbers(T, E), labels())


def test_scaled_products_with_a_learned_bias():
    torch.manual_seed(10)
    for shape in ((T, T), (HEADS, T, T), (1, 1, 1, T)):

        def forward(net, x):
            query, key, value = net.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(query, key, value, net.bias)
            return net.h(mixed.transpose(1, 2).flatten(2).mean(1))

        net = Net(forward, qkv=nn.Linear(E, 3 * E), bias=nn.Parameter(torch.randn(shape)), h=head())
        assert_equal(net, numbers(T, E), labels(), dtypes=(torch.float64,))
