# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A WAL file of a generation, unpacked: from the repository itself, or from the stanza that the generation has."""

from __future__ import annotations

import os

from . import archiver
from .stanza import Stanza


def compression(repository: str, generation: str, name: str, stanza: Stanza | None) -> str | None:
    """How a WAL file is compressed, None if it is not there. Raises OSError, and HostFailed as `fetch` does."""
    present = archiver.stored(archiver.place(repository, generation, name))
    if present is not None:
        return present[1]
    stored = stanza.stored(name) if stanza else None
    return stored.compression if stored else None


def fetch(repository: str, generation: str, name: str, path: str, stanza: Stanza | None) -> bool:
    """Unpack a WAL file to a path, and check that it is of the generation; False if it is not there.

    Raises archiver.Failure, OSError, and HostFailed where a stanza cannot be read.
    """
    present = archiver.stored(archiver.place(repository, generation, name))
    if present is None:
        if stanza is None or not stanza.get(name, path):
            return False
    else:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            archiver.unpack(*present, descriptor)
        finally:
            os.close(descriptor)
    archiver.check_segment(path, name, generation)
    return True
