"""The same equality over drawn shapes."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from privacy.dp.engine.nets import Net
from privacy.dp.engine.toolkit import assert_equal

FEW = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
sizes = st.integers(1, 5)
counts = st.integers(1, 5)


def check(seed, part, shape, count, words=0):
    """A part, a nonlinearity, and a readout that is not trained."""
    torch.manual_seed(seed)
    inputs = torch.randint(0, words, (count, *shape)) if words else torch.randn(count, *shape)
    width = part(inputs).flatten(1).shape[1]
    readout = nn.Linear(width, 3).requires_grad_(False)
    net = Net(lambda net, x: net.readout(net.part(x).tanh().flatten(1)), part=part, readout=readout)
    assert_equal(net, inputs, torch.arange(count) % 3, dtypes=(torch.float32 if seed % 3 == 0 else torch.float64,))


@FEW
@given(st.integers(0, 99), counts, st.lists(sizes, max_size=2), sizes, sizes, st.booleans())
def test_linear(seed, count, leading, width, outputs, bias):
    check(seed, nn.Linear(width, outputs, bias=bias), (*leading, width), count)


@FEW
@given(st.integers(0, 99), st.data())
def test_convolution(seed, data):
    draw = data.draw
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(dims))
    gaps = tuple(draw(st.integers(1, 2)) for _ in range(dims))
    same = draw(st.booleans())
    stride = 1 if same else tuple(draw(st.integers(1, 2)) for _ in range(dims))
    part = layer(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        kernel,
        stride=stride,
        padding="same" if same else tuple(draw(st.integers(0, 1)) for _ in range(dims)),
        dilation=gaps,
        groups=groups,
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "circular"])),
    )
    check(seed, part, (part.in_channels, *(draw(st.integers(5, 6)) for _ in range(dims))), draw(counts))


@FEW
@given(st.integers(0, 99), st.data())
def test_transposed_convolution(seed, data):
    draw = data.draw
    dims, groups, stride = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    part = (nn.ConvTranspose1d, nn.ConvTranspose2d)[dims - 1](
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        stride=stride,
        padding=0,
        output_padding=draw(st.integers(0, stride - 1)),
        dilation=draw(st.integers(stride, 3)),
        groups=groups,
    )
    check(seed, part, (part.in_channels, *(draw(st.integers(1, 4)) for _ in range(dims))), draw(counts))


@FEW
@given(st.integers(0, 99), counts, st.lists(sizes, min_size=1, max_size=2), sizes, st.booleans())
def test_embedding(seed, count, shape, width, padded):
    check(seed, nn.Embedding(4, width, padding_idx=1 if padded else None), shape, count, words=4)


@FEW
@given(
    st.integers(0, 99), counts, st.lists(st.integers(2, 4), min_size=1, max_size=3), st.integers(1, 2), st.booleans()
)
def test_layer_norms(seed, count, shape, last, root):
    size = tuple(shape[-last:])
    check(seed, nn.RMSNorm(size) if root else nn.LayerNorm(size), shape, count)


@FEW
@given(st.integers(0, 99), counts, st.integers(1, 2), st.integers(1, 3), st.lists(st.integers(2, 4), max_size=2))
def test_channel_norms(seed, count, groups, each, spatial):
    channels = groups * max(2, each)
    check(seed, nn.GroupNorm(groups, channels), (channels, *spatial), count)
    if spatial:
        layer = (nn.InstanceNorm1d, nn.InstanceNorm2d)[len(spatial) - 1]
        check(seed, layer(channels, affine=True), (channels, *spatial), count)


class Heads(nn.Module):
    def __init__(self, first: bool, **options) -> None:
        super().__init__()
        self.inner, self.first = nn.MultiheadAttention(batch_first=first, **options), first

    def forward(self, x):
        given = x if self.first else x.transpose(0, 1)
        memory = given[..., : self.inner.kdim]
        found = self.inner(given, memory, given[..., : self.inner.vdim], need_weights=False)[0]
        return found if self.first else found.transpose(0, 1)


@FEW
@given(
    st.integers(0, 99), counts, sizes, st.integers(1, 2), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans()
)
def test_attention(seed, count, length, heads, each, first, apart, bias):
    width = heads * each * 2
    other = {"kdim": width - 1, "vdim": width - 1} if apart else {}
    check(seed, Heads(first, embed_dim=width, num_heads=heads, bias=bias, **other), (length, width), count)


class Loop(nn.Module):
    def __init__(self, inner) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        if self.inner.batch_first:
            return self.inner(x)[0]
        return self.inner(x.transpose(0, 1))[0].transpose(0, 1)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@FEW
@given(st.integers(0, 99), st.data())
def test_recurrent(seed, data):
    draw = data.draw
    layer = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
    hidden, width = draw(st.integers(2, 4)), draw(sizes)
    options = {"proj_size": hidden - 1} if layer is nn.LSTM and draw(st.booleans()) else {}
    if layer is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    part = layer(
        width,
        hidden,
        num_layers=draw(st.integers(1, 2)),
        bias=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        **options,
    )
    check(seed, Loop(part), (draw(sizes), width), draw(counts))
