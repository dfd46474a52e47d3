# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs that take long, and are looked after meanwhile."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pgops.errors import Busy, HostFailed
from pgops.host import commands, files


def test_what_a_look_raises_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LOOKING", 0.01)
    program = tmp_path / "process"

    def look() -> None:
        if program.exists() and program.read_text():
            raise HostFailed("enough")

    with pytest.raises(HostFailed, match="enough"):
        commands.run(["sh", "-c", f"echo $$ > {program}; exec sleep 600"], watch=commands.Watch(look))
    assert not Path("/proc", program.read_text().strip()).exists()


def test_a_program_holds_a_lock_as_long_as_it_runs(tmp_path: Path) -> None:
    lock, said = str(tmp_path / "lock"), tmp_path / "said"
    with files.exclusive(lock, 0) as held:
        watch = commands.Watch(lambda: None, held=(held,))
        # It goes on when the program that it came from has ended, as one does whose parent was killed.
        commands.run(["sh", "-c", f"(read line < {said}) > /dev/null 2>&1 < /dev/null &"], watch=_pipe(said, watch))
    with pytest.raises(Busy), files.exclusive(lock, 0):
        pass
    said.write_text("end\n")
    with files.exclusive(lock, 60):
        pass


def _pipe(path: Path, watch: commands.Watch) -> commands.Watch:
    os.mkfifo(path)
    return watch


def test_lines_that_are_no_errors_are_not_shown() -> None:
    watch = commands.Watch(lambda: None, noise=re.compile(r"^\d+ kB$"))
    with pytest.raises(HostFailed) as caught:
        commands.run(["sh", "-c", "echo '12 kB' >&2; echo 'no space' >&2; echo '13 kB' >&2; exit 1"], watch=watch)
    assert caught.value.message.endswith("failed with exit code 1: no space")


def test_of_many_errors_the_last_are_shown() -> None:
    with pytest.raises(HostFailed) as caught:
        commands.run(["sh", "-c", "seq 100000 >&2; echo the end >&2; exit 1"])
    assert caught.value.message.endswith("100000 the end")
    assert len(caught.value.message) < 2 * commands.MOST_SHOWN
