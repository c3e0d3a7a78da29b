"""Two processes under DistributedDataParallel: gradients of both are masked, and the replicas stay equal."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

PROGRAM = """
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vambrace.privacy import suppress

dist.init_process_group("gloo")
torch.set_num_threads(1)
torch.manual_seed(0)
net = DistributedDataParallel(nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3)))
optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
options = suppress.Suppression(layers=("module.0.weight",), end_step=8, every=2, end_sparsity=0.7, add_noise=0.01)
handle = options.attach(net, optimizer)
weight = net.module[0].weight
optimizer.register_step_pre_hook(lambda *_: check(weight.grad))


def check(tensor):
    assert not bool(tensor[handle.masks()["module.0.weight"]].any())


for step in range(12):
    chance = torch.Generator().manual_seed(100 * dist.get_rank() + step)
    inputs, labels = torch.randn(8, 6, generator=chance), torch.randint(3, (8,), generator=chance)
    optimizer.zero_grad()
    F.cross_entropy(net(inputs), labels).backward()
    optimizer.step()
    check(weight)
assert int((weight == 0).sum()) == 134 == handle.counts()["module.0.weight"][0]
first = weight.detach().clone()
dist.broadcast(first, 0)
assert torch.equal(weight, first)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")
def test_replicas_stay_equal(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    done = subprocess.run([*command, str(tmp_path / "program.py")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
