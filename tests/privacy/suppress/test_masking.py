"""Masks of exact size, whatever the ties, shapes and types; noise and clips on what is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.privacy.suppress.masking import altered, emptied, kept_bits, smallest, zero_

VALUES = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 1e-30, math.inf, -math.inf, math.nan])
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def naive(weights: torch.Tensor, count: int, taken: torch.Tensor | None = None) -> torch.Tensor:
    """One element after the other, in an order that a sort of keys gives."""
    flat, first = weights.flatten().tolist(), [] if taken is None else taken.flatten().tolist()
    keys = [
        (not (first and first[i]), math.inf if math.isnan(value) else abs(value), i) for i, value in enumerate(flat)
    ]
    mask = torch.zeros(weights.numel(), dtype=torch.bool)
    for _, _, index in sorted(keys)[:count]:
        mask[index] = True
    return mask.reshape(weights.shape)


@given(st.lists(VALUES, min_size=1, max_size=24), st.sampled_from(DTYPES), st.data())
def test_exactly_as_many_as_asked_and_the_same_as_one_by_one(
    values: list[float], dtype: torch.dtype, data: st.DataObject
) -> None:
    weights = torch.tensor(values, dtype=torch.float64).to(dtype)
    before = data.draw(st.integers(0, len(values)))
    taken = torch.zeros(len(values), dtype=torch.bool)
    taken[data.draw(st.permutations(range(len(values))))[:before]] = True
    count = data.draw(st.integers(before, len(values)))
    mask = smallest(weights, count, taken)
    assert mask.dtype == torch.bool
    assert int(mask.sum()) == count
    assert bool(mask[taken].all())
    assert torch.equal(mask, naive(weights, count, taken))
    assert torch.equal(smallest(weights, count), naive(weights, count))


def test_position_is_row_major_whatever_the_memory_format() -> None:
    weights = torch.ones(2, 3, 4, 5)
    expected = torch.arange(120).reshape(2, 3, 4, 5) < 50
    assert torch.equal(smallest(weights, 50), expected)
    assert torch.equal(smallest(weights.to(memory_format=torch.channels_last), 50), expected)
    assert torch.equal(smallest(torch.ones(5, 2).T, 3).flatten(), torch.arange(10) < 3)


def test_close_values_of_float64_are_told_apart() -> None:
    weights = torch.tensor([1.0 + 1e-12, 1.0], dtype=torch.float64)
    assert smallest(weights, 1).tolist() == [False, True]


def test_nothing_of_nothing() -> None:
    assert smallest(torch.empty(0, 3), 0).shape == (0, 3)
    assert smallest(torch.empty(3), 0).tolist() == [False] * 3


def test_noise_is_for_large_kept_weights_only() -> None:
    weights = torch.tensor([0.1, -1.0, 0.7, 0.8, 9.0])
    mask = torch.tensor([True, False, False, False, True])  # 9.0 is masked, so 1.0 is the largest
    found = altered(weights, mask, noise=torch.full((5,), 0.25), noise_above=0.75)
    assert found.tolist() == pytest.approx([0.0, -0.75, 0.7, 1.05, 0.0])


def test_clips_are_for_kept_weights_and_keep_signs() -> None:
    weights = torch.tensor([0.001, 0.004, -0.004, 3.0, -3.0, 0.5])
    mask = torch.tensor([True, False, False, False, False, False])
    found = altered(weights, mask, lower_clip=0.005, upper_clip=1.25)
    assert found.tolist() == pytest.approx([0.0, 0.005, -0.005, 1.25, -1.25, 0.5])


def test_the_lower_clip_waits_until_masks_have_reached_half_of_it() -> None:
    mask = torch.tensor([True, False, False])
    early, late = torch.tensor([0.0, 0.0025, 0.004]), torch.tensor([0.0, 0.0026, 0.004])
    assert torch.equal(altered(early, mask, lower_clip=0.005), early)
    assert altered(late, mask, lower_clip=0.005).tolist() == pytest.approx([0.0, 0.005, 0.005])


def test_noise_does_not_leave_the_upper_clip() -> None:
    found = altered(torch.tensor([1.0, 0.1]), torch.tensor([False, False]), noise=torch.ones(2), upper_clip=1.5)
    assert found.tolist() == pytest.approx([1.5, 0.1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_stay_and_zero_is_zero_without_a_sign(dtype: torch.dtype) -> None:
    weights = torch.tensor([-0.0, math.nan, -math.inf, -1.0], dtype=dtype)
    found = altered(weights, torch.tensor([True, True, True, False]), lower_clip=0.1)
    assert found.dtype == dtype
    assert torch.signbit(found).tolist() == [False, False, False, True]
    assert found.tolist() == [0, 0, 0, -1]


def test_gradients_of_nan_are_emptied_in_place() -> None:
    gradient = torch.tensor([math.nan, 1.0])
    assert emptied(gradient, kept_bits(torch.tensor([True, False]), gradient)) is gradient
    assert gradient.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn, torch.int64])
def test_bits_zero_every_type_whatever_it_holds(dtype: torch.dtype) -> None:
    values = torch.tensor([math.nan, -2.0, -1.0, 3.0] if dtype.is_floating_point else [5, -2, -1, 3]).to(dtype)
    for like in (values, torch.empty(0, dtype=torch.bfloat16)):  # masks made for another width fit as well
        tensor = values.clone()
        assert zero_(tensor, kept_bits(torch.tensor([True, True, False, False]), like)) is tensor
        assert tensor.double().tolist() == [0, 0, -1, 3]
        assert not bool(torch.signbit(tensor.double()[:2]).any())


def test_bits_zero_tensors_of_any_strides_and_tell_autograd() -> None:
    mask = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    bits = kept_bits(mask, torch.empty(0))
    last = torch.ones(3, 4, 5, 6).to(memory_format=torch.channels_last)
    assert torch.equal(zero_(last, bits) == 0, mask)
    turned = torch.ones(6, 5, 4, 3).permute(3, 2, 1, 0)
    assert torch.equal(zero_(turned, bits) == 0, mask)
    used = torch.ones(2, requires_grad=True)
    product = used * used
    zero_(used, kept_bits(torch.tensor([True, False]), used))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_sparse_gradients_are_emptied_too() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, math.inf]])
    sparse = torch.sparse_coo_tensor([[2, 0, 2]], values, (4, 2), check_invariants=True)
    mask = torch.tensor([[False, True], [True, True], [False, True], [False, False]])
    found = emptied(sparse, kept_bits(mask, sparse))
    assert found.is_sparse
    np.testing.assert_array_equal(found.to_dense().numpy(), [[3, 0], [0, 0], [6, 0], [0, 0]])
