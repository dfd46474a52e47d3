# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How pg_basebackup is called."""

from __future__ import annotations

from dataclasses import replace

import pytest
from keeping import SOURCE

from pgops.backup import source
from pgops.backup.clients import Clients
from pgops.backup.engine import Order
from pgops.backup.native import Native, connection
from pgops.backup.options import Options
from pgops.errors import Conflict
from pgops.repository.manifests import Tablespace

OPTIONS = Options("native", "none", "primary", False, False, 168.0, 0.0, {}, "", "", "")
ORDER = Order("full", "/repo/a=b", "", 3, lambda: None)
SPACE = Tablespace(16384, "/srv/a=b")


def words(major: int = 18, layout: str = "plain", order: Order = ORDER, **options: object) -> list[str]:
    engine = Native(replace(OPTIONS, **options), Clients("/bin", major), {"host": "/run", "user": "o'neil"})  # type: ignore[arg-type]
    return engine.command(order, [SPACE], layout)


def test_wal_is_never_part_of_it_and_checksums_are() -> None:
    found = words()
    assert {"--wal-method=none", "--manifest-checksums=SHA256", "--no-password", "--checkpoint=fast"} <= set(found)
    assert not any(word.startswith(("--max-rate", "--compress", "--incremental")) for word in found)
    assert "--tablespace-mapping=/srv/a\\=b=/repo/a\\=b/tablespaces/16384" in found


def test_a_limited_rate_comes_with_an_unhurried_checkpoint() -> None:
    assert {"--max-rate=9766k", "--checkpoint=spread"} <= set(words(max_rate_mb=10.0))


def test_the_client_compresses() -> None:
    found = words(15, "tar", compression="gzip")
    assert "--compress=client-gzip" in found
    assert not any(word.startswith("--tablespace-mapping") for word in found)


def test_an_incremental_one_names_its_parent() -> None:
    assert "--incremental=/repo/p/data/backup_manifest" in words(order=replace(ORDER, parent="/repo/p"))


def test_values_of_the_connection_are_quoted_and_the_environments_options_left_out() -> None:
    assert connection({"host": "/run/a b", "user": "o'ne\\il"}) == r"host='/run/a b' user='o\'ne\\il' options=''"


def test_a_server_without_senders_is_refused() -> None:
    with pytest.raises(Conflict, match="max_wal_senders is 0"):
        Native(OPTIONS, Clients("/bin", 18), {}).check(replace(SOURCE, wal_senders=0), "full")


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/usr/lib/archiver push '/srv/a b' 74-17 none \"%p\" || exit 1", True),
        ("/usr/lib/archiver push '/srv/a b' 73-17 none \"%p\" || exit 1", False),
        ("cp %p '/srv/a b'", False),
        ("", False),
        ("archiver push '", False),
    ],
)
def test_whose_archive_command_it_is(command: str, ours: bool) -> None:
    assert source.ours(command, "/srv/a b", "74-17") is ours


@pytest.mark.parametrize(
    ("declared", "node", "in_recovery", "said"),
    [
        ("primary", "db1", False, ""),
        ("primary", "db1", True, "standby"),
        ("db1", "db1", True, ""),
        ("db1", "db1", False, ""),
        ("db1", "db2", False, "db1 is backed up"),
    ],
)
def test_which_node_is_backed_up(declared: str, node: str, in_recovery: bool, said: str) -> None:
    found = source.elsewhere(declared, node, in_recovery)
    assert found.startswith(said)
    assert bool(found) is bool(said)
