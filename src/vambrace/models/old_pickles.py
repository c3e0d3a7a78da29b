r"""Whether what begins like a pickle of protocol 0 is one, or a text: those pickles have no mark, only ways to begin.

A class or function that is named comes as a letter, its module, and on the next line its name, as any list of words
that begin with a c does. So the first opcodes are followed, without doing any of them: where an unpickler breaks off
before it has used what it named, and a text is over soon, nothing can run but the import of a module.

    >>> uses_what_it_names(b"cposix\nsystem\n(S'echo'\ntR.", whole=True)
    True
    >>> uses_what_it_names(b"cat\ndog\nhorse\n", whole=True)
    False
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import warnings
from typing import Any

__all__ = ["uses_what_it_names"]

_USES = frozenset({"EXT1", "EXT2", "EXT4", "INST", "NEWOBJ", "NEWOBJ_EX", "OBJ", "REDUCE", "STOP"})
"""What calls something, or gives it back. Items that are put into what was named are followed like all else."""
_CODES = frozenset(each.code for each in pickletools.opcodes)
_ELSEWHERE = frozenset({"BINPERSID", "PERSID"})
"""What only those can load who know of it; files that need them have other marks."""
_STORES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_FETCHES = frozenset({"GET", "BINGET", "LONG_BINGET"})
_WHOLE = rb"\s*[-+]?(0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*)L?\s*(\0[^\n]*)?\n|\s*[-+]?\0[^\n]*\n"
_REAL = rb"\s*[-+]?([0-9][0-9_]*\.?[0-9_]*([eE][-+]?[0-9_]+)?|\.[0-9_]+([eE][-+]?[0-9_]+)?|inf(inity)?|nan)\s*\n"
_OF_NUMBERS = {
    **dict.fromkeys("ILgp", re.compile(_WHOLE)),
    "F": re.compile(_REAL, re.IGNORECASE),
    "S": re.compile(rb"\s*['\"]"),
}
"""Opcodes that take the rest of a line, and how it has to begin."""
_LONG = frozenset("BTX")
_MARK = "mark"


def uses_what_it_names(head: bytes, *, whole: bool, size: int = 0) -> bool:
    """Whether an unpickler gets as far as to call, build or return something; so too where that is not certain.

    Args:
        head: how it begins.
        whole: whether that is all of it.
        size: how long all of it is; 0: nobody knows.
    """
    stream, stack, memo, at = io.BytesIO(head), list[str](), set[int](), 0
    argument: Any
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of text that Python finds odd
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "FRAME":  # of a later protocol, and unpicklers read on in different ways
                    return True
                if opcode.name in _ELSEWHERE or not _follow(opcode, stack):
                    return False
                if opcode.name in _USES:
                    return True
                if opcode.name == "MEMOIZE":
                    memo.add(len(memo))
                elif opcode.name in _STORES:
                    memo.add(int(argument))  # of "01" pickletools makes a truth value
                elif opcode.name in _FETCHES and int(argument) not in memo:
                    return False
                at = stream.tell()
    except ValueError:
        code = head[at : at + 1].decode("latin-1")
        if code and code not in _CODES:
            return False
        # As a length, four letters are more than there is of most files.
        if code in _LONG and at + 5 + int.from_bytes(head[at + 1 : at + 5], "little") > (size or math.inf):
            return False
        # Some unpicklers take a line that is cut off for a whole one.
        if code == "i" and _MARK in stack:
            return True
        if stream.tell() == len(head):  # what comes behind decides, if anything does
            return not whole
        # An unpickler reads more spellings of numbers and of names than `pickletools` does, and no words as numbers.
        return code not in _OF_NUMBERS or _OF_NUMBERS[code].match(head, at + 1) is not None
    return False


def _follow(opcode: pickletools.OpcodeInfo, stack: list[str]) -> bool:
    """Do to the stack what an opcode does; whether it finds there what it needs, or breaks off."""
    before, after = ([_kind(each) for each in side] for side in (opcode.stack_before, opcode.stack_after))
    if _MARK in before:
        if _MARK not in stack:
            return False
        del stack[len(stack) - 1 - stack[::-1].index(_MARK) :]
        before = before[: before.index(_MARK)]
    for _ in before:
        if not stack or (stack.pop() == _MARK and opcode.name != "POP"):
            return False
    stack += after
    return True


def _kind(each: pickletools.StackObject) -> str:
    return _MARK if each is pickletools.markobject else "object"
