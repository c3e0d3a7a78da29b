from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vambrace.errors import ModelRefused
from vambrace.models.state import fill, pick


def network(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def weights(width: int = 4) -> dict[str, torch.Tensor]:
    return {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in network(width).state_dict().items()
    }


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


def refused(net: nn.Module, state: dict[str, torch.Tensor], **options: str) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        fill(net, state, **options)
    assert caught.value.code == "E208"
    return caught.value


def test_every_value_arrives() -> None:
    net, state = network(), weights()
    fill(net, state)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.net."])
def test_a_prefix_is_stripped_and_suggested(prefix: str) -> None:
    state = prefixed(prefix, weights())
    error = refused(network(), state)
    assert f"strip_prefix='{prefix}'" in error.fix
    net = network()
    fill(net, state, strip_prefix=prefix)
    assert torch.equal(net[0].weight, state[prefix + "0.weight"])


def test_a_wrong_prefix_is_corrected() -> None:
    assert "'module.'" in refused(network(), prefixed("module.", weights()), strip_prefix="model.").fix
    assert "drop --strip-prefix" in refused(nn.Sequential(network()), prefixed("0.", weights()), strip_prefix="0.").fix


def test_a_factory_that_wraps_the_network_is_told_so() -> None:
    error = refused(nn.ModuleDict({"inner": network()}), weights())
    assert "wraps it as 'inner'" in error.fix


def test_missing_and_unexpected_names_are_listed() -> None:
    state = weights()
    state["extra"] = state.pop("0.bias")
    error = refused(network(), state)
    assert "1 missing (0.bias)" in error.seen
    assert "1 unexpected (extra)" in error.seen


def test_another_width_is_named() -> None:
    error = refused(network(5), weights(4))
    assert "0.weight has shape (4, 3), the network needs (5, 3)" in error.seen
    assert "architecture or width" in error.fix


def test_whole_numbers_do_not_become_weights() -> None:
    state = weights() | {"0.bias": torch.ones(4, dtype=torch.int8)}
    assert "torch.int8" in refused(network(), state).seen


def test_half_weights_are_widened() -> None:
    net, state = (
        network(),
        {name: value.half() if value.is_floating_point() else value for name, value in weights().items()},
    )
    fill(net, state)
    assert net[0].weight.dtype == torch.float32
    assert torch.equal(net[0].weight.half(), state["0.weight"])


def test_two_names_may_not_become_one() -> None:
    state = weights() | prefixed("module.", weights())
    assert "two names that become one" in refused(network(), state, strip_prefix="module.").seen


def test_older_checkpoints_without_batch_counters() -> None:
    state = {name: value for name, value in weights().items() if "num_batches" not in name}
    net = network()
    fill(net, state)
    assert torch.equal(net[1].running_mean, state["1.running_mean"])
    assert "'module.'" in refused(network(), prefixed("module.", state)).fix


def test_versions_that_modules_saved_are_kept() -> None:
    saved = nn.DataParallel(network()).state_dict()
    assert isinstance(saved, OrderedDict)
    fill(network(), saved, strip_prefix="module.")
    assert hasattr(saved, "_metadata")


def test_shared_weights_may_be_saved_once() -> None:
    net = network()
    net.add_module("again", net[0])
    fill(net, weights())
    state = weights() | {"0.weight": None}
    del state["0.weight"]
    assert "missing" in refused(net, state).seen


def test_parameters_without_a_shape_yet() -> None:
    net = nn.Sequential(nn.LazyLinear(2))
    fill(net, {"0.weight": torch.ones(2, 5), "0.bias": torch.zeros(2)})
    assert net[0].weight.shape == (2, 5)


@given(st.sampled_from(["", "state_dict", "model.state_dict", "a.b.c"]))
def test_the_place_is_found_and_suggested(key: str) -> None:
    state: object = weights()
    for part in reversed(key.split(".") if key else []):
        state = {"epoch": 3, part: state, "optimizer": {"lr": 0.1, "exp_avg": {"x": torch.zeros(1)}}}
    assert pick(state, state_key=key).keys() == weights().keys()
    for wrong in ("nowhere", "" if key else "epoch"):
        with pytest.raises(ModelRefused) as caught:
            pick(state, state_key=wrong, network=network())
        assert caught.value.code == "E209"
        assert f"state_key={key!r}" in caught.value.fix if key else "drop --state-key" in caught.value.fix


@pytest.mark.parametrize(
    "checkpoint", [{}, [], torch.zeros(1), None, {"a": 1}, {1: torch.zeros(1)}, {"a": [torch.zeros(1)]}]
)
def test_checkpoints_without_any(checkpoint: object) -> None:
    with pytest.raises(ModelRefused, match="save the weights as"):
        pick(checkpoint)


def test_modules_with_extra_state() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"version": 1}

        def set_extra_state(self, state: object) -> None:
            self.seen = state

    net = Extra(1, 1)
    fill(net, pick(Extra(1, 1).state_dict()))
    assert net.seen == {"version": 1}
