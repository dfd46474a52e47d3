"""Programs out of Debian's packages: unpacked below build/, so that nothing is installed."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"


class UnavailableError(Exception):
    """This machine can't have it; the message says why."""


def unpacked(package: str, name: str = "") -> Path:
    """The directory of a package's files, fetched with apt if it is not there yet; ``name`` is what it is called
    below build/, without one as the package.

    Raises UnavailableError.
    """
    place = BUILD / (name or package)
    if place.exists():
        return place
    BUILD.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            subprocess.run(["apt-get", "-qq", "download", package], cwd=scratch, check=True, capture_output=True)
            (archive,) = Path(scratch).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", str(archive), f"{scratch}/unpacked"], check=True)
            # At once: another process may be looking for it, and could not use what is still being written.
            with contextlib.suppress(OSError):  # another process was faster
                Path(scratch, "unpacked").rename(place)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"apt cannot fetch the package {package}: {error}") from error
    return place
