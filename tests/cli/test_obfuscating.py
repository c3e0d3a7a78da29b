"""What `vambrace obfuscate` writes beside the model."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from stopwatches import stopwatch
from vambrace.assets.obfuscate import budget, locking, pipeline, tracing
from vambrace.assets.obfuscate.measure import EqualityOptions, Gates, OverheadOptions, Settings, classifier, measuring
from vambrace.assets.obfuscate.rehearsal import Rehearsal
from vambrace.assets.seal import keys
from vambrace.cli.gating import said_of_lock, tell_gates, write_reports
from vambrace.cli.main import main
from vambrace.cli.obfuscated import tell_left_out
from vambrace.core import files
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


class Found:
    """A report that was measured."""

    def html(self, json_name: str | None) -> str:
        return f"numbers in {json_name}"

    def as_json(self) -> dict[str, Any]:
        return {"verdict": "PASS"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("net.html",), "None"),
        (("net.html", "numbers.json"), "numbers.json"),
        (("numbers.json", "net.html"), "numbers.json"),
        (("net.html", "elsewhere/numbers.json"), "None"),
    ],
)
def test_a_page_is_told_which_json_stands_beside_it(names: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_reports(Found(), [tmp_path / name for name in names], force=False)  # pyright: ignore[reportArgumentType]
    assert (tmp_path / "net.html").read_text() == f"numbers in {said}"
    assert all(json.loads((tmp_path / name).read_text()) for name in names if name.endswith(".json"))


def test_a_report_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    """It was replaced, without --force."""
    page = tmp_path / "net.html"
    page.write_text("of another")
    with pytest.raises(ConfigError, match="net.html is there already"):
        write_reports(Found(), [tmp_path / "net.json", page], force=False)  # pyright: ignore[reportArgumentType]
    assert page.read_text() == "of another"
    write_reports(Found(), [page], force=True)  # pyright: ignore[reportArgumentType]
    assert page.read_text() == "numbers in None"


@pytest.mark.parametrize(
    ("between", "size", "said"),
    [
        ("Relu", 32, ""),
        ("Softmax", 32, "nothing in this copy can be traced"),
        ("Relu", 3, "this copy cannot be traced"),
        ("normed", 32, "this copy can be traced as it is and not once it was simplified"),
    ],
)
def test_a_copy_that_cannot_be_traced_is_said_to_be_none(
    between: str, size: int, said: str, tmp_path: Path, capsys: Any
) -> None:
    """The owner would find out when it has leaked."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 4] y)
        {{ a = MatMul (x, v) b = {between} (a) y = MatMul (b, w) }}"""
        if between != "normed"
        else """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3, 5, 5] x) => (float[n, 32, 5, 5] y)
        { a = Conv <kernel_shape = [1, 1]> (x, v) b = BatchNormalization (a, scale, shift, mean, spread)
          s = Sigmoid (b) y = Mul (b, s) }"""
    )
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"v": (8, size), "w": (size, 4)}
    if between == "normed":
        shapes = {"v": (size, 3, 1, 1)}
        for name in ("scale", "shift", "mean", "spread"):
            each = rng.uniform(0.5, 2, size).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(each, name))
    for name, sizes in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(sizes).astype(np.float32), name))
    net, owner, out = (tmp_path / name for name in ("net.onnx", "owner", "out.onnx"))
    onnx.save(model, net)
    assert main(["keygen", str(owner), "--kind", "aes256"]) == 0
    call = ["obfuscate", str(net), "-o", str(out), "--no-map", "--customer", "ada", "--owner-key", str(owner)]
    assert main(call) == 0
    told = capsys.readouterr().err
    assert said in told
    assert ("be traced" in told) is bool(said)
    assert "no map is kept, and without one nothing tells whose copy this is" in told
    assert main([*call[:-4], "--force"]) == 0
    assert "be traced" not in capsys.readouterr().err  # it is a copy of nobody


def cancelling(common: float) -> onnx.ModelProto:
    """Two layers, with a term that the first adds to all its channels and that is taken from what comes out."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 4] y)
        { a = Gemm (x, v, b) r = Relu (a) s = MatMul (r, w) y = Sub (s, far) }"""
    )
    bias = (rng.standard_normal(32) + common).astype(np.float32)
    after = rng.standard_normal((32, 4)).astype(np.float32)
    given = {"v": rng.standard_normal((8, 32)).astype(np.float32), "b": bias, "w": after, "far": bias @ after}
    for name, array in given.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@pytest.mark.parametrize(("common", "left_out"), [(1e4, True), (0.0, False)])
def test_what_moves_answers_too_far_is_left_out_and_named(
    common: float, left_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the file that is written holds the bound, as without inputs it would not; locked or not."""
    net, data, key = (tmp_path / name for name in ("net.onnx", "rows.npy", "key"))
    rows = np.random.default_rng(1).standard_normal((40, 8)).astype(np.float32)
    onnx.save(cancelling(common), net)
    np.save(data, rows)
    assert main(["keygen", str(key), "--kind", "aes256"]) == 0
    told: list[dict[str, str]] = []
    monkeypatch.setattr(budget, "Latency", stopwatch(lambda *_: 1.0))

    def measured(*_: Any, **given: Any) -> Any:
        told.append(given["left_out"])
        return SimpleNamespace(verdict="PASS", judged=())

    monkeypatch.setattr(measuring, "measure", measured)

    def far(name: str, *options: str) -> float:
        call = ["obfuscate", str(net), "-o", str(tmp_path / name), "--no-map", "--seed", "1", "--profile", "tolerance"]
        assert main([*call, *options]) == 0
        opened = tmp_path / name
        if "--key-file" in options:
            opened = tmp_path / f"open-{name}"
            assert main(["unlock", str(tmp_path / name), str(opened), "--key-file", str(key)]) == 0
        one, two = (onnxruntime.InferenceSession(path).run(None, {"x": rows})[0] for path in (net, opened))
        return float((np.abs(one - two).max(axis=1) / np.abs(one).max(axis=1)).max())

    capsys.readouterr()
    assert (far("plain.onnx") > 1e-4) is left_out
    assert "nothing was measured: --data" in capsys.readouterr().err
    for name, options in {"kept.onnx": (), "locked.onnx": ("--key-file", str(key))}.items():
        assert far(name, "--data", str(data), *options) <= 1e-5
        said = capsys.readouterr()
        assert "measuring what takes more than 1.05 times the latency, or moves answers too far\n" in said.err
        assert ("left out, since answers move too far: baked_permutation by 0.0" in said.err) is left_out
        assert ("1 that move answers by 0.0" in said.out) is left_out
    assert [list(each) for each in told] == [["baked_permutation"] * left_out] * 2
    same = (tmp_path / "plain.onnx").read_bytes() == (tmp_path / "kept.onnx").read_bytes()
    assert same is not left_out


def test_what_takes_too_long_is_named_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    alone = {"phantoms": 1.1234, "disguises": 1.04, "permutation": 1.0}
    planned: Any = SimpleNamespace(dropped=("phantoms", "disguises"), alone=alone, budget=1.05)
    made = pipeline.Obfuscated(model=None, map=SimpleNamespace(), planned=planned)  # type: ignore[arg-type]
    tell_left_out(made)
    said = "phantoms (1.12 by itself), disguises (1.04 by itself)\n"
    assert capsys.readouterr().err == f"left out for the budget of 1.05, by what this machine takes now: {said}"
    assert made.left_out == {
        "phantoms": "takes too long (1.12 times the latency by itself)",
        "disguises": "takes too long (1.04 times the latency by itself)",
    }


@pytest.mark.parametrize("limit", [None, 0.5, 1.5])
def test_the_gate_of_latency_is_the_budget(
    limit: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A budget below 1 was planned for, not held, and passed."""
    net, data = tmp_path / "net.onnx", tmp_path / "rows.npy"
    onnx.save(cancelling(0.0), net)
    np.save(data, np.ones((4, 8), np.float32))
    asked: list[float] = []

    def measured(*_: Any, gates: Gates, **__: Any) -> Any:
        asked.append(gates.latency)
        return SimpleNamespace(verdict="PASS", judged=())

    real = pipeline.onnx_model

    def made(*_: Any, budget: float, **given: Any) -> Any:
        asked.append(budget)
        return real(net, **given | {"inputs": None})

    monkeypatch.setattr(measuring, "measure", measured)
    monkeypatch.setattr(pipeline, "onnx_model", made)
    call = ["obfuscate", str(net), "-o", str(tmp_path / "out.onnx"), "--no-map", "--data", str(data)]
    assert main([*call, *([] if limit is None else ["--budget-latency", str(limit)])]) == 0
    assert asked == [limit or 1.05] * 2
    assert f"measuring what takes more than {limit or 1.05} times the latency\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "without", "said"),
    [
        ("pass", 0.02, "; locked: at chance without its key, on these inputs"),
        ("pass", 0.3, "; locked: without its key at 0.30 on these inputs, where 0 is chance and 1 the original"),
        ("pass", -0.4, "; locked: without its key at -0.40 on these inputs, where 0 is chance and 1 the original"),
        ("fail", 0.9, "; locked, yet it does without its key some of what the original does: see the gate keyless"),
        ("does not apply", None, "; locked: what it does without its key was not measured"),
        ("not measured", 0.0, "; locked: what it does without its key was not measured"),
        (None, None, "; locked: what it does without its key was not measured; give --data"),
    ],
)
def test_chance_is_said_only_where_it_was_measured(word: str | None, without: float | None, said: str) -> None:
    gates = SimpleNamespace(keyless=0.1)
    outputs = () if without is None else (SimpleNamespace(without=without), SimpleNamespace(without=-0.1))
    judged = (SimpleNamespace(gate="equality", word="pass"), SimpleNamespace(gate="keyless", word=word))
    found: Any = SimpleNamespace(judged=judged, gates=gates, keyless=SimpleNamespace(outputs=outputs))
    assert said_of_lock(found if word else None) == said


@pytest.mark.parametrize("open_", [False, True])
def test_a_locked_file_that_does_what_the_original_does_fails(
    open_: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gate is measured on the very file that is written, and decides about the exit code."""
    net, data, key = (tmp_path / name for name in ("net.onnx", "rows.npy", "key"))
    onnx.save(cancelling(0.0), net)
    np.save(data, np.random.default_rng(1).standard_normal((40, 8)).astype(np.float32))
    keys.write(key, keys.Secret("aes256", bytes(range(32))))
    monkeypatch.setattr(secrets, "token_hex", lambda count: "5a" * count)
    real = measuring.measure
    quick = measuring.MeasureOptions(
        equality=EqualityOptions(fewer=5, settings=(Settings(),)),
        overhead=OverheadOptions(rounds=5, processes=0),
        tools=("ort-basic",),
        apart=0,
    )

    def measured(*args: Any, **given: Any) -> Any:
        loose = Gates(latency=1000, size=1000, memory=1000, survival=1.0, locked=1.0, required=())
        return real(*args, **{**given, "gates": loose, "options": quick})

    monkeypatch.setattr(measuring, "measure", measured)
    if open_:
        monkeypatch.setattr(locking, "lock", lambda model, _, **__: model)
    capsys.readouterr()
    call = ["obfuscate", str(net), "-o", str(tmp_path / "out.onnx"), "--no-map", "--seed", "1"]
    code = main([*call, "--data", str(data), "--key-file", str(key)])
    said = capsys.readouterr()
    assert ("see the gate keyless" in said.err) is open_
    assert "keyless" in said.out
    assert "; locked" in said.err
    assert code == (1 if open_ else 0)


@pytest.mark.parametrize("word", ["pass", "does not apply"])
def test_a_structure_that_nothing_hides_is_said_to_be_readable(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Gates have nothing to judge then, and the verdict is PASS."""
    judged = [
        SimpleNamespace(gate="survival:ort-all", word=word, sentence=""),
        SimpleNamespace(gate="top1", word=word, sentence=""),
    ]
    tell_gates(SimpleNamespace(judged=judged, verdict="PASS"))  # type: ignore[arg-type]
    assert ("can be read as in the original" in capsys.readouterr().err) is (word != "pass")


def test_attackers_are_trained_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On networks that are obfuscated with the same options, and the gate `naive` decides about the exit code."""
    net, data, page = (tmp_path / name for name in ("net.onnx", "rows.npy", "page.html"))
    onnx.save(cancelling(0.0), net)
    np.save(data, np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32))
    asked: list[Any] = []
    shares = {"clean": 1.0, "naive": 0.1, "branches": 0.9, "adaptive": 0.4}

    def trained(obfuscate: Any, *, options: Any, progress: Any) -> Any:
        asked.append((obfuscate, options.size))
        rows = [
            classifier.Row(attacker=name, accuracy=share, interval=None, right=1, n=160, learners={}, best="forest")  # type: ignore[arg-type]
            for name, share in shares.items()
        ]
        return classifier.Classified(
            rows=tuple(rows), families=("mlp",), variants=10, folds=5, keys=2, size="usual", chance=1 / 16, prepared=""
        )

    real = measuring.measure
    quick = measuring.MeasureOptions(
        equality=EqualityOptions(fewer=5, settings=(Settings(),)),
        overhead=OverheadOptions(rounds=5, processes=0),
        tools=("ort-basic",),
        apart=0,
    )

    def measured(*args: Any, gates: Any, **given: Any) -> Any:
        wide = {"latency": 1000, "size": 1000, "memory": 1000, "survival": 1.0}
        loose = Gates(profile=gates.profile, naive=gates.naive, required=required, **wide)
        return real(*args, **{**given, "gates": loose, "options": quick})

    required: tuple[str, ...] = ()
    monkeypatch.setattr(classifier, "classify", trained)
    monkeypatch.setattr(measuring, "measure", measured)
    call = ["obfuscate", str(net), "-o", str(tmp_path / "out.onnx"), "--no-map", "--data", str(data), "--force"]
    call += ["--profile", "tolerance", "--ratio", "small", "--budget-latency", "1.3"]
    assert main(call) == 0
    assert asked == []
    assert main([*call, "--classify", "--report", str(page)]) == 0
    ((obfuscate, size),) = asked
    assert size == "usual"
    assert obfuscate == Rehearsal(profile="tolerance", ratio="small", budget=1.3)
    said = capsys.readouterr().out
    assert said.count("No classifier was trained") == 1, "in the first run"
    text = page.read_text()
    assert '<th scope="row">adaptive</th><td class="right">40' in text
    assert "10 variants each, as wide as networks in use, and are asked" in text
    shares["naive"] = 0.2
    assert main([*call, "--classify"]) == 1
    required = ("naive",)
    assert main(call) == 4, "what is required was not measured"
    assert main(["obfuscate", str(net), "-o", str(tmp_path / "other.onnx"), "--no-map", "--classify"]) == 2
    assert "--classify without inputs" in capsys.readouterr().err


@pytest.fixture
def plain_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command with a model and a key in an empty folder."""
    monkeypatch.chdir(tmp_path)
    onnx.save(cancelling(0.0), "net.onnx")
    assert main(["keygen", "me", "--kind", "x25519"]) == 0
    return ["obfuscate", "net.onnx", "-o", "out.onnx", "-r", "me.pub"]


@pytest.mark.parametrize(("rows", "code"), [(9, 4), (30, 0)])
def test_a_lock_that_was_not_measured_is_no_pass(
    rows: int, code: int, plain_call: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate keyless needs ten rows; with nine of them the command ended with 0."""
    assert main(["keygen", "lock", "--kind", "aes256"]) == 0
    np.save("rows.npy", np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32))
    real = measuring.measure

    def measured(*args: Any, gates: Gates, **given: Any) -> Any:
        assert gates.required[-1] == "keyless"
        loose = Gates(latency=1000, size=1000, memory=1000, survival=1.0, locked=1.0, required=("keyless",))
        quick = measuring.MeasureOptions(overhead=OverheadOptions(rounds=5, processes=0), tools=("ort-basic",), apart=0)
        return real(*args, **{**given, "gates": loose, "options": quick})

    monkeypatch.setattr(measuring, "measure", measured)
    assert main([*plain_call, "--data", "rows.npy", "--budget-latency", "1000", "--key-file", "lock"]) == code


def test_what_gives_no_tensors_is_not_measured(plain_call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As classifiers of scikit-learn do; it ended as a bug of vambrace."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 4] y)
        { r = Relu (x) s = SplitToSequence <axis=0, keepdims=1> (r) }"""
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("s", 1, None))
    onnx.save(model, "net.onnx")
    np.save("rows.npy", np.ones((20, 8), np.float32))
    assert main([*plain_call, "--data", "rows.npy"]) == 3
    assert "E821 the model gives 's', seq(tensor(float))" in capsys.readouterr().err
    assert main(plain_call) == 0


@pytest.mark.parametrize("option", ["--key-file", "--owner-key", "--data", "--report", "--map", "-o"])
def test_no_path_is_not_the_folder_we_are_in(
    option: str, plain_call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that is not set: of `--report ""` a folder was to be a report, and `--key-file ""` was read."""
    capsys.readouterr()
    for value, seen in (("", "an empty path"), ("-", "stands for a stream")):
        assert main([*plain_call, option, value]) == 2
        assert seen in capsys.readouterr().err
    assert not Path("out.onnx").exists()


def test_whose_copy_it_is_stands_on_one_line(
    plain_call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever wrote a map wrote lines of `trace`, and steered the terminal."""
    assert main(plain_call) == 0
    name = "acme\x1b[2J\nthis is the copy of beta"
    match = SimpleNamespace(customer=name, scaled=9, channels=9, arranged=0, arrangements=0, log10_chance=-50.0)
    monkeypatch.setattr(tracing, "trace", lambda *_given: [match])
    capsys.readouterr()
    assert main(["trace", "out.onnx", "--map", "out.onnx.map.sealed", "-i", "me"]) == 0
    told = capsys.readouterr()
    lines = [line.partition("acme")[0] for line in told.err.splitlines()]
    assert lines[:-1] == ["this is the copy of "]
    assert lines[-1].startswith("origin of the map not proven")
    assert len(told.out.splitlines()) == 2
    assert "\x1b" not in told.out + told.err


def test_all_copies_that_agree_are_named(
    plain_call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two customers who put their copies together, one was blamed."""
    assert main(plain_call) == 0
    found = [("ada", -50.0), ("bob", -40.0), ("ada", -40.0), (None, -30.0), ("eve", -5.0)]
    matches = [
        SimpleNamespace(customer=name, scaled=9, channels=9, arranged=0, arrangements=0, log10_chance=chance)
        for name, chance in found
    ]
    monkeypatch.setattr(tracing, "trace", lambda *_given: matches)
    capsys.readouterr()
    assert main(["trace", "out.onnx", "--map", "out.onnx.map.sealed", "-i", "me"]) == 0
    names = "ada and of bob and of number 4 in the table, which has no name"
    assert f"this is the copy of {names}, or was made from it" in capsys.readouterr().err


def test_whose_map_it_is_can_be_asked(
    plain_call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A map that a stranger had sealed named whom he wanted, and called any model the original."""
    assert main(["keygen", "maker", "--kind", "ed25519"]) == 0
    assert main([*plain_call, "--sign", "maker"]) == 0
    for command in (["trace", "out.onnx"], ["restore", "out.onnx", "back.onnx", "--force"]):
        call = [*command, "--map", "out.onnx.map.sealed", "-i", "me"]
        capsys.readouterr()
        code = main(call)
        assert ("origin of the map not proven" in capsys.readouterr().err) is (code == 0)
        assert main([*call, "--signer", "maker.pub"]) == code
        assert "origin of the map" not in capsys.readouterr().err
    assert main([*plain_call, "--force"]) == 0
    assert main([*call, "--signer", "maker.pub"]) == 3
    assert "E742" in capsys.readouterr().err
    Path("out.onnx").unlink()
    monkeypatch.setattr(pipeline, "onnx_model", None)  # before any work is done
    assert main([*plain_call, "--force", "--sign", "me"]) in {2, 3}
    assert not Path("out.onnx").exists()


@pytest.mark.parametrize("more", [["--map", "m"], ["--sign", "me"], ["--passphrase-env", "X"]])
def test_what_a_map_takes_does_not_go_with_none(
    more: list[str], plain_call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*plain_call[:-2], "--no-map", *more]) == 2
    assert "E854 --no-map, and a place" in capsys.readouterr().err
    assert main([*plain_call, "--no-map"]) == 2


def test_an_owner_without_customers_traces_nobody(plain_call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "owner", "--kind", "aes256"]) == 0
    assert main([*plain_call, "--owner-key", "owner"]) == 0
    assert "without --customer, all copies" in capsys.readouterr().err


@pytest.mark.parametrize("late", ["out.onnx", "out.onnx.map.sealed"])
def test_what_appears_at_the_target_meanwhile_is_kept(
    late: str, plain_call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two runs into one target both ended well, and one model was gone."""
    real = pipeline.onnx_model

    def slow(*given: Any, **named: Any) -> Any:
        Path(late).write_text("of another")
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "onnx_model", slow)
        assert main(plain_call) == 2
    assert f"E766 {late} is there already" in capsys.readouterr().err
    assert Path(late).read_text() == "of another"
    assert not list(Path().glob(".*"))
    assert main([*plain_call, "--force"]) == 0


@pytest.mark.parametrize("name", [".", "/", ""])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_target_has_a_name(
    name: str, force: list[str], plain_call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended as a bug of vambrace."""
    before = sorted(Path().iterdir())
    for option in ("-o", "--map", "--report"):
        call = [*plain_call, option, name, *force]
        capsys.readouterr()
        assert main(call) in {2, 6}
        assert "E900" not in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("call", range(1, 9))
def test_a_disk_that_is_full_leaves_a_model_and_its_map(
    call: int, plain_call: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --force the old map was replaced, the old model stayed, and nothing led it back."""
    again = [*plain_call, "--force"]
    assert main(again) == 0
    first = Path("out.onnx").read_bytes()
    count = 0

    def refused(work: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            nonlocal count
            count += 1
            if count >= call:
                raise OSError(errno.ENOSPC, "no space")
            return work(*given)

        return called

    with monkeypatch.context() as patch:
        for name in ("write", "fsync", "replace"):
            patch.setattr(files.system, name, refused(getattr(files.system, name)))
        assert main(again) == (6 if call <= count else 0)
    capsys.readouterr()
    assert sorted(path.name for path in Path().iterdir()) == [
        "me",
        "me.pub",
        "net.onnx",
        "out.onnx",
        "out.onnx.map.sealed",
    ]
    back = main(["restore", "out.onnx", "back.onnx", "--map", "out.onnx.map.sealed", "-i", "me"])
    # Where the model is new and the map is not, it is made again from the original, which is still there.
    assert back == 0 or "E804" in capsys.readouterr().err
    assert back == 0 or Path("out.onnx").read_bytes() != first, "the old model is there, with the map of another"


@pytest.mark.parametrize("option", ["--key-file", "--owner-key", "--recipient", "--identity"])
def test_a_key_is_not_overwritten_by_what_is_made_with_it(
    option: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --force it was, and the model that it had locked was lost with it."""
    monkeypatch.chdir(tmp_path)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 8] x) => (float[n, 4] y) { y = MatMul (x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, "net.onnx")
    key = Path("own")
    assert main(["keygen", "own", "--kind", "x25519" if option in {"--recipient", "--identity"} else "aes256"]) == 0
    before = key.read_bytes()
    if option == "--identity":
        assert main(["obfuscate", "net.onnx", "-o", "out.onnx", "-r", "own.pub"]) == 0
        call = ["restore", "out.onnx", "own", "--map", "out.onnx.map.sealed", option, "own", "--force"]
    else:
        target = "own.pub" if option == "--recipient" else "own"
        call = ["obfuscate", "net.onnx", "-o", target, option, target, "--force"]
        call += [] if option == "--recipient" else ["--no-map"]
    capsys.readouterr()
    assert main(call) == 2
    assert "E854" in capsys.readouterr().err
    assert key.read_bytes() == before


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize("way", ["-o", "--map", "unlock", "restore"])
def test_weights_beside_a_model_are_not_replaced(
    way: str,
    link: Callable[[Path, Path], None] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With --force they were, by what was made of the model that they belong to."""
    monkeypatch.chdir(tmp_path)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n,64] x) => (float[n,4] y) { y = MatMul (x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    keys.write(tmp_path / "lock", keys.Secret("aes256", bytes(range(32))))
    if way == "unlock":
        model = locking.lock(model, bytes(range(32)))
    onnx.save(model, "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    target = Path("net.bin" if link is None else "other.bin")
    if link is not None:
        link(Path("net.bin"), target)
    before = Path("net.bin").read_bytes()
    words = {
        "-o": ["obfuscate", "net.onnx", "-o", str(target), "--no-map"],
        "--map": ["obfuscate", "net.onnx", "-o", "out.onnx", "-r", "lock", "--map", str(target)],
        "unlock": ["unlock", "net.onnx", str(target), "--key-file", "lock"],
        "restore": ["restore", "net.onnx", str(target), "--map", "some.map", "-i", "lock"],
    }
    assert main([*words[way], "--force"]) == 2
    assert "E854" in capsys.readouterr().err
    assert Path("net.bin").read_bytes() == before
    assert not Path("out.onnx").exists()


@pytest.mark.parametrize(
    "call",
    [
        "obfuscate net.onnx -o secret --no-map",
        "obfuscate net.onnx -o out.onnx -r me.pub --map secret",
        "unlock locked.onnx secret --key-file lock",
        "restore out.onnx secret --map out.onnx.map.sealed --identity me",
    ],
)
def test_no_secret_key_is_replaced(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only those that the command itself reads were spared."""
    monkeypatch.chdir(tmp_path)
    onnx.save(cancelling(0.0), "net.onnx")
    assert main(["keygen", "me"]) == main(["keygen", "lock", "--kind", "aes256"]) == 0
    assert main(["keygen", "secret", "--kind", "ed25519"]) == 0
    assert main(shlex.split("obfuscate net.onnx -o locked.onnx --no-map --key-file lock")) == 0
    assert main(shlex.split("obfuscate net.onnx -o out.onnx -r me.pub")) == 0
    secret = Path("secret").read_bytes()
    capsys.readouterr()
    assert main([*shlex.split(call), "--force"]) == 2
    assert "this is a secret key, perhaps the only copy" in capsys.readouterr().err
    assert Path("secret").read_bytes() == secret
