"""`python -m vambrace`: the command line, for where no script is on the path."""

from __future__ import annotations

import sys

from vambrace.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
