# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The addresses of channels as the inventory declares them, and the host's file that keeps them. They are secrets:
nothing that is shown has a part of one."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .. import spelling
from ..errors import Conflict, InvalidInput
from ..host import files
from ..host.files import EntryChange, File, Found, PathRemoval
from ..instance.layout import Layout
from . import channels
from .channels import FORMAT, NAME, Channel
from .routing import Routes

SOURCE = "inventory"
"""What marks, in the file, the channels that are not somebody's own."""


@dataclass(frozen=True)
class Wanted:
    """What a host's file is to have of the inventory, and whose it is: the names of user and group are None where no
    host is its own (another prefix than /)."""

    layout: Layout
    channels: Mapping[str, Channel] = field(default_factory=dict)
    user: str | None = None
    group: str | None = None


def declared(given: Any, routes: Routes) -> dict[str, Channel]:
    """The channels with addresses, ``{CHANNEL: {TARGET: URL}}``, each of a kind that ``routes`` say.

    Raises InvalidInput, without a part of an address.
    """
    if not isinstance(given, Mapping):
        raise InvalidInput("addresses is not a mapping of channels to their targets.")
    unknown = spelling.unknown(map(str, given), set(routes))
    if unknown:
        raise InvalidInput(f"There are addresses of channels that are not declared: {unknown}.")
    return {str(name): _channel(str(name), routes[str(name)].kind, targets) for name, targets in given.items()}


def _channel(name: str, kind: str, targets: Any) -> Channel:
    if not isinstance(targets, Mapping) or not targets:
        raise InvalidInput(f"The addresses of channel {name} are not a mapping of targets to URLs.")
    for target, url in targets.items():
        if not NAME.match(str(target)):
            raise InvalidInput(f"A target of channel {name} has a name that cannot be used.")
        _check(f"The address {target} of channel {name}", kind, url)
    return Channel(name, kind, {str(target): str(url) for target, url in targets.items()})


def _check(what: str, kind: str, url: Any) -> None:
    if not isinstance(url, str) or "://" not in url or not url.isprintable():
        raise InvalidInput(f"{what} is not a URL.")
    if kind != "alertmanager":
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(f"{what} is not that of an Alertmanager.", "It begins with http:// or https://.")


def refuse_unknown_services(found: Mapping[str, Channel]) -> None:
    """Refuse addresses that Apprise has no service for, where it is installed for this Python.

    Raises InvalidInput.
    """
    apprise = [one for one in found.values() if one.kind == "apprise"]
    if not apprise or importlib.util.find_spec("apprise") is None:
        return
    from .senders import is_known  # only now: Apprise takes a second to load

    for channel in apprise:
        for target, url in channel.targets.items():
            if not is_known(url):
                raise InvalidInput(
                    f"Apprise knows no service for the address {target} of channel {channel.name}.",
                    "https://github.com/caronc/apprise lists its services and how each is written.",
                )


# --- the file


def refuse_without_agent(wanted: Wanted) -> None:
    """Refuse addresses on a host that has no agent for the instance, which would send to them.

    Raises Conflict.
    """
    if wanted.channels and not os.path.isdir(wanted.layout.configuration):
        raise Conflict(
            f"There is no agent of instance {wanted.layout.instance} to send notifications: "
            f"{wanted.layout.configuration} is missing.",
            "Run pg_ops_agent (the role pgops_agent) first.",
        )


def read(wanted: Wanted) -> Found | None:
    """The present file.

    Raises HostFailed.
    """
    return files.read(wanted.layout.channels)


def plan(wanted: Wanted, present: Found | None) -> tuple[EntryChange | PathRemoval, ...]:
    """What gives the file the channels of the inventory. Those that somebody else has written stay; where nothing is
    left, it is removed. Pure.

    Raises InvalidInput where the present file cannot be understood, Conflict where it is none.
    """
    path = wanted.layout.channels
    every, own = _written(present, path), _own(present, path)
    ours = {
        name: {"kind": one.kind, "source": SOURCE, "targets": dict(sorted(one.targets.items()))}
        for name, one in sorted(wanted.channels.items())
        if name not in own
    }
    if not ours and len(own) == len(every):
        return ()  # nothing of it is ours, not even how it is written
    if not own and not ours:
        return files.removal([path], {path: present})
    document = {"format": FORMAT, "channels": {**own, **ours}}
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return files.plan([File(path, text.encode(), 0o600, wanted.user, wanted.group, secret=True)], {path: present})


def overruled(wanted: Wanted, present: Found | None) -> tuple[str, ...]:
    """A warning of channels of the inventory that somebody has written into the file."""
    both = sorted(set(_own(present, wanted.layout.channels)) & set(wanted.channels))
    if not both:
        return ()
    path = wanted.layout.channels
    return (f"Channels that somebody has written into {path} stay as they are there: {', '.join(both)}.",)


def _own(present: Found | None, path: str) -> dict[str, Any]:
    """The channels in the file that are not the inventory's, as they are written."""
    return {
        name: one
        for name, one in _written(present, path).items()
        if not isinstance(one, dict) or one.get("source") != SOURCE
    }


def _written(present: Found | None, path: str) -> dict[str, Any]:
    if present is None or present.kind != "file":
        return {}
    try:
        text = present.content.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8.") from None
    channels.parse(text, path)  # refuses what is no such file
    return dict(json.loads(text)["channels"])
