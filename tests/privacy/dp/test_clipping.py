"""Options of clipping, and the mathematics from norms to factors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.errors import ConfigError
from vambrace.privacy.dp.clipping import AdaptiveQuantile, Automatic, Flat, PerLayer, moved

INFINITE = float("inf")
NAMES = ("first.weight", "first.bias", "inner.second.weight", "bare")


def test_flat_cuts_what_is_longer():
    norms = torch.tensor([[0.0, 0.5, 1.0, 4.0]])
    assert Flat(clip_norm=1.0).factors(norms, (1.0,)).tolist() == [[1.0, 1.0, 1.0, 0.25]]
    assert Flat(clip_norm=INFINITE).factors(norms, (INFINITE,)).tolist() == [[1.0] * 4]
    assert Flat().order == "l2"
    assert Flat(norm="l1").order == "l1"
    assert Flat().groups(NAMES) == [[0, 1, 2, 3]]


def test_layers_share_the_bound():
    clip = PerLayer(clip_norm=3.0)
    assert clip.groups(NAMES) == [[0, 1], [2], [3]]
    assert math.hypot(*clip.norms(3)) == pytest.approx(3.0)
    own = PerLayer(clip_norms=(2.0, 1.0, 2.0))
    assert PerLayer(clip_norm=3.0, clip_norms=(2.0, 1.0, 2.0)) == own  # as dataclasses.replace and as_json give it
    assert own.clip_norm == pytest.approx(3.0)
    assert own.norms(3) == (2.0, 1.0, 2.0)
    with pytest.raises(ConfigError, match=r"of 3 layers.*2: first, inner\.second") as caught:
        own.groups(NAMES[:3])
    assert caught.value.code == "E150"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_no_gradient_is_longer_than_the_bound(norms, bound):
    lengths = torch.tensor([norms], dtype=torch.float64)
    for clip in (
        Flat(clip_norm=bound),
        Automatic(clip_norm=bound),
        AdaptiveQuantile(clip_norm=bound, count_noise=1.0),
    ):
        cut = clip.factors(lengths, clip.norms(1)) * lengths
        assert bool((cut <= bound * (1 + 1e-12)).all())


def test_automatic_scales_short_gradients_up():
    factors = Automatic(clip_norm=2.0, stability=0.5).factors(torch.tensor([[0.0, 0.5, 1.5]]), (2.0,))
    assert factors.tolist() == [[4.0, 2.0, 1.0]]


def test_the_bound_follows_the_quantile():
    """Andrew et al. 2021, section 2: where a share b was not cut, times exp(-learning_rate (b - quantile))."""
    clip = AdaptiveQuantile(clip_norm=1.0, quantile=0.5, learning_rate=0.2, count_noise=5.0)
    assert clip.follow(2.0, 50.0, 100.0) == pytest.approx(2.0 * math.exp(-0.2 * 0.5))  # all were short
    assert clip.follow(2.0, -50.0, 100.0) == pytest.approx(2.0 * math.exp(0.2 * 0.5))  # none was
    assert clip.follow(2.0, 0.0, 100.0) == 2.0
    assert clip.count_noise_multiplier == 10.0
    linear = AdaptiveQuantile(clip_norm=1.0, quantile=0.25, learning_rate=0.4, count_noise=5.0, update="linear")
    assert linear.follow(2.0, 50.0, 100.0) == pytest.approx(2.0 - 0.4 * 0.75)


@given(st.floats(-1e9, 1e9), st.sampled_from(["geometric", "linear"]))
def test_the_bound_stays_between_its_limits(excess, update):
    found = moved(1.0, excess, learning_rate=10.0, update=update, least=0.1, most=10.0)
    assert 0.1 <= found <= 10.0


WRONG = {
    "zero": lambda: Flat(clip_norm=0.0),
    "negative": lambda: Flat(clip_norm=-1.0),
    "nan": lambda: Flat(clip_norm=float("nan")),
    "too short to measure": lambda: Flat(clip_norm=1e-7),
    "a layer of nothing": lambda: PerLayer(clip_norms=(1.0, 0.0)),
    "both bounds": lambda: PerLayer(clip_norm=2.0, clip_norms=(1.0, 1.0)),
    "endless normalising": lambda: Automatic(clip_norm=INFINITE),
    "no stability": lambda: Automatic(stability=0.0),
    "a count in the clear": lambda: AdaptiveQuantile(count_noise=0.0),
    "all samples": lambda: AdaptiveQuantile(count_noise=1.0, quantile=1.0),
    "no learning": lambda: AdaptiveQuantile(count_noise=1.0, learning_rate=0.0),
    "outside its limits": lambda: AdaptiveQuantile(count_noise=1.0, clip_norm=2.0, most=1.0),
    "a limit too short to measure": lambda: AdaptiveQuantile(count_noise=1.0, least=1e-9),
    "an endless limit": lambda: AdaptiveQuantile(count_noise=1.0, most=INFINITE),
}


@pytest.mark.parametrize("kind", WRONG)
def test_options_out_of_range(kind):
    with pytest.raises(ConfigError) as caught:
        WRONG[kind]()
    assert caught.value.code == "E150"
