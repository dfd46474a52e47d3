# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a server cannot say of itself reaches people by the timers of a host alone. How long it takes is printed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from hosts import Fleet

pytestmark = pytest.mark.slow
HOST = "pg18"
PORT = 9093
RECEIVER = f"""
import http.server, json, time
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        alerts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open("/tmp/received", "a") as kept:
            kept.writelines(json.dumps([time.time(), alert]) + chr(10) for alert in alerts)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", {PORT}), Receiver).serve_forever()
"""
DECLARED = {
    "pgops_alert_channels": [{"name": "am", "kind": "alertmanager"}],
    "pgops_alert_addresses": {"am": {"one": f"http://127.0.0.1:{PORT}"}},
}
XIDS_LEFT = 2_000_000
"""Of which a server gives out none but to superusers in single-user mode: it keeps three million."""
ALL_PROCESSES = "pkill -{} -u postgres postgres"
# All connections but those that are reserved for superusers.
TAKEN = """
systemd-run -q --unit=takers sh -c 'for n in $(seq 97); do
    runuser -u postgres -- psql -Xqd postgres -c "SELECT pg_sleep(900)" & done; wait'
"""
# A session that sleeps does not notice that its client has gone.
GIVEN_BACK = """
runuser -u postgres -- psql -Xqd postgres -o /dev/null \
    -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
"""
FULL = """
mkdir /mnt/space && mount -t tmpfs -o size=30m tmpfs /mnt/space && chown postgres: /mnt/space
runuser -u postgres -- psql -Xqd postgres -c "CREATE TABLESPACE space LOCATION '/mnt/space'"
pgops --instance 18-main collect >/dev/null || true
head -c 40m /dev/zero >/mnt/space/filler 2>/dev/null || true
"""
# The prepared transaction keeps autovacuum from freeing transaction ids.
WRAPPED = f"""
runuser -u postgres -- psql -Xqd postgres -c "ALTER SYSTEM SET max_prepared_transactions = 5"
systemctl restart postgresql@18-main
runuser -u postgres -- psql -Xqd postgres -c "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'old'"
systemctl stop postgresql@18-main
data=/var/lib/postgresql/18/main
runuser -u postgres -- /usr/lib/postgresql/18/bin/pg_resetwal -x $((2147483648 - {XIDS_LEFT})) $data >/dev/null
runuser -u postgres -- dd if=/dev/zero of=$data/pg_xact/07FE bs=256k count=1 status=none
systemctl start postgresql@18-main
"""
# Autovacuum, which is allowed into every database, does the rest: none of this needs a transaction id.
FROZEN = """
runuser -u postgres -- psql -Xqd postgres -o /dev/null -c "ROLLBACK PREPARED 'old'" \
    -c "ALTER SYSTEM SET autovacuum_naptime = '1s'" -c "SELECT pg_reload_conf()"
"""


@dataclass(frozen=True)
class Fault:
    """A fault of a host, in shell, and what ends it."""

    alert: str
    cause: str
    cure: str


FAULTS = [
    Fault("instance_down", "systemctl stop postgresql@18-main", "systemctl start postgresql@18-main"),
    Fault("instance_hung", ALL_PROCESSES.format("STOP"), ALL_PROCESSES.format("CONT")),
    Fault("connections_exhausted", TAKEN, GIVEN_BACK),
    Fault("disk_full", FULL, "rm /mnt/space/filler"),
    Fault("writes_refused", WRAPPED, FROZEN),
]


@pytest.fixture(name="watched", scope="module")
def _watched(fleet: Fleet) -> Iterator[Fleet]:
    fleet.reset(HOST)
    fleet.on(HOST, "systemd-run", "-q", "--unit=receiver", "python3", "-c", RECEIVER)
    deployed = fleet.play("pgops.fleet.site", "--limit", HOST, "-e", json.dumps(DECLARED))
    assert deployed.code == 0, deployed.text
    yield fleet
    fleet.reset(HOST)


def told(fleet: Fleet, alert: str, fires: bool) -> float | None:
    """When an alert was told first, or when its end was."""
    for line in fleet.on(HOST, "sh", "-c", "cat /tmp/received || true").splitlines():
        at, post = json.loads(line)
        ended = datetime.fromisoformat(post["endsAt"]).timestamp() <= at
        if post["labels"]["alertname"] == alert and ended != fires:
            return float(at)
    return None


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.alert for fault in FAULTS])
def test_a_fault_is_told_and_its_end(watched: Fleet, fault: Fault) -> None:
    began = time.time()
    watched.on(HOST, "sh", "-c", fault.cause)
    at = watched.wait(fault.alert, lambda: told(watched, fault.alert, fires=True), 600)
    print(f"{fault.alert}: told after {at - began:.0f} s")
    cured = time.time()
    watched.on(HOST, "sh", "-c", fault.cure)
    at = watched.wait(f"the end of {fault.alert}", lambda: told(watched, fault.alert, fires=False), 900)
    print(f"{fault.alert}: its end after {at - cured:.0f} s")
