"""Builders of hostile zips of class folders."""

from __future__ import annotations

import io
import stat
import zipfile
from copy import copy
from pathlib import Path

from data.hostile.samples import Case, encoded, pixels, put


def _pack(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def _named(folder: Path, *names: str) -> Case:
    """A zip with one good image and one more member of each name."""
    members = [("cat/0.png", encoded(pixels(0))), *((name, encoded(pixels(1))) for name in names)]
    return Case(put(folder / "set.zip", _pack(members)))


def zip_slip(folder: Path) -> Case:
    return _named(folder, "cat/../../canary")


def zip_absolute(folder: Path) -> Case:
    return _named(folder, "/canary.png")


def zip_backslash(folder: Path) -> Case:
    return _named(folder, "cat\\1.png")


def zip_symlink(folder: Path) -> Case:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat/0.png", encoded(pixels(0)))
        link = zipfile.ZipInfo("cat/1.png")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/hostname")
    return Case(put(folder / "set.zip", file.getvalue()))


def zip_encrypted(folder: Path) -> Case:
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        archive.writestr("cat/0.png", encoded(pixels(0)))
        archive.filelist[0].flag_bits |= 1
    return Case(folder / "set.zip")


def zip_bomb(folder: Path) -> Case:
    members = [("cat/0.png", encoded(pixels(0))), ("cat/1.png", bytes(3 * 10**7))]
    return Case(put(folder / "set.zip", _pack(members, zipfile.ZIP_DEFLATED)))


def zip_bomb_among_honest(folder: Path) -> Case:
    """As a whole the file is modest; one member is not."""
    members = [("cat/0.bmp", bytes(pixels(0, (500_000,)))), ("cat/1.png", bytes(3 * 10**7))]
    return Case(put(folder / "set.zip", _pack(members, zipfile.ZIP_DEFLATED)))


def zip_overlapping(folder: Path) -> Case:
    """A thousand directory entries for one member: every one is modest, together they are not."""
    body = bytes(pixels(0, (50_000,))) + bytes(50_000)
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/0.png", body)
        first = archive.filelist[0]
        for at in range(1, 1000):
            again = copy(first)
            again.filename = f"cat/{at}.png"
            archive.filelist.append(again)
    return Case(folder / "set.zip")


def zip_nested(folder: Path) -> Case:
    return _named(folder, "cat/inner.zip")


def zip_case_collision(folder: Path) -> Case:
    return _named(folder, "cat/A.png", "cat/a.png")


def zip_folder_case(folder: Path) -> Case:
    return Case(put(folder / "set.zip", _pack([(name, encoded(pixels(0))) for name in ("Cat/0.png", "cat/1.png")])))


def zip_same_name_twice(folder: Path) -> Case:
    both = _pack([("cat/0.png", encoded(pixels(0))), ("cat/1.png", encoded(pixels(1)))])
    return Case(put(folder / "set.zip", both.replace(b"cat/1.png", b"cat/0.png")))


def zip_name_not_utf8(folder: Path) -> Case:
    data = _pack([("cat/0.png", encoded(pixels(0))), ("cat/\u00e9.png", encoded(pixels(1)))])
    return Case(put(folder / "set.zip", data.replace(b"\xc3\xa9", b"\xff\xfe")))


def zip_truncated(folder: Path) -> Case:
    return Case(put(folder / "set.zip", _pack([("cat/0.png", encoded(pixels(0)))])[:-30]))


def zip_wrong_checksum(folder: Path) -> Case:
    image = encoded(pixels(0))
    data = _pack([("cat/0.png", image), ("cat/1.png", encoded(pixels(1)))])
    return Case(put(folder / "set.zip", data.replace(image, image[:-1] + b"?")))


def zip_empty(folder: Path) -> Case:
    return Case(put(folder / "set.zip", _pack([])))
