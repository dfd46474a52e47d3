# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an instance is, and why, from its facts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

LEVELS = ("critical", "warning", "unknown", "notice", "ok")
"""Of a reason, the worst first. What cannot be known is worse than what is known to be well."""
STALE = 300
"""Seconds without a sample, or without an evaluation of rules, until somebody should look: five runs of a job."""

PLACES = ("cluster", "node")
"""Labels that the instance itself has."""

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Reason:
    """``since`` is a time in ISO 8601, or None where it is not known."""

    level: str
    text: str
    since: str | None = None

    def data(self) -> dict[str, Any]:
        """For the document."""
        return asdict(self)


@dataclass(frozen=True)
class Known:
    """What is known of an instance: its facts, and what reading.py says is stored of it."""

    facts: Facts
    stored: Facts

    def section(self, name: str) -> Facts:
        """A section of the facts that could be read, or nothing."""
        section: Facts = self.facts.get(name) or {}
        return {} if section.get("error") else section


def reasons(facts: Facts, stored: Facts) -> list[Reason]:
    """Why an instance is not just well, the worst first."""
    if facts.get("error"):
        return [_without_session(facts)]
    found = [one for judge in JUDGES for one in judge(Known(facts, stored))]
    return sorted(found, key=lambda one: LEVELS.index(one.level))


def level(found: list[Reason]) -> str:
    """The worst of some reasons; a notice is well."""
    worst = min((LEVELS.index(one.level) for one in found), default=len(LEVELS) - 1)
    return LEVELS[worst] if LEVELS[worst] != "notice" else "ok"


def _without_session(facts: Facts) -> Reason:
    words = "Running, but no session can be opened" if facts.get("running") else "Down"
    return Reason("critical", f"{words}: {facts['error']['message']}")


def _partial(known: Known) -> Iterator[Reason]:
    for name, section in known.facts.items():
        error = section.get("error") if isinstance(section, Mapping) else None
        if error:
            yield Reason("unknown", f"The facts are partial, without {name}: {error['message']}")
    if known.stored.get("error"):
        yield Reason("unknown", f"What was stored cannot be read: {known.stored['error']['message']}")
    for name, panel in (known.stored.get("panels") or {}).items():
        if panel["error"]:
            yield Reason("unknown", f"The panel {name} cannot be read: {panel['error']['message']}")


def _alerts(known: Known) -> Iterator[Reason]:
    alerts = known.section("alerts")
    for alert in alerts.get("firing", ()):
        if alert["node"] == known.stored.get("node"):
            labels = ", ".join(
                f"{key} {value}" for key, value in alert["labels"].items() if key not in ("node", "cluster")
            )
            mark = f", acknowledged by {alert['acknowledged_by']}" if alert["acknowledged_by"] else ""
            severity = "notice" if alert["severity"] == "info" else alert["severity"]
            text = f"Alert {alert['rule']}{f' ({labels})' if labels else ''}{mark}"
            yield Reason(severity, text, alert["fired_at"])
    age = alerts.get("evaluated_age_s")
    if age is not None and age > STALE:
        yield Reason("warning", "Alert rules are not evaluated, nobody is told of anything", alerts["evaluated_at"])


def _monitoring(known: Known) -> Iterator[Reason]:
    if known.section("agent").get("configured") is False:
        yield Reason("unknown", "Not monitored: no agent is configured for it")
        return
    monitoring = known.section("monitoring")
    for node in monitoring.get("nodes", ()):
        if node["node"] == known.stored.get("node"):
            age = node["newest_age_s"]
            if age is None or age > STALE:
                yield Reason("warning", f"No sample {'in the last day' if age is None else f'for {age} s'}")


def _recovery(known: Known) -> Iterator[Reason]:
    backups, agent = known.section("backups"), known.section("agent")
    if not backups or not agent.get("configured"):
        return
    if backups["recoverable"] is False:
        yield Reason("critical", f"Cannot be recovered: {backups['obstacle']}", backups["seen_at"])
    elif backups["recoverable"] is None and backups["backups"]:
        yield Reason("unknown", "Whether it can be recovered is not known before the job catalogue has run")
    elif backups["recoverable"] is None:
        yield Reason("unknown" if agent.get("repository") else "notice", "No backups of it are known")
    failure = backups["failure"]
    if failure and failure["newest"]:
        yield Reason("warning", f"The last backup failed: {failure['message']}", failure["ended_at"])
    drill = backups.get("drill")
    if drill and drill["status"] == "failed":
        yield Reason("critical", f"The last recovery drill failed: {drill['message']}", drill["ended_at"])
    elif backups.get("drills_declared") and backups["recovery"] == "unproven":
        yield Reason("warning", "No recovery drill has passed yet")


def _archiving(known: Known) -> Iterator[Reason]:
    archiver = known.section("archiver")
    if archiver.get("failing"):
        yield Reason(
            "critical", f"WAL is not archived: {archiver['last_failed_wal']} failed", archiver["last_failed_at"]
        )
    for gap in known.section("archiving").get("gaps", ())[:1]:
        yield Reason("warning", f"WAL is missing in the repository from {gap['first_wal']} on", gap["noticed_at"])


def _replication(known: Known) -> Iterator[Reason]:
    server, replication = known.section("server"), known.section("replication")
    if server.get("recovery") and server["recovery"]["paused"]:
        yield Reason("warning", "Replay is paused")
    if known.facts.get("role") == "standby" and replication and not replication["receiver"]:
        yield Reason("warning", "The standby receives no stream")
    for slot in replication.get("slots", ()):
        if slot["wal_status"] in ("lost", "unreserved"):
            yield Reason("warning", f"Slot {slot['name']} is {slot['wal_status']}")


def _jobs(known: Known) -> Iterator[Reason]:
    for job in known.section("jobs").get("list", ()):
        if job["active"] is False:
            yield Reason("warning", f"The timer of job {job['name']} does not run")
        elif job["last_result"] not in (None, "success"):
            yield Reason("warning", f"Job {job['name']} failed: {job['last_result']}")


def _settings(known: Known) -> Iterator[Reason]:
    pending = known.section("settings").get("pending_restart")
    if pending:
        yield Reason("notice", f"A restart is needed for {', '.join(pending)}")
    drifted = known.section("schema").get("drifted")
    if drifted:
        yield Reason("notice", f"Changed by hand in the ops database: {', '.join(drifted[:5])}")
    if known.facts.get("support") not in (None, "supported"):
        yield Reason(
            "notice", f"PostgreSQL {known.facts['major']} is {known.facts['support']} for this version of pgops.fleet"
        )


JUDGES = (_alerts, _recovery, _archiving, _replication, _monitoring, _jobs, _partial, _settings)
