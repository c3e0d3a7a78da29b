"""What simplifiers bring back, and that a tool that did not run is not a tool that was withstood."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import onnx.parser
import pytest

import disguises
from vambrace.assets.obfuscate.measure import runtime, survival
from vambrace.assets.obfuscate.measure.families import FAMILIES
from vambrace.assets.obfuscate.measure.readability import read_structure
from vambrace.assets.obfuscate.measure.strangers import Control, control
from vambrace.assets.obfuscate.measure.survival import TOOLS, try_tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

LAYERS = disguises.weights()
ORIGINAL = disguises.dense(LAYERS)


def tried(obfuscated: object, tools: tuple[survival.Tool, ...] = TOOLS[:3]) -> dict[str, survival.Survived]:
    before = read_structure(ORIGINAL, obfuscated)  # type: ignore[arg-type]
    return {each.tool: each for each in try_tools(ORIGINAL, obfuscated, before, tools=tools)}  # type: ignore[arg-type]


def test_dummies_come_out_and_branches_on_data_do_not() -> None:
    """Facts of onnxruntime that an obfuscator has to know: x * 1 and x + 0 are erased, predicates on data are not."""
    dummies, branches = tried(disguises.padded(ORIGINAL)), tried(disguises.decoyed(LAYERS))
    for tool in TOOLS[:3]:
        assert dummies[tool].measured
        assert (dummies[tool].most or 0.0) > 0.5
        assert branches[tool].most == 0.0
        assert branches[tool].hidden > 0.7


def test_what_a_tool_does_to_all_graphs_is_not_brought_back() -> None:
    """Every product becomes another operator in all files: the original is no more told than others are."""
    before, after = Control(n=16, risen={"kernel": 0.2}, high={"kernel": 0.6}), 0.5
    assert before.beyond("kernel", 0.3, after) == 0.0
    assert before.beyond("kernel", 0.3, 0.7) == pytest.approx(0.1)
    assert before.beyond("kernel", 0.6, 0.9) == pytest.approx(0.1)
    assert before.beyond("kernel", 0.3, 1.0) == pytest.approx(0.4)


def test_strangers_are_as_many_as_families_and_few_are_none() -> None:
    padded = disguises.padded(ORIGINAL)
    found = tried(padded, ("ort-basic",))["ort-basic"]
    assert found.control is not None
    assert found.control.n == len(FAMILIES)
    # Beside an original that was hidden by operators that come out, strangers rise by less.
    assert all(found.control.risen[name] < found.risen[name] for name in found.risen)

    def fails(model: ModelProto) -> ModelProto:
        raise RuntimeError

    assert control(padded, padded, "one that fails", fails) is None


def test_nothing_hidden_is_nothing_recovered() -> None:
    found = tried(disguises.renamed(ORIGINAL))["ort-all"]
    assert (found.measured, found.most) == (True, 0.0)
    assert found.hidden == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["onnxsim", "onnxslim"])
def test_simplifiers_that_are_there_are_run(name: survival.Tool) -> None:
    pytest.importorskip(name)
    found = tried(disguises.padded(ORIGINAL), (name,))[name]
    assert found.measured
    assert max(found.risen.values()) > 0.7
    assert (found.most or 0.0) > 0.5


@pytest.mark.parametrize("name", ["onnxsim", "onnxslim"])
def test_what_simplifiers_print_is_not_shown(
    name: Literal["onnxsim", "onnxslim"], capfd: pytest.CaptureFixture[str]
) -> None:
    """They fold a constant that cannot be folded, and say the name of its operator past Python's streams."""
    pytest.importorskip(name)
    simplify = runtime.simplifier(name)
    assert simplify
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 4] x) => (float[N, 4] y) <float[3] c = {1, 2, 3}, int64[1] size = {4}> {
            [secret] r = Reshape(c, size)
            y = Add(x, r)
        }""")
    simplify(model)
    print("afterwards")
    print("and here", file=sys.stderr)
    assert capfd.readouterr() == ("afterwards\n", "and here\n")


def spoken(monkeypatch: pytest.MonkeyPatch, simplify: Callable[[], None]) -> Callable[[ModelProto], ModelProto]:
    """A simplifier that does something beside."""

    def act(model: ModelProto) -> tuple[ModelProto, bool]:
        simplify()
        return model, True

    monkeypatch.setitem(sys.modules, "onnxsim", SimpleNamespace(simplify=act))
    found = runtime.simplifier("onnxsim")
    assert found
    return found


def test_nothing_is_shown_by_any_stream_and_all_are_put_back(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def speak() -> None:
        os.write(1, b"written")
        os.write(2, b"written")
        print("printed")
        print("printed", file=sys.stderr)

    def free() -> list[int]:
        numbers = [os.dup(1) for _ in range(4)]
        for number in numbers:
            os.close(number)
        return numbers

    before = free()
    assert spoken(monkeypatch, speak)(ORIGINAL) is ORIGINAL
    assert capfd.readouterr() == ("", "")
    assert free() == before
    speak()
    assert capfd.readouterr() == ("writtenprinted\n", "writtenprinted\n")


def test_one_simplifier_is_silent_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that begin before one has ended, the second one would put back the silence of the first."""
    inside: list[int] = []

    def slow() -> None:
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.05)
        inside.pop()

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(spoken(monkeypatch, slow), [ORIGINAL] * 4))) == 4


def test_a_process_without_streams_is_silent_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {number: os.dup(number) for number in (0, 1)}
    for number in kept:
        os.close(number)
    try:
        assert spoken(monkeypatch, lambda: None)(ORIGINAL) is ORIGINAL
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def test_a_tool_that_is_missing_or_fails_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: object) -> object:
        raise RuntimeError("no such\nluck")

    monkeypatch.setattr(survival, "simplifier", lambda name: None if name == "onnxsim" else fails)
    found = tried(disguises.padded(ORIGINAL), ("onnxsim", "onnxslim"))
    for tool, why in (("onnxsim", "not installed"), ("onnxslim", "no such luck")):
        assert not found[tool].measured
        assert found[tool].most is None
        assert why in found[tool].why


def test_a_package_that_is_not_there_gives_no_simplifier(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(runtime.importlib, "import_module", missing)
    assert runtime.simplifier("onnxsim") is None
