# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The settings that our sessions have whatever a server, a database or a role has by default.

Most are parameters of the connection: they hold from its first moment, are what RESET goes back to, and no default is
stronger. What not all versions have, or only a superuser can set, follows when the session is open. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

PINNED: Mapping[str, str] = {
    # who, and what for
    "role": "none",
    "row_security": "on",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    # No commit of ours waits for a standby: if a synchronous one is lost it would wait forever; no timeout ends that.
    "synchronous_commit": "local",
    "password_encryption": "scram-sha-256",
    # how texts and values are written
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "quote_all_identifiers": "off",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "bytea_output": "hex",
    "DateStyle": "ISO,YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "xmlbinary": "base64",
    "xmloption": "content",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "client_min_messages": "warning",
    # An error ends its statement, and not the session.
    "exit_on_error": "off",
    # what is created, and where
    "default_tablespace": "",
    "temp_tablespaces": "",
    "default_table_access_method": "heap",
    "default_toast_compression": "pglz",
    "check_function_bodies": "on",
    "plpgsql.extra_errors": "none",
    "plpgsql.extra_warnings": "none",
    # how long: the statement's and the lock's are the target's
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # Sessions end within a minute after their client was cut off: each would use one of the role's few connections
    # for two hours. Without effect on a local socket.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""Of all versions, and free to all."""

NAMES: Mapping[str, str] = {"search_path": "pg_catalog,pg_temp"}
"""Which objects are meant."""

SWITCHES = (
    *("async_append", "bitmapscan", "hashagg", "hashjoin", "incremental_sort", "indexonlyscan", "indexscan"),
    *("material", "memoize", "mergejoin", "nestloop", "partition_pruning", "seqscan", "sort", "tidscan"),
)

PLANS: Mapping[str, str] = {
    **{f"enable_{name}": "on" for name in SWITCHES},
    "enable_partitionwise_aggregate": "off",
    "enable_partitionwise_join": "off",
    "constraint_exclusion": "partition",
    "cpu_index_tuple_cost": "0.005",
    "cpu_operator_cost": "0.0025",
    "cpu_tuple_cost": "0.01",
    "cursor_tuple_fraction": "0.1",
    "effective_cache_size": "4GB",
    "from_collapse_limit": "8",
    "geqo": "on",
    "geqo_effort": "5",
    "geqo_generations": "0",
    "geqo_pool_size": "0",
    "geqo_seed": "0",
    "geqo_selection_bias": "2",
    "geqo_threshold": "12",
    "hash_mem_multiplier": "2",
    "jit": "off",
    "join_collapse_limit": "8",
    # No worker of ours takes the place of a user's.
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "auto",
    "random_page_cost": "4",
    "seq_page_cost": "1",
    "work_mem": "4MB",
}
"""How statements are planned, each setting at the server's own default; those of parallel plans and of JIT
compilation have no effect without these."""

PLANS_SINCE: Mapping[str, tuple[int, str]] = {
    "recursive_worktable_factor": (15, "10"),
    "enable_presorted_aggregate": (16, "on"),
    "enable_group_by_reordering": (17, "on"),
    "enable_distinct_reordering": (18, "on"),
    "enable_self_join_elimination": (18, "on"),
    "enable_eager_aggregate": (19, "on"),
    "min_eager_agg_group_size": (19, "8"),
}
"""The same, of later versions."""

SINCE: Mapping[str, tuple[int, str]] = {
    "createrole_self_grant": (16, ""),
    "stats_fetch_consistency": (15, "cache"),
    "transaction_timeout": (17, "0"),
}
"""What later versions have, by name: the first version, and the value."""

ENDING = ("idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout")
"""What ends a session that had no time to pin it."""

BY_SUPERUSERS: Mapping[str, str] = {"lc_messages": "C", "session_replication_role": "origin"}
"""What only a superuser can set."""

EVENT_TRIGGERS = "event_triggers"
"""What only a superuser can set, from the first moment on: an event trigger on login runs before any statement of a
session, with the superuser's rights, and its function may be anybody's. It stays off for the session, since nothing
shows what it would be without us."""
EVENT_TRIGGERS_SINCE = 17
"""The first version that has it, and triggers on login."""

POOLER = "unsupported startup parameter"
"""What PgBouncer says to settings in the parameters of a connection, which every server takes."""

SHOWN = (
    *("synchronous_commit", "default_transaction_isolation", "default_transaction_read_only"),
    *("default_transaction_deferrable", "exit_on_error", "row_security", "idle_session_timeout"),
    *("idle_in_transaction_session_timeout", "standard_conforming_strings"),
    *("quote_all_identifiers", "bytea_output", "DateStyle", "IntervalStyle", "TimeZone", "extra_float_digits"),
    *("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"),
)
"""What a session needs that looks at settings. It sets them later on, so that their reset_val stays the server's; all
others are as the server has them."""

RESTRICTION = "restrict_nonsystem_relation_kind"
"""Some minor versions of all have it."""


def options(
    timeouts: Mapping[str, str],
    as_users: bool = False,
    as_is: bool = False,
    event_triggers: bool = True,
    major: int = 0,
    cut_short: bool = False,
) -> str:
    """The connection parameter ``options``, as libpq spells it. ``as_users``: names and plans are as users have them;
    ``as_is``: settings are shown as the server has them, but for those that have ``cut_short`` such a session;
    ``event_triggers``: they run as they do for others. ``major`` is the server's version, 0 if unknown.

    >>> options({"lock_timeout": "100"}, as_users=True).split(" -c ")[-1]
    'lock_timeout=100'
    """
    everything = {**PINNED, **({} if as_users else {**NAMES, **PLANS}), **since(major, SINCE)}
    kept = {"role", *(ENDING if cut_short else ())} if as_is else everything
    pinned = {name: value for name, value in everything.items() if name in kept}
    pinned.update(timeouts)
    pinned.update({} if event_triggers else {EVENT_TRIGGERS: "off"})
    return spelled(pinned)


def since(major: int, pinned: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    """What a version has that earlier ones lack.

    >>> since(16, SINCE)
    {'createrole_self_grant': ''}
    """
    return {name: value for name, (first, value) in pinned.items() if major >= first}


def spelled(pinned: Mapping[str, str]) -> str:
    """Settings as the connection parameter ``options`` has them.

    >>> spelled({"TimeZone": "UTC", "default_transaction_isolation": "read committed"})
    '-c TimeZone=UTC -c default_transaction_isolation=read\\\\ committed'
    """
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in pinned.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def unknown(words: str) -> bool:
    """Whether an error is about the parameters themselves: of a server that is too old to have one of them, or of a
    pooler, which takes none. In every language a server names it, in that language's quotes; the names that are also
    words are older than any server that answers."""
    return POOLER in words or any(name in words for name in {**PINNED, **NAMES, **PLANS} if "_" in name)


def newer(words: str) -> bool:
    """Whether an error is that this server is older than it was taken for: it names what it does not know."""
    return any(name in words for name in SINCE)


def cut_short(words: str) -> bool:
    """Whether a server has ended a session at its login by transaction_timeout: nothing else ends one so early."""
    return "due to transaction timeout" in words


def refused(words: str) -> bool:
    """Whether an error is that this server or this role cannot do without event triggers: in every language it names
    the parameter, in quotes of that language."""
    return EVENT_TRIGGERS in words


def opening(major: int, as_users: bool = False, as_is: bool = False) -> str:
    """The expressions, for a SELECT, that set the rest in an open session; ``as_users`` and ``as_is``: see options().

    Operators have their schema: they are looked up before any of this runs, in schemas that the owner of the database
    may have chosen.
    """
    free = {**NAMES, "jit": "off", **({name: PINNED[name] for name in SHOWN} if as_is else {})}
    free.update(since(major, SINCE))
    free.update({} if as_users or as_is else since(major, PLANS_SINCE))
    superuser = "pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on'"
    expressions = [_set(name, value) for name, value in free.items()]
    expressions += [f"CASE WHEN {superuser} THEN {_set(name, value)} END" for name, value in BY_SUPERUSERS.items()]
    present = f"pg_catalog.current_setting('{RESTRICTION}', true) IS NOT NULL"
    expressions += [f"CASE WHEN {present} THEN {_set(RESTRICTION, '')} END"]
    ascii_only = "pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'SQL_ASCII'"
    expressions += [f"CASE WHEN {ascii_only} THEN {_set('client_encoding', 'SQL_ASCII')} END"]
    return ", ".join(expressions)


def _set(name: str, value: str) -> str:
    return f"pg_catalog.set_config('{name}', '{value}', false)"
