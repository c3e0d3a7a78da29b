"""Units of work: a check on one chunk of one data role, and the key that says which result would be the same.

Two units have one key exactly when they must give the same records: the key is a hash over everything that may change
a number, and over nothing else. So gates, worker count, budget and output folder rerun nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vambrace.assess.documents import DOCUMENTS
from vambrace.assess.effort import CHUNK_BATCHES
from vambrace.assess.facts import samples_digest
from vambrace.core import canonical
from vambrace.data.select import stratified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assess.facts import Samples
    from vambrace.assess.plan import Plan, PlannedCheck

__all__ = ["Documents", "Unit", "chosen", "cut"]

Json = Any

FORMAT = "vambrace-unit/1"
_MODEL = ("kind", "weights", "source", "detail", "access", "bounds", "outputs", "input_shape", "num_classes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What a check of documents reads.

    Attributes:
        count: how many.
        digest: of their names and contents.
        packages: versions of the packages that decide what is found in them.
    """

    count: int
    digest: str
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One check on one chunk of one role, or on its documents.

    Attributes:
        key: unit key, 64 hex digits; equal keys mean equal records.
        check: position of the check in the plan.
        name: id of the check.
        role: data role, or "documents".
        chunk: number of the chunk within the role, from 0.
        positions: positions of its samples in the role's data, ascending; of documents, one number each.
        samples: digest of the ids and hashes of its samples, or of its documents.
    """

    key: str
    check: int
    name: str
    role: str
    chunk: int
    positions: tuple[int, ...]
    samples: str

    def as_json(self) -> dict[str, Json]:
        """What a worker needs to know."""
        return {
            "check": self.check,
            "role": self.role,
            "positions": list(self.positions),
            "samples": self.samples,
        }


def cut(
    plan: Plan,
    samples: Mapping[str, Samples],
    *,
    model: Mapping[str, Json],
    data: Mapping[str, Mapping[str, Json]],
    versions: Mapping[str, str],
    device: str,
    documents: Mapping[str, Documents] | None = None,
) -> tuple[Unit, ...]:
    """All units of a plan, in the order of its checks, roles and samples.

    Args:
        plan: with batch, threads and chunk fixed.
        samples: per role, which samples there are.
        model: see `vambrace.assess.facts.model_facts`.
        data: per role, see `vambrace.assess.facts.data_facts`.
        versions: see `vambrace.assess.environment.versions`.
        device: device class.
        documents: check id to what it reads, for checks of documents.
    """
    releases = {name: text for name, text in versions.items() if name != "python"}
    shared = {
        "format": FORMAT,
        "seed": plan.seed,
        "images": plan.run.images,
        "model": {name: model[name] for name in _MODEL},
        "contract": plan.contract.as_json(),
        "batch": plan.run.batch,
        "threads": plan.run.threads,
        "dtype": model["dtype"],
        "device": device,
        "versions": releases,
    }
    units: list[Unit] = []
    for place, planned in enumerate(plan.checks):
        check = _check(planned)
        if documents and planned.id in documents:
            units.append(_of_documents(place, planned, documents[planned.id], releases))
        chunk = planned.chunk or plan.run.chunk or CHUNK_BATCHES * (plan.run.batch or 1)
        for role in planned.check.roles:
            have = samples[role]
            taken = chosen(have, planned.limit)
            size = max(1, len(taken)) if getattr(planned.check, "joint", False) else chunk
            for number, start in enumerate(range(0, len(taken), size)):
                positions = taken[start : start + size]
                digest = samples_digest(
                    (have.ids[position] for position in positions), (have.hashes[position] for position in positions)
                )
                key = canonical.digest(
                    {
                        **shared,
                        "check": check,
                        "role": role,
                        "samples": digest,
                        "class_names": data[role]["class_names"],
                    }
                )
                units.append(
                    Unit(
                        key=key,
                        check=place,
                        name=planned.id,
                        role=role,
                        chunk=number,
                        positions=positions,
                        samples=digest,
                    )
                )
    return tuple(units)


def chosen(samples: Samples, limit: int | None) -> tuple[int, ...]:
    """Positions of the samples that a check with this limit measures, ascending; a smaller limit takes a subset."""
    count = len(samples.ids)
    if limit is None or limit >= count:
        return tuple(range(count))
    labels, ids = np.array(samples.labels, np.int64), np.array(samples.ids, np.int64)
    return tuple(stratified(labels, ids, limit).tolist())


def _of_documents(place: int, planned: PlannedCheck, read: Documents, versions: Mapping[str, str]) -> Unit:
    """The one unit of a check that asks the model nothing, and so does not depend on it."""
    body = {
        "format": FORMAT,
        "check": _check(planned),
        "role": DOCUMENTS,
        "samples": read.digest,
        "versions": {**versions, **read.packages},
    }
    return Unit(
        key=canonical.digest(body),
        check=place,
        name=planned.id,
        role=DOCUMENTS,
        chunk=0,
        positions=tuple(range(read.count)),
        samples=read.digest,
    )


def _check(planned: PlannedCheck) -> dict[str, Json]:
    return {
        "id": planned.id,
        "kind": planned.check.kind,
        "version": planned.check.version,
        "options": planned.check.as_json(),
    }
