"""What lets samples influence one another is refused by name, trained or frozen, and whatever hides it."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privacy.dp.engine.nets import COUNT, Net, head, labels, numbers
from privacy.dp.engine.toolkit import added, entropy, prepared, some
from vambrace.errors import ConfigError
from vambrace.privacy.dp.clipping import Flat


def refuse(code, match, net, inputs=None, loss=entropy):
    inputs = numbers(8) if inputs is None else inputs
    with pytest.raises(ConfigError, match=match) as caught:
        prepared(net, inputs, labels(len(inputs)), loss)
    assert caught.value.code == code
    assert caught.value.fix
    return caught.value


NORMS = {
    "trained": lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), head()),
    "frozen": lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8).requires_grad_(False), head()),
    "without scale": lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False), head()),
    "without statistics": lambda: nn.Sequential(
        nn.Linear(8, 8), nn.BatchNorm1d(8, track_running_stats=False).eval(), head()
    ),
    "before anything trained": lambda: nn.Sequential(nn.BatchNorm1d(8, affine=False), head()),
}


@pytest.mark.parametrize("kind", NORMS)
def test_batch_norm_is_refused_before_anything_runs(kind):
    net = NORMS[kind]()

    def loss(outputs, wanted):
        raise AssertionError("ran")

    found = refuse("E151", "BatchNorm1d", net, loss=loss)
    assert "fix_modules" in found.fix


def test_batch_norm_that_no_module_holds():
    def forward(net, x):
        return net.h(F.batch_norm(x, None, None, training=True))

    refuse("E151", "batch_norm", Net(forward, h=head()))

    def bare(net, x):
        return net.h(torch.batch_norm(x, None, None, torch.zeros(8), torch.ones(8), True, 0.1, 1e-5, False))

    refuse("E151", "batch_norm", Net(bare, h=head()))


def test_batch_norm_that_is_switched_on_later():
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8).eval(), head())
    inputs, wanted = numbers(8), labels()
    engine = prepared(net, inputs, wanted)
    net.train()
    with pytest.raises(ConfigError, match="batch_norm") as caught:
        added(engine, some(net, inputs, wanted)(range(COUNT)), Flat())
    assert caught.value.code == "E151"


def test_batch_norm_that_is_switched_on_later_under_vmap():
    net = nn.Sequential(nn.Linear(8, 8), nn.PReLU(), nn.BatchNorm1d(8).eval(), head())
    inputs, wanted = numbers(8), labels()
    engine = prepared(net, inputs, wanted)
    assert engine.fallback == "vmap"
    net.train()
    with pytest.raises(ConfigError, match="BatchNorm1d") as caught:
        added(engine, some(net, inputs, wanted)(range(COUNT)), Flat())
    assert caught.value.code == "E151"


def test_statistics_that_are_kept():
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.InstanceNorm1d(4, track_running_stats=True), nn.Flatten(), head(24))
    assert "statistics" in refuse("E151", "InstanceNorm1d", net, numbers(3, 8)).seen
    prepared(net.eval(), numbers(3, 8), labels())


def test_buffers_that_follow_the_samples():
    def forward(net, x):
        net.seen.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return net.h(x)

    net = Net(forward, h=head(), seen=torch.zeros(8))
    refuse("E151", "seen, which the forward pass changes", net)
    assert not net.seen.any()

    def counting(net, x):
        net.seen.add_(1)
        return net.h(x)

    prepared(Net(counting, h=head(), seen=torch.zeros(())), numbers(8), labels())


MIXING = {
    "mean over the batch": lambda net, x: net.h(x - x.mean(0)),
    "a hundred-millionth of a mean": lambda net, x: net.h(net.m(x) - 1e-8 * net.m(x).mean(0)),
    "a ten-thousandth of a constant mean": lambda net, x: net.h(net.m(x) + 1e-4 * net.m(x).mean(0).detach()),
    "largest of the batch": lambda net, x: net.h(net.m(x) / net.m(x).abs().amax()),
    "softmax over the batch": lambda net, x: net.h(net.m(x).softmax(0)),
    "attention over the batch": lambda net, x: net.h(F.scaled_dot_product_attention(x, x, x)),
    "only in the backward pass": lambda net, x: net.h(net.m(x) + net.m(x).mean(0) - net.m(x).mean(0).detach()),
    "mixed with another": lambda net, x: net.h(0.9 * x + 0.1 * x[torch.randperm(len(x))]),
    "mixed with the next": lambda net, x: net.h(net.m(x) + 0.1 * net.m(x).roll(1, 0)),
    "number of samples": lambda net, x: net.h(x) / len(x),
    "number of samples in the gradient": lambda net, x: Scaled.apply(net.h(x), len(x)),
    "order in the batch": lambda net, x: net.h(x * torch.arange(1, len(x) + 1)[:, None]),
}


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, count):
        ctx.count = count
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope / ctx.count, None


@pytest.mark.parametrize("kind", MIXING)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_samples_that_meet(kind, dtype):
    torch.manual_seed(1)
    net = Net(MIXING[kind], m=nn.Linear(8, 8), h=head()).to(dtype)
    refuse("E151", None, net, numbers(8).to(dtype))


def contrastive(outputs, wanted):
    return F.cross_entropy(outputs @ outputs.mT, torch.arange(len(outputs)), reduction="none")


def divided(outputs, wanted):
    return entropy(outputs, wanted) / len(outputs)


def mined(outputs, wanted):
    """Only samples harder than the middle one count."""
    found = entropy(outputs, wanted)
    return found * (found >= found.median().detach())


@pytest.mark.parametrize("loss", [contrastive, divided, mined])
def test_losses_over_several_samples(loss):
    torch.manual_seed(2)
    refuse("E151", None, nn.Sequential(nn.Linear(8, 8), nn.Tanh(), head()), loss=loss)


FORMS = {
    "a mean": (F.cross_entropy, r"shape \(\)"),
    "several numbers a sample": (lambda outputs, wanted: outputs.square(), r"shape \(3, 4\)"),
    "no tensor": (lambda outputs, wanted: 1.0, "float"),
    "integers": (lambda outputs, wanted: wanted, r"shape \(3,\)"),
}


@pytest.mark.parametrize("form", FORMS)
def test_losses_of_the_wrong_form(form):
    loss, seen = FORMS[form]
    assert "reduction" in refuse("E153", seen, head(), loss=loss).fix


def test_losses_of_the_wrong_form_later():
    net, inputs, wanted = head(), numbers(8), labels()
    engine = prepared(net, inputs, wanted)
    for task in (some(net, inputs, wanted, FORMS["a mean"][0]), some(net, inputs, wanted, FORMS["integers"][0])):
        with pytest.raises(ConfigError) as caught:
            added(engine, task(range(COUNT)), Flat())
        assert caught.value.code == "E153"


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_that_look_across_samples(layer, options):
    net = Net(lambda net, x: net.h(net.m(x).view(len(x), -1, 8).mean(1)), m=layer(10, 8, **options), h=head())
    refuse("E151", "max_norm or scale_grad_by_freq", net, torch.randint(0, 10, (COUNT, 5)))


def test_parameters_that_the_forward_pass_changes_after_its_samples():
    def forward(net, x):
        with torch.no_grad():
            net.m.weight[0] += 0.01 * x.mean(0)
        return net.h(net.m(x))

    net = Net(forward, m=nn.Linear(8, 8), h=head())
    before = net.m.weight.detach().clone()
    refuse("E151", "m.weight, which the forward pass changes", net)
    assert torch.equal(net.m.weight, before)


def test_numbers_that_nobody_can_repeat():
    generator = random.SystemRandom()
    net = Net(lambda net, x: net.h(x * generator.random()), h=head())
    with pytest.raises(ConfigError) as caught:
        prepared(net, numbers(8), labels())
    assert caught.value.code in ("E151", "E152")


def test_parameters_that_nobody_can_train():
    refuse("E152", "no parameter", head().requires_grad_(False))
    complex_one = nn.Parameter(torch.randn(8, dtype=torch.cfloat))
    refuse("E152", "m of a type", Net(lambda net, x: net.h(x * net.m.real), m=complex_one, h=head()))


def test_first_samples_without_a_finite_gradient():
    refuse("E152", "not finite", head(), numbers(8) * float("nan"))


def test_hooks_that_change_the_gradient_of_a_parameter():
    net = nn.Sequential(nn.Linear(8, 8), head())
    net[0].weight.register_hook(lambda slope: slope * 2)
    refuse("E152", "other gradients than its own", net)


def test_batches_and_parameters_other_than_prepared():
    net, inputs, wanted = nn.Sequential(nn.Linear(8, 8), head()), numbers(8), labels()
    engine = prepared(net, inputs, wanted)
    with pytest.raises(ConfigError, match="itself requires a gradient"):
        added(engine, some(net, inputs.clone().requires_grad_(), wanted)(range(COUNT)), Flat())
    net[0].weight.requires_grad_(False)
    with pytest.raises(ConfigError, match="other parameters") as caught:
        added(engine, some(net, inputs, wanted)(range(COUNT)), Flat())
    assert caught.value.code == "E152"


def test_generators_that_are_used_in_the_open_are_no_reason():
    """Noise for each sample is fine; it is the same noise when it is drawn again."""

    def forward(net, x):
        x = x + 0.1 * torch.randn_like(x) * float(np.random.rand()) + random.random()
        keep = torch.rand(len(x), 1) < 0.8
        return net.h(net.m(x) * keep + F.dropout(x, 0.5))

    engine = prepared(Net(forward, m=nn.Linear(8, 8), h=head()), numbers(8), labels())
    assert not engine.fallback
