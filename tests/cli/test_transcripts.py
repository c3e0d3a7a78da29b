"""Every transcript of this folder holds; and the runner notices one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.transcripts import Transcript, play

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(
    path: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play(
        Transcript.read(path),
        tmp_path,
        shared=lambda: request.getfixturevalue("shared"),
        capture=capsys,
        monkeypatch=monkeypatch,
    )


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize(
    "lines",
    [
        ["$ vambrace explain E9999"],
        ["$ vambrace explain E9999", "exit 3"],
        ["$ vambrace explain E200", "exit 0", "out Z999"],
        ["$ vambrace explain E200", "no out E200"],
        ["$ vambrace explain E200", "empty out"],
        ["$ vambrace explain E9999", "exit 2", "err out of reach"],
        ["$ vambrace explain E9999", "$ vambrace explain E200"],
        ["shout"],
        ["out nothing was run"],
    ],
)
def test_a_wrong_expectation_is_noticed(
    lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "wrong.txt"
    file.write_text("\n".join(lines))
    with pytest.raises(AssertionError):
        play(Transcript.read(file), tmp_path, shared=lambda: tmp_path, capture=capsys, monkeypatch=monkeypatch)
