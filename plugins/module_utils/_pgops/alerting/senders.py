# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One message to one address. The only file that imports Apprise, which knows the services."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import HostFailed
from ..secrecy import hidden
from ..terminal import shown
from . import alertmanager
from .channels import Channel, secrets
from .outcome import AMBIGUOUS, FAILED, SENT, Outcome
from .texts import Text

TYPES = {"critical": "failure", "warning": "warning", "info": "info", "resolved": "success"}
"""Apprise's kinds of messages for severities."""
NOT_ARRIVED = re.compile(
    # The service's own no; a gateway's (502, 504) and a crash (500) come after it may have done its work.
    r"error=(?:4\d\d|503)\b|\((?:4|5)\d\d, b"
    # Nobody was spoken to.
    r"|refused|NameResolution|Name or service not known|getaddrinfo|name resolution|ConnectTimeout|connect timeout"
    r"|Network is unreachable|No route to host|CERTIFICATE_VERIFY_FAILED|There are no service",
    re.IGNORECASE,
)
ARRIVED = re.compile(r"\bSent\b")
SHOWN = 300
"""Characters of an error."""


def load(channels: Iterable[Channel]) -> None:
    """Load what is needed to send to these channels, once for all processes that do.

    Raises HostFailed if Apprise is not installed.
    """
    for channel in channels:
        for url in channel.targets.values():
            if channel.kind == "apprise":
                _service(url)


def _apprise() -> Any:
    try:
        return importlib.import_module("apprise")
    except ImportError as error:
        raise HostFailed(
            f"Apprise, which sends notifications, cannot be imported: {error}.",
            "Install the package apprise of Debian, or of PyPI for the agent's Python.",
        ) from None


def _service(url: str) -> Any:
    """Apprise's object for an address; None if it has none."""
    apprise = _apprise()
    with _Heard():
        asset = apprise.AppriseAsset(app_id="pgops", app_desc="pgops", app_url="", async_mode=False)
        return apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)


def is_known(url: str) -> bool:
    """Whether Apprise has a service for an address.

    Raises HostFailed if it is not installed.
    """
    return _service(url) is not None


class _Heard(logging.Handler):
    """What Apprise says: it returns no more than whether all went well. Nobody else hears it, since it names
    addresses."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[tuple[int, str]] = []
        self.logger = logging.getLogger("apprise")
        self._before = (self.logger.level, self.logger.propagate)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))

    def __enter__(self) -> _Heard:
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.logger.addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(self._before[0])
        self.logger.propagate = self._before[1]


def send(url: str, text: Text) -> Outcome:
    """Send a text to an address of Apprise; without a deadline: the services have theirs, and callers end it."""
    apprise = _apprise()
    service = _service(url)
    if service is None:
        return Outcome(FAILED, "Apprise knows no service for this address.")
    with _Heard() as heard:
        sent = bool(
            service.notify(
                title=text.title,
                body=text.body,
                body_format=apprise.NotifyFormat.TEXT,
                notify_type=TYPES[text.severity],
            )
        )
    return Outcome(SENT) if sent else judged(heard.lines, url)


def judged(lines: Sequence[tuple[int, str]], url: str) -> Outcome:
    """What Apprise's log says of a failure, without the parts of the address. Pure."""
    said = [line for level, line in lines if level >= logging.WARNING or line.startswith("Socket Exception")]
    whole = "\n".join(said)
    partly = any(ARRIVED.search(line) for level, line in lines if level == logging.INFO)
    word = FAILED if NOT_ARRIVED.search(whole) and not partly else AMBIGUOUS
    return Outcome(word, shown(hidden(" ".join(said) or "Apprise gives no reason.", secrets(url)))[:SHOWN])


def tell(url: str, alerts: Sequence[Mapping[str, Any]]) -> Outcome:
    """Tell an Alertmanager."""
    outcome = alertmanager.send(url, alerts)
    return Outcome(outcome.word, shown(hidden(outcome.error, secrets(url)))[:SHOWN])
