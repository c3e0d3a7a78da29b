"""What obfuscation does and costs, measured on two models: the original and the obfuscated one.

    from vambrace.assets.obfuscate.measure import Gates, measure
    report = measure("net.onnx", obfuscated.model, inputs, gates=Gates(profile="exact"))
    report.passed, report.as_json(), report.html()

The measures know nothing of how a model was obfuscated. Names are resolved on first use: importing this does no work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vambrace.assets.obfuscate.measure.alignment import Alignment, align
    from vambrace.assets.obfuscate.measure.classifier import Classified, ClassifierOptions, classify
    from vambrace.assets.obfuscate.measure.deobfuscator import take_apart
    from vambrace.assets.obfuscate.measure.equality import EqualityOptions, compare_answers
    from vambrace.assets.obfuscate.measure.families import FAMILIES, variant
    from vambrace.assets.obfuscate.measure.gates import Gates
    from vambrace.assets.obfuscate.measure.measuring import MeasureOptions, measure
    from vambrace.assets.obfuscate.measure.overhead import OverheadOptions, measure_cost
    from vambrace.assets.obfuscate.measure.readability import read_structure
    from vambrace.assets.obfuscate.measure.report import Report
    from vambrace.assets.obfuscate.measure.runtime import Settings
    from vambrace.assets.obfuscate.measure.survival import try_tools

__all__ = [
    "Alignment",
    "Classified",
    "ClassifierOptions",
    "EqualityOptions",
    "FAMILIES",
    "Gates",
    "MeasureOptions",
    "OverheadOptions",
    "Report",
    "Settings",
    "align",
    "classify",
    "compare_answers",
    "measure",
    "measure_cost",
    "read_structure",
    "take_apart",
    "try_tools",
    "variant",
]

_PLACES = {
    "alignment": ("Alignment", "align"),
    "classifier": ("Classified", "ClassifierOptions", "classify"),
    "deobfuscator": ("take_apart",),
    "equality": ("EqualityOptions", "compare_answers"),
    "families": ("FAMILIES", "variant"),
    "gates": ("Gates",),
    "measuring": ("MeasureOptions", "measure"),
    "overhead": ("OverheadOptions", "measure_cost"),
    "readability": ("read_structure",),
    "report": ("Report",),
    "runtime": ("Settings",),
    "survival": ("try_tools",),
}


def __getattr__(name: str) -> object:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
