"""The tolerance profile with inputs: what moves answers too far on them is left out, and the map says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import onnx_nets
from stopwatches import stopwatch
from vambrace.assets.obfuscate import budget, pipeline, torch_graph
from vambrace.assets.obfuscate.fitting import Answers
from vambrace.assets.obfuscate.locking import lock, unlock
from vambrace.assets.obfuscate.measure.equality import EqualityOptions
from vambrace.assets.obfuscate.measure.inputs import read_rows
from vambrace.assets.obfuscate.measure.runtime import Network
from vambrace.assets.obfuscate.passes import pass_class
from vambrace.assets.obfuscate.passes.channels import BakedPermutation
from vambrace.assets.obfuscate.passes.disguises import Disguises
from vambrace.assets.obfuscate.passes.fission import SplitLayers
from vambrace.assets.obfuscate.passes.norms import InsertNorms
from vambrace.assets.obfuscate.pipeline import onnx_model, undo
from vambrace.assets.obfuscate.planning import Moved
from vambrace.assets.obfuscate.record import ObfuscationMap
from vambrace.assets.obfuscate.torch_graph import exported_program
from vambrace.errors import ConfigError

BOUND = 1e-5
DRAW = np.random.default_rng(0)
ROWS = DRAW.standard_normal((60, 8)).astype(np.float32)
# Some put sums in another order, one computes the same numbers, and one is exact.
EVERYWHERE = (
    InsertNorms(share=1.0),
    BakedPermutation(),
    SplitLayers(share=1.0),
    Disguises(share=1.0, operators=("Relu",)),
    "names",
)
SUMS = {"insert_norms", "baked_permutation", "split_layers"}


def weights(common: float) -> dict[str, Any]:
    """Of three layers, with a term that is added to all channels of the second and taken from what comes out."""
    made = {
        name: (DRAW.standard_normal(sizes) / np.sqrt(sizes[0])).astype(np.float32)
        for name, sizes in {"w1": (8, 32), "w2": (32, 24), "w3": (24, 5), "b1": (32,), "b2": (24,), "b3": (5,)}.items()
    }
    made["b2"] += np.float32(common)
    far = made["b2"].astype(np.float64) @ made["w3"].astype(np.float64)
    return made | {"far": far.astype(np.float32)}


def network(common: float) -> onnx.ModelProto:
    return onnx_nets.net(
        """(float[n,8] x) => (float[n,5] y) {
            a = Gemm (x, w1, b1) b = Relu (a) c = Gemm (b, w2, b2) d = Relu (c) e = Gemm (d, w3, b3) y = Sub (e, far)
        }""",
        weights=weights(common),
    )


ILL, WELL = network(10_000.0), network(0.0)


def apart(original: onnx.ModelProto, model: onnx.ModelProto) -> float:
    """By plain arithmetic, at two levels of the runtime."""
    return max(
        onnx_nets.apart(*(onnx_nets.answers(each, {"x": ROWS}, level) for each in (original, model)))
        for level in ("all", "disabled")
    )


@pytest.fixture
def obfuscations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Names of passes, for every time that a network is obfuscated."""
    seen: list[tuple[str, ...]] = []
    make = pipeline._made

    def counted(net: Any, passes: Any, *rest: Any) -> Any:
        seen.append(tuple(one.name for one in passes))
        return make(net, passes, *rest)

    monkeypatch.setattr(pipeline, "_made", counted)
    return seen


def test_without_inputs_the_bound_is_broken() -> None:
    """Or the others would show nothing."""
    assert apart(ILL, onnx_model(ILL, profile="tolerance", seed=1).model) > 10 * BOUND
    assert apart(WELL, onnx_model(WELL, profile="tolerance", seed=1, passes=EVERYWHERE).model) < BOUND


def test_what_moves_answers_is_left_out_and_the_rest_stays() -> None:
    made = onnx_model(ILL, profile="tolerance", passes=EVERYWHERE, seed=1, inputs=ROWS)
    assert apart(ILL, made.model) <= BOUND
    assert made.fitted is not None
    assert {each.name for each in made.fitted.left_out} == SUMS
    far = [each.moved.relative for each in made.fitted.left_out]
    assert far == sorted(far, reverse=True)
    assert min(far) > BOUND
    assert made.fitted.moved is not None
    assert made.fitted.moved.holds
    done = {entry.name: entry.done for entry in made.map.passes}
    assert {name for name, count in done.items() if not count} == SUMS
    assert len(done) == len(EVERYWHERE)


def test_the_map_says_why_and_leads_back() -> None:
    made = onnx_model(ILL, profile="tolerance", seed=1, inputs=ROWS)
    known = ObfuscationMap.from_bytes(made.map.to_bytes())
    first = known.passes[0]
    assert (first.name, first.done, first.eligible, first.record, first.marks) == ("baked_permutation", 0, 2, None, ())
    assert [(why.startswith("that move answers by 0.00"), count) for why, count in first.left.items()] == [(True, 2)]
    # Nothing is left that rounds.
    assert apart(ILL, made.model) == 0
    undone = undo(made.model, known)
    assert undone.kept == ()
    assert undone.model.SerializeToString(deterministic=True) == undo(*_plain(ILL)).model.SerializeToString(
        deterministic=True
    )


def _plain(model: onnx.ModelProto) -> tuple[Any, Any]:
    made = onnx_model(model, passes=["names"], seed=1)
    return made.model, made.map


def test_where_all_hold_nothing_is_done_twice(obfuscations: list[Any]) -> None:
    made = onnx_model(WELL, profile="tolerance", passes=EVERYWHERE, seed=1, inputs=ROWS)
    assert made.fitted is not None
    assert made.fitted.left_out == ()
    assert made.left_out == {}
    assert made.fitted.moved is not None
    assert 0 < made.fitted.moved.relative <= BOUND
    assert len(obfuscations) == 1
    assert made.map == onnx_model(WELL, profile="tolerance", passes=EVERYWHERE, seed=1).map


def test_those_that_break_the_bound_go_at_once(obfuscations: list[Any]) -> None:
    onnx_model(ILL, profile="tolerance", passes=EVERYWHERE, seed=1, inputs=ROWS)
    wanted = tuple(one if isinstance(one, str) else one.name for one in EVERYWHERE)
    rounding = [(name,) for name in wanted[:-1]]
    assert obfuscations == [wanted, *rounding, tuple(name for name in wanted if name not in SUMS)]


def half() -> onnx.ModelProto:
    """Its weights can only change places."""
    drawn = np.random.default_rng(5)
    sizes = {"w1": (16, 32), "b1": (32,), "w2": (32, 32), "b2": (32,), "w3": (32, 10)}
    return onnx_nets.net(
        """(float16[n,16] x) => (float16[n,10] y) {
            a = Gemm (x, w1, b1) b = Relu (a) c = Gemm (b, w2, b2) d = Relu (c) y = MatMul (d, w3)
        }""",
        weights={name: (drawn.standard_normal(each) / 5).astype(np.float16) for name, each in sizes.items()},
    )


@pytest.mark.parametrize("seed", range(6))
def test_what_was_done_nowhere_is_never_left_out(seed: int) -> None:
    """Without it those behind it draw other choices: these may hold by luck, and it would have got the blame."""
    model, rows = half(), np.random.default_rng(6).standard_normal((400, 16)).astype(np.float16)
    free = {
        entry.name: entry.done
        for entry in onnx_model(model, profile="tolerance", seed=seed).map.passes
        if pass_class(entry.name).profile == "tolerance"
    }
    assert [name for name, count in free.items() if count] == ["baked_permutation"]
    made = onnx_model(model, profile="tolerance", seed=seed, inputs=rows)
    assert made.fitted is not None
    (left,) = made.fitted.left_out
    assert left.name == "baked_permutation"
    assert (left.moved.holds, left.moved.summed, left.moved.relative > BOUND) == (False, False, True)
    assert list(made.map.passes[0].left.values()) == [free["baked_permutation"]]


def test_alone_a_pass_makes_the_choices_that_it_made_among_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[int] = []
    make = pipeline._made

    def counted(net: Any, passes: Any, *rest: Any) -> Any:
        streams.append(rest[3])
        return make(net, passes, *rest)

    monkeypatch.setattr(pipeline, "_made", counted)
    onnx_model(ILL, profile="tolerance", passes=EVERYWHERE, seed=1, inputs=ROWS)
    assert streams == [0, 0, 1, 2, 3, 0]


def test_all_rows_count() -> None:
    """One sample among many whose answers are small is enough, and it is found where it stands last."""
    made = onnx_model(WELL, profile="tolerance", passes=["baked_permutation"], seed=1, inputs=ROWS)
    assert made.fitted is not None
    assert made.fitted.left_out == ()
    model = _ill_at_zeros()
    assert (
        np.abs(onnx_nets.answers(model, {"x": ZEROS})[0]).max()
        < 1e-5 * np.abs(onnx_nets.answers(WELL, {"x": ZEROS})[0]).max()
    )
    found = onnx_model(
        model, profile="tolerance", passes=["baked_permutation"], seed=1, inputs=np.concatenate([ROWS, ZEROS])
    )
    assert found.fitted is not None
    (left,) = found.fitted.left_out
    assert left.name == "baked_permutation"
    assert left.moved.relative > BOUND
    assert "together" not in str(left.moved)
    assert found.fitted.moved is None


def test_how_many_rows_are_looked_at_is_said() -> None:
    """What stands behind them breaks the bound unseen."""
    model, rows = _ill_at_zeros(), DRAW.standard_normal((500, 8)).astype(np.float32)
    left_out: list[int] = []
    for first, last in ((rows[:499], ZEROS), (rows, ZEROS)):
        inputs = np.concatenate([first, last])
        made = onnx_model(model, profile="tolerance", passes=["baked_permutation"], seed=1, inputs=inputs)
        assert made.fitted is not None
        left_out.append(len(made.fitted.left_out))
    assert left_out == [1, 0]
    guide = (Path(__file__).parents[3] / "docs/assets/obfuscation.md").read_text(encoding="utf-8")
    options = EqualityOptions()
    assert len(options.settings) == 5
    for text in (guide, onnx_model.__doc__ or ""):
        said = " ".join(text.split())
        assert f"the first {options.rows} rows" in said
        assert f"the first {options.fewer} " in said


ZEROS = np.zeros((1, 8), np.float32)


def _ill_at_zeros() -> onnx.ModelProto:
    """Scores of an input of zeros are the biases alone, which are taken away."""
    model = onnx.ModelProto()
    model.CopyFrom(WELL)
    (far,) = (each for each in model.graph.initializer if each.name == "far")
    (before,) = onnx_nets.answers(_without_sub(model), {"x": ZEROS})
    far.CopyFrom(onnx.numpy_helper.from_array(before[0] * np.float32(1 + 1e-6), "far"))
    return model


def _without_sub(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    (far,) = (each for each in made.graph.initializer if each.name == "far")
    far.CopyFrom(onnx.numpy_helper.from_array(np.zeros(5, np.float32), "far"))
    return made


def test_decisions_of_the_callers_own_have_to_agree() -> None:
    def digits(outputs: list[Any]) -> Any:
        return np.round(outputs[0] * 2.0**23).astype(np.int64)

    given: dict[str, Any] = {"profile": "tolerance", "passes": EVERYWHERE, "seed": 1, "inputs": ROWS}
    found = onnx_model(WELL, **given, decide=digits)
    assert found.fitted is not None
    assert set() < {each.name for each in found.fitted.left_out} <= SUMS
    assert all(each.moved.relative <= BOUND and each.moved.decisions for each in found.fitted.left_out)
    assert "decisions" in str(found.fitted.left_out[0].moved)
    assert (digits(onnx_nets.answers(WELL, {"x": ROWS})) == digits(onnx_nets.answers(found.model, {"x": ROWS}))).all()


def test_whole_numbers_are_called_that() -> None:
    model = onnx_nets.net(
        """(float[n,8] x) => (float[n,5] y, int64[n,5] z) {
            a = Gemm (x, w1, b1) b = Relu (a) y = Gemm (b, w2, b2) c = Mul (y, fine) z = Cast<to=7> (c)
        }""",
        weights={"w1": (8, 32), "b1": (32,), "w2": (32, 5), "b2": (5,), "fine": np.array(2.0**21, np.float32)},
    )
    made = onnx_model(model, profile="tolerance", passes=["baked_permutation"], seed=1, inputs=ROWS)
    one, two = (onnx_nets.answers(each, {"x": ROWS})[1] for each in (model, made.model))
    assert (one == two).all()
    free = onnx_model(model, profile="tolerance", passes=["baked_permutation"], seed=1)
    most = int(np.abs(one[:50] - onnx_nets.answers(free.model, {"x": ROWS})[1][:50]).max())
    assert most > 0
    said = made.left_out["baked_permutation"]
    assert said.startswith(f"moves answers by up to {most} in whole numbers or zeros")


def test_files_and_bytes_are_models_as_well(tmp_path: Path) -> None:
    onnx.save(ILL, tmp_path / "net.onnx")
    sources = (ILL, ILL.SerializeToString(), tmp_path / "net.onnx", str(tmp_path / "net.onnx"))
    made = [onnx_model(each, profile="tolerance", seed=1, inputs={"x": ROWS}) for each in sources]
    assert {each.map.obfuscated for each in made} == {made[0].map.obfuscated}
    assert all(each.fitted and each.fitted.left_out for each in made)


def test_a_lock_changes_nothing_of_it() -> None:
    made = onnx_model(ILL, profile="tolerance", seed=1, inputs=ROWS)
    opened = unlock(lock(made.model, bytes(32)), bytes(32))
    assert opened.SerializeToString(deterministic=True) == made.model.SerializeToString(deterministic=True)


def test_copies_of_customers_are_fitted_too() -> None:
    made = onnx_model(ILL, profile="tolerance", seed=bytes(32), customer="ada", inputs=ROWS)
    assert made.map.customer == "ada"
    assert made.fitted is not None
    assert [each.name for each in made.fitted.left_out] == ["baked_permutation"]


def test_a_network_that_draws_at_random_is_not_judged() -> None:
    """Its answers differ from its own; that is for the gates to say."""
    model = onnx_nets.net(
        """(float[n,8] x) => (float[n,5] y) {
            a = Gemm (x, w1, b1) b = Relu (a) c = Gemm (b, w2, b2) r = RandomNormalLike (c) y = Add (c, r)
        }""",
        weights={"w1": (8, 32), "b1": (32,), "w2": (32, 5), "b2": (5,)},
    )
    made = onnx_model(model, profile="tolerance", passes=["baked_permutation"], seed=1, inputs=ROWS)
    assert made.fitted is not None
    assert made.fitted.left_out == ()
    assert made.fitted.moved is None


def test_in_the_exact_profile_nothing_is_measured(obfuscations: list[Any]) -> None:
    made = onnx_model(ILL, seed=1, inputs=ROWS)
    assert (made.fitted, made.planned, len(obfuscations)) == (None, None, 1)


def test_refused() -> None:
    with pytest.raises(ConfigError, match="E820"):
        onnx_model(ILL, profile="tolerance", inputs=np.zeros((3, 99), np.float32))
    with pytest.raises(ConfigError, match="E820"):
        onnx_model(ILL, profile="tolerance", budget=1.05)
    with pytest.raises(ConfigError, match="E839"):
        onnx_model(ILL, inputs=ROWS, budget=0.0)


def test_first_the_difference_then_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splitting layers would cost nothing in this budget, but moves answers; disguises do not, and cost."""

    def slower(original: Any, obfuscated: Any) -> float:
        return 1.0 + 0.1 * (len(onnx_nets.operators(obfuscated)) - len(onnx_nets.operators(original)))

    monkeypatch.setattr(budget, "Latency", stopwatch(slower))
    passes = (SplitLayers(share=1.0), BakedPermutation(), Disguises(share=0.6, operators=("Relu",)), "names")
    made = onnx_model(ILL, profile="tolerance", passes=passes, ratio="large", seed=1, inputs=ROWS, budget=1.05)
    assert made.fitted is not None
    assert made.planned is not None
    assert {each.name for each in made.fitted.left_out} == {"split_layers", "baked_permutation"}
    assert made.planned.dropped == ("disguises",)
    assert made.planned.fits
    assert made.left_out["disguises"] == "takes too long (1.10 times the latency by itself)"
    assert made.left_out["baked_permutation"].startswith("moves answers by 0.00")
    assert [(entry.name, entry.done > 0) for entry in made.map.passes] == [
        *[(each.name, False) for each in made.fitted.left_out],
        ("names", True),
    ]


def test_what_the_budget_leaves_is_held_against_the_bound_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pass goes, the others are drawn anew."""

    def slower(original: Any, obfuscated: Any) -> float:
        return 1.0 + 0.1 * (len(onnx_nets.operators(obfuscated)) - len(onnx_nets.operators(original)))

    def moved(_: Any, made: Any, whole: bool) -> Moved:
        done = {entry.name for entry in made.map.passes if entry.done}
        if "insert_norms" in done:
            return Moved(relative=0.5, decisions=0, holds=False)
        holds = done >= {"disguises", "baked_permutation"} or "baked_permutation" not in done or not whole
        return Moved(relative=0.0 if holds else 1.0, decisions=0, holds=holds)

    plans: list[list[str]] = []
    plan = budget.plan

    def planned(passes: Any, *rest: Any) -> Any:
        plans.append([one.name for one in passes])
        return plan(passes, *rest)

    monkeypatch.setattr(budget, "Latency", stopwatch(slower))
    monkeypatch.setattr(budget, "plan", planned)
    monkeypatch.setattr(Answers, "__call__", moved)
    passes = (InsertNorms(share=1.0), Disguises(share=1.0), BakedPermutation(), "names")
    made = onnx_model(WELL, profile="tolerance", passes=passes, seed=1, inputs=ROWS, budget=1.05)
    assert made.planned is not None
    assert made.planned.dropped == ("disguises",)
    assert [entry.name for entry in made.map.passes if entry.done] == ["names"]
    assert plans == [["disguises", "baked_permutation", "names"], ["names"]]
    assert made.fitted is not None
    left_out = [(each.name, each.place, each.moved.relative) for each in made.fitted.left_out]
    assert left_out == [("baked_permutation", 2, 1.0), ("insert_norms", 0, 0.5)]
    assert [entry.name for entry in made.map.passes] == ["baked_permutation", "insert_norms", "names"]
    assert made.planned.places == made.fitted.places == (3,)


def test_answers_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    compare = Answers._compared
    monkeypatch.setattr(Answers, "_compared", lambda *given: asked.append(given[2].rows) or compare(*given))
    answers = Answers(WELL, read_rows(ROWS, Network(WELL)), None)
    made = onnx_model(WELL, profile="tolerance", seed=1)
    assert answers(made, True) == answers(made, True)
    assert asked == [50, 500]
    far = answers(onnx_model(ILL, profile="tolerance", seed=1), False)
    assert far is not None
    assert far.relative > 1
    assert asked == [50, 500, 50]


class Far(nn.Module):
    """The network above."""

    def __init__(self, common: float) -> None:
        super().__init__()
        given = {name: nn.Parameter(torch.from_numpy(array)) for name, array in weights(common).items()}
        self.given = nn.ParameterDict(given)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = self.given
        x = torch.relu(torch.addmm(given["b1"], x, given["w1"]))
        x = torch.relu(torch.addmm(given["b2"], x, given["w2"]))
        return torch.addmm(given["b3"], x, given["w3"]) - given["far"]


@pytest.mark.parametrize(("common", "left_out"), [(10_000.0, ["baked_permutation"]), (0.0, [])])
def test_programs(common: float, left_out: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = torch_graph._made
    monkeypatch.setattr(torch_graph, "_made", lambda *given: made.append(make(*given)) or made[-1])
    found = exported_program(Far(common), (torch.from_numpy(ROWS),), profile="tolerance", seed=1)
    assert found.fitted is not None
    assert found.difference is not None
    assert [each.name for each in found.fitted.left_out] == left_out
    assert found.difference.max_row <= BOUND
    if left_out:
        assert made[0].difference.max_row > 10 * BOUND
        assert found.map.passes[0].done == 0
        assert torch_graph.undo_program(found.program, found.map).kept == ("metadata",)
    else:
        assert len(made) == 1
        assert {entry.name: entry.done for entry in found.map.passes}["baked_permutation"] == 2
