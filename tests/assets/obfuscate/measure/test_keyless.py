"""What locked files do without their key."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnx_nets import net
from vambrace.assets.obfuscate import locking
from vambrace.assets.obfuscate.keyinput import lock_by_input
from vambrace.assets.obfuscate.locking import lock
from vambrace.assets.obfuscate.measure import answered, keyless
from vambrace.assets.obfuscate.measure.gates import Gates, Judged
from vambrace.assets.obfuscate.measure.inputs import Rows, read_rows
from vambrace.assets.obfuscate.measure.judging import judge_keyless
from vambrace.assets.obfuscate.measure.keyless import Keyless, KeylessOptions, KeylessOutput, try_without_key
from vambrace.assets.obfuscate.measure.likeness import beyond, beyond_all, likeness
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
    entry.value = canonical.dumps({**json.loads(entry.value), "joined": [], "parts": {}, "roles": roles}).decode()
    return locked


@pytest.mark.parametrize("make", [classes, numbers])
def test_a_locked_model_is_at_chance_and_one_that_is_open_fails(make: Any) -> None:
    model = make()
    good = found(model, lock(model, KEY))
    assert (good.rows, good.keys, good.failed) == (100, 20, 0)
    assert judged(good).word == "pass"
    assert abs(np.mean(good.outputs[0].wrong)) < 0.2
    bad = found(model, open_but_locked(model))
    assert bad.outputs[0].without == 1.0
    assert bad.outputs[0].wrong == (1.0,) * 20
    assert judged(bad).word == "fail"
    assert "locked file is at 1.00 without its key and at 1.00 with 20 wrong keys on average" in judged(bad).sentence


@pytest.mark.parametrize("count", [10, 40])
def test_an_open_file_fails_where_other_weights_answer_alike_too(count: int) -> None:
    """Of one input, half of all networks rank rows as any other does: one of twenty excused the original itself."""
    model = net(
        "(float[n,1] x) => (float[n,1] y) { a = MatMul (x, v) b = Relu (a) y = MatMul (b, w) }",
        weights={"v": (1, 16), "w": (16, 1)},
    )
    real = read_rows(np.random.default_rng(0).random((count, 1), np.float32), Network(model))
    each = try_without_key(model, model, real, rng=Streams(0))
    assert each.outputs[0].without == 1.0
    assert judged(each).word == "fail"
    other = onnx.ModelProto.FromString(model.SerializeToString())
    other.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(2 * numpy_helper.to_array(model.graph.initializer[0]), "v")
    )
    each = try_without_key(model, other, real, rng=Streams(0))
    assert (each.outputs[0].without, each.outputs[0].told) == (None, False)
    assert judged(each).word == "not measured"


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_small_numbers_beside_large_ones_are_looked_at(scale: float) -> None:
    """Boxes in pixels that are locked, beside scores that are not: in the mean these count for nothing."""
    model = net(
        "(float[n,16] x) => (float[n,6] y) { a = MatMul (x, v) b = Mul (a, s) c = MatMul (x, w) d = Sigmoid (c)"
        " y = Concat <axis=1> (b, d) }",
        weights={"v": (16, 4), "w": (16, 2), "s": np.full(1, scale, np.float32)},
    )
    half = lock(model, KEY)
    del half.metadata_props[:]
    assert judged(found(model, half)).word == "pass"
    for held, plain in zip(half.graph.initializer, model.graph.initializer, strict=True):
        if held.name == "w":
            held.CopyFrom(plain)
    each = found(model, half)
    assert each.outputs[0].given == 2
    assert judged(each).word == "fail"
    assert "2 of its numbers a row it gives without a key" in judged(each).sentence


def test_answers_in_another_order_are_the_original() -> None:
    model = classes()
    rolled = onnx.ModelProto.FromString(model.SerializeToString())
    last = numpy_helper.to_array(model.graph.initializer[1])
    rolled.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.roll(last, 1, axis=1), "w"))
    each = found(model, rolled)
    assert each.outputs[0].given == 5
    assert judged(each).word == "fail"
    draw = np.random.default_rng(0)
    named = draw.integers(0, 7, 200)
    assert likeness(named, (named + 3) % 7, named, turned=True).turned == 1.0
    assert abs(likeness(named, draw.integers(0, 7, 200), named, turned=True).turned) < 0.2


def test_of_few_rows_no_order_of_many_is_told() -> None:
    """Ten rows have so many orders that one of a thousand numbers has the same by luck, and of five none has."""
    draw = np.random.default_rng(0)
    wanted, other = draw.normal(size=(2, 10, 4000))
    assert not likeness(wanted, wanted, None, turned=True).singly.any()
    assert (likeness(wanted[:, :20], wanted[:, :20], None, turned=True).singly > 0.999).all()
    assert likeness(wanted[:, :100], np.roll(wanted[:, :100], 1, axis=1), None, turned=True).singly.max() < 0.999
    assert (likeness(wanted[:, :4], -np.roll(wanted[:, :4], 1, axis=1), None, turned=True).singly > 0.999).all()
    tied = np.where(wanted > 0.9, wanted, 0.0)[:, :4]
    assert not likeness(tied, tied, None, turned=True).singly.any()  # most of the rows have the same
    assert likeness(wanted[:, :4], other[:, :4], None, turned=True).singly.max() < 0.999


def test_of_another_number_of_boxes_the_calls_that_are_alike_are_compared() -> None:
    """Each call its own number; where one of all differed, nothing was compared."""
    text = (
        "(float[n,16] x) => (float[k] y) { a = MatMul (x, w) b = Flatten (a) c = Greater (b, z) d = Compress (b, e)"
        " y = Identity (d) }"
    )
    text = text.replace("d = Compress (b, e)", "r = Constant <value_ints = [-1]> () e = Reshape (c, r)"
                        " f = Reshape (b, r) d = Compress (f, e)")  # fmt: skip
    model = net(text, weights={"w": (16, 12), "z": np.zeros(1, np.float32)})
    moved = onnx.ModelProto.FromString(model.SerializeToString())
    plain = numpy_helper.to_array(model.graph.initializer[0])
    noise = 1 + 0.003 * np.random.default_rng(3).standard_normal(plain.shape).astype(np.float32)
    moved.graph.initializer[0].CopyFrom(numpy_helper.from_array(plain * noise, "w"))
    real = read_rows(np.random.default_rng(0).standard_normal((100, 16)).astype(np.float32), Network(model), batch=1)
    near = try_without_key(model, moved, real, rng=Streams(0))
    assert near.outputs[0].without is not None
    assert near.outputs[0].without > 0.8
    assert judged(near).word == "fail"
    # Where hardly a call can be compared, nothing is known.
    assert judged(try_without_key(model, lock(model, KEY), real, rng=Streams(0))).word == "not measured"


@pytest.mark.parametrize(("shape", "thinned"), [((120, 160), (120, 8)), ((84, 8400), (84, 12)), ((8400, 84), (12, 84)),
                                                ((480, 640), (480, 2)), ((2000, 3000), (1024, 1))])  # fmt: skip
def test_half_of_a_picture_is_seen(shape: tuple[int, int], thinned: tuple[int, int]) -> None:
    """And boxes beside the scores of many places, whichever axis they are."""
    picture = np.random.default_rng(0).random((2, *shape), np.float32)
    half = picture.copy()
    half[:, shape[0] // 2 :] = 0
    thin, other = (answered.thinned(each, picture) for each in (picture, half))
    assert thin.shape == (2, *thinned)
    assert 0.2 < (thin == other).mean() < 0.8


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
    assert 0.28 < interval.low < 0.3033 < interval.high < 0.32
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
    assert likeness(wanted, wanted.copy(), None).value == 1.0
    assert likeness(wanted, other, None).value < 0.1
    assert likeness(other, wanted, None).value == 0.0, "nothing that is a number where one is wanted"


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
    assert likeness(wanted, other, None).value == pytest.approx(9 / 11, abs=0.02)
    assert abs(likeness(wanted, rng.normal(size=(200, 3)), None).value) < 0.2
    assert likeness(wanted, np.ones((200, 3)), None).value == 0.0


@pytest.mark.parametrize("how", ["shifted", "reversed and shifted", "reversed"])
@pytest.mark.parametrize("classes", [2, 10])
def test_scores_that_were_moved_are_still_the_original(how: str, classes: int) -> None:
    """With one score shifted all decisions are one class, and what agrees is chance, as decisions go."""
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(200, classes))
    shift = np.eye(classes)[0] * 100
    other = {"shifted": wanted + shift, "reversed and shifted": shift - wanted, "reversed": -wanted}[how]
    found = likeness(wanted, other, wanted.argmax(axis=1), turned=True)
    assert abs(found.turned) == pytest.approx(1.0)
    assert abs(found.value) < 1.01
    chance = likeness(wanted, rng.normal(size=(200, classes)), wanted.argmax(axis=1), turned=True)
    assert abs(chance.turned) < 0.3


@pytest.mark.parametrize("classes", [False, True])
def test_numbers_of_which_some_are_reversed_do_not_make_up_for_each_other(classes: bool) -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(200, 4))
    other = wanted * [1, -1, 1, -1]
    decided = wanted.argmax(axis=1) if classes else None
    found = likeness(wanted, other, decided, turned=True)
    assert abs(found.value) < 0.2
    assert abs(found.turned) > 0.6
    chance = likeness(wanted, rng.normal(size=(200, 4)), decided, turned=True)
    assert abs(chance.turned) < 0.2


def test_a_class_that_is_left_out_hides_nothing_of_the_others() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(200, 10))
    wanted[:, 3] = -np.inf
    decided = wanted.argmax(axis=1)
    shift = np.eye(10)[0] * 100
    assert likeness(wanted, wanted + shift, decided, turned=True).turned == pytest.approx(1.0)
    chance = np.where(np.isfinite(wanted), rng.normal(size=(200, 10)), -np.inf)
    assert abs(likeness(wanted, chance, decided, turned=True).turned) < 0.2
    assert likeness(wanted, np.full((200, 10), np.nan), decided, turned=True).turned == 0.0
    everywhere = np.full((200, 10), -np.inf)
    everywhere[:, 5] = np.inf
    assert likeness(everywhere, wanted, everywhere.argmax(axis=1) + np.arange(200) % 2, turned=True).turned < 0.2


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
        assert abs(likeness(wanted, other, words, turned=True).turned) < 0.5
        mixed = likeness(wanted, wanted * rng.choice([-1, 1], 8), words, turned=True)
        assert abs(mixed.turned) == pytest.approx(1.0)


def test_beyond_what_strangers_tell() -> None:
    """As a part of the rest; where strangers are the original all but in name, they are no measure of chance."""
    assert beyond([0.8, 0.2], []) == (0.8, 0.2)
    assert beyond([0.8, 0.2], [0.5, 0.7]) == pytest.approx((0.5, -1.0))
    assert beyond([0.8], [-0.2, -0.1]) == (0.8,)
    assert beyond([1.0], [0.96, 0.98]) == (1.0,)
    assert beyond_all(0.8, []) == 0.8
    assert beyond_all(-0.8, [0.5, -0.7]) == pytest.approx(-0.5)
    assert beyond_all(-0.7, [0.5, -0.7]) == 0.0  # one of them is as far
    assert beyond_all(-1.0, [1.0, -1.0]) == -1.0


COUNT = """(float[n,1,12,12] x) => (float[n,1] y) {
    a = Conv <pads=[1,1,1,1]> (x, w) b = Relu (a) c = GlobalAveragePool (b) d = Flatten (c) e = Gemm (d, u) y = Relu (e)
}"""
MAP = """(float[n,1,12,12] x) => (float[n,1,12,12] y) {
    a = Conv <pads=[1,1,1,1]> (x, w) b = Relu (a) c = Conv (b, u) y = Relu (c)
}"""
CELLS = """(float[n,1,12,12] x) => (float[n,16,4] y) {
    a = Conv <strides=[3,3]> (x, w) b = Relu (a) c = Conv (b, u) d = Sigmoid (c) e = Add (d, grid)
    f = Reshape (e, flat) y = Transpose <perm=[0,2,1]> (f)
}"""


def cells() -> onnx.ModelProto:
    """Two of four numbers are coordinates: which is larger is told by the place alone."""
    grid = np.zeros((1, 4, 4, 4), np.float32)
    grid[0, :2] = np.stack(np.meshgrid(np.arange(4), np.arange(4)))
    return net(CELLS, weights={"w": (16, 1, 3, 3), "u": (4, 16, 1, 1), "grid": grid, "flat": np.array([0, 4, 16])})


@pytest.mark.parametrize(
    "model",
    [
        net(
            COUNT, weights={"w": (16, 1, 3, 3), "u": np.abs(np.random.default_rng(0).normal(size=(16, 1))).astype("f")}
        ),
        net(MAP, weights={"w": (16, 1, 3, 3), "u": (1, 16, 1, 1)}),
        cells(),
    ],
    ids=["count", "map", "cells"],
)
def test_what_any_weights_answer_is_no_likeness(model: onnx.ModelProto) -> None:
    """Brightness in what cannot be below zero, and cells in boxes: sound locks failed by rule."""
    draw = np.random.default_rng(0)
    light = draw.uniform(0.1, 1, (60, 1, 1, 1)) * draw.random((60, 1, 12, 12))
    each = try_without_key(model, lock(model, KEY), read_rows(light.astype(np.float32), Network(model)), rng=Streams(0))
    assert judged(each).word == "pass"
    assert len(each.outputs[0].strangers) == 20
    open_file = open_in_all(model)
    bad = try_without_key(model, open_file, read_rows(light.astype(np.float32), Network(model)), rng=Streams(0))
    assert judged(bad).word == "fail"


def open_in_all(model: onnx.ModelProto) -> onnx.ModelProto:
    """With a lock of ours that locks only what nothing reads."""
    padded = onnx.ModelProto()
    padded.CopyFrom(model)
    padded.graph.initializer.append(numpy_helper.from_array(np.arange(64, dtype=np.float32), "decoy"))
    locked = lock(padded, KEY)
    letters = ["s" if each.name == "decoy" else "-" for each in locked.graph.initializer]
    for tensor, plain in zip(locked.graph.initializer, padded.graph.initializer, strict=True):
        if tensor.name != "decoy":
            tensor.CopyFrom(plain)
    return relabelled(locked, "".join(letters))


def test_texts_are_decisions() -> None:
    """A file whose only output is a name could not fail."""
    model = net(
        """(float[n,16] x) => (string[n] y) {
            a = MatMul (x, w) b = ArgMax <axis=1, keepdims=0> (a)
            y = ai.onnx.ml.LabelEncoder <keys_int64s=[0,1,2,3,4], values_strings=["a","b","c","d","e"]> (b)
        }""",
        weights={"w": (16, 5)},
        head='<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3]>',
    )
    assert judged(found(model, lock(model, KEY))).word == "pass"
    bad = found(model, model)
    assert (bad.outputs[0].decided, bad.outputs[0].without) == (True, 1.0)
    assert judged(bad).word == "fail"


def test_of_pictures_some_places_are_looked_at() -> None:
    """All answers of twenty keys took gigabytes, and minutes of ranking."""
    wide = np.zeros((3, 3, 200, 200), np.float32)
    wide[:] = np.arange(3 * 200 * 200).reshape(3, 200, 200)
    thin = answered.thinned(wide, wide)
    assert thin.shape == (3, 3, 1024 // 3, 1)
    assert (thin[0, 1] - thin[0, 0] == 200 * 200).all()  # all classes of a place
    assert np.array_equal(answered.thinned(wide + 1, wide), thin + 1)
    words = answered.thinned(np.zeros((2, 900, 50), np.float32), wide)
    assert words.shape == (2, 1024 // 50, 50)
    small = np.zeros((3, 2, 4, 4))
    assert answered.thinned(small, small) is small


def test_of_many_scores_those_that_are_decided_for_are_looked_at() -> None:
    scores = np.random.default_rng(0).random((30, 50_000), np.float32)
    scores[np.arange(30), 7 * np.arange(30)] = 2.0
    thin = answered.thinned(scores, scores)
    assert thin.shape == (30, 1024)
    assert (thin.max(axis=1) == 2.0).all()
    other = scores[::-1]
    assert np.array_equal(answered.thinned(other, scores), thin[::-1])
    assert answered.thinned(other, scores[:9]).shape == (30, 1024)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_without_an_answer_hides_nothing_of_the_others(bad: float) -> None:
    wanted = np.random.default_rng(0).normal(size=(100, 1))
    other = wanted.copy()
    other[7] = bad
    found_one = likeness(wanted, other, None, turned=True)
    assert found_one.value == pytest.approx(0.99)
    assert found_one.turned == pytest.approx(0.99)
    other[:99] = bad
    assert likeness(wanted, other, None, turned=True).value == 0.0


def test_frequencies_are_of_each_place() -> None:
    """Two places that always decide alike: one of the two decisions at each is the place's, and no merit."""
    wanted = np.zeros((50, 2, 2), np.float32)
    wanted[:, 0, 0] = wanted[:, 1, 1] = 1
    wanted[::2, 0] = [0, 1]
    decided = wanted.reshape(-1, 2).argmax(axis=1)
    other = np.random.default_rng(0).permutation(wanted[:, 0])
    answer = likeness(wanted, np.stack([other, wanted[:, 1]], axis=1), decided)
    assert abs(answer.value) < 0.3
    assert answer.shares is not None
    assert answer.shares[1] == pytest.approx(0.75)
    assert likeness(wanted, wanted, decided).value == 1.0


def test_wrong_keys_that_only_move_scores_fail() -> None:
    """With one class shifted, decisions are at chance and ranks are the original's."""
    draw = np.random.default_rng(0)

    def output(wrong: float) -> Keyless:
        each = KeylessOutput(output="y", decided=True, without=None, wrong=tuple(draw.normal(size=20) / 99),
                             same=0.2, chance=0.2, turned=wrong)  # fmt: skip
        return Keyless(rows=100, keys=20, failed=0, outputs=(each,))

    assert judged(output(0.4)).word == "pass"
    assert judged(output(0.6)).word == "fail"
    assert "turns round or moves what a key gives, at 0.60" in judged(output(0.6)).sentence
    model = classes()
    shifted = onnx.ModelProto()
    shifted.CopyFrom(model)
    shifted.graph.node[-1].output[0] = "z"
    shifted.graph.initializer.append(numpy_helper.from_array(np.array([50, 0, 0, 0, 0], np.float32), "far"))
    shifted.graph.node.append(helper.make_node("Add", ["z", "far"], ["y"]))
    each = found(model, open_in_all(shifted))
    assert abs(np.mean(each.outputs[0].wrong)) < 0.03
    assert each.outputs[0].turned > 0.9
    assert judged(each).word == "fail"


def test_neighbours_are_no_chance() -> None:
    """As in pictures, where a number is told by the one beside it: half of the original in noise would be chance."""
    draw = np.random.default_rng(0)
    wanted = np.cumsum(draw.normal(size=(200, 400)), axis=1)
    wanted -= np.linspace(0, 1, 400) * wanted[:, -1:]
    other = wanted + draw.normal(size=wanted.shape) * wanted.std() * 0.7
    assert likeness(wanted, other, None, turned=True).turned > 0.5


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_rows_that_the_input_leaves_out_are_not_compared(value: float) -> None:
    """Of numbers above zero they would be the lowest in both."""
    draw = np.random.default_rng(0)
    gone = draw.random(100) < 0.3
    wanted, other = (np.where(gone, value, draw.random(100) + 5)[:, None] for _ in range(2))
    assert abs(likeness(wanted, other, None).value) < 0.3
    assert likeness(wanted, wanted, None).value == 1.0


def test_keys_that_open_a_file_are_counted() -> None:
    """On average they hide behind the others, of which each is at another place."""
    model = net("(float[n,2] x) => (float[n,1] y) { y = MatMul (x, w) }", weights={"w": (2, 1)})
    real = read_rows(np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32), Network(model))
    tried = [try_without_key(model, lock(model, KEY), real, rng=Streams(seed)) for seed in range(6)]
    each = max(tried, key=lambda one: one.outputs[0].opened)
    assert each.outputs[0].opened >= 2  # two elements have eight arrangements
    assert judged(each).word == "fail"
    assert f"{each.outputs[0].opened} of the keys open it" in judged(each).sentence
    large = found(classes(), lock(classes(), KEY))
    assert large.outputs[0].opened == 0
    assert "open it" not in judged(large).sentence


def told(answers: list[np.ndarray], wrong: list[np.ndarray], strangers: list[np.ndarray]) -> KeylessOutput:
    return keyless._output("y", keyless._Answers(answers[0], answers[0], wrong, strangers), by_input=False)


@pytest.mark.parametrize(("keys", "strangers", "word"), [(2, 0, "fail"), (1, 0, "pass"), (4, 1, "pass"), (6, 1, "fail"),
                                                          (9, 4, "pass"), (12, 4, "fail")])  # fmt: skip
@pytest.mark.parametrize("turned", [1, -1])
def test_keys_that_nearly_open_a_file_do_not_hide_in_the_mean(
    keys: int, strangers: int, word: str, turned: int
) -> None:
    """Of two of twenty that open it, the mean is a tenth, and its error as large."""
    draw = np.random.default_rng(0)
    wanted = draw.normal(size=(100, 1))
    near = turned * (wanted + 0.3 * draw.normal(size=(100, 1)))
    some = [near if at < keys else draw.normal(size=(100, 1)) for at in range(20)]
    others = [near if at < strangers else draw.normal(size=(100, 1)) for at in range(20)]
    each = keyless._output("y", keyless._Answers(wanted, some[-1], some, others), by_input=False)
    assert (each.nearly, each.nearly_strangers, each.opened) == (keys, strangers, 0)
    one = judged(Keyless(rows=100, keys=20, failed=0, outputs=(each,)))
    if keys < 9 or word == "fail":  # else the mean of all of them is too near as well
        assert one.word == word


def test_one_number_of_many_that_chance_tells_is_no_lock_that_is_open() -> None:
    """Of 96 numbers on two factors, one or another is told by some number of any network: sound locks failed for it."""
    draw = np.random.default_rng(0)

    def unrelated() -> np.ndarray:
        return np.tanh(level @ draw.normal(size=(2, 96)) + 0.03 * draw.normal(size=(100, 96)))

    telling = 0
    for _ in range(5):
        level = draw.normal(size=(100, 2))
        wanted, rest = unrelated(), [unrelated() for _ in range(41)]
        each = keyless._output("y", keyless._Answers(wanted, rest[0], rest[1:21], rest[21:]), by_input=False)
        telling += each.telling_strangers
        assert judged(Keyless(rows=100, keys=20, failed=0, outputs=(each,))).word == "pass"
    assert telling


@pytest.mark.parametrize("how", ["flag", "rare flag", "half zeros", "one row none", "nearly"])
@pytest.mark.parametrize("key", [False, True])
def test_a_number_in_clear_is_seen_whatever_it_is(how: str, key: bool) -> None:
    draw = np.random.default_rng(0)
    large = draw.normal(size=(43, 100, 1)) * 1000
    small = draw.normal(size=(100, 1))
    small = {"flag": small > 0, "rare flag": small > 1.2, "half zeros": np.maximum(small, 0)}.get(how, small)
    other = small + (0.1 * draw.normal(size=(100, 1)) if how == "nearly" else 0.0)
    if how == "one row none":
        other[7] = np.nan
    wanted = np.concatenate([large[0], small], axis=1)
    opened = [np.concatenate([large[at], other], axis=1) for at in range(1, 22)]
    closed = [np.concatenate([large[at], draw.normal(size=(100, 1))], axis=1) for at in range(1, 43)]
    if key:
        answers = keyless._Answers(wanted, closed[0], opened[1:], closed[22:])
    else:
        answers = keyless._Answers(wanted, opened[0], closed[1:21], closed[22:])
    each = keyless._output("y", answers, by_input=False)
    word = judged(Keyless(rows=100, keys=20, failed=0, outputs=(each,))).word
    assert word == ("pass" if key and how == "nearly" else "fail")  # of keys, only what opens is looked for


@pytest.mark.parametrize("shape", [(100,), (100, 1), (100, 3, 2)])
def test_whole_numbers_are_decisions_where_they_come_often(shape: tuple[int, ...]) -> None:
    draw = np.random.default_rng(0)
    wanted = draw.integers(0, 6, shape)
    rest = [draw.integers(0, 6, shape) for _ in range(41)]
    for other, word in (((wanted + 2) % 6, "fail"), (rest[0], "pass")):
        each = keyless._output("y", keyless._Answers(wanted, other, rest[1:21], rest[21:]), by_input=False)
        assert each.decided
        assert judged(Keyless(rows=100, keys=20, failed=0, outputs=(each,))).word == word
    prices = [draw.permutation(10_000)[: wanted.size].reshape(shape) for _ in range(42)]
    for other, word in ((prices[0], "fail"), (prices[0] * 2, "fail"), (prices[1], "pass")):
        each = keyless._output("y", keyless._Answers(prices[0], other, prices[2:22], prices[22:]), by_input=False)
        assert not each.decided
        assert judged(Keyless(rows=100, keys=20, failed=0, outputs=(each,))).word == word


def test_of_twelve_outputs_the_luckiest_is_nearer() -> None:
    strangers = np.linspace(0.1, 0.5, 20).tolist()
    assert beyond_all(0.5, strangers) == 0.0
    assert beyond_all(0.55, strangers) > 0
    assert beyond_all(0.55, strangers, 12) == 0.0
    assert beyond_all(0.7, strangers, 12) > 0


def test_a_scalar_a_call_is_an_answer() -> None:
    model = net(
        "(float[4,16] x) => (float y) { a = MatMul (x, v) b = Tanh (a) c = MatMul (b, w)"
        " y = ReduceSum <keepdims=0> (c) }",
        weights={"v": (16, 32), "w": (32, 3)},
    )
    real = read_rows(np.random.default_rng(0).standard_normal((160, 16)).astype(np.float32), Network(model))
    assert judged(try_without_key(model, model, real, rng=Streams(0))).word == "fail"
    assert judged(try_without_key(model, lock(model, KEY), real, rng=Streams(0))).word == "pass"


@pytest.mark.parametrize("shape", [(0,), (100, 0), (0, 4)])
def test_no_numbers_tell_nothing(shape: tuple[int, ...]) -> None:
    none = np.zeros(shape, np.float32)
    each = keyless._output("y", keyless._Answers(none, none, [none] * 20, [none] * 20), by_input=False)
    assert not each.told


def test_what_is_the_same_bit_for_bit_counts_whatever_others_rank_alike() -> None:
    draw = np.random.default_rng(0)
    wanted, *rest = draw.normal(size=(43, 100, 12))
    rest[30][:, 5] = 2 * wanted[:, 5]  # one of the networks with other weights ranks one number as the original
    open_in_two = rest[0].copy()
    open_in_two[:, :2] = wanted[:, :2]
    each = keyless._output("y", keyless._Answers(wanted, open_in_two, rest[1:21], rest[21:41]), by_input=False)
    assert each.given == 2
    scattered = np.where(draw.random((100, 12)) < 0.06, np.nan, rest[0])
    scattered[:, :2] = wanted[:, :2]
    each = keyless._output("y", keyless._Answers(wanted, scattered, rest[1:21], rest[21:41]), by_input=False)
    assert each.given == 2


def test_two_keys_that_open_a_file_are_no_luck_however_many_outputs_there_are() -> None:
    wrong = (1.0, 1.0, *np.random.default_rng(0).normal(size=18) * 0.05)
    each = KeylessOutput(output="y", decided=False, without=None, wrong=wrong, same=None, chance=None, opened=2)
    for count in (1, 8, 64):
        found = Keyless(rows=100, keys=20, failed=0, outputs=(each,) * count)
        assert judged(found).word == "fail"


def test_names_of_very_many_kinds_take_no_time() -> None:
    draw = np.random.default_rng(0)
    kinds = [draw.integers(0, 9_000, 50_000) for _ in range(2)]
    begun = time.process_time()
    assert abs(likeness(kinds[0], kinds[1], kinds[0], turned=True).turned) < 0.1
    assert time.process_time() - begun < 3


def test_a_number_that_is_none_hides_nothing_of_the_others() -> None:
    wanted = np.random.default_rng(0).normal(size=(100, 10))
    other = wanted.copy()
    other[:, 9] = np.nan
    other[::7, 8] = np.inf
    told = likeness(wanted, other, None, turned=True).singly > 0.999
    assert told.tolist() == [True] * 8 + [False] * 2


def test_what_other_weights_answer_as_well_opens_nothing() -> None:
    wanted = np.random.default_rng(0).normal(size=(50, 1))
    other = np.random.default_rng(1).normal(size=(50, 1))
    assert told([wanted], [2 * wanted, other], [other, other]).opened == 1
    assert told([wanted], [2 * wanted, other], [other, wanted]).opened == 0
    assert told([wanted], [wanted, other], [other, wanted]).opened == 1  # the very answers open it, whatever others do


def test_places_that_always_decide_alike_decide_nothing() -> None:
    """Each place another way, so that not all decisions are one."""
    wanted = np.zeros((50, 2, 2), np.float32)
    wanted[:, 0, 0] = wanted[:, 1, 1] = 9
    wanted += np.random.default_rng(0).random((50, 2, 2), np.float32)
    assert not told([wanted], [wanted], [wanted]).decided


def test_of_several_outputs_each_may_be_nearer_by_luck() -> None:
    """Of eight of which each is above chance by 2.3 errors, one in a hundred by luck, none is surely so."""
    values = np.random.default_rng(0).normal(size=20)
    values = (values - values.mean()) / values.std(ddof=1) * np.sqrt(20) * 0.1 + 0.03 + 0.23
    each = KeylessOutput(output="y", decided=False, without=None, wrong=tuple(values), same=None, chance=None)
    one, eight = (Keyless(rows=100, keys=20, failed=0, outputs=(each,) * count) for count in (1, 8))
    assert judged(one).word == "fail"
    assert judged(eight).word == "pass"


def test_weights_that_stay_open_leave_no_measure_of_chance() -> None:
    """Other weights would share with the original what cannot be drawn anew."""
    half = ",".join(["0.5"] * 40)
    model = net(
        f"(float[n,4] x) => (float[n,40] y) {{ a = MatMul (x, w)"
        f" b = ai.onnx.ml.Scaler <offset=[{half}], scale=[{half}]> (a) y = Add (b, c) }}",
        weights={"w": (4, 40), "c": (40,)},
        head='<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3]>',
    )  # fmt: skip
    real = read_rows(np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32), Network(model))
    each = try_without_key(model, lock(model, KEY, leave_open=True), real, rng=Streams(0))
    assert each.outputs[0].strangers == ()
    assert len(each.outputs[0].wrong) == 20
