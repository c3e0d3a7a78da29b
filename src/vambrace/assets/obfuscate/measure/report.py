"""The report on one obfuscated model: JSON with every number, and one HTML page that needs nothing else.

What did not get measured says so and never passes. The page and the JSON both carry the sentence of what all of this
does not show.
"""

from __future__ import annotations

import base64
import hashlib
import math
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any, Literal, cast

from vambrace.assets.obfuscate.measure.readability import SIMILARITIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vambrace.assets.obfuscate.measure.alignment import Alignment
    from vambrace.assets.obfuscate.measure.classifier import Classified
    from vambrace.assets.obfuscate.measure.deobfuscator import TakenApart
    from vambrace.assets.obfuscate.measure.equality import Equality
    from vambrace.assets.obfuscate.measure.gates import Gates, Judged
    from vambrace.assets.obfuscate.measure.keyless import Keyless
    from vambrace.assets.obfuscate.measure.overhead import Overhead
    from vambrace.assets.obfuscate.measure.readability import Readability
    from vambrace.assets.obfuscate.measure.survival import Survived

__all__ = ["Apart", "LIMITS", "Report"]

FORMAT = "vambrace-obfuscation-report/1"
LIMITS = (
    "Obfuscation raises the cost of reading a model. It is not encryption: whoever can run the model has its function.",
    "Whoever holds the original, or a base that it was fine-tuned from, finds its channels again in a model that runs "
    "without a key; the alignment rows say how many.",
    "The attackers here are programs of ours with a few seconds of time. They bound from below what can be read, and "
    "say nothing about a person with more time.",
    "Equality holds for the inputs and runtime settings in the table, and cost for this machine.",
)
"""What the numbers do not show."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Apart:
    """What our own de-obfuscator left.

    Attributes:
        taken: of the obfuscated model.
        after: beside the original.
        after_both: beside what it left of the original.
        aligned: the alignment attack on what it left.
    """

    taken: TakenApart
    after: Readability
    after_both: Readability
    aligned: Alignment

    def as_json(self) -> dict[str, object]:
        """As JSON data."""
        return self.taken.as_json() | {
            "after": self.after.as_json(),
            "after_both": self.after_both.as_json(),
            "alignment": self.aligned.as_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """Everything that was measured of one model.

    Attributes:
        name: of the model.
        digests: SHA-256 of the original and of the obfuscated model.
        rows: real samples that there were.
        gates: thresholds.
        judged: every gate.
        equality, overhead, readability, survival, alignment: measures of the two models.
        locked: the alignment attack on a key-locked file, or None.
        keyless: what that file does without its key, or None.
        apart: the de-obfuscator, or None.
        classified: rows of the architecture classifier, or None.
        left_out: passes of obfuscation that were not done, and why, as far as that was told.
    """

    name: str
    digests: tuple[str, str]
    rows: int
    gates: Gates
    judged: tuple[Judged, ...]
    equality: Equality
    overhead: Overhead
    readability: Readability
    survival: tuple[Survived, ...]
    alignment: Alignment
    locked: Alignment | None
    keyless: Keyless | None
    apart: Apart | None
    classified: Classified | None
    left_out: Mapping[str, str]

    @property
    def verdict(self) -> Literal["PASS", "FAIL", "INCOMPLETE"]:
        """FAIL where any gate fails; INCOMPLETE where one that is required was not measured."""
        if any(each.word == "fail" for each in self.judged):
            return "FAIL"
        known = {each.gate for each in self.judged if each.word in {"pass", "does not apply"}}
        return "PASS" if set(self.gates.required) <= known else "INCOMPLETE"

    @property
    def passed(self) -> bool:
        """Whether every required gate was measured and none fails."""
        return self.verdict == "PASS"

    def as_json(self) -> dict[str, object]:
        """The report as JSON data; what is not finite is text: "infinity", "-infinity" or "nan"."""
        found: dict[str, object] = {
            "format": FORMAT,
            "name": self.name,
            "verdict": self.verdict,
            "original_sha256": self.digests[0],
            "obfuscated_sha256": self.digests[1],
            "rows": self.rows,
            "limits": list(LIMITS),
            "thresholds": self.gates.as_json(),
            "gates": [asdict(each) for each in self.judged],
            "equality": self.equality.as_json(),
            "overhead": self.overhead.as_json(),
            "readability": self.readability.as_json(),
            "survival": [each.as_json() for each in self.survival],
            "alignment": self.alignment.as_json(),
            "locked": self.locked.as_json() if self.locked else None,
            "keyless": self.keyless.as_json() if self.keyless else None,
            "deobfuscator": self.apart.as_json() if self.apart else None,
            "classifier": self.classified.as_json() if self.classified else None,
            "left_out": dict(self.left_out),
            "surroundings": _surroundings(),
        }
        return cast("dict[str, object]", _plain(found))

    def html(self, json_name: str | None = None) -> str:
        """One page: no script, no network, light and dark.

        Args:
            json_name: of the file beside the page that holds `as_json()`, if there is one.
        """
        from markupsafe import Markup

        style = _style()
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        template = _templates().get_template("report.html.j2")
        return template.render(
            style=Markup(style),  # noqa: S704  our own file: no text of strangers
            policy=policy,
            report=self,
            json_name=json_name,
            similarities=SIMILARITIES,
            limits=LIMITS,
            surroundings=_surroundings(),
        )


def _number(value: object, digits: int = 4) -> str:
    """A number for reading: "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "infinite" if not math.isnan(value) else "not a number"
    return f"{value:,}" if isinstance(value, int) or value.is_integer() and abs(value) < 1e15 else f"{value:.{digits}g}"


def _share(value: float | None) -> str:
    """A share as per cent."""
    return "-" if value is None else f"{100 * value:.1f}\u00a0%"


def _visible(value: object) -> object:
    """Text of strangers with what could hide in it or reorder a line marked, and cut where it is long."""
    import unicodedata

    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return "".join("\ufffd" if unicodedata.category(char) in hidden else char for char in value[:1000])


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "infinity" if value > 0 else "-infinity"
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[object]", value)]
    return value


def _surroundings() -> dict[str, str]:
    found = {name: _version(name) for name in ("vambrace", "onnx", "onnxruntime", "onnxsim", "onnxslim", "numpy")}
    return found | {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def _style() -> str:
    folder = resources.files("vambrace.assets.obfuscate.measure").joinpath("templates")
    return folder.joinpath("report.css").read_text(encoding="utf-8")


@cache
def _templates() -> Any:  # noqa: ANN401  a jinja2.Environment
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vambrace.assets.obfuscate.measure", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = _number
    made.filters["share"] = _share
    return made
