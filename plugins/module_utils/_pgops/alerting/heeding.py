# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the ops database and the watch on a host let each other know, by the job `notify`: what the watch has told
already, which nobody is told a second time, and what users have chosen of channels and silences."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from ..errors import HostFailed, QueryFailed
from ..instance.layout import Layout
from ..instance.sink import Sink
from . import choices, ledger
from .choices import Channel, Choices, Silence
from .courses import RESOLVED

STALE = 300.0
"""Seconds after the watch's last look, after which what it tells may be over."""
HEED = "SELECT pgops.heed_watch(%s, %s, %s::jsonb)"
CHANNELS = """
SELECT c.channel, c.is_enabled AS enabled, c.is_default AS "default", c.severities, c.labels, c.send_resolved,
       extract(EPOCH FROM c.repeat_interval)::float8 AS repeat
FROM pgops.notification_channels AS c
"""
AHEAD = """
SELECT s.labels, extract(EPOCH FROM s.begins_at)::float8 AS begins, extract(EPOCH FROM s.ends_at)::float8 AS ends
FROM pgops.silences_ahead('2 days') AS s ORDER BY s.begins_at LIMIT 1000
"""


def exchange(sink: Sink, layout: Layout) -> list[str]:
    """Let both know; what did not work."""
    try:
        with sink.transaction():
            node = sink.node
            sink.session.value(HEED, [node.cluster, node.name, json.dumps(told(layout))])
        found = Choices(
            {row.pop("channel"): Channel(**row) for row in sink.session.rows(CHANNELS)},
            [Silence(**row) for row in sink.session.rows(AHEAD)],
        )
    except QueryFailed as error:
        return [f"the ops database and the watch cannot let each other know: {error}"]
    with contextlib.suppress(HostFailed, OSError):  # on a full disk the watch has what it knew before
        choices.remember(layout.choices, found)
    return []


def told(layout: Layout) -> list[dict[str, Any]]:
    """The watch's alerts that somebody was told of: those that fire, unless it has not looked lately, and with their
    times those that have ended within a day, which rules that are evaluated later may fire for."""
    book = ledger.opened(layout)
    book.load()
    looks = book.looked is not None and abs(time.time() - book.looked) <= STALE
    return [
        {"rule": one.rule, "labels": dict(one.labels), "since": since, "until": one.ended_at}
        for one in book.alerts
        for since in [None if one.fires else one.fired_at]
        if one.told and (one.state == RESOLVED or (one.fires and looks))
    ]
