"""Reports of a run: one HTML page, JSON, JUnit XML, and a summary for the terminal.

Reads `core.findings` only, and never imports torch.

    from pathlib import Path
    from vambrace.report import read_results, write

    results = read_results(Path("runs/demo/results.json"))
    write(results, Path("runs/demo"), ["html", "junit"])

The JSON form is `docs/formats/results-v1.md`. A report adds nothing to the results and measures nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from vambrace.core.canonical import dumps
from vambrace.core.files import write_file
from vambrace.errors import ConfigError
from vambrace.report.reading import read_results
from vambrace.report.terminal import summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vambrace.core.findings import Results

__all__ = ["FILES", "read_results", "summary", "write"]

FILES = {"html": "report.html", "json": "results.json", "junit": "junit.xml"}
"""Format to file name in the run directory."""


def write(
    results: Results,
    run_dir: Path,
    formats: Sequence[Literal["html", "json", "junit"]] = ("html", "json", "junit"),
    *,
    timings: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    images: int | Literal["all", "none", "blur"] = 6,
) -> list[Path]:
    """Write the reports of a run into its directory, each whole or not at all, and return their paths in order.

    Equal arguments and equal evidence files give equal bytes.

    Args:
        results: what the run found.
        run_dir: the run directory; evidence files are looked up below it.
        formats: which reports.
        timings: `timings.json` as data; shown, never judged.
        environment: `environment.json` as data: the command line, the machine.
        images: worst examples of a check on the page; "all" that are saved (96 a page at most), "none", or "blur"
            for a few that nobody can recognise.

    Raises:
        ConfigError: E553 for an unknown format, E554 for an impossible `images`.
        ResourceError: E601 where a file cannot be written.
    """
    unknown = [name for name in formats if name not in FILES]
    if unknown:
        raise ConfigError(
            "E553",
            seen=f"the report format {unknown[0]!r}",
            expected=" or ".join(FILES),
            fix="write --to html,json,junit or some of them",
        )
    if not _possible(images):
        raise ConfigError(
            "E554",
            seen=f"images {images!r}",
            expected="all, none, blur, or how many examples a check shows",
            fix="write --images none, --images blur or --images 6",
        )
    written: list[Path] = []
    for name in dict.fromkeys(formats):
        path = run_dir / FILES[name]
        write_file(path, _content(name, results, run_dir, timings or {}, environment or {}, images))
        written.append(path)
    return written


def _possible(images: object) -> bool:
    if isinstance(images, str):
        return images in {"all", "none", "blur"}
    return isinstance(images, int) and not isinstance(images, bool) and images >= 0


def _content(
    name: str,
    results: Results,
    run_dir: Path,
    timings: Mapping[str, Any],
    environment: Mapping[str, Any],
    images: int | Literal["all", "none", "blur"],
) -> bytes:
    # Imported here: a summary in the terminal needs neither templates nor pictures.
    if name == "html":
        from vambrace.report import html

        return html.render(results, run_dir, timings=timings, environment=environment, images=images)
    if name == "junit":
        from vambrace.report import junit
        from vambrace.report.views.about import seconds_by_check

        return junit.render(results, seconds=seconds_by_check(timings))
    return dumps(results.as_json())
