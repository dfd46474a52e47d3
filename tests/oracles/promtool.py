"""Prometheus' own checker, promtool, out of Debian's package: unpacked below build/, so that nothing is installed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"


class UnavailableError(Exception):
    """This machine can't have promtool; the message says why."""


def program() -> Path:
    """The path of promtool: that of PATH, or one that is fetched with apt.

    Raises UnavailableError.
    """
    found = shutil.which("promtool")
    place = BUILD / "prometheus" / "usr" / "bin" / "promtool"
    if found or place.exists():
        return Path(found or place)
    BUILD.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            subprocess.run(["apt-get", "-qq", "download", "prometheus"], cwd=scratch, check=True, capture_output=True)
            (package,) = Path(scratch).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", str(package), f"{scratch}/unpacked"], check=True)
            # At once: another process may be looking for it, and could not run what is still being written.
            with contextlib.suppress(OSError):  # another process was faster
                Path(scratch, "unpacked").rename(BUILD / "prometheus")
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"promtool is not on PATH, and apt cannot fetch it: {error}") from error
    return place
