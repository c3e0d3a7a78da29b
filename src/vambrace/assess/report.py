"""What a run hands back: where it is, what it found, and the exit code it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vambrace.core import canonical
from vambrace.core.files import make_folder, write_file
from vambrace.errors import ConfigError

if TYPE_CHECKING:
    from vambrace.core.findings import Results

__all__ = ["Report"]

Json = Any


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Report:
    """A run that ended.

    Attributes:
        path: its directory.
        results: what it found; the verdict also says what went wrong after results.json was written.
        exit_code: what `vambrace assess` exits with.
        written: results.json and reports, those that are on the disk.
        timings: timings.json as data.
        environment: environment.json as data.
    """

    path: Path
    results: Results
    exit_code: int
    written: tuple[Path, ...] = ()
    timings: Mapping[str, Json] = field(default_factory=dict[str, Json])
    environment: Mapping[str, Json] = field(default_factory=dict[str, Json])

    def write(self, to: str | Path, *, images: int | Literal["all", "none", "blur"] = 6) -> Path:
        """Write one report: a page for a name in .html, JUnit for .xml, results for .json.

        Args:
            to: the file; its folder is made where it is missing.
            images: worst examples a check on the page; see `vambrace.report.write`.

        Raises:
            ConfigError: E515, for another ending.
            ResourceError: E601, when it cannot be written.
        """
        path = Path(to)
        content = self._content(path.suffix.lower(), images)
        make_folder(path.parent)
        write_file(path, content)
        return path

    def _content(self, suffix: str, images: int | Literal["all", "none", "blur"]) -> bytes:
        if suffix in {".html", ".htm"}:
            from vambrace.report import html

            return html.render(
                self.results, self.path, timings=self.timings, environment=self.environment, images=images
            )
        if suffix == ".xml":
            from vambrace.report import junit

            return junit.render(self.results, seconds=self.timings.get("checks"))
        if suffix == ".json":
            return canonical.dumps(self.results.as_json())
        raise ConfigError(
            "E515",
            seen=f"a report in {suffix or 'a file without an ending'}",
            expected=".html, .xml (JUnit) or .json",
            fix='write report.write("report.html")',
        )
