"""The tape itself: what it keeps of a use, what it says where it cannot, and what would go unseen without it."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privacy.dp.engine.nets import COUNT, LAYERS, labels, numbers
from privacy.dp.engine.toolkit import added, prepared, some
from vambrace.privacy.dp.clipping import Flat
from vambrace.privacy.dp.engine.clipped import gather, new_tape
from vambrace.privacy.dp.engine.exact import Exact
from vambrace.privacy.dp.engine.tape import NoRule, Place, place


def test_where_samples_are():
    assert place((3, 7), (5, 7), 3, 5) == Place("dim", 0)
    assert place((7, 3, 2), (7, 5, 2), 3, 5) == Place("dim", 1)
    assert place((12, 7), (20, 7), 3, 5) == Place("fold", 4)
    assert place((1, 7), (1, 7), 3, 5) == Place("none")
    assert place((3, 7), (3, 5, 7), 3, 5) is None
    assert place((3, 3), (5, 5), 3, 5) is None
    assert place((7, 6), (7, 10), 3, 5) is None
    assert place((4, 7), (6, 7), 3, 5) is None


def taped(parameters, forward, places=None):
    tape = new_tape(COUNT, parameters, tuple("abcdef"[: len(parameters)]), places)
    with tape:
        total = forward().sum()
    return gather(tape, total, parameters)


def test_inputs_that_are_needed_and_changed():
    matrix, x = nn.Parameter(torch.randn(4, 8)), numbers(8)

    def forward():
        out = F.linear(x, matrix)
        x.mul_(2.0)
        return out

    with pytest.raises(NoRule, match="a in linear, whose input was changed in place"):
        taped([matrix], forward)


class Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, matrix):
        ctx.save_for_backward(x, matrix)
        return x @ matrix

    @staticmethod
    def backward(ctx, slope):
        x, matrix = ctx.saved_tensors
        return slope @ matrix.t(), x.t() @ slope


@pytest.mark.parametrize("made", [lambda matrix: matrix, lambda matrix: matrix * 2, lambda matrix: matrix.t()])
def test_uses_that_torch_does_not_show(made):
    """A parameter, or what was made of one, inside a function that the tape never sees."""
    matrix = nn.Parameter(torch.randn(8, 8))
    with pytest.raises(NoRule, match="a in a function that torch does not show"):
        taped([matrix], lambda: F.linear(Times.apply(numbers(8), made(matrix)), matrix))


def test_a_parameter_that_is_changed_by_an_activation():
    matrix = nn.Parameter(torch.randn(8))
    with pytest.raises((NoRule, RuntimeError)):
        taped([matrix], lambda: matrix.mul_(numbers(8)))


def test_nothing_outlives_a_step():
    torch.manual_seed(1)
    net, inputs = LAYERS["encoder"]()
    engine = prepared(net, inputs, labels())
    seen = []

    def loss(outputs, wanted):
        seen.append(weakref.ref(outputs))
        return F.cross_entropy(outputs, wanted, reduction="none")

    gc.collect()
    gc.disable()
    try:
        added(engine, some(net, inputs, labels(), loss)(range(COUNT)), Flat())
        assert seen[0]() is None
        net = nn.Sequential(nn.LSTM(8, 8, batch_first=True))
        engine = prepared(net, numbers(5, 8), labels(), lambda outputs, _: outputs[0].sum((1, 2)))

        def recurrent_loss(outputs, wanted):
            seen.append(weakref.ref(outputs[0]))
            return outputs[0].sum((1, 2))

        added(engine, some(net, numbers(5, 8), labels(), recurrent_loss)(range(COUNT)), Flat())
        assert seen[1]() is None
    finally:
        gc.enable()


def failing_inside():
    with torch.autocast("cpu", dtype=torch.bfloat16), Exact(torch.device("cpu")):
        assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        raise KeyError


def test_precision_is_full_inside_and_as_it_was_outside():
    before = torch.backends.mkldnn.conv.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        with pytest.raises(KeyError):
            failing_inside()
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"
    assert torch.backends.mkldnn.conv.fp32_precision == before
    with Exact(torch.device("cuda")):
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_gradients_of_parameters_stay_alone():
    torch.manual_seed(2)
    net, inputs = LAYERS["mlp"]()
    engine = prepared(net, inputs, labels())
    before = [torch.randn_like(each) for each in net.parameters()]
    for parameter, value in zip(net.parameters(), before, strict=True):
        parameter.grad = value.clone()
    added(engine, some(net, inputs, labels())(range(COUNT)), Flat())
    for parameter, value in zip(net.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, value)
