"""What locked files do without their key."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_nets import net
from vambrace.assets.obfuscate import locking
from vambrace.assets.obfuscate.keyinput import lock_by_input
from vambrace.assets.obfuscate.locking import lock
from vambrace.assets.obfuscate.measure import keyless
from vambrace.assets.obfuscate.measure.gates import Gates, Judged
from vambrace.assets.obfuscate.measure.inputs import Rows, read_rows
from vambrace.assets.obfuscate.measure.judging import judge_keyless
from vambrace.assets.obfuscate.measure.keyless import Keyless, KeylessOptions, KeylessOutput, try_without_key
from vambrace.assets.obfuscate.measure.runtime import Network
from vambrace.core import canonical
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError

KEY = bytes(range(32))
LAYERS: dict[str, Any] = {"v": (16, 64), "w": (64, 5)}
CLASSES = "(float[n,16] x) => (float[n,5] y) { a = MatMul (x, v) b = Relu (a) y = MatMul (b, w) }"
NUMBERS = "(float[n,16] x) => (float[n,1] y) { a = MatMul (x, v) b = Tanh (a) y = MatMul (b, w) }"


@pytest.fixture(autouse=True)
def _same_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw in twenty of a lock of sixteen weights is like the original by luck."""
    monkeypatch.setattr(locking.secrets, "token_hex", lambda size: "5a" * size)


def classes() -> onnx.ModelProto:
    return net(CLASSES, weights=LAYERS)


def numbers() -> onnx.ModelProto:
    return net(NUMBERS, weights={"v": (16, 64), "w": (64, 1)})


def rows(model: onnx.ModelProto, count: int = 100) -> Rows:
    return read_rows(np.random.default_rng(0).standard_normal((count, 16)).astype(np.float32), Network(model))


def found(model: onnx.ModelProto, locked: onnx.ModelProto, **given: Any) -> Keyless:
    return try_without_key(model, locked, rows(model), rng=Streams(0), **given)


def judged(each: Keyless | None) -> Judged:
    (one,) = judge_keyless(each, Gates())
    return one


def open_but_locked(model: onnx.ModelProto) -> onnx.ModelProto:
    """A file with a lock of ours and the original's function: only a weight that does nothing was locked."""
    padded = onnx.ModelProto()
    padded.CopyFrom(model)
    padded.graph.initializer.append(numpy_helper.from_array(np.ones((16, 16), np.float32), "decoy"))
    padded.graph.node.append(helper.make_node("MatMul", ["x", "decoy"], ["aside"]))
    locked = lock(padded, KEY)
    for tensor, plain in zip(locked.graph.initializer, padded.graph.initializer, strict=True):
        if tensor.name != "decoy":
            tensor.CopyFrom(plain)
    return relabelled(locked, "--s")


def relabelled(locked: onnx.ModelProto, roles: str) -> onnx.ModelProto:
    """As if only some tensors were locked, each by itself."""
    (entry,) = locked.metadata_props
    entry.value = canonical.dumps({**json.loads(entry.value), "joined": [], "roles": roles}).decode()
    return locked


@pytest.mark.parametrize("make", [classes, numbers])
def test_a_locked_model_is_at_chance_and_one_that_is_open_fails(make: Any) -> None:
    model = make()
    good = found(model, lock(model, KEY))
    assert (good.rows, good.keys, good.failed) == (100, 20, 0)
    assert judged(good).word == "pass"
    assert abs(np.mean(good.outputs[0].wrong)) < 0.1
    bad = found(model, open_but_locked(model))
    assert bad.outputs[0].without == 1.0
    assert bad.outputs[0].wrong == (1.0,) * 20
    assert judged(bad).word == "fail"
    assert "locked file is at 1.00 without its key and at 1.00 with 20 wrong keys on average" in judged(bad).sentence


def test_decisions_are_told_as_shares() -> None:
    model = classes()
    (output,) = found(model, lock(model, KEY)).outputs
    assert output.decided
    assert output.same is not None
    assert output.chance is not None
    assert abs(output.same - output.chance) < 0.1
    assert "% of the original's decisions, where chance gives" in judged(found(model, lock(model, KEY))).sentence
    assert found(numbers(), lock(numbers(), KEY)).outputs[0].same is None


def test_half_of_a_model_in_clear_fails() -> None:
    """The first layer stands there, and what is locked only adds noise."""
    model = net(
        """(float[n,16] x) => (float[n,5] y) {
            a = MatMul (x, v)
            b = MatMul (x, w)
            c = Mul (b, small)
            y = Add (a, c)
        }""",
        weights={"v": (16, 5), "w": (16, 5), "small": np.float32(0.5)},
    )
    locked = lock(model, KEY)
    plain = {each.name: each for each in model.graph.initializer}
    for tensor in locked.graph.initializer:
        if tensor.name == "v":
            tensor.CopyFrom(plain["v"])
    part = found(model, relabelled(locked, "-s-"))
    assert 0.2 < np.mean(part.outputs[0].wrong) < 0.9
    assert judged(part).word == "fail"


def test_decisions_of_the_caller_count_in_place_of_outputs() -> None:
    model = classes()

    def decide(outputs: list[np.ndarray]) -> np.ndarray:
        return (outputs[0][:, 0] > 0).astype(np.int64) - 1

    (output,) = found(model, open_but_locked(model), decide=decide).outputs
    assert (output.output, output.without, output.same) == ("decision", 1.0, 1.0)


@pytest.mark.parametrize("more", [0.0, 3.0])
def test_a_file_that_decides_the_reverse_gives_the_original_away(more: float) -> None:
    """Also where one of the two decisions is rare."""
    text = "(float[n,16] x) => (float[n,2] y) { a = MatMul (x, v) b = MatMul (a, w) y = Add (b, c) }"
    turn, rare = np.array([[1, -1], [-1, 1]], np.float32), np.array([more, -more], np.float32)
    model, reverse = (net(text, weights={"v": (16, 2), "w": sign * turn, "c": sign * rare}) for sign in (1, -1))
    each = found(model, reverse)
    assert each.outputs[0].without is not None
    assert each.outputs[0].without < -0.9
    assert judged(each).word == "fail"


def test_outputs_without_weights_are_no_secret() -> None:
    model = net(
        "(float[n,16] x) => (float[n,5] y, float[n,16] same) { y = MatMul (x, w) same = Relu (x) }",
        weights={"w": (16, 5)},
    )
    each = found(model, lock(model, KEY))
    assert [output.output for output in each.outputs] == ["y"]
    assert judged(each).word == "pass"
    bare = net("(float[n,16] x) => (float[n,16] y) { y = Relu (x) }", weights={})
    assert judged(found(bare, bare)).word == "does not apply"


def test_a_constant_decision_is_compared_by_its_numbers() -> None:
    """Where the original always says the same, so does any network that does: that proves nothing."""
    model = net(
        "(float[n,16] x) => (float[n,5] y) { a = MatMul (x, w) y = Add (a, b) }",
        weights={"w": (16, 5), "b": np.array([99, 0, 0, 0, 0], np.float32)},
    )
    (output,) = found(model, lock(model, KEY)).outputs
    assert not output.decided
    assert found(model, open_but_locked(model)).outputs[0].without == 1.0


def test_a_lock_by_an_input_and_one_of_strangers() -> None:
    model = classes()
    by_input = found(model, lock_by_input(model, KEY))
    assert by_input.outputs[0].without is None
    assert len(by_input.outputs[0].wrong) == 20
    strange = found(model, net(CLASSES, weights={"v": -np.ones((16, 64), np.float32), "w": (64, 5)}))
    assert (strange.keys, strange.outputs[0].wrong) == (0, ())
    assert judged(strange).word == "pass"
    assert judged(found(model, model)).word == "fail"


def test_what_does_not_run_is_at_chance_and_counted() -> None:
    model = classes()
    broken = lock(model, KEY)
    broken.graph.node[0].op_type = "NoSuchOperator"
    each = found(model, broken)
    assert (each.failed, each.outputs[0].without) == (20, 0.0)
    assert "With 20 keys it does not run." in judged(each).sentence


def test_judging() -> None:
    def output(without: float, *wrong: float) -> Keyless:
        each = KeylessOutput(output="y", decided=False, without=without, wrong=wrong, same=None, chance=None)
        return Keyless(rows=rows, keys=len(wrong), failed=0, outputs=(each,))

    rows = 10

    assert judged(output(0.0, 0.31, 0.3, 0.3)).word == "fail"
    interval = judged(output(0.0, 0.31, 0.3, 0.3)).interval
    assert interval is not None
    assert 0.29 < interval.low < 0.3033 < interval.high < 0.32
    assert judged(output(0.6)).interval is None
    assert judged(output(0.0, 0.04, 0.04, 0.04)).word == "fail"
    assert judged(output(0.0, 0.03, 0.03, 0.03)).word == "pass"
    assert judged(output(0.0, 0.9, -0.5, 0.1)).word == "pass"  # that is chance
    assert judged(output(0.6, 0.0, 0.0)).word == "fail"
    assert judged(output(0.4, 0.0, 0.0)).word == "pass"
    assert judged(output(-0.6, 0.0, 0.0)).word == "fail"  # whoever turns it round has the original
    assert judged(output(-0.4, 0.0, 0.0)).word == "pass"
    assert judged(output(0.6)).word == "fail"
    assert judged(None).word == "not measured"
    rows = 9
    assert judged(output(0.0, 0.0, 0.0)).word == judged(output(1.0, 1.0, 1.0)).word == "not measured"
    with pytest.raises(ConfigError, match="E820"):
        KeylessOptions(keys=1)
    with pytest.raises(ConfigError, match="E825"):
        Gates(keyless=1.5)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_original_that_is_no_number_somewhere_tells_the_rest(value: float) -> None:
    wanted = np.random.default_rng(0).normal(size=(50, 4))
    wanted[:, 2] = value
    other = np.random.default_rng(1).normal(size=(50, 4))
    assert keyless._likeness(wanted, wanted.copy(), None).value == 1.0
    assert keyless._likeness(wanted, other, None).value < 0.1
    assert keyless._likeness(other, wanted, None).value == 0.0, "nothing that is a number where one is wanted"


@pytest.mark.parametrize("bias", [np.nan, 0.0])
def test_answers_that_tell_nothing_are_not_judged(bias: float) -> None:
    """What a file answers without its key is far from no number, and from nothing, whatever it answers."""
    model = net(
        "(float[n,16] x) => (float[n,1] y, float[n,1] z) { a = MatMul (x, v) b = Mul (a, none) y = Add (b, bias)"
        " z = MatMul (x, w) }",
        weights={
            "v": (16, 1),
            "w": (16, 1),
            "none": np.zeros(1, np.float32),
            "bias": np.array([bias], np.float32),
        },
    )
    both = found(model, lock(model, KEY))
    assert [each.told for each in both.outputs] == [False, True]
    assert judged(both).word == "pass"
    assert judged(found(model, model)).word == "fail"
    del model.graph.output[1]
    alone = judged(found(model, lock(model, KEY)))
    assert (alone.word, "could be told" in alone.sentence) == ("not measured", True)


@pytest.mark.parametrize("how", ["same", "scaled", "shifted", "bent", "reversed"])
def test_a_score_that_was_moved_is_still_the_original(how: str) -> None:
    """Of one number a row anything but nearly the same values counted as chance: such a gate could not fail."""
    tails = {
        "same": "z = Identity (y)",
        "scaled": "z = Mul (y, three)",
        "shifted": "z = Add (y, hundred)",
        "bent": "z = Exp (y)",
        "reversed": "z = Neg (y)",
    }
    rng = np.random.default_rng(1)
    v, w = (rng.standard_normal(shape).astype(np.float32) / 4 for shape in ((16, 64), (64, 1)))
    weights: dict[str, Any] = {"v": v, "w": w, "three": np.float32(3), "hundred": np.float32(100)}
    text = "(float[n,16] x) => (float[n,1] z) { a = MatMul (x, v) b = Tanh (a) y = MatMul (b, w) TAIL }"
    model, moved = (net(text.replace("TAIL", tails[each]), weights=weights) for each in ("same", how))
    each = found(model, moved)
    assert each.outputs[0].without == pytest.approx(-1.0 if how == "reversed" else 1.0)
    assert judged(each).word == "fail"


def test_of_several_scores_those_that_spread_count() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(200, 3)) * [10, 1, 0]
    other = np.stack([wanted[:, 0], -wanted[:, 1], rng.normal(size=200)], axis=1)
    assert keyless._likeness(wanted, other, None).value == pytest.approx(9 / 11, abs=0.02)
    assert abs(keyless._likeness(wanted, rng.normal(size=(200, 3)), None).value) < 0.2
    assert keyless._likeness(wanted, np.ones((200, 3)), None).value == 0.0


@pytest.mark.parametrize("how", ["shifted", "reversed and shifted", "reversed"])
@pytest.mark.parametrize("classes", [2, 10])
def test_scores_that_were_moved_are_still_the_original(how: str, classes: int) -> None:
    """With one score shifted all decisions are one class, and what agrees is chance, as decisions go."""
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(200, classes))
    shift = np.eye(classes)[0] * 100
    other = {"shifted": wanted + shift, "reversed and shifted": shift - wanted, "reversed": -wanted}[how]
    found = keyless._likeness(wanted, other, wanted.argmax(axis=1), bare=True)
    assert abs(found.turned) == pytest.approx(1.0)
    assert abs(found.value) < 1.01
    chance = keyless._likeness(wanted, rng.normal(size=(200, classes)), wanted.argmax(axis=1), bare=True)
    assert abs(chance.turned) < 0.3


@pytest.mark.parametrize("classes", [False, True])
def test_numbers_of_which_some_are_reversed_do_not_make_up_for_each_other(classes: bool) -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(200, 4))
    other = wanted * [1, -1, 1, -1]
    decided = wanted.argmax(axis=1) if classes else None
    found = keyless._likeness(wanted, other, decided, bare=True)
    assert abs(found.value) < 0.2
    assert abs(found.turned) > 0.6
    chance = keyless._likeness(wanted, rng.normal(size=(200, 4)), decided, bare=True)
    assert abs(chance.turned) < 0.2


def test_a_class_that_is_left_out_hides_nothing_of_the_others() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(200, 10))
    wanted[:, 3] = -np.inf
    decided = wanted.argmax(axis=1)
    shift = np.eye(10)[0] * 100
    assert keyless._likeness(wanted, wanted + shift, decided, bare=True).turned == pytest.approx(1.0)
    chance = np.where(np.isfinite(wanted), rng.normal(size=(200, 10)), -np.inf)
    assert abs(keyless._likeness(wanted, chance, decided, bare=True).turned) < 0.2
    assert keyless._likeness(wanted, np.full((200, 10), np.nan), decided, bare=True).turned == 0.0
    everywhere = np.full((200, 10), -np.inf)
    everywhere[:, 5] = np.inf
    assert keyless._likeness(everywhere, wanted, everywhere.argmax(axis=1) + np.arange(200) % 2, bare=True).turned < 0.2


def test_keys_with_which_it_answers_no_numbers_are_told() -> None:
    """They are at chance, and whoever tries them sees that they are wrong."""
    model = net(
        """(float[n,16] x) => (float[n,5] y) {
            a = MatMul (x, w) b = Mul (a, a) c = Sub (b, far) d = Sqrt (c) y = Add (d, a)
        }""",
        weights={"w": (16, 5), "far": np.float32(-30)},
    )
    locked = lock(model, KEY)
    assert found(model, locked).broken == 0
    assert "NaN" not in judged(found(model, locked)).sentence
    weights = {each.name: each for each in locked.graph.initializer}
    weights["far"].CopyFrom(numpy_helper.from_array(np.float32(3), "far"))
    each = found(model, locked)
    assert each.broken == 20
    assert "With 20 keys it answers with NaN or an infinity" in judged(each).sentence


@pytest.mark.parametrize("decided", [True, False])
def test_what_moves_all_numbers_of_a_row_is_no_likeness(decided: bool) -> None:
    """By brightness any network's numbers tell any other's: 12 of 12 sound locks failed."""
    rng = np.random.default_rng(0)
    light = rng.uniform(0.05, 1.0, (100, 1)) * 10
    for _ in range(20):
        wanted, other = (rng.normal(size=(100, 8)) + light * rng.choice([-1.0, 1.0], 8) for _ in range(2))
        words = wanted.argmax(axis=1) if decided else None
        assert abs(keyless._likeness(wanted, other, words, bare=True).turned) < 0.5
        mixed = keyless._likeness(wanted, wanted * rng.choice([-1, 1], 8), words, bare=True)
        assert abs(mixed.turned) == pytest.approx(1.0)


def test_one_number_is_held_against_wrong_keys() -> None:
    """It has no others beside it; where wrong keys tell it as well, it is in clear, and they are no measure."""
    rng = np.random.default_rng(1)
    light = rng.uniform(0.05, 1.0, (100, 1)) * 10
    wanted, other, *strangers = (rng.normal(size=(100, 1)) + light * sign for sign in (1, -1, *[1, -1] * 5))
    assert abs(keyless._likeness(wanted, other, None, bare=True).turned) > 0.8
    assert abs(keyless._likeness(wanted, other, None, bare=True, wrong=strangers).turned) < 0.5
    assert keyless._likeness(wanted, wanted, None, bare=True, wrong=strangers).turned == 1.0
    assert keyless._likeness(wanted, -wanted, None, bare=True, wrong=[wanted, -wanted]).turned == -1.0
    assert keyless._likeness(wanted, -wanted, None, bare=True, wrong=[None, wanted[:9]]).turned == -1.0
