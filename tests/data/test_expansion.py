from __future__ import annotations

import pytest

from vambrace.data.expansion import MAX_RATIO, MAX_UNPACKED, SMALL, check_expansion, readable_size
from vambrace.errors import DataRefused


@pytest.mark.parametrize(
    ("packed", "unpacked"),
    [(1, SMALL), (0, 0), (SMALL, SMALL * MAX_RATIO), (MAX_UNPACKED // MAX_RATIO + 1, MAX_UNPACKED)],
)
def test_at_the_caps(packed: int, unpacked: int) -> None:
    check_expansion("x", packed=packed, unpacked=unpacked)


@pytest.mark.parametrize(
    ("packed", "unpacked", "says"),
    [
        (SMALL // MAX_RATIO, SMALL + 1, "times its packed size"),
        (0, SMALL + 1, "from 0 bytes"),
        (SMALL, SMALL * MAX_RATIO + 1, "200 times its packed size"),
        (MAX_UNPACKED, MAX_UNPACKED + 1, "expected at most 4.0 GiB"),
    ],
)
def test_above_the_caps(packed: int, unpacked: int, says: str) -> None:
    with pytest.raises(DataRefused) as caught:
        check_expansion("x", packed=packed, unpacked=unpacked)
    assert caught.value.code == "E312"
    assert says in str(caught.value)


def test_readable_size() -> None:
    assert [readable_size(size) for size in (0, 1023, 1024, 5 * 2**40)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "5.0 TiB",
    ]
