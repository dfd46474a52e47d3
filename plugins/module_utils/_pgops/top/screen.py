# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A picture as lines of a terminal. Pure; nothing of others reaches a line but by values.line()."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..alerting import shown
from .picture import ALERTS, BLOCKING, EVENTS, PROGRESS, SESSIONS, STATEMENTS, STORE, Picture, Section
from .tables import Column, table
from .values import clock, count, cut, line, percent, size, span

PLAIN, TITLE, FAINT, WARNING, BAD = "", "title", "faint", "warning", "bad"
"""How a line is meant."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """A line of the screen, and how it is meant."""

    text: str
    style: str = PLAIN


@dataclass(frozen=True)
class Part:
    """A section as it is drawn: its title, what it says if it is empty, its columns with the text of each, and how a
    row is meant."""

    title: str
    empty: str
    columns: Sequence[tuple[Column, Callable[[Row], str]]]
    style: Callable[[Row], str] = lambda _row: PLAIN


def _word(name: str) -> Callable[[Row], str]:
    return lambda row: line(row[name]) if row.get(name) not in (None, "", []) else ""


def _time(name: str) -> Callable[[Row], str]:
    return lambda row: span(row[name]) if row.get(name) is not None else ""


def _pid(row: Row) -> str:
    return "  " * min(int(row.get("depth") or 0), 8) + (str(row["pid"]) if row.get("pid") else "prepared")


def _state(row: Row) -> str:
    """The state of a session in few letters."""
    state = str(row.get("state") or row.get("type") or "")
    return line(
        state.replace("idle in transaction (aborted)", "idle in tx!").replace("idle in transaction", "idle in tx")
    )


def _query(row: Row) -> str:
    """The statement of a session; of prepared transactions, one or several, their names."""
    names = row.get("prepared") or ""
    return line(row.get("query") or (", ".join(names) if isinstance(names, list) else names))


def _lock(row: Row) -> str:
    """What a session waits for; who waits for nothing holds what others wait for."""
    mode = str(row.get("lock_mode") or "").replace("Lock", "")
    if not mode:
        held = row.get("holds") or []
        return line("holds " + ", ".join(str(one).replace("Lock", "") for one in held)) if held else ""
    return line(f"{mode} on {row.get('lock_type')} {row.get('relation') or ''}")


def _done(row: Row) -> str:
    return percent(row["percent"]) if row.get("percent") is not None else ""


def _alert_style(row: Row) -> str:
    return {"critical": BAD, "warning": WARNING}.get(str(row.get("severity")), PLAIN)


def _session_style(row: Row) -> str:
    if str(row.get("wait") or "").startswith("Lock:"):
        return BAD
    return WARNING if str(row.get("state") or "").startswith("idle in transaction") else PLAIN


WHO = (
    (Column("user", 5), _word("user")),
    (Column("database", 4), _word("database")),
    (Column("application", 7, 18), _word("application")),
)
PARTS: Mapping[str, Part] = {
    ALERTS: Part(
        "What fires",
        "nothing",
        (
            (Column("severity", 1, 8), _word("severity")),
            (Column("since", 2, 20), lambda row: clock(row["fired_at"])),
            (Column("value", 3, 24), lambda row: line(shown.condition(row))),
            (Column("alert", 1, 100), lambda row: line(shown.subject(row))),
        ),
        _alert_style,
    ),
    BLOCKING: Part(
        "Who waits for whom",
        "nobody waits for a lock",
        (
            (Column("pid", 1, 24), _pid),
            (Column("blocks", 4, 6, right=True), lambda row: str(row["blocks"]) if row.get("blocks") else ""),
            (Column("waits", 2, 6, right=True), _time("waits_seconds")),
            (Column("tx", 2, 6, right=True), _time("transaction_seconds")),
            (Column("state", 3, 11), _state),
            *WHO,
            (Column("lock", 6, 44), _lock),
            (Column("statement", 1, 1000), _query),
        ),
        lambda row: PLAIN if row.get("depth") else BAD,
    ),
    SESSIONS: Part(
        "Sessions",
        "none is active, waits, or has a transaction open",
        (
            (Column("pid", 1, 10), _pid),
            (Column("tx", 2, 6, right=True), _time("transaction_seconds")),
            (Column("stmt", 2, 6, right=True), _time("statement_seconds")),
            (Column("state", 3, 20), _state),
            *WHO,
            (Column("wait", 6, 28), _word("wait")),
            (Column("for", 8, 6, right=True), _time("state_seconds")),
            (Column("client", 9, 39), _word("client")),
            (Column("statement", 1, 1000), _query),
        ),
        _session_style,
    ),
    PROGRESS: Part(
        "Maintenance",
        "none is running",
        (
            (Column("pid", 1, 10), _pid),
            (Column("what", 1, 20), _word("operation")),
            (Column("done", 2, 6, right=True), _done),
            (Column("for", 3, 6, right=True), _time("seconds")),
            (Column("database", 4), _word("database")),
            (Column("phase", 5, 30), _word("phase")),
            (Column("relation", 1, 100), _word("relation")),
        ),
    ),
    STATEMENTS: Part(
        "Top statements of the 15 minutes before",
        "none",
        (
            (Column("total", 1, 7, right=True), lambda row: span(row["total_ms"] / 1000)),
            (Column("mean ms", 2, 10, right=True), lambda row: count(row["mean_ms"])),
            (Column("calls", 2, 12, right=True), lambda row: count(row["calls"])),
            (Column("rows", 4, 12, right=True), lambda row: count(row["rows"])),
            (Column("database", 3), lambda row: line(", ".join(row["databases"] or []))),
            (Column("statement", 1, 1000), _query),
        ),
    ),
    EVENTS: Part(
        "What changed within a day",
        "nothing",
        (
            (Column("at", 1, 20), lambda row: clock(row["at"])),
            (Column("kind", 2, 12), _word("kind")),
            (Column("node", 3, 24), _word("node")),
            (Column("what", 1, 1000), _word("text")),
        ),
    ),
}

FIRST = (BLOCKING, SESSIONS, ALERTS, PROGRESS, STATEMENTS, EVENTS)
"""Whose rows are shown first where there is no room for all."""

SORTS: Mapping[str, Callable[[Row], float]] = {
    "transaction": lambda row: -max(row.get("transaction_seconds") or 0.0, row.get("statement_seconds") or 0.0),
    "statement": lambda row: -(row.get("statement_seconds") or 0.0),
    "state": lambda row: -(row.get("state_seconds") or 0.0),
}
"""Orders of sessions, by what they are of, the longest first."""


def lines(picture: Picture, width: int, height: int | None = None, sort: str = "transaction") -> list[Line]:
    """A picture in lines of at most ``width`` columns, and at most ``height`` of them if it is given. Where
    there is room, sections are set apart."""
    top = head(picture, width)
    parts = {name: part(name, _sorted(name, section, sort), width) for name, section in picture.sections.items()}
    apart = [*top, *_apart(list(parts.values()))]
    if height is None or len(apart) <= height:
        return apart
    given = rooms({name: len(found) for name, found in parts.items()}, height - len(top))
    return [*top, *(one for name, found in parts.items() for one in found[: given[name]])][:height]


def _apart(parts: Sequence[Sequence[Line]]) -> list[Line]:
    """Sections with a blank line between them, but for those of one line that follow each other."""
    found: list[Line] = []
    before: Sequence[Line] = ()
    for one in parts:
        found += one if len(before) == len(one) == 1 else [Line(""), *one]
        before = one
    return found


def _sorted(name: str, section: Section, sort: str) -> Section:
    if name != SESSIONS:
        return section
    return Section(sorted(section.rows, key=SORTS[sort]), section.left_out, section.missing, section.note)


def part(name: str, section: Section, width: int) -> list[Line]:
    """The lines of a section: its title, the names of its columns, and its rows; one line where there are none."""
    kind = PARTS[name]
    if section.missing:
        return [Line(cut(f"{kind.title}: not known: {line(section.missing)}", width), FAINT)]
    note = f" ({line(section.note)})" if section.note else ""
    if not section.rows:
        return [Line(cut(f"{kind.title}: {kind.empty}{note}", width), WARNING if note and name == ALERTS else FAINT)]
    columns = [column for column, _text in kind.columns]
    texts = [[text(row) for _column, text in kind.columns] for row in section.rows]
    titles, *rows = table(columns, texts, width)
    total = len(section.rows) + section.left_out
    return [
        Line(cut(f"{kind.title}: {total}{note}", width), TITLE),
        Line(titles, FAINT),
        *(Line(text, kind.style(row)) for text, row in zip(rows, section.rows)),
        *([Line(cut(f"and {section.left_out} more", width), FAINT)] if section.left_out else []),
    ]


def rooms(wanted: Mapping[str, int], room: int) -> dict[str, int]:
    """How many of its lines each section has where there is no room for all: its title, which says how many rows it
    has, and then rows in turn.

    >>> rooms({SESSIONS: 8, BLOCKING: 5, EVENTS: 4}, 11)
    {'sessions': 4, 'blocking': 4, 'events': 3}
    """
    given = {name: min(lines, 1) for name, lines in wanted.items()}
    left = room - sum(given.values())
    turns = [name for name in FIRST if name in wanted]
    while turns and left > 0:
        for name in list(turns):
            more = 2 if given[name] == 1 else 1  # the names of columns say nothing without a row
            if more <= min(left, wanted[name] - given[name]):
                given[name] += more
                left -= more
            else:
                turns.remove(name)
    return given


def head(picture: Picture, width: int) -> list[Line]:
    """The first lines: which instance, how full, how busy, how far behind."""
    values = picture.head
    title = [
        line(f"{picture.node} ({picture.cluster})"),
        line(values.get("role") or "role not known"),
        *([f"PostgreSQL {line(values['version'])}"] if values.get("version") else []),
        *([f"up {span(values['uptime_seconds'])}"] if values.get("uptime_seconds") is not None else []),
        clock(picture.at),
    ]
    told = [Line(one, TITLE) for one in packed(title, width)]
    told += [Line(one) for one in packed([*_load(values), *_rates(values)], width)]
    told += [Line(one) for one in packed(_replication(values), width)]
    told += [Line(one, WARNING) for one in packed(_dangers(values), width)]
    if picture.source == STORE:
        told += [Line(one, FAINT) for one in packed([_age(values)], width)]
    return told


def packed(items: Sequence[str], width: int) -> list[str]:
    """Items in as many lines as they need, with blanks between them.

    >>> packed(["one", "two", "three"], 10)
    ['one   two', 'three']
    """
    found: list[str] = []
    for item in items:
        longer = f"{found[-1]}   {item}" if found else item
        if found and cut(longer, width) == longer:
            found[-1] = longer
        else:
            found.append(cut(item, width))
    return found


def _load(values: Row) -> list[str]:
    most = values.get("connections_max")
    used = values.get("connections_used_percent")
    of = f" of {most}" if most is not None else f" ({percent(used)})" if used is not None else ""
    states = (("active", "active"), ("idle_in_transaction", "idle in tx"), ("waiting_for_locks", "wait for locks"))
    return [
        f"connections {count(values.get('connections'))}{of}",
        *(f"{word} {count(values.get(name))}" for name, word in states),
    ]


def _rates(values: Row) -> list[str]:
    return [
        f"tx/s {count(values.get('transactions_per_second'))}",
        f"rollbacks/s {count(values.get('rollbacks_per_second'))}",
        f"cache {percent(values.get('cache_hit_percent'))}",
        f"rows read/s {count(values.get('rows_read_per_second'))}",
        f"written/s {count(values.get('rows_written_per_second'))}",
        f"temp/s {size(values.get('temp_bytes_per_second'))}",
        f"WAL/s {size(values.get('wal_bytes_per_second'))}",
    ]


def _replication(values: Row) -> list[str]:
    """What streams to it and from it; of the past, the worst of what was sampled."""
    found = [_standby(one) for one in values.get("standbys") or ()]
    receiver = values.get("receiver")
    if receiver:
        paused = ", paused" if receiver["paused"] else ""
        commit = receiver["last_commit_seconds"]
        last = f", last commit replayed {span(commit)} ago" if commit is not None else ""
        sender = f" from {line(receiver['sender'])}" if receiver["sender"] else ""
        found.append(
            f"receiver {line(receiver['status'])}{sender}, {size(receiver['lag_bytes'])} to replay{last}{paused}"
        )
    connected = values.get("standbys_connected")
    if connected is not None:
        lag, seconds = size(values.get("replication_lag_bytes")), span(values.get("replication_lag_seconds"))
        found.append(f"standbys {count(connected)}" + (f", at most {lag} and {seconds} behind" if connected else ""))
    if values.get("replay_lag_bytes") is not None:
        delay = span(values.get("replay_delay_seconds"))
        found.append(f"replay {size(values['replay_lag_bytes'])} and {delay} behind")
    return found


def _standby(one: Row) -> str:
    lag = f"{size(one['lag_bytes'])} behind" if one["lag_bytes"] is not None else "not replaying"
    seconds = f", {span(one['lag_seconds'])}" if one["lag_seconds"] is not None else ""
    return line(f"standby {one['application']}") + f" {line(one['state'])}, {lag}{seconds}"


WRAPAROUND, HORIZON = 50.0, 25.0
"""Percent from which on it is noteworthy how much of all transaction ids is used, and how old (in the ages that
autovacuum lets tables have) the oldest row version is that somebody holds: the first thresholds of their metrics."""


def _dangers(values: Row) -> list[str]:
    found = []
    if (values.get("wraparound_percent") or 0) >= WRAPAROUND:
        found.append(f"transaction ids {percent(values['wraparound_percent'])} used")
    horizon = values.get("horizon")
    if horizon and horizon["freeze_percent"] >= HORIZON:
        found.append(line(f"{horizon['holder']} {horizon['name']} holds back {count(horizon['xids'])} transactions"))
    if (values.get("xmin_horizon_percent") or 0) >= HORIZON:
        found.append(f"old row versions held back: {percent(values['xmin_horizon_percent'])} of the age for freezing")
    waits = values.get("longest_lock_wait_seconds")
    if waits:
        found.append(f"longest wait for a lock {span(waits)}")
    idle = values.get("longest_idle_in_transaction_seconds")
    if idle and idle >= 300:
        found.append(f"longest idle in transaction {span(idle)}")
    return found


def _age(values: Row) -> str:
    first, last = values.get("samples_from"), values.get("samples_to")
    if first is None or last is None:
        return "the store has no samples of the ten minutes before"
    return f"from the store: samples of {clock(first)} to {clock(last)}, rates of the five minutes before"
