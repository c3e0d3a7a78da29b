"""House rules that no linter knows: short files, the one vocabulary, and nothing that runs what it reads."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "vambrace"
MODULES = sorted(SRC.rglob("*.py"))

MOST_LINES = 400
DRAWERS = {"common", "helper", "helpers", "misc", "util", "utils"}
BANNED_WORDS = {"adv_x", "alpha", "is_targeted", "max_grad_norm", "nb_iter", "x_ori"}
UNSAFE_IMPORTS = {"cloudpickle", "cPickle", "dill", "joblib", "marshal", "pickle", "shelve", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "os.popen", "os.system"}
# A loader may be called only with the argument that makes it safe, spelled out.
LOADERS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}

UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b")
MACHINE = re.compile(r"(?<![\w.:/-])/(r" + r"oot|wo" + r"rk|fa" + r"rm|opt/py" + r"pi)/")


def _bound_words(node: ast.AST) -> list[str]:
    """The names that a node gives to parameters, variables and attributes."""
    match node:
        case ast.arg():
            return [node.arg]
        case ast.Name(ctx=ast.Store()):
            return [node.id]
        case ast.Attribute(ctx=ast.Store()):
            return [node.attr]
        case _:
            return []


def _import_problems(node: ast.Import | ast.ImportFrom) -> list[str]:
    module = getattr(node, "module", None)
    roots = {module.split(".")[0]} if module else {alias.name.split(".")[0] for alias in node.names}
    found = [f"imports {root}" for root in sorted(roots & UNSAFE_IMPORTS)]
    found += [f"imports {module}.load by name" for alias in node.names if f"{module}.{alias.name}" in LOADERS]
    return found


def _call_problems(node: ast.Call, *, may_print: bool) -> list[str]:
    called = ast.unparse(node.func)
    constants = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
    found: list[str] = []
    if called in UNSAFE_CALLS:
        found.append(f"calls {called}")
    if constants.get("shell"):
        found.append(f"calls {called} with shell=True")
    if called in LOADERS:
        name, safe = LOADERS[called]
        if constants.get(name) is not safe:
            found.append(f"calls {called} without {name}={safe}")
    if called == "print" and not may_print:
        found.append("calls print")
    return found


def problems(source: str, path: str = "core/module.py") -> list[str]:
    """What is wrong with one file of the package, in words; `path` is relative to the package."""
    where = PurePosixPath(path)
    found = [f"is called {part}: say what is in it" for part in where.with_suffix("").parts if part in DRAWERS]
    if (lines := len(source.splitlines())) > MOST_LINES:
        found.append(f"has {lines} lines, more than {MOST_LINES}")
    for node in ast.walk(ast.parse(source)):
        here: list[str] = [f"uses the banned word {word}" for word in _bound_words(node) if word in BANNED_WORDS]
        if isinstance(node, ast.Import | ast.ImportFrom):
            here += _import_problems(node)
        if isinstance(node, ast.Call):
            here += _call_problems(node, may_print=where.parts[0] == "cli")
        found += [f"line {getattr(node, 'lineno', '?')} {problem}" for problem in here]
    return found


def text_problems(text: str) -> list[str]:
    """What must stand in no tracked file, whatever its kind."""
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if UNFINISHED.search(line):
            found.append(f"line {number} is unfinished work")
        if MACHINE.search(line):
            found.append(f"line {number} names a path of one machine")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_module(path: Path) -> None:
    assert problems(path.read_text(encoding="utf-8"), path.relative_to(SRC).as_posix()) == []


def test_tracked_files() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    found: dict[str, list[str]] = {}
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue  # binary, a link to nowhere, or deleted but not yet committed
        if wrong := text_problems(text):
            found[path.relative_to(ROOT).as_posix()] = wrong
    assert found == {}
    assert ROOT / "pyproject.toml" in paths


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n" * 401, "has 401 lines"),
        ("def f(alpha): ...", "banned word alpha"),
        ("def f(*, nb_iter=3): ...", "banned word nb_iter"),
        ("max_grad_norm: float = 1.0", "banned word max_grad_norm"),
        ("for x_ori in []: ...", "banned word x_ori"),
        ("class A:\n    def __init__(self): self.is_targeted = 1", "banned word is_targeted"),
        ("lambda adv_x: adv_x", "banned word adv_x"),
        ("import pickle", "imports pickle"),
        ("from pickle import loads", "imports pickle"),
        ("def f():\n    import yaml.nodes", "imports yaml"),
        ("eval('1')", "calls eval"),
        ("exec('1')", "calls exec"),
        ("os.system('ls')", "calls os.system"),
        ("subprocess.run('ls', shell=True)", "shell=True"),
        ("torch.load(p)", "torch.load without weights_only=True"),
        ("torch.load(p, weights_only=False)", "torch.load without weights_only=True"),
        ("torch.load(p, weights_only=safe)", "torch.load without weights_only=True"),
        ("from torch import load", "torch.load by name"),
        ("np.load(p)", "np.load without allow_pickle=False"),
        ("np.load(p, allow_pickle=True)", "np.load without allow_pickle=False"),
        ("print('hello')", "calls print"),
    ],
)
def test_bad_source_is_caught(source: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(source))


@pytest.mark.parametrize("path", ["utils.py", "core/helpers.py", "common/rng.py"])
def test_drawers_are_caught(path: str) -> None:
    assert problems("", path)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("x = 1\n" * 400, "core/module.py"),
        ("SYNONYMS = {'alpha': 'step_size', 'nb_iter': 'steps'}", "core/module.py"),
        ("torch.add(a, b, alpha=2)", "ops/module.py"),
        (
            "module.eval()\nnumpy.load(p, allow_pickle=False)\ntorch.load(p, weights_only=True)",
            "models/load.py",
        ),
        ("print('hello')", "cli/main.py"),
    ],
)
def test_good_source_passes(source: str, path: str) -> None:
    assert problems(source, path) == []


@pytest.mark.parametrize(
    "text", ["# TO" + "DO later", "x = 1  # FIX" + "ME", "see /wo" + "rk/main", "open('/r" + "oot/a')"]
)
def test_bad_text_is_caught(text: str) -> None:
    assert text_problems(text)


@pytest.mark.parametrize("text", ["network/work/x", "https://example.org/work/1", "todo list", "mastodon"])
def test_good_text_passes(text: str) -> None:
    assert text_problems(text) == []
