# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from pathlib import Path

from pgops.backup import clients


def test_the_programs_of_the_version_are_chosen(tmp_path: Path) -> None:
    def programs(major: int, minor: str = ".1") -> str:
        folder = tmp_path / str(major)
        folder.mkdir()
        for name in ("pg_basebackup", "pg_verifybackup"):
            (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {major}{minor}'\n")
            (folder / name).chmod(0o755)
        return str(folder)

    new, old = programs(28, "rc1 (Debian 28~rc1-1)"), programs(16)
    assert (clients.version(f"{new}/pg_basebackup"), clients.major_of(f"{new}/pg_basebackup")) == ("28rc1", 28)
    assert clients.readers([new, old], 28).directory == new
    assert clients.readers([new, old], 16).directory == old
    # Those below 17 are read by newer ones as well.
    assert clients.readers([new, ""], 14).verifies(14)
    assert clients.readers([old], 99) == clients.NONE
    assert not clients.NONE.verifies(0)
