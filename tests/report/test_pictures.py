"""Evidence files as pictures: what is drawn, what is refused, and the budget of bytes."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from report import sample
from vambrace.core.findings import Evidence
from vambrace.report import pictures
from vambrace.report.pictures import Missing, Shown, Strip, read_strip, render

BOUNDS = [0.0, 1.0]


def put(run: Path, clean: Any, changed: Any) -> Evidence:
    return sample.evidence(run, "pgd", 0, clean, changed)


def strip(run: Path, clean: Any, changed: Any, bounds: Any = BOUNDS, **more: Any) -> Strip:
    found = read_strip(run, put(run, clean, changed), bounds, **more)
    assert isinstance(found, Strip), found
    return found


def pixels(uri: str) -> np.ndarray:
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_values_are_the_pictures(tmp_path: Path) -> None:
    clean = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    changed = np.clip(clean + 0.02, 0, 1)
    found = strip(tmp_path, clean, changed)
    assert found.factor == 20  # the largest round factor at which 0.02 does not clip
    assert not found.stretched
    np.testing.assert_array_equal(found.clean, np.round(clean[0] * 255))
    expected = np.round((0.5 + (changed.astype(float) - clean)[0] * 20) * 255)
    np.testing.assert_array_equal(found.difference, expected)
    (shown,) = render([found], 10**6)
    assert shown is not None
    np.testing.assert_array_equal(pixels(shown.clean), found.clean)
    np.testing.assert_array_equal(pixels(shown.changed), found.changed)
    assert (shown.factor, shown.width, shown.height, shown.pixelated) == ("20", 4, 3, True)


def test_colour_keeps_its_channels(tmp_path: Path) -> None:
    clean = np.zeros((3, 5, 6), np.float32)
    clean[0] = 1
    found = strip(tmp_path, clean, clean)
    assert found.clean.shape == (5, 6, 3)
    assert (found.clean[..., 0] == 255).all()
    assert (found.clean[..., 1:] == 0).all()
    assert found.factor == 1  # no difference: nothing to scale


def test_bounds_in_other_units(tmp_path: Path) -> None:
    clean = np.full((1, 4, 4), 51.0, np.float32)
    assert (strip(tmp_path, clean, clean, [0, 255]).clean == 51).all()
    low, high = [[[-1.0]], [[-1.0]], [[-1.0]]], [[[1.0]], [[1.0]], [[3.0]]]
    found = strip(tmp_path, np.zeros((3, 4, 4), np.float32), np.zeros((3, 4, 4), np.float32), [low, high])
    assert found.clean[0, 0].tolist() == [128, 128, 64]


@pytest.mark.parametrize("bounds", [None, "none", [0], [1, 0], [[0, 0, 0, 0, 0], 1], ["a", "b"], [[], []], {"low": 0}])
def test_unusable_bounds_are_taken_from_the_picture(tmp_path: Path, bounds: Any) -> None:
    clean = np.array([[[3.0, 7.0], [5.0, 5.0]]], np.float32)
    found = strip(tmp_path, clean, clean, bounds)
    assert found.stretched
    assert found.clean.tolist() == [[0, 255], [128, 128]]


def test_difference_never_clips_and_keeps_its_pattern_when_reduced(tmp_path: Path) -> None:
    """The mean of a sign pattern is grey: a picture that is made smaller must keep single pixels."""
    rng = np.random.default_rng(0)
    clean = np.full((1, 600, 600), 0.5, np.float32)
    changed = clean + (8 / 255 * rng.choice([-1, 1], clean.shape)).astype(np.float32)
    found = strip(tmp_path, clean, changed)
    assert found.difference.shape == (256, 256)
    levels = np.unique(found.difference).astype(float)
    np.testing.assert_allclose(levels, [127.5 - 80, 127.5 + 80], atol=1)


@given(st.floats(1e-6, 5))
def test_factor(largest: float) -> None:
    factor = pictures._factor(largest)
    if largest <= 2:
        assert largest * factor <= 0.5
    bigger = [other for other in pictures._FACTORS if other > factor]
    assert not bigger or largest * bigger[0] > 0.5


def test_blur_leaves_nothing_to_recognise(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    clean, changed = rng.random((2, 3, 96, 64)).astype(np.float32)
    found = strip(tmp_path, clean, changed, blur=True)
    for picture in (found.clean, found.changed, found.difference):
        assert max(picture.shape[:2]) <= 6
    digit = rng.random((1, 8, 8)).astype(np.float32)
    assert strip(tmp_path, digit, digit, blur=True).clean.shape == (2, 2)


@pytest.mark.parametrize("shape", [(16,), (1, 1, 30), (2, 3, 4, 5), (0, 4, 4), ()])
def test_what_is_no_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found = read_strip(tmp_path, put(tmp_path, np.zeros(shape, np.float32), np.zeros(shape, np.float32)), BOUNDS)
    assert isinstance(found, Missing)
    assert "no picture" in found.reason


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 8, 9), (2, 8, 9), (9, 8, 9)])
def test_what_is_a_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    strip(tmp_path, np.zeros(shape, np.float32), np.ones(shape, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
def test_numbers_that_are_none(tmp_path: Path, bad: float) -> None:
    clean = np.full((1, 4, 4), bad, np.float32)
    found = strip(tmp_path, clean, np.zeros_like(clean), None)
    assert found.clean.dtype == np.uint8
    strip(tmp_path, clean, np.zeros_like(clean))


def test_files_that_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    good = put(run, np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32))
    name = good.file.partition("/")[2]

    def refused(evidence: Evidence, why: str) -> None:
        found = read_strip(run, evidence, BOUNDS)
        assert isinstance(found, Missing)
        assert why in found.reason
        assert "E555" in found.reason

    refused(replace(good, file=f"evidence/{'0' * 64}.safetensors"), "not in the run")
    refused(replace(good, file=f"evidence/../evidence/{name}"), "does not allow")
    refused(replace(good, file=str(run / good.file)), "does not allow")
    refused(replace(good, file=f"{good.file}\n"), "does not allow")
    content = (run / good.file).read_bytes()
    (run / good.file).write_bytes(content[:-1] + b"\x01")
    refused(good, "changed after")
    (run / good.file).write_bytes(content)
    outside = tmp_path / name
    (run / good.file).rename(outside)
    (run / good.file).symlink_to(outside)
    refused(good, "not in the run")
    (run / good.file).unlink()
    outside.rename(run / name)
    (run / good.file).symlink_to(run / name)
    refused(good, "not in the run")
    (run / good.file).unlink()
    (run / "evidence").rmdir()
    (run / "evidence").symlink_to(tmp_path)
    refused(good, "not in the run")


_PARTS = ((b"clean", 0, 8), (b"changed", 8, 16))


def named(run: Path, content: bytes) -> Evidence:
    digest = hashlib.sha256(content).hexdigest()
    (run / "evidence").mkdir(exist_ok=True)
    (run / f"evidence/{digest}.safetensors").write_bytes(content)
    return Evidence(finding="x", kind="adversarial", file=f"evidence/{digest}.safetensors", sample="1", data={})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 64,
        save({"clean": np.zeros((1, 4, 4), np.float32)}),
        save({"clean": np.zeros((1, 4, 4), np.float32), "changed": np.zeros((1, 4, 5), np.float32)}),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    found = read_strip(tmp_path, named(tmp_path, content), BOUNDS)
    assert isinstance(found, Missing)
    assert "E555" in found.reason


def test_bfloat16_is_no_failure(tmp_path: Path) -> None:
    parts = [b'"%s":{"dtype":"BF16","shape":[1,2,2],"data_offsets":[%d,%d]}' % each for each in _PARTS]
    header = b"{" + b",".join(parts) + b"}"
    content = len(header).to_bytes(8, "little") + header + bytes(16)
    assert isinstance(read_strip(tmp_path, named(tmp_path, content), BOUNDS), Missing | Strip)


def test_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = put(tmp_path, np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32))
    monkeypatch.setattr(pictures, "LARGEST_FILE", 100)
    found = read_strip(tmp_path, evidence, BOUNDS)
    assert isinstance(found, Missing)
    assert "larger" in found.reason


def noise(seed: int, side: int) -> Strip:
    made = np.random.default_rng(seed).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    return Strip(clean=made[0], changed=made[1], difference=made[2], factor=1, stretched=False)


@settings(max_examples=12)
@given(st.integers(0, 6), st.sampled_from([8, 100, 256]), st.sampled_from([0, 3_000, 60_000, 400_000, 10**7]))
def test_budget_holds(count: int, side: int, budget: int) -> None:
    shown = render([noise(seed, side) for seed in range(count)], budget)
    assert len(shown) == count
    assert sum(len(one.clean) + len(one.changed) + len(one.difference) for one in shown if one) <= budget


def test_smaller_before_fewer() -> None:
    strips = [noise(seed, 256) for seed in range(4)]
    roomy = [one for one in render(strips, 10**7) if isinstance(one, Shown)]
    tight = [one for one in render(strips, 300_000) if isinstance(one, Shown)]
    assert [one.width for one in roomy] == [256] * 4
    assert len(tight) == 4
    assert len({one.width for one in tight}) == 1
    assert tight[0].width < 256
    none = render(strips, 20)
    assert none == [None] * 4
