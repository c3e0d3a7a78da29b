"""A small world for checks: data, models of known behaviour, and units run and reduced by hand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vambrace.assess.checks.base import Context, Reduction
from vambrace.core.access import Access, Bounds
from vambrace.core.findings import Cost
from vambrace.core.rng import Streams
from vambrace.data.batches import Batch, sample_id
from vambrace.models import from_torch


class Template(nn.Module):
    """Class scores are the nearness to one picture a class."""

    def __init__(self, pictures: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(pictures.flatten(1).clone())

    def forward(self, x):
        return -8 * (x.flatten(1).unsqueeze(1) - self.weight).square().sum(2)


class LabelsOnly:
    """The same answers, without scores."""

    access = Access.LABELS
    outputs = "labels"
    identity = None
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, model) -> None:
        self.model = model
        self.bounds, self.input_shape, self.num_classes = model.bounds, model.input_shape, model.num_classes

    def predict(self, inputs):
        return self.model.predict(inputs)


@dataclass
class World:
    """Samples around five pictures, some of them too noisy to be told, and a model of those pictures."""

    folder: Path
    n: int = 60
    images: int = 4
    batch_size: int = 16
    seed: int = 0
    model: Any = None
    noise: float = 1.0

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.pictures = 0.4 + 0.2 * torch.rand(5, 1, 6, 6, generator=generator)
        self.labels = torch.arange(self.n) % 5
        noise = torch.rand(self.n, 1, 6, 6, generator=generator) * 2 - 1
        strength = torch.linspace(0, self.noise, self.n).view(-1, 1, 1, 1)
        self.inputs = (self.pictures[self.labels] + strength * noise).clamp(0, 1)
        self.ids = torch.tensor([sample_id(str(i)) for i in range(self.n)])
        if self.model is None:
            self.model = from_torch(Template(self.pictures).eval(), bounds=(0.0, 1.0))

    def batch(self, places=None) -> Batch:
        places = list(range(self.n)) if places is None else list(places)
        return Batch(
            inputs=self.inputs[places],
            labels=self.labels[places],
            ids=self.ids[places],
            hashes=tuple(hashlib.sha256(str(place).encode()).hexdigest() for place in places),
            names=tuple(f"sample-{place}" for place in places),
        )

    def context(self, role: str = "eval") -> Context:
        return Context(
            check="under-test",
            role=role,
            model=self.model,
            rng=Streams(self.seed).child("under-test"),
            batch_size=self.batch_size,
            images=self.images,
            evidence=self.folder / "evidence",
            class_names=("a", "b", "c", "d", "e"),
        )

    def measured(self, check, places=None, role: str = "eval"):
        return check.measure(self.context(role), self.batch(places))

    def reduction(self, records, **changes) -> Reduction:
        given = {"eval": records} if isinstance(records, list) else records
        values = {
            "check": "under-test",
            "records": given,
            "planned": {role: len(own) for role, own in given.items()},
            "cost": Cost(),
            "flags": (),
            "clean": {},
            "rng": Streams(self.seed).child("under-test"),
            "num_classes": 5,
            "class_names": ("a", "b", "c", "d", "e"),
            "missing": "",
            "images": self.images,
        }
        return Reduction(**{**values, **changes})

    def findings(self, check, places=None, **changes) -> dict[str, Any]:
        records = list(self.measured(check, places).records)
        return {each.metric: each for each in check.reduce(self.reduction(records, **changes))}

    def right(self) -> torch.Tensor:
        logits = self.model(self.inputs)
        return (logits.argmax(1) == self.labels) & logits.isfinite().all(1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def make_world(tmp_path: Path):
    return lambda **options: World(tmp_path, **options)


@pytest.fixture
def labels_only():
    return LabelsOnly


class Spoiled(nn.Module):
    """NaN logits for some samples, told by their first pixel."""

    def __init__(self, network: nn.Module, first_pixels: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("marks", first_pixels)

    def forward(self, x):
        logits = self.network(x)
        hit = (x.flatten(1)[:, :1] == self.marks).any(dim=1)
        return torch.where(hit.unsqueeze(1), torch.nan, logits)


@pytest.fixture
def spoil():
    """Make a world's model answer NaN on some of its samples."""

    def make(world: World, places) -> None:
        marks = world.inputs[list(places)].flatten(1)[:, 0]
        world.model = from_torch(Spoiled(world.model.module, marks).eval(), bounds=Bounds(0.0, 1.0))

    return make
