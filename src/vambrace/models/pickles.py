r"""What a pickle would do, read from its opcodes; nothing is ever unpickled here.

A pickle is a program. What it can reach are the globals that it names, so these decide: tensors and their storages are
data; classes mean a whole object was saved; anything else would run code. This scan is not the guard (that is
`torch.load(weights_only=True)`, which has its own list): it says in words what is wrong, before anything is loaded.

    >>> import io
    >>> scan = scan_pickle(io.BytesIO(b"cposix\nsystem\n(S'echo'\ntR."))
    >>> scan.dangerous
    ('posix.system',)
"""

from __future__ import annotations

import pickletools
import re
import warnings
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST_OPCODES", "Scan", "UnreadablePickle", "scan_pickle"]

MOST_OPCODES = 4_000_000
"""A state dict needs about 30 opcodes a tensor."""

_DATA = frozenset(
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
    }
)
_DATA_FORMS = re.compile(
    r"torch(\.cuda|\.storage|\.sparse|\.cuda\.sparse)?\.[A-Za-z0-9]+(Storage|Tensor)"
    r"|torch\._utils\._rebuild_[a-z0-9_]+"
    r"|torch\.(u?int\d+|q?u?int\d+(x\d+)?|float\d+\w*|bfloat16|complex\d+|bool|bits\w+|half|double|float|long|int|short)"
    r"|torch\.per_(tensor|channel)_\w+"
)
_SYSTEM = """
    __main__ _io _pickle _posixsubprocess _thread asyncio bdb builtins cloudpickle code codeop codecs commands copyreg
    ctypes dill distutils gc glob http idlelib imp importlib inspect io joblib linecache marshal mmap multiprocessing nt
    ntpath operator os pdb pickle pip pkgutil platform posix posixpath profile pty pydoc requests runpy setuptools
    shelve shutil signal site smtplib socket sqlite3 ssl subprocess sys tempfile test threading timeit trace types
    unittest urllib venv webbrowser xmlrpc zipfile zipimport
"""
_RUNS = frozenset(_SYSTEM.split())
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "cPickle": "pickle", "UserDict": "collections"}
_PUSHES_TEXT = frozenset(
    {"BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"}
)
_STORES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_FETCHES = frozenset({"GET", "BINGET", "LONG_BINGET"})
_SILENT = frozenset({"PROTO", "FRAME"})
_COMPUTED = "a computed name"


class UnreadablePickle(ValueError):
    """The bytes are no pickle, a part of one, or one too large to check.

    Attributes:
        scan: what was read before it broke; a pickle runs up to there as well.
    """

    def __init__(self, why: str, scan: Scan) -> None:
        super().__init__(why)
        self.scan = scan


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a pickle reaches.

    Attributes:
        names: every global it names, "module.name", in order and once each; "a computed name" where none is written.
    """

    names: tuple[str, ...]

    @property
    def foreign(self) -> tuple[str, ...]:
        """The names that are not tensors, storages or plain containers."""
        return tuple(name for name in self.names if name not in _DATA and not _DATA_FORMS.fullmatch(name))

    @property
    def dangerous(self) -> tuple[str, ...]:
        """The foreign names that can be nothing but running code or touching the system."""
        return tuple(name for name in self.foreign if _runs(name))


def scan_pickle(stream: IO[bytes]) -> Scan:
    """Read one pickle from `stream` up to its end and say what it reaches.

    Raises:
        UnreadablePickle: for bytes that are no complete pickle, or more than `MOST_OPCODES` opcodes.
    """
    names: dict[str, None] = {}
    try:
        # Of damaged text Python warns whoever wrote it: here that is the file, and warnings may be made errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for step, name in enumerate(_names(stream)):
                if name:
                    names[name] = None
                if step >= MOST_OPCODES:
                    raise UnreadablePickle(f"more than {MOST_OPCODES} opcodes", Scan(names=tuple(names)))
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, EOFError) as error:
        if isinstance(error, UnreadablePickle):
            raise
        raise UnreadablePickle(str(error)[:200], Scan(names=tuple(names))) from error
    return Scan(names=tuple(names))


def _names(stream: IO[bytes]) -> Iterator[str]:
    """For each opcode the global that it names, or nothing."""
    texts: list[str] = []
    memo: dict[int, str | None] = {}
    top: str | None = None
    for opcode, argument, _ in pickletools.genops(stream):
        named = ""
        if opcode.name in _STORES:
            memo[len(memo) if opcode.name == "MEMOIZE" else int(str(argument))] = top
        elif opcode.name not in _SILENT:
            top = None
            if opcode.name in _PUSHES_TEXT:
                top = str(argument)
            elif opcode.name in _FETCHES:
                top = memo.get(int(str(argument)))
            elif opcode.name in {"GLOBAL", "INST"}:
                named = _full_name(*str(argument).split(" ", 1))
            elif opcode.name == "STACK_GLOBAL":
                named = _full_name(*texts) if len(texts) == 2 else _COMPUTED
            elif opcode.name in {"EXT1", "EXT2", "EXT4"}:
                named = _COMPUTED
            # STACK_GLOBAL takes the two texts pushed just before it; whatever else lies there is a computed name.
            texts = [] if top is None else [*texts[-1:], top]
        yield named


def _full_name(module: str, attribute: str = "") -> str:
    root, dot, rest = module.partition(".")
    return f"{_RENAMED.get(root, root)}{dot}{rest}.{attribute}"


def _runs(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if name == _COMPUTED or module.split(".")[0] in _RUNS:
        # A class of the script that saved it is an object, not a call into the system.
        return module != "__main__" or not attribute[:1].isupper()
    # Functions of torch.nn are what networks keep as activations; any other function of torch has no place in weights.
    return f"{module}.".startswith("torch.") and not module.startswith("torch.nn.") and not attribute[:1].isupper()
