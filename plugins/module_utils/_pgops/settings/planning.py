# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plan the settings of a server: what must change, and whether a restart is needed. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .. import secrecy
from ..errors import Conflict, InvalidInput
from ..plan import Change, Plan, changes
from ..server import majors, managers
from . import autoconf
from .controldata import AT_LEAST_THE_PRIMARYS
from .originals import Original, Originals
from .parameters import LISTS, Parameter, Value, elements, joined, merged
from .present import Current, Entry, same
from .writing import Restart, Setting, SettingChange

NOT_BY_ALTER_SYSTEM = ("allow_alter_system", "config_file", "data_directory", "external_pid_file")
SERVER = "server"
ARCHIVING = ("archive_mode", "archive_command", "archive_library")
"""What decides whether WAL leaves the server, and when the server may delete it."""
PILES_UP = "archive_mode is on without an archive_command: pg_wal grows until the disk is full."
STAYS = (
    "archive_command stays until the server is restarted with archive_mode off; without a command pg_wal would fill "
    "the disk. WAL is still archived. Run this once more after the restart, or with if_required, which restarts the "
    "server."
)


@dataclass(frozen=True)
class Desired:
    """The declared settings. ``restart``: the server may be restarted if a value needs it. ``replace_lists``: lists
    of libraries contain only the declared ones."""

    values: Mapping[str, Value] = field(default_factory=dict)
    restart: bool = False
    replace_lists: bool = False


@dataclass(frozen=True)
class SettingsPlan:
    """``deferred`` waits for the primary, and is not written; ``pending`` is what will wait for a restart at the end,
    as modules return it; ``restarts`` is the restart and why, empty if there is none. In a removal, ``kept`` are the
    settings that cannot be restored yet, and ``originals`` what stays recorded of them."""

    written: tuple[SettingChange, ...] = ()
    restarts: tuple[Restart, ...] = ()
    pending: tuple[dict[str, Any], ...] = ()
    deferred: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    originals: Originals = field(default_factory=dict)

    @property
    def plan(self) -> Plan[Change]:
        """As modules report it."""
        return changes(self.written, self.restarts, warnings=self.warnings)

    @property
    def settings(self) -> list[Setting]:
        """The settings to be written, in order."""
        return [change.setting for change in self.written]


def plan(current: Current, desired: Desired) -> SettingsPlan:
    """The changes that give a server the desired settings. ``current`` must contain those of ARCHIVING, too.

    Raises InvalidInput for a value that the server would not accept, Conflict if something else overrides ALTER
    SYSTEM, and Managed if another manager controls the settings.
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
    warnings = (*majors.unknown(current.version_num // 10000), *((PILES_UP,) if piles_up and written else ()))
    return _restarted(current, desired, SettingsPlan(written=written, deferred=deferred, warnings=warnings))


def removal(current: Current, recorded: Originals, restart: bool) -> SettingsPlan:
    """The changes that restore the original settings, where the present value is still ours.

    ``current`` must contain those of ARCHIVING, too.
    """
    restored = {name: _restored(current, name, original) for name, original in recorded.items()}
    changed_since = [
        f"{name} was changed by somebody else and is not touched." for name, one in restored.items() if one is None
    ]
    settings = {name: setting for name, setting in restored.items() if setting is not None}
    kept, piling_up = _kept(current, recorded, settings, restart)
    for name in kept:
        del settings[name]
    waiting = [name for name, setting in settings.items() if _below_primary(current, setting)]
    later = {name: recorded[name] for name in waiting}
    written = [
        change
        for name, setting in settings.items()
        if name not in waiting
        for change in _change(current, name, setting)
    ]
    _refuse(current, written)
    planned = SettingsPlan(
        written=tuple(written),
        deferred=tuple(_deferred(current, settings[name]) for name in waiting),
        warnings=(*changed_since, *piling_up),
        kept=kept,
        originals={**_to_record(recorded, settings, kept), **later},
    )
    return _restarted(current, Desired(dict.fromkeys(recorded), restart), planned)


def _restored(current: Current, name: str, original: Original) -> Setting | None:
    """The original setting of a parameter; None if somebody else has changed it since."""
    present, parameter = current.automatic(name), current.parameter(name)
    if current.same(name, present, original.ours):
        words = _words(original.before) if parameter.merges else ()
        return _list(current, parameter, words) if words else Setting(parameter, original.before)
    return _without(current, parameter, original, present) if parameter.merges and present is not None else None


# --- archiving that ends


def _kept(
    current: Current, recorded: Originals, settings: Mapping[str, Setting], restart: bool
) -> tuple[tuple[str, ...], list[str]]:
    """The command that must stay until the server is restarted without archive_mode, and the warning.

    With archive_mode on and no command, a server keeps all WAL in pg_wal, until the disk is full.
    """
    back = {name.lower(): setting for name, setting in settings.items()}
    if not _piles_up(current, back, restart):
        return (), []
    ours = "archive_mode" in map(str.lower, recorded)
    if not ours and not _off(current, current.configured("archive_mode")):
        return (), [PILES_UP]  # as it was before
    names = tuple(name for name in settings if name.lower() == "archive_command")
    return names, [STAYS]


def _piles_up(current: Current, back: Mapping[str, Setting], restart: bool) -> bool:
    """Whether the restored settings leave a server with archive_mode on, but no command."""
    mode = back.get("archive_mode")
    restarted = restart and mode is not None and _waits(current, mode.parameter, _after(current, mode))
    if _off(current, _after(current, mode) if mode and restarted else current.setting("archive_mode")):
        return False
    later = {name: _after(current, back[name]) if name in back else current.configured(name) for name in ARCHIVING}
    return bool(current.configured("archive_command")) and not (later["archive_command"] or later["archive_library"])


def _off(current: Current, value: str | None) -> bool:
    return not value or same(current.parameter("archive_mode"), value, "off")


def _to_record(recorded: Originals, settings: Mapping[str, Setting], kept: Sequence[str]) -> Originals:
    """What stays recorded for the next removal: the originals of what is kept, and that we had switched archive_mode
    on."""
    if not kept:
        return {}
    return {
        name: Original(original.before, original.before if name in settings else original.ours)
        for name, original in recorded.items()
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
            raise InvalidInput(f"{name} is not a list.", "Use a single value.")
        parameter.meaning(value)
        _installed(current, name, (value,))
        return Setting(parameter, value)
    parameter.meaning(joined(value) if isinstance(value, tuple) else value)
    words = value if isinstance(value, tuple) else elements(value)
    if parameter.merges and not desired.replace_lists:
        words = merged(_words(current.configured(name)), words)
    _installed(current, name, words)
    return _list(current, parameter, words)


def _installed(current: Current, name: str, libraries: Sequence[str]) -> None:
    lacking = [word for word in libraries if word in current.missing.get(name, ())]
    if lacking:
        raise InvalidInput(
            f"{name}: library {', '.join(lacking)} was not found on the server.",
            "Install its package on this host, or correct the name.",
        )


def _list(current: Current, parameter: Parameter, words: Sequence[str]) -> Setting:
    """A list to be written. An empty one of those whose elements the server quotes is written only where a file, or
    the default, has some."""
    name = parameter.name.lower()
    quoted = LISTS[name]
    if words or not quoted:
        return Setting(parameter, joined(words) if quoted else ", ".join(words), tuple(words) if quoted else None)
    other = current.entry(name, automatic=False)
    below = _words(other.value if other is not None else _default(current, name))
    return Setting(parameter, "" if any(below) else None)


def _words(text: str | None) -> tuple[str, ...]:
    try:
        return elements(text or "")
    except ValueError:
        raise Conflict(
            f"The configured value {text!r} is not a list of words.", "Correct it on the server first."
        ) from None


def _known(current: Current, parameter: Parameter) -> None:
    name = parameter.name
    if name.lower() not in current.running and "." not in name:
        raise InvalidInput(
            f"PostgreSQL {current.version_num // 10000} has no setting {name}.",
            "Correct the name. Settings of a library are written library.name.",
        )
    if parameter.context == "internal" or name.lower() in NOT_BY_ALTER_SYSTEM:
        raise InvalidInput(f"{name} cannot be changed by ALTER SYSTEM.", "Remove it.")


def _change(current: Current, name: str, setting: Setting) -> list[SettingChange]:
    """The change that gives a parameter the wanted value; none if it has it."""
    parameter, wanted = setting.parameter, setting.text
    running = current.running.get(name.lower())
    if running and running.source == "command line" and wanted is not None:
        if current.same(name, running.value, wanted):
            return []
        raise Conflict(
            f"{name} = {_shown(parameter, running.value)} is set on the server's command line, which overrides all "
            "files.",
            "Remove it where the server is started (see postmaster.opts in the data directory), or here.",
        )
    present = current.configured(name) if wanted is not None else current.automatic(name)
    if current.same(name, present, wanted):
        return []
    before, after = _shown(parameter, present), _shown(parameter, wanted)
    return [SettingChange(f"setting {parameter.name}", before, after, setting, running is not None)]


def _shown(parameter: Parameter, text: str | None) -> str | None:
    return secrecy.setting(parameter.name, text, parameter.vartype)


def _without(current: Current, parameter: Parameter, original: Original, present: str) -> Setting:
    """A list without the elements that we added; those that others have added since stay."""
    ours = set(_words(original.ours)) - set(_words(original.before))
    other = current.entry(parameter.name, automatic=False)
    if original.before is None and other is not None:
        ours -= set(_words(other.value))
    words = tuple(word for word in _words(present) if word not in ours)
    below = _words(other.value) if other else ()
    return (
        Setting(parameter, None) if original.before is None and words == below else _list(current, parameter, words)
    )


# --- standbys


def _below_primary(current: Current, setting: Setting) -> bool:
    """Whether a standby would have less than its primary. If the primary's value is unknown (over the network), the
    standby's running value is used instead."""
    name = setting.parameter.name.lower()
    if not current.in_recovery or name not in AT_LEAST_THE_PRIMARYS:
        return False
    wanted = _after(current, setting)
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


# --- what overrides ALTER SYSTEM


def _refuse(current: Current, written: Sequence[SettingChange]) -> None:
    if not written:
        return
    # As they are shown: the command in the message must not contain a secret.
    managers.refuse_settings(current.manager, {change.setting.parameter.name: change.after for change in written})
    allowed = current.running.get("allow_alter_system")
    if allowed and allowed.value == "off":
        raise Conflict(
            "The server does not allow ALTER SYSTEM (allow_alter_system = off).",
            f"Set by hand: {', '.join(change.setting.parameter.name for change in written)}; or allow it.",
        )
    broken = next((entry for entry in current.entries if _breaks(current, entry)), None)
    if broken is not None:
        raise Conflict(
            f"The server does not reload its settings until {_place(broken)} is corrected: {broken.error}.",
            "Correct that line first.",
        )


def _breaks(current: Current, entry: Entry) -> bool:
    """Whether a line keeps the server from reloading its files. pg_file_settings shows an error also for what only
    waits for a restart."""
    if entry.error is None:
        return False
    if entry.name is None and entry.file is None:
        # A line that was removed, and whose value runs until the restart (guc.c, ProcessConfigFileInternal).
        return not any(found.pending for found in current.running.values())
    found = current.running.get((entry.name or "").lower())
    return not (found and found.pending)


def _place(entry: Entry) -> str:
    return f"{entry.file}, line {entry.line}"


# --- restart


def _restarted(current: Current, desired: Desired, planned: SettingsPlan) -> SettingsPlan:
    """The same with what will wait for a restart, and with the restart if it is allowed and needed."""
    pends = [name for name, found in current.running.items() if found.pending]
    configured = {name: (current.configured(name), current.entry(name)) for name in pends}
    waiting = {name: one for name, one in configured.items() if not current.chosen(name, one[0])}
    for setting in planned.settings:
        name = setting.parameter.name.lower()
        waiting.pop(name, None)
        entry, value = _entry(current, setting), _after(current, setting)
        if _waits(current, setting.parameter, value):
            waiting[name] = (value, entry)
    pending = tuple(
        _pending(current.parameter(name), current.setting(name), *waiting[name]) for name in sorted(waiting)
    )
    if not (desired.restart and {name.lower() for name in desired.values} & set(waiting)):
        return replace(planned, pending=pending)
    before = {one["name"]: one["running"] for one in pending}
    after = {one["name"]: one["configured"] for one in pending}
    return replace(planned, pending=pending, restarts=(Restart(SERVER, before, after),))


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
    """Whether a value needs a restart. The meaning of a library's parameter is unknown until the library is loaded,
    which needs a restart itself."""
    if parameter.name.lower() not in current.running:
        return False
    if not parameter.restarts or current.chosen(parameter.name, value):
        return False
    return not current.same(parameter.name, value, current.setting(parameter.name))


def future(current: Current, planned: SettingsPlan, name: str) -> str:
    """The value of a parameter at the next start, once a plan is carried out; '' for one that nobody has set."""
    found = current.running.get(name.lower())
    if found and found.source == "command line":
        return found.value
    setting = next((one for one in planned.settings if one.parameter.name.lower() == name.lower()), None)
    value = _after(current, setting) if setting else current.configured(name)
    return value if value is not None else current.setting(name)


def _default(current: Current, name: str) -> str | None:
    found = current.running.get(name)
    return found.default if found else None
