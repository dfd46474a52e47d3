# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`pgops incident` on the terminal: the timeline around an alert, and its scene."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from deploying import collect, configured, keep, rule
from servers import Server

from pgops import cli

ALWAYS = {"name": "always", "metric": "connections_used_percent", "operator": ">", "threshold": -1.0, "lasts": "0"}
SAMPLE = "INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name) VALUES ('waiting_locks', 9, {})"
STORM = """
INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name)
SELECT 'waiting_locks', 9, 'shop' || g FROM generate_series(1, 300) AS g
"""
LOCKS = {"name": "locks", "metric": "waiting_locks", "operator": ">", "threshold": 5.0, "lasts": "0"}


class Terminal:
    """The command as people give it, on a host with one instance."""

    def __init__(self, server: Server, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.server, self.state, self.capsys = server, state, capsys
        self.settings, self.layout = configured(server, state)
        Path(self.layout.configuration).mkdir(parents=True)
        Path(self.layout.agent_file).write_text(self.settings.text())

    def minute(self) -> None:
        """What happens each minute."""
        assert collect(self.server, self.state)["errors"] == []
        self.server.value("SELECT pgops.evaluate_alerts()", "pgops")
        assert keep(self.server, self.state)["errors"] == []

    def asked(self, *words: str) -> tuple[int, str]:
        self.capsys.readouterr()
        code = cli.main(["--prefix", str(self.state), "incident", *words])
        said = self.capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture(name="terminal")
def _terminal(deployed: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(deployed, tmp_path, capsys)


@pytest.mark.every_major
def test_the_timeline_and_the_scene_of_the_newest_alert(terminal: Terminal) -> None:
    server = terminal.server
    rule(server, rules=[ALWAYS])
    keep(server, terminal.state)
    server.psql("ALTER SYSTEM SET work_mem = '63MB'")
    server.reload()
    try:
        terminal.minute()
        code, said = terminal.asked()
        assert code == 0
        lines = said.splitlines()
        assert lines[0] == "warning always on db1/main"
        assert re.match(r"connections_used_percent: \S+ > -1; since 20\S+ \S+, firing", lines[1])
        happened = [line.split("  ")[-1] for line in lines[lines.index("What happened") + 1 : lines.index("", 5)]]
        assert "settings: work_mem: 4MB -> 63MB" in happened
        assert any(one.startswith("alert: this alert: inactive -> firing") for one in happened)
        assert happened.index("settings: work_mem: 4MB -> 63MB") < len(happened) - 1
        assert any(re.match(r"Scene of db1/main \(primary\) at 20", line) for line in lines)
        for title in ("Longest transactions", "Sessions", "Replication slots"):
            assert any(line.strip().startswith(title) for line in lines), title
    finally:
        server.psql("ALTER SYSTEM RESET work_mem")
        server.reload()


def test_alerts_by_their_rule_and_by_their_identifier(terminal: Terminal) -> None:
    server = terminal.server
    rule(server, rules=[ALWAYS, LOCKS])
    server.value(SAMPLE.format("E'shop\\x1b[2J'"), "pgops")
    terminal.minute()
    identifier = str(server.value("SELECT alert_id FROM pgops.alert_history WHERE rule_name = 'locks'", "pgops"))
    for wanted in ("locks", identifier, identifier.upper(), identifier[:12]):
        code, said = terminal.asked(wanted)
        assert (code, said.splitlines()[0]) == (0, "warning locks on db1/main (database shop\\x1b[2J)")
        assert "warning always on db1/main: fires" in said
        assert "\x1b" not in said
    code, said = terminal.asked("locks", "--hours", "1", "--json")
    found = json.loads(said)
    assert code == 0
    assert found["alert"]["alert"] == identifier
    assert {one["part"] for one in found["scenes"]} >= {"blocking", "transactions", "slots"}


def test_a_storm_of_alerts_takes_a_line(terminal: Terminal) -> None:
    rule(terminal.server, rules=[ALWAYS, LOCKS])
    terminal.server.value(STORM, "pgops")
    terminal.minute()
    code, said = terminal.asked("always")
    assert code == 0
    assert len(re.findall(r"alert: warning locks on db1/main \(database shop\d+\) and 299 more: fires", said)) == 1


def test_what_is_not_there_is_refused(terminal: Terminal) -> None:
    assert terminal.asked() == (
        2,
        "pgops: No alert fires. Name one that has ended; `pgops alerts --all` shows them.\n",
    )
    code, said = terminal.asked("nothing")
    assert (code, said.startswith("pgops: There is no alert nothing.")) == (2, True)
    code, said = terminal.asked("locks", "--hours", "-1")
    assert (code, said.startswith("pgops: '-1' are no hours.")) == (2, True)


def test_an_alert_without_a_scene_says_so(terminal: Terminal) -> None:
    rule(terminal.server, rules=[ALWAYS])
    terminal.minute()
    terminal.server.value("DELETE FROM pgops.scene", "pgops")
    code, said = terminal.asked("always")
    assert code == 0
    assert "No scene was kept: " in said
