"""Class folders of images, in a folder or a zip: which files are images, which class is which label, what is left out.

- A file is an image by its name's suffix or, without a known one, by its first bytes; how it is decoded is decided by
  its bytes alone. Hidden and other files are ignored and counted.
- A class is a folder at the top; images anywhere below belong to it. One single folder around the class folders is
  entered. A class may be empty: it keeps its label.
- Label order: `contract.classes`; else, where every name is a whole number, by number (equal ones are refused); else
  sorted by code point.
- Sample order: by label, then by path. Names and ids are those of the path within the source.
- Every selected image is decoded once on loading. Up to `max_skipped` of them may be unusable: they are left out and
  listed. More is an error, because what a set is missing is rarely missing at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.core.progress import Progress, silent
from vambrace.data.batches import sample_id
from vambrace.data.images import Unusable, decode_image, image_format
from vambrace.data.loaded import Loaded, content_hashes
from vambrace.data.select import choose
from vambrace.data.trees import readable
from vambrace.errors import DataRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vambrace.core.contract import InputContract
    from vambrace.data.trees import Listing, Tree

__all__ = ["ImageStore", "class_order", "load_images"]

_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    # Images that are not read: named as such, they count as unusable and are not passed over in silence.
    *(".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".ico", ".psd", ".tga", ".ppm", ".pgm", ".exr", ".svg"),
)
_DATA_SUFFIXES = (".npy", ".npz", ".gz", ".zip", "-ubyte", ".idx")


@dataclass(frozen=True, slots=True, eq=False)
class ImageStore:
    """Encoded images, decoded whenever they are read.

    Attributes:
        tree: where they lie.
        paths: of the images, in sample order.
        contract: channels, size and resize are applied.
    """

    tree: Tree
    paths: tuple[str, ...]
    contract: InputContract

    def decode(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The images at `positions`, uint8 (m, channels, height, width)."""
        images: list[NDArray[np.uint8]] = []
        indices: list[int] = positions.tolist()
        for at in indices:
            try:
                images.append(self.image(at))
            except Unusable as error:
                raise DataRefused(
                    "E320",
                    seen=f"{readable(self.paths[at])} could be read when it was loaded, and now {error}",
                    expected="the same sample at every read",
                    fix="leave the files alone during a run",
                ) from error
        if len({image.shape for image in images}) > 1:
            raise DataRefused(
                "E320",
                seen="images that have another size than when they were loaded",
                expected="the same sample at every read",
                fix="leave the files alone during a run",
            )
        return np.stack(images)

    def image(self, at: int) -> NDArray[np.uint8]:
        """The image at one position, uint8 (channels, height, width); `Unusable` with the reason."""
        contract = self.contract
        data = self.tree.read(self.paths[at])
        return decode_image(data, channels=contract.channels, size=contract.size, resize=contract.resize)


def load_images(
    tree: Tree,
    *,
    name: str,
    contract: InputContract,
    head: int | None = None,
    limit: int | None = None,
    max_skipped: float = 0.01,
    progress: Progress = silent,
) -> Loaded:
    """The images of a tree of class folders.

    Args:
        tree: the folder or zip.
        name: short name for people.
        contract: how images become inputs.
        head: take only the first samples.
        limit: at most this many samples, stratified by class.
        max_skipped: share of unusable images, 0 to 1, up to which they are left out; above it is an error.
        progress: told while images are decoded.

    Raises:
        DataRefused: E302, E303, E304, E305, E314, E315.
    """
    listing = tree.listing()
    images = [path for path in listing.files if _is_image(tree, path)]
    top = _wrapper(listing.folders, images, contract.classes)
    skipped = [(path, reason) for path, reason in listing.problems]
    skipped += [(path, "lies in no class folder") for path in images if "/" not in path[len(top) :]]
    found = [path for path in images if "/" in path[len(top) :]]
    folders = [path[len(top) :] for path in listing.folders if path.startswith(top)]
    classes, warnings = class_order([folder for folder in folders if "/" not in folder], contract.classes)
    if not found:
        raise _nothing(name, listing, images, skipped)
    _check_skipped(name, skipped, len(images) + len(listing.problems), max_skipped)

    number = {name: label for label, name in enumerate(classes)}
    labelled = sorted((number[readable(path[len(top) :].split("/", 1)[0])], path) for path in found)
    labels = np.array([label for label, _ in labelled], np.int64)
    paths = tuple(path for _, path in labelled)
    ids = np.fromiter((sample_id(path) for path in paths), np.int64, len(paths))
    store = ImageStore(tree, paths, contract)
    chosen = choose(labels, ids, head=head, limit=limit)
    shape, hashes, unusable = _examined(store, chosen, labels, progress)
    _check_skipped(name, unusable, len(chosen), max_skipped)
    kept = sorted(hashes)
    places = np.array(kept, np.int64)
    there = set(labels.tolist())
    if absent := [name for label, name in enumerate(classes) if label not in there]:
        warnings.append(f"no images of {_some(absent)}")
    return Loaded(
        name=name,
        class_names=classes,
        labels=tuple(labels[places].tolist()),
        ids=tuple(ids[places].tolist()),
        names=tuple(readable(paths[at]) for at in kept),
        hashes=tuple(hashes[at] for at in kept),
        shape=shape,
        bounds=contract.bounds or (0.0, 1.0),
        skipped=tuple((readable(path), reason) for path, reason in [*skipped, *unusable]),
        ignored=listing.hidden + len(listing.files) - len(images),
        warnings=tuple(warnings),
        store=store,
        positions=places,
    )


def class_order(folders: Sequence[str], stated: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Class names in label order, and warnings about it.

        >>> class_order(["10", "9", "8"], ())[0], class_order(["b", "a", "B"], ())[0]
        (('8', '9', '10'), ('B', 'a', 'b'))

    Raises:
        DataRefused: E305, where a folder is none of the stated classes or a class is stated twice.
    """
    names = [readable(folder) for folder in folders]
    twice = sorted({name for given in (stated, names) for name in given if given.count(name) > 1})
    unknown = sorted(set(names) - set(stated)) if stated else []
    if unknown or twice:
        raise DataRefused(
            "E305",
            seen=f"the class {_some(twice)} twice" if twice else f"the folder {_some(unknown)}",
            expected=f"folders named like the {len(stated)} classes, {_some(stated)}" if stated else "distinct names",
            fix="correct --classes: folder names, one a line, in the order of the model's outputs",
        )
    if stated:
        return stated, []
    if names and all(name.isascii() and name.isdigit() for name in names):
        order = sorted(names, key=lambda name: (int(name), name))
        if alike := [pair for pair in zip(order, order[1:], strict=False) if int(pair[0]) == int(pair[1])]:
            raise DataRefused(
                "E305",
                seen=f"the folders {alike[0][0]} and {alike[0][1]}, which are the same number",
                expected="one folder for each class",
                fix="merge or rename them; if they are two classes, state all names in order with --classes",
            )
        if int(order[-1]) - int(order[0]) != len(order) - 1:
            return tuple(order), [
                f"folder names are numbers with gaps: {order[-1]} is label {len(order) - 1}; if it should be "
                f"{order[-1]}, state all classes with --classes"
            ]
        return tuple(order), []
    return tuple(sorted(names)), []


def _examined(
    store: ImageStore, chosen: NDArray[np.int64], labels: NDArray[np.int64], progress: Progress
) -> tuple[tuple[int, ...], dict[int, str], list[tuple[str, str]]]:
    """Sample shape, content hash by position, and (path, reason) of what cannot be used."""
    size = store.contract.size
    first: tuple[str, tuple[int, ...]] | None = None
    indices: list[int] = chosen.tolist()
    hashes: dict[int, str] = {}
    unusable: list[tuple[str, str]] = []
    progress.start("load", len(chosen))
    for at in indices:
        path = store.paths[at]
        progress.advance("load")
        try:
            image = store.image(at)
        except Unusable as error:
            unusable.append((path, str(error)))
            continue
        first = first or (path, image.shape)
        _check_shape(path, image.shape, first, size)
        hashes[at] = content_hashes(image[None], [int(labels[at])])[0]
    progress.finish("load")
    return first[1] if first else (), hashes, unusable


def _check_shape(
    path: str, shape: tuple[int, ...], first: tuple[str, tuple[int, ...]], size: tuple[int, int] | None
) -> None:
    expected = size or first[1][1:]
    if shape[1:] != expected:
        raise DataRefused(
            "E314",
            seen=f"{readable(path)} is {shape[1]} x {shape[2]} (height x width)",
            expected=f"{expected[0]} x {expected[1]}" + ("" if size else f", as {readable(first[0])}"),
            fix=("" if size else f"state --size {expected[0]},{expected[1]} and ")
            + "allow a change: --resize squash or --resize center",
        )
    if shape[0] != first[1][0]:
        raise DataRefused(
            "E315",
            seen=f"{readable(path)} has {shape[0]} channel(s) and {readable(first[0])} has {first[1][0]}",
            expected="one number of channels",
            fix="state --channels 3 to repeat grey, or --channels 1 for luma",
        )


def _check_skipped(name: str, skipped: list[tuple[str, str]], of: int, most: float) -> None:
    if len(skipped) > most * of or len(skipped) == of > 0:
        raise DataRefused(
            "E304",
            seen=f"{len(skipped)} of {of} images in {name} cannot be used: {_by_reason(skipped)}",
            expected=f"at most {100 * most:.3g} %",
            fix="repair, convert or remove them",
        )


def _by_reason(skipped: Sequence[tuple[str, str]]) -> str:
    """Which images, each reason once with the first of them."""
    reasons: dict[str, list[str]] = {}
    for path, reason in skipped:
        reasons.setdefault(reason, []).append(readable(path))
    said = [f"{_some(paths, 3)}{':' if len(paths) > 1 else ''} {reason}" for reason, paths in list(reasons.items())[:5]]
    return "; ".join(said) + (f"; and {len(reasons) - 5} other reasons" if len(reasons) > 5 else "")


def _nothing(name: str, listing: Listing, images: list[str], skipped: list[tuple[str, str]]) -> DataRefused:
    if images:
        return DataRefused(
            "E303",
            seen=f"{len(images)} images in {name}, such as {readable(images[0])}, and no class folders",
            expected="one folder a class, with its images",
            fix="sort the images into folders named after their classes",
        )
    arrays = [path for path in listing.files if path.endswith(_DATA_SUFFIXES)]
    if arrays:
        return DataRefused(
            "E302",
            seen=f"no images in {name}, but {_some([readable(path) for path in arrays])}",
            expected="class folders of images, or one file",
            fix="name the file that is meant",
        )
    unread = f"; {readable(skipped[0][0])} {skipped[0][1]}" if skipped else ""
    return DataRefused(
        "E302",
        seen=f"0 images among {len(listing.files)} files in {name}{unread}",
        expected="class folders of PNG, JPEG, WebP, BMP or TIFF images",
        fix="check the path",
    )


def _wrapper(folders: Sequence[str], images: Sequence[str], stated: tuple[str, ...]) -> str:
    """The single folders around the class folders, as "outer/inner/"; "" where there are none."""
    top = ""
    while True:
        inside = [path[len(top) :] for path in folders if path.startswith(top)]
        here = [folder for folder in inside if "/" not in folder]
        if len(here) != 1 or len(inside) == 1 or here[0] in stated or _directly(images, top):
            return top
        below = f"{top}{here[0]}/"
        if _directly(images, below):
            return top
        top = below


def _directly(images: Sequence[str], folder: str) -> bool:
    return any(path.startswith(folder) and "/" not in path[len(folder) :] for path in images)


def _is_image(tree: Tree, path: str) -> bool:
    if path.lower().endswith(_SUFFIXES):
        return True
    try:
        return image_format(tree.read(path, 16)) is not None
    except Unusable:
        return False


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
