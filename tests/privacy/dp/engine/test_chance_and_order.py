"""What three samples at one starting point would not show: mixing by chance, rows that happen to lie in order."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privacy.dp.engine.nets import COUNT, Net, head, labels, numbers
from privacy.dp.engine.toolkit import added, prepared, some
from vambrace.errors import ConfigError
from vambrace.privacy.dp.clipping import Flat
from vambrace.privacy.dp.engine.engine import Engine

C = 0.1


def standardised(x):
    return (x - x.mean(0)) / (x.std(0) + 1e-3)


@pytest.mark.parametrize("coin", [lambda: random.random() < 0.5, lambda: random.random() >= 0.5])
def test_samples_that_mix_only_sometimes(coin):
    net = Net(lambda net, x: net.h(standardised(net.m(x)) if coin() else net.m(x)), m=nn.Linear(8, 8), h=head())
    with pytest.raises(ConfigError, match="E151"):
        prepared(net, numbers(8), labels(COUNT))


def _crowded(net, x):
    """Places for a quarter of the samples, and for eight at least: the last of a large batch may find none left."""
    wanted = x[:, 0] > 0
    left = wanted.cumsum(0) <= max(8, len(x) // 4)
    return net.h(x + torch.tanh(net.m(x)) * (wanted & left)[:, None])


MANY = {
    "statistics": lambda net, x: net.h(standardised(net.m(x)) if len(x) > 13 else net.m(x)),
    "places": _crowded,
}


@pytest.mark.parametrize("forward", MANY.values(), ids=MANY.keys())
def test_samples_that_mix_only_where_there_are_many(forward):
    torch.manual_seed(5)
    net, inputs = Net(forward, m=nn.Linear(8, 8), h=head()), torch.randn(80, 8)
    inputs[0, 0], inputs[1:32, 0], inputs[32:, 0] = 1.0, -1.0, 1.0
    wanted = labels(80)
    with pytest.raises(ConfigError, match="E151"):
        Engine(net).prepare(some(net, inputs, wanted), many=32)


def by_length(net, x):
    """As packing does: in order of length inside, which here is as they came for the samples that are looked at."""
    hidden = net.m(x[:, 1:])
    order = torch.sort(x[:, 0], descending=True, stable=True).indices
    return net.h(torch.tanh(net.t(hidden[order]))[order.argsort()])


def test_rows_that_are_put_in_order():
    torch.manual_seed(3)
    inputs = torch.cat([torch.full((COUNT, 1), 5.0), torch.logspace(-2, 2, COUNT)[:, None] * torch.randn(COUNT, 8)], 1)
    net = Net(by_length, m=nn.Linear(8, 8), t=nn.Linear(8, 8), h=head())
    engine = prepared(net, inputs, labels(COUNT))
    inputs[:, 0] = torch.arange(COUNT)  # now they are turned around
    whole = added(engine, some(net, inputs, labels(COUNT))(range(COUNT)), Flat(clip_norm=C))[0]
    for left in range(COUNT):
        rows = [row for row in range(COUNT) if row != left]
        less = added(engine, some(net, inputs, labels(COUNT))(rows), Flat(clip_norm=C))[0]
        moved_by = torch.cat([(one - two).flatten() for one, two in zip(whole, less, strict=True)]).norm()
        assert float(moved_by) <= C * (1 + 1e-5)


@pytest.mark.parametrize(
    "put",
    [
        lambda x, order: torch.stack([x[row] for row in order.tolist()]),
        lambda x, order: F.embedding(order, x),
        lambda x, order: F.one_hot(order, len(x)).to(x) @ x,
        lambda x, order: x.mT[:, order].mT,
    ],
)
def test_rows_that_are_put_in_order_in_ways_without_a_name(put):
    """Found though they lie in order as they come, since they are tried turned around as well."""
    torch.manual_seed(4)

    def forward(net, x):
        order = x[:, 0].argsort()
        return net.h(put(torch.tanh(net.m(put(x, order))), order.argsort()))

    inputs = numbers(8)
    inputs = inputs[inputs[:, 0].argsort()]
    net = Net(forward, m=nn.Linear(8, 8), h=head())
    assert prepared(net, inputs, labels(COUNT)).fallback


def test_the_last_position_of_each_sample_is_no_reordering():
    def forward(net, x):
        states = net.r(x)[0]
        return net.h(states[torch.arange(len(x)), torch.full((len(x),), 2)])

    net = Net(forward, r=nn.LSTM(8, 8, batch_first=True), h=head())
    assert all(row.method not in ("vmap", "one by one") for row in prepared(net, numbers(4, 8), labels(COUNT)).table)


def test_a_tensor_that_is_kept_beside_the_buffers():
    def forward(net, x):
        net.mean = x.detach().mean(0)
        return net.h(x)

    with pytest.raises(ConfigError, match=r"E151.*mean"):
        prepared(Net(forward, h=head()), numbers(8), labels(COUNT))
