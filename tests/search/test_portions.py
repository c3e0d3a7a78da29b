"""How many rows a model is asked about at once on CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vambrace.models import from_torch
from vambrace.models.normalise import Normalisation
from vambrace.models.onnx import load_onnx
from vambrace.search.judge import Oracle
from vambrace.search.portions import Portions

WIDE = 30_000
"""Numbers between the layers, so that 4 MiB hold those of 34 rows."""


class Net(nn.Module):
    """Spreads 6 numbers over as many as are asked for; remembers how many rows each call had."""

    def __init__(self, width: int = WIDE) -> None:
        super().__init__()
        self.calls: list[int] = []
        torch.manual_seed(0)
        self.spread, self.head = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls.append(len(inputs))
        return self.head(self.spread(inputs).relu())


@torch.no_grad()
def test_what_is_large_between_layers_is_asked_in_portions() -> None:
    net, portions = Net(), Portions()
    points = torch.rand(100, 6)
    whole = net(points)
    net.calls.clear()
    found = [portions.ask(net, points) for _ in range(2)]
    assert net.calls == [100, 34, 34, 32]
    assert torch.equal(found[0], whole)
    assert torch.allclose(found[1], whole)
    assert portions.ask(net, points[:34]).shape == (34, 3)
    assert net.calls[4:] == [34]
    few = points[:34]
    assert portions.ask(lambda rows: rows, few) is few  # what is asked whole is not copied


@torch.no_grad()
def test_bytes_count_and_rows_that_were_taken_apart() -> None:
    """Numbers of eight bytes, and parts of samples as rows of their own, as attention in windows has them."""
    net, portions = Net(WIDE // 2).double(), Portions()
    for _ in range(2):
        portions.ask(net, torch.rand(100, 6).double())
    assert net.calls == [100, 34, 34, 32]
    portions, calls = Portions(), list[int]()

    def windows(points: Tensor) -> Tensor:
        calls.append(len(points))
        return points.repeat(5_000, 1).view(5_000, -1, 6)[0]

    for _ in range(2):
        portions.ask(windows, torch.rand(100, 6))
    assert calls == [100, 34, 34, 32]


@torch.no_grad()
def test_every_row_stands_where_it_stood() -> None:
    portions = Portions()
    points = torch.arange(100.0).view(100, 1).expand(100, 20_000).clone()
    for _ in range(2):
        assert torch.equal(
            portions.ask(lambda rows: rows[:, :2] * 2.0 + rows.exp()[:, :2] * 0, points[:80])[:, 0], 2 * points[:80, 0]
        )


@torch.no_grad()
def test_never_fewer_than_sixteen() -> None:
    net, portions = Net(400_000), Portions()
    for rows in (16, 20, 20, 16):
        portions.ask(net, torch.rand(rows, 6))
    assert net.calls == [16, 20, 10, 10, 16]  # nor is so small a call watched: of one row, everything is a multiple


@torch.no_grad()
def test_small_ones_are_asked_whole() -> None:
    net, portions = Net(2_000), Portions()
    for _ in range(3):
        portions.ask(net, torch.rand(500, 6))
    assert net.calls == [500] * 3


@torch.no_grad()
def test_on_other_devices_it_is_asked_whole() -> None:
    net, portions = Net().to("meta"), Portions()
    for _ in range(2):
        portions.ask(net, torch.rand(100, 6, device="meta"))
    assert net.calls == [100, 100]


def test_with_gradients_it_is_asked_whole() -> None:
    net, portions = Net(), Portions()
    for _ in range(2):
        assert portions.ask(net, torch.rand(64, 6)).requires_grad
    assert net.calls == [64, 64]


@torch.no_grad()
@pytest.mark.parametrize("net", [lambda rows: rows[:, :3], lambda rows: rows[:, :3] * rows.sum().item()])
def test_nets_that_make_nothing_or_single_numbers(net: Callable[[Tensor], Tensor]) -> None:
    portions, points = Portions(), torch.rand(64, 6)
    assert all(torch.equal(portions.ask(net, points), net(points)) for _ in range(2))


@torch.no_grad()
@pytest.mark.parametrize("rows", [16, 32])
def test_weights_and_what_takes_no_room_do_not_count(rows: int) -> None:
    """Neither views nor a tensor of another number of rows, however large."""
    weights = torch.rand(16 * rows, 40_000)

    def net(points: Tensor) -> Tensor:
        weights[: 8 * rows].relu_()
        return points @ (weights.t()[:6, :3]) + torch.ones(30_001, 40).sum() * 0

    portions, calls = Portions(), list[int]()
    for _ in range(2):
        portions.ask(lambda part: (calls.append(len(part)), net(part))[1], torch.rand(4 * rows, 6))
    assert calls == [4 * rows] * 2


@torch.no_grad()
def test_the_oracle_asks_in_portions_and_counts_the_same() -> None:
    net = Net()
    oracle = Oracle(from_torch(net), -1)
    points = torch.rand(90, 6)
    answers = [oracle.logits(points) for _ in range(3)]
    assert net.calls == [90, 30, 30, 30, 30, 30, 30]
    assert oracle.forwards == 270
    assert all(torch.allclose(each, answers[0]) for each in answers)


@torch.no_grad()
@pytest.mark.parametrize(("batch", "calls"), [("64", [1, 2, 3]), ("n", [1, 3, 5])])
def test_models_of_a_fixed_number_of_rows_are_asked_whole(batch: str, calls: list[int], tmp_path: Path) -> None:
    """They fill up every portion to that number."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    net = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[{batch}, 30000] x) => (float[{batch}, 3] y)
        {{ y = MatMul (x, w) }}"""
    )
    net.graph.initializer.append(onnx.helper.make_tensor("w", 1, [30_000, 3], bytes(360_000), raw=True))
    onnx.save(net, tmp_path / "net.onnx")
    model = load_onnx(tmp_path / "net.onnx", bounds=None, normalise=Normalisation(0.5, 0.5))
    oracle, found = Oracle(model, -1), list[int]()
    for _ in range(3):
        oracle.logits(torch.rand(64, 30_000))
        found.append(model.calls)
    assert found == calls


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_and_scripted_nets_can_be_watched() -> None:
    net = nn.Sequential(nn.Linear(6, WIDE), nn.ReLU(), nn.Linear(WIDE, 3)).eval()
    points = torch.rand(64, 6)
    whole = torch.compile(net, backend="eager", fullgraph=True)  # fails where torch falls back, as under most modes
    for made in (torch.compile(net, backend="eager"), whole, torch.jit.script(net)):
        portions, calls = Portions(), list[int]()

        def asked(part: Tensor, made: Callable[[Tensor], Tensor] = made, calls: list[int] = calls) -> Tensor:
            calls.append(len(part))
            return made(part)

        answers = [portions.ask(asked, points) for _ in range(3)]
        assert calls == [64, 32, 32, 32, 32]
        assert all(torch.allclose(each, net(points)) for each in answers)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype stage")
def test_nets_of_operators_without_a_schema_or_tensors_without_a_shape_can_be_watched() -> None:
    """`torch.cond`, and what torch itself makes of padded rows for its encoders."""
    points = torch.rand(64, 160)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1).eval()

    def padded(rows: Tensor) -> Tensor:
        mask = torch.zeros(len(rows), 10, dtype=torch.bool)
        mask[:, 5:] = rows[:, :1] > 0.5
        return encoder(rows.view(-1, 10, 16), src_key_padding_mask=mask)[:, 0]

    def wide(rows: Tensor) -> Tensor:
        return rows.repeat(1, 200)

    def chosen(rows: Tensor) -> Tensor:
        calls.append(len(rows))
        return torch.cond(rows.sum() > 0, wide, wide, (rows,))[:, :3]

    calls: list[int] = []
    for net in (padded, chosen):
        portions = Portions()
        assert all(torch.allclose(portions.ask(net, points), net(points), atol=1e-6) for _ in range(2))
    assert calls == [64, 64, 32, 32, 64]
