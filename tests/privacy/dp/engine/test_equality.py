"""Clipped sums equal those of one sample at a time: every kind of network, every way to clip."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privacy.dp.engine.custom_nets import CUSTOM
from privacy.dp.engine.nets import COUNT, LAYERS, labels, numbers
from privacy.dp.engine.toolkit import added, assert_equal, assert_same, length, one_by_one, prepared, slow, some
from vambrace.privacy.dp.clipping import AdaptiveQuantile, Automatic, Clipping, Flat, PerLayer

CASES = {**LAYERS, **CUSTOM}

INFINITE = float("inf")

CLIPS: dict[str, Clipping] = {
    "flat": Flat(clip_norm=0.3),
    "l1": Flat(clip_norm=2.0, norm="l1"),
    "per layer": PerLayer(clip_norm=0.3),
    "automatic": Automatic(clip_norm=0.5),
    "adaptive": AdaptiveQuantile(clip_norm=0.2, count_noise=1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_networks(name):
    torch.manual_seed(1)
    net, inputs = CASES[name]()
    assert_equal(net, inputs, labels(), dtypes=(torch.float64, torch.float32) if name in LAYERS else (torch.float64,))


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("name", ["cnn", "tokens", "tied", "weight norm", "reused convolution"])
def test_ways_to_clip(name, clip):
    torch.manual_seed(2)
    net, inputs = CASES[name]()
    assert_equal(net, inputs, labels(), clip=CLIPS[clip], dtypes=(torch.float32 if name == "cnn" else torch.float64,))


@pytest.mark.parametrize("name", ["mlp", "cnn", "tokens", "encoder", "long"])
def test_an_infinite_clip_norm_gives_the_plain_gradient(name):
    torch.manual_seed(3)
    net, inputs = CASES[name]()
    net, wanted = net.double(), labels()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    engine = prepared(net, inputs, wanted)
    for clip in (Flat(clip_norm=INFINITE), PerLayer(clip_norm=INFINITE)):
        sums, _ = added(engine, some(net, inputs, wanted)(range(COUNT)), clip)
        plain = torch.autograd.grad(F.cross_entropy(net(inputs), wanted, reduction="sum"), engine.parameters)
        assert_same(sums, plain, 1e-12)


def test_a_penalty_in_the_loss_counts_for_every_sample():
    torch.manual_seed(4)
    net = nn.Linear(8, 4).double()

    def loss(outputs, wanted):
        return F.cross_entropy(outputs, wanted, reduction="none") + 0.1 * net.weight.square().sum()

    inputs, wanted, clip = numbers(8).double(), labels(), Flat(clip_norm=0.5)
    engine = prepared(net, inputs, wanted, loss)
    sums, _ = added(engine, some(net, inputs, wanted, loss)(range(COUNT)), clip)
    expected, _ = slow(one_by_one(net, inputs, wanted, loss), engine.names, clip)
    assert_same(sums, expected, 1e-10)


@pytest.mark.parametrize("rubbish_of", [1.0, 1e30])
def test_losses_come_back_and_padding_counts_for_nothing(rubbish_of):
    torch.manual_seed(5)
    net, inputs = CASES["mlp"]()
    wanted = labels()
    engine, clip = prepared(net, inputs, wanted), Flat(clip_norm=0.5)
    mask = torch.tensor([True, False, True, True, False, True])
    rubbish = inputs.clone()
    rubbish[~mask] = rubbish_of
    sums, found = added(engine, some(net, rubbish, wanted)(range(COUNT)), clip, mask)
    alone, _ = added(engine, some(net, inputs[mask], wanted[mask])(range(4)), clip)
    assert torch.equal(found.counted, mask)
    assert bool((found.norms[0][~mask] == 0).all())
    assert_same(sums, alone, 1e-6)
    expected = F.cross_entropy(net(inputs), wanted, reduction="none")
    torch.testing.assert_close(found.losses[mask], expected[mask].detach())


def test_no_sample_at_all_adds_nothing():
    net, inputs = CASES["mlp"]()
    engine = prepared(net, inputs, labels())
    sums, found = added(engine, some(net, inputs, labels())([]), Flat(clip_norm=0.5))
    assert length(sums) == 0.0
    assert found.norms.shape == (1, 0)
    assert found.counted.shape == (0,)


def test_parts_add_up():
    torch.manual_seed(6)
    net, inputs = CASES["cnn"]()
    wanted, clip = labels(), Flat(clip_norm=0.3)
    engine = prepared(net, inputs, wanted)
    whole, _ = added(engine, some(net, inputs, wanted)(range(COUNT)), clip)
    parts = [torch.zeros_like(each) for each in whole]
    for rows in ((0,), (1, 2, 3), (4, 5)):
        engine.add(
            some(net, inputs, wanted)(rows), lambda norms: clip.factors(norms, (0.3,)), parts, [range(len(parts))]
        )
    assert_same(parts, whole, 1e-6)
