# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small backups in tar files, as pg_basebackup makes them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

FILES = {"base/1/1259": b"one" * 5000, "backup_label": b"START", "pg_tblspc/16384/PG_18/5/7": b"far", "empty": b""}


def archive(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return made.getvalue()


def laid_out(folder: Path, files: dict[str, bytes], packed: bool = True) -> None:
    """A backup that has some files; its list is that of FILES."""
    spaces = {name: content for name, content in files.items() if name.startswith("pg_tblspc/")}
    parts = {
        "base": {name: content for name, content in files.items() if name not in spaces},
        "16384": {name.split("/", 2)[2]: content for name, content in spaces.items()},
    }
    for name, inside in parts.items():
        path = folder / f"{name}.tar{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(archive(inside)) if packed else archive(inside))
    lines = [
        json.dumps(
            {
                "Path": name,
                "Size": len(content),
                "Checksum-Algorithm": "SHA256",
                "Checksum": hashlib.sha256(content).hexdigest(),
            }
        ).replace("{", "{ ", 1)
        for name, content in FILES.items()
    ]
    (folder / "backup_manifest").write_text('{ "Files": [\n' + ",\n".join(lines) + "\n]}\n")
