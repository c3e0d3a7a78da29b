"""One assessment on disk: made whole, opened by one process at a time, read by anybody.

The format is `docs/formats/run-directory-v1.md`. Whoever has a `RunDirectory` holds its lock; `read_run_file` needs
none.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from vambrace.assess.journal import HEADER
from vambrace.core import canonical
from vambrace.core.clock import now, stamp
from vambrace.core.disk import unwritable
from vambrace.core.files import make_folder, publish, read_file, sweep, write_file
from vambrace.core.lock import Lock
from vambrace.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

__all__ = ["FORMAT", "RunDirectory", "RunFile", "read_run_file"]

FORMAT = "vambrace-run/1"

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """What plan.json says.

    Attributes:
        run: random id of the run, 32 hex digits.
        created: when it began, UTC.
        plan: the resolved plan, see `vambrace.assess.planfile`.
        facts: what the plan met: model, data, preflight, left_out.
    """

    run: str
    created: str
    plan: Mapping[str, Json]
    facts: Mapping[str, Json]

    def as_bytes(self) -> bytes:
        """The file's content."""
        body = {
            "format": FORMAT,
            "run": self.run,
            "created": self.created,
            "plan": dict(self.plan),
            "facts": dict(self.facts),
        }
        return canonical.dumps({**body, "digest": canonical.digest(body)})


def read_run_file(run: Path) -> RunFile:
    """plan.json of the run directory `run`.

    Raises:
        ConfigError: E500 when `run` is no run directory, E501 when the file is damaged or of another version.
        ResourceError: E604, when it cannot be read.
    """
    try:
        content = read_file(run / "plan.json")
    except FileNotFoundError:
        raise ConfigError(
            "E500",
            seen=f"{run} " + ("without a plan.json" if run.is_dir() else "is not there"),
            expected="a run directory, such as runs/20260402T181530Z-3f9c2a1b",
            fix="name the directory that `vambrace assess` printed",
        ) from None
    try:
        data: Json = canonical.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise _damaged(run, "it is no JSON object")
    body = cast("dict[str, Json]", data)
    version, digest = body.get("format"), body.pop("digest", None)
    if version != FORMAT:
        raise _damaged(run, f"its version is {str(version)[:60]!r}, not {FORMAT!r}")
    if _digest(body) != digest:
        raise _damaged(run, "its digest does not match: it was edited or is damaged")
    # The digest holds, so the fields are those that this release wrote.
    return RunFile(run=body["run"], created=body["created"], plan=body["plan"], facts=body["facts"])


class RunDirectory:
    """A run directory that this process holds.

    Attributes:
        path: the directory.
        file: what its plan.json says.
        lock: held until `release`.
    """

    def __init__(self, path: Path, file: RunFile, lock: Lock) -> None:
        self.path = path
        self.file = file
        self.lock = lock

    @classmethod
    def create(
        cls,
        out: Path,
        *,
        plan: Mapping[str, Json],
        facts: Mapping[str, Json],
        name: str | None = None,
        baseline: bytes | None = None,
    ) -> RunDirectory:
        """Make a run directory in the folder `out`: with its plan and an empty journal, or not at all.

        Args:
            out: made where it is missing.
            plan: the resolved plan.
            facts: what it met.
            name: of the directory; None: time and random id.
            baseline: results.json of the baseline run, to be kept beside the plan.

        Raises:
            ConfigError: E502, when the name is taken.
            ResourceError: E600 when it is taken by a process that works on it, E601 when it cannot be written.
        """
        run = secrets.token_hex(16)
        path = out / (name or f"{stamp()}-{run[:8]}")
        content = RunFile(run=run, created=now(), plan=plan, facts=facts).as_bytes()
        prepared = out / f".{path.name}.{os.getpid()}.new"
        lock: Lock | None = None
        try:
            # Nobody can go on with what is swept below, nor find the names it had.
            with _told(out, f"a run directory in {out}", "check its permissions, or choose another folder with --out"):
                make_folder(prepared)
                lock = Lock.take(prepared / "LOCK", shown=out)
                write_file(prepared / "plan.json", content)
                write_file(prepared / "journal", HEADER)
                if baseline is not None:
                    write_file(prepared / "baseline.json", baseline)
                publish(prepared, path)
        except BaseException as error:
            if lock:
                lock.release()
            shutil.rmtree(prepared, ignore_errors=True)
            if isinstance(error, FileExistsError):
                raise _taken(path) from None
            raise
        # As everybody else will read it, so that a run that is resumed computes with the same values.
        return cls(path, read_run_file(path), lock)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Take an existing run directory, to go on with it.

        Raises:
            ConfigError: E500 or E501, see `read_run_file`.
            ResourceError: E600 when another process works on it, E601 when it cannot be written, E603 when it cannot be
                locked.
        """
        file = read_run_file(path)
        with _told(path, str(path), "make it writable, or copy it to a place that is, and resume the copy"):
            lock = Lock.take(path / "LOCK")
        sweep(path)
        sweep(path / "evidence")
        return cls(path, file, lock)

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.path / "journal"

    @property
    def evidence(self) -> Path:
        """Folder for saved inputs."""
        return self.path / "evidence"

    @property
    def baseline(self) -> Path | None:
        """The kept results of the baseline run, where there is one."""
        path = self.path / "baseline.json"
        return path if path.exists() else None

    def write_json(self, name: str, data: Json) -> Path:
        """Replace the file `name` by the canonical form of `data`, durably.

        Raises:
            ResourceError: E601.
        """
        write_file(self.path / name, canonical.dumps(data))
        return self.path / name

    def release(self) -> None:
        """Let others in; twice is fine."""
        self.lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def _told(path: Path, named: str, otherwise: str) -> Generator[None]:
    """E601 from within, told about what the user knows: see `unwritable`."""
    try:
        yield
    except ResourceError as error:
        if error.code != "E601" or not isinstance(error.__cause__, OSError):
            raise
        raise unwritable(path, error.__cause__, named=named, otherwise=otherwise) from error.__cause__


def _digest(body: Json) -> str:
    try:
        return canonical.digest(body)
    except (ConfigError, RecursionError):
        return ""  # what canonical JSON cannot say was not written by us


def _damaged(run: Path, why: str) -> ConfigError:
    return ConfigError(
        "E501",
        seen=f"{run / 'plan.json'}: {why}",
        expected="the plan as this release wrote it",
        fix="start a new run; to change a plan, edit the TOML file and not the run's copy",
    )


def _taken(path: Path) -> Exception:
    """Why a name cannot be had: somebody works on it (E600), or it is simply there (E502)."""
    if (path / "LOCK").exists():
        try:
            Lock.take(path / "LOCK").release()
        except ResourceError as held:
            if held.code == "E600":
                return held
    return ConfigError(
        "E502",
        seen=f"{path} exists already",
        expected="a new directory",
        fix="continue it with --resume, remove it, or choose another --out",
    )
