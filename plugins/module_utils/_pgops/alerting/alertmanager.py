# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alerts as Alertmanager takes them (API v2, POST /api/v2/alerts)."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from . import texts
from .outcome import AMBIGUOUS, FAILED, SENT, Outcome

LASTS = timedelta(minutes=5)
"""For how long Alertmanager takes an alert for firing unless it is told again: it is, each minute."""
AT_ONCE = 500
"""Alerts in a request."""
TIMEOUT = 10
"""Seconds."""


def posts(alerts: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Alerts (pgops.alert_document) as Alertmanager reads them. Pure.

    It knows an alert by its labels: of several with the same ones, the last is told.
    """
    found = {json.dumps(post["labels"], sort_keys=True): post for post in (_post(alert, now) for alert in alerts)}
    return list(found.values())


def _post(alert: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    own = {_name(name): str(value) for name, value in alert["labels"].items()}
    fixed = {
        "alertname": "rule_name",
        "severity": "severity",
        "cluster": "cluster",
        "node": "node",
        "metric": "metric",
    }
    ended = alert["event"] == "resolved"
    return {
        "labels": {name: value for name, value in own.items() if value}
        | {name: str(alert[key]) for name, key in fixed.items() if alert[key]},
        "annotations": {"summary": texts.summary(alert), "value": texts.number(alert["metric_value"])},
        "startsAt": alert["fired_at"],
        "endsAt": alert["ended_at"] if ended else (now + LASTS).isoformat(),
    }


def trial(cluster: str, node: str, now: datetime) -> list[dict[str, Any]]:
    """An alert that only tries an Alertmanager, and ends by itself. Pure."""
    labels = {"alertname": "pgops_test", "severity": "info", "cluster": cluster, "node": node}
    post = {"labels": {name: value for name, value in labels.items() if value}}
    post["annotations"] = {"summary": "pgops can reach this Alertmanager. Nothing is wrong."}
    return [{**post, "startsAt": now.isoformat(), "endsAt": (now + timedelta(seconds=30)).isoformat()}]


def _name(text: str) -> str:
    """A label's name as Prometheus allows it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", text if re.match(r"[a-zA-Z_]", text) else f"_{text}")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Alerts go where they were meant to go, and nowhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Follow nothing."""


def send(url: str, found: Sequence[Mapping[str, Any]]) -> Outcome:
    """Tell an Alertmanager at ``url``, with a login if it has one. To tell the same twice does no harm."""
    parts = urlsplit(url)
    login, _at, place = parts.netloc.rpartition("@")
    path = f"{parts.path.rstrip('/')}/api/v2/alerts"
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(login).encode()).decode()}"
    if parts.scheme not in ("http", "https"):
        return Outcome(FAILED, "The address of an Alertmanager begins with http:// or https://.")
    opener = urllib.request.build_opener(NoRedirect)
    for first in range(0, len(found), AT_ONCE):
        body = json.dumps(found[first : first + AT_ONCE]).encode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is one of two
            urlunsplit((parts.scheme, place, path, "", "")), body, headers
        )
        try:
            opener.open(request, timeout=TIMEOUT).close()
        except urllib.error.HTTPError as error:
            answer = error.read(300).decode(errors="replace")
            return Outcome(FAILED, f"Alertmanager answered with status {error.code}: {answer}")
        except urllib.error.URLError as error:
            return Outcome(FAILED, f"Alertmanager cannot be reached: {error.reason}.")
        except (OSError, HTTPException) as error:
            return Outcome(AMBIGUOUS, f"Alertmanager did not answer: {type(error).__name__}: {error}.")
    return Outcome(SENT)
