"""Drawings of programs: they compute what the program computes, where every operator is known; the rest is opaque."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from vambrace.assets.obfuscate.aten import drawn
from vambrace.assets.obfuscate.programs import Flat
from vambrace.assets.obfuscate.ties import ties_of

if TYPE_CHECKING:
    from collections.abc import Callable

F = nn.functional
DRAW = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=DRAW)


class Function(nn.Module):
    """A function with weights of its own: `weights` are handed on by name."""

    def __init__(self, function: Callable[..., Any], **weights: Tensor) -> None:
        super().__init__()
        self.function = function
        self.names = list(weights)
        for name, tensor in weights.items():
            self.register_parameter(name, nn.Parameter(tensor))

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *(getattr(self, name) for name in self.names))


PICTURE, ROWS, WORDS = normal(2, 6, 9, 9), normal(5, 8), normal(2, 7, 8)
KNOWN: dict[str, tuple[Callable[..., Any], Tensor, dict[str, Tensor]]] = {
    "conv": (lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 3), PICTURE, {"w": normal(9, 2, 3, 3), "b": normal(9)}),
    "conv_same": (lambda x, w: F.conv2d(x, w, None, 1, "same"), PICTURE, {"w": normal(4, 6, 3, 2)}),
    "conv_valid": (lambda x, w: F.conv2d(x, w, None, 1, "valid", 2), PICTURE, {"w": normal(4, 6, 3, 3)}),
    "conv1d": (lambda x, w: F.conv1d(x, w, padding=1), normal(2, 3, 11), {"w": normal(4, 3, 3)}),
    "conv_transpose": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 2),
        PICTURE,
        {"w": normal(6, 2, 3, 3), "b": normal(4)},
    ),
    "linear": (F.linear, WORDS, {"w": normal(4, 8), "b": normal(4)}),
    "addmm": (lambda x, w, b: torch.addmm(b, x, w.t()), ROWS, {"w": normal(4, 8), "b": normal(4)}),
    "matmul": (lambda x, w: x @ w, WORDS, {"w": normal(8, 3)}),
    "bmm": (lambda x: torch.bmm(x, x.transpose(1, 2)), WORDS, {}),
    "shared": (lambda x, w: F.linear(F.linear(x, w), w), ROWS, {"w": normal(8, 8)}),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (8,), w, b), WORDS, {"w": normal(8), "b": normal(8)}),
    "group_norm": (lambda x, w, b: F.group_norm(x, 3, w, b), PICTURE, {"w": normal(6), "b": normal(6)}),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), PICTURE, {}),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), PICTURE, {}),
    "avg_pool_counting": (lambda x: F.avg_pool2d(x, 3, 2, 1), PICTURE, {}),
    "global": (lambda x: F.adaptive_avg_pool2d(x, 1), PICTURE, {}),
    "mean": (lambda x: x.mean((2, 3)) + x.sum((-1, -2)) + x.amax((2, 3)), PICTURE, {}),
    "mean_kept": (lambda x: x.mean(1, keepdim=True), PICTURE, {}),
    "curves": (lambda x: x.tanh() + x.sigmoid() + x.erf() + F.softplus(x) + F.elu(x) + x.sin(), ROWS, {}),
    "curves_2": (lambda x: F.silu(x) + F.gelu(x) + F.mish(x) + F.hardswish(x) + F.hardsigmoid(x), ROWS, {}),
    "curves_3": (lambda x: F.leaky_relu(x, 0.3) + F.relu(x) + x.abs() - x.neg() * x.sign(), ROWS, {}),
    "curves_4": (lambda x: x.abs().sqrt() + x.exp().log() + x.exp().reciprocal() + F.selu(x) + x.atan(), ROWS, {}),
    "softmax": (lambda x: F.softmax(x, 1) + F.log_softmax(x, -1), WORDS, {}),
    "clip": (lambda x: x.clamp(-0.5, 0.7) + F.relu6(x) + F.hardtanh(x) + x.clamp(min=0.1), ROWS, {}),
    "arithmetic": (lambda x, w: (x - 2) * w / 3 + 1.5 - w, ROWS, {"w": normal(8)}),
    "layout": (lambda x: x.permute(0, 2, 3, 1).reshape(2, -1, 6).transpose(1, 2).unsqueeze(-2).squeeze(2), PICTURE, {}),
    "pieces": (lambda x: torch.cat([part * 2 for part in x.split([2, 4], 1)] + [*x.chunk(2, 1)], 1), PICTURE, {}),
    "cut": (lambda x: x[:, 1:5:2, ..., -3:] + x[:, 0, 2:3].unsqueeze(1)[..., :3], PICTURE, {}),
    "chosen": (lambda x, w: x.index_select(1, torch.tensor([3, 1, 0])) + w[2], WORDS, {"w": normal(4, 8)}),
    "embedding": (F.embedding, torch.tensor([[1, 3], [0, 2]]), {"w": normal(4, 8)}),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3), value=0.5), PICTURE, {}),
    "expand": (lambda x, w: w.expand(5, 8) + x, ROWS, {"w": normal(1, 8)}),
    "attention": (
        lambda x, w: F.scaled_dot_product_attention(x, x + 1, x * 2, attn_mask=w),
        normal(2, 3, 4, 8),
        {"w": normal(4, 4)},
    ),
    "attention_scaled": (lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.3), normal(2, 3, 4, 8), {}),
}
OPAQUE: dict[str, tuple[Callable[..., Any], Tensor, dict[str, Tensor]]] = {
    "cumsum": (lambda x: x.cumsum(1), ROWS, {}),
    "alpha": (lambda x, w: torch.add(x, w, alpha=2), ROWS, {"w": normal(8)}),
    "rounded": (lambda x: torch.div(x, 2, rounding_mode="floor"), ROWS, {}),
    "cast": (lambda x: x.to(torch.float64), ROWS, {}),
    "beta": (lambda x, w, b: torch.addmm(b, x, w, beta=2), ROWS, {"w": normal(8, 4), "b": normal(4)}),
    "indices": (lambda x: F.max_pool2d(x, 2, return_indices=True), PICTURE, {}),
    "reflected": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), PICTURE, {}),
    "no_weight": (lambda x: F.layer_norm(x, (8,)), WORDS, {}),
    "divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), PICTURE, {}),
}


def flat_of(case: tuple[Callable[..., Any], Tensor, dict[str, Tensor]]) -> tuple[Flat, Function]:
    function, inputs, weights = case
    module = Function(function, **weights).eval()
    return Flat.of(torch.export.export(module, (inputs,))), module


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about even kernels
def test_a_drawing_computes_the_same() -> None:
    for name, case in KNOWN.items():
        flat, module = flat_of(case)
        drawing = drawn(flat)
        strange = [node.op for node in drawing.net.graph.nodes if node.domain]
        assert not strange, f"{name}: {strange}"
        session = onnxruntime.InferenceSession(drawing.net.model().SerializeToString())
        (value,) = session.get_inputs()
        made = session.run(None, {value.name: case[1].numpy()})[0]
        with torch.no_grad():
            expected = module(case[1]).numpy()
        assert made.shape == expected.shape, name
        np.testing.assert_allclose(made, expected, rtol=2e-5, atol=2e-5, err_msg=name)


def test_of_what_is_not_known_nothing_is_assumed() -> None:
    for name, case in OPAQUE.items():
        drawing = drawn(flat_of(case)[0])
        strange = [node for node in drawing.net.graph.nodes if node.domain]
        assert strange, name
        made = {each for node in strange for each in node.outputs}
        assert not made & {each for node in drawing.net.graph.nodes for each in node.inputs}, name
        assert len(drawing.net.graph.input_names) >= 2, name  # its result comes from outside


def test_a_mask_by_position_holds_positions_in_place() -> None:
    """Learned queries could stand in any order, but for the mask that goes by it."""

    def attend(x: Tensor, w: Tensor, *, causal: bool) -> Tensor:
        return F.scaled_dot_product_attention(w, x, x, is_causal=causal).mean(-2)

    for causal in (False, True):
        weights = {"w": normal(2, 5, 8)}
        flat, _ = flat_of((functools.partial(attend, causal=causal), normal(2, 5, 8), weights))
        groups = [place for group in ties_of(drawn(flat).net).groups for place in group.places]
        assert (("p_w", 1) in groups) is not causal


def test_weights_are_the_programs() -> None:
    flat, _ = flat_of(KNOWN["addmm"])
    drawing = drawn(flat)
    before = dict(drawing.net.graph.initialisers)
    (name,) = drawing.turned
    target = drawing.targets[name]
    drawing.net.graph.initialisers[name] = before[name] * 2
    drawing.carry_over(flat, before)
    assert torch.equal(flat.tensor(target), 2 * KNOWN["addmm"][2]["w"])


def test_wary_of_order() -> None:
    def two(x: Tensor, w: Tensor) -> Tensor:
        return torch.tanh(F.relu(F.linear(x, w)))

    flat, _ = flat_of((two, ROWS, {"w": normal(16, 8)}))
    assert [node.op for node in drawn(flat).net.graph.nodes] == ["MatMul", "Relu", "Tanh"]
    assert [node.op for node in drawn(flat, wary=True).net.graph.nodes] == ["MatMul", "Relu", "Concat"]
    strided = flat_of((lambda x, w: F.linear(x, w).t().relu(), ROWS, {"w": normal(16, 8)}))[0]
    assert [node.domain for node in drawn(strided, wary=True).net.graph.nodes][-1] == "aten"
    assert not any(node.domain for node in drawn(strided).net.graph.nodes)


@pytest.mark.parametrize("size", [7, 64, 1003])
@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "tan", "sinh", "asinh", "atan", "sign", "neg", "round"])
def test_functions_are_odd_to_the_bit(name: str, size: int) -> None:
    values = torch.cat([normal(size), 30 * normal(size), torch.tensor([0.0, 1e-30, 88.0, torch.inf])])
    function = getattr(torch, name)
    assert torch.equal(function(-values).nan_to_num(7), -function(values).nan_to_num(-7))


def test_atanh_is_odd_to_the_bit() -> None:
    values = torch.linspace(0, 1, 1003)
    assert torch.equal(torch.atanh(-values), -torch.atanh(values))
