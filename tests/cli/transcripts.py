"""Command-line transcripts: what is typed, and what must be said. `tests/cli/*.txt` are such files.

    # A comment. Lines from the first `-- name --` on are files of the working folder.
    $ vambrace explain E9999          runs in this process; `$$` in a process of its own
    exit 2                            its exit code (0 where nothing is said)
    err E570                          stderr has this regular expression, somewhere; `out` for stdout
    no err Traceback                  and this one nowhere
    empty out                         nothing at all
    do tamper {run}                   calls a function of setup.py
    env NO_COLOR=1                    from here on
    cd plans                          from here on, below the working folder
    needs shared                      skip where there is no real data; {shared} is its folder

`{run}` is the newest run directory below runs/, `{run:other}` below other/, `{example}` the first saved example of the
newest run below runs/. `setup.py`, where there is one, is executed first. No transcript may see a traceback.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Transcript", "play"]

_FILE = re.compile(r"^-- (.+) --$")
_EXPECTATIONS = ("exit", "out", "err", "no", "empty")


@dataclass
class Transcript:
    """A file of commands: steps as (line number, word, rest), and the files they need."""

    name: str
    steps: list[tuple[int, str, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Transcript:
        found = cls(path.stem)
        target = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if marked := _FILE.match(line):
                target = marked[1]
                found.files[target] = ""
            elif target:
                found.files[target] += f"{line}\n"
            elif line.strip() and not line.startswith("#"):
                word, _, rest = line.strip().partition(" ")
                found.steps.append((number, word, rest.strip()))
        return found


@dataclass
class _Said:
    line: int
    command: str
    code: int
    out: str
    err: str

    def check(self, number: int, word: str, rest: str) -> None:
        where = f"line {number}: after line {self.line}, vambrace {self.command}\n"
        shown = f"{where}exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
        if word == "exit":
            assert self.code == int(rest), f"expected exit {rest}\n{shown}"
        elif word == "empty":
            assert not getattr(self, rest), f"expected no {rest}\n{shown}"
        elif word == "no":
            stream, _, pattern = rest.partition(" ")
            found = re.search(pattern, getattr(self, stream), re.MULTILINE)
            assert found is None, f"unexpected {pattern!r}\n{shown}"
        else:
            assert re.search(rest, getattr(self, word), re.MULTILINE), f"expected {word} {rest!r}\n{shown}"


def play(
    script: Transcript,
    folder: Path,
    *,
    shared: Callable[[], Path],
    capture: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run a transcript in `folder`, an empty one; an assertion names the line that does not hold."""
    for name, content in script.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    monkeypatch.chdir(folder)
    known: dict[str, str] = {}
    tools: dict[str, Any] = runpy.run_path("setup.py") if (folder / "setup.py").exists() else {}
    said: _Said | None = None
    told = True
    for number, word, written in [*script.steps, (0, "end", "")]:
        if word not in _EXPECTATIONS and said is not None and not told:
            said.check(said.line, "exit", "0")  # what is not said must be 0
            told = True
        rest = _filled(written, known, folder)
        match word:
            case "$" | "$$":
                arguments = shlex.split(rest)
                assert arguments[0] == "vambrace", f"line {number}: {rest}"
                capture.readouterr()
                run = _here if word == "$" else _apart
                code, out, err = run(arguments[1:], capture)
                said, told = _Said(number, shlex.join(arguments[1:]), code, out, err), False
                assert "Traceback" not in err + out, f"line {number}:\n{err}{out}"
            case "do":
                name, *arguments = shlex.split(rest)
                tools[name](*arguments)
            case "env":
                monkeypatch.setenv(*rest.split("=", 1))
            case "cd":
                monkeypatch.chdir(folder / rest)
            case "needs":
                known["shared"] = str(shared())
            case "end":
                return
            case _:
                assert word in _EXPECTATIONS, f"line {number}: {word}"
                assert said is not None, f"line {number}: nothing was run"
                told = told or word == "exit"
                said.check(number, word, rest)


def _here(arguments: list[str], capture: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from vambrace.cli.main import main

    code = main(arguments)
    captured = capture.readouterr()
    return code, captured.out, captured.err


def _apart(arguments: list[str], _: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "vambrace", *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def _filled(text: str, known: dict[str, str], folder: Path) -> str:
    def value(found: re.Match[str]) -> str:
        name, _, argument = found[1].partition(":")
        if name == "run":
            return os.path.relpath(_newest(folder / (argument or "runs")))
        if name == "example":
            return _examples(_newest(folder / "runs"))[0]
        return known.get(name, found[0])

    return re.sub(r"\{([a-z]+(?::[^}]+)?)\}", value, text)


def _newest(runs: Path) -> Path:
    return max((path for path in runs.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime_ns)


def _examples(run: Path) -> list[str]:
    results = json.loads((run / "results.json").read_bytes())
    return [item["finding"] for finding in results["findings"] for item in finding["evidence"]]
