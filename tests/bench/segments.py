# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What archiving a segment takes, beside the least that is durable: cp, sync, ln."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from figures import Figures

from pgops import archiver

SEGMENTS = 40
SIZE = 16 * 1024 * 1024
IDENTIFIER = 7412345678901234567
GENERATION = f"{IDENTIFIER}-17"
FLOOR = 'cp "$1" "$2/.$3" && sync "$2/.$3" && ln "$2/.$3" "$2/$3" && rm "$2/.$3" && sync "$2"'


def measure() -> Figures:
    """Milliseconds a segment of 16 MB, in turn; half of every segment is random, as WAL is roughly."""
    figures = Figures("archive", "milliseconds of archiving one segment of 16 MB, flushed to disk")
    # Beside the build, which is on a disk: /tmp may be in memory.
    with tempfile.TemporaryDirectory(dir=Path(__file__).parents[2] / "build") as work:
        place = Path(work)
        (place / "floor").mkdir()
        wal = place / "repository" / GENERATION / "wal"
        wal.mkdir(parents=True)
        (wal.parent / archiver.IDENTITY).write_text("{}")
        for number in range(1, SEGMENTS + 1):
            path = _segment(place, number)
            figures.add("uncompressed", "ours", _timed(_ours(place, path, "none")))
            figures.add("uncompressed", "peer", _timed(["sh", "-c", FLOOR, "sh", path, place / "floor", path.name]))
            (wal / path.name[:16] / path.name).unlink()
            for compression in ("gzip", "zstd", "lz4"):
                if shutil.which(compression):
                    figures.add(compression, "ours", _timed(_ours(place, path, compression)))
                    ending = archiver.ENDINGS[compression]
                    (wal / path.name[:16] / (path.name + ending)).unlink()
            path.unlink()
    return figures


def _ours(place: Path, path: Path, compression: str) -> list[str | Path]:
    program = [shutil.which("python3", path="/usr/bin") or "python3", "-IS", archiver.__file__]
    return [*program, "push", place / "repository", GENERATION, compression, path]


def _segment(place: Path, number: int) -> Path:
    name = f"0000000100000000{number:08X}"
    header = archiver.LONG_HEADER.pack(0xD116, 2, 1, number * SIZE, 0, IDENTIFIER, SIZE, 8192)
    path = place / name
    path.write_bytes((header + os.urandom(SIZE // 2)).ljust(SIZE, b"\0"))
    return path


def _timed(command: list[str | Path]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return (time.perf_counter() - began) * 1000
