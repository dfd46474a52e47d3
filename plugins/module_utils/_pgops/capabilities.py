# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each capability is, as data: its jobs, its own metrics, its part of the agent's configuration, its facts.

The agent's command and configuration, the schedule and the store's upkeep read it; playbooks and facts are tested
against it. A new capability is a package, a role, and an entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Flag:
    """An option of a job's command: a switch, or with ``value`` one that takes what that word stands for, or
    nothing; with ``many`` it can be given several times."""

    name: str
    help: str
    value: str = ""
    many: bool = False


@dataclass(frozen=True)
class Job:
    """Something that the agent does again and again, and people may run by hand: ``pgops NAME``.

    ``run`` is its function, as "package.file:function" below the library; it takes the configuration, the layout and
    the command's options, and returns what happened. ``calendar`` (OnCalendar of systemd), ``jitter`` and
    ``time_limit`` (seconds) are its schedule unless the inventory says otherwise, ``arguments`` what it is scheduled
    with. ``as_server``: the user that runs the server runs it, which a remote instance has not. ``locks``: the job
    itself keeps other runs out, in its own way. ``prints``: without --output its output is for other programs.
    ``stores``: it writes into the cluster's repository, and into the directory that the variable ``writes`` names, if
    any. ``background``: it gets a small share of the host, and no network but for an engine that needs it. ``cron``
    is the calendar under cron, which knows no seconds, '' for the same; ``switch`` as of a capability, '' for that of
    its own.
    """

    name: str
    run: str
    help: str
    calendar: str
    jitter: int = 0
    time_limit: int = 300
    arguments: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    as_server: bool = False
    locks: bool = False
    prints: bool = False
    stores: bool = False
    writes: str = ""
    background: bool = False
    cron: str = ""
    switch: str = ""


@dataclass(frozen=True)
class Command:
    """Something that people do by hand: ``pgops NAME``. It is not scheduled, and needs nothing of the agent's.

    ``run`` is its function as of a job; it takes the command's options, and returns the exit code.
    """

    name: str
    run: str
    help: str
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class Upkeep:
    """A function of the schema pgops that the job `maintain` calls; it returns a number, which the job reports."""

    function: str
    what: str
    """What cannot be done where it fails."""
    lost: str = ""
    """What is lost, of which there is that number; '' if it is what was to go."""


@dataclass(frozen=True)
class Option:
    """An option in the agent's configuration: its default, whose type is the option's, and the inventory's variable
    that sets it, '' for none. A remote instance has none that is ``local``."""

    default: Any
    variable: str = ""
    local: bool = False


@dataclass(frozen=True)
class Section:
    """A section of pg_ops_facts that the ops database answers: ``query`` gives one row with its keys. Without the
    schema they are as in absent(): nothing is known, ``lists`` are empty, and ``fixed`` are as they say."""

    name: str
    query: str
    values: tuple[str, ...]
    lists: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def absent(self) -> dict[str, Any]:
        """The section where there is no schema."""
        return {**dict.fromkeys(self.values), **{name: [] for name in self.lists}, **self.fixed}


@dataclass(frozen=True)
class Capability:
    """``name`` is its package, ``role`` the role that brings and removes it. ``switch`` is the inventory's variable
    that turns it on, '' for one that is always on, and ``unset`` what holds where the variable is not set.
    ``options`` are its part of the agent's configuration, with their defaults; ``metrics`` what its jobs measure of
    themselves, as headers of collectors without a query (docs/monitoring.md); ``facts`` its sections of pg_ops_facts;
    ``settings`` the server's parameters that it asks for."""

    name: str
    role: str
    switch: str = ""
    unset: bool = False
    jobs: tuple[Job, ...] = ()
    upkeep: tuple[Upkeep, ...] = ()
    metrics: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


AGENT = Capability(
    "agent",
    "pgops_agent",
    facts=("agent", "jobs"),
    metrics="""
-- collector: jobs
-- metric: job_duration_ms unit=ms
--   Time that the last run of a job took. The label job is its name, as in pgops NAME.
-- metric: job_errors category=availability
--   Errors in the last run of a job, also where it did the rest.
-- metric: job_age_seconds unit=s category=availability
--   Time since the last run of a job without an error; it grows while the job fails or does not run.
""",
)

METRICS = Capability(
    "metrics",
    "pgops_schedule",
    facts=("monitoring",),
    options={
        "collectors": Option({}, "pgops_collector_settings"),
        "retention": Option({}, "pgops_metric_retention"),
        "time_budget": Option(45.0),
        "spool_bytes": Option(32 * 1024 * 1024),
    },
    upkeep=(Upkeep("forget_excess_shapes", "series cannot be fitted into their space", "series"),),
    jobs=(
        Job(
            "collect",
            "metrics.job:collect",
            "run the collectors that are due, and store what they measure",
            "minutely",
            jitter=10,
            # Runs for 56 seconds if a collector has an interval below a minute; for ten minutes more while the
            # server is full. Within each minute it limits itself.
            time_limit=660,
            arguments=("--repeat",),
            flags=(Flag("--repeat", "run for a minute, and repeat collectors with a shorter interval"),),
            locks=True,
        ),
        Job(
            "maintain",
            "metrics.job:maintain",
            "create partitions, drop expired ones, and roll up hours",
            "hourly",
            jitter=600,
        ),
        Job(
            "inspect",
            "metrics.job:inspect",
            "run the collectors that read all data",
            "*:0/10",
            jitter=60,
            time_limit=290,
            as_server=True,
            locks=True,
        ),
        Job(
            "export",
            "metrics.job:export",
            "print the newest values for Prometheus",
            # After the collection of the minute.
            "*:*:30",
            time_limit=25,
            arguments=("--output",),
            flags=(
                Flag(
                    "--output",
                    "write to FILE instead of standard output; without FILE, to the one for node_exporter",
                    "FILE",
                ),
            ),
            locks=True,
            prints=True,
            cron="minutely",
            switch="pgops_textfile_directory",
        ),
    ),
    metrics="""
-- collector: agent
-- metric: collector_duration_ms unit=ms
--   Duration of a collector, over all databases; the mean of its runs within a minute.
-- metric: collector_errors category=availability
--   Number of databases or disks where a collector failed, in all its runs within a minute.
-- metric: collector_interval_seconds unit=s
--   Current interval of a collector that was slowed down (the longest one, if it runs inside databases), or that
--   the inventory has run at another one.
-- metric: samples_dropped kind=counter category=availability
--   Samples lost on the node since the agent was installed.
-- collector: login
-- metric: login_refused category=availability direction=above warning=0
--   1 if the server refused the agent a session, for whatever reason (all connections are taken, it starts or
--   stops, the role may not log in), 0 if it let it in. Delivered later, with its own time, if the server with
--   the ops database refuses the agent.
""",
)

STATEMENTS = Capability(
    "statements",
    "pgops_statements",
    switch="pgops_statements",
    options={
        "query_texts": Option(True, "pgops_query_texts"),
        "slow_query_ms": Option(1000.0, "pgops_slow_query_ms"),
        "explain": Option(False, "pgops_explain", local=True),
    },
    settings=("shared_preload_libraries", "pg_stat_statements.*", "track_io_timing", "compute_query_id"),
    upkeep=(
        Upkeep("forget_slow_queries", "old slow executions cannot be forgotten"),
        Upkeep("forget_unused_statements", "unused statements cannot be forgotten"),
        Upkeep("forget_excess_texts", "texts cannot be fitted into their space", "texts, slow executions and plans"),
    ),
    jobs=(
        Job(
            "queries",
            "statements.job:collect",
            "store what statements did since the last run",
            "*:0/5",
            jitter=30,
            time_limit=120,
        ),
    ),
    metrics="""
-- collector: queries
-- interval: 300
-- metric: statements_evicted unit=count kind=counter
--   Times that pg_stat_statements dropped its least used statements (5 % of them) to make space: raise
--   pgops_statements_max, or find the client that sends ever new texts. No value if the extension is older
--   than 1.9.
-- metric: query_coverage_percent unit=%
--   Time of the statements that are known, of the time that sessions were active, in the last interval of the
--   job queries; a lower bound. Low if roles or databases are not tracked, or statements were dropped.
""",
)

REPOSITORY = Capability(
    "repository",
    "pgops_archiving",
    switch="pgops_repository",
    facts=("archiving",),
    settings=("archive_mode", "archive_command", "archive_timeout", "restore_command", "wal_level"),
    jobs=(
        Job(
            "catalogue",
            "repository.job:catalogue",
            "note what is in the repository",
            "*:0/5",
            jitter=60,
            time_limit=290,
            as_server=True,
            flags=(Flag("--rebuild", "forget what is known, and look at every file"),),
        ),
    ),
)

BACKUP = Capability(
    "backup",
    "pgops_backup",
    switch="pgops_backup",
    facts=("backups",),
    options={
        "engine": Option("native", "pgops_backup_engine", local=True),
        "compression": Option("none", "pgops_backup_compression", local=True),
        "source": Option("primary", "pgops_backup_source", local=True),
        "incremental": Option(False, "pgops_backup_incremental", local=True),
        "unsafe_incremental": Option(False, "pgops_backup_unsafe_incremental", local=True),
        "full_interval_hours": Option(168.0, "pgops_backup_full_interval_hours", local=True),
        "max_rate_mb": Option(0.0, "pgops_backup_max_rate_mb", local=True),
        "retention": Option({}, "pgops_backup_retention", local=True),
        "dumps": Option({}, "pgops_backup_dumps", local=True),
        "bin_directory": Option("", "pgops_bin_directory", local=True),
        "hook_before": Option("", "pgops_backup_hook_before", local=True),
        "hook_after": Option("", "pgops_backup_hook_after", local=True),
        "verify_days": Option(7.0, "pgops_backup_verify_days", local=True),
    },
    jobs=(
        Job(
            "backup",
            "backup.job:backup",
            "take a backup",
            "*-*-* 01:30:00",
            jitter=1800,
            time_limit=172_800,
            as_server=True,
            stores=True,
            flags=(Flag("--type", "full, incremental, differential, or auto for the one that is due", "TYPE"),),
            switch="pgops_repository",
        ),
        Job(
            "dump",
            "backup.job:dump",
            "dump the databases that are declared and due",
            "*-*-* 03:30:00",
            jitter=1800,
            time_limit=172_800,
            as_server=True,
            stores=True,
            flags=(Flag("--database", "this database, whether it is due or not", "NAME", many=True),),
            switch="pgops_backup_dumps",
        ),
        Job(
            "expire",
            "backup.job:expire",
            "remove the backups and dumps that are no longer kept, and WAL that nobody needs",
            "*-*-* 05:30:00",
            jitter=1800,
            time_limit=86_400,
            as_server=True,
            stores=True,
            flags=(Flag("--dry-run", "only tell what would be removed, and how the recovery window would shrink"),),
            switch="pgops_repository",
        ),
        Job(
            "verify",
            "backup.job:verify",
            "verify all backups, dumps and WAL again; on schedule what is due",
            "*-*-* 06:30:00",
            jitter=3600,
            time_limit=172_800,
            as_server=True,
            stores=True,
            switch="pgops_repository",
        ),
        Job(
            "requests",
            "backup.job:requests",
            "take the backups, and do the expiry, that were asked for in SQL",
            "minutely",
            jitter=10,
            time_limit=172_800,
            as_server=True,
            stores=True,
            switch="pgops_repository",
        ),
    ),
)

RECOVERY = Capability(
    "recovery",
    "pgops_drill",
    switch="pgops_drill",
    options={
        "node": Option("primary", "pgops_drill_node", local=True),
        "interval_hours": Option(168.0, "pgops_drill_interval_hours", local=True),
        "directory": Option("", "pgops_drill_directory", local=True),
        "reserve_mb": Option(1024.0, "pgops_drill_reserve_mb", local=True),
        "minutes": Option(360.0, "pgops_drill_minutes", local=True),
        "max_load": Option(2.0, "pgops_drill_max_load", local=True),
        "amcheck": Option(True, "pgops_drill_amcheck", local=True),
        "shared_buffers": Option("64MB", "pgops_drill_shared_buffers", local=True),
        "assertions": Option({}, "pgops_drill_assertions", local=True),
    },
    jobs=(
        Job(
            "drill",
            "recovery.job:drill",
            "restore the newest backup to a directory of its own, check and measure that; on schedule if it is due",
            "*-*-* 07:30:00",
            jitter=3600,
            # It has a limit of its own, pgops_drill_minutes.
            time_limit=172_800,
            as_server=True,
            stores=True,
            writes="pgops_drill_directory",
            background=True,
            locks=True,
            flags=(Flag("--backup", "the name of another backup than the newest", "NAME"),),
            switch="pgops_backup",
        ),
    ),
)

ALERTING = Capability(
    "alerting",
    "pgops_alerting",
    switch="pgops_alerting",
    unset=True,
    facts=("alerts",),
    upkeep=(
        Upkeep("forget_alerts", "old alerts cannot be forgotten"),
        Upkeep("forget_scenes", "scenes of alerts cannot be forgotten"),
        Upkeep("forget_events", "old events cannot be forgotten"),
        Upkeep("forget_notifications", "old notifications cannot be forgotten"),
    ),
    jobs=(
        Job(
            "alerts",
            "alerting.job:alerts",
            "show what fires, or what became of an alert; on schedule evaluate the rules",
            # After the collection of the minute.
            "*:*:40",
            time_limit=55,
            arguments=("--evaluate",),
            flags=(
                Flag("--evaluate", "evaluate the rules, for each minute since that was done last"),
                Flag("--history", "show all that became of this alert", "ALERT"),
                Flag("--acknowledge", "note that you look after this alert, until it ends", "ALERT"),
                Flag("--note", "with --acknowledge: what others should know", "TEXT"),
                Flag("--all", "show those too that are pending, or ended within a day"),
                Flag("--prometheus", "print the rules of the cluster as a rule file of Prometheus"),
            ),
            locks=True,
            cron="minutely",
        ),
        Job(
            "notify",
            "alerting.job:notify",
            "tell channels what fires and what has ended",
            # After the rules were evaluated.
            "*:*:50",
            time_limit=58,
            flags=(Flag("--test", "only send a test message to this channel", "CHANNEL"),),
            locks=True,
            cron="minutely",
            # Only a host that has addresses can send.
            switch="pgops_alert_addresses",
        ),
        Job(
            "watch",
            "alerting.watch:watch",
            "see from the host what the server cannot say of itself, and tell it without the server",
            "*:*:20",
            # A channel that hangs takes 20 seconds, and a look at something that does up to 40.
            time_limit=90,
            flags=(Flag("--status", "only show what the watch knows, and whom it has told"),),
            locks=True,
            cron="minutely",
        ),
    ),
    metrics="""
-- collector: derived
-- metric: collector_late_ratio category=availability
--   Time since a collector last ran without an error, in intervals of its own. Where nothing of a node is collected
--   any more, only its collector "agent" (or "inspect") is late. No value for a collector that was switched off.
-- metric: cache_hit_recent_percent unit=%
--   Share of block reads served by shared_buffers in the last five minutes, by database. No value below 10,000.
-- metric: rollback_recent_percent unit=% category=availability
--   Share of transactions that were rolled back in the last five minutes, by database. No value below 100.
-- metric: checkpoints_requested_percent unit=%
--   Share of checkpoints in the last half hour that checkpoint_timeout did not start. No value below three.
-- metric: disk_full_in_seconds unit=s category=capacity
--   Time until a disk is full if it fills as in the last hour; at most 30 days, also where it does not fill.
-- metric: replication_lag_not_shrinking_bytes unit=bytes category=availability
--   replication_lag_bytes of a standby where it is not less than some minutes ago, else 0.
-- metric: slot_unused category=availability
--   1 for a replication slot that nobody uses, else 0. On a standby only for slots that were used within a day: those
--   that are kept there for a failover are unused by intent.
-- metric: standby_surplus category=availability
--   Connected standbys of the cluster minus those that are expected; negative if some are missing. No value where
--   pgops_expected_standbys is not known.
""",
)

OPSDB = Capability("opsdb", "pgops_monitoring", facts=("schema",))

SETTINGS = Capability("settings", "pgops_settings", switch="pgops_settings")

ALL = (AGENT, OPSDB, METRICS, ALERTING, STATEMENTS, REPOSITORY, BACKUP, RECOVERY, SETTINGS)

REMOVAL = (METRICS, STATEMENTS, BACKUP, RECOVERY, ALERTING, OPSDB, REPOSITORY, SETTINGS, AGENT)
"""The order in which all are removed: jobs first, and last the program that archives until a restart."""

RESTORE = Command(
    "restore",
    "recovery.job:restore",
    "restore a backup, and recover it to a moment (docs/recovery.md)",
    flags=(
        Flag("--time", "to a time with its zone: '2026-11-29 15:30:00+01:00'", "TIME"),
        Flag("--lsn", "to an LSN", "LSN"),
        Flag("--name", "to a restore point", "NAME"),
        Flag("--xid", "to the end of a transaction", "XID"),
        Flag("--immediate", "to the end of the newest backup"),
        Flag("--latest", "to the newest moment"),
        Flag("--exclusive", "to just before the time, LSN or transaction"),
        Flag("--timeline", "on this timeline and not on the cluster's own", "NUMBER"),
        Flag("--to", "into a new or empty directory", "DIRECTORY"),
        Flag("--in-place", "into the directory of the stopped server; its old data is moved aside", "DIRECTORY"),
        Flag("--tablespace", "a tablespace's directory, and where it goes; for each", "OLD=NEW", many=True),
        Flag("--end", "what becomes of the server: promote (the default), paused or shutdown", "STATE"),
        Flag("--port", "a port for the copy on localhost; without one it has a socket in its directory only", "PORT"),
        Flag("--preload", "the libraries of the copy, '' for none; without it those that do no work", "A,B"),
        Flag("--shared-buffers", "of the copy; without it the original's, or what the memory allows", "SIZE"),
        Flag("--plan", "only say what would be done"),
        Flag("--json", "say it for programs"),
        Flag("--repository", "the cluster's repository; without it that of the instance", "DIRECTORY"),
        Flag("--generation", "the generation in it, if there are several", "NAME"),
        Flag("--bin-directory", "the programs of the server's version, if they are nowhere usual", "DIRECTORY"),
        Flag("--server-bin-directory", "those that run the server, if they are elsewhere", "DIRECTORY"),
        Flag("--superuser", "a superuser of the server; without it the server's user or postgres", "ROLE"),
        Flag("--configuration", "in place: the main configuration file, if it is not where it was", "FILE"),
        Flag("--owner", "as root: the user that runs the server; without it the repository's owner", "USER"),
        Flag("--search-directory", "where WAL is unpacked to be searched; without it beside the data", "DIRECTORY"),
        Flag("--search-seconds", "after which a search of the target is given up; without it never", "NUMBER"),
    ),
)

RESTORE_DUMP = Command(
    "restore-dump",
    "recovery.dump_job:restore",
    "restore one database from a dump (docs/recovery.md)",
    flags=(
        Flag("--database", "the database that was dumped", "NAME"),
        Flag("--dump", "the name or UUID of one of its dumps; without it the newest good one", "NAME"),
        Flag("--to", "the name of a new database", "NAME"),
        Flag("--into", "an empty database that is there", "NAME"),
        Flag("--jobs", "sessions at a time; without it one", "NUMBER"),
        Flag("--no-owners", "all is the superuser's, and nobody has rights on it"),
        Flag("--no-tablespaces", "all in the default tablespace"),
        Flag("--plan", "only say what would be done"),
        Flag("--json", "say it for programs"),
        Flag("--repository", "the cluster's repository; without it that of the instance", "DIRECTORY"),
        Flag("--generation", "the generation in it, if there are several", "NAME"),
        Flag("--port", "of the server to restore into; without it the instance", "PORT"),
        Flag("--socket-directory", "where its socket is, if that is nowhere usual", "DIRECTORY"),
        Flag("--superuser", "a superuser of the server; without it the instance's, or the server's user", "ROLE"),
        Flag("--bin-directory", "pg_restore of the server's version, if it is nowhere usual", "DIRECTORY"),
        Flag("--owner", "as root: the user that runs the server; without it the repository's owner", "USER"),
    ),
)

INCIDENT = Command(
    "incident",
    "alerting.incident:incident",
    "show what happened around an alert, and what was seen when it began to fire (docs/incidents.md)",
    flags=(
        Flag("alert", "its UUID, the beginning of it, or a rule's name; without it the newest that fires", "ALERT"),
        Flag("--hours", "of what happened before; without it six", "NUMBER"),
        Flag("--json", "say it for programs"),
    ),
)

TOP = Command(
    "top",
    "top.command:top",
    "show what runs, who waits for whom, what fires and what changed (docs/top.md)",
    flags=(
        Flag("--at", "as it was at this moment: '2026-11-30 03:12', 03:12, or 2h (ago)", "TIME"),
        Flag("--interval", "between two looks; without it 2", "SECONDS"),
        Flag("--once", "print it once, as where the output is no terminal"),
        Flag("--json", "say it once, for programs"),
    ),
)

COMMANDS: Mapping[str, Command] = {one.name: one for one in (RESTORE, RESTORE_DUMP, INCIDENT, TOP)}
"""By their names."""

JOBS: Mapping[str, Job] = {job.name: job for capability in ALL for job in capability.jobs}
"""By the name of their commands."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    one.name: {name: option.default for name, option in one.options.items()} for one in ALL if one.options
}
"""The parts of the agent's configuration, with their defaults."""
