# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The systemd unit that runs a server, and whether it can be restarted."""

from __future__ import annotations

import contextlib
import os

from ..errors import Conflict
from ..host import systemd

RUNNING = ("active", "activating", "reloading", "refreshing")
"""States of a unit whose processes belong to it."""
REFUSALS = {"RefuseManualStop": "yes", "RefuseManualStart": "yes", "CanStop": "no", "CanStart": "no"}
"""Properties of a unit that is not restarted by hand."""


def holding(process: int) -> tuple[str, str]:
    """The unit whose restart restarts a server, by its postmaster: a server is its main process, or was started by
    that (a wrapper), or the unit has none. And why none does, where the server is in a unit all the same.

    Both are empty for a server that was started by hand, in the session of a user, and without systemd.
    """
    text = _cgroup(process)
    found = systemd.units_of(text) if systemd.booted() else ()
    if not found or found[-1].endswith(".scope"):
        return "", ""
    unit = found[0]
    if found[-1] != unit:
        return "", f"The server is in {found[-1]}, a unit of the user's own manager {unit}."
    state = systemd.properties(unit, "MainPID", "ActiveState")
    return unit_of(unit, state, process, text)


def unit_of(unit: str, state: dict[str, str], process: int, cgroup: str) -> tuple[str, str]:
    """The same for the unit in whose cgroup the server is, with its properties."""
    main = int(state.get("MainPID") or 0)
    if main == process:
        return unit, ""
    if state.get("ActiveState") not in RUNNING:
        return "", f"The server is in the cgroup of {unit}, which is {state.get('ActiveState')}."
    if main == 0:
        return unit, ""
    starters = ancestors(process)
    if main not in starters:
        return (
            "",
            f"The server is in the cgroup of {unit}, whose main process ({name(main)}) did not start it.",
        )
    others = strangers(process, starters, cgroup)
    if others:
        return "", f"The unit {unit} does not only run the server, but also {', '.join(others)}."
    return unit, ""


def ancestors(process: int) -> list[int]:
    """The processes that started a process, its parent first."""
    found: list[int] = []
    while process > 1:
        process = _parent(process)
        found.append(process)
    return found


def strangers(process: int, starters: list[int], cgroup: str) -> list[str]:
    """The names of processes in a cgroup that neither belong to a server nor to what started it."""
    known = {name(one) for one in starters}
    pids = [int(word) for word in os.listdir("/proc") if word.isdigit()]
    inside = [one for one in pids if one != process and one not in starters and _cgroup(one) == cgroup]
    return sorted({name(one) for one in inside if process not in ancestors(one)} - known - {""})


def name(process: int) -> str:
    """The name of a process; empty if it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
    return ""


def _parent(process: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def _cgroup(process: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{process}/cgroup", encoding="utf-8") as file:
        return file.read()
    return ""


def runs(unit: str) -> bool:
    """Whether a unit has been started and has not ended. Raises HostFailed."""
    return systemd.properties(unit, "ActiveState").get("ActiveState") in RUNNING


def check(unit: str) -> None:
    """Whether systemd would stop and start a unit.

    Raises Conflict and HostFailed.
    """
    wanted = ("LoadState", "UnitFileState", "CanStart", "CanStop", "RefuseManualStart", "RefuseManualStop")
    why = refusal(systemd.properties(unit, *wanted))
    if why:
        raise Conflict(
            f"systemd would not restart the unit {unit}: {why}.",
            f"Look at systemctl status {unit}, or set restart=never.",
        )


def refusal(state: dict[str, str]) -> str:
    """Why systemd refuses to restart a unit with these properties; empty if it does not. Pure."""
    if "masked" in state.get("UnitFileState", "") or state.get("LoadState") == "masked":
        return "it is masked"
    if state.get("LoadState", "loaded") != "loaded":
        return f"its file is {state['LoadState']}"
    for one, value in REFUSALS.items():
        if state.get(one) == value:
            return f"{one}={value}"
    return ""
