"""What can be wrong with the container of a sealed file, each kind with its one sentence and code, E700 to E711.

Nothing secret goes into a message, and of what a file says only a little, spelt safely.
"""

from __future__ import annotations

from typing import Final

from vambrace.errors import ArtifactRefused

__all__ = [
    "added",
    "contradictory",
    "cut_short",
    "damaged_chunk",
    "damaged_header",
    "damaged_trailer",
    "expired",
    "not_sealed",
    "unknown_version",
]

_AGAIN: Final = "get the file again from where it came, or from a copy"


def not_sealed(seen: str) -> ArtifactRefused:
    """E700: the file does not begin as sealed files do."""
    return ArtifactRefused(
        "E700", seen=seen, expected="a sealed file, which begins with 89 56 42 53 45 41 4C 0A", fix="check the path"
    )


def unknown_version(seen: str) -> ArtifactRefused:
    """E701: a version or suite that this release does not know, or damage there."""
    return ArtifactRefused(
        "E701", seen=seen, expected="version 1 and a suite of 1 to 4", fix="open it with a newer Vambrace, or " + _AGAIN
    )


def damaged_header(seen: str, expected: str) -> ArtifactRefused:
    """E702: the first 65,536 bytes are not as they were written."""
    return ArtifactRefused("E702", seen=seen, expected=expected, fix=_AGAIN)


def damaged_chunk(index: int, why: str) -> ArtifactRefused:
    """E705: chunk `index`, counted from 0, is not what was sealed there."""
    return ArtifactRefused(
        "E705",
        seen=f"chunk {index} {why}",
        expected="every chunk as it was sealed, in its place",
        fix=_AGAIN,
    )


def cut_short(seen: str) -> ArtifactRefused:
    """E706: the file ends too early."""
    return ArtifactRefused("E706", seen=seen, expected="a whole file, up to the foot of its trailer", fix=_AGAIN)


def added(seen: str) -> ArtifactRefused:
    """E707: bytes after the end."""
    return ArtifactRefused("E707", seen=seen, expected="a file that ends with the foot of its trailer", fix=_AGAIN)


def damaged_trailer(seen: str) -> ArtifactRefused:
    """E708: what follows the chunks is not what was written there."""
    return ArtifactRefused(
        "E708", seen=seen, expected="the trailer that was written behind the chunks, unchanged", fix=_AGAIN
    )


def expired(seen: str) -> ArtifactRefused:
    """E710: past its own date."""
    return ArtifactRefused(
        "E710", seen=seen, expected="a file that is still to be used", fix="get a newer one, or say to ignore expiry"
    )


def contradictory(seen: str, expected: str) -> ArtifactRefused:
    """E711: authentic, and written by something that does not keep to the format."""
    return ArtifactRefused("E711", seen=seen, expected=expected, fix="have it sealed again by a program that is right")
