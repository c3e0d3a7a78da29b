"""The whole way: passes in order, seeds, the map, and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exact_nets import Builder, differences, images, random_net
from onnx_nets import answers, apart, residual
from vambrace.assets.obfuscate.keyinput import lock_by_input
from vambrace.assets.obfuscate.locked import load_model
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes import pass_class, pass_names, profile_names
from vambrace.assets.obfuscate.passes.order import Order
from vambrace.assets.obfuscate.passes.scaling import Scaling
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.assets.obfuscate.record import ObfuscationMap, model_digest
from vambrace.assets.obfuscate.tracing import trace
from vambrace.core import canonical
from vambrace.errors import ArtifactRefused, ConfigError, ModelRefused, VambraceError

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return random_net(3)


def test_the_exact_profile_is_equal_and_can_be_undone(net: onnx.ModelProto) -> None:
    before = net.SerializeToString()
    done = onnx_model(net, seed=1, ratio="large")
    assert net.SerializeToString() == before
    assert [entry.name for entry in done.map.passes] == list(profile_names("exact"))
    assert differences(net, done.model, images(0)) == []
    undone = undo(done.model, done.map)
    assert undone.model == net
    assert undone.kept == ()
    assert done.map.original == model_digest(net)
    assert done.map.obfuscated == model_digest(done.model)


def test_with_passes_that_cannot_be_undone_only_the_model_that_was_made_is_led_back() -> None:
    """What comes out is not the original, so nothing else would show that the key was wrong, or the file another."""
    model = residual()
    done = onnx_model(model, profile="tolerance", passes=["fold_norms", "order", "names"], seed=1)
    undone = undo(done.model, done.map)
    assert undone.kept == ("fold_norms",)
    assert apart(answers(model), answers(undone.model)) < 1e-5
    locked = lock(done.model, KEY)
    assert undo(unlock(locked, KEY), done.map).model == undone.model
    for other in (unlock(locked, bytes(32)), undone.model):
        with pytest.raises(ArtifactRefused, match="E804"):
            undo(other, done.map)


def test_a_seed_repeats_the_work_and_none_does_not(net: onnx.ModelProto) -> None:
    first, again, other = (onnx_model(net, seed=seed) for seed in (5, 5, 6))
    assert first.model == again.model
    assert first.map.to_bytes() == again.map.to_bytes()
    assert first.model != other.model
    assert onnx_model(net).model != onnx_model(net).model


def test_sources(net: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(net, tmp_path / "net.onnx")
    sources = (net, net.SerializeToString(), tmp_path / "net.onnx", str(tmp_path / "net.onnx"))
    assert len({onnx_model(source, seed=1).map.obfuscated for source in sources}) == 1


def test_passes_can_be_chosen(net: onnx.ModelProto) -> None:
    done = onnx_model(net, passes=["scaling", Order()], seed=1)
    assert [entry.name for entry in done.map.passes] == ["scaling", "order"]
    assert onnx_model(net, passes=[], seed=1).model == net
    reach = onnx_model(net, passes=[Scaling(reach=1)], seed=1).map.passes[0]
    assert reach.options == {"reach": 1}
    assert set(reach.record["powers"]) == {0, -1}


def test_ratios_reach_the_passes_that_leave_their_share_open(net: onnx.ModelProto) -> None:
    shares = {"small": 0.1, "medium": 0.3, "large": 0.6}
    ratio: Literal["small", "medium", "large"]
    for ratio in ("small", "medium", "large"):
        entry = onnx_model(net, passes=["permutation"], ratio=ratio, seed=1).map.passes[0]
        assert entry.options["share"] == shares[ratio]
    own = pass_class("permutation")(share=1.0, slowdown=1e9)  # type: ignore[call-arg]
    entry = onnx_model(net, passes=[own], ratio="small", seed=1).map.passes[0]
    assert entry.done == entry.eligible > 1


def test_every_pass_has_its_name_and_profile() -> None:
    assert {"metadata", "names", "order", "permutation", "predicates", "scaling", "signs"} <= set(pass_names())
    for name in profile_names("exact"):
        assert pass_class(name).name == name
        assert pass_class(name).profile == "exact"


def test_what_there_is_not_is_refused(net: onnx.ModelProto) -> None:
    for wrong in ({"profile": "best"}, {"passes": ["rename"]}, {"ratio": "huge"}):
        with pytest.raises(ConfigError, match="E802"):
            onnx_model(net, seed=1, **wrong)
    tolerant = [name for name in pass_names() if pass_class(name).profile == "tolerance"]
    for name in tolerant:
        with pytest.raises(ConfigError, match="E802"):
            onnx_model(net, passes=[name], seed=1)


def test_a_lock_is_not_stripped(net: onnx.ModelProto) -> None:
    for locked in (lock(net, bytes(32)), lock_by_input(net, bytes(32))):
        with pytest.raises(ModelRefused, match="E855"):
            onnx_model(locked)


def test_customers_need_the_owners_key(net: onnx.ModelProto) -> None:
    copies = {customer: onnx_model(net, seed=KEY, customer=customer) for customer in ("acme", "bolt")}
    assert copies["acme"].map.obfuscated != copies["bolt"].map.obfuscated
    assert copies["acme"].map.customer == "acme"
    for seed in (None, 3, b"short"):
        with pytest.raises(ConfigError, match="E800"):
            onnx_model(net, seed=seed, customer="acme")


def test_maps_travel_as_bytes(net: onnx.ModelProto) -> None:
    done = onnx_model(net, seed=1)
    read = ObfuscationMap.from_bytes(done.map.to_bytes())
    assert read.to_bytes() == done.map.to_bytes()
    assert undo(done.model.SerializeToString(), read).model == net


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data.replace(b"map/1", b"map/2"),
        lambda data: data.replace(b'"left"', b'"gone"'),
        lambda data: b"[" * 100_000,
        lambda data: b"[]",
        lambda data: b"\xff",
    ],
)
def test_other_bytes_are_no_map(net: onnx.ModelProto, change: object) -> None:
    data = onnx_model(net, passes=["order"], seed=1).map.to_bytes()
    with pytest.raises(ArtifactRefused, match="E803"):
        ObfuscationMap.from_bytes(change(data))  # type: ignore[operator]


def _edited(value: Any, rng: np.random.Generator) -> Any:
    """JSON with one leaf or branch replaced by something of another kind."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = sorted(value)[int(rng.integers(len(value)))]
        return value | {name: _edited(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = int(rng.integers(len(value)))
        return [*value[:at], _edited(value[at], rng), *value[at + 1 :]]
    others: list[Any] = [0, -1, 10**9, 0.5, "", "AAAA", None, [], {}, [[]], {"a": 1}, True]
    return others[int(rng.integers(len(others)))]


def test_maps_that_were_edited_are_refused(net: onnx.ModelProto) -> None:
    """A stranger can seal one for a public key; they ended in errors of Python, of fourteen kinds."""
    made = onnx_model(net, profile="tolerance", seed=1, ratio="medium")
    known = json.loads(made.map.to_bytes())
    rng, refused = np.random.default_rng(0), 0
    for _ in range(150):
        changed = known | {"passes": _edited(known["passes"], rng)}
        try:
            undo(made.model, ObfuscationMap.from_bytes(canonical.dumps(changed)))
        except VambraceError:
            refused += 1
    assert refused > 75


def test_a_ratio_is_the_share_of_places_that_is_taken() -> None:
    """An estimate of time left out all but a few at any ratio: files were the same byte for byte."""
    b = Builder(0)
    x = b.add("Relu", b.conv("image", 3, 64))
    for _ in range(9):
        x = b.add("Relu", b.conv(x, 64, 64))
    model = b.model({x: (1, 64, 12, 12)}, shape=(1, 3, 12, 12))
    done: dict[str | None, dict[str, int]] = {}
    given = images(0, (1, 3, 12, 12))
    for ratio in (None, "small", "medium", "large"):
        made = onnx_model(model, ratio=ratio, seed=3)
        done[ratio] = {entry.name: entry.done for entry in made.map.passes}
        assert undo(made.model, made.map).model == model
        assert not differences(model, made.model, given)
    assert [done[ratio]["permutation"] for ratio in ("small", "medium", "large")] == [1, 3, 6]
    assert all(done[ratio]["predicates"] for ratio in ("small", "medium", "large"))  # as far as the file may grow
    assert done[None]["permutation"] <= 1


@pytest.mark.parametrize("thing", [None, "net.map", b"{}"])
def test_what_is_no_map_is_named(net: onnx.ModelProto, thing: Any) -> None:
    """An AttributeError of Python came out."""
    for use in (lambda: undo(net, thing), lambda: trace(net, [thing])):
        with pytest.raises(ArtifactRefused, match=f"E803: a {type(thing).__name__} in place of"):
            use()


def test_the_map_of_another_copy_is_refused(net: onnx.ModelProto) -> None:
    one = onnx_model(net, seed=1)
    for other in (onnx_model(random_net(4), seed=1), onnx_model(random_net(6), seed=2)):
        with pytest.raises(ArtifactRefused, match="E804"):
            undo(one.model, other.map)


def test_a_locked_model_goes_with_its_map_once_it_is_unlocked(net: onnx.ModelProto) -> None:
    """The map is its own, so nobody should be sent to look for another."""
    done = onnx_model(net, seed=1, passes=[name for name in profile_names("exact") if name != "phantoms"])
    locked = lock(done.model, KEY)
    with pytest.raises(ModelRefused, match=r"E855: a locked model.*obfuscate\.unlock") as refused:
        undo(locked, done.map)
    assert "--key-file KEY to `vambrace restore`" in refused.value.fix
    assert undo(unlock(locked, KEY), done.map).model == net
    with pytest.raises(ModelRefused, match="E855: a model that takes a key as an input.*no way back"):
        undo(lock_by_input(done.model, KEY), done.map)


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    done = onnx_model(random_net(3), passes=["names"], seed=1)
    for place in (tmp_path / "none.onnx", str(tmp_path / "none.onnx"), tmp_path, "null\0byte"):
        for use in (
            onnx_model,
            lambda place: undo(place, done.map),
            lambda place: lock(place, KEY),
            lambda place: load_model(place, key=KEY),
        ):
            with pytest.raises(ModelRefused, match="E200: .*; expected a readable model file. Fix: check the path"):
                use(place)


@pytest.mark.parametrize("budget", [0.0, -1.0, math.nan, math.inf])
def test_a_budget_is_looked_at_before_anything_else(budget: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E839"):
        onnx_model(tmp_path / "none.onnx", budget=budget, inputs=np.zeros((3, 9)))


def test_a_map_that_fits_but_for_the_numbers_is_refused(net: onnx.ModelProto) -> None:
    one, other = (onnx_model(net, passes=["scaling"], seed=seed) for seed in (1, 2))
    with pytest.raises(ArtifactRefused, match="E804"):
        undo(one.model, other.map)


def test_a_map_is_a_secret_that_is_not_shown(net: onnx.ModelProto) -> None:
    done = onnx_model(net, seed=1)
    assert "powers" not in repr(done.map)
    assert net.graph.node[0].output[0] not in repr(done.map)


def test_a_model_without_any_place_is_left_alone() -> None:
    b = Builder(0)
    model = b.model({b.add("Softmax", "image"): (2, 3, 12, 12)})
    done = onnx_model(model, passes=["permutation", "scaling", "signs", "predicates"], seed=1)
    assert done.model == model
    assert [entry.done for entry in done.map.passes] == [0, 0, 0, 0]
    assert Net(model).model() == model


def test_nodes_whose_first_output_is_left_out_come_back() -> None:
    """Of a recurrent layer the last state alone may be used."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[t, b, 3] x) => (float[1, b, 4] y) {
            a, last = LSTM <hidden_size = 4> (x, w, r)
            b, other = LSTM <hidden_size = 4> (x, v, r)
            y = Add (last, other)
        }"""
    )
    for node in model.graph.node[:2]:
        node.output[0] = ""
        node.doc_string = f"layer of {node.output[1]}"
    rng = np.random.default_rng(0)
    for name, sizes in {"w": (1, 16, 3), "v": (1, 16, 3), "r": (1, 16, 4)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(sizes).astype(np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    done = onnx_model(model, seed=1)
    assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)
