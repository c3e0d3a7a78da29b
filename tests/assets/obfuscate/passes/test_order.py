"""Nodes and weights stand in a random order in which the model can run."""

from __future__ import annotations

from collections import Counter

import onnx
from scipy.stats import chisquare

from exact_nets import Builder, differences, images, random_net
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.pipeline import onnx_model, undo


def diamonds(count: int) -> onnx.ModelProto:
    """Branches beside each other, all summed up at the end."""
    b = Builder(0)
    model = b.model({b.add("Sum", *(b.add("Tanh", "image") for _ in range(count))): (2, 3, 12, 12)})
    onnx.checker.check_model(model)
    return model


def test_the_order_is_another_one_that_runs_and_comes_back() -> None:
    model = random_net(0)
    done = onnx_model(model, passes=["order"], seed=1)
    before, after = ([node.output[0] for node in each.graph.node] for each in (model, done.model))
    assert sorted(before) == sorted(after)
    assert [each.name for each in done.model.graph.initializer] != [each.name for each in model.graph.initializer]
    onnx.checker.check_model(done.model)
    assert differences(model, done.model, images(0)) == []
    assert undo(done.model, done.map).model == model


def test_every_order_of_branches_is_as_likely() -> None:
    model = diamonds(3)
    seen = Counter(
        tuple(node.output[0] for node in onnx_model(model, passes=["order"], seed=seed).model.graph.node)
        for seed in range(300)
    )
    assert len(seen) == 6
    assert chisquare(list(seen.values())).pvalue > 1e-4


def test_bodies_wait_for_what_they_read_and_are_shuffled_too() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[n, 4] image) => (float[n, 4] y) <bool go = {1}> {
        a = Tanh (image)  b = Sin (image)  c = Neg (a)
        y = If (go) <
            then_branch = t () => (float[n, 4] r) {
                p = Abs (c) q = Tanh (b) s = Sin (b) u = Add (p, q) r = Add (u, s)
            },
            else_branch = e () => (float[n, 4] f) { f = Identity (image) }
        >
    }"""
    model = onnx.parser.parse_model(text)
    orders: set[tuple[str, ...]] = set()
    for seed in range(20):
        done = onnx_model(model, passes=["order"], seed=seed)
        onnx.checker.check_model(done.model)
        chooser = next(node for node in done.model.graph.node if node.op_type == "If")
        body = next(each.g for each in chooser.attribute if each.name == "then_branch")
        orders.add(tuple(node.output[0] for node in body.node))
        assert onnx.printer.to_text(undo(done.model, done.map).model) == onnx.printer.to_text(model)
    assert len(orders) > 5


def test_attributes_of_all_nodes_are_in_one_order_and_come_back() -> None:
    """Exporters have an order of their own, and so have passes that add nodes."""
    model = random_net(0)
    chosen = next(node for node in model.graph.node if node.op_type == "Conv")
    backward = sorted(chosen.attribute, key=lambda each: each.name, reverse=True)
    assert len(backward) > 1
    del chosen.attribute[:]
    chosen.attribute.extend(backward)
    done = onnx_model(model, passes=["phantoms", "order"], seed=1)
    for graph in Net(done.model).graphs():
        for node in graph.nodes:
            assert list(node.attributes) == sorted(node.attributes)
    assert undo(done.model, done.map).model == model
