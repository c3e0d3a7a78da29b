"""LSTM, GRU, RNN and their cells: torch's numbers, and clipped sums of what they are made of."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from privacy.dp.engine.nets import COUNT, Net, head, labels, numbers
from privacy.dp.engine.toolkit import assert_equal, prepared
from vambrace.privacy.dp.engine.clipped import new_tape

T, D, H = 7, 5, 6
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

KINDS = {
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
    "lstm projected": (nn.LSTM, {"proj_size": 3}),
}
SHAPES = {
    "plain": {},
    "batch first": {"batch_first": True},
    "two layers both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
    "three layers": {"num_layers": 3, "batch_first": True},
}


def given(layer, inputs):
    return inputs if layer.batch_first else inputs.transpose(0, 1)


def everything(net, x):
    """All that the layer gives: states of all steps, last states, and last memories."""
    first = net.m.batch_first
    out, last = net.m(given(net.m, x))
    ends = last if isinstance(last, tuple) else (last,)
    return net.h(torch.cat([out.mean(1 if first else 0), *(each.transpose(0, 1).flatten(1) for each in ends)], dim=1))


def recurrent(kind, shape, *, forward=everything, **more):
    layer, options = KINDS[kind]
    inner = layer(D, H, **options, **SHAPES[shape], **more)
    out, last = inner(given(inner, torch.randn(2, T, D)))
    ends = last if isinstance(last, tuple) else (last,)
    width = out.shape[2] + sum(each.shape[0] * each.shape[2] for each in ends)
    return Net(forward, m=inner, h=nn.Linear(width, 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums(kind, shape):
    torch.manual_seed(1)
    assert_equal(recurrent(kind, shape), numbers(T, D), labels(), dtypes=(torch.float64,))


@pytest.mark.parametrize("kind", KINDS)
def test_sums_in_single_precision(kind):
    torch.manual_seed(2)
    assert_equal(recurrent(kind, "two layers both ways"), numbers(T, D), labels(), dtypes=(torch.float32,))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_torchs(kind, shape):
    """Outputs and the gradients of inputs and first states, which need their own way back through time."""
    torch.manual_seed(3)
    layer, options = KINDS[kind]
    inner = layer(D, H, **options, **SHAPES[shape]).double()
    x = given(inner, numbers(T, D)).double()
    _, last = inner(x)
    states = [torch.randn_like(each) for each in (last if isinstance(last, tuple) else (last,))]
    found = []
    for taped in (True, False):
        leaves = [each.detach().clone().requires_grad_() for each in (x, *states)]
        hx = tuple(leaves[1:]) if len(states) > 1 else leaves[1]
        if taped:
            names = tuple(name for name, _ in inner.named_parameters())
            with new_tape(COUNT, tuple(inner.parameters()), names, None):
                out, last = inner(leaves[0], hx)
        else:
            out, last = inner(leaves[0], hx)
        ends = last if isinstance(last, tuple) else (last,)
        total = out.sin().sum() + sum((each * (at + 2)).cos().sum() for at, each in enumerate(ends))
        found.append([out, *ends, *torch.autograd.grad(total, leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
def test_dropout_between_layers_is_torchs(kind):
    torch.manual_seed(4)
    net = recurrent(kind, "three layers", dropout=0.4).double()
    x = numbers(T, D).double()
    names = tuple(name for name, _ in net.named_parameters())
    torch.manual_seed(5)
    with new_tape(COUNT, tuple(net.parameters()), names, None):
        found = net(x)
    torch.manual_seed(5)
    torch.testing.assert_close(found.detach(), net(x).detach(), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert not torch.allclose(net(x), found)


def test_last_step_only():
    torch.manual_seed(6)
    for layer in (nn.LSTM, nn.GRU, nn.RNN):
        net = Net(lambda net, x: net.h(net.m(x)[0][:, -1]), m=layer(D, H, batch_first=True), h=head(H))
        assert_equal(net, numbers(T, D), labels(), dtypes=(torch.float64,))


def test_last_memory_only():
    torch.manual_seed(7)
    net = Net(lambda net, x: net.h(net.m(x)[1][1][0]), m=nn.LSTM(D, H, batch_first=True), h=head(H))
    assert_equal(net, numbers(T, D), labels(), dtypes=(torch.float64,))


def test_words_encoder_decoder_and_a_first_state_that_is_learned():
    torch.manual_seed(8)

    def forward(net, x):
        first = net.first.expand(-1, len(x), -1).contiguous()
        _, last = net.encoder(net.words(x), first)
        out, _ = net.decoder(net.words(x), (last, last.tanh()))
        return net.h(out.mean(1))

    net = Net(
        forward,
        words=nn.Embedding(10, D),
        first=nn.Parameter(torch.randn(1, 1, H)),
        encoder=nn.GRU(D, H, batch_first=True),
        decoder=nn.LSTM(D, H, batch_first=True),
        h=head(H),
    )
    assert_equal(net, torch.randint(0, 10, (COUNT, T)), labels())


def test_sequences_within_samples():
    """Several sequences of one sample, folded into the first dimension."""
    torch.manual_seed(9)
    net = Net(
        lambda net, x: net.h(net.m(x.flatten(0, 1))[0][:, -1]).unflatten(0, x.shape[:2]).mean(1),
        m=nn.LSTM(D, H, batch_first=True),
        h=head(H),
    )
    assert_equal(net, numbers(3, T, D), labels(), dtypes=(torch.float64,))


def test_frozen_weights_cost_nothing():
    torch.manual_seed(10)
    net = recurrent("lstm", "three layers")
    net.m.weight_hh_l0.requires_grad_(False)
    net.m.bias_ih_l1.requires_grad_(False)
    engine = assert_equal(net, numbers(T, D), labels(), dtypes=(torch.float64,))
    assert "m.weight_hh_l0" not in [row.name for row in engine.table]


def test_cells_in_a_loop_that_may_be_longer_than_traced():
    torch.manual_seed(11)

    def forward(net, x):
        h = c = g = e = x.new_zeros(len(x), H)
        for step in x.unbind(1):
            h, c = net.a(step, (h, c))
            g = net.b(h, g)
            e = net.d(g, e)
        return net.h(e + g)

    net = Net(forward, a=nn.LSTMCell(D, H), b=nn.GRUCell(H, H), d=nn.RNNCell(H, H, nonlinearity="relu"), h=head(H))
    assert_equal(net, numbers(4, D), labels())


def test_half_precision_keeps_going():
    torch.manual_seed(12)
    net = recurrent("lstm", "batch first")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        engine = prepared(net, numbers(T, D), labels())
    assert not engine.fallback


def packed(net, x):
    lengths = torch.full((len(x),), x.shape[1])
    _, (last, _) = net.m(pack_padded_sequence(x, lengths, batch_first=True))
    return net.h(last[0])


def test_packed_sequences_go_one_by_one_and_the_table_says_what_to_do():
    torch.manual_seed(13)
    net = Net(packed, m=nn.LSTM(D, H, batch_first=True), h=head(H))
    engine = assert_equal(net, numbers(T, D), labels(), dtypes=(torch.float64,), fallback="one by one")
    assert "m.weight_ih_l0" in engine.table[0].why
    assert "packed sequence (pad it and mask the loss instead)" in engine.table[0].why
