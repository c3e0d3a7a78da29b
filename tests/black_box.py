"""What every black-box attack must hold to, on the toy problems of the conformance kit."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from vambrace.core.access import Access, Bounds
from vambrace.core.goals import Goal, Targeted, Untargeted
from vambrace.core.rng import Streams
from vambrace.ops.norms import distances
from vambrace.testing.attacks import curved_problem, linear_problem
from vambrace.testing.counting import CountingModel

SCALE = 0.1
COLUMNS = ("success", "forwards", "backwards", "verifications", "queries", "first_success", "finite")


def counting(network: Any, bounds: Bounds | None, access: Access) -> CountingModel:
    return CountingModel(network, access=access, bounds=bounds, dtype=torch.float64)


def other_points(network: Any, inputs: Tensor, wanted: Tensor) -> Tensor:
    """For each wanted class a sample that the network gives it."""
    predicted = network(inputs).argmax(dim=1)
    return torch.stack([inputs[int((predicted == each).nonzero()[0])] for each in wanted])


def check_claims(attack: Any, out: Any, network: Any, bounds: Bounds | None, inputs: Tensor, goal: Goal) -> None:
    with torch.no_grad():
        reached = goal.margin(network(out.adversarial)) > 0
    assert bool((reached | ~out.success).all()), "a success that does not reach the goal"
    size = distances(out.adversarial, inputs, attack.norm)
    assert torch.allclose(size, out.distance, rtol=1e-9, atol=0), "distance is not what the points show"
    assert bounds is None or bool(bounds.contains(out.adversarial).all()), "a point outside the bounds"
    assert torch.equal(out.first_success >= 0, out.success)
    assert bool((out.first_success <= out.forwards).all())
    assert bool((out.forwards <= attack.budget).all()), "more queries than the budget"
    if attack.eps is not None:
        assert bool((size[out.success] <= attack.eps).all()), "a success beyond the radius"


def check_black_box(attack: Any, access: Access) -> None:
    check_ledger(attack, access)
    check_company(attack, access)
    check_targets(attack, access)
    check_surroundings(attack, access)
    check_not_finite(attack)


def check_ledger(attack: Any, access: Access) -> None:
    network, bounds, inputs, labels = curved_problem(SCALE)
    for batch in (1, 7, 64):
        model = counting(network, bounds, access)
        out = attack(model, inputs, labels, batch_size=batch)
        cost = out.cost
        seen = cost.forwards + cost.verifications + cost.idle_forwards + cost.padding_forwards
        assert seen == model.forward_rows, f"{model.forward_rows} rows went forward, {seen} are accounted for"
        assert cost.idle_forwards == 0
        assert max(model.calls) <= batch
        assert cost.padding_forwards == 0 or access >= Access.GRADIENTS
        for name in ("forwards", "verifications", "queries"):
            assert int(getattr(out, name).sum()) == getattr(cost, name), name
        check_claims(attack, out, network, bounds, inputs, Untargeted(labels))


def check_company(attack: Any, access: Access) -> None:
    network, bounds, inputs, labels = curved_problem(SCALE)
    rng, ids = Streams(3).child("kit"), torch.arange(len(inputs)) * 1_000_003 + 11

    def run(index: Tensor, batch: int | None = None) -> Any:
        model = counting(network, bounds, access)
        return attack(model, inputs[index], labels[index], rng=rng, ids=ids[index], batch_size=batch)

    everyone = torch.arange(len(inputs))
    whole = run(everyone)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(1))
    runs = [(everyone, batch) for batch in (1, 7, 64)] + [(order, 7)]
    runs += [(everyone[first : first + 9], None) for first in range(0, len(inputs), 9)]
    for index, batch in runs:
        other = run(index, batch)
        for name in COLUMNS:
            assert torch.equal(getattr(whole, name)[index], getattr(other, name)), f"{name} at batch {batch}"
        assert torch.allclose(whole.distance[index], other.distance, rtol=1e-6)
        assert torch.allclose(whole.adversarial[index], other.adversarial, rtol=0, atol=1e-6)


def check_targets(attack: Any, access: Access) -> None:
    network, bounds, inputs, labels = curved_problem(SCALE)
    goal = Targeted((labels + 1) % 3)
    start = other_points(network, inputs, goal.classes)
    wide = attack if attack.eps is None else dataclasses.replace(attack, eps=5 * SCALE)
    out = wide(counting(network, bounds, access), inputs, goal, start=start)
    check_claims(wide, out, network, bounds, inputs, goal)
    assert out.success.all(), "a target that the start point reaches is missed"
    assert bool((out.distance <= distances(start, inputs, attack.norm)).all())


def check_surroundings(attack: Any, access: Access) -> None:
    network, bounds, inputs, labels = curved_problem(SCALE)
    kept, before = inputs.clone(), torch.get_rng_state()
    plain = attack(counting(network, bounds, access), inputs, labels)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inputs, kept)
    with torch.inference_mode():
        inside = attack(counting(network, bounds, access), inputs, labels)
    assert torch.equal(plain.distance, inside.distance)
    model = counting(network, bounds, access)
    assert attack(model, inputs[:0], labels[:0]).success.shape == (0,)
    assert model.forward_rows == 0
    generator = torch.Generator().manual_seed(1)
    noisy = counting(lambda points: torch.randn(len(points), 3, generator=generator).double(), bounds, access)
    out = attack(noisy, inputs, labels)
    assert out.cost.forwards + out.cost.verifications + out.cost.padding_forwards == noisy.forward_rows


def check_not_finite(attack: Any) -> None:
    network, bounds, inputs, labels = curved_problem(SCALE)
    marked = inputs[4].clone()

    def broken(points: Tensor) -> Tensor:
        near = ((points - marked).abs().flatten(1) <= 2 * SCALE).all(dim=1, keepdim=True)
        return torch.where(near, float("nan"), network(points))

    out = attack(counting(broken, bounds, Access.SCORES), inputs, labels)
    assert not out.finite[4]
    assert not out.success[4]


def found_over_best(attack: Any, access: Access = Access.LABELS) -> Tensor:
    """On the linear problem, how many times as far as the nearest decision each found point lies."""
    network, bounds, inputs, labels, radii = linear_problem(attack.norm, SCALE)
    out = attack(counting(network, bounds, access), inputs, labels)
    check_claims(attack, out, network, bounds, inputs, Untargeted(labels))
    assert out.success.all()
    assert bool((out.distance >= radii * SCALE * (1 - 1e-9)).all()), "nearer than any decision"
    return out.distance / (radii * SCALE)
