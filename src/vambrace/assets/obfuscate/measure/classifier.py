"""Can a machine tell what kind of network a file holds? An attack with training data, before and after obfuscation.

The attacker has `variants` networks of each of `families.FAMILIES`, and never one of those that he is asked about: the
variants are split into folds, and each fold is answered by attackers that were trained on the others. Four rows:

| row | trained on | asked about |
|---|---|---|
| `clean` | clean graphs | clean graphs: what there is to hide |
| `naive` | clean graphs | obfuscated graphs |
| `branches` | clean graphs | each branch by itself, the surest answer counting, or the branch that looks most real |
| `adaptive` | graphs obfuscated by us under other keys | obfuscated graphs |

The adaptive attacker has our software, so his row is the one that counts. Each row has several learners (nearest
neighbours, logistic regression, a forest), and the best of them is what is reported: choosing it by its answers favours
the attacker. So is the better of the two ways to read branches. Chance is one over the number of families.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from vambrace.assets.obfuscate.measure.branches import each_alone, most_real
from vambrace.assets.obfuscate.measure.families import FAMILIES, Size, variant
from vambrace.assets.obfuscate.measure.features import features
from vambrace.core.intervals import wilson
from vambrace.core.options import Options
from vambrace.core.options import require as hold
from vambrace.core.progress import Progress, silent
from vambrace.core.reason import reason
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from vambrace.core.findings import Interval

    Obfuscate = Callable[[ModelProto, int], ModelProto]
    Prepare = Callable[[ModelProto], ModelProto]

__all__ = ["Attacker", "Classified", "ClassifierOptions", "Row", "classify", "networks"]

Attacker = Literal["clean", "naive", "branches", "adaptive"]
_LEAST_FAMILIES, _LEAST_VARIANTS = 10, 10
_WORK = "networks for attackers"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOptions(Options):
    """What the attacker has.

    Attributes:
        families: names; empty: all. At least 10.
        variants: of each, at least 10.
        folds: parts of the variants; each is asked about once.
        keys: how many other keys the adaptive attacker saw each of his networks under.
        seed: of the networks.
        size: of the networks; "tiny" ones take some 5 to 200 microseconds, where any added operator shows in the time.
    """

    families: tuple[str, ...] = ()
    variants: int = 10
    folds: int = 5
    keys: int = 2
    seed: int = 0
    size: Size = "tiny"

    def __post_init__(self) -> None:
        names = self.families or tuple(FAMILIES)
        unknown = sorted(set(names) - set(FAMILIES))
        hold(
            not unknown
            and len(set(names)) >= _LEAST_FAMILIES
            and self.variants >= _LEAST_VARIANTS
            and 2 <= self.folds <= self.variants
            and self.keys >= 1
            and self.size in get_args(Size),
            code="E824",
            seen=f"families {unknown or len(set(names))}, {self.variants} variants, {self.folds} folds, "
            f"{self.keys} keys, size {self.size}",
            expected=f"at least {_LEAST_FAMILIES} of {', '.join(FAMILIES)}, at least {_LEAST_VARIANTS} variants of "
            f"each in 2 or more folds, at least one key, a size of {', '.join(get_args(Size))}",
            fix="leave the options out",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How often one attacker is right.

    Attributes:
        attacker: "clean", "naive", "branches" or "adaptive".
        accuracy: of the best learner.
        interval: Wilson's, of that learner.
        right, n: networks.
        learners: name -> accuracy.
        best: the name.
    """

    attacker: Attacker
    accuracy: float
    interval: Interval | None
    right: int
    n: int
    learners: dict[str, float]
    best: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """What `classify` found.

    Attributes:
        rows: clean, naive, branches, adaptive.
        families: names.
        variants, folds, keys, size: as asked for.
        chance: one over the number of families.
        prepared: what was done to every graph first, in a word; empty for nothing.
    """

    rows: tuple[Row, ...]
    families: tuple[str, ...]
    variants: int
    folds: int
    keys: int
    size: Size
    chance: float
    prepared: str

    def row(self, attacker: Attacker) -> Row:
        """The row of one attacker."""
        return next(row for row in self.rows if row.attacker == attacker)

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        found: dict[str, object] = asdict(self)
        return found | {"rows": [asdict(row) for row in self.rows], "families": list(self.families)}


def networks(options: ClassifierOptions) -> list[tuple[str, int, tuple[int, ...]]]:
    """Family and variant of each network, and the seeds that it is obfuscated with: he is asked about the first.

    No seed comes twice, for no two networks: the attacker has never seen the key that he is asked about.
    """
    names = tuple(dict.fromkeys(options.families)) or tuple(FAMILIES)
    places = [(family, number) for family in names for number in range(options.variants)]
    keys = options.keys + 1
    return [
        (family, number, tuple(range(place * keys, (place + 1) * keys)))
        for place, (family, number) in enumerate(places)
    ]


def classify(
    obfuscate: Obfuscate,
    *,
    options: ClassifierOptions | None = None,
    prepare: Prepare | None = None,
    prepared: str = "",
    progress: Progress = silent,
) -> Classified:
    """Train the attackers and ask them.

    Args:
        obfuscate: (model, seed) -> model: the obfuscator, whose choices follow from the seed.
        options: what the attacker has.
        prepare: what the attacker does to every graph, clean or not, before he looks at it, such as simplifying.
        prepared: the name of that.
        progress: hears of every network.

    Raises:
        ConfigError: E824, where the obfuscator fails on a network; the families are ordinary ONNX models.
    """
    chosen = options or ClassifierOptions()
    asked_for = networks(chosen)
    names = tuple(dict.fromkeys(family for family, _, _ in asked_for))
    seen: dict[str, list[NDArray[np.float64]]] = {"clean": [], "asked": []}
    alone: list[NDArray[np.float64]] = []
    picked: list[NDArray[np.float64]] = []
    others: list[list[NDArray[np.float64]]] = []
    progress.start(_WORK, len(asked_for))
    for family, number, seeds in asked_for:
        model = variant(family, number, seed=chosen.seed, size=chosen.size)
        seen["clean"].append(features(_prepared(model, prepare)))
        hidden = [_obfuscated(obfuscate, model, seed, family) for seed in seeds]
        asked_about = _prepared(hidden[0], prepare)
        seen["asked"].append(features(asked_about))
        branches = each_alone(asked_about)
        alone.append(np.stack([features(each) for each in branches]))
        picked.append(alone[-1][most_real(branches)][None])
        others.append([features(_prepared(each, prepare)) for each in hidden[1:]])
        progress.advance(_WORK, note=family)
    progress.finish(_WORK)
    labels = np.array([names.index(family) for family, _, _ in asked_for])
    fold = np.array([number % chosen.folds for _, number, _ in asked_for])
    clean, asked = np.stack(seen["clean"]), np.stack(seen["asked"])
    ours = np.stack([np.stack(each) for each in others])
    rows = (
        _row("clean", clean[:, None], list(clean[:, None]), labels, fold),
        _row("naive", clean[:, None], list(asked[:, None]), labels, fold),
        max((_row("branches", clean[:, None], each, labels, fold) for each in (alone, picked)), key=_accuracy),
        _row("adaptive", ours, list(asked[:, None]), labels, fold),
    )
    return Classified(
        rows=rows,
        families=names,
        variants=chosen.variants,
        folds=chosen.folds,
        keys=chosen.keys,
        size=chosen.size,
        chance=1 / len(names),
        prepared=prepared,
    )


def _accuracy(row: Row) -> float:
    return row.accuracy


def _prepared(model: ModelProto, prepare: Prepare | None) -> ModelProto:
    return prepare(model) if prepare else model


def _obfuscated(obfuscate: Obfuscate, model: ModelProto, seed: int, family: str) -> ModelProto:
    try:
        return obfuscate(model, seed)
    except Exception as error:
        raise ConfigError(
            "E824",
            seen=f"an obfuscator that fails on a network of the family {family}: {reason(error)}",
            expected="an obfuscated model, or the model as it was where nothing applies to it",
            fix="obfuscate vambrace.assets.obfuscate.measure.families.variant by hand to see why",
        ) from error


def _row(
    attacker: Attacker,
    known: NDArray[np.float64],
    asked: Sequence[NDArray[np.float64]],
    labels: NDArray[np.int64],
    fold: NDArray[np.int64],
) -> Row:
    """For each fold: trained on `known` (networks, keys, features) outside of it, asked about `asked` in it.

    Of each network that is asked about there are one or several views (views, features); the surest answer counts.
    """
    keys = known.shape[1]
    right: dict[str, int] = {}
    for held in np.unique(fold):
        train, test = fold != held, fold == held
        inputs, targets = known[train].reshape(-1, known.shape[2]), np.repeat(labels[train], keys)
        for name, learner in _learners(int(held)).items():
            learner.fit(inputs, targets)
            views = [asked[int(place)] for place in np.flatnonzero(test)]
            sure = np.split(learner.predict_proba(np.concatenate(views)), np.cumsum([len(each) for each in views])[:-1])
            said = learner.classes_[[each.max(axis=0).argmax() for each in sure]]
            right[name] = right.get(name, 0) + int((said == labels[test]).sum())
    n = len(labels)
    best = max(right, key=lambda name: right[name])
    return Row(
        attacker=attacker,
        accuracy=right[best] / n,
        interval=wilson(right[best], n),
        right=right[best],
        n=n,
        learners={name: count / n for name, count in right.items()},
        best=best,
    )


def _learners(seed: int) -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "neighbour": KNeighborsClassifier(n_neighbors=1, metric="cosine"),
        "neighbours": KNeighborsClassifier(n_neighbors=5, metric="cosine", weights="distance"),
        "linear": Pipeline([("scale", StandardScaler()), ("fit", LogisticRegression(C=0.1, max_iter=300))]),
        "forest": RandomForestClassifier(n_estimators=150, random_state=seed, n_jobs=1),
    }
