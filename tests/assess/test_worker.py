"""Workers: whatever a unit raises becomes its error, and the model's faults are told from ours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from assess.toy import ToyCheck, install, toy_plan
from vambrace import data
from vambrace.assess.environment import versions
from vambrace.assess.facts import Samples, data_facts, model_facts
from vambrace.assess.opening import open_data, open_model
from vambrace.assess.plan import Plan, PlannedCheck
from vambrace.assess.planfile import plan_as_json
from vambrace.assess.units import cut
from vambrace.assess.worker import BUG, Worker, arithmetic, build, explain_failure
from vambrace.core import canonical
from vambrace.errors import ConfigError, DataRefused, ModelMisbehaved, ResourceError
from vambrace.models import from_torch
from vambrace.models.contract import Model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with install(folder):
        yield folder


def plan_of(base: Path, **options: Any) -> Plan:
    return toy_plan(base, PlannedCheck(id="toy", check=ToyCheck(**options)))


def outcome(base: Path, tmp_path: Path, *, model: Model | None = None, batches: Any = None, **options: Any) -> Any:
    """What a worker makes of the first unit of the toy check."""
    plan = plan_of(base, **options)
    sources = open_data(plan)
    model = model or open_model(plan)
    samples = {role: Samples.of(source) for role, source in sources.items()}
    facts = {role: data_facts(source, samples[role]) for role, source in sources.items()}
    units = cut(plan, samples, model=model_facts(model), data=facts, versions=versions(), device="cpu")
    worker = Worker(plan, model, batches or sources, evidence=tmp_path / "evidence")
    return worker.run(canonical.loads(canonical.dumps(units[0].as_json())))


def test_a_result_is_canonical_json(base: Path, tmp_path: Path) -> None:
    found = outcome(base, tmp_path, saves=True)
    assert found["error"] is None
    assert found["log"] == ""
    assert found["seconds"] > 0
    assert len(found["result"]["records"]) == 20
    assert found["result"]["cost"]["forwards"] == 20
    assert canonical.loads(canonical.dumps(found["result"])) == found["result"]
    assert (tmp_path / "evidence" / found["result"]["records"][0]["file"]).exists()


def test_units_of_a_model_that_raises_are_the_models_error(base: Path, tmp_path: Path) -> None:
    class Raises(torch.nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise KeyError("user code")

    found = outcome(base, tmp_path, model=from_torch(Raises().eval()))
    assert (found["error"]["type"], found["error"]["code"]) == ("ModelMisbehaved", "E406")
    assert found["log"] == ""


@pytest.mark.parametrize(
    ("does", "kind", "code"),
    [
        ("bug", BUG, "E900"),
        ("nan", BUG, "E900"),
        ("short", BUG, "E900"),
        ("memory", "ResourceError", "E610"),
        ("disk", "ResourceError", "E601"),
        ("exit", "ModelMisbehaved", "E406"),
    ],
)
def test_errors_of_units(base: Path, tmp_path: Path, does: str, kind: str, code: str) -> None:
    found = outcome(base, tmp_path, does=does)
    assert found["result"] is None
    assert (found["error"]["type"], found["error"]["code"]) == (kind, code)
    assert bool(found["log"]) == (kind == BUG)
    assert ("Traceback" in found["log"]) == (kind == BUG)
    assert all(isinstance(text, str) and text for text in found["error"].values())


class Wrapped:
    """A data set that changes its mind, or breaks, after it was looked at."""

    def __init__(self, whole: data.Loaded, read: Any) -> None:
        self.whole, self.read = whole, read

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def __len__(self) -> int:
        return len(self.whole)


def test_data_that_changes_during_a_run(base: Path, tmp_path: Path) -> None:
    whole = data.load("digits:test", limit=60)
    moved = Wrapped(whole, lambda index: whole.read([(place + 1) % 60 for place in index]))
    found = outcome(base, tmp_path, batches={"eval": moved})
    assert (found["error"]["type"], found["error"]["code"]) == ("DataRefused", "E504")


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (OSError("gone"), "DataRefused", "E513"),
        (ZeroDivisionError("user code"), "DataRefused", "E513"),
        (MemoryError(), "ResourceError", "E610"),
        (DataRefused("E320", seen="a", expected="b", fix="c"), "DataRefused", "E320"),
    ],
)
def test_data_that_breaks_during_a_run(base: Path, tmp_path: Path, raised: Exception, kind: str, code: str) -> None:
    def read(_index: Any) -> Any:
        raise raised

    found = outcome(base, tmp_path, batches={"eval": Wrapped(data.load("digits:test", limit=60), read)})
    assert (found["error"]["type"], found["error"]["code"]) == (kind, code)


def chained(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (MemoryError(), "E610"),
        (torch.OutOfMemoryError("CUDA out of memory"), "E610"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 GiB"), "E610"),
        (RuntimeError("CUDA error: out of memory"), "E610"),
        (chained(ModelMisbehaved("E406", seen="it raised", expected="b", fix="c"), MemoryError()), "E610"),
        (chained(ValueError("a"), torch.OutOfMemoryError("b")), "E610"),
        (RuntimeError("shapes do not match"), "E900"),
        (ModelMisbehaved("E401", seen="a", expected="b", fix="c"), "E401"),
        (ResourceError("E601", seen="a", expected="b", fix="c"), "E601"),
        (ConfigError("E103", seen="a", expected="b", fix="c"), "E103"),
    ],
)
def test_failures_are_told_apart(raised: Exception, code: str) -> None:
    error, log = explain_failure(raised)
    assert error["code"] == code
    assert bool(log) == (code == "E900")
    if code == "E610":
        assert "--batch" in error["fix"]


def test_a_bug_names_the_module_that_raised() -> None:
    try:
        math.sqrt(canonical.loads(b'"text"'))
    except TypeError as raised:
        error, _ = explain_failure(raised)
    assert __name__ in error["seen"]


def argument(base: Path, tmp_path: Path, plan: Plan) -> dict[str, Any]:
    sources = open_data(plan)
    facts = {
        "model": model_facts(open_model(plan)),
        "data": {role: data_facts(source, Samples.of(source)) for role, source in sources.items()},
    }
    return canonical.loads(
        canonical.dumps({"plan": plan_as_json(plan), "facts": facts, "evidence": str(tmp_path / "evidence")})
    )


def test_a_worker_is_built_from_values(base: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        run = build(argument(base, tmp_path, plan_of(base)))
        assert callable(run)
    finally:
        torch.set_num_threads(threads)


def test_a_worker_refuses_another_model_or_data(base: Path, tmp_path: Path) -> None:
    given = argument(base, tmp_path, plan_of(base))
    other = {**given, "facts": {**given["facts"], "model": {**given["facts"]["model"], "weights": "0" * 64}}}
    with pytest.raises(ConfigError, match="E503"):
        build(other)
    moved = {"eval": {**given["facts"]["data"]["eval"], "sha256": "0" * 64}}
    with pytest.raises(ConfigError, match="E504"):
        build({**given, "facts": {**given["facts"], "data": moved}})


def test_arithmetic_is_put_back(base: Path) -> None:
    before = torch.get_num_threads()
    plan = toy_plan(base, run={"threads": before + 2})

    def work() -> None:
        with arithmetic(plan):
            assert torch.get_num_threads() == before + 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert torch.get_num_threads() == before


def test_arithmetic_on_an_accelerator(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, torch.are_deterministic_algorithms_enabled())
    with arithmetic(toy_plan(base, run={"device": "cuda:0"})):
        assert torch.are_deterministic_algorithms_enabled()
        assert [matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark] == [False] * 3
    after = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, torch.are_deterministic_algorithms_enabled())
    assert before == after
