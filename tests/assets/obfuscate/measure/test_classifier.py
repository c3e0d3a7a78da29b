"""Families are what they say, and the classifier finds what is there, guesses where nothing is, and never peeks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import disguises
from vambrace.assets.obfuscate.measure import classifier
from vambrace.assets.obfuscate.measure.branches import each_alone
from vambrace.assets.obfuscate.measure.classifier import ClassifierOptions, classify, networks
from vambrace.assets.obfuscate.measure.families import FAMILIES, variant
from vambrace.assets.obfuscate.measure.features import features
from vambrace.assets.obfuscate.measure.runtime import Network
from vambrace.errors import ConfigError

HALVING = {"mobilenet", "squeezenet", "autoencoder", "pyramid", "transformer", "mixer"}
LEAST = ClassifierOptions(families=tuple(FAMILIES)[:10], keys=1, folds=2)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_variants_are_valid_differ_and_come_again(family: str) -> None:
    models = [variant(family, number) for number in range(10)]
    assert len({model.SerializeToString() for model in models}) == 10
    assert len({len(model.graph.node) for model in models}) > 1
    assert variant(family, 0).SerializeToString() == models[0].SerializeToString()
    assert variant(family, 0, seed=1).SerializeToString() != models[0].SerializeToString()
    for model in models[:3]:
        onnx.checker.check_model(model, full_check=True)
        network = Network(model)
        inputs = np.random.default_rng(0).normal(size=(2, *(size or 1 for size in network.inputs[0].shape[1:])))
        (answer,) = network.run([inputs.astype(np.float32)])
        stated = [size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim][1:]
        assert list(answer.shape[1:]) == stated
        assert np.isfinite(answer).all()
        assert answer.std() > 0


@pytest.mark.parametrize("family", list(FAMILIES))
def test_variants_of_usual_size_are_wider_and_as_valid(family: str) -> None:
    for number in range(3):
        tiny, usual = variant(family, number), variant(family, number, size="usual")
        onnx.checker.check_model(usual, full_check=True)
        assert {node.op_type for node in usual.graph.node} == {node.op_type for node in tiny.graph.node}
        assert usual.ByteSize() > 3 * tiny.ByteSize()
        sizes = [
            [each.dim_value for each in one.graph.input[0].type.tensor_type.shape.dim[1:]] for one in (tiny, usual)
        ]
        wider = 24 if family in {"mlp", "recurrent"} else 8
        side = 2 if family in HALVING else 1
        larger = {1: (wider,), 2: (1, wider), 3: (1, side, side)}[len(sizes[0])]
        assert sizes[1] == [size * factor for size, factor in zip(sizes[0], larger, strict=True)]
        assert variant(family, number, size="usual").SerializeToString() == usual.SerializeToString()
        network = Network(usual)
        inputs = np.random.default_rng(0).normal(size=(2, *(size or 1 for size in network.inputs[0].shape[1:])))
        (answer,) = network.run([inputs.astype(np.float32)])
        assert np.isfinite(answer).all()
        assert answer.std() > 0


def test_features_see_the_graph_and_not_the_file() -> None:
    model = variant("inception", 0)
    assert np.array_equal(features(model), features(disguises.renamed(model)))
    assert features(variant("mlp", 0)).shape == features(model).shape
    assert not np.array_equal(features(variant("inception", 1)), features(model))


class Fixed:
    """A classifier run on made-up features, so that what it can know is known."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, look: Callable[[ModelProto], np.ndarray]) -> None:
        self.sizes: set[str] = set()

        def small(family: str, number: int, *, seed: int = 0, size: str = "tiny") -> ModelProto:
            model = ModelProto(producer_name=family, producer_version=str(number))
            model.model_version = seed
            self.sizes.add(size)
            return model

        monkeypatch.setattr(classifier, "variant", small)
        monkeypatch.setattr(classifier, "features", look)
        whole = classifier._learners
        # A forest takes seconds and is tested with the others by the slow test.
        monkeypatch.setattr(
            classifier, "_learners", lambda seed: {k: v for k, v in whole(seed).items() if k != "forest"}
        )


def family_of(model: ModelProto) -> float:
    return float(list(FAMILIES).index(model.producer_name)) if model.producer_name else -1.0


def test_what_a_graph_tells_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    Fixed(monkeypatch, lambda model: np.eye(17)[int(family_of(model))])
    found = classify(lambda model, seed: model, options=LEAST)
    assert [row.accuracy for row in found.rows] == [1.0, 1.0, 1.0, 1.0]
    assert found.row("adaptive").n == 100
    assert found.row("adaptive").interval is not None
    assert found.chance == 0.1


def test_networks_are_as_large_as_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = Fixed(monkeypatch, lambda model: np.eye(17)[int(family_of(model))])
    found = classify(lambda model, seed: model, options=dataclasses.replace(LEAST, size="usual"))
    assert (found.size, fixed.sizes) == ("usual", {"usual"})


def test_what_is_hidden_is_guessed_and_what_the_key_alone_hides_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that depends on the family by a fixed rule: a naive attacker is lost, an adaptive one is not."""

    def masked(model: ModelProto, seed: int) -> ModelProto:
        copy = ModelProto.FromString(model.SerializeToString())
        copy.domain = "masked"
        return copy

    def look(model: ModelProto) -> np.ndarray:
        place = int(family_of(model))
        return np.eye(17)[(place + 5) % 10 if model.domain else place]

    Fixed(monkeypatch, look)
    found = classify(masked, options=LEAST)
    assert found.row("clean").accuracy == 1.0
    assert found.row("naive").accuracy == 0.0
    assert found.row("adaptive").accuracy == 1.0


def test_branches_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main graph tells nothing, one branch tells the family, another is no network that anybody knows."""

    def look(model: ModelProto) -> np.ndarray:
        shown = np.zeros(17)
        for node in model.graph.node:
            # Whole graphs drown in noise; the branch by itself is what clean graphs are.
            shown += np.eye(17)[int(node.name)] if node.name else np.full(17, 0.5)
        return shown / max(1.0, float(np.linalg.norm(shown)))

    def clean(family: str, number: int, *, seed: int = 0, size: str = "tiny") -> ModelProto:
        model = ModelProto(producer_name=family)
        model.graph.node.add(name=str(list(FAMILIES).index(family)))
        return model

    def hidden(model: ModelProto, seed: int) -> ModelProto:
        found = ModelProto(producer_name=model.producer_name)
        fake = onnx.GraphProto(node=[onnx.NodeProto() for _ in range(50)])
        chooser = onnx.helper.make_node("If", ["c"], ["y"], then_branch=model.graph, else_branch=fake)
        found.graph.node.append(chooser)
        return found

    Fixed(monkeypatch, look)
    monkeypatch.setattr(classifier, "variant", clean)
    found = classify(hidden, options=LEAST)
    assert found.row("branches").accuracy == 1.0
    assert found.row("naive").accuracy < 0.3


def test_of_branches_that_look_alike_the_one_with_most_weights_for_an_operator_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is imagined looks as surely like another family, and has little room for weights."""

    def look(model: ModelProto) -> np.ndarray:
        names = {node.name for node in model.graph.node if node.name}
        return np.eye(17)[int(names.pop())] if names else np.zeros(17)

    def graph(number: int, operators: int) -> onnx.GraphProto:
        weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [200], np.zeros(200))
        nodes = [onnx.NodeProto(name=str(number)) for _ in range(operators)]
        return onnx.GraphProto(node=nodes, initializer=[weight])

    def clean(family: str, number: int, *, seed: int = 0, size: str = "tiny") -> ModelProto:
        return ModelProto(producer_name=family, graph=graph(list(FAMILIES).index(family), 8))

    def hidden(model: ModelProto, seed: int) -> ModelProto:
        found = ModelProto(producer_name=model.producer_name)
        fake = graph((int(model.graph.node[0].name) + 1) % 10, 200)
        # A layer and its decoy have most bytes of all, and are no network.
        layer = graph(0, 1)
        for output, real, other in (("y", model.graph, fake), ("z", layer, layer)):
            found.graph.node.append(onnx.helper.make_node("If", ["c"], [output], then_branch=other, else_branch=real))
        return found

    Fixed(monkeypatch, look)
    monkeypatch.setattr(classifier, "variant", clean)
    assert classify(hidden, options=LEAST).row("branches").accuracy == 1.0


def test_graphs_by_themselves_have_the_weights_that_they_read() -> None:
    def graph(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        weight = onnx.numpy_helper.from_array(np.zeros(2, np.float32), f"w{name}")
        return onnx.GraphProto(name=name, node=nodes, initializer=[weight])

    deep = onnx.helper.make_node("If", ["c"], ["z"], then_branch=graph("c", onnx.NodeProto(op_type="Relu")))
    held = onnx.helper.make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.zeros(1)))
    top = onnx.helper.make_node("If", ["c"], ["y"], then_branch=graph("b", deep), axis=1)
    alone = each_alone(ModelProto(graph=graph("a", held, top)))
    assert [[node.op_type for node in each.graph.node] for each in alone] == [
        ["Constant", "If"], ["Constant", "If"], ["Constant", "Relu"]
    ]  # fmt: skip
    assert [[each.name for each in one.graph.initializer] for one in alone] == [
        ["wa"],
        ["wa", "wb"],
        ["wa", "wb", "wc"],
    ]
    assert [each.name for each in alone[0].graph.node[1].attribute] == ["axis"]


def test_noise_is_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of noise, another for each key: nobody does better than guessing, the choice of the best included."""
    rng = np.random.default_rng(0)
    Fixed(monkeypatch, lambda model: rng.normal(size=40))
    found = classify(lambda model, seed: model, options=LEAST)
    for row in found.rows:
        assert 0.02 <= row.accuracy <= 0.22
        assert row.interval is not None
        assert row.interval.low < 0.1 < row.interval.high + 0.05


def test_no_variant_and_no_key_is_in_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that name the variant and the key, and nothing else, must not help."""
    seeds: list[int] = []

    def keyed(model: ModelProto, seed: int) -> ModelProto:
        seeds.append(seed)
        copy = ModelProto.FromString(model.SerializeToString())
        copy.model_version = seed + 1
        return copy

    rng = np.random.default_rng(1)
    table: dict[tuple[str, str, int], np.ndarray] = {}

    def look(model: ModelProto) -> np.ndarray:
        name = (model.producer_name, model.producer_version, model.model_version)
        return table.setdefault(name, rng.normal(size=60))

    Fixed(monkeypatch, look)
    found = classify(keyed, options=LEAST)
    assert len(seeds) == len(set(seeds)) == 200
    assert all(row.accuracy <= 0.22 for row in found.rows)


def test_what_is_asked_for_is_known_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []

    def keyed(model: ModelProto, seed: int) -> ModelProto:
        asked.append((model.producer_name, int(model.producer_version), seed))
        return model

    Fixed(monkeypatch, lambda model: np.eye(17)[int(family_of(model))])
    classify(keyed, options=LEAST)
    known = [(family, number, seed) for family, number, seeds in networks(LEAST) for seed in seeds]
    assert asked == known
    assert len(known) == 200


@pytest.mark.parametrize(
    "options",
    [
        {"families": ("mlp", "plain")},
        {"families": (*tuple(FAMILIES)[:10], "none")},
        {"variants": 9},
        {"folds": 1},
        {"keys": 0},
        {"size": "huge"},
    ],
)
def test_too_little_to_learn_from_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="E824"):
        ClassifierOptions(**options)  # type: ignore[arg-type]


def test_an_obfuscator_that_fails_is_named() -> None:
    def fails(model: ModelProto, seed: int) -> ModelProto:
        raise ValueError("no such operator")

    with pytest.raises(ConfigError, match="E824.*no such operator"):
        classify(fails, options=LEAST)


@pytest.mark.slow
def test_clean_graphs_are_told_apart_and_renaming_hides_nothing() -> None:
    found = classify(disguises.renamed, options=ClassifierOptions(keys=1))
    assert found.row("clean").accuracy > 0.95
    assert found.row("naive").accuracy == found.row("clean").accuracy
    assert found.row("adaptive").accuracy > 0.95
