"""What the tape has no rule for: vmap, then one sample after the other, with the reason in the table."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from privacy.dp.engine.nets import COUNT, Net, head, labels, numbers, weight
from privacy.dp.engine.toolkit import added, assert_equal, assert_same, length, one_by_one, prepared, slow, some
from vambrace.errors import ConfigError
from vambrace.privacy.dp.clipping import Automatic, Flat, PerLayer
from vambrace.privacy.dp.engine import engine as engine_module
from vambrace.privacy.dp.engine.engine import Engine, Task


class Product(torch.autograd.Function):
    """A function of its own, which neither a tape of torch's functions nor vmap sees into."""

    @staticmethod
    def forward(ctx, inputs, matrix):
        ctx.save_for_backward(inputs, matrix)
        return inputs @ matrix.t()

    @staticmethod
    def backward(ctx, slope):
        inputs, matrix = ctx.saved_tensors
        return slope @ matrix, slope.t() @ inputs


def _overwritten(net, x):
    found = net.m(x).clone()
    found[:, 0] = net.token
    return net.h(found.mean(1))


def _differentiated(net, x):
    x = x.detach().requires_grad_()
    found = torch.tanh(net.m(x))
    (slope,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    return net.h(found + slope)


def _changed_stand_in(net, x):
    matrix = net.m.weight * 1.0
    matrix[0] = 0
    return net.h(F.linear(x, matrix))


def _changed_input(net, x):
    found = net.m(x)
    more = net.token * found
    found.mul_(2.0)
    return net.h(more + found)


VMAP = {
    "prelu": lambda: (nn.Sequential(nn.Linear(8, 8), nn.PReLU(), head()), numbers(8), "prelu"),
    "bilinear": lambda: (Net(lambda net, x: net.m(x, x.flip(1)), m=nn.Bilinear(8, 8, 4)), numbers(8), "bilinear"),
    "einsum": lambda: (
        Net(lambda net, x: net.h(torch.einsum("btd,de->bte", x, net.m).mean(1)), m=weight(8, 8), h=head()),
        numbers(5, 8),
        "m in einsum",
    ),
    "bag": lambda: (nn.Sequential(nn.EmbeddingBag(10, 8), head()), torch.randint(0, 10, (COUNT, 5)), "embedding_bag"),
    "rows": lambda: (
        Net(lambda net, x: net.h(net.m[x].tanh().mean(1)), m=weight(10, 8), h=head()),
        torch.randint(0, 10, (COUNT, 5)),
        "m in __getitem__",
    ),
    "overwritten": lambda: (
        Net(_overwritten, m=nn.Linear(8, 8), token=weight(8), h=head()),
        numbers(5, 8),
        "token in a function that torch does not show",
    ),
    "samples innermost": lambda: (
        Net(
            lambda net, x: net.h(net.m(x.transpose(0, 1).reshape(-1, 8)).tanh().view(5, -1, 8).mean(0)),
            m=nn.Linear(8, 8),
            h=head(),
        ),
        numbers(5, 8),
        "that gives its own gradients",
    ),
    "changed in place": lambda: (Net(_changed_stand_in, m=nn.Linear(8, 8), h=head()), numbers(8), "in-place"),
}


@pytest.mark.parametrize("name", VMAP)
def test_vmap(name):
    torch.manual_seed(1)
    net, inputs, why = VMAP[name]()
    dtypes = (torch.float64, torch.float32) if name in ("prelu", "bilinear") else (torch.float64,)
    engine = assert_equal(net, inputs, labels(), fallback="vmap", dtypes=dtypes)
    assert why in engine.table[0].why
    assert "written down, in chunks" in engine.table[0].why
    assert {row.method for row in engine.table} == {"vmap"}


@pytest.mark.parametrize("clip", [PerLayer(clip_norm=0.3), Automatic(clip_norm=0.3), Flat(clip_norm=2.0, norm="l1")])
def test_vmap_and_every_way_to_clip(clip):
    torch.manual_seed(2)
    net, inputs, _ = VMAP["prelu"]()
    assert_equal(net, inputs, labels(), fallback="vmap", clip=clip)


ONE_BY_ONE = {
    "function of its own": lambda net, x: net.h(Product.apply(x, net.m.weight)),
    "function of its own on a stand-in": lambda net, x: net.h(Product.apply(x, net.m.weight * 2)),
    "differentiates itself": _differentiated,
}


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_one_by_one(name):
    torch.manual_seed(3)
    net = Net(ONE_BY_ONE[name], m=nn.Linear(8, 8, bias=False), h=head())
    engine = assert_equal(net, numbers(8), labels(), fallback="one by one", dtypes=(torch.float64,))
    assert "vmap" in engine.table[0].why


def test_checkpointing_is_never_taken_for_something_else():
    """Without re-entering, one sample after the other is right; with it, autograd cannot be asked, and that is said."""
    torch.manual_seed(4)

    def forward(net, x):
        return net.h(checkpoint(net.m, x, use_reentrant=False))

    inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    net = Net(forward, m=inner, h=head())
    engine = assert_equal(net, numbers(8), labels(), fallback="one by one", dtypes=(torch.float64,))
    assert "checkpoint" in engine.table[0].why

    def entering(net, x):
        return net.h(checkpoint(net.m, net.first(x), use_reentrant=True))

    with pytest.raises(ConfigError, match=r"E152.*\.grad\(\).*use_reentrant=False"):
        prepared(Net(entering, first=nn.Linear(8, 8), m=inner, h=head()), numbers(8), labels())


def test_what_was_changed_in_place_is_refused_as_autograd_does():
    torch.manual_seed(5)
    with pytest.raises(ConfigError, match="E152.*in-?place"):
        prepared(Net(_changed_input, m=nn.Linear(8, 8), token=weight(8), h=head()), numbers(8), labels())


def test_chunks_padding_and_a_rotten_sample(monkeypatch):
    torch.manual_seed(6)
    net, inputs, _ = VMAP["prelu"]()
    net, inputs = net.double(), inputs.double()
    engine, clip = prepared(net, inputs, labels()), Flat(clip_norm=0.4)
    mask = torch.tensor([True, False, True, True, True, False])
    inputs[4, 0] = float("nan")
    kept = torch.tensor([0, 2, 3])
    expected, _ = slow(one_by_one(net, inputs[kept], labels()[kept]), engine.names, clip)
    for chunk in (1, 2 * engine.size, 2**24):
        monkeypatch.setattr(engine_module, "_CHUNK", chunk)
        sums, found = added(engine, some(net, inputs, labels())(range(COUNT)), clip, mask)
        assert_same(sums, expected, 1e-10)
        assert found.counted.tolist() == [True, False, True, True, False, False]
        assert found.norms.shape == (1, COUNT)
        assert found.losses is None


def test_dropout_is_drawn_for_every_sample():
    torch.manual_seed(7)
    net = nn.Sequential(nn.Linear(8, 64), nn.PReLU(), nn.Dropout(0.5), nn.Linear(64, 4))
    one = numbers(8)[:1].repeat(COUNT, 1)
    engine = prepared(net, one, labels())
    assert engine.fallback == "vmap"
    _, found = added(engine, some(net, one, torch.zeros(COUNT, dtype=torch.long))(range(COUNT)), Flat())
    assert len(set(found.norms[0].tolist())) == COUNT


def test_a_batch_that_cannot_be_taken_apart():
    net, inputs, _ = VMAP["prelu"]()
    whole = some(net, inputs, labels())

    def task_of(rows):
        task = whole(rows)
        return Task(task.losses, task.count, task.leaves)

    with pytest.raises(ConfigError, match="prelu.*cannot be taken apart") as caught:
        Engine(net).prepare(task_of)
    assert caught.value.code == "E152"


def test_no_gradient_is_recorded_where_torch_records_none():
    """Parameters under `no_grad`, detached, or read as data are constants, as they are to autograd."""
    torch.manual_seed(8)

    def forward(net, x):
        with torch.no_grad():
            gate = net.m(x).sigmoid()
        return net.h(net.m(x) * gate + F.linear(x, net.other.detach()) + F.linear(x, net.other.data))

    net = Net(forward, m=nn.Linear(8, 8), other=weight(8, 8), h=head())
    engine = assert_equal(net, numbers(8), labels(), dtypes=(torch.float64,))
    assert {row.name: row.method for row in engine.table}["other"] == "unused"


def test_parameters_inside_functions_that_map():
    torch.manual_seed(9)

    def forward(net, x):
        both = torch.func.vmap(lambda matrix, given: given @ matrix, in_dims=(0, None))(
            torch.stack([net.m, net.m * 2]), x
        )
        return net.h(both.sum(0))

    engine = assert_equal(
        Net(forward, m=weight(8, 8), h=head()), numbers(8), labels(), dtypes=(torch.float64,), fallback="vmap"
    )
    assert "does not show" in engine.table[0].why


def test_lengths_are_not_taken_for_samples_when_they_change():
    """A longer batch than the traced one, as long as there are samples, and one of another number of samples."""
    torch.manual_seed(10)
    net = Net(
        lambda net, x: net.h(net.m((x + net.places(torch.arange(x.shape[1]))).transpose(0, 1)).mean(0)),
        m=nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0),
        places=nn.Embedding(16, 8),
        h=head(),
    ).double()
    engine = prepared(net, numbers(5, 8).double(), labels())
    clip = Flat(clip_norm=0.3)
    for count, longest in ((6, 6), (1, 6), (6, 1), (12, 6), (3, 12)):
        inputs, wanted = torch.randn(count, longest, 8).double(), labels(count)
        sums, _ = added(engine, some(net, inputs, wanted)(range(count)), clip)
        expected, _ = slow(one_by_one(net, inputs, wanted), engine.names, clip)
        assert_same(sums, expected, 1e-10)


def test_a_course_that_was_not_traced_is_refused_or_right():
    """Layers that a batch skips are fine; uses in another layout than was proved are not."""
    torch.manual_seed(11)

    def forward(net, x):
        found = net.m(x)
        if float(x.abs().max()) < 10:
            found = net.m(found.transpose(0, 1)).transpose(0, 1)
        return net.h(net.skipped(found).mean(1) if float(x[0, 0, 0]) < 5 else found.mean(1))

    net = Net(forward, m=nn.Linear(8, 8), skipped=nn.Linear(8, 8), h=head()).double()
    inputs, wanted = numbers(COUNT, 8).double(), labels()
    engine = prepared(net, inputs, wanted)
    clip = Flat(clip_norm=0.3)
    far = inputs.clone()
    far[0, 0, 0] = 6
    sums, _ = added(engine, some(net, far, wanted)(range(COUNT)), clip)
    assert length(sums) > 0
    far[0, 0, 0] = 20  # now the transposed use is left out, whose place another use could be taken for
    with pytest.raises(ConfigError, match="not the one that was traced") as caught:
        added(engine, some(net, far, wanted)(range(COUNT)), clip)
    assert caught.value.code == "E152"
    assert "prepare it anew" in caught.value.fix
