"""Exit codes, signals, pipes, and what the command line imports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vambrace.assess import running
from vambrace.cli import main as module
from vambrace.cli.main import main
from vambrace.errors import (
    AccessError,
    BudgetSpent,
    ConfigError,
    DataRefused,
    MissingExtra,
    ModelMisbehaved,
    ModelRefused,
    ResourceError,
    VambraceError,
)

SLOW = """
import time
from pathlib import Path
from torch import nn

class Net(nn.Linear):
    def forward(self, inputs):
        if Path("slow").exists():
            time.sleep(0.3)
        return super().forward(inputs.flatten(1))

def net():
    return Net(64, 10)
"""
PLAN = """
schema = 1
model = { factory = "slowly:net" }
trust = { code = ["slowly"] }
data.eval = { source = "digits", limit = 32 }
run = { threads = 1, batch = 32, chunk = 4 }
check = [{ check = "clean" }]
"""
WITHOUT_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxruntime"):
            raise ImportError(f"blocked {name}", name=name)
sys.meta_path.insert(0, Block())
from vambrace.cli.main import main
for line in sys.stdin.read().splitlines():
    print("::", main(line.split()), line)
    sys.stdout.flush()
assert "torch" not in sys.modules
"""


def vambrace(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vambrace", *arguments], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "slowly.py").write_text(SLOW)
    (folder / "plan.toml").write_text(PLAN)
    main(["assess", str(folder / "plan.toml"), "--out", str(folder / "runs")])
    return next((folder / "runs").iterdir())


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ConfigError, 2),
        (AccessError, 2),
        (MissingExtra, 2),
        (ModelRefused, 3),
        (DataRefused, 3),
        (BudgetSpent, 4),
        (ModelMisbehaved, 5),
        (ResourceError, 6),
    ],
)
def test_every_error_of_the_tree_has_its_exit_code(
    kind: type[VambraceError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise kind("E103", seen="this", expected="that", fix="so")

    monkeypatch.setattr(running, "rehearse", fail)
    assert main(["check", "--factory", "a:b", "--data", "digits"]) == code
    said = capsys.readouterr()
    assert said.err.startswith("E103 this\n     expected that\n     fix      so\n")
    assert said.out == ""


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (RuntimeError("surprise"), 70, "E900 a bug in vambrace"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 6, "E581 memory ran out"),
        (ImportError("no libcudart", name="torch._C"), 2, "E583 torch cannot be imported: no libcudart"),
        (ImportError("lost", name="vambrace.lost"), 70, "E900"),
    ],
)
def test_what_is_no_error_of_the_tree(
    raised: BaseException,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(running, "rehearse", fail)
    assert main(["check", "--factory", "a:b", "--data", "digits"]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert ("Traceback" in said.err) == (code == 70)
    assert said.out == ""


def test_reading_verbs_need_no_torch(finished: Path) -> None:
    run = str(finished)
    commands = {
        "--help": 0,
        "assess --help": 0,
        "list": 0,
        "list attacks --json": 0,
        "explain": 0,
        "explain E201": 0,
        f"report {run}": 0,
        f"gate {run}": main(["gate", run]),
        f"gate {run} --baseline {run}": main(["gate", run, "--baseline", run]),
        f"gate {run} --plan {finished.parents[1] / 'plan.toml'}": main(["gate", run]),
        f"replay {run} x": 2,
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input="\n".join(commands), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    codes = dict(re.findall(r"^:: (\d+) (.*)$", done.stdout, re.MULTILINE))
    assert {line: int(code) for code, line in re.findall(r"^:: (\d+) (.*)$", done.stdout, re.MULTILINE)} == commands
    assert codes
    assert "E583 torch cannot be imported" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_little() -> None:
    code = """
import sys
from vambrace.cli.main import main
main(["assess", "--help"])
print(len(sys.modules), {*sys.modules} & {"torch", "numpy", "pydantic", "rich", "jinja2", "scipy"})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, _, heavy = done.stdout.splitlines()[-1].partition(" ")
    assert heavy == "set()"
    assert int(count) < 250


def test_a_reader_that_leaves_changes_no_exit_code(finished: Path) -> None:
    for arguments, code in ((["explain"], 0), (["--help"], 0), (["gate", str(finished), "--json"], 5)):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "vambrace", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writing)
        expected = code if code == 0 else main(arguments)
        assert done.returncode == expected, done.stderr
        assert "Broken" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_a_full_disk_behind_stdout_is_exit_6(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vambrace", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 6
    assert "E579 standard output cannot be written: No space left" in done.stderr


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A run whose units take long, once it has announced them."""
    (folder / "slowly.py").write_text(SLOW)
    (folder / "plan.toml").write_text(PLAN)
    running_one = subprocess.Popen(
        [sys.executable, "-m", "vambrace", "assess", "plan.toml", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running_one.stderr is not None
    for line in running_one.stderr:
        if line.startswith("to do"):
            (folder / "slow").touch()
            break
    while not list(folder.glob("runs/*/environment.json")):  # written just before the first unit
        time.sleep(0.01)
    time.sleep(0.2)
    return running_one


@pytest.mark.skipif(sys.platform == "win32", reason="signals are otherwise there")
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "INTERRUPTED"), (signal.SIGTERM, 4, "INCOM")]
)
def test_a_signal_ends_a_run_with_its_code_and_the_run_can_go_on(
    number: signal.Signals, code: int, word: str, tmp_path: Path
) -> None:
    process = start(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert re.search(rf"^{word}", err, re.MULTILINE)
    [resume] = re.findall(r"^continue vambrace (.*)$", err, re.MULTILINE)
    assert "Traceback" not in err
    (tmp_path / "slow").unlink()
    done = vambrace(*resume.split(), "--json", cwd=tmp_path)
    assert done.returncode in {0, 1, 5}, done.stderr
    assert json.loads(done.stdout)["findings"]


def test_ctrl_c_before_the_run_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time\ndef net():\n    print('here', flush=True)\n    time.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "vambrace", "assess", "--factory", "waits:net", "--data", "digits"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted\n"
    assert not (tmp_path / "runs").exists()


def test_the_console_script_is_main() -> None:
    from importlib.metadata import entry_points

    [script] = entry_points(group="console_scripts", name="vambrace")
    assert script.load() is module.main
