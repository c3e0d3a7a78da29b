"""A private step needs little more memory than a plain one: what is not needed any more is let go of."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from privacy.dp.engine.nets import Net
from privacy.dp.engine.toolkit import prepared, some
from vambrace.privacy.dp.clipping import Flat
from vambrace.privacy.dp.engine import products
from vambrace.privacy.dp.engine.convolution import Convolved, Window
from vambrace.privacy.dp.engine.pieces import Direct, Piece
from vambrace.privacy.dp.engine.products import Outer
from vambrace.privacy.dp.engine.together import Together


def height(step: Callable[[], object], *held: Tensor) -> float:
    """MiB at the height of a step, with what is held before it."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step()
    events = [each for each in watched.profiler.kineto_results.events() if each.name() == "[memory]"]
    alive = sum(each.numel() * each.element_size() for each in held)
    highest = 0
    for _, size in sorted((each.start_ns(), each.nbytes()) for each in events):
        alive += size
        highest = max(highest, alive)
    return highest / 2**20


def perceptron() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(
        nn.Linear(392, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    ), torch.randn(256, 392)


def convolutions() -> tuple[nn.Module, Tensor]:
    layers = [nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10)), torch.randn(32, 1, 28, 28)


def encoder() -> tuple[nn.Module, Tensor]:
    layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
    layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    net = Net(lambda net, x: net.head(net.layers(x).mean(dim=1)), layers=layers, head=nn.Linear(64, 10))
    return net, torch.randn(16, 64, 64)


@pytest.mark.parametrize(("make", "most"), [(perceptron, 1.5), (convolutions, 1.35), (encoder, 1.2)])
def test_the_height_of_a_step(make: Callable[[], tuple[nn.Module, Tensor]], most: float) -> None:
    torch.manual_seed(0)
    net, inputs = make()
    labels, parameters = torch.arange(len(inputs)) % 10, tuple(net.parameters())
    engine, clip = prepared(net, inputs, labels), Flat(clip_norm=1.0)
    assert not engine.fallback
    groups, views = clip.groups(engine.names), [torch.zeros_like(each) for each in parameters]
    task_of = some(net, inputs, labels)

    def private(mask: Tensor | None = None) -> None:
        task = task_of(range(len(inputs)))
        engine.add(task, lambda norms: clip.factors(norms, clip.norms(1)), views, groups, mask)

    def plain() -> None:
        task = task_of(range(len(inputs)))
        task.losses().sum().backward()

    padded = torch.arange(len(inputs)) < len(inputs) - 1
    own = max(height(each, *parameters, *views) for each in (private, lambda: private(padded)))
    other = height(plain, *parameters)
    assert own <= most * other, f"{own:.2f} MiB, plain {other:.2f} MiB"


def tensors() -> int:
    gc.collect()
    return sum(type(each) in {Tensor, nn.Parameter} for each in gc.get_objects())


def test_nothing_of_the_proof_is_held() -> None:
    net, inputs = perceptron()
    labels = torch.arange(len(inputs)) % 10
    before = tensors()
    engine = prepared(net, inputs, labels)
    assert engine.table[0].method == "ghost"
    assert tensors() == before


def pieces() -> list[tuple[Callable[[Tensor, Tensor], Piece], tuple[int, ...], tuple[int, ...]]]:
    """How to make a piece whose gradients are written down, from inputs and slopes of some shapes."""
    window = Window((3,), (1,), ((0, 0),), (1,), 1)
    two = [(4, 5, 3), (4, 5, 2)]
    return [
        (Outer, (4, 5, 3), (4, 5, 2)),
        (lambda inputs, slopes: Convolved(inputs, slopes, (2, 3, 3), window, 4), (4, 3, 9), (4, 2, 7)),
        (
            lambda inputs, slopes: Together(
                [Outer(inputs, slopes), Direct(torch.ones(4, 2, 3))], (2, 3), torch.arange(4)
            ),
            *two,
        ),
    ]


@pytest.mark.parametrize(("make", "given", "got"), pieces())
def test_gradients_that_are_written_down_replace_what_they_are_made_of(
    make: Callable[[Tensor, Tensor], Piece], given: tuple[int, ...], got: tuple[int, ...]
) -> None:
    chance = torch.Generator().manual_seed(0)
    inputs, slopes = (torch.randn(shape, generator=chance) for shape in (given, got))
    piece, held = make(inputs, slopes), [weakref.ref(each) for each in (inputs, slopes)]
    del inputs, slopes
    assert piece.method == "instantiated"
    written = piece.per_sample(slice(None)).clone()
    squares = piece.squares()
    assert [each() for each in held] == [None, None]
    assert piece.method == "instantiated"
    assert torch.equal(piece.squares(), squares)
    assert torch.equal(piece.per_sample(torch.tensor([2, 0])), written[[2, 0]])
    kept = torch.tensor([True, False, True, True])
    piece.drop(kept)
    factors, out = torch.tensor([1.0, 1.0, 0.5, 0.0]), torch.ones(written.shape[1:])
    piece.add_sum(factors, out)
    torch.testing.assert_close(out, 1.0 + torch.einsum("n...,n->...", written, factors * kept))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("positions_first", [False, True])
@pytest.mark.parametrize(("width", "outputs"), [(40, 30), (30, 40)])
def test_half_precision_is_widened_a_few_samples_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
    kind: torch.dtype,
    transposed: bool,
    positions_first: bool,
    width: int,
    outputs: int,
) -> None:
    chance = torch.Generator().manual_seed(0)
    inputs, slopes = (torch.randn(6, 5, size, generator=chance).to(kind) for size in (width, outputs))
    if positions_first:
        inputs, slopes = (each.transpose(0, 1).contiguous().transpose(0, 1) for each in (inputs, slopes))
    monkeypatch.setattr(products, "_WIDENED", 5 * 70 * 4)  # four samples, then two
    monkeypatch.setattr(products, "_FOLDED", 5 * 30 * 4)  # the same for float32
    piece = Outer(inputs, slopes, transposed=transposed)
    assert piece.method == "ghost"
    written = torch.einsum("nti,nto->nio" if transposed else "nti,nto->noi", inputs.double(), slopes.double())
    torch.testing.assert_close(piece.squares().double(), written.square().sum(dim=(1, 2)), rtol=1e-5, atol=0.0)
    factors, out = torch.rand(6, generator=chance), torch.ones(written.shape[1:])
    piece.add_sum(factors, out)
    expected = 1.0 + torch.einsum("nio,n->io", written, factors.double())
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
