"""The main job on an embedded default: train a small network on real digits, then assess it like any other model.

The network is trained on `digits:train` only, saved as safetensors and loaded again through the same door as a user's;
every number comes from `digits:test`, which it has not seen. Members are the training digits, so that the privacy
check has something to measure. The checks touch every family that exists.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from vambrace import data
from vambrace.assess.reading import parse_plan
from vambrace.assess.running import execute
from vambrace.core.files import make_folder, write_file
from vambrace.core.progress import silent
from vambrace.errors import ConfigError
from vambrace.testing.digits import train

if TYPE_CHECKING:
    from vambrace.assess.report import Report
    from vambrace.core.progress import Progress

__all__ = ["demo_table", "demonstrate"]

FACTORY = "vambrace.testing.digits:network"
WEIGHTS = "demo-digits.safetensors"


def demo_table(weights: str, out: str = "runs") -> dict[str, Any]:
    """The demo's plan as data of the plan dialect.

    Args:
        weights: path of the trained network.
        out: folder that receives the run directory.
    """
    natural = ("gaussian_noise", "gaussian_blur", "rotate", "contrast", "jpeg")
    return {
        "schema": 1,
        "profile": "ci",
        "seed": 0,
        "model": {"source": weights, "factory": FACTORY},
        "contract": {"bounds": [0, 1]},
        "data": {
            "eval": {"source": "digits:test", "limit": 500},
            "members": {"source": "digits:train"},
            "nonmembers": {"source": "digits:test"},
        },
        "trust": {"code": ["vambrace"]},
        "run": {"out": out},
        "check": [
            {"check": "clean"},
            {"attack": "fgsm", "eps": [0.05, 0.1, 0.2]},
            {"attack": "pgd", "eps": [0.02, 0.05, 0.1, 0.15, 0.2], "steps": 20},
            {"attack": "apgd", "eps": [0.02, 0.05, 0.1, 0.15, 0.2], "steps": 40},
            {"attack": "pgd", "norm": "l2", "eps": [0.25, 0.5, 1.0], "steps": 20},
            *({"perturb": name} for name in natural),
            {"check": "membership"},
        ],
    }


def demonstrate(out: Path, *, progress: Progress = silent) -> Report:
    """Train, save, and assess as `vambrace assess` would; the run lies in `out/demo`.

    A demo that lies there already is replaced.

    Raises:
        ConfigError: E578, when `out/demo` is something else than an earlier demo.
        ResourceError: E601, when it cannot be written.
    """
    out = out.resolve()
    _clear(out / "demo")
    make_folder(out)
    members = data.load("digits:train")
    batch = members.read(range(len(members)))
    module = train(batch.inputs, batch.labels, progress=progress)
    weights = out / WEIGHTS
    write_file(weights, save(module.state_dict()))
    plan = parse_plan(demo_table(weights.name, str(out)), base=out, where="the demo")
    return execute(plan, name="demo", progress=progress)


def _clear(run: Path) -> None:
    if not run.exists():
        return
    if not (run / "plan.json").is_file():
        raise ConfigError(
            "E578",
            seen=f"{run} is there and is no earlier demo",
            expected="a free place, or an earlier demo to replace",
            fix="move it away, or choose another folder with --out",
        )
    shutil.rmtree(run)
