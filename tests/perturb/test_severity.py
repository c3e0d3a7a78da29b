"""Tables of severities: which one an image takes, and what may stand in one."""

from __future__ import annotations

import pytest

from vambrace.errors import ConfigError
from vambrace.perturb import Contrast, GaussianBlur, GaussianNoise, Jpeg, Rotate
from vambrace.perturb.severity import check_five, check_severity

# The values of the scripts that made the data sets, by severity.
PUBLISHED = {
    (GaussianNoise, 32): (0.04, 0.06, 0.08, 0.09, 0.10),
    (GaussianNoise, 64): (0.04, 0.08, 0.12, 0.15, 0.18),
    (GaussianNoise, 224): (0.08, 0.12, 0.18, 0.26, 0.38),
    (GaussianBlur, 32): (0.4, 0.6, 0.7, 0.8, 1.0),
    (GaussianBlur, 64): (0.5, 0.75, 1.0, 1.25, 1.5),
    (GaussianBlur, 224): (1, 2, 3, 4, 6),
    (Contrast, 32): (0.75, 0.5, 0.4, 0.3, 0.15),
    (Contrast, 64): (0.4, 0.3, 0.2, 0.1, 0.05),
    (Contrast, 224): (0.4, 0.3, 0.2, 0.1, 0.05),
    (Jpeg, 32): (80, 65, 58, 50, 40),
    (Jpeg, 64): (65, 58, 50, 40, 25),
    (Jpeg, 224): (25, 18, 15, 10, 7),
    (Rotate, 32): (5, 10, 15, 20, 25),
    (Rotate, 224): (5, 10, 15, 20, 25),
}


@pytest.mark.parametrize(("kind", "side"), PUBLISHED)
def test_published_values(kind: type, side: int) -> None:
    levels = tuple(kind().level(severity, (3, side, side + 7)) for severity in range(1, 6))
    assert levels == pytest.approx(PUBLISHED[kind, side], abs=1e-12)


@pytest.mark.parametrize("side", [1, 2, 8, 16, 28, 31, 32, 47, 48, 100, 127, 128, 299, 1024])
def test_blur_grows_with_the_image_and_never_vanishes(side: int) -> None:
    sigmas = [GaussianBlur().level(severity, (1, side, side)) for severity in range(1, 6)]
    assert sigmas == sorted(set(sigmas))
    assert sigmas[0] >= 0.375
    if side >= 32:
        assert sigmas[4] / side == pytest.approx(
            {32: 1 / 32, 64: 1.5 / 64, 224: 6 / 224}[32 if side < 48 else 64 if side < 128 else 224]
        )


def test_blur_of_tiny_images_leaves_digits_readable() -> None:
    """At 8 x 8 a sigma of 1 pixel closes the hole of a zero."""
    assert GaussianBlur().level(5, (1, 8, 8)) == pytest.approx(0.55)


def test_own_values_are_taken_as_they_are() -> None:
    assert GaussianBlur(sigmas=(0.5, 1, 2, 3, 4)).level(3, (3, 500, 500)) == 2
    assert Jpeg(qualities=(90, 80, 70, 60, 50)).level(5, (3, 224, 224)) == 50


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianNoise(sigmas=(0.1, 0.1, 0.2, 0.3, 0.4)),
        lambda: GaussianNoise(sigmas=(0.5, 0.4, 0.3, 0.2, 0.1)),
        lambda: GaussianNoise(sigmas=(0.0, 0.1, 0.2, 0.3, 0.4)),
        lambda: GaussianNoise(sigmas=(0.1, 0.2, 0.3)),  # type: ignore[arg-type]
        lambda: GaussianNoise(sigmas=(0.1, 0.2, 0.3, 0.4, float("nan"))),
        lambda: GaussianBlur(sigmas=(0.01, 1, 2, 3, 4)),
        lambda: Rotate(degrees=(10, 20, 30, 40, 200)),
        lambda: Contrast(factors=(0.1, 0.2, 0.3, 0.4, 0.5)),
        lambda: Contrast(factors=(1.2, 0.9, 0.8, 0.7, 0.6)),
        lambda: Jpeg(qualities=(101, 50, 40, 30, 20)),
        lambda: Jpeg(qualities=(5, 4, 3, 2, 0)),
    ],
)
def test_bad_tables_are_refused(make) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == "E194"


def test_no_table_is_fine() -> None:
    check_five("sigmas", None, low=0, high=1, order="rising")


@pytest.mark.parametrize("severity", [0, 6, -1, True, 1.0, "3"])
def test_bad_severities_are_refused(severity) -> None:
    with pytest.raises(ConfigError) as caught:
        check_severity(severity)
    assert caught.value.code == "E193"
