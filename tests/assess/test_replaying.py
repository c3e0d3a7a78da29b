"""What was saved must happen again: the same predictions, inside radius and bounds, and wrong where it says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vambrace import assess, data, models
from vambrace.assess.evidence import load_evidence, save_evidence
from vambrace.assess.plan import PlannedCheck, RunSpec
from vambrace.assess.replaying import Replayed, replay
from vambrace.assess.report import Report
from vambrace.core import canonical, registry
from vambrace.core.findings import Evidence
from vambrace.errors import ConfigError
from vambrace.models.contract import Model
from vambrace.report import read_results
from vambrace.testing.digits import network, train

Change = Callable[[Evidence, Path], Evidence]


@pytest.fixture(scope="module")
def model() -> Model:
    part = data.load("digits:train")
    batch = part.read(range(len(part)))
    return models.from_torch(train(batch.inputs, batch.labels, epochs=3), identity="replayed")


@pytest.fixture(scope="module")
def finished(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Report:
    attack = registry.load("vambrace.attacks", "fgsm")(eps=0.2)
    checks = [
        PlannedCheck(id="fgsm", check=registry.load("vambrace.checks", "adversarial")(attack=attack, eps=(0.2,))),
        PlannedCheck(
            id="rotate",
            check=registry.load("vambrace.checks", "natural")(
                perturbation=registry.load("vambrace.perturbations", "rotate")(), severities=(5,)
            ),
        ),
    ]
    return assess.run(
        model,
        data.load("digits:test", limit=100),
        checks=checks,
        gates="none",
        options=RunSpec(images=2, threads=1),
        out=tmp_path_factory.mktemp("runs"),
    )


def examples(run: Path) -> list[Evidence]:
    return [item for finding in read_results(run / "results.json").findings for item in finding.evidence]


def changed(run: Path, name: str, change: Change) -> None:
    """Rewrite one example in results.json."""
    results = read_results(run / "results.json")
    findings = tuple(
        dataclasses.replace(
            finding,
            evidence=tuple(change(item, run) if item.finding == name else item for item in finding.evidence),
        )
        for finding in results.findings
    )
    (run / "results.json").write_bytes(canonical.dumps(dataclasses.replace(results, findings=findings).as_json()))


@pytest.fixture
def copied(finished: Report, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(finished.path, tmp_path / "run"))


def named(run: Path, kind: str) -> str:
    return next(item.finding for item in examples(run) if item.kind == kind)


def test_every_saved_example_holds(finished: Report, model: Model) -> None:
    kinds = set()
    for item in examples(finished.path):
        again = replay(finished.path, item.finding, model=model)
        assert again.holds
        assert again.exit_code == 0
        assert again.lines()[-1].startswith("holds")
        kinds.add(item.kind)
    assert kinds == {"adversarial", "perturbed"}


def said(**facts: Any) -> Change:
    return lambda item, _: dataclasses.replace(item, data={**item.data, **facts})


def moved(by: float, rest: float = 0.0) -> Change:
    """Another picture under its true hash: moved further away, or out of the bounds."""

    def change(item: Evidence, run: Path) -> Evidence:
        pair = load_evidence(run, item.file)
        picture = pair.changed + by * (pair.changed - pair.clean).sign() + rest
        return dataclasses.replace(item, file=f"evidence/{save_evidence(run / 'evidence', pair.clean, picture)}")

    return change


def unclean(item: Evidence, run: Path) -> Evidence:
    """The changed picture in place of the clean one: a change of nothing."""
    pair = load_evidence(run, item.file)
    return dataclasses.replace(item, file=f"evidence/{save_evidence(run / 'evidence', pair.changed, pair.changed)}")


@pytest.mark.parametrize(
    "change",
    [
        said(prediction=-1),
        said(eps=0.1),
        said(norm=""),
        said(clean_prediction=-1),
        moved(1e-6),
        moved(0.0, 5.0),
        moved(float("nan")),
        unclean,
    ],
    ids=["prediction", "radius", "no norm", "clean", "further", "outside", "nan", "no change"],
)
def test_what_is_not_as_recorded_does_not_hold(change: Change, copied: Path, model: Model) -> None:
    name = named(copied, "adversarial")
    changed(copied, name, change)
    again = replay(copied, name, model=model)
    assert not again.holds
    assert again.exit_code == 5
    assert again.lines()[-1].startswith("DOES NOT HOLD")


def test_an_adversarial_example_that_is_classified_right_shows_nothing(copied: Path, model: Model) -> None:
    name = named(copied, "adversarial")
    changed(
        copied, name, lambda item, _: dataclasses.replace(item, data={**item.data, "label": item.data["prediction"]})
    )
    assert not replay(copied, name, model=model).holds


def test_another_network_gives_other_answers(copied: Path) -> None:
    other = network()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    results = [replay(copied, item.finding, model=models.from_torch(other)) for item in examples(copied)]
    assert not all(each.holds for each in results)


def test_what_is_missing_is_named(copied: Path, model: Model) -> None:
    name = named(copied, "adversarial")
    for wrong, code in ((copied, "E511"), (copied.parent, "E500"), (copied / "nowhere", "E500")):
        with pytest.raises(ConfigError, match=code):
            replay(wrong, "nothing", model=model)
    with pytest.raises(ConfigError, match="E512"):
        replay(copied, name)
    [file] = {item.file for item in examples(copied) if item.finding == name}
    content = bytearray((copied / file).read_bytes())
    content[-1] ^= 1
    (copied / file).write_bytes(content)
    with pytest.raises(ConfigError, match="E510"):
        replay(copied, name, model=model)
    (copied / file).unlink()
    with pytest.raises(ConfigError, match="E510"):
        replay(copied, name, model=model)
    changed(copied, name, lambda item, _: dataclasses.replace(item, data={"label": 3}))
    with pytest.raises(ConfigError, match="E584.*without prediction"):
        replay(copied, name, model=model)


def test_lines_say_what_was_measured() -> None:
    outcome = Replayed(
        finding="x",
        recorded=3,
        prediction=4,
        label=1,
        clean_recorded=None,
        clean_prediction=1,
        wrong=True,
        distance=0.25,
        norm="l2",
        eps=0.5,
        inside=False,
    )
    text = "\n".join(outcome.lines())
    for words in ("4 now, 3 recorded", "l2 distance 0.25 (radius 0.5)", "OUTSIDE", "DOES NOT HOLD"):
        assert words in text
    assert "unchanged" not in text
