"""The gates of an obfuscated model on the command line: what they are given, measured, written, and said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vambrace.cli.bar import listening
from vambrace.cli.obfuscated import tell_table
from vambrace.cli.sealing import there
from vambrace.cli.speaking import say, tell
from vambrace.cli.targets import put
from vambrace.core.reason import reason
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vambrace.assets.obfuscate.measure.gates import Gates
    from vambrace.assets.obfuscate.measure.report import Report
    from vambrace.assets.obfuscate.pipeline import Obfuscated
    from vambrace.assets.obfuscate.rehearsal import Rehearsal

__all__ = ["measured", "read_inputs", "said_of_lock", "tell_gates", "write_reports"]


def read_inputs(data: Sequence[Path]) -> list[Any]:
    """Arrays of the files, without opening pickles.

    Raises:
        ConfigError: E854, for a file that is not one array of numbers; and as `there`.
    """
    import numpy as np

    found: list[Any] = []
    for path in data:
        there(path)
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(
                "E854",
                seen=f"{path.name}, which cannot be read ({reason(error, 100)})",
                expected="an .npy file of numbers",
                fix="numpy.save it without objects",
            ) from error
        if not isinstance(array, np.ndarray):
            raise ConfigError(
                "E854",
                seen=f"{path.name}, which holds several arrays",
                expected="one .npy file an input",
                fix="--data a.npy --data b.npy",
            )
        found.append(array)
    return found


def measured(
    source: Path,
    made: Obfuscated,
    at_rest: Any,  # noqa: ANN401  onnx.ModelProto
    inputs: list[Any],
    gates: Gates,
    attackers: Rehearsal | None,
) -> Report:
    """All gates of a model that was made; that of the classifier where there is an obfuscator to train attackers on."""
    from vambrace.assets.obfuscate.measure.classifier import ClassifierOptions, classify
    from vambrace.assets.obfuscate.measure.measuring import measure

    classified = None
    if attackers is not None:
        say("training attackers on networks that are obfuscated alike; this takes half an hour or more")
        with listening() as progress:
            classified = classify(attackers, options=ClassifierOptions(size="usual"), progress=progress)
    say("measuring; this takes a minute or a few")
    return measure(
        source,
        made.model,
        inputs,
        gates=gates,
        at_rest=at_rest,
        classified=classified,
        name=source.stem,
        left_out=made.left_out,
    )


def write_reports(found: Report, places: Sequence[Path], *, force: bool) -> None:
    """Put what was measured on disk, as a page or as JSON by the names; a page names the JSON in its folder."""
    import json

    numbers = [path for path in places if path.suffix == ".json"]
    texts: dict[Path, str] = {}
    for path in places:
        beside = next((each.name for each in numbers if each.parent == path.parent), None)
        texts[path] = json.dumps(found.as_json(), indent=2, allow_nan=False) if path in numbers else found.html(beside)
    put({path: text.encode() for path, text in texts.items()}, force=force)


def said_of_lock(found: Report | None) -> str:
    """What may be said of a locked model, by what was measured."""
    word = next((each.word for each in found.judged if each.gate == "keyless"), None) if found is not None else None
    if found is None or word is None or found.keyless is None or word in {"does not apply", "not measured"}:
        return "; locked: what it does without its key was not measured" + ("; give --data" if found is None else "")
    if word == "fail":
        return "; locked, yet it does without its key some of what the original does: see the gate keyless"
    most = max((each.without or 0.0 for each in found.keyless.outputs), key=abs)
    if abs(most) <= found.gates.keyless:
        return "; locked: at chance without its key, on these inputs"
    return f"; locked: without its key at {most:.2f} on these inputs, where 0 is chance and 1 the original"


def tell_gates(found: Report) -> None:
    """A table of the gates, under their verdict."""
    rows = [(each.gate, each.word, each.sentence) for each in found.judged]
    if any(each.gate.startswith("survival:") and each.word == "does not apply" for each in found.judged):
        say("the operators and how they are joined can be read as in the original: nothing that was done hides them")
    tell("")
    tell_table(("gate", found.verdict.lower(), "what was found"), rows)
