# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_ops_backup: each action predicts what it does, and does no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from archives import Host
from backed import Backed, put_back

from pgops.errors import HostFailed, InvalidInput


@pytest.fixture(name="backed")
def _backed(make: Callable[..., Host]) -> Backed:
    made = Backed.of(make())
    made.configure()
    return made


def test_a_backup_is_predicted_taken_pinned_and_listed(backed: Backed) -> None:
    predicted = backed.module("take", check=True)
    assert (predicted["changes"], predicted["backup"]) == (["create full backup"], None)
    assert not backed.place.exists()
    done = backed.module("take")
    assert (done["changes"], done["prediction"]) == (predicted["changes"], predicted["prediction"])
    assert done["stored_bytes"] > 0
    (there,) = backed.module("list")["backups"]
    assert (there["id"], there["name"], there["pinned"]) == (done["backup"], done["name"], None)
    for check in (True, False):
        pinned = backed.module("pin", check, backup=done["name"], reason="audit")
        assert pinned["changes"] == [f"create pin of backup {done['name']}"]
    assert not backed.module("pin", backup=done["backup"], reason="audit")["changed"]
    assert backed.module("list")["backups"][0]["pinned"] == "audit"
    assert backed.module("unpin", backup=done["backup"])["changed"]
    assert not backed.module("unpin", backup=done["backup"])["changed"]
    assert backed.module("verify")["verified"] == 1
    assert not backed.module("expire")["changed"]
    with pytest.raises(InvalidInput, match="has no backup other") as caught:
        backed.module("pin", backup="other")
    assert caught.value.hint


def test_damage_fails_the_module(backed: Backed) -> None:
    done = backed.module("take")
    with put_back(backed.path(done) / "data" / "backup_manifest") as path:
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(HostFailed, match=done["name"]):
            backed.module("verify")
    assert backed.module("verify", backup=done["name"])["verified"] == 1


def test_a_host_without_backups_says_what_to_do(make: Callable[..., Host]) -> None:
    host = make()
    with pytest.raises(HostFailed, match="not set up for the backups") as caught:
        Backed(host).module("take")
    assert "pgops_backup" in caught.value.hint
