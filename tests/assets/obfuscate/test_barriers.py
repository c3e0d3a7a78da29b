"""Cheapest sets of layers that no path gets around, beside all sets."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_nets import net
from vambrace.assets.obfuscate.barriers import barrier
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.places import Place, find_places


def drawn(seed: int) -> tuple[Net, dict[Place, float]]:
    """Layers and sums at random, some layers without a cost."""
    rng = np.random.default_rng(seed)
    values, nodes, weights = ["x"], [], {}
    for number in range(int(rng.integers(4, 9))):
        name = f"a{number}"
        taken = [values[int(at)] for at in rng.integers(0, len(values), 2)]
        if rng.random() < 0.6:
            weights[f"w{number}"] = (4, 4)
            nodes.append(f"{name} = MatMul ({taken[0]}, w{number})")
        else:
            nodes.append(f"{name} = Concat <axis=0> ({taken[0]}, {taken[1]})")
        values.append(name)
    ends = sorted({values[-1], values[int(rng.integers(1, len(values)))]})
    outputs = ", ".join(f"float[m,4] {end}" for end in ends)
    made = Net.load(net(f"(float[n,4] x) => ({outputs}) {{ {' '.join(nodes)} }}", weights=weights))
    places = find_places(made)[0]
    return made, {place: float(rng.integers(1, 9)) for place in places if rng.random() < 0.8}


def closed(made: Net, places: tuple[Place, ...]) -> bool:
    ends = {id(place.nodes[-1]) for place in places}
    open_values = {"x"}
    for node in made.graph.nodes:
        if open_values & set(node.inputs) and id(node) not in ends:
            open_values |= set(node.outputs)
    return not open_values & set(made.graph.output_names)


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_cheapest_of_all_sets(seed: int) -> None:
    made, costs = drawn(seed)
    sets = chain.from_iterable(combinations(costs, count) for count in range(len(costs) + 1))
    best = min((sum(costs[place] for place in each) for each in sets if closed(made, each)), default=None)
    found = barrier(made, costs)
    if best is None:
        assert found == []
    else:
        assert closed(made, tuple(found))
        assert sum(costs[place] for place in found) == best


def test_shapes_are_no_path_and_graphs_inside_nodes_are() -> None:
    made = Net.load(
        net(
            """(float[n,4,1] x) => (float[n,4,1] y) {
                s = Shape (x)
                a = Conv (x, w)
                b = Relu (a)
                y = Reshape (b, s)
            }""",
            weights={"w": (4, 4, 1)},
        )
    )
    (place,) = find_places(made)[0]
    assert barrier(made, {place: 1.0}) == [place]
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["inside"])], "b", [], [helper.make_tensor_value_info("inside", 1, None)]
    )
    model = made.model()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=body, else_branch=body))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    made = Net.load(model)
    (place,) = find_places(made)[0]
    assert barrier(made, {place: 1.0}) == []
