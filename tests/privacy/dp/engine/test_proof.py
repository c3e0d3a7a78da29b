"""What is proved before training, what it leaves as it was, and what a proof at the starting point would not see."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privacy.dp.engine.nets import COUNT, LAYERS, Net, head, labels, numbers, weight
from privacy.dp.engine.toolkit import added, assert_equal, assert_same, one_by_one, prepared, slow, some
from vambrace.errors import ConfigError
from vambrace.privacy.dp.clipping import Flat
from vambrace.privacy.dp.engine.clipped import RULES
from vambrace.privacy.dp.engine.pieces import Direct
from vambrace.privacy.dp.engine.rules import linear


def wrong(change):
    """A rule for linear layers whose per-sample gradients are changed."""

    def rule(tape, func, *args, **kwargs):
        out = linear(tape, func, *args, **kwargs)
        for use in tape.uses:
            make = use.piece

            def piece(make=make):
                found = make()
                return None if found is None else Direct(change(found.per_sample(slice(None))))

            use.piece = piece
        return out

    return rule


WRONG = {
    "a little longer": lambda each: each * 1.01,
    "samples swapped": lambda each: each.roll(1, 0),
    "mixed": lambda each: each + 1e-3 * each.roll(1, 0),
    "transposed": lambda each: each.flip(1),
    "nothing": torch.zeros_like,
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_wrong_rule_is_not_used(monkeypatch, kind, dtype):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), head()).to(dtype)
    monkeypatch.setitem(RULES, F.linear, wrong(WRONG[kind]))
    engine = prepared(net, numbers(8).to(dtype), labels())
    assert engine.fallback == "vmap"
    assert "that gives its own gradients" in engine.table[0].why


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_wrong_rule_for_a_parameter_that_hardly_counts(monkeypatch, scale):
    """Each parameter is compared with its own gradient, not with the largest of them."""
    torch.manual_seed(2)
    monkeypatch.setitem(RULES, F.linear, wrong(torch.zeros_like))
    net = Net(lambda net, x: net.h(x) / scale + (x * net.much).sum(1, keepdim=True) ** 2, h=head(), much=weight(8))
    engine = prepared(net, numbers(8), labels(), lambda outputs, wanted: outputs.square().sum(1))
    assert engine.fallback == "vmap"


def gate(net, x):
    return net.h(x + net.closed * net.m(x.transpose(0, 1).reshape(-1, 8)).tanh().view(5, -1, 8).transpose(0, 1)).mean(1)


def test_a_gate_that_is_closed_at_first_hides_nothing():
    """The layer behind a scale of zero is used with samples innermost; its gradient at the start is zero."""
    torch.manual_seed(3)
    net = Net(gate, m=nn.Linear(8, 8), closed=nn.Parameter(torch.zeros(8)), h=head()).double()
    inputs, wanted = numbers(5, 8).double(), labels()
    engine = prepared(net, inputs, wanted)
    assert engine.fallback == "vmap"
    assert not net.closed.any()
    with torch.no_grad():
        net.closed.fill_(0.5)
    sums, _ = added(engine, some(net, inputs, wanted)(range(COUNT)), Flat(clip_norm=0.3))
    expected, _ = slow(one_by_one(net, inputs, wanted), engine.names, Flat(clip_norm=0.3))
    assert_same(sums, expected, 1e-10)


def test_mixing_behind_a_closed_gate_is_seen():
    torch.manual_seed(4)
    net = Net(lambda net, x: net.h(x + net.closed * x.mean(0)), closed=nn.Parameter(torch.zeros(())), h=head())
    with pytest.raises(ConfigError) as caught:
        prepared(net, numbers(8), labels())
    assert caught.value.code == "E151"


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_is_another_afterwards(failing):
    torch.manual_seed(5)

    def forward(net, x):
        if not torch.is_grad_enabled():
            return net.h(x)
        net.calls.add_(1)
        net.late = net.calls * 2
        noise = float(np.random.rand()) + random.random()
        return net.h(F.dropout(net.m(x), 0.5) * noise + torch.randn(()) + (x.mean(0) if failing else 0))

    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
    net = Net(forward, m=normed, h=head(), calls=torch.zeros(()), late=torch.zeros(()))
    net.train()
    state, kind = copy.deepcopy(net.state_dict()), type(net)
    buffers = {name: id(each) for name, each in net.named_buffers()}
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    if failing:
        with pytest.raises(ConfigError):
            prepared(net, numbers_from(6), labels())
    else:
        engine = prepared(net, numbers_from(6), labels())
        assert not engine.fallback
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.random.get_state()[1].tolist() == generators[2]
    assert type(net) is kind
    assert net.training
    assert {name: id(each) for name, each in net.named_buffers()} == buffers
    for name, each in net.state_dict().items():
        assert torch.equal(each, state[name]), name
    assert all(each.grad is None for each in net.parameters())


def numbers_from(seed):
    return torch.randn(COUNT, 8, generator=torch.Generator().manual_seed(seed))


def test_the_module_stays_an_ordinary_module():
    torch.manual_seed(6)
    net, inputs = LAYERS["encoder"]()
    keys, kind = list(net.state_dict()), type(net)
    engine = prepared(net, inputs, labels())
    for _ in range(2):
        added(engine, some(net, inputs, labels())(range(COUNT)), Flat())
        assert type(net) is kind
        assert list(net.state_dict()) == keys
        assert not any(each._forward_hooks or each._backward_hooks or each._forward_pre_hooks for each in net.modules())
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again(inputs), net(inputs))
    assert torch.equal(copy.deepcopy(net)(inputs), net(inputs))
    F.cross_entropy(net(inputs), labels()).backward()
    assert all(each.grad is not None for each in net.parameters())


def test_dropout_is_on_in_training():
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 4))
    inputs = numbers(8)
    engine = prepared(net, inputs, labels())
    assert not engine.fallback
    lengths = [float(added(engine, some(net, inputs, labels())([0]), Flat())[1].norms[0, 0]) for _ in range(3)]
    assert len(set(lengths)) == 3
    torch.manual_seed(8)
    sums, _ = added(engine, some(net, inputs, labels())(range(COUNT)), Flat(clip_norm=float("inf")))
    torch.manual_seed(8)
    plain = torch.autograd.grad(F.cross_entropy(net(inputs), labels(), reduction="sum"), engine.parameters)
    assert_same(sums, plain, 1e-5)


def test_frozen_parameters_cost_nothing():
    torch.manual_seed(9)
    net = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh(), head())
    for each in (*net[0].parameters(), *net[1].parameters(), net[2].bias):
        each.requires_grad_(False)
    engine = assert_equal(net, numbers(8), labels())
    assert [row.name for row in engine.table] == ["2.weight", "4.weight", "4.bias"]


def test_the_table_says_how_and_why():
    torch.manual_seed(10)
    net, inputs = LAYERS["tokens"]()
    rows = {row.name: row for row in prepared(net, inputs, labels()).table}
    assert rows["words.weight"].method == "rows"
    assert rows["words.weight"].uses == ("embedding",)
    assert rows["matrix"].method in ("ghost", "instantiated")
    assert rows["norm.weight"].method == "direct"
    assert rows["norm.weight"].uses == ("layer_norm",)
    assert rows["h.weight"].method == "ghost"
    assert "Gram" in rows["h.weight"].why
    assert rows["scale"].size == 6
    assert prepared(*LAYERS["unused"](), labels()).table[0].why == "no gradient arrives"


def test_random_draws_are_proved_too():
    """Stochastic depth, noise and skipped layers: still one gradient a sample, and still the tape."""
    torch.manual_seed(11)

    def forward(net, x):
        keep = torch.empty(len(x), 1).bernoulli_(0.5)
        found = net.one(x) * keep + torch.randn_like(x)
        if random.random() < 0.5:
            found = found + net.two(found)
        return net.h(found + torch.randint(0, 9, (len(x), 1)))

    net = Net(forward, one=nn.Linear(8, 8), two=nn.Linear(8, 8), h=head())
    inputs = numbers(8)
    engine = prepared(net, inputs, labels())
    assert not engine.fallback
    for seed in range(4):
        random.seed(seed)
        torch.manual_seed(seed)
        sums, _ = added(engine, some(net, inputs, labels())(range(COUNT)), Flat(clip_norm=float("inf")))
        random.seed(seed)
        torch.manual_seed(seed)
        plain = torch.autograd.grad(
            F.cross_entropy(net(inputs), labels(), reduction="sum"),
            engine.parameters,
            materialize_grads=True,
            allow_unused=True,
        )
        assert_same(sums, plain, 1e-5)


@pytest.mark.parametrize("size", [3, 5, 7, 11, 13, 15, 21, 35, 105])
def test_sizes_that_look_like_the_samples_of_a_trace(size):
    torch.manual_seed(12)
    net = Net(
        lambda net, x: net.h(net.m(x.transpose(0, 1)).mean(0) + net.shift),
        m=nn.Linear(8, 8),
        shift=weight(8),
        h=head(),
    )
    assert_equal(net, numbers(size, 8), labels(), dtypes=(torch.float64,))


COINS = {
    "none": (lambda x: x, False),
    "dropout": (lambda x: F.dropout(x, 0.3), False),
    "attention with dropout": (
        lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], dropout_p=0.3)[:, 0],
        False,
    ),
    "torch": (lambda x: x + 0.0 * torch.rand(len(x), 1), True),
    "python": (lambda x: x + 0.0 * random.random(), True),
    "numpy": (lambda x: x + 0.0 * float(np.random.rand()), True),
}


@pytest.mark.parametrize("coin", COINS)
def test_what_draws_at_random_is_proved_from_several_starting_points(coin):
    torch.manual_seed(13)
    change, chance = COINS[coin]
    calls = []
    net = Net(lambda net, x: calls.append(torch.initial_seed()) or net.h(change(x)), h=head())
    prepared(net, numbers(8), labels())
    assert (len(set(calls)) > 1) == chance
