"""Change who can open a sealed file, without touching its content: a new header in the place of the old one.

    rewrap("net.sealed", "old.key", ["new.pub"])  # these and nobody else
    rewrap("net.sealed", "a.key", add=["b.pub"], remove=["c.pub"])

**This is not a revocation.** Who has opened the file once may have kept its file key, and opens every copy with it,
whatever becomes of the recipients; an older copy of the file still has the old ones. To shut somebody out of what is to
come, seal the content anew under another key (`rekey`); what they could read, they may have read.

Takes as long as writing 64 KiB twice, for a file of any size. Killed at any instant, the file opens for the old
recipients or for the new ones, and the next change finishes what was begun. A signature stays good: recipients are not
signed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from vambrace.assets.seal import header as headers
from vambrace.assets.seal import keys
from vambrace.assets.seal.header import MOST_RECIPIENTS
from vambrace.assets.seal.holding import alone
from vambrace.assets.seal.inplace import replace, settle
from vambrace.assets.seal.recipients import check_bounds, further, identities_of, recipients_of, several
from vambrace.errors import ArtifactRefused, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


__all__ = ["Rewrapped", "finish", "rewrap", "sealed_file"]

_HINT: Final = re.compile(r"[0-9a-f]{16}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rewrapped:
    """What a change of recipients has come to.

    Attributes:
        epoch: how often the recipients have been changed, this time included.
        recipients: how many there are now.
        added: how many of them are new; who is there already, by its `id`, is there once.
        removed: how many there were that are gone.
        finished: whether a change that a crash had left was finished first.
    """

    epoch: int
    recipients: int
    added: int
    removed: int
    finished: bool


def rewrap(
    path: str | os.PathLike[str],
    identity: object,
    recipients: object = None,
    *,
    add: object = (),
    remove: object = (),
) -> Rewrapped:
    """Change the recipients of the sealed file at `path`, in place.

    Args:
        path: the file; a link is followed.
        identity: who opens it: whatever `as_identity` takes, or a list of several.
        recipients: those who can open it from now on, in place of all others: whatever `as_recipient` takes, or a list;
            None: see the next two.
        add: further recipients, likewise.
        remove: recipients that go, likewise: their number from 1 on, as `vambrace inspect` lists them; or their `id`, a
            public key, or the file of a key, where the header has their `id`.

    Raises:
        ConfigError: E751, when nobody would be left or too many, nothing is to change, or who is to be removed is not
            there; E723 or E724, for what is no recipient or identity.
        ArtifactRefused: as `open_header`; E750, when a sidecar of another file lies beside.
        ResourceError: E600, when another process changes the file; E601, when it cannot be written: it opens as before,
            or as it was to be; E603, E604.
    """
    # What can be wrong with the call is found before the file is touched.
    place, identities = sealed_file(path), identities_of(identity)
    additions, removals = several(add), several(remove)
    replaces = recipients is not None
    new = recipients_of(recipients if replaces else additions)
    if replaces and (removals or additions):
        raise _wrong("all recipients replaced, and some added or removed", "one of the two")
    if not replaces and not new and not removals:
        raise _wrong("nothing to change", "recipients, or some to add or remove")
    with alone(place, write=True) as fd:
        current = settle(fd, place, identities)
        if current.finished and any(isinstance(each, int) for each in removals):
            raise _wrong(
                "numbers of recipients to remove, and a change that was cut off before, which is finished now",
                "numbers of the recipients as they are now",
            )
        header, file_keys = current.opened.header, current.opened.keys
        before = header.recipients
        kept = [] if replaces else _without(before, removals)
        wrapped = further(recipient.wrap(file_keys.file_key, header.fixed.binding) for recipient in new)
        added = len(further(wrapped, kept))
        # Who is there already by an `id` need not be: any recipient can have written it. So theirs is made anew.
        stanzas = [*(each for each in kept if further([each], wrapped)), *wrapped]
        if not 1 <= len(stanzas) <= MOST_RECIPIENTS:
            raise _wrong(f"{len(stanzas)} recipients", f"1 to {MOST_RECIPIENTS}")
        try:
            check_bounds(stanzas)
        except ArtifactRefused as error:
            raise _wrong(error.seen, error.expected) from error
        changed = dataclasses.replace(header, epoch=header.epoch + 1, recipients=stanzas)
        replace(fd, place, headers.build(changed, file_keys))
    return Rewrapped(
        epoch=changed.epoch,
        recipients=len(stanzas),
        added=added,
        removed=len(before) - len(kept),
        finished=current.finished,
    )


def finish(path: str | os.PathLike[str], identity: object) -> bool:
    """Finish a change of recipients that a crash has left, or clear away what is left of one; whether there was any.

    Arguments and errors as those of `rewrap`.
    """
    place, identities = sealed_file(path), identities_of(identity)
    with alone(place, write=True) as fd:
        return settle(fd, place, identities).cleared


def sealed_file(path: str | os.PathLike[str]) -> Path:
    """The file itself where `path` is a link to it: its sidecar lies beside it and not beside the link.

    Raises:
        ConfigError: E749, when there is no file.
    """
    place = Path(path).resolve()
    if not os.path.isfile(place):
        raise ConfigError("E749", seen=f"no file at {Path(path)}", expected="a sealed file", fix="check the path")
    return place


def _without(stanzas: Sequence[Mapping[str, Any]], removals: Sequence[object]) -> list[Mapping[str, Any]]:
    """The stanzas that stay."""
    gone: set[int] = set()
    for each in removals:
        if isinstance(each, int) and not isinstance(each, bool):
            found = {each - 1} & set(range(len(stanzas)))
        else:
            hint = _hint(each)
            found = {number for number, stanza in enumerate(stanzas) if stanza.get("id") == hint}
        if not found:
            raise _wrong("somebody to remove who is not among the recipients, or is there without an id", "a recipient")
        gone |= found
    return [stanza for number, stanza in enumerate(stanzas) if number not in gone]


def _hint(value: object) -> str:
    """The `id` that stands for a recipient in a header."""
    if isinstance(value, str) and _HINT.fullmatch(value):
        return value
    if isinstance(value, keys.Secret | keys.Public):
        return value.id
    if isinstance(value, bytes):
        return keys.Secret("aes256", value).id
    if isinstance(value, str) and value.startswith("vambrace-public-key/"):
        return keys.parse(value).id
    if isinstance(value, str | os.PathLike):
        try:
            return keys.read(cast("str | os.PathLike[str]", value)).id
        except FileNotFoundError:
            raise _wrong("somebody to remove by a path where no key file is", "a key file, a number or an id") from None
    held = getattr(value, "key", None)  # of a recipient that was made from a key
    if isinstance(held, keys.Secret | keys.Public):
        return held.id
    raise _wrong(f"a {type(value).__name__} to remove", "a number, an id, a key or its file")


def _wrong(seen: str, expected: str) -> ConfigError:
    return ConfigError(
        "E751", seen=seen, expected=expected, fix="`vambrace inspect` lists the recipients with number and id"
    )
