"""Imagined networks: written as simplifiers leave them, and within their bounds."""

from __future__ import annotations

from collections import Counter
from functools import partial

import onnx
import pytest

from exact_nets import SIZE, Builder
from vambrace.assets.obfuscate import ensemble
from vambrace.assets.obfuscate.habits import Habits
from vambrace.assets.obfuscate.imagined import Imagining, TooLarge, Value
from vambrace.assets.obfuscate.imagined_nets import Taste, imagine
from vambrace.assets.obfuscate.imagined_parts import Parts, Style
from vambrace.assets.obfuscate.keyed import Stream
from vambrace.assets.obfuscate.measure import runtime
from vambrace.assets.obfuscate.measure.structure import read_graph
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.passes.phantoms import Phantoms
from vambrace.assets.obfuscate.pipeline import onnx_model


def small(opset: int = 17) -> onnx.ModelProto:
    b = Builder(0)
    x = b.add("Relu", b.conv(b.add("Relu", b.conv("image", 3, 16)), 16, 8))
    return b.model({b.conv(x, 8, 4): (2, 4, SIZE, SIZE)}, opset=opset)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(read_graph(model).operators)


@pytest.mark.parametrize("tool", ["ort-basic", "onnxsim", "onnxslim"])
@pytest.mark.parametrize("opset", [11, 17, 20])
def test_simplifiers_find_next_to_nothing_to_do_in_decoys(opset: int, tool: str) -> None:
    """What they would take out hides nothing and makes decoys more like a network that is simple already."""
    if tool == "ort-basic":
        run = partial(runtime.optimised, level="basic")
    else:
        pytest.importorskip(tool)
        run = runtime.simplifier(tool)
    assert run is not None
    gone, there = 0, 0
    for seed in range(2):
        done = onnx_model(small(opset), passes=[Phantoms(fewest=600, times=0)], seed=seed).model
        before = operators(done)
        gone += (before - operators(run(done))).total()
        there += before.total()
    assert gone < 0.02 * there


def test_what_imagined_networks_begin_with_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a transformer they were mostly of sequences, and beside others of maps."""
    ranks: list[int] = []

    def watched(im: Imagining, x: Value, widths: tuple[int, ...], taste: Taste) -> Value:
        ranks.append(len(x.shape))
        return imagine(im, x, widths, taste)

    monkeypatch.setattr(ensemble, "imagine", watched)
    shares: list[dict[int, float]] = []
    for sizes in ((4, 8, 8), (6, 8), (8,)):
        ranks.clear()
        b = Builder(0)
        model = b.model({b.add("Relu", b.add("Tanh", "image")): ("n", *sizes)}, ("n", *sizes))
        for seed in range(12):
            onnx_model(model, passes=[Phantoms(fewest=600, times=0)], seed=seed)
        shares.append({rank: ranks.count(rank) / len(ranks) for rank in (1, 2, 3)})
        assert len(ranks) > 60
    for rank, share in ((1, 1 / 6), (2, 1 / 3), (3, 1 / 2)):
        assert all(abs(each[rank] - share) < 0.15 for each in shares), shares


def test_what_is_the_same_is_there_once_and_steps_are_one_step() -> None:
    net = Net(small())
    im = Imagining(net, {}, Stream(bytes(32)), room=10_000, habits=Habits(net))
    parts, x = Parts(im, Style.drawn(im)), Value("image", (3, 4, 5))
    assert im.node("Relu", x, shape=x.shape) == im.node("Relu", x, shape=x.shape)
    assert im.node("Elu", x, shape=x.shape, alpha=2.0) != im.node("Elu", x, shape=x.shape, alpha=3.0)
    turned = parts.turned(x, 2, 3, 1)
    assert turned.shape == (4, 5, 3)
    again = parts.turned(turned, 2, 3, 1)
    assert (again.shape, im.maker(again).inputs) == ((5, 3, 4), ["image"])
    assert parts.turned(again, 2, 3, 1) == x
    assert list(im.maker(parts.reshaped(parts.flat(x), 5, 12)).inputs)[:1] == ["image"]
    both = parts.joined((x, parts.joined((x, x))))
    assert (both.shape, im.maker(both).inputs) == ((9, 4, 5), ["image"] * 3)
    im.back(1, 0)
    assert im.node("Elu", x, shape=x.shape, alpha=2.0).name in {name for node in im.nodes for name in node.outputs}
    im.sweep([im.nodes[0].outputs[0]])
    assert [node.op for node in im.nodes] == ["Relu"]


def test_what_takes_too_much_is_never_drawn() -> None:
    net = Net(small())
    im = Imagining(net, {}, Stream(bytes(32)), room=1000, habits=Habits(net))
    im.most = 4000
    with pytest.raises(TooLarge):
        im.weight("Conv", 1, (10**6, 10**6), taken=9)

    def endless(x: Value) -> None:
        for _ in range(1000):
            x = im.node("Relu", x, shape=(3,))

    with pytest.raises(TooLarge):
        endless(Value("image", (3,)))
    assert 3000 < im.spent < 4100
    im.back(1, 0)
    assert (len(im.nodes), im.weights) == (1, {})
    assert im.spent == im._bytes(im.nodes[0])
