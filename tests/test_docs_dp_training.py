"""The page about private training: its code runs, and its tables are the code's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vambrace.errors import ConfigError
from vambrace.privacy import dp
from vambrace.privacy.dp import noise, sampling
from vambrace.privacy.dp.charges import Charge
from vambrace.privacy.dp.clipping import Clipping

PAGE = Path(__file__).resolve().parents[1] / "docs" / "privacy" / "dp-training.md"
TEXT = PAGE.read_text(encoding="utf-8")


def table(title: str) -> list[list[str]]:
    """Rows of the tables of a section, without heads; cells."""
    part = TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if line.startswith("|")
    ]
    return [
        row
        for at, row in enumerate(rows)
        if not set(row[0]) <= set("-|") and not set(rows[(at + 1) % len(rows)][0]) <= set("-|")
    ]


def test_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    parts = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert len(parts) == 3
    for number, part in enumerate(parts):
        exec(compile(part, f"{PAGE.name}, block {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "under private training: 2,410 trainable elements in 4 parameters" in said
    assert "Privacy statement: epsilon" in said
    assert "all epochs ran" in said
    right = names["module"](names["inputs"]).argmax(dim=1) == names["labels"]
    assert float(right.double().mean()) > 0.7
    assert names["again"].spent.steps == 0


@pytest.mark.parametrize("row", table("Clip and noise"), ids=lambda row: row[0])
def test_options_are_the_codes(row: list[str]) -> None:
    made = eval(row[0].strip("`"), {name: getattr(dp, name) for name in dp.__all__})  # our own table
    assert isinstance(made, Clipping | noise.Noise)


def test_every_option_has_its_line() -> None:
    written = " ".join(row[0] for row in table("Clip and noise") + table("Samplers"))
    for base in (Clipping, noise.Noise, sampling.Sampler):
        kinds = [base]
        while kinds:
            kind = kinds.pop()
            kinds += [each for each in kind.__subclasses__() if each.__module__.startswith("vambrace.")]
            if kind not in (Clipping, noise.Noise, sampling.Sampler):
                assert f"`{kind.__name__}(" in written, kind


@pytest.mark.parametrize("row", table("Samplers"), ids=lambda row: row[0])
def test_samplers_are_accounted_as_they_say(row: list[str]) -> None:
    kind = re.findall(r"`(\w+\(.*?\))`", row[0])[0]
    sampler = eval(kind, {name: getattr(dp, name) for name in dp.__all__})  # our own table
    charge = Charge(mechanism="gaussian", noise_multiplier=1.0, **sampler.charge_fields(1000, 100))
    found = dp.epsilon(dp.Spent([(charge, 10)]), delta=1e-5)
    words = {"add_or_remove_one": "add or remove", "replace_one": "replace", "zero_out_one": "contributes nothing"}
    if kind != "Everything()":
        assert words[found.relation] in row[2]
    whole = dp.epsilon(noise_multiplier=1.0, sample_rate=1.0, steps=1, delta=1e-5).epsilon
    if kind == "Shuffled()":
        assert found.epsilon == pytest.approx(whole, rel=1e-6)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(inputs, inputs, inputs)[0]


class Net(nn.Module):
    """A layer and a frozen head."""

    def __init__(self, inner: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.inner = inner
        size = self._features(example).shape[1]
        self.head = nn.Linear(size, 3).requires_grad_(False)

    def _features(self, inputs: Tensor) -> Tensor:
        out = self.inner(inputs)
        return (out[0] if isinstance(out, tuple) else out).flatten(1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self._features(inputs))


DRAW = torch.Generator().manual_seed(0)
WORDS, SEQUENCES = torch.randint(11, (24, 6), generator=DRAW), torch.randn(24, 6, 8, generator=DRAW)
PLANES, SIGNALS = torch.randn(24, 4, 8, 8, generator=DRAW), torch.randn(24, 4, 16, generator=DRAW)
LAYERS: dict[str, tuple[Any, Tensor]] = {
    "Linear": (lambda: nn.Linear(8, 4), SEQUENCES),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), SIGNALS),
    "Conv2d": (lambda: nn.Conv2d(4, 8, 3, groups=2, dilation=2), PLANES),
    "Conv3d": (lambda: nn.Conv3d(4, 2, 2), PLANES.unsqueeze(2).repeat(1, 1, 3, 1, 1)),
    "Embedding": (lambda: nn.Embedding(11, 4), WORDS),
    "LayerNorm": (lambda: nn.LayerNorm(8), SEQUENCES),
    "RMSNorm": (lambda: nn.RMSNorm(8), SEQUENCES),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), PLANES),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True), PLANES),
    "MultiheadAttention": (Attention, SEQUENCES),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), SEQUENCES),
    "LSTM": (lambda: nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True), SEQUENCES),
    "GRU": (lambda: nn.GRU(8, 5, batch_first=True), SEQUENCES),
    "RNN": (lambda: nn.RNN(8, 5, batch_first=True), SEQUENCES),
    "PReLU": (lambda: nn.PReLU(4), PLANES),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(11, 4), WORDS),
}
SAID = {name: row[1] for row in table("Layers") for name in re.findall(r"`(\w+)`", row[0])}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SAID)
def test_layers_go_the_way_that_the_table_says(name: str) -> None:
    make, inputs = LAYERS[name]
    torch.manual_seed(0)
    module = Net(make(), inputs)
    trained = [each for each in module.parameters() if each.requires_grad]
    with dp.make_private(
        module, torch.optim.SGD(trained, lr=0.1), (inputs, torch.arange(24) % 3), loss="cross_entropy", clip=dp.Flat(),
        noise=dp.Gaussian(noise_multiplier=1.0), expected_batch_size=8, delta=1e-3, accountant="rdp",
    ) as private:  # fmt: skip
        used = {method for row in private.table for method in row.method.split(", ")}
        plain = {"direct"} if name in ("Linear", "Conv1d", "Conv2d", "Conv3d") else set()  # their biases
        assert used <= {*SAID[name].split(", "), *plain}
        for batch in private.batches(steps=2):
            private.step(batch)


def test_what_is_said_to_be_refused_is_refused() -> None:
    rows = " ".join(row[0] for row in table("What is refused, and why"))
    data = (torch.randn(24, 8, generator=DRAW), torch.arange(24) % 3)
    plain = nn.Linear(8, 3)
    cases: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        "BatchNorm": (nn.Sequential(nn.BatchNorm1d(8), plain), {}),
        "reduced": (plain, {"loss": nn.functional.cross_entropy}),
        "float16": (plain, {"autocast": torch.float16}),
        "1/n": (plain, {"delta": 1 / 24}),
        "DataParallel": (nn.DataParallel(plain), {}),
    }
    for word, (module, changes) in cases.items():
        assert word in rows
        options: dict[str, Any] = {"loss": "cross_entropy", "expected_batch_size": 8, "delta": 1e-3, **changes}
        options |= {"clip": dp.Flat(), "noise": dp.Gaussian(noise_multiplier=1.0)}
        with pytest.raises(ConfigError):
            dp.make_private(module, torch.optim.SGD(module.parameters(), lr=0.1), data, **options)
