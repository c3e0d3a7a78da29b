"""The parser's complaints in our words."""

from __future__ import annotations

import click
import pytest
import typer

from vambrace.cli.main import app
from vambrace.cli.usage import usage_error
from vambrace.errors import ConfigError


def complaint(*arguments: str) -> ConfigError:
    command = typer.main.get_command(app)
    with pytest.raises(click.ClickException) as caught, command.make_context("vambrace", [*arguments]) as context:
        command.invoke(context)
    return usage_error(caught.value, f"vambrace {arguments[0]}")


@pytest.mark.parametrize(
    ("arguments", "seen", "expected", "fix"),
    [
        (["asess"], "no such command 'asess'", "one of demo, assess", "did you mean assess?"),
        (["xyz"], "no such command 'xyz'", "one of demo, assess", "vambrace --help"),
        (["gate", "r", "--basline", "b"], "no such option '--basline'", "vambrace gate", "did you mean --baseline?"),
        (["gate", "r", "--zzz"], "no such option '--zzz'", "vambrace gate", "vambrace gate --help"),
        (["gate"], "missing argument 'RUN'", "vambrace gate [OPTIONS] RUN", "vambrace gate --help"),
        (["check", "--seed", "x"], "'x' is not a valid integer", "--seed INTEGER: Root of", "vambrace check --help"),
        (["check", "--seed"], "option '--seed' requires an argument", "vambrace check", "vambrace check --help"),
        (["init", "a"], "missing argument 'DATA'", "MODEL DATA", "vambrace init --help"),
        (
            ["init", "--model", "x"],
            "no such option '--model'",
            "MODEL DATA",
            "write it without --model: vambrace init MODEL DATA",
        ),
        (["gate", "r", "--json=1"], "option '--json' does not take a value", "vambrace gate", "vambrace gate --help"),
    ],
)
def test_said_in_our_words(arguments: list[str], seen: str, expected: str, fix: str) -> None:
    error = complaint(*arguments)
    assert error.code == "E576"
    assert seen in error.seen
    assert error.seen[:1].islower()
    assert expected in error.expected
    assert error.fix == fix
    assert "Did you mean" not in error.seen


@pytest.mark.parametrize(
    "arguments",
    [
        ["seal", "a", "b", "--passphrase", "hunter2"],
        ["inspect", "a", "-p", "hunter2", "hunter2"],
        ["rewrap", "a", "--new-passphrase", "hunter2"],
        ["open", "a", "b", "--passphrase-fd", "hunter2"],
        ["rekey", "a", "--new-passphrase-fd", "hunter2"],
    ],
)
def test_what_may_be_a_passphrase_is_not_repeated(arguments: list[str]) -> None:
    error = complaint(*arguments)
    assert error.code == "E576"
    assert not any("hunter2" in text for text in (error.seen, error.expected, error.fix))
    assert "extra argument" in error.seen or arguments[-2] in error.seen


def test_what_cannot_be_one_is() -> None:
    assert complaint("explain", "E100", "E101").seen.endswith("(E101)")


def test_a_complaint_without_a_context() -> None:
    error = usage_error(click.ClickException("Something."))
    assert (error.seen, error.fix) == ("something", "vambrace --help")
