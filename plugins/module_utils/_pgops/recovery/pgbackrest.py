# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A backup in a stanza, put back by pgBackRest, which compares each file with its checksum. To which moment the
server then recovers is not its matter. As the server's user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from ..errors import HostFailed
from ..host import files
from ..repository.backups import Kept
from ..repository.stanza import Stanza
from .copying import LONGEST, SCRATCH


def put(stanza: Stanza, kept: Kept, target: str, spaces: Mapping[int, str]) -> None:
    """Put a backup with all that it adds to into an empty directory, its tablespaces where ``spaces`` says by their
    OIDs.

    Raises HostFailed.
    """
    label = stanza.label(kept.manifest.id)
    if label is None:
        raise HostFailed(f"The stanza {stanza.name} no longer has backup {kept.name}.", "Choose another one.")
    scratch = os.path.join(target, SCRATCH)
    made = os.path.join(scratch, "restored")
    try:
        for path in (made, *spaces.values()):
            os.makedirs(path, 0o700, exist_ok=True)
        words = [
            f"--set={label}",
            "--type=none",
            f"--pg1-path={made}",
            *own(scratch),
            f"--spool-path={scratch}/spool",
        ]
        words += [f"--tablespace-map={oid}={where}" for oid, where in spaces.items()]
        stanza.run("restore", *words, timeout=LONGEST)
        for name in os.listdir(made):
            os.rename(os.path.join(made, name), os.path.join(target, name))
        shutil.rmtree(scratch)
    except OSError as error:
        raise files.failure(error, f"{target} cannot be written") from error


def own(folder: str) -> list[str]:
    """Options by which pgBackRest writes nowhere but in a directory: those of its file are the original's. Pure."""
    return [f"--lock-path={folder}/lock", f"--log-path={folder}/log"]
