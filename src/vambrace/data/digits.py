"""The embedded data: scikit-learn's handwritten digits, 1797 real 8 x 8 scans by 43 people, divided by 16 into (0, 1).

"digits" is all of them. "digits:train" (797) and "digits:test" (1000) part them for good: stratified by label, in the
order of the sample ids, so which digit lies where depends on no seed. A model trained on the first is measured on
the second: members are "digits:train", nonmembers and eval "digits:test". Ids are those of the whole set.

Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998.

    >>> sorted(PARTS.values())
    [797, 1000, 1797]
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vambrace.data.arrays import examined
from vambrace.data.batches import sample_id
from vambrace.data.labels import check_labels
from vambrace.data.select import stratified
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.core.contract import InputContract
    from vambrace.data.loaded import Loaded

__all__ = ["PARTS", "load_digits"]

PARTS = {"digits": 1797, "digits:train": 797, "digits:test": 1000}
"""How many samples each part has. A thousand nonmembers are what a true-positive rate at 1 % needs."""


def load_digits(part: str, *, contract: InputContract, head: int | None = None, limit: int | None = None) -> Loaded:
    """Inputs (1, 8, 8) in (0, 1), labels 0 to 9.

    Args:
        part: a key of `PARTS`.
        contract: size, resize and channels are applied; bounds are (0, 1).
        head: take only the first samples.
        limit: at most this many samples, stratified by label.

    Raises:
        DataRefused: E309 for other bounds, E333 for a part that does not exist.
    """
    from sklearn.datasets import load_digits as bundled

    if part not in PARTS:
        raise DataRefused(
            "E333", seen=f"the data {part!r}", expected=", ".join(PARTS), fix="name one of these; a folder is ./digits"
        )
    if contract.bounds not in (None, (0.0, 1.0)):
        raise DataRefused(
            "E309", seen=f"bounds {contract.bounds} for the digits", expected="(0, 1)", fix="leave out --bounds"
        )
    bunch = cast("Any", bundled())
    inputs = (bunch.images[:, None] / 16).astype(np.float32)
    labels: NDArray[np.int64] = bunch.target.astype(np.int64)
    ids = np.fromiter((sample_id(str(index)) for index in range(len(labels))), np.int64, len(labels))
    train = stratified(labels, ids, PARTS["digits:train"])
    kept = {"digits": np.arange(len(labels)), "digits:train": train}.get(part)
    if kept is None:
        kept = np.setdiff1d(np.arange(len(labels)), train)
    classes = contract.classes or tuple(str(digit) for digit in range(10))
    return examined(
        inputs,
        check_labels(labels, count=len(inputs), classes=classes),
        name=part,
        classes=classes,
        contract=dataclasses.replace(contract, bounds=(0.0, 1.0), layout="NCHW"),
        among=kept,
        head=head,
        limit=limit,
    )
