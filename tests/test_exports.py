"""Every module says what it offers: `__all__` is there, sorted, true, and names every public function and class.

Constants and type aliases may stay out of it: they serve their neighbours and the tests. Nothing is imported.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "vambrace"
MODULES = sorted(SRC.rglob("*.py"))


def _names(target: ast.expr) -> list[str]:
    if isinstance(target, ast.Name):
        return [target.id]
    if isinstance(target, ast.Tuple | ast.List):
        return [name for part in target.elts for name in _names(part)]
    return []


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def bound(body: list[ast.stmt]) -> tuple[set[str], set[str]]:
    """The names that a module's statements define, and those that they import."""
    defined: set[str] = set()
    imported: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                defined.add(node.name)
            case ast.Assign():
                defined.update(name for target in node.targets for name in _names(target))
            case ast.AnnAssign():
                defined.update(_names(node.target))
            case ast.Import() | ast.ImportFrom():
                imported.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                inner = [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
                inner += [stmt for handler in getattr(node, "handlers", []) for stmt in handler.body]
                more, also = bound(inner)
                if isinstance(node, ast.If) and _is_type_checking(node.test):
                    also |= more
                else:
                    defined |= more
                imported |= also
            case _:
                pass
    return defined, imported


def _callables(body: list[ast.stmt]) -> set[str]:
    """Functions and classes at the top of a module, also those under a condition."""
    found: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.If() if not _is_type_checking(node.test):
                found |= _callables([*node.body, *node.orelse])
            case ast.Try():
                found |= _callables([*node.body, *(stmt for each in node.handlers for stmt in each.body)])
            case _:
                pass
    return found


def exported(body: list[ast.stmt]) -> list[str] | None:
    for node in body:
        if isinstance(node, ast.Assign) and any(_names(target) == ["__all__"] for target in node.targets):
            names = ast.literal_eval(node.value)
            return list(names)
    return None


def problems(source: str, submodules: set[str] | None = None) -> list[str]:
    """What is wrong with the exports of one module, in words; `submodules` are those of a package."""
    body = ast.parse(source).body
    defined, imported = bound(body)
    public = {name for name in _callables(body) if not name.startswith("_")}
    names = exported(body)
    if names is None:
        return [f"no __all__, but it defines {', '.join(sorted(public))}"] if public else []
    found = [f"{name} is public but not in __all__" for name in sorted(public - set(names))]
    there = defined | imported | (submodules or set())
    found += [f"{name} is in __all__ but does not exist" for name in names if name not in there]
    if names != sorted(set(names)):
        found.append("__all__ is not sorted, or names something twice")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_exports(path: Path) -> None:
    submodules: set[str] = set()
    if path.name == "__init__.py":
        submodules = {near.stem for near in path.parent.iterdir() if near.suffix == ".py" or near.is_dir()}
    assert problems(path.read_text(encoding="utf-8"), submodules) == []


def test_modules_are_found() -> None:
    assert SRC / "errors.py" in MODULES


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(): ...", "no __all__"),
        ("if 1:\n    class Hidden: ...", "no __all__"),
        ("try:\n    pass\nexcept ValueError:\n    def late(): ...", "no __all__"),
        ("__all__ = ['f']\ndef f(): ...\ndef g(): ...", "g is public"),
        ("__all__ = ['f', 'gone']\ndef f(): ...", "gone is in __all__ but does not exist"),
        ("__all__ = ['g', 'f']\ndef f(): ...\ndef g(): ...", "not sorted"),
        ("__all__ = ['f', 'f']\ndef f(): ...", "names something twice"),
    ],
)
def test_bad_exports_are_caught(source: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(source))


@pytest.mark.parametrize(
    "source",
    [
        "_private = 1\ndef _g(): ...",
        "__all__ = ['f']\nLIMIT: int = 3\ndef f(): ...",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    Alias = int",
        "from x import load\n__all__ = ['Z', '__version__', 'load', 'part']\n__version__ = '1'\nclass Z: ...",
    ],
)
def test_good_exports_pass(source: str) -> None:
    assert problems(source, {"part"}) == []
