from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from vambrace.models import ledger as module
from vambrace.models.ledger import Charge, Ledger

EVENTS = st.lists(
    st.tuples(st.sampled_from(["forwards", "backwards", "queries"]), st.lists(st.integers(-2, 6), max_size=5)),
    max_size=12,
)


@given(EVENTS, st.integers(1, 4))
def test_equals_a_dictionary(events: list[tuple[str, list[int]]], pending: int) -> None:
    ledger, expected = Ledger(), Counter()
    before, module._PENDING = module._PENDING, pending
    try:
        for kind, ids in events:
            ledger.charge(kind, torch.tensor(ids, dtype=torch.int64))
            expected.update((kind, sample) for sample in ids if sample >= 0)
    finally:
        module._PENDING = before
    known = sorted({sample for _, sample in expected})
    assert ledger.per_sample() == {
        sample: Charge(*(expected[kind, sample] for kind in ("forwards", "backwards", "queries"))) for sample in known
    }
    asked = torch.tensor([0, 3, 99, 3])
    assert ledger.counts("forwards", asked).tolist() == [expected["forwards", int(sample)] for sample in asked]


def test_ids_of_63_bits() -> None:
    ledger = Ledger()
    ledger.charge("queries", torch.tensor([2**63 - 1, 0]))
    assert ledger.per_sample()[2**63 - 1] == Charge(queries=1)


def test_empty() -> None:
    assert Ledger().per_sample() == {}
    assert Ledger().counts("forwards", torch.tensor([1])).tolist() == [0]
