"""What a plan met when it was carried out: the model and the data, as hashes and counts.

Results name these facts, unit keys contain them, and a resumed run compares them: numbers of two models, or of two
data sets, never end up in one file.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.errors import ConfigError
from vambrace.models.contract import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vambrace.data.batches import Batches
    from vambrace.models.contract import Model

__all__ = ["Samples", "check_same_data", "check_same_model", "data_facts", "model_facts", "samples_digest"]

Json = Any

_BLOCK = 256  # samples read at a time where only their hashes are needed
_IDENTITY = ("kind", "weights", "source", "detail")
_ANSWERS = ("access", "bounds", "outputs", "input_shape", "num_classes", "dtype")

_LEARNED = frozenset({"input_shape", "num_classes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Which samples a role has, in order.

    Attributes:
        ids: sample ids.
        hashes: content hashes.
        labels: labels.
    """

    ids: tuple[int, ...]
    hashes: tuple[str, ...]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, batches: Batches) -> Samples:
        """Those of a data set, which is read once unless it knows its hashes."""
        count = len(batches)
        hashes = cast("Sequence[str] | None", getattr(batches, "hashes", None))
        if hashes is None or len(hashes) != count:
            blocks = (range(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))
            hashes = [digest for block in blocks for digest in batches.read(block).hashes]
        return cls(
            ids=tuple(int(each) for each in batches.ids),
            hashes=tuple(hashes),
            labels=tuple(int(each) for each in batches.labels),
        )


def samples_digest(ids: Iterable[int], hashes: Iterable[str]) -> str:
    """SHA-256 of some samples in order: one line "<id> <hash>" each."""
    return _digest(f"{each} {content}\n" for each, content in zip(ids, hashes, strict=True))


def model_facts(model: Model, *, declared: str = "") -> dict[str, Json]:
    """The model as JSON data; the fields of its identity are None where it has none.

    Args:
        model: the model.
        declared: what the user vouches that it is: the identity of a model without one, a part of that of another.
    """
    identity = model.identity
    if declared:
        known = identity or Identity(name=declared, kind="memory", weights=None, source=None, detail={})
        identity = dataclasses.replace(known, detail={**known.detail, "declared": declared})
    return {
        "name": identity.name if identity else type(model).__name__,
        "kind": identity.kind if identity else None,
        "weights": identity.weights if identity else None,
        "source": identity.source if identity else None,
        "detail": dict(identity.detail) if identity else None,
        "access": model.access.name.lower(),
        "bounds": model.bounds.as_json() if model.bounds is not None else None,
        "outputs": model.outputs,
        "input_shape": list(model.input_shape) if model.input_shape is not None else None,
        "num_classes": model.num_classes,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def data_facts(batches: Batches, samples: Samples) -> dict[str, Json]:
    """One role as JSON data."""
    counts = Counter(samples.labels)
    width = max([len(batches.class_names), *(label + 1 for label in counts)])
    return {
        "name": batches.name,
        "n": len(samples.ids),
        "class_names": list(batches.class_names),
        "counts": [counts[label] for label in range(width)],
        "sha256": _digest(f"{content}\n" for content in samples.hashes),
        "ids": _digest(f"{each}\n" for each in samples.ids),
    }


def check_same_model(began: Mapping[str, Json], now: Mapping[str, Json]) -> None:
    """Refuse to go on with another model than the run began with.

    Raises:
        ConfigError: E503 for another model; E505 for one that cannot be told from another.
    """
    if began["kind"] is None or now["kind"] is None:
        raise ConfigError(
            "E505",
            seen="a model in memory that has no identity",
            expected="a model that can be told from another: from files, or with identity=",
            fix='say which version it is, such as identity="resnet-2026-04", and start a new run',
        )
    for field in (*_IDENTITY, *_ANSWERS):
        if field in _LEARNED and now[field] is None:
            continue  # known only after the first call
        if _plain(began[field]) != _plain(now[field]):
            raise ConfigError(
                "E503",
                seen=f"{now['name']} with {field} {_short(now[field])}",
                expected=f"the model that the run began with: {began['name']} with {field} {_short(began[field])}",
                fix="resume with the model as it was, or start a new run",
            )


def check_same_data(began: Mapping[str, Json], now: Mapping[str, Json]) -> None:
    """Refuse to go on with other data than the run began with; both map role to facts.

    Raises:
        ConfigError: E504.
    """
    for role in sorted({*began, *now}):
        ours, theirs = now.get(role), began.get(role)
        if ours is None or theirs is None:
            seen, wanted = (f"{'no ' if part is None else ''}data for {role}" for part in (ours, theirs))
        else:
            field = next((field for field in theirs if field != "name" and ours[field] != theirs[field]), None)
            if field is None:
                continue
            seen, wanted = (f"{role} with {field} {_short(part[field])}" for part in (ours, theirs))
        raise ConfigError(
            "E504",
            seen=seen,
            expected=f"the data that the run began with: {wanted}",
            fix="resume with the data as it was, or start a new run",
        )


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
    return digest.hexdigest()


def _plain(value: Json) -> Json:
    """As it looks after a journey through JSON."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Json]", value)]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, Json]", value).items()}
    return value


def _short(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
