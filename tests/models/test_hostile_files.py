"""Every hostile model file ends as its row says: refused with the right reason, no code run, little memory and time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hostile_corpus
from hostile_corpus import Outcome, Row

HERE = Path(__file__).parent / "hostile"
CORPORA = [HERE / name for name in ("pickles.py", "tensors.py", "graphs.py")]
CASES = [
    pytest.param(corpus, row, id=f"{row.number:02d} {row.title}")
    for corpus in CORPORA
    for row in hostile_corpus.load_corpus(corpus)[0]
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Outcome, Path]]:
    found: dict[int, tuple[Outcome, Path]] = {}
    for corpus in CORPORA:
        folder = tmp_path_factory.mktemp(corpus.stem)
        rows, _ = hostile_corpus.load_corpus(corpus)
        for number, outcome in hostile_corpus.run(corpus, rows, folder).items():
            found[number] = outcome, folder / str(number)
    return found


@pytest.mark.parametrize(("corpus", "row"), CASES)
def test_row(corpus: Path, row: Row, outcomes: dict[int, tuple[Outcome, Path]]) -> None:
    del corpus
    outcome, folder = outcomes[row.number]
    hostile_corpus.check(row, outcome, folder)


def test_numbers_are_unique() -> None:
    numbers = [case.values[1].number for case in CASES]
    assert len(set(numbers)) == len(numbers)
    assert len(numbers) >= 24


@pytest.mark.parametrize("number", [1, 3, 10])
def test_the_payload_is_live(number: int, tmp_path: Path) -> None:
    """Negative control: opened the careless way, the same file does leave the canary."""
    rows, _ = hostile_corpus.load_corpus(HERE / "pickles.py")
    row = next(row for row in rows if row.number == number)
    row.build(tmp_path)
    file = next(path for path in tmp_path.iterdir() if not path.name.startswith("small"))
    opened = "torch.load(p, weights_only=False)" if number == 3 else "pickle.load(open(p, 'rb'))"
    code = f"import pickle, sys\np = sys.argv[1]\nif {number} == 3: import torch\n{opened}"
    subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True)
    assert (tmp_path / hostile_corpus.CANARY).exists()
