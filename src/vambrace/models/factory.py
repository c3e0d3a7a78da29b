"""Call the user's own code, and only that: a factory `pkg.mod:fn` under a root that was trusted.

A trusted root that lies in the plan's folder is taken from there (`vambrace.core.trusted`). Relative imports inside a
package always work; an import of a neighbouring file works until the network is built, not later from `forward()`.

The factory runs with torch's CPU generator at a fixed seed, which is put back: a network that is not filled from a file
is then the same in every process.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.machinery
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from vambrace.core.reason import reason
from vambrace.core.trusted import importable, is_trusted
from vambrace.errors import ConfigError, ModelRefused, VambraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["Built", "build", "root_of"]

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """What a factory gave.

    Attributes:
        network: in eval mode.
        source: SHA-256 of the files of trusted code that define the factory and the network's classes; None where
            there is no file (a notebook).
    """

    network: nn.Module
    source: str | None


def root_of(factory: str) -> str:
    """The top-level name of "pkg.mod:fn", "pkg"; raises E117 for another form."""
    if not _REFERENCE.fullmatch(factory):
        raise ConfigError(
            "E117",
            seen=f"factory {factory!r}",
            expected='"pkg.mod:fn", a module and a function in it',
            fix="write --factory mypkg.models:net for the function net in mypkg/models.py",
        )
    return factory.partition(":")[0].split(".")[0]


def build(
    factory: str | Callable[..., nn.Module], arguments: Mapping[str, object], *, trusted: Sequence[str], base: Path
) -> Built:
    """Import and call a factory.

    Args:
        factory: "pkg.mod:fn" under a trusted root; or, from Python, the function itself.
        arguments: its keyword arguments.
        trusted: roots whose code may run.
        base: folder of the plan, or the working folder.

    Raises:
        ConfigError: E117 for a factory that is not of the form "pkg.mod:fn".
        ModelRefused: E205 for an untrusted root, E206 when it cannot be imported, E207 when it raises or gives no
            module.
    """
    if not isinstance(factory, str):
        return _call(factory, arguments, trusted)
    module = factory.partition(":")[0]
    root = root_of(factory)
    if not is_trusted(module, trusted):
        raise ModelRefused(
            "E205",
            seen=f"factory {factory}, whose code is not trusted (trusted: {', '.join(trusted) or 'none'})",
            expected="a factory under a root listed in [trust] code",
            fix=f'if this is your own code, add it to the plan: [trust] code = ["{root}"]',
        )
    with importable(base, trusted):
        return _call(_find(factory, base), arguments, trusted)


def _find(factory: str, base: Path) -> Callable[..., object]:
    name, _, attribute = factory.partition(":")
    root = name.split(".")[0]
    loaded = sys.modules.get(root)
    here = importlib.machinery.PathFinder.find_spec(root, [str(base)])
    if loaded is not None and here is not None and not _is_same(loaded, here):
        raise ModelRefused(
            "E206",
            seen=f"factory {factory}: another module called {root} is loaded already, from {_place(loaded)}",
            expected=f"{root} from the plan's folder",
            fix=f"give your module a name of its own instead of {root}",
        )
    try:
        found: object = importlib.import_module(name)
    except VambraceError:
        raise
    except (Exception, SystemExit) as error:
        raise _unimportable(factory, error, base) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [item for item, value in vars(found).items() if callable(value) and not item.startswith("_")]
            raise ModelRefused(
                "E206",
                seen=f"factory {factory}: nothing called {part} in {name}",
                expected=f"one of {', '.join(known[:8]) or 'no callable there'}",
                fix="correct the name after the colon",
            )
        found = getattr(found, part)
    return cast("Callable[..., object]", found)


def _unimportable(factory: str, error: BaseException, base: Path) -> ModelRefused:
    if isinstance(error, ModuleNotFoundError) and error.name:
        own = factory.partition(":")[0]
        fix = (
            f"put {own.split('.')[0]} into the plan's folder or install it"
            if own.startswith(error.name)
            else f"install {error.name} in this environment"
        )
        seen = f"factory {factory}: no module called {error.name} (looked in {base.name or base} and the environment)"
    else:
        seen = f"factory {factory}: importing it raised {_said(error)}"
        fix = "import the module by hand in this environment and mend what it says"
    return ModelRefused("E206", seen=seen, expected="a module that imports", fix=fix)


def _call(factory: Callable[..., object], arguments: Mapping[str, object], trusted: Sequence[str]) -> Built:
    name = f"{getattr(factory, '__module__', '?')}:{getattr(factory, '__qualname__', type(factory).__name__)}"
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(0)
    try:
        network = factory(**arguments)
    except VambraceError:
        raise
    except (Exception, SystemExit) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ModelRefused(
            "E207",
            seen=f"factory {name}({shown}) raised {_said(error)}",
            expected="a torch.nn.Module",
            fix="call the factory by hand; its arguments come from factory_args",
        ) from error
    finally:
        generator.set_state(before)
    if not isinstance(network, nn.Module):
        raise ModelRefused(
            "E207",
            seen=f"factory {name} returned a {type(network).__name__}",
            expected="a torch.nn.Module",
            fix="return the network itself, not its weights, its class or a tuple",
        )
    return Built(network.eval(), _source(factory, network, trusted))


def _source(factory: Callable[..., object], network: nn.Module, trusted: Sequence[str]) -> str | None:
    """One hash over the files that define the factory and those classes of the network that are trusted code."""
    while isinstance(factory, functools.partial):
        factory = cast("Callable[..., object]", factory.func)  # pyright: ignore[reportUnknownMemberType]
    own = str(getattr(factory, "__module__", ""))
    names = {own} | {type(part).__module__ for part in network.modules() if is_trusted(type(part).__module__, trusted)}
    digest = hashlib.sha256(b"vambrace/source/1\n")
    for name in sorted(names):
        file = inspect.getsourcefile(sys.modules[name]) if hasattr(sys.modules.get(name), "__file__") else None
        if file is None:
            return None
        digest.update(f"{name}\n".encode() + hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()


def _is_same(loaded: ModuleType, spec: ModuleSpec) -> bool:
    paths = [*cast("Sequence[str]", getattr(loaded, "__path__", ())), str(getattr(loaded, "__file__", None) or "")]
    wanted = [*(spec.submodule_search_locations or ()), spec.origin or ""]
    return bool({_real(path) for path in paths if path} & {_real(path) for path in wanted if path})


def _real(path: str) -> str:
    return str(Path(path).resolve())


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "another place")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {reason(error)}"
