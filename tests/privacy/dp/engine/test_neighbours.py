"""One sample more moves the clipped sum by no more than the clip norm, however the sample was made."""

import copy
import math

import pytest
import torch
from torch import nn

from privacy.dp.engine.custom_nets import CUSTOM
from privacy.dp.engine.nets import COUNT, LAYERS, Net, head, labels
from privacy.dp.engine.toolkit import added, length, prepared, some
from vambrace.privacy.dp.clipping import AdaptiveQuantile, Automatic, Flat, PerLayer

CASES = {**LAYERS, **CUSTOM}
FLOATING = [name for name in CASES if name not in ("tokens", "tied")]
WORDS = ["tokens", "tied"]
SINGLE = [
    "mlp",
    "cnn",
    "conv ghost",
    "long",
    "reused",
    "reused convolution",
    "folded",
    "encoder",
    "scaled layers",
    "windows",
]
C = 0.37
CLIPS = [
    Flat(clip_norm=C),
    PerLayer(clip_norm=C),
    Automatic(clip_norm=C),
    AdaptiveQuantile(clip_norm=C, count_noise=1.0),
]


def moved(engine, net, inputs, wanted, clip, dtype):
    """How far the sum moves for the last sample, group by group: lengths, and the length of the sum."""
    whole, found = added(engine, some(net, inputs, wanted)(range(len(inputs))), clip, dtype=dtype)
    less, _ = added(engine, some(net, inputs, wanted)(range(len(inputs) - 1)), clip, dtype=dtype)
    difference = [one.double() - two.double() for one, two in zip(whole, less, strict=True)]
    groups = clip.groups(engine.names)
    return [length([difference[slot] for slot in group]) for group in groups], length(whole), found


def holds(net, inputs, wanted, clip, dtype=torch.float64):
    net = copy.deepcopy(net).to(dtype)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    engine = prepared(net, inputs, wanted)
    assert not engine.fallback
    lengths, whole, found = moved(engine, net, inputs, wanted, clip, dtype)
    for each, bound in zip(lengths, clip.norms(len(lengths)), strict=True):
        assert each <= bound * (1 + 1e-9) + (1e-5 * whole if dtype == torch.float32 else 0.0)
    assert math.hypot(*lengths) <= C * (1 + 1e-9) + (1e-5 * whole if dtype == torch.float32 else 0.0)
    return math.hypot(*lengths), found


@pytest.mark.parametrize("name", FLOATING)
def test_a_sample_a_million_times_as_large(name):
    torch.manual_seed(7)
    net, inputs = CASES[name]()
    huge = torch.cat([inputs, 1e6 * torch.randn_like(inputs[:1])])
    for dtype in (torch.float64, torch.float32) if name in SINGLE else (torch.float64,):
        holds(net, huge, labels(COUNT + 1), Flat(clip_norm=C), dtype)


@pytest.mark.parametrize("name", WORDS)
def test_words_again_and_again(name):
    torch.manual_seed(8)
    net, inputs = CASES[name]()
    with torch.no_grad():
        for each in net.parameters():
            each.mul_(10.0)
    more = torch.cat([inputs, torch.full_like(inputs[:1], 5)])
    for dtype in (torch.float64, torch.float32):
        holds(net, more, labels(COUNT + 1), Flat(clip_norm=C), dtype)


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: type(clip).__name__)
@pytest.mark.parametrize("name", ["cnn", "reused convolution", "weight norm"])
def test_every_way_to_clip(name, clip):
    torch.manual_seed(9)
    net, inputs = CASES[name]()
    huge = torch.cat([inputs, 1e6 * torch.randn_like(inputs[:1])])
    reached, _ = holds(net, huge, labels(COUNT + 1), clip)
    assert reached > 0.3 * C  # the bound is nearly reached, or the test could not fail


ROTTEN = [float("nan"), float("inf"), -float("inf"), "large"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["mlp", "cnn", "reused convolution", "long", "scaled layers"])
def test_a_sample_without_a_finite_gradient_is_none(name, dtype):
    torch.manual_seed(10)
    net, inputs = CASES[name]()
    net, inputs = net.to(dtype), inputs.to(dtype)
    engine = prepared(net, inputs, labels())
    for rotten in ROTTEN:
        spoilt = torch.cat([inputs, torch.ones_like(inputs[:1])])
        spoilt[-1].view(-1)[0] = torch.finfo(dtype).max / 2 if rotten == "large" else rotten
        lengths, whole, found = moved(engine, net, spoilt, labels(COUNT + 1), Flat(clip_norm=C), dtype)
        assert math.isfinite(whole)
        assert bool(found.counted[:-1].all())
        if bool(found.counted[-1]):
            assert rotten == "large"  # which may have a gradient; nothing else has one
            assert lengths[0] <= C * (1 + 1e-9) + (1e-5 * whole if dtype == torch.float32 else 0.0)
        else:
            assert lengths[0] <= (1e-12 if dtype == torch.float64 else 1e-6) * whole


def twin(net, x):
    """Compares two halves of a sample: what positions give cancels where they are alike."""
    return net.h((net.m(x[:, 0]).tanh() - net.m(x[:, 1]).tanh()) * net.much)


def by_position(net, x):
    found = net.m(x).tanh()
    return net.h((found[:, 0] - found[:, 1]) * net.much)


def by_image(net, x):
    found = net.m(x).tanh()
    return net.h((found[..., 0, 0] - found[..., 1, 1]) * net.much)


@pytest.mark.parametrize("forward", [twin, by_position, by_image])
@pytest.mark.parametrize("apart", [1e-2, 1e-4, 1e-6])
def test_positions_that_cancel(forward, apart):
    """Norms from Gram matrices lose all digits here: without a second look they were off by a factor of four."""
    torch.manual_seed(11)
    if forward is by_image:
        part, inputs = nn.Conv2d(32, 32, 1), torch.randn(COUNT + 1, 32, 1, 1).repeat(1, 1, 2, 2)
    else:
        part, inputs = nn.Linear(32, 32), torch.randn(COUNT + 1, 1, 32).repeat(1, 2, 1)
    inputs = inputs + apart * torch.randn_like(inputs)
    net = Net(forward, m=part, h=head(32), much=torch.tensor(1 / apart))
    clip = Flat(clip_norm=C)
    given, wanted = net.double(), labels(COUNT + 1)
    reached, _ = holds(given, inputs.double(), wanted, clip)
    assert reached > 0.9 * C
    single = net.float()
    # In float32 the network itself is made of rounding here, so samples are proved on the easy ones.
    engine = prepared(single, torch.randn_like(inputs), wanted)
    lengths, whole, _ = moved(engine, single, inputs, wanted, clip, torch.float32)
    assert 0.9 * C < lengths[0] <= C + 1e-5 * whole


def padded_mean(net, x):
    """The mean over positions that are not all zeros: its gradient is the same at all, unless one is left out."""
    return padded_mean_of(net.h(net.m(x)), x)


def padded_mean_of(outputs, x):
    real = (x != 0).any(dim=2, keepdim=True)
    return (outputs * real).sum(1) / real.sum(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("offset", [1.0, 1e3, 1e5, 1e8])
@pytest.mark.parametrize("last", ["padded", "nan"])
@pytest.mark.parametrize("clip", [Flat(clip_norm=C), Automatic(clip_norm=C)], ids=lambda clip: type(clip).__name__)
def test_one_sample_decides_whether_positions_count_as_one(clip, last, offset, dtype):
    """The others must not notice: their positions cancel, and what they add was once rounded in two ways."""
    torch.manual_seed(15)
    count = 31
    inputs = torch.randn(count + 1, 6, 8, dtype=dtype)
    inputs += offset * torch.tensor([1.0, -1.0], dtype=dtype).repeat(3).view(1, 6, 1)
    if last == "padded":
        inputs[-1, 4:] = 0.0
    else:
        inputs[-1, 0, 0] = torch.nan
    net = Net(padded_mean, m=nn.Linear(8, 8), h=head()).to(dtype)
    engine = prepared(net, torch.randn(count + 1, 6, 8, dtype=dtype), labels(count + 1))
    lengths, whole, found = moved(engine, net, inputs, labels(count + 1), clip, dtype)
    bound = C if last == "padded" else 0.0
    assert bool(found.counted[-1]) == (last == "padded")
    assert lengths[0] <= bound * (1 + 1e-9) + (1e-5 if dtype == torch.float32 else 1e-12) * whole


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("last", ["plain", "padded"])
def test_positions_whose_sum_is_infinite(last, dtype):
    """The sample has a gradient, so it counts; its sum over positions has none, and must not get into the others."""
    torch.manual_seed(16)
    inputs = torch.randn(COUNT + 1, 4, 8, dtype=dtype)
    inputs[0] = 0.0
    inputs[0, :, 0] = 0.6 * torch.finfo(dtype).max
    if last == "padded":
        inputs[-1, 2:] = 0.0
    net = Net(lambda net, x: net.h(torch.tanh(padded_mean_of(net.m(x), x))), m=nn.Linear(8, 8), h=head()).to(dtype)
    engine = prepared(net, torch.randn(COUNT + 1, 4, 8, dtype=dtype), labels(COUNT + 1))
    lengths, whole, found = moved(engine, net, inputs, labels(COUNT + 1), Flat(clip_norm=C), dtype)
    assert math.isfinite(whole)
    assert bool(found.counted[1:].all())
    assert lengths[0] <= C * (1 + 1e-9) + 1e-5 * whole


@pytest.mark.parametrize("large", [1e10, 3e9, 1e9])
def test_products_that_float32_cannot_hold_are_lost_in_either_way_or_in_none(large):
    """Positions cancel, and what they would have been is beyond float32: one sample decides how it is measured."""
    torch.manual_seed(17)
    net = Net(lambda net, x: padded_mean_of(net.m(x), x), m=nn.Linear(64, 64, bias=False))
    inputs, slopes = torch.randn(7, 2, 64), torch.randn(7, 64)
    inputs[0] *= large
    inputs[0, 1] = -inputs[0, 0]
    inputs[0, 1, 0] += 0.01 * large
    slopes[0] *= 1e10
    inputs[-1] = 0.0
    inputs[-1, 0] = 1.0
    slopes[-1] = -slopes[0] / 1e10

    def loss(outputs, wanted):
        return (outputs * wanted).sum(1)

    engine = prepared(net, torch.randn(7, 2, 64), slopes / slopes.norm(dim=1, keepdim=True), loss)
    clip = Flat(clip_norm=C)
    more, with_it = added(engine, some(net, inputs, slopes, loss)(range(7)), clip)
    less, without = added(engine, some(net, inputs, slopes, loss)(range(6)), clip)
    assert bool(with_it.counted[0]) == bool(without.counted[0])
    assert length([more[0].double() - less[0].double()]) <= C * (1 + 1e-5)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("name", ["mlp", "cnn", "tokens", "encoder", "folded"])
def test_half_precision(name):
    """Sums of what half precision gave, measured in float64, keep to the bound as well."""
    torch.manual_seed(12)
    net, inputs = CASES[name]()
    wanted = labels(COUNT + 1)
    more = torch.cat([inputs, inputs[:1] if inputs.dtype == torch.long else 30 * torch.randn_like(inputs[:1])])
    clip = Flat(clip_norm=C)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        engine = prepared(net, more, wanted)
        assert not engine.fallback
        for rows in range(COUNT + 1):
            one, _ = added(engine, some(net, more[rows:], wanted[rows:])([0]), clip)
            assert length(one) <= C * (1 + 1e-6)
        lengths, whole, _ = moved(engine, net, more, wanted, clip, torch.float32)
    assert lengths[0] <= C + 1e-6 * whole


def test_a_laplace_bound():
    torch.manual_seed(13)
    net, inputs = CASES["cnn"]()
    huge = torch.cat([inputs, 1e6 * torch.randn_like(inputs[:1])]).double()
    clip = Flat(clip_norm=C, norm="l1")
    engine = prepared(net.double(), huge, labels(COUNT + 1), order="l1")
    whole, _ = added(engine, some(net, huge, labels(COUNT + 1))(range(COUNT + 1)), clip)
    less, _ = added(engine, some(net, huge, labels(COUNT + 1))(range(COUNT)), clip)
    moved_by = sum(float((one - two).abs().sum()) for one, two in zip(whole, less, strict=True))
    assert 0.9 * C < moved_by <= C * (1 + 1e-9)


@pytest.mark.parametrize("positions", [1, 2])
def test_gradients_too_short_to_square(positions):
    """Inputs of 10^18 beside gradients of 10^-24, whose squares float32 does not hold."""
    net = Net(lambda net, x: net.m(x).sum((1, 2)) * 1e-24, m=nn.Linear(8, 64, bias=False))
    inputs, wanted = torch.ones(4, positions, 8), torch.zeros(4, dtype=torch.long)
    inputs[-1] = 1e18
    engine = prepared(net, inputs[:3], wanted[:3], lambda outputs, _: outputs)
    sums, found = added(engine, some(net, inputs, wanted, lambda outputs, _: outputs)([3]), Flat(clip_norm=1e-6))
    assert bool(found.counted.all())
    assert 0 < length(sums) <= 1e-6 * (1 + 1e-5)


@pytest.mark.parametrize("apart", [1e-4, 1e-6])
def test_positions_that_cancel_under_a_laplace_bound(apart):
    torch.manual_seed(14)
    inputs = torch.randn(COUNT + 1, 1, 32).repeat(1, 2, 1)
    inputs = inputs + apart * torch.randn_like(inputs)
    net = Net(by_position, m=nn.Linear(32, 32), h=head(32), much=torch.tensor(1 / apart))
    clip, wanted = Flat(clip_norm=C, norm="l1"), labels(COUNT + 1)
    engine = prepared(net, torch.randn_like(inputs), wanted, order="l1")
    for row in range(COUNT + 1):
        one, _ = added(engine, some(net, inputs, wanted)([row]), clip)
        assert sum(float(each.double().abs().sum()) for each in one) <= C * (1 + 1e-5)
