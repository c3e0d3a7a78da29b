"""The most memory that one process ever held, measured by a program that loads a model, runs it once and says so.

Started as a file, so that nothing but the runtime is imported beside it. VmHWM belongs to the program's own memory;
ru_maxrss does not: on Linux a program inherits the height of the one that started it.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["main", "of_this_process"]

_STATUS = Path("/proc/self/status")


def of_this_process() -> int | None:
    """Bytes of this process at its height so far; None where the system does not say."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(found[0]) if found else None


def main(model: str, rows: str, fixed: str, level: str, threads: str) -> None:
    """Load the model, where there is one, run it, and write the height in bytes; `level` is the runtime's word."""
    import numpy as np

    from vambrace.core.extras import require

    runtime = require("onnxruntime", extra="onnx")
    arrays, others = (dict(np.load(path, allow_pickle=False)) for path in (rows, fixed))
    if Path(model).exists():
        options = runtime.SessionOptions()
        options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs() if each.name not in others]
        for _ in range(3):
            session.run(None, dict(zip(names, arrays.values(), strict=True)) | others)
    sys.stdout.write(f"{of_this_process() or 0}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
