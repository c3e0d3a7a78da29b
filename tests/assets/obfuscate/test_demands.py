"""Sizes that weights ask for where every axis of an input is open."""

from __future__ import annotations

import pytest

from onnx_nets import answers, apart, attention, feeds, net
from vambrace.assets.obfuscate.demands import demanded
from vambrace.assets.obfuscate.net import Net
from vambrace.assets.obfuscate.pipeline import onnx_model
from vambrace.assets.obfuscate.shapes import sizes_of


@pytest.mark.parametrize(
    ("rank", "body", "weights", "found"),
    [
        (4, "y = Conv <group=2> (x, w)", {"w": (6, 2, 1, 1)}, {1: 4}),
        (4, "y = ConvTranspose (x, w)", {"w": (6, 2, 1, 1)}, {1: 6}),
        (2, "y = Gemm (x, w)", {"w": (6, 2)}, {1: 6}),
        (2, "y = Gemm <transB=1> (x, w)", {"w": (6, 2)}, {1: 2}),
        (2, "y = Gemm <transA=1> (x, w)", {"w": (6, 2)}, {0: 6}),
        (3, "y = MatMul (x, w)", {"w": (6, 2)}, {2: 6}),
        (3, "a = Relu (x)\n y = MatMul (a, w)", {"w": (6, 2)}, {2: 6}),
        (3, "y = Add (w, x)", {"w": (5, 1)}, {1: 5}),
        (3, "a = Sub (x, v)\n y = MatMul (a, w)", {"v": (5, 1), "w": (6, 2)}, {1: 5, 2: 6}),
        (3, "y = LayerNormalization <axis=-1> (x, w, w)", {"w": (7,)}, {2: 7}),
        (4, "a = InstanceNormalization (x, v, v)\n y = Conv (a, w)", {"v": (3,), "w": (6, 3, 2, 2)}, {1: 3}),
        (3, "a = Transpose <perm=[0,2,1]> (x)\n y = MatMul (a, w)", {"w": (6, 2)}, {}),
        (3, "a = Add (x, x)\n y = MatMul (a, w)", {"w": (6, 2)}, {}),
        (2, "y = MatMul (w, x)", {"w": (6, 2)}, {}),
    ],
)
def test_what_weights_ask_for(rank: int, body: str, weights: dict[str, tuple[int, ...]], found: dict[int, int]) -> None:
    sizes = [f"float[{','.join(f'{name}{axis}' for axis in range(rank))}]" for name in "pq"]
    made = Net.load(net(f"({sizes[0]} x) => ({sizes[1]} y) {{ {body} }}", weights=weights))
    assert demanded(made) == {("x", axis): size for axis, size in found.items()}


def test_a_network_whose_axes_are_all_open_is_obfuscated_as_one_whose_features_are_stated() -> None:
    stated, open_net = attention(), attention()
    for axis, size in enumerate(open_net.graph.input[0].type.tensor_type.shape.dim):
        size.dim_param = f"axis{axis}"
    names = {name for node in stated.graph.node for name in node.output}
    assert names <= sizes_of(Net.load(open_net)).shapes.keys()
    made = [onnx_model(each, profile="tolerance", seed=1, ratio="large") for each in (stated, open_net)]
    done = [{entry.name: entry.done for entry in each.map.passes} for each in made]
    for name in ("rebasis", "baked_permutation"):
        assert done[0][name] == done[1][name] > 0
    given = feeds(stated)
    assert apart(answers(stated, given), answers(made[1].model, given)) < 1e-5
