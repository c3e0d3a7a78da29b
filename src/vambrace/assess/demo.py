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
from vambrace.assess.reading import parse_plan, write_commented_toml
from vambrace.assess.running import execute
from vambrace.assess.worker import arithmetic
from vambrace.core.files import make_folder, write_file
from vambrace.core.progress import silent
from vambrace.errors import ConfigError
from vambrace.testing.digits import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from vambrace.assess.rehearsing import Rehearsal
    from vambrace.assess.report import Report
    from vambrace.core.progress import Progress

__all__ = ["FACTORY", "PLAN", "WEIGHTS", "demo_table", "demonstrate"]

FACTORY = "vambrace.testing.digits:network"
WEIGHTS = "demo-digits.safetensors"
PLAN = "demo.toml"


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
            "eval": {"source": "digits:test"},
            "members": {"source": "digits:train"},
            "nonmembers": {"source": "digits:test"},
        },
        "trust": {"code": ["vambrace"]},
        # The network is so small that a second thread costs more than it does.
        "run": {"out": out, "threads": 1},
        "check": [
            {"check": "clean"},
            {"attack": "fgsm", "eps": [0.05, 0.1, 0.2]},
            {"attack": "pgd", "eps": [0.02, 0.05, 0.1, 0.15, 0.2], "steps": 20},
            {"attack": "adaptive", "eps": [0.05, 0.1, 0.15]},
            {"attack": "adaptive", "norm": "l2", "eps": [0.5]},
            {"attack": "square", "eps": [0.1], "queries": 300, "limit": 100},
            {"attack": "hop_skip_jump", "norm": "l2", "eps": [0.5, 1.0], "budget": 500, "limit": 50},
            *({"perturb": name} for name in natural),
            {"check": "membership"},
        ],
    }


def demonstrate(
    out: Path, *, announce: Callable[[Rehearsal], None] | None = None, progress: Progress = silent
) -> Report:
    """Train, save, and assess as `vambrace assess` would.

    Args:
        out: folder that receives the weights, the plan (`PLAN`, which `vambrace assess` takes) and the run, as `demo`;
            an earlier demo there is replaced.
        announce: told what will run.
        progress: who listens.

    Raises:
        ConfigError: E578, when `out/demo` is something else than an earlier demo.
        ResourceError: E601, when something cannot be written.
    """
    _clear(out / "demo")
    make_folder(out)
    plan = parse_plan(demo_table(WEIGHTS, str(out)), base=out.resolve(), where="the demo")
    members = data.load("digits:train")
    batch = members.read(range(len(members)))
    with arithmetic(plan):
        module = train(batch.inputs, batch.labels, progress=progress)
    write_file(out / WEIGHTS, save(module.state_dict()))
    write_file(out / PLAN, write_commented_toml(plan, {"": "What `vambrace demo` ran."}).encode())
    return execute(plan, name="demo", announce=announce, progress=progress)


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
