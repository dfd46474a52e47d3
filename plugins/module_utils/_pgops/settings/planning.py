# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server's settings as they are to be: what has to change, and whether a restart follows. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import Conflict, InvalidInput
from ..plan import Change, Plan, changes
from ..server import managers
from . import autoconf
from .controldata import AT_LEAST_THE_PRIMARYS
from .originals import Former, Formers
from .parameters import LISTS, Parameter, Value, elements, joined, merged
from .present import Current, Entry, same
from .writing import Restart, Setting, SettingChange

NOT_BY_ALTER_SYSTEM = ("allow_alter_system", "config_file", "data_directory", "external_pid_file")
SECRET = ("conninfo", "passphrase")
HIDDEN = "(hidden)"
SERVER = "server"
ARCHIVING = ("archive_mode", "archive_command", "archive_library")
"""What decides whether WAL leaves the server, and when it may forget it."""
PILES_UP = "archive_mode is on, and no archive_command is set any more: pg_wal grows until its disk is full."
STAYS = (
    "archive_command stays: archive_mode is on until the server has been restarted with it off, and without a "
    "command pg_wal would grow until its disk is full. So WAL goes on being archived. Run this again after the "
    "restart, or with if_required, which restarts the server."
)


@dataclass(frozen=True)
class Desired:
    """What is declared. ``restart``: the server may be restarted where a value needs it. ``replace_lists``: what is
    declared of a list of libraries is all that there is to be."""

    values: Mapping[str, Value] = field(default_factory=dict)
    restart: bool = False
    replace_lists: bool = False


@dataclass(frozen=True)
class SettingsPlan:
    """``deferred`` waits for the primary, and is not written; ``pending`` is what will wait for a restart at the end,
    as modules return it; ``restarts`` is the restart and why, empty where there is none. Of a removal, ``kept`` are
    the settings that cannot go back yet, and ``formers`` what is still to be known of them."""

    written: tuple[SettingChange, ...] = ()
    restarts: tuple[Restart, ...] = ()
    pending: tuple[dict[str, Any], ...] = ()
    deferred: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    formers: Formers = field(default_factory=dict)

    @property
    def plan(self) -> Plan[Change]:
        """As modules report it."""
        return changes(self.written, self.restarts, warnings=self.warnings)

    @property
    def settings(self) -> list[Setting]:
        """What is written, in its order."""
        return [change.setting for change in self.written]


def plan(current: Current, desired: Desired) -> SettingsPlan:
    """What brings a server's settings to what is desired. ``current`` has to know what ARCHIVING names, too.

    Raises InvalidInput for a value that the server would not take, Conflict where ALTER SYSTEM has not the last word,
    and Managed where another manager has.
    """
    wanted = {name: _wanted(current, desired, name) for name in desired.values}
    deferred = tuple(_deferred(current, setting) for setting in wanted.values() if _below_primary(current, setting))
    waiting = {found["name"].lower() for found in deferred}
    written = tuple(
        change
        for name, setting in wanted.items()
        if name.lower() not in waiting
        for change in _change(current, name, setting)
    )
    _refuse(current, written)
    piles_up = _piles_up(current, {name.lower(): setting for name, setting in wanted.items()}, desired.restart)
    warnings = (PILES_UP,) if piles_up and written else ()
    return _restarted(current, desired, SettingsPlan(written=written, deferred=deferred, warnings=warnings))


def removal(current: Current, formers: Formers, restart: bool) -> SettingsPlan:
    """What puts back what was there before, where the present value is still ours.

    ``current`` has to know what ARCHIVING names, too.
    """
    restored = {name: _restored(current, name, former) for name, former in formers.items()}
    changed_since = [
        f"{name} was changed since, and is left as it is." for name, one in restored.items() if one is None
    ]
    settings = {name: setting for name, setting in restored.items() if setting is not None}
    kept, piling_up = _kept(current, formers, settings, restart)
    for name in kept:
        del settings[name]
    waiting = [name for name, setting in settings.items() if _below_primary(current, setting)]
    written = [
        change
        for name, setting in settings.items()
        if name not in waiting
        for change in _change(current, name, setting)
    ]
    _refuse(current, written)
    made = SettingsPlan(
        written=tuple(written),
        deferred=tuple(_deferred(current, settings[name]) for name in waiting),
        warnings=(*changed_since, *piling_up),
        kept=kept,
        formers=_to_know(formers, settings, kept),
    )
    return _restarted(current, Desired(dict.fromkeys(formers), restart), made)


def _restored(current: Current, name: str, former: Former) -> Setting | None:
    """What a parameter goes back to; None for one that somebody has changed since."""
    present, parameter = current.automatic(name), current.parameter(name)
    if parameter.merges and present is not None:
        return _without(current, parameter, former, present)
    return Setting(parameter, former.before) if same(parameter, present, former.ours) else None


# --- archiving that ends


def _kept(
    current: Current, formers: Formers, settings: Mapping[str, Setting], restart: bool
) -> tuple[tuple[str, ...], list[str]]:
    """The command that has to stay until the server has been restarted without archive_mode, and what to say of it.

    With archive_mode on and no command, a server keeps all WAL in pg_wal, until the disk is full.
    """
    back = {name.lower(): setting for name, setting in settings.items()}
    if not _piles_up(current, back, restart):
        return (), []
    mode = back.get("archive_mode")
    configured = _after(current, mode) if mode else current.configured("archive_mode")
    if "archive_mode" not in map(str.lower, formers) and not _off(current, configured):
        return (), [PILES_UP]  # as it was before
    names = tuple(name for name in settings if name.lower() == "archive_command")
    return names, [STAYS]


def _piles_up(current: Current, back: Mapping[str, Setting], restart: bool) -> bool:
    """Whether the settings that go back leave a server that is to archive WAL, and is not told how."""
    mode = back.get("archive_mode")
    restarted = restart and mode is not None and _waits(current, mode.parameter, _after(current, mode))
    if _off(current, _after(current, mode) if mode and restarted else current.setting("archive_mode")):
        return False
    later = {name: _after(current, back[name]) if name in back else current.configured(name) for name in ARCHIVING}
    return bool(current.configured("archive_command")) and not (later["archive_command"] or later["archive_library"])


def _off(current: Current, value: str | None) -> bool:
    return not value or same(current.parameter("archive_mode"), value, "off")


def _to_know(formers: Formers, settings: Mapping[str, Setting], kept: Sequence[str]) -> Formers:
    """What is to be remembered for the removal that ends it: what was before what is kept, and that we had switched
    archive_mode on."""
    if not kept:
        return {}
    return {
        name: Former(former.before, former.before if name in settings else former.ours)
        for name, former in formers.items()
        if name in kept or name.lower() == "archive_mode"
    }


# --- one parameter


def _wanted(current: Current, desired: Desired, name: str) -> Setting:
    value, parameter = desired.values[name], current.parameter(name)
    _known(current, parameter)
    if value is None:
        return Setting(parameter, None)
    if not parameter.is_list:
        if isinstance(value, tuple):
            raise InvalidInput(f"{name} is no list.", "Give it one value.")
        parameter.meaning(value)
        return Setting(parameter, value)
    parameter.meaning(joined(value) if isinstance(value, tuple) else value)
    words = value if isinstance(value, tuple) else elements(value)
    if parameter.merges and not desired.replace_lists:
        words = merged(_words(current.configured(name)), words)
    lacking = [word for word in words if word in current.missing.get(name, ())]
    if lacking:
        raise InvalidInput(
            f"{name}: the server has no library {', '.join(lacking)}.",
            "Install the package that brings it on this host, or correct the name.",
        )
    return _list(current, parameter, words)


def _list(current: Current, parameter: Parameter, words: Sequence[str]) -> Setting:
    """A list to be written. ALTER SYSTEM writes an empty one as a list with one empty element, which no server starts
    with, so that it has to come from elsewhere."""
    if not words:
        other = current.entry(parameter.name, automatic=False)
        if other is not None and _words(other.value):
            raise Conflict(
                f"{parameter.name} cannot be emptied by ALTER SYSTEM, and {_place(other)} sets it to {other.value}.",
                "Take it out of there.",
            )
        return Setting(parameter, None)
    quoted = LISTS[parameter.name.lower()]
    return Setting(parameter, joined(words) if quoted else ", ".join(words), tuple(words) if quoted else None)


def _words(text: str | None) -> tuple[str, ...]:
    try:
        return elements(text or "")
    except ValueError:
        raise Conflict(f"{text!r} is configured, and no list of words.", "Correct it on the server first.") from None


def _known(current: Current, parameter: Parameter) -> None:
    name = parameter.name
    if name.lower() not in current.running and "." not in name:
        raise InvalidInput(
            f"PostgreSQL {current.version_num // 10000} has no parameter {name}.",
            "Correct its name; one of a library is written library.parameter.",
        )
    if parameter.context == "internal" or name.lower() in NOT_BY_ALTER_SYSTEM:
        raise InvalidInput(f"{name} cannot be changed by ALTER SYSTEM.", "Leave it out.")


def _change(current: Current, name: str, setting: Setting) -> list[SettingChange]:
    """The change that makes a parameter what it is to be, none where it is."""
    parameter, wanted = setting.parameter, setting.text
    running = current.running.get(name.lower())
    if running and running.source == "command line" and wanted is not None:
        if same(parameter, running.value, wanted):
            return []
        raise Conflict(
            f"{name} = {running.value} is given on the server's command line, which has the last word.",
            "Take it out where the server is started (postmaster.opts in the data directory shows how), or here.",
        )
    present = current.configured(name) if wanted is not None else current.automatic(name)
    if same(parameter, present, wanted):
        return []
    before, after = _shown(parameter, present), _shown(parameter, wanted)
    return [SettingChange(f"setting {parameter.name}", before, after, setting, running is not None)]


def _shown(parameter: Parameter, text: str | None) -> str | None:
    if text and any(word in parameter.name.lower() for word in SECRET):
        return HIDDEN
    return text


def _without(current: Current, parameter: Parameter, former: Former, present: str) -> Setting:
    """A list without what we added to it; whatever others have added since stays."""
    ours = set(_words(former.ours)) - set(_words(former.before))
    other = current.entry(parameter.name, automatic=False)
    if former.before is None and other is not None:
        ours -= set(_words(other.value))
    words = tuple(word for word in _words(present) if word not in ours)
    below = _words(other.value) if other else ()
    return Setting(parameter, None) if former.before is None and words == below else _list(current, parameter, words)


# --- standbys


def _below_primary(current: Current, setting: Setting) -> bool:
    """Whether a standby would have less than its primary. Where the primary's value is not known (over the network),
    what the standby runs with is taken for it."""
    name = setting.parameter.name.lower()
    if not current.in_recovery or name not in AT_LEAST_THE_PRIMARYS:
        return False
    wanted = setting.text if setting.text is not None else current.running[name].default
    least = current.primary.get(name, int(current.setting(name)))
    return wanted is not None and float(setting.parameter.meaning(wanted)) < least  # type: ignore[arg-type]


def _deferred(current: Current, setting: Setting) -> dict[str, Any]:
    name = setting.parameter.name.lower()
    return {
        "name": setting.parameter.name,
        "wanted": setting.text,
        "primary": current.primary.get(name),
        "running": current.setting(name),
    }


# --- what has the last word


def _refuse(current: Current, written: Sequence[SettingChange]) -> None:
    if not written:
        return
    # As they are shown: the command that is named must not tell a secret.
    managers.refuse_settings(
        current.manager, {change.setting.parameter.name: change.after or "null" for change in written}
    )
    allowed = current.running.get("allow_alter_system")
    if allowed and allowed.value == "off":
        raise Conflict(
            "The server does not allow ALTER SYSTEM (allow_alter_system = off).",
            f"Set by hand: {', '.join(change.setting.parameter.name for change in written)}; or allow it.",
        )
    broken = next((entry for entry in current.entries if _breaks(current, entry)), None)
    if broken is not None:
        raise Conflict(
            f"The server reads no settings again before {_place(broken)} is right: {broken.error}.",
            "Correct that line first.",
        )


def _breaks(current: Current, entry: Entry) -> bool:
    """Whether a line keeps the server from reading its files again. What only waits for a restart is told as an error
    in pg_file_settings, too."""
    if entry.error is None:
        return False
    if entry.name is None and entry.file is None:
        # A line that was taken out, and whose value runs until the restart (guc.c, ProcessConfigFileInternal).
        return not any(found.pending for found in current.running.values())
    found = current.running.get((entry.name or "").lower())
    return not (found and found.pending)


def _place(entry: Entry) -> str:
    return f"{entry.file}, line {entry.line}"


# --- restart


def _restarted(current: Current, desired: Desired, made: SettingsPlan) -> SettingsPlan:
    """The same with what waits for a restart in the end, and with the restart where it is allowed and needed."""
    pends = [name for name, found in current.running.items() if found.pending]
    waiting = {name: (current.configured(name), current.entry(name)) for name in pends}
    for setting in made.settings:
        name = setting.parameter.name.lower()
        waiting.pop(name, None)
        entry, value = _entry(current, setting), _after(current, setting)
        if _waits(current, setting.parameter, value):
            waiting[name] = (value, entry)
    pending = tuple(
        _pending(current.parameter(name), current.setting(name), *waiting[name]) for name in sorted(waiting)
    )
    if not (desired.restart and {name.lower() for name in desired.values} & set(waiting)):
        return replace(made, pending=pending)
    before = {one["name"]: one["running"] for one in pending}
    after = {one["name"]: one["configured"] for one in pending}
    return replace(made, pending=pending, restarts=(Restart(SERVER, before, after),))


def _pending(parameter: Parameter, running: str, configured: str | None, entry: Entry | None) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "running": _shown(parameter, parameter.human(running)),
        "configured": _shown(parameter, configured),
        "source": (f"{entry.file}:{entry.line}" if entry.line else entry.file) if entry else "default",
    }


def _entry(current: Current, setting: Setting) -> Entry | None:
    """The entry that counts once a setting is written."""
    name = setting.parameter.name
    if setting.text is None:
        return current.entry(name, automatic=False)
    return Entry(name, setting.text, os.path.join(current.data_directory, autoconf.NAME))


def _after(current: Current, setting: Setting) -> str | None:
    """The value that counts, at the latest after a restart, once a setting is written."""
    entry = _entry(current, setting)
    return entry.value if entry else _default(current, setting.parameter.name.lower())


def _waits(current: Current, parameter: Parameter, value: str | None) -> bool:
    """Whether a value comes into force with a restart only. What a library's parameter means is not known before it
    is loaded, which takes a restart itself."""
    if parameter.name.lower() not in current.running:
        return False
    return parameter.restarts and not same(parameter, value, current.setting(parameter.name))


def _default(current: Current, name: str) -> str | None:
    found = current.running.get(name)
    return found.default if found else None
