import copy

import pytest
import torch
from torch import nn

from vambrace.models.weights import weights_sha256


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_equal_networks_are_equal() -> None:
    assert weights_sha256(network()) == weights_sha256(copy.deepcopy(network()))


def test_what_does_not_count() -> None:
    net, plain = network(), weights_sha256(network())
    net.train().requires_grad_(False).to(memory_format=torch.channels_last)
    assert weights_sha256(net) == plain


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net[0].weight.data[0, 0, 0, 0].add_(1e-7),
        lambda net: net[1].running_mean.add_(1),
        lambda net: net[1].num_batches_tracked.add_(1),
        lambda net: net.double(),
        lambda net: net[0].register_buffer("shift", torch.zeros(1), persistent=False),
        lambda net: net[0].weight.data.copy_(net[0].weight.data.transpose(2, 3).clone()),
        lambda net: setattr(net[0], "weight", nn.Parameter(net[0].weight.data.reshape(1, 2, 3, 3))),
        lambda net: net.add_module("copy", net[0]),
    ],
)
def test_what_counts(change: object) -> None:
    net = network()
    change(net)
    assert weights_sha256(net) != weights_sha256(network())


def test_the_type_counts_even_where_the_bytes_agree() -> None:
    nets = [nn.Module(), nn.Module()]
    for net, dtype in zip(nets, (torch.float32, torch.int32), strict=True):
        net.register_buffer("b", torch.zeros(3, dtype=dtype))
    assert weights_sha256(nets[0]) != weights_sha256(nets[1])


def test_every_kind_of_tensor() -> None:
    net = nn.Module()
    for number, dtype in enumerate((torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.complex64)):
        net.register_buffer(f"b{number}", torch.ones(3, dtype=dtype))
    net.register_buffer("empty", torch.zeros(0))
    net.register_buffer("scalar", torch.tensor(1.0))
    net.register_buffer("sparse", torch.eye(2).to_sparse())
    net.register_buffer("none", None)
    assert len(weights_sha256(net)) == 64
