# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people read of alerts. Pure.

Names and values come from databases, where others choose them: none of them can be a mention, a tag or a control
character in whatever shows the message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..terminal import shown

LONGEST = 200
"""Characters of a value that are shown."""
BODY = 3500
"""Characters of a text: less than what the services take."""
SHORT = 8
"""Characters of an alert's id that name it on the terminal."""
PLACE = re.compile(r"\{(\w+)\}")
HARMLESS = str.maketrans({"<": "\u2039", ">": "\u203a", "@": "\uff20"})
"""Signs that look like those which begin tags, and mentions of people."""
EVENTS = {"firing": "FIRING", "passed": "FIRED AND RESOLVED", "resolved": "RESOLVED", "repeated": "STILL FIRING"}
COMPARED = {">": "above", "<": "below", ">=": "at least", "<=": "at most", "=": "equal to", "!=": "other than"}
DOUBTFUL = "This may have been sent before: it is not known whether an earlier attempt arrived."


@dataclass(frozen=True)
class Text:
    """A message as it is sent. ``severity`` is that of what fires, or resolved."""

    title: str
    body: str
    severity: str


def escaped(value: Any) -> str:
    """A value of somebody else's choice as it is shown, on one line."""
    text = shown(str(value)).translate(HARMLESS)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def number(value: str | None) -> str:
    """A number as it is shown; "nothing" where nothing was measured."""
    return "nothing" if value is None else f"{float(value):.6g}"


def moment(text: str | None) -> str:
    """A time of the database (ISO 8601 with its zone), to the second, in UTC."""
    if not text:
        return "?"
    when = re.sub(r"\.\d+", "", text.replace("Z", "+00:00"))  # Python 3.9 reads three or six digits only
    return datetime.fromisoformat(when).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def filled(template: str, alert: Mapping[str, Any]) -> str:
    """A template with what an alert is put in place of {metric_value}, {threshold_value}, {severity} ... and its
    labels; a label wins nothing over these, and what is unknown stays as it is."""
    known = {
        **alert["labels"],
        **{name: alert[name] for name in ("rule_name", "severity", "metric", "cluster", "node")},
    }
    values = {name: escaped(value) for name, value in known.items()}
    values |= {name: number(alert[name]) for name in ("metric_value", "threshold_value")}
    return PLACE.sub(lambda place: values.get(place.group(1), place.group(0)), template)


def summary(alert: Mapping[str, Any], template: str | None = None) -> str:
    """One alert in a line, with what its rule's template says."""
    own = {name: value for name, value in sorted(alert["labels"].items()) if name != "node"}
    where = " ".join([escaped(alert["node"]), *(f"{escaped(name)}={escaped(value)}" for name, value in own.items())])
    limit = f"{COMPARED[alert['operator']]} {number(alert['threshold_value'])}"
    what = f"{escaped(alert['metric'])} was {number(alert['metric_value'])} (alert {limit})"
    since = f"from {moment(alert['fired_at'])}" if alert["ended_at"] else f"since {moment(alert['fired_at'])}"
    until = f" to {moment(alert['ended_at'])}" if alert["ended_at"] else ""
    more = [escaped(alert["reason"])] if alert["reason"] else []
    more += ["It flaps."] if alert["flapping"] else []
    more += [filled(template, alert)] if template else []
    return " ".join([f"{where}: {what}, {since}{until}.", *more])


def text(document: Mapping[str, Any], doubtful: bool) -> Text:
    """A message of the outbox (pgops.notification_document); ``doubtful`` if it may have been sent before."""
    alerts, events = document["alerts"], document["events"]
    counts = ", ".join(f"{EVENTS[event]} {events[event]}" for event in EVENTS if event in events)
    first = alerts[0] if alerts else {"severity": "info", "rule_name": "?"}
    severity = first["severity"] if {"firing", "repeated"} & set(events) else "resolved"
    title = f"[{counts}] {first['severity']}: {escaped(first['rule_name'])} on {escaped(document['cluster'])}"
    ending = [DOUBTFUL] if doubtful else []
    if alerts and severity != "resolved":
        ending.append(f"What was seen, and what happened before: pgops incident {first['alert_id'][:SHORT]}")
    ending.append(f"Message {document['notification_id']}")
    lines = [f"{EVENTS[alert['event']]}: {summary(alert, document['template'])}" for alert in alerts]
    return Text(title, "\n".join([*_bounded(lines, sum(events.values())), *ending]), severity)


def _bounded(lines: list[str], all_of_them: int) -> list[str]:
    """As many lines as have room, the first one cut if it has none, and how many more there are."""
    taken: list[str] = []
    for line in lines:
        if taken and sum(map(len, taken)) + len(line) > BODY:
            break
        taken.append(line[:BODY])
    rest = all_of_them - len(taken)
    return [*taken, f"And {rest} more: see pgops.alert_history."] if rest else taken


def test(cluster: str, node: str, channel: str) -> Text:
    """A message that only tries a channel."""
    body = f"pgops on {escaped(node)} can reach channel {escaped(channel)}. Nothing is wrong."
    return Text(f"[TEST] {escaped(cluster)}", body, "info")
