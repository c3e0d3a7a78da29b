import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.errors import ConfigError
from vambrace.models.normalise import Normalisation

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def by_hand(inputs: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Channel after channel, in a Python loop."""
    out = inputs.clone()
    for channel in range(inputs.shape[1]):
        out[:, channel] = (inputs[:, channel] - mean[channel]) / std[channel]
    return out


@given(
    st.sampled_from([(2, 3), (2, 3, 5), (2, 3, 4, 5), (1, 3, 2, 2, 2)]), st.sampled_from([torch.float32, torch.float64])
)
def test_equals_a_loop_bit_for_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(value, dtype=dtype).tolist() for value in (MEAN, STD))
    assert torch.equal(Normalisation(MEAN, STD)(inputs), by_hand(inputs, mean, std))


@pytest.mark.parametrize("mean", [0.5, (0.5,), [0.5], torch.tensor(0.5), torch.tensor([0.5])])
def test_one_value_holds_for_all(mean: object) -> None:
    inputs = torch.rand(2, 3, 4, 4)
    assert torch.equal(Normalisation(mean)(inputs), inputs - 0.5)


def test_a_full_tensor_broadcasts_against_a_sample() -> None:
    inputs, mean = torch.rand(2, 3, 4, 5), torch.rand(3, 4, 5)
    assert torch.allclose(Normalisation(mean)(inputs), inputs - mean)


def test_nothing_to_do_gives_the_same_tensor() -> None:
    inputs = torch.rand(2, 3)
    assert Normalisation()(inputs) is inputs
    assert Normalisation((), ()).is_identity


def test_channels_last_stays() -> None:
    inputs = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert Normalisation(MEAN, STD)(inputs).is_contiguous(memory_format=torch.channels_last)


def test_first_use_in_inference_mode_does_not_poison_later_graphs() -> None:
    normalise = Normalisation(MEAN, STD)
    with torch.inference_mode():
        normalise(torch.rand(1, 3, 2, 2))
    inputs = torch.rand(1, 3, 2, 2, requires_grad=True)
    normalise(inputs).sum().backward()
    assert torch.allclose(inputs.grad[0, 1], torch.full((2, 2), 1 / STD[1]))


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        (0.0, 0.0, "positive"),
        (0.0, -1.0, "positive"),
        (0.0, (1.0, 0.0, 1.0), "positive"),
        (float("nan"), 1.0, "finite"),
        (0.0, float("inf"), "finite"),
    ],
)
def test_values_that_cannot_be(mean: object, std: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Normalisation(mean, std)
    assert caught.value.code == "E114"


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 4, 4, 3), (3,)])
def test_another_number_of_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="one value per channel") as caught:
        Normalisation(MEAN, STD)(torch.rand(shape))
    assert caught.value.code == "E114"


def test_is_data() -> None:
    assert Normalisation((0.5,), None).as_json() == {"mean": [0.5], "std": None}
