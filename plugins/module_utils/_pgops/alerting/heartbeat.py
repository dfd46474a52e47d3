# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The heartbeat: a service outside that misses it tells that the host, its network or the watch is gone."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from ..secrecy import hidden
from ..terminal import shown
from . import alertmanager, senders, texts
from .channels import secrets
from .outcome import AMBIGUOUS, FAILED, SENT, Outcome
from .texts import Text

TIMEOUT = 10
"""Seconds."""


def beat(url: str, place: tuple[str, str]) -> Outcome:
    """Call a web address, or send a message to an address of Apprise; ``place`` is the cluster and the node."""
    if urlsplit(url).scheme in ("http", "https"):
        outcome = _called(url)
        return Outcome(outcome.word, shown(hidden(outcome.error, secrets(url)))[: senders.SHOWN])
    cluster, node = map(texts.escaped, place)
    return senders.send(url, Text(f"[ALIVE] {cluster} ({node})", "pgops watch has looked. Nothing is asked.", "info"))


def _called(url: str) -> Outcome:
    opener = urllib.request.build_opener(alertmanager.NoRedirect)
    try:
        opener.open(url, timeout=TIMEOUT).close()
    except urllib.error.HTTPError as error:
        return Outcome(FAILED, f"The heartbeat was answered with status {error.code}.")
    except urllib.error.URLError as error:
        return Outcome(FAILED, f"The heartbeat cannot be delivered: {error.reason}.")
    except (OSError, HTTPException, ValueError) as error:
        return Outcome(AMBIGUOUS, f"The heartbeat had no answer: {type(error).__name__}.")
    return Outcome(SENT)
