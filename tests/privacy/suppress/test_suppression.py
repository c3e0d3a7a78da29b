"""A suppression at work: exact counts after every step, and zero stays zero under every optimizer.

`held` is what must be true after each step. At the end of the file it is shown to fail on suppressions made wrong on
purpose.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vambrace.core import tree
from vambrace.core.rng import Streams
from vambrace.errors import ConfigError
from vambrace.privacy import suppress
from vambrace.privacy.suppress import suppression as under_test
from vambrace.privacy.suppress.masking import smallest, zero_

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1, amsgrad=True),
    "adam without eps": lambda p: torch.optim.Adam(p, lr=0.05, eps=0.0),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "adamw, foreach": lambda p: torch.optim.AdamW(p, lr=0.05, foreach=True),
    "adamw, fused": lambda p: torch.optim.AdamW(p, lr=0.05, fused=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.05),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.05),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.05, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "adadelta": torch.optim.Adadelta,
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.05),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.05),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05),
}
STEPS = 12
OPTIONS = suppress.Suppression(layers=("0.weight",), start_step=2, end_step=9, every=3, end_sparsity=0.8)


def net(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def batch(step: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=drawn).to(dtype), torch.randint(3, (8,), generator=drawn)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range, after: Callable[[int], None]) -> None:
    """An ordinary loop: it knows nothing of suppression."""
    dtype = next(module.parameters()).dtype
    for step in steps:
        inputs, labels = batch(step, dtype)
        optimizer.zero_grad()
        F.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
        after(step)


def expected(options: suppress.Suppression, size: int, step: int) -> int:
    """The count by exact arithmetic, written anew."""
    start, end = options.start_step, options.end_step
    at = [t for t in range(max(start, 1), min(step, end) + 1) if (t - start) % options.every == 0 or t == end]
    if not at:
        return 0
    first, last = (Fraction(str(share)) for share in (options.start_sparsity, options.end_sparsity))
    left = 1 - Fraction(at[-1] - start, end - start) if end > start else Fraction(0)
    return max(min(math.floor((last - (last - first) * left**3) * size), size - options.keep_at_least), 0)


def held(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    handle: suppress.Handle,
    step: int,
    before: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """What must be true after a step; the masks, for the next look."""
    masks, named = handle.masks(), dict(module.named_parameters())
    assert handle.steps == step
    for name, mask in masks.items():
        parameter = named[name]
        count = expected(handle.suppression, parameter.numel(), step)
        assert mask.shape == parameter.shape
        assert int(mask.sum()) == count == handle.counts()[name][0]
        assert int((parameter == 0).sum()) == count, "as many zeros as masked, nowhere else"
        assert not bool(parameter[mask].any())
        assert not bool(torch.signbit(parameter[mask]).any())
        if parameter.grad is not None:
            assert not bool(parameter.grad[mask].any())
        for key, kept in optimizer.state.get(parameter, {}).items():
            if isinstance(kept, Tensor) and kept.shape == parameter.shape:
                assert not bool(kept[mask].any()), f"{key} remembers masked weights"
        if before is not None:
            assert bool(mask[before[name]].all()), "what is masked stays masked"
    for name, parameter in named.items():
        if name not in masks:
            assert bool((parameter != 0).all()), f"{name} was not chosen"
    return masks


def run(module: nn.Module, optimizer: torch.optim.Optimizer, options: suppress.Suppression) -> suppress.Handle:
    """Train and look after every step."""
    with options.attach(module, optimizer) as handle:
        seen: list[dict[str, Tensor]] = []
        train(
            module,
            optimizer,
            range(1, STEPS + 1),
            lambda step: seen.append(held(module, optimizer, handle, step, seen[-1] if seen else None)),
        )
    return handle


# ---- zero stays zero --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masked_weights_and_what_the_optimizer_remembers_of_them_stay_zero(name: str) -> None:
    module = net()
    handle = run(module, OPTIMIZERS[name](module.parameters()), OPTIONS)
    assert handle.counts() == {"0.weight": (33, 42)}
    assert handle.sparsity() == 33 / 42
    assert all(bool(parameter.isfinite().all()) for parameter in module.parameters())


def test_muon_which_mixes_the_elements_of_a_gradient() -> None:
    module = nn.Sequential(nn.Linear(6, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False))
    run(module, torch.optim.Muon(module.parameters(), lr=0.05), OPTIONS)


def test_lbfgs_whose_gradients_come_inside_of_its_step() -> None:
    module = net()
    optimizer = torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=3)
    inputs, labels = batch(0)
    with OPTIONS.attach(module, optimizer) as handle:

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(module(inputs), labels)
            loss.backward()
            assert not bool(module[0].weight.grad[handle.masks()["0.weight"]].any())
            return loss

        for step in range(1, STEPS + 1):
            optimizer.step(closure)
            held(module, optimizer, handle, step)


def test_an_embedding_with_sparse_gradients() -> None:
    module = nn.Embedding(9, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(module.parameters(), lr=0.1)
    options = suppress.Suppression(layers=("weight",), end_step=4, every=1, end_sparsity=0.5)
    with options.attach(module, optimizer) as handle:
        for step in range(1, 7):
            optimizer.zero_grad()
            (module(torch.tensor([step % 3, 4, 4])) - 1).square().sum().backward()
            mask = handle.masks()["weight"]
            assert module.weight.grad.is_sparse
            assert not bool(module.weight.grad.to_dense()[mask].any())
            optimizer.step()
            assert int((module.weight == 0).sum()) == int(handle.masks()["weight"].sum()) == options.masked(36, step)
            for kept in optimizer.state[module.weight].values():
                assert not isinstance(kept, Tensor) or not bool(kept[handle.masks()["weight"]].any())
    assert int((module.weight == 0).sum()) == 18


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_other_types(name: str, dtype: torch.dtype) -> None:
    module = net(dtype=dtype)
    run(module, OPTIMIZERS[name](module.parameters()), OPTIONS)


@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    start=st.integers(0, 4),
    length=st.integers(0, 6),
    every=st.integers(1, 4),
    shares=st.tuples(st.integers(0, 99), st.integers(1, 99)),
    keep=st.integers(1, 3),
    name=st.sampled_from(["momentum", "adamw"]),
)
@settings(max_examples=60)
def test_counts_are_exact_at_every_step_for_any_shape(
    shape: list[int], start: int, length: int, every: int, shares: tuple[int, int], keep: int, name: str
) -> None:
    low, high = sorted(shares)
    options = suppress.Suppression(
        layers=("w",),
        start_step=start,
        end_step=max(start + length, 1),
        start_sparsity=low / 100,
        end_sparsity=high / 100,
        every=every,
        keep_at_least=keep,
    )
    module = nn.Module()
    module.w = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))) + 0.0)
    optimizer = OPTIMIZERS[name]([module.w])
    before = None
    with options.attach(module, optimizer) as handle:
        for step in range(1, 13):
            optimizer.zero_grad()
            (module.w - step).square().sum().backward()
            optimizer.step()
            before = held(module, optimizer, handle, step, before)


def test_the_same_as_a_loop_written_by_hand() -> None:
    ours, theirs = net(), net()
    options = suppress.Suppression(layers=("*.weight",), start_step=1, end_step=8, every=1, end_sparsity=0.6)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    with options.attach(ours, optimizer):
        train(ours, optimizer, range(1, STEPS + 1), lambda step: None)

    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    weights = [theirs[0].weight, theirs[2].weight]
    masks = [torch.zeros_like(weight, dtype=torch.bool) for weight in weights]

    def prune(step: int) -> None:
        share = 0.6 - 0.6 * (1 - (min(step, 8) - 1) / 7) ** 3
        for weight, mask in zip(weights, masks, strict=True):
            with torch.no_grad():
                weight[mask] = 0
                order = torch.argsort(weight.abs().flatten() - mask.flatten().float(), stable=True)
                mask.view(-1)[order[: math.floor(share * weight.numel() + 1e-9)]] = True
                weight[mask] = 0
                plain.state[weight]["momentum_buffer"][mask] = 0

    train(theirs, plain, range(1, STEPS + 1), prune)
    assert all(torch.equal(one, two) for one, two in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert options.masked(42, STEPS) == 25


# ---- gradients, hooks, loops ------------------------------------------------------------------------------------


def halfway(name: str = "momentum") -> tuple[nn.Sequential, torch.optim.Optimizer, suppress.Handle, Tensor]:
    """A suppressed network in the middle of training, and its mask."""
    module = net()
    optimizer = OPTIMIZERS[name](module.parameters())
    handle = OPTIONS.attach(module, optimizer)
    train(module, optimizer, range(1, 7), lambda step: None)
    return module, optimizer, handle, handle.masks()["0.weight"]


def test_gradients_are_empty_right_after_backward_also_when_summed_up() -> None:
    module, optimizer, _, mask = halfway()
    optimizer.zero_grad()
    for number in range(2):
        inputs, labels = batch(number)
        F.cross_entropy(module(inputs), labels).backward()
        assert not bool(module[0].weight.grad[mask].any())
    assert bool(module[0].weight.grad[~mask].all())


def test_gradients_written_by_hand_are_emptied_before_the_step() -> None:
    module, optimizer, _, mask = halfway()
    seen: list[Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(module[0].weight.grad.clone()))
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, math.nan).where(parameter == 0, 1.0)
    optimizer.step()
    assert bool((seen[0][mask] == 0).all())
    assert bool((seen[0][~mask] == 1).all())
    assert bool((module[0].weight[mask] == 0).all())


def test_a_gradient_of_nan_leaves_zero_zero() -> None:
    module, optimizer, _, mask = halfway("adamw")
    optimizer.zero_grad()
    (module(batch(0)[0]).sum() * math.nan).backward()
    optimizer.step()
    assert bool((module[0].weight[mask] == 0).all())


def test_a_step_that_is_skipped_or_fails_is_not_counted() -> None:
    module, optimizer, handle, _ = halfway()

    def fails() -> Tensor:
        raise ValueError("no loss")

    with pytest.raises(ValueError, match="no loss"):
        optimizer.step(fails)
    assert handle.steps == 6
    train(module, optimizer, range(7, 9), lambda step: held(module, optimizer, handle, step))


def test_an_optimizer_that_calls_its_base_class_counts_once() -> None:
    class Twice(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    torch.optim.SGD([torch.ones(1)], lr=0.1)  # the base class gets its hooks when it is first used
    module = net()
    run(module, Twice(module.parameters(), lr=0.1, momentum=0.9), OPTIONS)


def test_networks_and_optimizers_keep_their_form() -> None:
    module, optimizer, _, _ = halfway()
    assert list(module.state_dict()) == list(net().state_dict())
    copied = copy.deepcopy(module)
    inputs, labels = batch(0)
    F.cross_entropy(copied(inputs), labels).backward()
    assert bool(copied[0].weight.grad.all()), "a copy is not suppressed"
    fresh = OPTIMIZERS["momentum"](net().parameters())
    assert set(optimizer.state_dict()) == set(fresh.state_dict())


def test_looking_for_state_leaves_none_behind() -> None:
    module = net()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    run(module, optimizer, OPTIONS)
    assert not optimizer.state


def test_tied_weights_are_masked_once_and_seen_by_both() -> None:
    module = nn.ModuleDict({"embed": nn.Embedding(10, 4), "head": nn.Linear(4, 10, bias=False)})
    module["head"].weight = module["embed"].weight
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    options = suppress.Suppression(layers=("head.weight",), end_step=3, every=1, end_sparsity=0.5)
    with options.attach(module, optimizer) as handle:
        for step in range(1, 6):
            optimizer.zero_grad()
            tokens = torch.arange(10)
            F.cross_entropy(module["head"](module["embed"](tokens)), (tokens + step) % 10).backward()
            optimizer.step()
            held(module, optimizer, handle, step)
    assert handle.counts() == {"embed.weight": (20, 40)}
    assert int((module["head"].weight == 0).sum()) == 20


def test_detached_is_stopped_and_nothing_is_restored() -> None:
    module, optimizer, handle, mask = halfway()
    handle.detach()
    handle.detach()
    assert bool((module[0].weight[mask] == 0).all())
    train(module, optimizer, range(7, 9), lambda step: None)
    assert bool((module[0].weight[mask] != 0).any())
    assert handle.steps == 6
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks


def test_an_exception_in_the_loop_detaches() -> None:
    module = net()
    optimizer = OPTIMIZERS["sgd"](module.parameters())
    with pytest.raises(KeyError), OPTIONS.attach(module, optimizer):
        raise KeyError
    assert not optimizer._optimizer_step_post_hooks


# ---- noise and clips --------------------------------------------------------------------------------------------

NOISY = suppress.Suppression(
    layers=("0.weight",),
    end_step=4,
    every=1,
    end_sparsity=0.5,
    add_noise=0.01,
    noise_above=0.5,
    lower_clip=0.05,
    upper_clip=0.3,
)


def noisy(rng: Streams | int, dtype: torch.dtype = torch.float32, **changed: Any) -> Tensor:
    """First weights after four steps of a learning rate of nothing."""
    module = net(dtype=dtype)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    options = suppress.Suppression(**{**vars_of(NOISY), **changed})
    with options.attach(module, optimizer, rng=rng) as handle:
        train(module, optimizer, range(1, 5), lambda step: None)
        assert int((module[0].weight == 0).sum()) == handle.counts()["0.weight"][0]
    return module[0].weight.detach()


def vars_of(options: suppress.Suppression) -> dict[str, Any]:
    return {**options.as_json(), "layers": options.layers}


def test_noise_comes_from_its_stream_alone() -> None:
    state = torch.random.get_rng_state()
    assert torch.equal(noisy(3), noisy(3))
    assert torch.equal(noisy(3), noisy(Streams(3)))
    assert not torch.equal(noisy(3), noisy(4))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_noise_moves_large_weights_a_little_and_each_growth_anew(dtype: torch.dtype) -> None:
    changed = {"lower_clip": None, "upper_clip": None, "noise_above": 0.5}
    still = noisy(0, dtype, **{**changed, "add_noise": 0.0}).double()
    moved = noisy(0, dtype, **changed).double() - still
    large = still.abs() > 0.6 * still.abs().max()
    share = float((moved[large] != 0).double().mean())
    assert share == 1 or (dtype == torch.bfloat16 and share > 0.5)  # some noise is below bfloat16's last digit
    assert float(moved.abs().max()) <= 4 * 0.01 + (0.01 if dtype == torch.bfloat16 else 1e-6)
    assert float(moved.abs().max()) > 0.01, "more than one draw could have moved it"
    assert not bool(moved[still.abs() < 0.4 * still.abs().max()].any())


def test_noise_is_uniform_to_both_sides_and_drawn_anew_for_each_step_and_parameter() -> None:
    module = nn.ParameterDict({"a": nn.Parameter(torch.ones(40, 5)), "b": nn.Parameter(torch.ones(40, 5))}).double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    options = suppress.Suppression(
        layers=("*",), end_step=6, every=1, end_sparsity=0.0, add_noise=0.01, noise_above=0.5
    )
    drawn: list[Tensor] = []
    with options.attach(module, optimizer):
        for _ in range(6):
            before = {name: parameter.detach().clone() for name, parameter in module.items()}
            for parameter in module.values():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            drawn += [module[name].detach() - before[name] for name in before]
    assert len({tuple(each.flatten().tolist()) for each in drawn}) == 12
    scaled = torch.stack(drawn).flatten() / 0.01
    assert float(scaled.abs().max()) <= 1 + 1e-9
    # 2,400 draws: five standard errors of the mean are 0.059, those of the standard deviation 0.026.
    assert abs(float(scaled.mean())) < 0.06
    assert abs(float(scaled.std()) - 1 / math.sqrt(3)) < 0.03  # two thirds or three halves of it are 0.19 away or more


def test_clips_hold_after_the_last_growth() -> None:
    weights = noisy(0).abs()
    kept = weights[weights > 0]
    assert float(kept.max()) == pytest.approx(0.3)
    assert float(kept.min()) >= 0.05 - 1e-8


def test_noise_alone_needs_no_mask() -> None:
    assert bool(noisy(0, end_sparsity=0.0, lower_clip=None).all())


# ---- state ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_run_that_is_cut_and_goes_on_is_the_run_that_was_not(name: str) -> None:
    options = suppress.Suppression(**{**vars_of(OPTIONS), "add_noise": 0.01, "every": 2})

    def start(module: nn.Module) -> tuple[torch.optim.Optimizer, suppress.Handle]:
        optimizer = OPTIMIZERS[name](module.parameters())
        return optimizer, options.attach(module, optimizer, rng=Streams(5).child("here"))

    whole = net()
    optimizer, _ = start(whole)
    train(whole, optimizer, range(1, STEPS + 1), lambda step: None)

    cut = net()
    optimizer, handle = start(cut)
    train(cut, optimizer, range(1, 6), lambda step: None)
    saved = tree.encode({"net": cut.state_dict(), "optimizer": optimizer.state_dict(), "suppression": handle.state()})

    again = net(seed=1)
    optimizer, handle = start(again)
    loaded = tree.decode(saved)
    again.load_state_dict(loaded["net"])
    optimizer.load_state_dict(loaded["optimizer"])
    handle.restore(loaded["suppression"])
    assert handle.steps == 5
    train(again, optimizer, range(6, STEPS + 1), lambda step: held(again, optimizer, handle, step))
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), again.parameters(), strict=True))


def test_restored_masks_empty_weights_at_once_and_are_copies() -> None:
    _, _, handle, mask = halfway()
    state = handle.state()
    module = net(seed=1)
    optimizer = OPTIMIZERS["momentum"](module.parameters())
    other = OPTIONS.attach(module, optimizer)
    other.restore(state)
    assert torch.equal(module[0].weight == 0, mask)
    state["masks"]["0.weight"].zero_()
    assert torch.equal(other.masks()["0.weight"], mask)
    other.masks()["0.weight"].zero_()
    assert torch.equal(other.masks()["0.weight"], mask)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"steps": 5.0},
        {"steps": -1},
        {"steps": 9},
        {"seed": 1},
        {"path": ["x"]},
        {"masks": None},
        {"masks": {}},
        {"masks": {"0.weight": None}},
        {"masks": {"2.weight": torch.zeros(3, 7, dtype=torch.bool)}},
        {"masks": {"0.weight": torch.zeros(7, 6, dtype=torch.bool)}},
        {"masks": {"0.weight": torch.zeros(7, 6)}},
        {"masks": {"0.weight": torch.ones(42, dtype=torch.bool)}},
        {"suppression": {}},
        {"suppression": suppress.Suppression(layers=("0.weight",), end_step=9).as_json()},
    ],
    ids=str,
)
def test_the_state_of_another_run_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    module, _, handle, mask = halfway()
    before = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(ConfigError) as caught:
        handle.restore({**handle.state(), **change})
    assert caught.value.code == "E182"
    assert handle.steps == 6
    assert torch.equal(handle.masks()["0.weight"], mask)
    assert all(torch.equal(one, two) for one, two in zip(before, module.parameters(), strict=True))


def test_a_state_without_a_part_is_refused() -> None:
    _, _, handle, _ = halfway()
    for key in handle.state():
        state = handle.state()
        del state[key]
        with pytest.raises(ConfigError, match="E182"):
            handle.restore(state)


# ---- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"layers": ()},
        {"layers": "fc1.weight"},
        {"layers": ["fc1.weight"]},
        {"layers": (1,)},
        {"end_step": 0},
        {"end_step": 2.0},
        {"end_step": True},
        {"start_step": -1},
        {"start_step": 11},
        {"every": 0},
        {"keep_at_least": 0},
        {"end_sparsity": 1.0},
        {"end_sparsity": -0.1},
        {"end_sparsity": math.nan},
        {"start_sparsity": 0.95},
        {"start_sparsity": -0.1},
        {"add_noise": -1.0},
        {"add_noise": math.inf},
        {"noise_above": 1.5},
        {"lower_clip": 0.0},
        {"lower_clip": math.nan},
        {"upper_clip": 0.0},
        {"lower_clip": 1.0, "upper_clip": 0.5},
        {"end_sparsity": 0.0},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        suppress.Suppression(**{"layers": ("fc1.weight",), "end_step": 10, **options})
    assert caught.value.code == "E180"
    assert list(options)[-1] in caught.value.seen or list(options)[0] in caught.value.seen


def test_arguments_in_the_wrong_order_are_refused() -> None:
    module = net()
    optimizer = OPTIMIZERS["sgd"](module.parameters())
    for pair in ((optimizer, module), (module, object())):
        with pytest.raises(ConfigError) as caught:
            OPTIONS.attach(*pair)
        assert caught.value.code == "E182"


# ---- wrong on purpose -------------------------------------------------------------------------------------------


def _only_growth_masks_weights(self: Any) -> None:
    """Weights are zeroed when masks grow and never again: momentum revives them."""


def _weights_stay(self: Any) -> None:
    """All but the weights are emptied."""
    for name, bits in self._bits.items():
        self._empty_gradient(name)
        for kept in self._optimizer.state.get(self._parameters[name], {}).values():
            if isinstance(kept, Tensor) and kept.shape == bits.shape:
                zero_(kept, bits)


def _momentum_stays(self: Any) -> None:
    for name, bits in self._bits.items():
        zero_(self._parameters[name], bits)


def _next_layer(true: Callable[..., Any]) -> Callable[..., Any]:
    def chosen(module: nn.Module, patterns: Any, optimizer: Any) -> dict[str, nn.Parameter]:
        found = true(module, patterns, optimizer)
        named = dict(module.named_parameters())
        return dict(zip(found, [named["2.weight"]] * len(found), strict=True))

    return chosen


@contextmanager
def wrong(patch: pytest.MonkeyPatch, mutant: str) -> Iterator[None]:
    kind = under_test.Handle
    count = under_test.masked_count
    with patch.context() as here:
        match mutant:
            case "weights are masked when masks grow only":
                here.setattr(kind, "_empty", _only_growth_masks_weights)
            case "weights are not masked after steps":
                here.setattr(kind, "_empty", _weights_stay)
            case "momentum is not masked":
                here.setattr(kind, "_empty", _momentum_stays)
            case "another layer":
                here.setattr(under_test, "chosen", _next_layer(under_test.chosen))
            case "the schedule is a step early" | "the schedule is a step late":
                by = 1 if "early" in mutant else -1
                true = under_test.cubic
                here.setattr(under_test, "cubic", lambda step, **rest: true(step + by, **rest))
            case "masks grow a step late":
                last = under_test.last_growth
                here.setattr(under_test, "last_growth", lambda step, **rest: last(step - 1, **rest))
            case "one too many":
                here.setattr(under_test, "masked_count", lambda *given, **rest: count(*given, **rest) + 1)
            case "masks are drawn anew":
                here.setattr(under_test, "smallest", lambda weights, many, taken=None: smallest(-1 / weights, many))
            case "the largest are masked":
                here.setattr(under_test, "smallest", lambda weights, many, taken=None: smallest(1 / weights, many))
            case _:
                raise AssertionError(mutant)
        yield


@pytest.mark.parametrize(
    "mutant",
    [
        "weights are masked when masks grow only",
        "weights are not masked after steps",
        "momentum is not masked",
        "another layer",
        "the schedule is a step early",
        "the schedule is a step late",
        "masks grow a step late",
        "one too many",
        "masks are drawn anew",
    ],
)
def test_what_is_wrong_on_purpose_is_noticed(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where gradient and momentum are empty, most optimizers leave a weight of 0 alone. Adam without eps makes it NaN.
    name = "adam without eps" if mutant == "weights are not masked after steps" else "momentum"
    module = net()
    with wrong(monkeypatch, mutant), pytest.raises(AssertionError):
        run(module, OPTIMIZERS[name](module.parameters()), OPTIONS)


def test_masking_the_largest_is_noticed_by_the_loop_written_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    with wrong(monkeypatch, "the largest are masked"), pytest.raises(AssertionError):
        test_the_same_as_a_loop_written_by_hand()
