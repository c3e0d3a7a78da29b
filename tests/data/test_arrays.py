from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.hostile.samples import pixels
from vambrace import data
from vambrace.core.contract import InputContract
from vambrace.data.arrays import layout_of
from vambrace.errors import ConfigError, DataRefused

UNIT = InputContract(bounds=(0, 1))


def loaded(inputs: Any, *, labels: Any = None, **contract: Any) -> data.Loaded:
    labels = np.zeros(len(inputs), np.int64) if labels is None else labels
    return data.from_arrays(inputs, labels, contract=InputContract(**contract))


def refused(inputs: Any, **contract: Any) -> DataRefused:
    with pytest.raises(DataRefused) as caught:
        loaded(inputs, **contract)
    return caught.value


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 30), "features"),
        ((5, 1), "features"),
        ((5, 28, 28), "NHW"),
        ((5, 2, 28), "NHW"),
        ((5, 3, 32, 32), "NCHW"),
        ((5, 1, 28, 28), "NCHW"),
        ((5, 3, 3, 32), "NCHW"),
        ((5, 32, 32, 3), "NHWC"),
        ((5, 28, 28, 1), "NHWC"),
    ],
)
def test_layouts_with_one_meaning(shape: tuple[int, ...], expected: str) -> None:
    assert layout_of(shape, None) == expected


@pytest.mark.parametrize(
    "shape",
    [
        (5, 3, 32, 3),
        (5, 1, 1, 1),
        (5, 1, 28, 1),
        (5, 3, 3, 3),
        (5, 4, 32, 32),
        (5, 32, 32, 4),
        (5, 32, 3),
        (5, 3, 32),
        (5,),
        (5, 3, 8, 8, 8),
        (5, 0),
        (5, 3, 0, 4),
    ],
)
def test_ambiguous_layouts_name_the_flag(shape: tuple[int, ...]) -> None:
    error = refused(np.zeros(shape, np.uint8))
    assert error.code == "E308"
    assert "--layout" in error.fix


@pytest.mark.parametrize(("shape", "layout"), [((5, 4, 4), "NCHW"), ((5, 4, 4, 3), "NHW"), ((5,), "features")])
def test_stated_layouts_must_fit(shape: tuple[int, ...], layout: Any) -> None:
    assert refused(np.zeros(shape, np.uint8), layout=layout).code == "E308"


def test_stated_layout_settles_it() -> None:
    stored = pixels(0, (2, 3, 5, 3))
    assert loaded(stored, layout="NCHW").shape == (3, 5, 3)
    assert loaded(stored, layout="NHWC").shape == (3, 3, 5)
    assert loaded(pixels(0, (2, 7, 5, 5)), layout="NCHW").shape == (7, 5, 5)
    assert loaded(pixels(0, (2, 3, 5, 3)), layout="features").shape == (3, 5, 3)


def test_axes_go_where_they_belong() -> None:
    stored = pixels(0, (6, 4, 5, 3))
    out = loaded(stored).read(range(6)).inputs
    assert out.shape == (6, 3, 4, 5)
    for sample, channel, row, column in [(0, 0, 0, 0), (5, 2, 3, 4), (2, 1, 0, 4), (3, 2, 1, 0)]:
        assert out[sample, channel, row, column] == np.float32(stored[sample, row, column, channel]) / np.float32(255)
    assert loaded(stored[..., 0]).read([4]).inputs[0, 0, 2, 3] == np.float32(stored[4, 2, 3, 0]) / np.float32(255)


def test_pixels_are_scaled_only_as_stated() -> None:
    stored = pixels(0, (3, 4, 4))
    for bounds in (None, (0, 1)):
        out = loaded(stored, bounds=bounds)
        assert out.bounds == (0, 1)
        assert out.read([0]).inputs.equal(torch.from_numpy(stored[:1, None]).float() / 255)
    out = loaded(stored, bounds=(0, 255))
    assert out.read([0]).inputs.equal(torch.from_numpy(stored[:1, None]).float())
    assert refused(stored, bounds=(-1, 1)).code == "E309"
    assert refused(stored, bounds=(0, 16)).code == "E309"


def test_all_256_pixel_values() -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert loaded(stored).read([0]).inputs.flatten().tolist() == [
        float(np.float32(v) / np.float32(255)) for v in range(256)
    ]


def test_flags_in_bytes_are_not_taken_for_pixels() -> None:
    flags = pixels(0, (4, 9)) % 2
    assert "flags" in refused(flags).expected
    assert refused(flags, bounds=(0, 1)).code == "E309"
    assert loaded(flags, bounds=(0, 255)).read([0]).inputs.max() == 1
    assert loaded(flags.astype(bool)).read([0]).inputs[0].tolist() == flags[0].tolist()
    assert loaded(np.zeros((2, 9), np.uint8)).read([0]).inputs.max() == 0  # black either way


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.int8, np.int64, np.uint16])
def test_other_numbers_need_bounds(dtype: Any) -> None:
    stored = (pixels(0, (3, 4, 4)) % 4).astype(dtype)
    assert refused(stored).code == "E309"
    out = loaded(stored, bounds=(0, 4)).read(range(3)).inputs
    assert out.dtype == torch.float32
    assert np.array_equal(out.numpy()[:, 0], stored.astype(np.float32))


@pytest.mark.parametrize(
    ("values", "bounds", "says"),
    [
        ([-2.1179, 2.64], (0, 1), ("sample 1 holds -2.1179", "-2.1179 to 2.64", "--mean and --std")),
        ([0.0, 255.0], (0, 1), ("sample 1 holds 255", "--bounds 0,255")),
        ([-1.0, 1.0], (0, 1), ("sample 1 holds -1", "--bounds=-1,1")),
        ([0.5, 1.5], (0, 1), ("sample 1 holds 1.5",)),
        ([0.5, float("nan")], (0, 1), ("sample 1 holds nan", "0.25 to 0.5")),
        ([0.5, float("-inf")], (0, 1), ("sample 1 holds -inf",)),
        ([0.5, 1e300], (0, 1), ("sample 1 holds inf",)),
        ([3.0, -900.0], (0, 1), ("--bounds=-900,3",)),
    ],
)
def test_values_outside_name_the_sample_and_the_cause(values: list[float], bounds: Any, says: tuple[str, ...]) -> None:
    stored = np.full((4, 5, 5), 0.25)
    stored[1, 2, 3:] = values
    error = refused(stored, bounds=bounds)
    assert error.code == "E310"
    for part in says:
        assert part in str(error)


def test_the_first_sample_is_named_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vambrace.data.arrays._CHUNK_BYTES", 1)
    stored = np.full((9, 4, 4), 0.25, np.float32)
    stored[[3, 7]] = 2.0
    assert "sample 3 holds 2" in refused(stored, bounds=(0, 1)).seen


def test_bounds_themselves_are_inside() -> None:
    third = np.array([[1 / 3, 0.1, 0.2]])
    assert loaded(third, bounds=(0.1, 1 / 3)).read([0]).inputs.shape == (1, 3)


def test_narrow_values_warn() -> None:
    assert "0 to 1 of the bounds 0 to 255" in loaded(np.eye(4, dtype=np.float32), bounds=(0, 255)).warnings[0]
    assert loaded(np.eye(4, dtype=np.float32), bounds=(0, 1)).warnings == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels(dtype: Any) -> None:
    colour = pixels(0, (3, 5, 6, 3))
    stored = colour.astype(dtype) if dtype == np.uint8 else (colour / 255).astype(dtype)
    grey = loaded(stored, channels=1, bounds=(0, 1))
    assert grey.shape == (1, 5, 6)
    pillow = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colour])[:, None] / 255
    assert abs(grey.read(range(3)).inputs.numpy() - pillow).max() < (1e-6 if dtype == np.uint8 else 0.5 / 255 + 1e-4)
    tripled = loaded(stored[..., 0], channels=3, bounds=(0, 1)).read([1]).inputs
    assert tripled.shape == (1, 3, 5, 6)
    assert tripled[:, 0].equal(tripled[:, 2])
    assert refused(pixels(0, (2, 4, 5, 5)), layout="NCHW", channels=3).code == "E315"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resize(dtype: Any) -> None:
    stored = np.full((2, 10, 20), 51, np.uint8) if dtype == np.uint8 else np.full((2, 10, 20), 0.2, np.float32)
    assert refused(stored, size=(5, 5), bounds=(0, 1)).code == "E314"
    for resize in ("squash", "center"):
        out = loaded(stored, size=(5, 5), resize=resize, bounds=(0, 1))
        assert out.shape == (1, 5, 5)
        assert torch.allclose(out.read([0, 1]).inputs, torch.full((2, 1, 5, 5), 0.2))
    assert loaded(stored, size=(10, 20), bounds=(0, 1)).shape == (1, 10, 20)


def test_tensors_of_every_kind() -> None:
    stored = torch.rand(4, 3, 5, 5, requires_grad=True)
    out = data.from_arrays(stored, torch.arange(4), contract=UNIT).read([2]).inputs
    assert out.equal(stored[2:3].detach())
    assert not out.requires_grad
    halves = torch.rand(4, 3, 5, 5).bfloat16()
    assert data.from_arrays(halves, [0] * 4, contract=UNIT).read([0]).inputs.equal(halves[:1].float())
    views = torch.rand(5, 5, 3, 4).permute(3, 2, 0, 1)
    assert data.from_arrays(views, [0] * 4, contract=UNIT).read([1]).inputs.equal(views[1:2])


def test_what_is_read_is_no_view_of_what_is_stored() -> None:
    stored = torch.rand(4, 3, 5, 5)
    kept = stored.clone()
    batches = data.from_arrays(stored, [0] * 4, contract=UNIT)
    batches.read([0, 1]).inputs.zero_()
    assert stored.equal(kept)


def test_a_change_under_the_run_is_an_error() -> None:
    stored = np.random.default_rng(0).random((4, 3, 5, 5))
    batches = data.from_arrays(stored, [0] * 4, contract=UNIT)
    stored[2, 0, 0, 0] = 0.123
    batches.read([0, 1, 3])
    with pytest.raises(DataRefused, match="E320: 2 is not what it was"):
        batches.read([1, 2])


@pytest.mark.parametrize(
    "inputs",
    [
        np.array([["a"]]),
        np.array([[1j]]),
        np.array([[object()]]),
        [[1, 2], [3]],
        np.array([["2020-01-01"]], "datetime64[D]"),
        3.0,
        None,
    ],
)
def test_what_is_no_array_of_numbers(inputs: Any) -> None:
    with pytest.raises(DataRefused) as caught:
        data.from_arrays(inputs, [0], contract=UNIT)
    assert caught.value.code == "E311"


def test_classes() -> None:
    stored = pixels(0, (3, 4, 4))
    out = data.from_arrays(stored, [0, 2, 0], class_names=["a", "b", "c", "d"])
    assert (out.class_names, out.counts) == (("a", "b", "c", "d"), (2, 0, 1, 0))
    assert data.from_arrays(stored, [0, 2, 0]).counts == (2, 0, 1)
    with pytest.raises(DataRefused, match="E307"):
        data.from_arrays(stored, [0, 2, 0], contract=InputContract(classes=("a", "b")))
    with pytest.raises(ConfigError, match="one list of classes"):
        data.from_arrays(stored, [0, 1, 0], class_names=["x", "y"], contract=InputContract(classes=("a", "b")))


def test_nothing_is_refused() -> None:
    with pytest.raises(DataRefused, match="E302"):
        data.from_arrays(np.empty((0, 4, 4), np.uint8), [])


def test_selection_looks_only_at_what_it_takes() -> None:
    """A bad sample that was not asked for does not stop a run; the ids are those of the whole."""
    stored = np.random.default_rng(0).random((50, 4, 4))
    stored[40] = 7
    labels = np.arange(50) % 5
    first = data.from_arrays(stored, labels, contract=UNIT, head=20)
    assert len(first) == 20
    part = data.from_arrays(stored, labels, contract=UNIT, head=20, limit=10)
    assert part.counts == (2, 2, 2, 2, 2)
    assert set(part.ids) <= set(first.ids)
    assert part.ids == tuple(data.sample_id(name) for name in part.names)
    assert part.read([3]).inputs.equal(first.read([int(part.names[3])]).inputs)


def test_contract_fields_of_the_model_do_not_matter() -> None:
    stored = pixels(0, (3, 4, 4))
    other = dataclasses.replace(
        InputContract(), mean=(0.5,), std=(0.5,), strip_prefix="module.", state_key="state_dict"
    )
    assert data.from_arrays(stored, [0] * 3, contract=other).hashes == data.from_arrays(stored, [0] * 3).hashes


class TestFlatPictures:
    """Flat samples of pictures become pictures where the size says so: vectors never reach an image network unseen."""

    @pytest.mark.parametrize("layout", [None, "NHW", "NCHW", "NHWC"])
    def test_one_channel(self, layout: Any) -> None:
        pictures = np.random.default_rng(0).random((5, 4, 6), np.float32)
        found = loaded(pictures.reshape(5, -1), bounds=(0, 1), size=(4, 6), layout=layout)
        assert found.shape == (1, 4, 6)
        np.testing.assert_array_equal(found.read(range(5)).inputs[:, 0].numpy(), pictures)

    @pytest.mark.parametrize(("layout", "axes"), [("NCHW", (0, 1, 2, 3)), ("NHWC", (0, 2, 3, 1))])
    def test_three_channels_need_their_order(self, layout: Any, axes: tuple[int, ...]) -> None:
        pictures = np.random.default_rng(0).random((5, 3, 4, 6), np.float32)
        flat = pictures.transpose(axes).reshape(5, -1)
        found = loaded(flat, bounds=(0, 1), size=(4, 6), layout=layout)
        np.testing.assert_array_equal(found.read(range(5)).inputs.numpy(), pictures)
        error = refused(flat, bounds=(0, 1), size=(4, 6))
        assert error.code == "E308"
        assert "--layout NCHW" in error.fix
        assert "--layout NHWC" in error.fix

    def test_a_size_that_does_not_fit_is_never_passed_over(self) -> None:
        error = refused(np.zeros((5, 20), np.float32), bounds=(0, 1), size=(4, 6))
        assert (error.code, error.seen) == ("E314", "flat samples of 20 values")
        assert "--layout features" in error.fix

    def test_features_stay_flat(self) -> None:
        flat = np.zeros((5, 24), np.float32)
        assert loaded(flat, bounds=(0, 1), size=(4, 6), layout="features").shape == (24,)
        assert loaded(flat, bounds=(0, 1)).shape == (24,)


def test_words_for_labels_are_told_how_to_become_numbers() -> None:
    for labels in (np.array(["cat", "dog"]), np.array([b"cat", b"dog"])):
        with pytest.raises(DataRefused, match=r"E307.*return_inverse.*--classes"):
            loaded(np.zeros((2, 4, 4), np.uint8), labels=labels)
