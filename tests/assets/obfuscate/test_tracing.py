"""A copy that leaked names its customer, whatever was done to its names; other models name nobody."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import set_external_data
from scipy.stats import binom

from exact_nets import LEVELS, SIZE, Builder, random_net
from onnx_nets import net
from vambrace.assets.obfuscate import tracing
from vambrace.assets.obfuscate.keyinput import lock_by_input
from vambrace.assets.obfuscate.lock_entry import ENTRY
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.permutation import Permutation
from vambrace.assets.obfuscate.passes.predicates import Predicates
from vambrace.assets.obfuscate.passes.scaling import Scaling
from vambrace.assets.obfuscate.pipeline import Obfuscated, onnx_model
from vambrace.assets.obfuscate.record import Entry, ObfuscationMap
from vambrace.assets.obfuscate.tracing import trace
from vambrace.errors import ArtifactRefused, ConfigError, ModelRefused

OWNER = bytes(range(32))
CUSTOMERS = ("acme", "bolt", "corp", "dune")
PASSES = (
    Permutation(share=0.5, slowdown=1e9),
    Scaling(reach=8),
    "signs",
    Predicates(share=0.5, growth=9, slowdown=1e9),
    *("order", "metadata", "names"),
)


def network(activation: str = "Relu") -> onnx.ModelProto:
    b = Builder(0)
    x = "image"
    for taken, given in ((3, 24), (24, 16), (16, 32)):
        x = b.add(activation, b.batch_norm(b.conv(x, taken, given), given))
    return b.model({b.conv(x, 32, 4): (2, 4, SIZE, SIZE)})


@pytest.fixture(scope="module")
def copies() -> dict[str, Obfuscated]:
    return {name: onnx_model(network(), passes=PASSES, seed=OWNER, customer=name) for name in CUSTOMERS}


@pytest.fixture(scope="module")
def maps(copies: dict[str, Obfuscated]) -> list[ObfuscationMap]:
    return [copy.map for copy in copies.values()]


def test_every_copy_names_its_customer_alone(copies: dict[str, Obfuscated], maps: list[ObfuscationMap]) -> None:
    for name, copy in copies.items():
        first, *others = trace(copy.model, maps)
        assert first.customer == name
        # Channels whose slopes would show only in a fused kernel are counted and not found.
        assert first.scaled >= first.channels // 2 > 50
        assert first.arranged == first.arrangements > 2
        assert first.log10_chance < -60
        assert all(other.log10_chance > -3 for other in others)


def test_names_order_and_metadata_do_not_matter(copies: dict[str, Obfuscated], maps: list[ObfuscationMap]) -> None:
    again = onnx_model(copies["corp"].model, passes=["order", "metadata", "names"], seed=9).model
    assert trace(again, maps)[0] == trace(copies["corp"].model, maps)[0]


@pytest.mark.parametrize("level", LEVELS[1:], ids=lambda level: level.name)
def test_an_optimised_copy_names_its_customer(
    copies: dict[str, Obfuscated], maps: list[ObfuscationMap], level: object, tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    source = copies["bolt"].model.SerializeToString()
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    first, *others = trace(tmp_path / "optimised.onnx", maps)
    assert first.customer == "bolt"
    assert first.log10_chance < -9
    assert all(other.log10_chance > -3 for other in others)


def test_a_fine_tuned_copy_names_its_customer(copies: dict[str, Obfuscated], maps: list[ObfuscationMap]) -> None:
    net = Net(copies["dune"].model)
    rng = np.random.default_rng(0)
    for graph in net.graphs():
        for name, array in graph.initialisers.items():
            if array.dtype == np.float32:
                noise = 1 + 0.05 * rng.standard_normal(array.shape)
                graph.initialisers[name] = (array * noise).astype(np.float32)
    first = trace(net.model(), maps)[0]
    assert first.customer == "dune"
    assert first.log10_chance < -30


def test_the_original_and_copies_of_others_name_nobody(maps: list[ObfuscationMap]) -> None:
    strangers = [network(), random_net(0), onnx_model(network(), passes=PASSES, seed=OWNER, customer="else").model]
    for stranger in strangers:
        assert all(match.log10_chance > -3 for match in trace(stranger, maps))


def test_chances_are_not_understated() -> None:
    """Among 100 innocent copies, a chance of 1 in 10 is claimed for no more than 1 in 10 (and some)."""
    model = network()
    suspect = onnx_model(model, passes=["scaling"], seed=OWNER, customer="suspect").map
    claims = [
        trace(onnx_model(model, passes=["scaling"], seed=OWNER, customer=f"c{number}").model, [suspect])[0].log10_chance
        for number in range(100)
    ]
    for level in (-1, -2):
        claimed = sum(claim <= level for claim in claims)
        assert claimed <= binom.isf(1e-4, 100, 10.0**level)


def test_channels_of_zeros_accuse_nobody() -> None:
    """As pruning leaves them: they are the same in all copies, whatever their factors, and in the original."""
    b = Builder(0)
    x = "image"
    for taken, given in ((3, 48), (48, 48)):
        x = b.add("Relu", b.conv(x, taken, given))
    model = b.model({b.conv(x, 48, 4): (2, 4, SIZE, SIZE)})
    for tensor in model.graph.initializer:
        weights = onnx.numpy_helper.to_array(tensor).copy()
        if weights.ndim > 1:
            weights[: 3 * len(weights) // 4] = 0.0
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    made = {name: onnx_model(model, passes=["scaling"], seed=OWNER, customer=name) for name in CUSTOMERS}
    suspects = [each.map for each in made.values()]
    others = [onnx_model(model, passes=["scaling"], seed=OWNER, customer=f"c{number}").model for number in range(4)]
    assert all(match.log10_chance > -3 for other in (model, *others) for match in trace(other, suspects))
    first = trace(made["bolt"].model, suspects)[0]
    assert (first.customer, first.scaled) == ("bolt", 24)
    assert first.log10_chance < -9


def test_a_channel_is_marked_where_it_is_not_zero() -> None:
    """Layers that are added share their factors: where one of them is pruned, the other one tells."""
    b = Builder(0)
    kernel = b.normal(40, 3, 3, 3)
    kernel[:30] = 0.0
    pruned = b.add("Conv", "image", b.weight(kernel), b.weight(b.normal(40)), pads=[1] * 4)
    x = b.add("Relu", b.add("Add", pruned, b.conv("image", 3, 40)))
    made = onnx_model(b.model({b.conv(x, 40, 4): (2, 4, SIZE, SIZE)}), passes=["scaling"], seed=OWNER, customer="acme")
    assert [len(mark["rows"]) for mark in made.map.passes[0].marks] == [10, 30]
    (found,) = trace(made.model, [made.map])
    assert (found.scaled, found.channels) == (40, 40)


def test_channels_of_zeros_in_older_maps_do_not_count() -> None:
    weights = np.zeros((32, 5), np.float32)
    weights[:2] = 1.0
    mark = tracing.scale_mark(weights, 0, np.arange(32), 8)
    entry = Entry(name="scaling", options={}, eligible=32, done=32, left={}, record=None, marks=(mark,))
    old = ObfuscationMap(profile="exact", customer="acme", original="", obfuscated="", passes=(entry,))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 32])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 5])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    (found,) = trace(onnx.helper.make_model(graph), [old])
    assert (found.scaled, found.channels) == (2, 2)


def test_without_scales_arrangements_still_tell() -> None:
    made = {name: onnx_model(network("HardSwish"), passes=PASSES, seed=OWNER, customer=name) for name in CUSTOMERS}
    first, *others = trace(made["acme"].model, [each.map for each in made.values()])
    assert first.customer == "acme"
    assert first.arranged > 2
    assert first.log10_chance < -20
    assert all(other.log10_chance > -3 for other in others)


def test_a_lost_map_can_be_made_again(copies: dict[str, Obfuscated]) -> None:
    again = onnx_model(network(), passes=PASSES, seed=OWNER, customer="acme")
    assert again.map.to_bytes() == copies["acme"].map.to_bytes()


def test_the_bound_lies_above_the_tail() -> None:
    for found, total, chance in ((30, 100, 1 / 9), (100, 100, 1 / 9), (12, 100, 1 / 9), (5, 100, 1 / 9), (3, 3, 0.5)):
        bound = math.exp(tracing._log_tail(found, total, chance))
        assert bound >= binom.sf(found - 1, total, chance) * (1 - 1e-9)
    assert tracing._log_tail(5, 100, 1 / 9) == 0


@pytest.mark.parametrize(("rows", "agreeing"), [(2, True), (4, False)])
def test_weak_scales_do_not_outweigh_an_arrangement(rows: int, agreeing: bool) -> None:
    """Few channels each in many arrays of one shape cost more than they tell: deep copies could not be traced."""
    draw = np.random.default_rng(0)
    weights = {f"w{at}": draw.standard_normal((20, 20)).astype(np.float32) for at in range(40)}
    steps = " ".join(f"b{at + 1} = MatMul (b{at}, w{at})" for at in range(40))
    model = net(
        f"(float[n,20] x) => (float[n,20] y) {{ b0 = Identity (x) {steps} y = Identity (b40) }}", weights=weights
    )
    order = tracing.arrangement_mark(weights["w7"], [20])
    scales = [tracing.scale_mark(array, 0, np.arange(rows), 2) for array in weights.values()]
    if not agreeing:
        scales = [{**mark, "peaks": [peak + 99 for peak in mark["peaks"]]} for mark in scales]
    whole = onnx_model(model, passes=["scaling"], seed=OWNER, customer="acme").map
    alone, both = (
        dataclasses.replace(whole, passes=(dataclasses.replace(whole.passes[0], marks=marks),))
        for marks in ((order,), (order, *scales))
    )
    (without,), (found,) = trace(model, [alone]), trace(model, [both])
    assert without.log10_chance < -15
    assert found.log10_chance <= without.log10_chance + math.log10(2) + 1e-9
    assert found.channels == (0 if rows == 2 else 160)


def test_more_arrays_to_choose_from_make_a_match_weaker() -> None:
    done = onnx_model(network(), passes=["scaling"], seed=OWNER, customer="acme")
    (before,) = trace(done.model, [done.map])
    net = Net(done.model)
    kernel = next(array for array in net.graph.initialisers.values() if array.shape == (4, 32, 3, 3))
    marked = [mark for mark in done.map.passes[0].marks if mark["shape"] == [24, 3, 3, 3]]
    for number in range(99):
        net.graph.initialisers[f"more{number}"] = np.resize(kernel, (24, 3, 3, 3))
    (after,) = trace(net.model(), [done.map])
    assert after.scaled == before.scaled
    assert after.log10_chance == pytest.approx(before.log10_chance + 2 * len(marked))
    (among,) = (match for match in trace(done.model, [done.map] * 10)[:1])
    assert among.log10_chance == pytest.approx(before.log10_chance + 1)


def test_no_candidates_are_refused() -> None:
    with pytest.raises(ConfigError, match="E805"):
        trace(network(), [])


@pytest.mark.parametrize("kind", ["scale", "arrangement"])
def test_marks_that_cannot_be_read_are_refused(copies: dict[str, Obfuscated], kind: str) -> None:
    """A KeyError came out, or an IndexError, or a mark counted for what it does not say."""
    copy = copies["acme"]
    mark = next(mark for entry in copy.map.passes for mark in entry.marks if mark["kind"] == kind)
    wrong: list[object] = [None, {}, [], "mark", {"kind": kind}, mark | {"kind": "other"}]
    wrong += [{key: value for key, value in mark.items() if key != name} for name in mark]
    wrong += [mark | {name: value} for name in mark for value in (None, "1", {}, ["1"], [1.5], -1, 2**70, [2**70])]
    if kind == "scale":
        rows = mark["rows"]
        wrong += [mark | {"rows": rows[:-1]}, mark | {"rows": [*rows[:-1], mark["shape"][0] + 999]}]
        wrong += [mark | {"axis": 9}, mark | {"shape": mark["shape"][:1]}]
    for each in wrong:
        entry = dataclasses.replace(copy.map.passes[0], marks=(mark, each))
        edited = dataclasses.replace(copy.map, passes=(entry,))
        with pytest.raises(ArtifactRefused, match="E803: .*mark that cannot be read"):
            trace(copy.model, [copy.map, edited])


@pytest.fixture(scope="module")
def scaled() -> dict[str, Obfuscated]:
    """Copies that only weights tell apart."""
    passes = ("scaling", "signs", "order", "names")
    return {name: onnx_model(network(), passes=passes, seed=OWNER, customer=name) for name in CUSTOMERS}


def test_a_locked_copy_has_to_be_unlocked(scaled: dict[str, Obfuscated]) -> None:
    """Else it would be taken for nobody's."""
    maps = [copy.map for copy in scaled.values()]
    locked = lock(scaled["bolt"].model, bytes(32))
    with pytest.raises(ModelRefused, match="E855: a locked model.*no copy shows.*obfuscate.unlock") as refused:
        trace(locked, maps)
    assert "--key-file" in refused.value.fix
    assert trace(unlock(locked, bytes(32)), maps)[0].customer == "bolt"
    wrong = trace(unlock(locked, bytes([1]) * 32), maps)
    assert wrong[0].log10_chance > tracing.SURE


def test_a_copy_that_takes_a_key_hides_whose_it_is(scaled: dict[str, Obfuscated]) -> None:
    taking = lock_by_input(scaled["acme"].model, bytes(32), share=1.0, slowdown=9.0)
    with pytest.raises(ModelRefused, match="E855: a model that takes a key.*salt in its metadata entry"):
        trace(taking, [copy.map for copy in scaled.values()])


def test_an_entry_alone_hides_nothing(copies: dict[str, Obfuscated], maps: list[ObfuscationMap]) -> None:
    """Whoever passes a copy on can write it; and arrangements show in a locked copy, too."""
    model = onnx.ModelProto()
    model.CopyFrom(copies["corp"].model)
    model.metadata_props.add(key=ENTRY, value="{}")
    assert trace(model, maps)[0].customer == "corp"
    assert trace(lock(copies["dune"].model, bytes(32)), maps)[0].customer == "dune"


@pytest.mark.parametrize("thing", [7, None, "outside"])
def test_what_is_no_model_is_refused(thing: object, maps: list[ObfuscationMap]) -> None:
    """An AttributeError of Python came out, and weights that were not there were none."""
    if thing == "outside":
        thing = helper.make_model(helper.make_graph([], "net", [], [], [numpy_helper.from_array(np.ones(3), "w")]))
        set_external_data(thing.graph.initializer[0], "beside.bin")
        thing.graph.initializer[0].ClearField("raw_data")
    with pytest.raises(ConfigError, match="E801"):
        trace(thing, maps)


def test_files_that_cannot_be_read_are_refused(maps: list[ObfuscationMap], tmp_path: Path) -> None:
    for place in (tmp_path / "none.onnx", tmp_path, "null\0byte"):
        with pytest.raises(ModelRefused, match="E200"):
            trace(place, maps)
