# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a recovery will take is known at all times, and is what the plan of a restore says."""

from __future__ import annotations

from typing import Any

from backing import Bank
from deploying import configured, deploy
from restoring import Restorer
from waiting import until

from pgops.repository import catalogue

EXPECTED = """
SELECT to_jsonb(s) FROM (
    SELECT s.recoverable, s.obstacle, s.recovery_seconds, s.recovery_basis, s.recovery_parts, s.restore_speeds
    FROM pgops.recovery_status AS s WHERE s.generation = pgops.server_generation()
) AS s
"""


class Known:
    """What the catalogue says of a bank."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        deploy(bank.server, backup=True)
        place = {"repository": str(bank.host.repository), "superuser": bank.server.superuser}
        self.configuration, _layout = configured(bank.server, bank.host.prefix / "agent", **place)

    def status(self) -> dict[str, Any]:
        """After a run of the job."""
        assert catalogue.update(self.configuration)["errors"] == []
        found = self.bank.server.value(EXPECTED, "pgops")
        assert isinstance(found, dict)
        return found

    def agrees(self, restorer: Restorer) -> dict[str, Any]:
        """What is expected, once it is what a plan says: the server archives by itself now and then."""

        def same() -> dict[str, Any] | None:
            found, planned = self.status(), restorer.plan(latest=True)["predicted"]
            told = (found["recovery_seconds"], found["recovery_basis"], found["recovery_parts"])
            return found if told == (planned["seconds"], planned["basis"], planned["parts"]) else None

        return until(same, "the catalogue expects what the plan of a restore does")


def test_it_is_what_a_restore_would_predict_and_learns_from_restores(bank: Bank, restorer: Restorer) -> None:
    known = Known(bank)
    bank.archive()
    nothing = known.status()
    assert (nothing["recoverable"], nothing["obstacle"]) == (False, "no base backup")
    assert (nothing["recovery_seconds"], nothing["recovery_basis"], nothing["recovery_parts"]) == (None, None, None)
    bank.backup()
    bank.work()
    bank.archive()
    guessed = known.agrees(restorer)
    assert (guessed["recoverable"], guessed["recovery_basis"], guessed["restore_speeds"]) == (True, "assumed", {})
    assert guessed["recovery_seconds"] > 0
    bases = {one["part"]: one["basis"] for one in guessed["recovery_parts"]}
    assert bases == {**dict.fromkeys(("select", "verify", "replay", "start"), "assumed"), "copy": "backup"}
    restorer.restore(latest=True)
    # No WAL has come since, and no backup: what the restore has shown counts all the same.
    learned = known.agrees(restorer)
    bases = {one["part"]: one["basis"] for one in learned["recovery_parts"]}
    assert (bases["select"], bases["copy"], bases["verify"], bases["start"]) == ("here", "here", "here", "here")
    assert learned["restore_speeds"]["copy"]["bytes_per_second"] > 0
    assert learned["restore_speeds"].keys() == {part for part, basis in bases.items() if basis == "here"}


def test_each_window_has_its_own_and_a_gap_leaves_none_to_now(bank: Bank) -> None:
    """The time to the newest WAL is that of the window which goes to it, and not of one before a gap."""
    known = Known(bank)
    bank.backup()
    for _segment in range(3):
        bank.work()
        bank.archive()
    lost = bank.host.archived()[sorted(bank.host.archived())[-2]]
    assert known.status()["recovery_seconds"] > 0
    lost.unlink()
    assert catalogue.update(known.configuration)["errors"] != []
    found = known.status()
    assert (found["recoverable"], found["recovery_seconds"], found["recovery_parts"]) == (False, None, None)
    windows = "SELECT jsonb_agg(w.recovery_seconds > 0 AND NOT w.newest) FROM pgops.recovery_windows AS w"
    assert bank.server.value(windows, "pgops") == [True]
    bank.backup()
    assert known.status()["recovery_seconds"] > 0
    newest = "SELECT jsonb_agg(w.newest ORDER BY w.start_lsn) FROM pgops.recovery_windows AS w"
    assert bank.server.value(newest, "pgops") == [False, True]
