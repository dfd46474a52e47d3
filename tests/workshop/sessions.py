"""Whether all sessions have run that must have: a machine that lacks what one of them needs proves nothing.

    python tests/workshop/sessions.py build/sessions.json .ci/sessions

The first is nox's report, the second a list of names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path


def missing(report: Path, names: Sequence[str]) -> list[str]:
    """What is wrong, a line each."""
    try:
        sessions = json.loads(report.read_text())["sessions"]
    except OSError:
        return [f"there is no report {report}"]
    results = {session["name"]: session["result"] for session in sessions}
    return [f"{name}: {results.get(name, 'not run')}" for name in names if results.get(name) != "success"]


def main() -> int:
    report, listed = map(Path, sys.argv[1:])
    wrong = missing(report, listed.read_text().split())
    print("\n".join(wrong or ["every session that must has run"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
