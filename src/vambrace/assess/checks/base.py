"""What a check is: options that measure a chunk of samples into records, and reduce records to findings.

A unit of work is one check on one chunk of one data role. `measure` runs in any worker and returns plain
JSON records, one per sample; `reduce` is pure and sees all records in sample order, so findings cannot
depend on executor, order or resume.

A check of documents reads files in place of samples: see `vambrace.assess.documents`. It has one unit, with an empty
batch, and gives one record a document, whose id is the document's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from vambrace.core.findings import Cost, Flag

if TYPE_CHECKING:
    from pathlib import Path

    from vambrace.core.access import Access
    from vambrace.core.findings import Finding
    from vambrace.core.rng import Streams
    from vambrace.data.batches import Batch
    from vambrace.models.contract import Model

__all__ = ["Check", "Context", "Measured", "Reduction"]

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Context:
    """The world a unit is measured in.

    Attributes:
        check: the check's id in the plan.
        role: which data role the batch comes from.
        model: the model under assessment.
        rng: the stream of this check: child of (seed, check id), the same for all of its units.
        batch_size: physical batch fixed in the plan.
        images: how many worst examples to save a check; 0 saves none.
        evidence: folder for content-addressed evidence files.
        class_names: names in label order, may be empty.
        documents: name to content, for a check of documents.
    """

    check: str
    role: str
    model: Model
    rng: Streams
    batch_size: int
    images: int
    evidence: Path
    class_names: tuple[str, ...]
    documents: Mapping[str, bytes] = field(default_factory=dict[str, bytes])


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one unit found.

    Attributes:
        records: one JSON object per sample in the batch's order, each with at least "id" (the sample id as text).
        cost: model work of the unit.
        flags: what the unit saw that concerns the whole check.
    """

    records: Sequence[Record]
    cost: Cost = field(default_factory=Cost)
    flags: Sequence[Flag] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """What `reduce` may look at.

    Attributes:
        check: the check's id in the plan.
        records: per role, all records in sample order; units that failed or did not run are missing from it.
        planned: per role, how many samples were planned.
        cost: summed over the finished units.
        flags: distinct flags of all units and of preflight.
        clean: records of the clean check by sample id, for paired differences; empty when it did not run.
        rng: the stream of this check, for resampling.
        num_classes: width of the logits.
        class_names: may be empty.
        missing: "" or why records are missing ("budget", "error: ...").
        images: how many worst examples the report may show.
    """

    check: str
    records: Mapping[str, Sequence[Record]]
    planned: Mapping[str, int]
    cost: Cost
    flags: Sequence[Flag]
    clean: Mapping[str, Record]
    rng: Streams
    num_classes: int
    class_names: tuple[str, ...]
    missing: str
    images: int


class Check(Protocol):
    """A family of measurements. Implementations are frozen `Options`."""

    kind: ClassVar[str]
    """Registered name in the entry-point group `vambrace.checks`."""
    version: ClassVar[int]
    """Raised whenever records change meaning; part of the unit key."""
    roles: ClassVar[tuple[str, ...]]
    """Data roles the check needs: ("eval",) or ("members", "nonmembers"); none for a check of documents."""

    @property
    def needs(self) -> Access:
        """Access this check with these options needs."""
        ...

    def as_json(self) -> dict[str, object]:
        """The options as JSON data."""
        ...

    def measure(self, context: Context, batch: Batch) -> Measured:
        """Measure one chunk."""
        ...

    def reduce(self, reduction: Reduction) -> list[Finding]:
        """Pure: records to findings. Called also with no or too few records: then not_measured findings."""
        ...
