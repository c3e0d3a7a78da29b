"""The alignment attack finds what permutations, scales and signs hide, and guesses where there is nothing to find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

import disguises
from vambrace.assets.obfuscate.measure.alignment import align
from vambrace.assets.obfuscate.measure.families import variant
from vambrace.assets.obfuscate.measure.layers import read_layers
from vambrace.assets.obfuscate.measure.runtime import load

LAYERS = disguises.weights(widths=(6, 48, 40, 48, 10))
ORIGINAL = disguises.dense(LAYERS)


def weights_of(model: ModelProto, change: Callable[[np.ndarray], np.ndarray]) -> ModelProto:
    copy = ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and array.size > 1:
            tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), tensor.name))
    return copy


def elements_mixed(model: ModelProto, seed: int = 0) -> ModelProto:
    rng = np.random.default_rng(seed)

    def change(array: np.ndarray) -> np.ndarray:
        return (array.reshape(-1)[rng.permutation(array.size)] * rng.choice([-1, 1], array.size)).reshape(array.shape)

    return weights_of(model, change)


def drawn_anew(model: ModelProto, seed: int = 0) -> ModelProto:
    rng = np.random.default_rng(1000 + seed)  # not the seed of the weights, which would only be scaled
    return weights_of(model, lambda array: rng.normal(size=array.shape) * array.std())


@pytest.mark.parametrize("family", ["resnet_basic", "mobilenet", "autoencoder", "transformer", "recurrent", "unet"])
def test_a_model_beside_itself_is_found_whole(family: str) -> None:
    model = variant(family, 2)
    found = align(model, disguises.renamed(model))
    assert found.share == 1.0
    assert found.values == 1.0
    assert all((each.by_weights == np.arange(each.channels)).all() for each in found.layers)


@pytest.mark.parametrize("masked", [(3,), (0, 7), range(10)])
def test_a_masked_class_is_no_end(masked: Sequence[int]) -> None:
    """A bias of -inf, so that a class is never the answer, ended in an error of scipy."""
    model = disguises.dense(LAYERS)
    bias = next(each for each in reversed(model.graph.initializer) if list(each.dims) == [10])
    array = numpy_helper.to_array(bias).copy()
    array[list(masked)] = -np.inf
    bias.CopyFrom(numpy_helper.from_array(array, bias.name))
    found = align(model, disguises.renamed(model))
    assert found.share == 1.0
    assert all((each.by_weights == np.arange(each.channels)).all() for each in found.layers)


@pytest.mark.parametrize("signs", [False, True])
def test_permutations_powers_of_two_and_signs_are_seen_through(signs: bool) -> None:
    hidden, orders = disguises.gauged(LAYERS, signs=signs)
    found = align(ORIGINAL, disguises.renamed(disguises.dense(hidden)))
    assert found.share == 1.0
    assert not found.told
    for each, order in zip(found.layers, orders, strict=True):
        assert (each.by_weights == order).all()
        assert (each.by_vectors == order).all()
    assert found.values == 1.0


def test_scales_that_are_no_powers_of_two_are_seen_through_by_weights() -> None:
    rng = np.random.default_rng(5)
    scale = rng.uniform(0.1, 10, 48).astype(np.float32)
    hidden = [(weight.copy(), bias.copy()) for weight, bias in LAYERS]
    order = rng.permutation(48)
    hidden[0] = (hidden[0][0][order] * scale[:, None], hidden[0][1][order] * scale)
    hidden[1] = (hidden[1][0][:, order] / scale[None], hidden[1][1])
    found = align(ORIGINAL, disguises.dense(hidden))
    assert found.share == 1.0
    assert (found.layers[0].by_weights == order).all()
    assert found.values < 0.6


def test_convolutions_of_one_shape_are_told_apart_by_their_weights() -> None:
    model = variant("resnet_basic", 4)
    names = [tensor.name for tensor in model.graph.initializer]
    new = dict(zip(names, np.random.default_rng(0).permutation(names), strict=True))
    found = align(model, disguises.renamed(model, 8))
    assert len({layer.signature for layer in read_layers(model)}) < len(found.layers)
    assert len({each.other for each in found.layers}) == len(found.layers)
    assert new


def test_random_weights_are_guessed() -> None:
    truth = align(ORIGINAL, ORIGINAL)
    alone = align(ORIGINAL, drawn_anew(ORIGINAL))
    assert alone.share == 0.0
    shares = [align(ORIGINAL, drawn_anew(ORIGINAL, seed), truth=truth) for seed in range(12)]
    mean = float(np.mean([found.share or 0.0 for found in shares]))
    # Two attacks and the better one counted: between chance and twice chance, in the mean over 12 draws.
    assert 0.3 * shares[0].chance < mean < 3 * shares[0].chance
    assert shares[0].chance == pytest.approx(4 / 146)
    assert shares[0].values < 0.05


def test_a_locked_file_is_guessed_and_still_the_originals_by_value() -> None:
    truth = align(ORIGINAL, ORIGINAL)
    found = align(ORIGINAL, elements_mixed(ORIGINAL), truth=truth)
    assert found.told
    assert found.share is not None
    assert found.share < found.chance + 0.05
    assert found.values == 1.0


def test_truth_follows_a_permuted_model_to_its_locked_file() -> None:
    """Unlocked, the file is a permutation of the original; a lock that left rows whole would be found out."""
    hidden, _ = disguises.gauged(LAYERS)
    unlocked = disguises.dense(hidden)
    truth = align(ORIGINAL, unlocked)
    assert align(ORIGINAL, unlocked, truth=truth).share == 1.0
    rows = [(weight * -1, bias) for weight, bias in hidden]
    assert align(ORIGINAL, disguises.dense(rows), truth=truth).share == 1.0
    assert (align(ORIGINAL, elements_mixed(unlocked), truth=truth).share or 0.0) < 0.1


def test_biases_left_in_clear_give_a_lock_away() -> None:
    truth = align(ORIGINAL, ORIGINAL)
    half = [(weight, bias) for (weight, _), (_, bias) in zip(disguises.locked(LAYERS), LAYERS, strict=True)]
    assert align(ORIGINAL, disguises.dense(half), truth=truth).share == 1.0


def test_layers_that_are_not_there_are_not_found() -> None:
    found = align(ORIGINAL, disguises.dense(LAYERS[:2]))
    assert [bool(each.other) for each in found.layers] == [True, True, False, False]
    assert found.share == pytest.approx(88 / 146)


def test_layers_in_every_form() -> None:
    rng = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> object:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "grouped"], ["a"], group=2),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"]),
        helper.make_node("Gemm", ["c", "gemm", "bias"], ["d"]),
        helper.make_node("MatMul", ["d", "right"], ["e"]),
        helper.make_node("MatMul", ["left", "e"], ["f"]),
        helper.make_node("LSTM", ["g", "w", "r"], ["h"], hidden_size=5),
    ]
    tensors = [
        tensor("grouped", 8, 3, 3, 3),
        tensor("up", 8, 4, 2, 2),
        tensor("gemm", 6, 7),
        tensor("bias", 7),
        tensor("right", 7, 9),
        tensor("left", 3, 11),
        tensor("w", 2, 20, 4),
        tensor("r", 2, 20, 5),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], tensors))  # type: ignore[arg-type]
    shapes = [(each.operator, each.weights.shape, each.groups) for each in read_layers(model)]
    assert shapes == [
        ("Conv", (8, 3, 9), 2),
        ("ConvTranspose", (4, 8, 4), 1),
        ("Gemm", (7, 6, 1), 1),
        ("MatMul", (9, 7, 1), 1),
        ("MatMul", (3, 11, 1), 1),
        ("LSTM", (10, 4, 4), 1),
    ]
    assert read_layers(model)[2].vector is not None
    gates = numpy_helper.to_array(tensors[6])  # type: ignore[arg-type]
    assert np.array_equal(read_layers(model)[5].weights[5 + 2, :, 3], gates[1, 3 * 5 + 2].astype(np.float64))
    left = numpy_helper.to_array(tensors[5])  # type: ignore[arg-type]
    assert np.array_equal(read_layers(model)[4].weights[:, :, 0], left.astype(np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_resnet2b.onnx", "mnist_fc_256x2.onnx", "locators/yunet_n_dynamic.onnx"])
def test_real_networks(shared: Path, name: str) -> None:
    model = load(shared / "models" / name)
    truth = align(model, model)
    assert truth.share == 1.0
    for other in (drawn_anew(model), elements_mixed(model)):
        found = align(model, other, truth=truth)
        assert found.share is not None
        assert found.share < found.chance + 0.05


def test_biases_that_tell_nothing_are_guessed_whatever_the_order_of_the_file() -> None:
    """Of matchings at the same distance the one in the order of the file came out: the truth, where none has moved."""
    rng = np.random.default_rng(0)
    near, far = (lambda array, low=low: low + 0.05 * rng.random(array.shape) for low in (0.5, 0.9))
    original = weights_of(disguises.dense(disguises.weights(widths=(9, 5))), near)
    truth = align(original, original)
    same = [align(original, weights_of(original, far), truth=truth).layers[0].by_vectors for _ in range(300)]
    hits = (np.stack(same) == np.arange(5)).sum(axis=1)
    assert abs(hits.mean() - 1) < 4 / np.sqrt(300)  # of a permutation one place is right on average, of variance 1
