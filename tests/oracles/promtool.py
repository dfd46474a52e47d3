"""Prometheus' own checker, promtool, of this machine or out of Debian's package."""

from __future__ import annotations

import shutil
from pathlib import Path

import packages

UnavailableError = packages.UnavailableError


def program() -> Path:
    """The path of promtool: that of PATH, or one that is fetched with apt.

    Raises UnavailableError.
    """
    found = shutil.which("promtool")
    return Path(found) if found else packages.unpacked("prometheus") / "usr" / "bin" / "promtool"
