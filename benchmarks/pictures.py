"""The pictures of docs/attacks: measured on small networks for scikit-learn's digits, and drawn from what was measured.

    python benchmarks/pictures.py           # measure (under two minutes on one core), write the JSON, draw
    python benchmarks/pictures.py --draw    # draw again from results/pictures.json

Networks are trained on the spot, on digits that no attack sees. They show what attacks do, not what is state of the
art: digits of 8 x 8 pixels are a small world. Every number in a picture comes from the JSON (`plates.py` draws it).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import interleave
import plates
import torch
from torch import Tensor

from vambrace import data
from vambrace.attacks import APGD, DDN, FGSM, FMN, PGD, Adaptive, Boundary, HopSkipJump, RayS, Square, Standard
from vambrace.attacks.momentum import BIM, DIFGSM, MDIFGSM, MIFGSM, NIFGSM, SIFGSM, TIFGSM, VMIFGSM, VNIFGSM
from vambrace.models import BPDA, Expectation, from_torch
from vambrace.models.contract import Model
from vambrace.models.wrappers import Wrapper
from vambrace.search.outcome import Attacked
from vambrace.testing.digits import train

DOCS = Path(__file__).resolve().parents[1] / "docs" / "pictures"
NAME, SEED = "pictures", 0
RADIUS, TRANSFER_RADIUS, ENSEMBLE_RADIUS, HELPERS_RADIUS = 0.12, 0.2, 0.15, 0.12
LEVELS, NOISE, DRAWS = 8, 0.3, 200
BUDGETS = (100, 200, 500, 1000, 2000, 5000)
ROWS = (15, 20, 30, 40, 60, 80, 120, 160, 320)

Json = dict[str, object]


class World:
    """A network, others that were trained on the other half of the digits, and digits that all of them get right."""

    def __init__(self) -> None:
        seen, unseen = (data.load(f"digits:{part}") for part in ("train", "test"))
        batch, test = seen.read(range(len(seen))), unseen.read(range(len(unseen)))
        half = len(seen) // 2
        self.model = self._trained(batch.inputs[:half], batch.labels[:half], width=16, seed=SEED)
        others = batch.inputs[half:], batch.labels[half:]
        self.surrogates = [self._trained(*others, width=width, seed=SEED + 1 + width) for width in (12, 16, 24)]
        right = torch.ones(len(unseen), dtype=torch.bool)
        for model in (self.model, *self.surrogates):
            right &= model.predict(test.inputs) == test.labels
        self.inputs, self.labels = test.inputs[right], test.labels[right]
        self.asked, self.right = len(unseen), int(right.sum())

    def first(self, count: int) -> tuple[Model, Tensor, Tensor]:
        """The network and the first digits."""
        return self.model, self.inputs[:count], self.labels[:count]

    @staticmethod
    def _trained(inputs: Tensor, labels: Tensor, *, width: int, seed: int) -> Model:
        return from_torch(train(inputs, labels, width=width, seed=seed, epochs=20), bounds=(0, 1))


def gradient(world: World) -> Json:
    """Digits that stand under one attack and fall under the next, and how many each attack leaves."""
    model, inputs, labels = world.first(400)
    attacks = {"FGSM": FGSM(eps=RADIUS), "PGD": PGD(eps=RADIUS, steps=20), "APGD": APGD(eps=RADIUS, steps=100)}
    found = {name: attack(model, inputs, labels, rng=SEED) for name, attack in attacks.items()}
    fallen = torch.stack([out.success for out in found.values()]).long().sum(dim=0)
    chosen = [int(fallen.eq(count).nonzero()[0, 0]) for count in (3, 2, 1, 0) if bool(fallen.eq(count).any())]
    return {
        "eps": RADIUS,
        "digits": len(inputs),
        "left": {name: _share(~out.success) for name, out in found.items()},
        "cost": {name: _rows(out) for name, out in found.items()},
        "rows": [
            {
                "clean": _pixels(inputs[index]),
                "label": int(labels[index]),
                "found": {name: _point(model, out, index) for name, out in found.items()},
            }
            for index in chosen
        ],
    }


def transfer(world: World) -> Json:
    """What is made on one and on three networks, judged on another one that saw none of their training digits."""
    model, inputs, labels = world.first(400)
    how = {"eps": TRANSFER_RADIUS, "steps": 10}
    attacks = {
        "BIM": BIM(**how),
        "MI": MIFGSM(**how),
        "NI": NIFGSM(**how),
        "DI": DIFGSM(**how),
        "MDI": MDIFGSM(**how),
        "TI (3 pixels)": TIFGSM(**how, kernel=3),
        "SI": SIFGSM(**how),
        "VMI": VMIFGSM(**how),
        "VNI": VNIFGSM(**how),
    }
    rows = {}
    for name, attack in attacks.items():
        found = [
            attack(model, inputs, labels, rng=SEED, surrogates=world.surrogates[:count]).success for count in (1, 3)
        ]
        rows[name] = [_share(each) for each in found]
    direct = BIM(**how)(model, inputs, labels, rng=SEED)
    return {"eps": TRANSFER_RADIUS, "digits": len(inputs), "rows": rows, "direct": _share(direct.success)}


def nearest(world: World) -> Json:
    """The same digits, changed as little as FMN can, by each of four measures."""
    model, inputs, labels = world.first(60)
    found = {norm: FMN(norm=norm, steps=300)(model, inputs, labels, rng=SEED) for norm in ("l0", "l1", "l2", "linf")}
    whole = torch.stack([out.success for out in found.values()]).all(dim=0)
    order = found["l2"].distance.masked_fill(~whole, torch.inf).argsort()
    kept = int(whole.sum())
    chosen = [int(order[place]) for place in (kept // 4, kept // 2, kept - 1 - kept // 4)]
    return {
        "digits": len(inputs),
        "median": {norm: float(out.distance[whole].median()) for norm, out in found.items()},
        "rows": [
            {
                "clean": _pixels(inputs[index]),
                "label": int(labels[index]),
                "found": {norm: _point(model, out, index) for norm, out in found.items()},
            }
            for index in chosen
        ],
    }


def black_box(world: World) -> Json:
    """Median distances of three attacks on labels for rising budgets, and those of an attack with gradients."""
    model, inputs, labels = world.first(50)
    attacks = {
        "l2": {"HopSkipJump": HopSkipJump(norm="l2"), "Boundary": Boundary()},
        "linf": {"HopSkipJump": HopSkipJump(norm="linf"), "RayS": RayS()},
    }
    gradients = {"l2": DDN(steps=300), "linf": FMN(norm="linf", steps=300)}
    panels = {}
    for norm, group in attacks.items():
        lines = {}
        for name, attack in group.items():
            each = [dataclasses.replace(attack, budget=budget) for budget in BUDGETS]
            lines[name] = [_median(one(model, inputs, labels, rng=SEED)) for one in each]
        out = gradients[norm](model, inputs, labels, rng=SEED)
        panels[norm] = {"lines": lines, "gradients": {"name": gradients[norm].name.upper(), "median": _median(out)}}
    return {"digits": len(inputs), "budgets": list(BUDGETS), "panels": panels}


def ensembles(world: World) -> Json:
    """Accuracy left by `Adaptive` for rising budgets, and by `Standard`, against the rows that they spent."""
    model, inputs, labels = world.first(300)
    spent = []
    for budget in ROWS:
        out = Adaptive(eps=ENSEMBLE_RADIUS, budget=budget)(model, inputs, labels, rng=SEED)
        spent.append({"budget": budget, "rows": _rows(out), "left": _share(~out.success)})
    out = Standard(eps=ENSEMBLE_RADIUS)(model, inputs, labels, rng=SEED)
    return {
        "eps": ENSEMBLE_RADIUS,
        "digits": len(inputs),
        "adaptive": spent,
        "standard": {"rows": _rows(out), "left": _share(~out.success)},
    }


def helpers(world: World) -> Json:
    """Two defences that stop attacks and make nothing robust: as they are, and with the helper that sees through."""
    model, inputs, labels = world.first(200)
    attack = APGD(eps=HELPERS_RADIUS, steps=50)
    rounding = BPDA(_rounded)
    plain, seen = (_Front(part, model) for part in (_rounded, rounding))
    rounded = {
        "none": _share(attack(plain, inputs, labels, rng=SEED).success),
        "BPDA": _share(attack(seen, inputs, labels, rng=SEED).success),
        "Square": _share(Square(eps=HELPERS_RADIUS, queries=2000)(plain, inputs, labels, rng=SEED).success),
    }
    noisy = _Front(_noised, model)
    judge, found = Expectation(noisy, samples=DRAWS), {}
    for name, attacked in {"none": noisy, "Expectation": Expectation(noisy, samples=20)}.items():
        torch.manual_seed(SEED)  # the noise is the model's own, and comes from the global generator
        out = attack(attacked, inputs, labels, rng=SEED)
        # What an attack claims was so in its own calls; what holds is so on the average of many more.
        held = out.success & (judge.predict(out.adversarial) != labels)
        found[name] = [_share(out.success), _share(held)]
    return {
        "eps": HELPERS_RADIUS,
        "digits": len(inputs),
        "levels": LEVELS + 1,
        "draws": DRAWS,
        "rounded": rounded,
        "noisy": found,
    }


MEASURED: dict[str, Callable[[World], Json]] = {
    "gradient": gradient,
    "transfer": transfer,
    "nearest": nearest,
    "black-box": black_box,
    "ensembles": ensembles,
    "helpers": helpers,
}


def measured() -> Json:
    """Everything that the pictures show."""
    torch.set_num_threads(1)
    result: Json = {"surroundings": interleave.surroundings(SEED, 1)}
    world = World()
    result["world"] = {"digits": world.asked, "right": world.right}
    for name, measure in MEASURED.items():
        interleave.say(name)
        result[name] = measure(world)
    return result


class _Front(Wrapper):
    """The network behind a part that changes its inputs."""

    def __init__(self, part: Callable[[Tensor], Tensor], model: Model) -> None:
        super().__init__(model)
        self._part = part

    def __call__(self, inputs: Tensor) -> Tensor:
        return self.model(self._part(inputs))


def _rounded(images: Tensor) -> Tensor:
    return (images * LEVELS).round() / LEVELS


def _noised(images: Tensor) -> Tensor:
    return images + NOISE * torch.randn_like(images)


def _pixels(sample: Tensor) -> list[list[float]]:
    return [[round(float(value), 3) for value in row] for row in sample[0]]


def _point(model: Model, out: Attacked, index: int) -> Json:
    point = out.adversarial[index]
    return {
        "pixels": _pixels(point),
        "says": int(model.predict(point[None])[0]),
        "won": bool(out.success[index]),
        "distance": float(out.distance[index]),
    }


def _share(chosen: Tensor) -> float:
    return float(chosen.double().mean())


def _rows(out: Attacked) -> float:
    cost = out.cost
    return (cost.forwards + cost.backwards + cost.verifications) / len(out.success)


def _median(out: Attacked) -> float:
    """Over all digits; one without a success counts as further than any other."""
    return float(out.distance.masked_fill(~out.success, torch.inf).median())


def main() -> None:
    """Measure unless told to draw only, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="draw from the JSON that is there")
    if not parser.parse_args().draw:
        interleave.write(NAME, measured())
    DOCS.mkdir(parents=True, exist_ok=True)
    for name, text in plates.drawn(json.loads((interleave.RESULTS / f"{NAME}.json").read_text())).items():
        (DOCS / name).write_text(text, encoding="utf-8")
        interleave.say(f"{name}: {len(text.encode()):,} bytes")


if __name__ == "__main__":
    main()
