"""The boundary attack: equal to a naive loop over samples, and lengths that follow the answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import black_box
from vambrace.attacks import boundary
from vambrace.attacks.boundary import Boundary, adapted, propose
from vambrace.attacks.steps import areas, stepped
from vambrace.core.access import Access, Bounds
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError
from vambrace.testing.attacks import curved_problem


def naive(network, given: Tensor, label: int, start: Tensor, sample: int, options: Boundary) -> tuple[float, int]:
    """One sample, one query at a time: the smallest distance of a point across, and the queries."""
    queries, best, length = 0, math.inf, {"spherical": options.spherical_step, "source": options.source_step}
    tries, hits = {"spherical": 0, "source": 0}, {"spherical": 0, "source": 0}
    stream = Streams(5).child("boundary", "steps")

    def across(point: Tensor) -> tuple[bool, Tensor]:
        nonlocal queries, best
        queries += 1
        point = point.clamp(0.0, 0.5)
        won = int(network(point[None]).argmax()) != label
        best = min(best, float((point - given).norm())) if won else best
        return won, point

    assert not across(given)[0]
    assert across(start)[0]
    low, high, point = 0.0, 1.0, start
    for _ in range(10):
        middle = (low + high) / 2
        won, at = across(given + (start - given) * middle)
        low, high, point = (low, middle, at) if won else (middle, high, point)
    turn = 0
    while queries < options.budget:
        turn += 1
        kind = "spherical" if turn % 5 == 0 else "source"
        nearest, after = 1 << 62, point
        for number in range(min(options.proposals, options.budget - queries)):
            change = point - given
            which = {"step": torch.tensor([number]), "shape": tuple(point.shape), "coarse": True}
            noise = stepped(stream.child(turn), torch.tensor([sample]), **which)[0] * areas(change[None])[0]
            size = float(change.norm())
            noise = noise - change * float((noise * change).sum()) / size**2
            moved = change + noise / noise.norm() * length["spherical"] * size
            moved = moved / moved.norm() * size
            moved = moved * (1 - length["source"]) if kind == "source" else moved
            won, at = across(given + moved)
            tries[kind] += 1
            hits[kind] += won
            coarse = round(float((at - given).norm()) / (size * (1 - length["source"])) * 4096)
            if kind == "source" and won and coarse < nearest:
                nearest, after = coarse, at
        point = after
        if turn % 5 in (0, 4) and tries[kind] >= 16:
            least, most = (0.2, 0.5) if kind == "spherical" else (0.1, 0.25)
            rate = hits[kind] / tries[kind]
            length[kind] = min(0.9, length[kind] * (1.5 if rate > most else 1 / 1.5 if rate < least else 1))
            tries[kind] = hits[kind] = 0
    return best, queries


def test_equals_a_naive_loop() -> None:
    network, bounds, inputs, labels = curved_problem(0.1)
    away = black_box.other_points(network, inputs, (labels + 1) % 3)
    ids = torch.arange(len(inputs)) * 7 + 3
    attack = Boundary(budget=230, proposals=3)
    model = black_box.counting(network, bounds, Access.LABELS)
    out = attack(model, inputs, labels, rng=5, ids=ids, start=away, batch_size=10)
    for row in range(len(inputs)):
        best, queries = naive(network, inputs[row], int(labels[row]), away[row], int(ids[row]), attack)
        assert int(out.forwards[row]) == queries
        assert float(out.distance[row]) == pytest.approx(best, rel=1e-9), f"sample {row}"


def test_a_proposal_is_on_the_sphere_and_then_inward() -> None:
    generator = torch.Generator().manual_seed(2)
    inputs, points, *noise = torch.randn(4, 6, 1, 4, 4, generator=generator, dtype=torch.float64)
    spherical, source = torch.full((6,), 0.3).double(), torch.tensor([0.0, 0.1] * 3).double()
    proposed = propose(inputs, points, torch.stack(noise, dim=1), spherical, source)
    change = (points - inputs).flatten(1)
    for found, way in zip((proposed - inputs.unsqueeze(1)).unbind(1), noise, strict=True):
        assert torch.allclose(found.flatten(1).norm(dim=1), change.norm(dim=1) * (1 - source))
        cosine = torch.cosine_similarity(found.flatten(1), change)
        assert torch.allclose(cosine, (1 / (1 + spherical**2)).sqrt())
        assert torch.linalg.matrix_rank(torch.stack((found[0].flatten(), change[0], way[0].flatten()))) == 2


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_noise_along_the_way_gives_no_step_aside(kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    inputs, points = torch.randn(2, 200, 2, generator=generator, dtype=kind)
    along = (points - inputs).unsqueeze(1) * torch.tensor([5.0, -0.7, 0.0]).view(1, 3, 1)
    found = propose(inputs, points, along, torch.full((200,), 0.3), torch.full((200,), 0.1))
    assert torch.allclose(found, (inputs + 0.9 * (points - inputs)).unsqueeze(1).expand_as(found), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [2, 5, 33, 784])
def test_a_proposal_does_not_depend_on_its_company(length: int) -> None:
    generator = torch.Generator().manual_seed(3)
    inputs, points = torch.randn(2, 9, length, generator=generator)
    noise, (spherical, source) = torch.randn(9, 4, length, generator=generator), torch.rand(2, 9, generator=generator)
    found = propose(inputs, points, noise, spherical, source)
    for row in range(9):
        one = slice(row, row + 1)
        for number in range(4):
            alone = propose(inputs[one], points[one], noise[one, number, None], spherical[one], source[one])
            # Off CPU the order in which a long row is added up depends on how many rows there are.
            off = 0.0 if inputs.device.type == "cpu" else 4e-6
            torch.testing.assert_close(alone[0, 0], found[row, number], rtol=0, atol=off)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_walks_about_as_far(dtype: torch.dtype) -> None:
    """The squares of the noise and of large distances are no numbers of float16."""
    network, bounds, inputs, labels = curved_problem(0.1)

    def wide(points: Tensor) -> Tensor:
        return network(points.double() / 500.0)

    inputs = (inputs * 500.0).to(dtype)
    labels = wide(inputs).argmax(1)
    box = Bounds(0.0, 250.0)
    low, single = (
        Boundary(budget=600)(black_box.counting(wide, box, Access.LABELS), each, labels)
        for each in (inputs, inputs.float())
    )
    assert low.success.all()
    assert (low.distance <= single.distance * 1.2 + 250 * 4 * torch.finfo(dtype).eps).all()


def test_lengths_follow_the_share_of_hits() -> None:
    sizes, tries = torch.full((4,), 0.1), torch.tensor([16, 16, 16, 15])
    found = adapted(sizes, tries, torch.tensor([9, 3, 6, 15]), (0.2, 0.5))
    assert found.tolist() == pytest.approx([0.15, 0.1 / 1.5, 0.1, 0.1])
    assert float(adapted(torch.tensor([0.8]), torch.tensor([16]), torch.tensor([16]), (0.2, 0.5))) == pytest.approx(0.9)


def test_comes_close_to_the_nearest_decision() -> None:
    assert float(black_box.found_over_best(Boundary(budget=2000)).max()) < 1.01


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.GRADIENTS])
def test_keeps_the_promises_of_black_box_attacks(access: Access) -> None:
    black_box.check_black_box(Boundary(budget=90), access)


@pytest.mark.parametrize(
    "options", [{"budget": 0}, {"proposals": 0}, {"norm": "linf"}, {"spherical_step": 0.0}, {"source_step": 1.0}]
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Boundary(**options)


def test_mutants_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(boundary, "adapted", lambda sizes, *_: sizes)
        with pytest.raises(AssertionError):
            test_comes_close_to_the_nearest_decision()
    with monkeypatch.context() as patch:
        patch.setattr(boundary, "propose", lambda inputs, points, noise, *_: points.unsqueeze(1) + noise * 0.001)
        with pytest.raises(AssertionError):
            test_comes_close_to_the_nearest_decision()
    with monkeypatch.context() as patch:
        true = boundary._round
        patch.setattr(
            boundary, "_round", lambda desk, owner, points, *a, **k: true(desk, owner, points.clone(), *a, **k)
        )
        with pytest.raises(AssertionError):
            test_comes_close_to_the_nearest_decision()
