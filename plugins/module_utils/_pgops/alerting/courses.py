# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of the watch's alerts from one look to the next. Pure.

Times that are compared are seconds since the host was booted, which nobody can set; those of day are only shown.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

PENDING, FIRING, RECOVERING, RESOLVED = "pending", "firing", "recovering", "resolved"
OPEN = (PENDING, FIRING, RECOVERING)

CLEARS = 45.0
"""Seconds for which all must be well before an alert ends."""
FLAPPING, WITHIN, DAMPED = 4, 3600.0, 900.0
"""One that begins to fire so often within so many seconds ends only after so many, as in the ops database."""
KEPT = 86400.0
"""Seconds after which nobody is told any more that an alert has ended."""
MOST = 200
"""Alerts that are kept."""


@dataclass(frozen=True)
class Rule:
    """``lasts`` are the seconds for which a thing must be wrong before its alert fires, ``says`` what people read,
    with {text} for what was found, ``do`` what to do about it."""

    name: str
    severity: str
    lasts: float
    says: str
    do: str


RULES: Mapping[str, Rule] = {
    one.name: one
    for one in (
        Rule(
            *("instance_down", "critical", 20, "The server takes no sessions: {text}."),
            "Start it, and read the end of its log first: a full disk or a wrong setting would stop it again.",
        ),
        Rule(
            *("instance_hung", "critical", 20, "The server is there and does not answer: {text}."),
            "Look for processes that are stopped (T) or wait for a disk (D) in ps, and at the disks and memory.",
        ),
        Rule(
            *("connections_exhausted", "critical", 20, "Nobody else can connect: {text}."),
            "Log in over the reserved connections as a superuser, end idle sessions, and find who opens so many.",
        ),
        Rule(
            *("writes_refused", "critical", 20, "The server gives out no transaction ids: {text}."),
            "Against wraparound: end what holds the oldest rows (prepared transactions, slots), then VACUUM.",
        ),
        Rule(
            *("disk_full", "critical", 20, "The file system {text}."),
            "Enlarge it, or remove what is not the server's. Never delete files in pg_wal.",
        ),
        Rule(
            *("job_stale", "critical", 0, "The job {text}."),
            "See its timer and journal: it does not start, or hangs.",
        ),
        Rule(
            *("job_failing", "warning", 0, "The job {text}."),
            "Run it by hand, or read its journal: it says what is wrong.",
        ),
        Rule(
            *("peer_down", "critical", 60, "Another node of the cluster cannot be reached: {text}."),
            "Is its host up, and the network between the two? Nobody there may be able to say so.",
        ),
    )
}


@dataclass(frozen=True)
class Finding:
    """What a look saw of one thing: ``wrong``, or None where it could not be seen; then nothing changes."""

    rule: str
    wrong: bool | None
    labels: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def key(self) -> str:
        """What it is about."""
        return json.dumps([self.rule, dict(self.labels)], sort_keys=True)


@dataclass(frozen=True)
class Alert:
    """``since``: from when on something is wrong, ``fine``: from when on it is not any more, ``fired``: when it last
    began to fire. ``fired_at`` and ``ended_at`` are times of day (Unix). ``told``: when each address was last told
    something, and what: FIRING or RESOLVED."""

    rule: str
    labels: Mapping[str, str]
    text: str
    since: float
    state: str = PENDING
    alert_id: str = ""
    fine: float | None = None
    fired: tuple[float, ...] = ()
    ended: float | None = None
    fired_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    told: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What it is about, as of a finding."""
        return Finding(self.rule, True, self.labels).key

    @property
    def severity(self) -> str:
        """That of its rule."""
        return RULES[self.rule].severity

    @property
    def flapping(self) -> bool:
        """Whether it begins to fire again and again."""
        return len(self.fired) >= FLAPPING

    @property
    def fires(self) -> bool:
        """Whether it has begun to fire, and not ended."""
        return self.state in (FIRING, RECOVERING)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def loaded(document: Mapping[str, Any]) -> Alert:
    """An alert from JSON. Raises KeyError, TypeError or ValueError, also for one of an unknown rule."""
    known = {name: document[name] for name in Alert.__dataclass_fields__}
    told = {str(name): (str(what), float(at)) for name, (what, at) in known["told"].items()}
    alert = Alert(**{**known, "told": told, "fired": tuple(map(float, known["fired"]))})
    if alert.rule not in RULES or alert.state not in (*OPEN, RESOLVED):
        raise ValueError("an alert of another version")
    return alert


def rebooted(alerts: Iterable[Alert], now: float) -> list[Alert]:
    """Alerts of before the host was booted: their times are of another clock, and all of them begin now."""
    return [
        replace(
            one,
            since=now,
            fine=None if one.fine is None else now,
            fired=(),
            ended=None if one.ended is None else now,
            told={name: (what, now) for name, (what, _at) in one.told.items()},
        )
        for one in alerts
    ]


def advanced(alerts: Sequence[Alert], findings: Iterable[Finding], now: float, day: float) -> list[Alert]:
    """The alerts after a look at ``now``, which is ``day`` by the time of day. What was not looked at, since it is
    not there any more, ends."""
    seen = {one.key: one for one in findings}
    running = {one.key: one for one in alerts if one.state in OPEN}
    changed = [
        new for key, one in running.items() for new in [_next(one, seen.get(key), now, day)] if new is not None
    ]
    past = [one for one in alerts if one.state == RESOLVED]
    before = {one.key: one.fired for one in sorted(past, key=lambda one: one.ended or 0)}
    begun = [
        _fire(Alert(one.rule, dict(one.labels), one.text, now, fired=before.get(key, ())), now, day)
        for key, one in seen.items()
        if one.wrong and key not in running
    ]
    return _bounded([*past, *changed, *begun], now)


def _next(alert: Alert, seen: Finding | None, now: float, day: float) -> Alert | None:
    """An alert after a look; None for one that never fired."""
    if seen is None:
        gone = replace(alert, reason="It is not watched any more.")
        return _end(gone, now, day) if alert.fires else None
    if seen.wrong is None:
        return alert
    if seen.wrong:
        again = replace(alert, text=seen.text, fine=None)
        return _fire(again, now, day) if alert.state == PENDING else replace(again, state=FIRING)
    if not alert.fires:
        return None
    fine = now if alert.fine is None else alert.fine
    if now - fine >= (DAMPED if alert.flapping else CLEARS):
        return _end(alert, now, day)
    return replace(alert, state=RECOVERING, fine=fine)


def _fire(alert: Alert, now: float, day: float) -> Alert:
    """One that is pending, and fires if it has been for long enough."""
    if now - alert.since < RULES[alert.rule].lasts:
        return alert
    recent = tuple(at for at in alert.fired if now - at < WITHIN)
    return replace(
        alert, state=FIRING, alert_id=str(uuid.uuid4()), fired_at=day, fired=(*recent, now)[-FLAPPING:], fine=None
    )


def _end(alert: Alert, now: float, day: float) -> Alert:
    return replace(alert, state=RESOLVED, ended=now, ended_at=day, fine=None)


def _bounded(alerts: Iterable[Alert], now: float) -> list[Alert]:
    """Without what ended long ago, and the newest ones of what is left; those that go on are kept first."""
    kept = [one for one in alerts if one.ended is None or now - one.ended < KEPT]
    ordered = sorted(kept, key=lambda one: (one.state == RESOLVED, -(one.ended or one.since)))
    return ordered[:MOST]


def waits(alerts: Iterable[Alert], now: float) -> float | None:
    """Seconds until the first of those that are pending is due to fire; None if none is."""
    left = [RULES[one.rule].lasts - (now - one.since) for one in alerts if one.state == PENDING]
    return max(0.0, min(left)) if left else None
