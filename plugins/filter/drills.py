# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What came of recovery drills, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def drill_result(result: Mapping[str, Any]) -> str:
    """What came of ``pgops drill``, by the result of the task that ran it, in a sentence."""
    lines = str(result.get("stdout") or "").splitlines()
    try:
        told = dict(json.loads(lines[-1]))
    except (IndexError, ValueError, TypeError):
        words = " ".join(f"{result.get('stdout', '')} {result.get('stderr', '')} {result.get('msg', '')}".split())
        return f"No drill was made: {words or 'pgops said nothing.'}"
    if told.get("skipped"):
        return f"Skipped: {told['skipped']}."
    if told.get("status") == "passed":
        return (
            f"Passed with backup {told['backup']}: recovered in {told['rto_seconds']:.1f} s, and at most "
            f"{told['rpo_seconds']:.1f} s would have been lost."
        )
    return " ".join(map(str, told.get("errors") or [told.get("error") or "The drill said nothing."]))


class FilterModule:
    """Ansible's entry."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"drill_result": drill_result}
