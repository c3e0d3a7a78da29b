"""Networks as people write them, with parameters that no layer of torch's own holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privacy.dp.engine.nets import Net, head, numbers, settled, weight

_parametrized = torch.nn.utils.parametrizations


def _windows(net: Any, x: Tensor) -> Tensor:
    count = len(x)
    x = x.view(count, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8)
    query, key, value = net.qkv(x).reshape(-1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    bias = net.table[net.index.view(-1)].view(4, 4, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
    shares = ((query * 0.5) @ key.transpose(-2, -1) + bias).softmax(-1)
    return net.h((shares @ value).transpose(1, 2).reshape(count, -1, 8).mean(1))


def _own_attention(net: Any, x: Tensor) -> Tensor:
    query, key, value = net.qkv(x).reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    bias = net.table[net.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return net.h(mixed.transpose(1, 2).flatten(2).mean(1))


def _convnext(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    inner = net.down(F.gelu(net.up(net.norm(net.deep(x).permute(0, 2, 3, 1)))))
    return net.h((x + (net.scale * inner).permute(0, 3, 1, 2)).mean((2, 3)))


def _channels_first_norm(net: Any, x: Tensor) -> Tensor:
    x = net.c(x)
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-6).sqrt()
    return net.h((net.scale[:, None, None] * x + net.shift[:, None, None]).mean((2, 3)))


def _excite(net: Any, x: Tensor) -> Tensor:
    x = F.silu(net.c(x))
    gate = net.up(F.relu(net.down(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
    return net.h((x * gate).mean((2, 3)))


def _split(net: Any, x: Tensor) -> Tensor:
    first, second, third = net.matrix.chunk(3)
    one, two, _ = net.shift.split(4)
    return net.h(F.linear(x, first, one) * F.linear(x, second, two).sigmoid() + F.linear(x, third))


def _standardised(net: Any, x: Tensor) -> Tensor:
    matrix = net.c.weight
    matrix = (matrix - matrix.mean((1, 2, 3), keepdim=True)) / (matrix.std((1, 2, 3), keepdim=True) + 1e-5)
    return net.h(F.conv2d(x, matrix, net.c.bias).mean((2, 3)))


def _in_place(net: Any, x: Tensor) -> Tensor:
    found = net.one(x)
    found += x
    more = net.two(found.clone())
    more += found * net.scale
    return net.h(F.relu(more, inplace=True))


def _queries(net: Any, x: Tensor) -> Tensor:
    asked = net.one(net.norm(net.asked))
    return net.h(((asked @ net.norm(x).mT).softmax(-1) @ x).mean(1))


def _adapter(net: Any, x: Tensor) -> Tensor:
    return net.h((net.base(x) + F.linear(F.linear(x, net.down), net.up) * 0.5).tanh())


def _frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


def _masks(net: Any, x: Tensor) -> Tensor:
    shown = torch.where(net.mask[:, None], net.token, net.one(x))
    return net.h(torch.addcmul(net.shift, shown, net.scale).tanh().mean(1))


def _addmm(net: Any, x: Tensor) -> Tensor:
    flat = torch.addmm(net.shift, x.view(-1, 8), net.matrix)
    return net.h(F.gelu(flat).view(*x.shape[:-1], 6).mean(1))


CUSTOM: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "positions 1td": lambda: (
        Net(
            lambda net, x: net.h(net.m(x + net.places).tanh().mean(1)),
            m=nn.Linear(8, 8),
            places=weight(1, 5, 8),
            h=head(),
        ),
        numbers(5, 8),
    ),
    "positions through a layer": lambda: (
        Net(
            lambda net, x: net.h((x + net.m(net.grid)).tanh().mean(1)),
            m=nn.Linear(2, 8),
            grid=torch.randn(1, 5, 2),
            h=head(),
        ),
        numbers(5, 8),
    ),
    "position ids 1t": lambda: (
        Net(
            lambda net, x: net.h((x + net.places(torch.arange(5)[None])).tanh().mean(1)),
            places=nn.Embedding(5, 8),
            h=head(),
        ),
        numbers(5, 8),
    ),
    "windows": lambda: (
        Net(_windows, qkv=nn.Linear(8, 24), table=weight(9, 2), index=torch.randint(0, 9, (4, 4)), h=head()),
        numbers(4, 4, 8),
    ),
    "own attention": lambda: (
        Net(_own_attention, qkv=nn.Linear(8, 24), table=weight(9, 2), index=torch.randint(0, 9, (4, 4)), h=head()),
        numbers(4, 8),
    ),
    "convnext": lambda: (
        Net(
            _convnext,
            stem=nn.Conv2d(3, 8, 2, 2),
            deep=nn.Conv2d(8, 8, 7, padding=3, groups=8),
            norm=nn.LayerNorm(8),
            up=nn.Linear(8, 32),
            down=nn.Linear(32, 8),
            scale=nn.Parameter(torch.full((8,), 0.1)),
            h=head(),
        ),
        numbers(3, 8, 8),
    ),
    "norm of channels": lambda: (
        Net(_channels_first_norm, c=nn.Conv2d(3, 8, 3), scale=weight(8), shift=weight(8), h=head()),
        numbers(3, 6, 6),
    ),
    "squeeze and excite": lambda: (
        Net(_excite, c=nn.Conv2d(3, 8, 3), down=nn.Conv2d(8, 2, 1), up=nn.Conv2d(2, 8, 1), h=head()),
        numbers(3, 6, 6),
    ),
    "bare scales": lambda: (
        Net(
            lambda net, x: net.h(net.shift + x * net.scale / (1.5 - net.one) - net.two),
            shift=weight(8),
            scale=weight(1, 8),
            one=nn.Parameter(torch.rand(())),
            two=weight(1),
            h=head(),
        ),
        numbers(8),
    ),
    "bare products": lambda: (
        Net(
            lambda net, x: net.h(((x @ net.one) @ net.two.t() + torch.matmul(x, net.two.T)).tanh()),
            one=weight(8, 8),
            two=weight(8, 8),
            h=head(),
        ),
        numbers(8),
    ),
    "parameter on the left": lambda: (
        Net(lambda net, x: net.h((net.m @ x).tanh().mean(2)), m=weight(8, 6), h=head()),
        numbers(6, 5),
    ),
    "made of parameters": lambda: (
        Net(
            lambda net, x: (
                F.linear(x * F.softplus(net.one)[None] - torch.exp(net.one).view(1, 8) * 2, net.two * 0.5)
                + (1 - net.two[:, 0])
            ),
            one=nn.Parameter(torch.rand(8)),
            two=weight(4, 8),
        ),
        numbers(8),
    ),
    "scaled layers": lambda: (
        Net(
            lambda net, x: net.h(F.linear(torch.tanh(F.linear(x, net.m[0] * net.s[0])), net.m[1] * net.s[1])),
            m=nn.ParameterList([weight(8, 8), weight(8, 8)]),
            s=weight(2),
            h=head(),
        ),
        numbers(8),
    ),
    "weight norm": lambda: (nn.Sequential(_parametrized.weight_norm(nn.Linear(8, 8)), nn.Tanh(), head()), numbers(8)),
    "orthogonal": lambda: (nn.Sequential(_parametrized.orthogonal(nn.Linear(8, 8)), head()), numbers(8)),
    "spectral norm": lambda: (
        nn.Sequential(settled(_parametrized.spectral_norm(nn.Linear(8, 8))), head()),
        numbers(8),
    ),
    "weight standardised": lambda: (Net(_standardised, c=nn.Conv2d(3, 8, 3), h=head()), numbers(3, 6, 6)),
    "parts of parameters": lambda: (Net(_split, matrix=weight(12, 8), shift=weight(12), h=head(4)), numbers(8)),
    "in place": lambda: (
        Net(_in_place, one=nn.Linear(8, 8), two=nn.Linear(8, 8), scale=weight(8), h=head()),
        numbers(8),
    ),
    "learned queries": lambda: (
        Net(_queries, asked=weight(3, 8), norm=nn.LayerNorm(8), one=nn.Linear(8, 8), h=head()),
        numbers(5, 8),
    ),
    "adapter": lambda: (
        Net(_adapter, base=_frozen(nn.Linear(8, 8)), down=weight(2, 8), up=nn.Parameter(torch.zeros(8, 2)), h=head()),
        numbers(8),
    ),
    "merged adapter": lambda: (
        Net(
            lambda net, x: net.h(F.linear(x, net.base.weight + net.up @ net.down)),
            base=_frozen(nn.Linear(8, 8)),
            down=weight(2, 8),
            up=weight(8, 2),
            h=head(),
        ),
        numbers(8),
    ),
    "mask token": lambda: (
        Net(
            _masks,
            mask=torch.tensor([True, False, True, False, False]),
            token=weight(8),
            one=nn.Linear(8, 8),
            shift=weight(8),
            scale=weight(8),
            h=head(),
        ),
        numbers(5, 8),
    ),
    "addmm": lambda: (Net(_addmm, shift=weight(6), matrix=weight(8, 6), h=head(6)), numbers(5, 8)),
    "spectrum": lambda: (
        Net(
            lambda net, x: net.h(
                torch.fft.ifft(torch.fft.fft(x, dim=1) * torch.view_as_complex(net.m), dim=1).real.mean(1)
            ),
            m=weight(5, 8, 2),
            h=head(),
        ),
        numbers(5, 8),
    ),
}
