# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The sections that the host's files answer: the agent of an instance, and its recurring jobs."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..alerting import facts as alerting
from ..errors import HostFailed, InvalidInput, PgOpsError
from ..host import commands, identity
from ..instance import configuration
from ..instance.layout import INSTANCE, Layout
from .answer import failed

NO_ACCESS = "needs root or the agent's user"
SYSTEMCTL_TIMEOUT = 5
WATCH = "watch"
"""The job that looks at what the server cannot say of itself."""
ASSIGNMENT = re.compile(r"^(Instance|Job|OnCalendar)=(.*)$", re.MULTILINE)
CRON_LINE = re.compile(
    r"^(?P<calendar>[0-9*@]\S*(?:[ \t]+\S+){4})[ \t]+\S+[ \t]+.*"
    r"/pgops(?:[ \t]+--(?:instance|prefix)[ \t]+\S+|[ \t]+--scheduled)*[ \t]+(?P<job>[a-z][a-z_-]*)",
    re.MULTILINE,
)


def installed(prefix: str) -> list[dict[str, Any]] | None:
    """The instances that an agent is configured for, even if their servers no longer exist, each with its cluster,
    port and peers, whether it has a password for the cluster's other nodes, and whether its original settings are
    recorded; None if that is not visible."""
    folder = Layout("any", prefix).configurations
    try:
        names = sorted(name for name in os.listdir(folder) if INSTANCE.match(name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None
    return [_installed(Layout(name, prefix)) for name in names]


def _installed(layout: Layout) -> dict[str, Any]:
    known = None
    with contextlib.suppress(PgOpsError):
        known = configuration.load(layout)
    return {
        "name": layout.instance,
        "cluster": known.cluster if known else None,
        "port": known.port if known else None,
        "peers": [f"{peer.host}:{peer.port}" for peer in known.peers] if known else None,
        "credential": exists(layout.passfile),
        "record": exists(layout.before),
    }


def remote(prefix: str) -> list[configuration.Configuration]:
    """The configurations of remote instances, as far as they can be read."""
    found = []
    for one in installed(prefix) or ():
        with contextlib.suppress(PgOpsError):
            found.append(configuration.load(Layout(one["name"], prefix)))
    return [one for one in found if one.host]


def user(instance: str, prefix: str) -> str | None:
    """The operating system's user of the instance's agent; None if there is none, or root cannot become it."""
    try:
        uid = os.stat(Layout(instance, prefix).state).st_uid if os.geteuid() == 0 else 0
        return pwd.getpwuid(uid).pw_name if uid else None
    except (InvalidInput, OSError, KeyError):
        return None


def exists(path: str) -> bool | None:
    """Whether a path exists; None if that is not visible."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    return True


def read(layout: Layout) -> dict[str, Any]:
    """The section ``agent``."""
    version = _version(layout)
    found: dict[str, Any] = {
        "version": version.split("-")[0] if version else None,
        "build": version,
        "configured": exists(layout.agent_file),
        "cluster": None,
        "node": None,
        "database": None,
        "peers": None,
        "repository": None,
        "collectors": _names(os.path.join(layout.current, "pgops", "sql", "collectors")),
        "own_collectors": _names(layout.collectors),
        "spooled_bytes": _size(os.path.join(layout.state, "spool.jsonl")),
        "error": None,
        "hidden": {},
    }
    if found["configured"]:
        try:
            present = configuration.load(layout)
        except HostFailed:
            found["hidden"].update(dict.fromkeys(("cluster", "node", "database", "peers", "repository"), NO_ACCESS))
        else:
            found.update(cluster=present.cluster, node=present.node, database=present.database)
            found["repository"] = present.repository or None
            found["peers"] = [f"{peer.host}:{peer.port}" for peer in present.peers]
    unseen = [key for key in ("configured", "own_collectors", "spooled_bytes") if found[key] is None]
    found["hidden"].update(dict.fromkeys(unseen, NO_ACCESS))
    return found


def _version(layout: Layout) -> str | None:
    """The name of the version that the link is switched to."""
    try:
        return os.path.basename(os.readlink(layout.current))
    except OSError:
        return None


def _names(folder: str) -> list[str] | None:
    """Names of the collectors in a folder; None if it is not visible."""
    try:
        return sorted(name[:-4] for name in os.listdir(folder) if name.endswith(".sql"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None


def _size(path: str) -> int | None:
    """Bytes of a file, 0 if there is none; None if it is not visible."""
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError:
        return None


# --- jobs


def jobs(layout: Layout) -> dict[str, Any]:
    """The section ``jobs``."""
    found = _timers(layout)
    names = [f"{job['unit']}.{suffix}" for job in found for suffix in ("timer", "service")]
    states = _states(names) if names and os.path.isdir("/run/systemd/system") else {}
    listed = [_state(job, states) for job in found] + _cron(layout)
    watch, hidden = _watch(layout) if any(job["name"] == WATCH for job in listed) else (None, {})
    return {"list": sorted(listed, key=lambda job: str(job["name"])), "watch": watch, "error": None, "hidden": hidden}


def _watch(layout: Layout) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """What the watch remembers, read as its user, whose directory it is; None, and why, where that is not visible."""
    try:
        uid = os.stat(layout.state).st_uid
        if os.geteuid() not in (0, uid):
            return None, {"watch": NO_ACCESS}
        # Where the directory is root's own, so is the watch.
        return (identity.as_user(uid, lambda: alerting.watch(layout)) if uid else alerting.watch(layout)), {}
    except PermissionError:
        return None, {"watch": NO_ACCESS}
    except (HostFailed, OSError) as error:
        return None, {"watch": str(error)}


def _timers(layout: Layout) -> list[dict[str, Any]]:
    """Our timers of the instance. The unit names its instance: the names of two instances can start alike."""
    found = []
    for path in sorted(
        glob.glob(os.path.join(glob.escape(layout.units), f"pgops-{glob.escape(layout.instance)}-*.timer"))
    ):
        with open(path, encoding="utf-8", errors="replace") as file:
            fields = dict(ASSIGNMENT.findall(file.read()))
        if fields.get("Instance") == layout.instance:
            unit = os.path.basename(path)[: -len(".timer")]
            found.append({"unit": unit, "name": fields.get("Job"), "calendar": fields.get("OnCalendar")})
    return found


def _states(units: Iterable[str]) -> dict[str, dict[str, str]]:
    """What systemd knows of units, by their names, from one call.

    Raises HostFailed.
    """
    times = "ExecMainExitTimestampMonotonic,InactiveEnterTimestampMonotonic"
    properties = f"--property=Id,ActiveState,Result,ExecMainStatus,{times}"
    shown = commands.run(["systemctl", "show", properties, "--", *units], timeout=SYSTEMCTL_TIMEOUT)
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in shown.split("\n\n")]
    return {block["Id"]: block for block in blocks if "Id" in block}


def _state(job: dict[str, Any], states: dict[str, dict[str, str]]) -> dict[str, Any]:
    timer, service = (states.get(f"{job['unit']}.{suffix}", {}) for suffix in ("timer", "service"))
    # While it runs, systemd no longer knows the result of the previous run, only when that ended.
    running = service.get("ActiveState") in {"activating", "active", "deactivating"}
    ended = int(service.get("ExecMainExitTimestampMonotonic") or 0)
    idle_since = ended or int(service.get("InactiveEnterTimestampMonotonic") or 0)
    return {
        "name": job["name"],
        "backend": "systemd",
        "calendar": job["calendar"],
        "active": timer["ActiveState"] == "active" if timer else None,
        "running": running if service else None,
        "last_run_age_s": max(0, round(time.monotonic() - idle_since / 1e6)) if idle_since else None,
        "last_result": service.get("Result") if ended else None,
        "last_exit_code": int(service.get("ExecMainStatus") or 0) if ended else None,
    }


def _cron(layout: Layout) -> list[dict[str, Any]]:
    """Our jobs in the instance's crontab; cron keeps no record of runs."""
    try:
        with open(layout.crontab, encoding="utf-8", errors="replace") as file:
            lines = CRON_LINE.finditer(file.read())
    except OSError:
        return []
    unknown = dict.fromkeys(("running", "last_run_age_s", "last_result", "last_exit_code"))
    return [
        {"name": line["job"], "backend": "cron", "calendar": line["calendar"], "active": None, **unknown}
        for line in lines
    ]


READERS: dict[str, Callable[[Layout], dict[str, Any]]] = {"agent": read, "jobs": jobs}


def section(name: str, instance: str, prefix: str) -> dict[str, Any]:
    """One of the sections of READERS, with what failed in it as its error."""
    try:
        return READERS[name](Layout(instance, prefix))
    except PgOpsError as error:
        return failed(error)
    except OSError as error:
        return failed(HostFailed(str(error)))
