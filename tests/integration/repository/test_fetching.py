# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A standby gets the WAL from the repository that it cannot stream, and nothing that is amiss there stops it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import binaries
import pytest
from archives import Host
from servers import Server
from waiting import until

RETRY = {"wal_retrieve_retry_interval": "100ms"}
REPLAYED = "SELECT pg_last_wal_replay_lsn()"


class Pair:
    """A primary that archives, and a stopped standby that lacks WAL which its primary no longer has."""

    def __init__(self, host: Host, keep: Callable[[Server], Server], **settings: str) -> None:
        self.host, self.primary = host, host.server
        assert host.apply()["proven"]
        self.standby = keep(self.primary.standby({**RETRY, **settings}))
        for _number in range(3):
            self.primary.value("CREATE TABLE IF NOT EXISTS numbers AS SELECT 1 AS number")
            host.wait_for(host.switch())
        self.primary.value("CHECKPOINT")
        self.primary.value("CHECKPOINT")
        self.last = host.switch()
        host.wait_for(self.last)

    def replays(self) -> None:
        """Wait until the standby has all that its primary has."""
        written = self.primary.value("SELECT pg_current_wal_lsn()")
        reached = f"SELECT pg_last_wal_replay_lsn() >= '{written}'"
        until(lambda: self.standby.value(reached), "replayed", True)

    def stored(self, name: str) -> Path:
        return self.host.archived()[name]


@pytest.fixture(name="pair")
def _pair(make: Callable[..., Host], keep: Callable[[Server], Server]) -> Pair:
    return Pair(make(settings={"wal_keep_size": "0", "min_wal_size": "32MB"}), keep)


@pytest.mark.every_major
def test_a_standby_gets_what_its_primary_no_longer_has(pair: Pair) -> None:
    pair.standby.configure({"primary_conninfo": ""})
    pair.standby.start()
    written = pair.primary.value("SELECT pg_current_wal_lsn()")
    pair.host.wait_for(pair.host.switch())
    reached = f"SELECT pg_last_wal_replay_lsn() >= '{written}'"
    until(lambda: pair.standby.value(reached), "replayed", True)
    place = pair.standby.data_dir / "pg_wal"
    # It goes on asking for the next segment: what is on its way just now goes, and nothing else is left.
    until(lambda: [path.name for path in place.iterdir() if "fetch" in path.name], "swept", [])


@pytest.mark.every_major
def test_a_standby_starts_and_is_promoted_without_its_repository(pair: Pair) -> None:
    pair.standby.start()
    pair.replays()
    pair.standby.stop()
    pair.host.repository.rename(pair.host.base / "away")
    pair.standby.start()
    pair.replays()
    pair.primary.stop("immediate")  # it is lost, and could not archive either
    pair.standby.promote()
    assert pair.standby.value("SELECT pg_is_in_recovery()") is False
    pair.standby.value("CREATE TABLE goes_on ()")


def test_a_standby_starts_with_a_damaged_segment(pair: Pair) -> None:
    pair.standby.start()
    pair.replays()
    pair.standby.stop("immediate")
    for name, path in pair.host.archived().items():
        if len(name) == 24:
            os.truncate(path, path.stat().st_size // 2)
    pair.standby.start()
    pair.replays()


@pytest.mark.skipif(binaries.majors()[-1] not in binaries.TOOLED, reason="pg_rewind is of one version")
def test_a_primary_that_was_lost_is_rewound_from_the_repository(
    make: Callable[..., Host], keep: Callable[[Server], Server]
) -> None:
    """And is a standby again, with the same restore_command."""
    pair = Pair(make(settings={"full_page_writes": "on", "wal_log_hints": "on", "wal_keep_size": "0"}), keep)
    pair.standby.start()
    pair.replays()
    pair.standby.promote()
    pair.primary.value("CREATE TABLE only_here AS SELECT generate_series(1, 1000)")
    pair.primary.stop()
    source = pair.standby.dsn()
    program = pair.primary.client("pg_rewind")
    pair.primary.run(
        program, "-D", pair.primary.data_dir, "--source-server", source, "--restore-target-wal", "--no-sync"
    )
    pair.primary.write(pair.primary.data_dir / "standby.signal", "")
    pair.primary.configure({"primary_conninfo": source, **pair.primary._listening()})
    pair.primary.start()
    lost = "SELECT to_regclass('only_here') IS NULL AND pg_is_in_recovery()"
    until(lambda: pair.primary.value(lost), "rewound", True)


def test_a_restore_command_of_somebody_else_stays(make: Callable[..., Host]) -> None:
    host = make(settings={"restore_command": "cp /elsewhere/%f %p"})
    done = host.apply()
    assert "restore_command = cp /elsewhere/%f %p stays" in done["warnings"][0]
    assert host.server.value("SHOW restore_command") == "cp /elsewhere/%f %p"
    assert "warnings" not in host.apply(fetch=False)
    assert "update setting restore_command" in host.apply(replace=True)["changes"]
    assert "archiver fetch" in str(host.server.value("SHOW restore_command"))
    host.apply(state="absent")
    assert host.server.value("SHOW restore_command") == "cp /elsewhere/%f %p"
