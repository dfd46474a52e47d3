"""The recurring jobs of an instance: what is declared, what is planned, and how calendars become cron's."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from waiting import PATIENCE, until

from pgops.agent import schedule
from pgops.agent.schedule import Current, Job, Schedule, SchedulePlan, TimerStart, UnitReload
from pgops.errors import Conflict, HostFailed, InvalidInput, Unsupported
from pgops.host import calendars, systemd
from pgops.host import cron as crontab
from pgops.host.files import EntryChange, Found, PathRemoval
from pgops.instance import records
from pgops.instance.layout import Layout

COLLECT = {
    "name": "collect",
    "arguments": ["collect"],
    "calendar": "minutely",
    "jitter": 20,
    "time_limit": 50,
    "user": "pgops",
    "writable": [],
    "background": False,
    "network": True,
    "enabled": True,
}


def declared(*, instance="main", state="present", backend="systemd", prefix="/", jobs=(COLLECT,)):
    instances = [{"name": instance, "jobs": list(jobs)}]
    return {"instances": instances, "state": state, "backend": backend, "prefix": prefix}


def the_one(params):
    """The schedule of the only instance that is declared."""
    (found,) = schedule.schedules(params)
    return found


def carry_out(planned, wanted):
    schedule.apply(schedule.HostPlan(((planned, wanted),)))


# What is declared


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "../x"}, "its name"),
        ({"name": "-x"}, "its name"),
        ({"name": "x\n"}, "its name"),
        ({"arguments": []}, "its arguments"),
        ({"arguments": ["collect", ""]}, "its arguments"),
        ({"arguments": ["collect\nUser=root"]}, "line break"),
        ({"calendar": ""}, "its calendar"),
        ({"calendar": "daily\n[Service]"}, "line break"),
        ({"jitter": -1}, "jitter"),
        ({"time_limit": 0}, "time_limit"),
        ({"user": "a b"}, "not a valid user name"),
        ({"user": "root"}, "no job runs as root"),
        ({"writable": ["srv"]}, "absolute"),
    ],
)
def test_a_job_that_cannot_be_scheduled_is_refused(change, why):
    with pytest.raises(InvalidInput, match=why):
        the_one(declared(jobs=[{**COLLECT, **change}]))


@pytest.mark.parametrize(
    "change",
    [
        {"jitter": 0},
        {"time_limit": 1},
        {"name": "x" * 40},
        {"name": "0-9"},
        {"writable": ["/srv"]},
        {"user": "Ab.c-d"},
    ],
)
def test_the_least_and_the_most_of_a_job_are_accepted(change):
    (job,) = the_one(declared(jobs=[{**COLLECT, **change}])).jobs
    ((name, value),) = change.items()
    assert getattr(job, name) == (tuple(value) if name == "writable" else value)


def test_two_jobs_or_instances_of_one_name_are_refused():
    with pytest.raises(InvalidInput, match=r"^Job collect is declared more than once"):
        the_one(declared(jobs=[COLLECT, COLLECT]))
    twice = declared()
    with pytest.raises(InvalidInput, match=r"^Instance main is declared more than once"):
        schedule.schedules({**twice, "instances": twice["instances"] * 2})


def test_a_module_returns_the_jobs_of_an_instance():
    (job,) = schedule.described(the_one(declared(jobs=[COLLECT, {**COLLECT, "name": "off", "enabled": False}])))
    assert job == {
        "instance": "main",
        "name": "collect",
        "command": ["/usr/local/lib/pgops/current/bin/pgops", "--instance", "main", "--scheduled", "collect"],
        "user": "pgops",
        "calendar": "minutely",
    }


def test_a_job_that_is_not_enabled_is_as_not_declared():
    assert the_one(declared(jobs=[{**COLLECT, "enabled": False}])).jobs == ()


@pytest.mark.parametrize("backend", ["systemd", "cron"])
def test_another_prefix_is_refused_where_it_would_not_be_read(backend):
    with pytest.raises(InvalidInput, match="backend: none"):
        the_one(declared(backend=backend, prefix="/srv/demo"))


def test_the_command_names_instance_and_prefix():
    wanted = the_one(declared(backend="none", prefix="/srv/demo"))
    assert schedule.described(wanted)[0]["command"] == [
        *("/srv/demo/usr/local/lib/pgops/current/bin/pgops", "--instance", "main"),
        *("--prefix", "/srv/demo", "--scheduled", "collect"),
    ]


def test_without_systemd_the_error_names_the_other_backends(monkeypatch):
    monkeypatch.setattr(systemd, "booted", lambda: False)
    with pytest.raises(Unsupported, match="cron"):
        schedule.obstacles(the_one(declared()))


def test_a_missing_user_is_told(monkeypatch):
    monkeypatch.setattr(systemd, "booted", lambda: True)
    wanted = the_one(declared(jobs=[{**COLLECT, "user": "nobody-knows-me"}]))
    (problem,) = schedule.obstacles(wanted)
    assert problem.message == "Job collect runs as nobody-knows-me, but this host has no such user."
    assert "pg_ops_agent" in problem.hint


# Units


WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f"), min_size=1)


def unquoted(text: str) -> str:
    """systemd.syntax(7) and systemd.unit(5), read backwards."""
    if text.startswith('"'):
        assert text.endswith('"')
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    else:
        assert not re.search(r"[\s\"'\\;]", text)
    assert not re.search(r"%(?!%)", text.replace("%%", ""))
    return text.replace("%%", "%")


@given(WORDS)
def test_a_quoted_word_is_the_same_word(word):
    assert unquoted(systemd.quoted(word)) == word


def test_words_of_a_command_are_neither_variables_nor_specifiers():
    content = systemd.service("main", "odd", "pgops", ["/bin/x", "$HOME %i"], systemd.Limits(60, ["/a b"])).decode()
    assert 'ExecStart=/bin/x "$$HOME %%i"\n' in content
    assert 'ReadWritePaths=-"/a b"\n' in content


def test_a_service_runs_the_job_as_declared():
    content = systemd.service(
        "16-main", "collect", "agent", ["/bin/x", "a"], systemd.Limits(50, ["/srv/a", "/srv/b"])
    ).decode()
    assert content.startswith(
        "# Managed by the Ansible collection pgops.fleet; edits are reverted.\n"
        "# Put your own settings into a drop-in: systemctl edit pgops-16-main-collect.service\n\n[Unit]\n"
        "Description=PostgreSQL 16-main: collect\n"
    )
    assert "\nUser=agent\nExecStart=/bin/x a\nTimeoutStartSec=50\n" in content
    assert "\nProtectSystem=strict\nReadWritePaths=-/srv/a\nReadWritePaths=-/srv/b\nNoNewPrivileges=true\n" in content
    assert content.endswith("\nCapabilityBoundingSet=\n\n[X-Pgops]\nInstance=16-main\nJob=collect\n")
    root = systemd.service("16-main", "collect", "root", ["/bin/x"], systemd.Limits(50, [])).decode()
    assert root.endswith("\nLockPersonality=true\n\n[X-Pgops]\nInstance=16-main\nJob=collect\n")


def test_a_timer_starts_the_job_as_declared():
    content = systemd.timer("16-main", "collect", "*:0/5", 20).decode()
    assert content.startswith(
        "# Managed by the Ansible collection pgops.fleet; edits are reverted.\n"
        "# Put your own settings into a drop-in: systemctl edit pgops-16-main-collect.timer\n\n[Unit]\n"
        "Description=PostgreSQL 16-main: collect\n"
    )
    assert "\n[Timer]\nOnCalendar=*:0/5\nAccuracySec=1s\nRandomizedDelaySec=20\n" in content
    assert content.endswith("\n[X-Pgops]\nInstance=16-main\nJob=collect\n")


@pytest.mark.parametrize(("user", "confined"), [("pgops", True), ("root", False)])
def test_only_root_keeps_capabilities(user, confined):
    content = systemd.service("main", "x", user, ["/bin/x"], systemd.Limits(60, []))
    assert (b"\nCapabilityBoundingSet=\n" in content) is confined


def test_the_marker_is_exact():
    assert systemd.owner(systemd.timer("a", "b-c", "daily", 0)) == "a"
    assert systemd.owner(systemd.service("a-b", "c", "pgops", ["/bin/x"], systemd.Limits(60, []))) == "a-b"
    assert systemd.owner(b"[Unit]\nDescription=Instance=a\n") is None
    assert crontab.owner(crontab.text("x.y", [])) == "x.y"
    assert crontab.owner(b"MAILTO=root\n") is None


def test_files_of_others_may_hold_any_bytes():
    assert crontab.owner(b"\xff\n" + crontab.text("x.y", [])) == "x.y"
    assert systemd.owner(b"# \xff\n" + systemd.timer("a", "b", "daily", 0)) == "a"
    assert (crontab.owner(b"\xff"), systemd.owner(b"\xff")) == (None, None)


# The plan

INSTANCES = ["a", "a-b", "a.b", "a_b"]
NAMES = ["c", "b-c", "collect"]
JOBS = st.builds(
    Job,
    name=st.sampled_from(NAMES),
    arguments=st.lists(WORDS, min_size=1, max_size=2).map(tuple),
    calendar=st.sampled_from(["minutely", "*:0/5", "Mon..Fri *-*-* 03:00:00"]),
    jitter=st.integers(0, 90),
    time_limit=st.integers(1, 999),
)
SETS = st.lists(JOBS, max_size=3, unique_by=lambda job: job.name).map(tuple)
SCHEDULES = st.builds(
    Schedule, st.sampled_from(INSTANCES).map(Layout), st.sampled_from(["systemd", "cron", "none"]), SETS
)
EMPTY = Current("db1", {"/etc/systemd/system/timers.target.wants": Found("directory", 0o755, "root", "root")})


def outcome(current: Current, planned: SchedulePlan, steps: int | None = None) -> Current:
    """The host after a plan, or after its first ``steps``."""
    found, states = dict(current.found), dict(current.states)
    for change in list(planned.plan)[:steps]:
        if isinstance(change, TimerStart):
            states[change.unit] = systemd.State("active")
        elif isinstance(change, UnitReload):
            states = {name: replace(state, outdated=False) for name, state in states.items()}
        elif isinstance(change, PathRemoval):
            found.pop(change.path)
            states.pop(os.path.basename(change.path), None)
        else:
            assert isinstance(change, EntryChange)
            found[change.path] = change.entry.as_found(None)
            name = os.path.basename(change.path)
            if found[change.path].kind == "file" and name in states:
                states[name] = replace(states[name], outdated=steps is not None)
    return Current(current.host, found, states)


def owned(current: Current, instance: str) -> dict[str, Found]:
    """All that is an instance's, links included."""
    own = {path: there for path, there in current.found.items() if there and schedule._owner(there) == instance}
    ends = tuple(f"/{os.path.basename(path)}" for path in own)
    return {
        path: there
        for path, there in current.found.items()
        if there and (path in own or (there.kind == "link" and path.endswith(ends or ("\0",))))
    }


@given(SCHEDULES)
def test_a_second_plan_is_empty(wanted):
    planned = schedule.plan(EMPTY, wanted)
    assert bool(planned.plan) == (bool(wanted.jobs) and wanted.backend != "none")
    assert not schedule.plan(outcome(EMPTY, planned), wanted).plan


@given(SCHEDULES, SCHEDULES)
def test_any_schedule_follows_any_other_and_touches_nobody_elses(first, second):
    before = outcome(EMPTY, schedule.plan(EMPTY, first))
    try:
        planned = schedule.plan(before, second)
    except Conflict:
        assert first.layout.instance != second.layout.instance
        return
    after = outcome(before, planned)
    assert not schedule.plan(after, second).plan
    assert owned(after, second.layout.instance) == owned(
        outcome(EMPTY, schedule.plan(EMPTY, second)), second.layout.instance
    )
    if first.layout.instance != second.layout.instance:
        assert owned(after, first.layout.instance) == owned(before, first.layout.instance)


@given(SCHEDULES)
def test_absent_leaves_nothing(wanted):
    there = outcome(EMPTY, schedule.plan(EMPTY, wanted))
    gone = outcome(there, schedule.plan(there, Schedule(wanted.layout, "none")))
    assert {path for path, found in gone.found.items() if found} == set(EMPTY.found)
    assert not gone.states


@given(SETS, SETS, st.sampled_from(["systemd", "cron", "none"]), st.integers(0, 20))
def test_the_run_after_a_killed_one_converges(first, second, backend, steps):
    layout = Layout("a")
    before = outcome(EMPTY, schedule.plan(EMPTY, Schedule(layout, "systemd", first)))
    wanted = Schedule(layout, backend, second)
    killed = outcome(before, schedule.plan(before, wanted), steps)
    after = outcome(killed, schedule.plan(killed, wanted))
    assert not schedule.plan(after, wanted).plan
    assert owned(after, "a") == owned(outcome(EMPTY, schedule.plan(EMPTY, wanted)), "a")


def present(wanted: Schedule) -> Current:
    return outcome(EMPTY, schedule.plan(EMPTY, wanted))


WANTED = the_one(declared())
TIMER = "pgops-main-collect.timer"


@pytest.mark.parametrize(
    ("state", "subject"),
    [
        (systemd.State("inactive"), f"update timer {TIMER}"),
        (systemd.State("failed"), f"update timer {TIMER}"),
        (systemd.State("active", outdated=True), f"update unit {TIMER}"),
    ],
)
def test_a_timer_that_does_not_run_as_declared_is_a_change(state, subject):
    drifted = replace(present(WANTED), states={TIMER: state})
    assert schedule.plan(drifted, WANTED).plan.result()["changes"] == [subject]


def test_a_disabled_timer_is_a_change():
    there = present(WANTED)
    link = f"/etc/systemd/system/timers.target.wants/{TIMER}"
    disabled = replace(there, found={**there.found, link: None})
    assert schedule.plan(disabled, WANTED).plan.result()["changes"] == [f"create link {link}"]


def test_units_of_one_name_from_two_instances_are_a_conflict():
    there = present(the_one(declared(instance="a-b", jobs=[{**COLLECT, "name": "c"}])))
    with pytest.raises(Conflict, match="belongs to instance a-b"):
        schedule.plan(there, the_one(declared(instance="a", jobs=[{**COLLECT, "name": "b-c"}])))


@pytest.mark.parametrize("found", [Found("file", 0o644, "root", "root", b"[Unit]\n"), Found("link", 0o777, "", "")])
def test_what_somebody_else_made_is_a_conflict(found):
    there = replace(EMPTY, found={**EMPTY.found, f"/etc/systemd/system/{TIMER}": found})
    with pytest.raises(Conflict, match="was not created by"):
        schedule.plan(there, WANTED)
    assert not schedule.plan(there, the_one(declared(state="absent"))).plan


def test_only_timers_that_change_have_their_calendars_checked():
    assert schedule.unchecked(schedule.plan(EMPTY, WANTED), WANTED) == {"collect": "minutely"}
    assert schedule.unchecked(schedule.plan(present(WANTED), WANTED), WANTED) == {}


# cron


def test_a_line_of_cron():
    assert crontab.line("*/5 * * * *", "pgops", ["/x/pgops", "50% of"], 7, 60) == (
        "*/5 * * * * pgops { sleep 7; timeout --kill-after=30 60 /x/pgops '50\\% of'; } 2>&1 | logger -t pgops"
    )

    assert crontab.line("0 3 * * *", "root", ["/x/pgops"], 0, 5) == (
        "0 3 * * * root { timeout --kill-after=30 5 /x/pgops; } 2>&1 | logger -t pgops"
    )


def test_a_crontab_has_a_line_a_job():
    text = crontab.text("16-main", ["one", "two"]).decode()
    assert text.startswith("# pgops.fleet: instance 16-main\n")
    assert text.endswith('\nMAILTO=""\none\ntwo\n')


def test_a_line_too_long_for_cron_is_refused():
    fields = "* * * * * pgops "
    frame = len(crontab.line("* * * * *", "pgops", ["x"], 0, 60)) - len(fields) - 1
    longest = crontab.line("* * * * *", "pgops", ["x" * (crontab.LONGEST - frame)], 0, 60)
    assert len(longest) - len(fields) == crontab.LONGEST
    with pytest.raises(InvalidInput, match="longer"):
        crontab.line("* * * * *", "pgops", ["x" * (crontab.LONGEST - frame + 1)], 0, 60)


@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(0, 99))
def test_the_shell_gets_the_words_of_the_command(words, delay):
    line = crontab.line("* * * * *", "pgops", words, delay, 60)
    fields = line.split(" ", 6)
    assert not re.search(r"(?<!\\)%", fields[6])
    job = fields[6].replace("\\%", "%")
    inner = job.removeprefix("{ ").split("; ", 1)[1] if delay else job
    assert shlex.join(["timeout", "--kill-after=30", "60", *words]) in inner


@given(st.integers(0, 600), st.text(), st.text())
def test_the_delay_is_the_hosts_own_and_always_the_same(jitter, host, instance):
    delay = crontab.delay(jitter, host, instance, "collect")
    assert 0 <= delay <= jitter
    assert delay == crontab.delay(jitter, host, instance, "collect")


def test_delays_spread_over_a_fleet():
    assert {crontab.delay(9, f"db{number}", "main", "collect") for number in range(200)} == set(range(10))


# Calendars


@pytest.mark.parametrize(
    ("expression", "cron"),
    [
        ("minutely", "* * * * *"),
        ("hourly", "0 * * * *"),
        ("Daily", "0 0 * * *"),
        ("weekly", "0 0 * * 1"),
        ("monthly", "0 0 1 * *"),
        ("quarterly", "0 0 1 */3 *"),
        ("yearly", "0 0 1 1 *"),
        ("*:0/5", "*/5 * * * *"),
        ("*:3/5", "3,8,13,18,23,28,33,38,43,48,53,58 * * * *"),
        ("*-*-* 03:00:00", "0 3 * * *"),
        ("03:00", "0 3 * * *"),
        ("Mon *-*-* 03:00:00", "0 3 * * 1"),
        ("Mon..Fri 06:30", "30 6 * * 1-5"),
        ("Sat,Sun *:15", "15 * * * 0,6"),
        ("Mon..Sun 1:00", "0 1 * * *"),
        ("*-*-1,15 4:00", "0 4 1,15 * *"),
        ("*-02-29", "0 0 29 2 *"),
        ("*:0..30/10,45", "0,10,20,30,45 * * * *"),
        ("*:0/30", "0,30 * * * *"),
        ("*:0/20", "*/20 * * * *"),
        ("*:0/2", "*/2 * * * *"),
        ("*:0/1", "* * * * *"),
        ("*:0,20", "0,20 * * * *"),
        ("*:0,1,2", "0-2 * * * *"),
        ("*:0,2,4", "0,2,4 * * * *"),
        ("*:0..58/2", "*/2 * * * *"),
        ("*:0..56/2", "0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,32,34,36,38,40,42,44,46,48,50,52,54,56 * * * *"),
        ("0/12:59", "59 0,12 * * *"),
        ("23:0..59/59", "0,59 23 * * *"),
        ("*-*-31 0:0", "0 0 31 * *"),
    ],
)
def test_calendars_as_cron_writes_them(expression, cron):
    assert calendars.parse(expression).cron == cron


@pytest.mark.parametrize(
    "expression",
    [
        *("", " daily", "daily ", "every day", "*:*:0/5", "*:0:30", "2027-01-01", "Mon *-*-1 03:00", "*-02-30"),
        *(
            "*-*~1",
            "daily UTC",
            "24:00",
            "*:60",
            "*:*/5",
            "*:0/0",
            "*:59/5",
            "*:5..1",
            "Fri..Mon",
            "Foo",
            "1:2,",
            "%H",
        ),
    ],
)
def test_what_cron_cannot_express_is_refused_with_what_it_can(expression):
    with pytest.raises(InvalidInput) as refused:
        calendars.parse(expression)
    assert "'*-*-* 03:00:00' every night" in refused.value.hint
    assert repr(expression).strip("'") in refused.value.message


def test_the_refusal_names_the_job():
    wanted = the_one(declared(backend="cron", jobs=[{**COLLECT, "calendar": "*:*:0/10"}]))
    with pytest.raises(InvalidInput, match=r"^Job collect: "):
        schedule.plan(EMPTY, wanted)


def elements(low: int, high: int):
    number = st.integers(low, high)
    span = st.tuples(number, number).map(sorted)
    step = st.integers(1, max(1, high // 2))
    element = st.one_of(
        number.map(str),
        number.map("{:02}".format),
        span.map(lambda ends: f"{ends[0]}..{ends[1]}"),
        st.tuples(number, step).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        st.tuples(span, step).map(lambda pair: f"{pair[0][0]}..{pair[0][1]}/{pair[1]}"),
        st.integers(low - 1 if low else 0, high + 1).map(str),
    )
    return st.one_of(st.just("*"), st.lists(element, min_size=1, max_size=3).map(",".join))


DAYS = ("Mon", "tue", "Wednesday", "Thu", "FRI", "Sat", "Sun")
WEEKDAY = st.one_of(st.sampled_from(DAYS), st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)).map("..".join))
DATE = st.builds("*-{}-{}".format, elements(1, 12), elements(1, 31)) | st.just("*-*-*")
TIME = st.builds("{}:{}{}".format, elements(0, 23), elements(0, 59), st.sampled_from(["", ":00", ":0"]))
EXPRESSIONS = st.one_of(
    st.sampled_from(sorted(calendars.SHORTHANDS)),
    st.builds("{} {}".format, st.lists(WEEKDAY, min_size=1, max_size=3).map(",".join), TIME),
    st.builds("{} {}".format, DATE, TIME),
    DATE,
    TIME,
)


def systemd_says(expression: str, base: datetime) -> list[str] | None:
    """The next three times, None where systemd does not take the expression."""
    told = subprocess.run(
        [
            *("systemd-analyze", "calendar", "--iterations=3", f"--base-time={base:%Y-%m-%d %H:%M:%S} UTC"),
            *("--", expression),
        ],
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        return None
    return re.findall(r"(?:Next elapse|Iter\. #\d+): \w+ (\S+ \S+) UTC", told.stdout)


def before_the_turn(times: list[str], expression: str, base: datetime) -> list[str]:
    """Only those of the base's year, or of its day where the time has a step: systemd 252 leaves out the first of an
    open step such as */8 in the next year, and 00:00 of 0/21 on the next day."""
    clock = expression.rsplit(maxsplit=1)[-1]
    same = f"{base:%Y-%m-%d}" if ":" in clock and "/" in clock else f"{base:%Y}"
    return [time for time in times if time.startswith(same)]


def cron_says(fields: str, base: datetime) -> list[str]:
    """The next three times by the rules of crontab(5), from the text of the fields."""
    limits = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    minutes, hours, days, months, weekdays = (
        _cron_field(text, *limit) for text, limit in zip(fields.split(), limits)
    )
    either = not fields.split()[2].startswith("*") and not fields.split()[4].startswith("*")
    times: list[str] = []
    for number in range(3660):
        day = base.replace(hour=0, minute=0, second=0) + timedelta(days=number)
        fits = (day.day in days, (day.weekday() + 1) % 7 in weekdays)
        if day.month in months and (any(fits) if either else all(fits)):
            starts = [day.replace(hour=hour, minute=minute) for hour in sorted(hours) for minute in sorted(minutes)]
            times += [f"{start:%Y-%m-%d %H:%M:%S}" for start in starts if start > base]
        if len(times) >= 3:
            break
    return times[:3]


def _cron_field(text: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for element in text.split(","):
        span, _slash, step = element.partition("/")
        first, _dash, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        values.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return values


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    EXPRESSIONS, st.integers(1_704_067_200, 1_893_456_000).map(lambda at: datetime.fromtimestamp(at, timezone.utc))
)
@example("*-*-1/8", datetime(2028, 12, 9, tzinfo=timezone.utc))
@example("*-*-* *:0/21", datetime(2025, 2, 24, 23, tzinfo=timezone.utc))
@example("*:0/21,0", datetime(2024, 5, 1, 23, tzinfo=timezone.utc))
def test_cron_starts_jobs_when_systemd_would(expression, base):
    said = systemd_says(expression, base)
    try:
        fields = calendars.parse(expression).cron
    except InvalidInput as error:
        refused = error.message
    else:
        assert said is not None
        times = cron_says(fields, base)[: len(said)]
        if "/" in expression:
            said, times = (before_the_turn(found, expression, base) for found in (said, times))
        assert times == said
        return
    # Refused is what systemd does not take, or never comes, and besides only what cron would understand otherwise.
    assert not said or "weekdays together" in refused


def test_what_cron_started_of_a_job_is_ended_with_all_that_it_waits_for(tmp_path):
    command = [str(tmp_path / "pgops"), "--instance", "a", "--scheduled", "collect"]
    # By itself it ends after an hour.
    shell = crontab.line("* * * * *", "nobody", command, 3600, 50).split(" nobody ", 1)[1]
    with subprocess.Popen(["/bin/sh", "-c", shell], start_new_session=True) as started:
        try:
            until(lambda: "sleep" in lives_in_group(started.pid), "waiting for its delay")
            crontab.stop([command[0], "--instance", "b"])
            assert started.poll() is None
            crontab.stop(command[:3])
            assert started.wait(PATIENCE) == -signal.SIGTERM
            until(lambda: lives_in_group(started.pid), "ended", [])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def lives_in_group(group: int) -> list[str]:
    """The programs of a group that are not dead yet; a zombie is."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,comm="], check=True, capture_output=True, text=True).stdout
    processes = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [name for number, state, name in processes if int(number) == group and state[0] != "Z"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_systemd_names_the_job_of_a_calendar_that_it_does_not_take():
    systemd.check_calendars({})
    systemd.check_calendars({"collect": "*:*:0/5", "backup": "Mon *-*-1..7 03:00"})
    for wrong in ("evry day", "2020-01-01", "*-02-30", "--help"):
        with pytest.raises(InvalidInput, match=f"^Job backup: '{re.escape(wrong)}' is not a valid systemd calendar"):
            systemd.check_calendars({"collect": "minutely", "backup": wrong})


# On a real file system


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A layout below a directory, on a host that systemd does not run."""
    if os.geteuid():
        pytest.skip("units and crontabs belong to root")
    monkeypatch.setattr(systemd, "booted", lambda: False)
    for folder in ("etc/systemd/system", "etc/cron.d"):
        (tmp_path / folder).mkdir(parents=True)
    return Layout("a", str(tmp_path))


@pytest.mark.parametrize("steps", range(6))
def test_files_are_found_again_after_a_run_that_failed_midway(host, monkeypatch, steps):
    wanted = Schedule(host, "systemd", (Job("collect", ("collect",), "daily"), Job("b-c", ("x",), "daily")))
    _fail_after(steps, wanted, monkeypatch)
    carry_out(schedule.plan(schedule.read(wanted), wanted), wanted)
    assert {change.action for change in schedule.plan(schedule.read(wanted), wanted).plan} == {
        "update"
    }  # timers to be started
    gone = Schedule(host, "none")
    _fail_after(steps, gone, monkeypatch)
    carry_out(schedule.plan(schedule.read(gone), gone), gone)
    assert os.listdir(host.units) == ["timers.target.wants"]
    assert os.listdir(os.path.join(host.units, "timers.target.wants")) == []


def _fail_after(steps: int, wanted: Schedule, monkeypatch) -> None:
    """A run whose disk is full after some files were written or removed."""
    left = [steps]

    def while_there_is_room(carry_out):
        def one(change):
            if not left[0]:
                raise HostFailed("The disk is full.")
            left[0] -= 1
            carry_out(change)

        return one

    with monkeypatch.context() as patched:
        for kind in (EntryChange, PathRemoval):
            patched.setattr(kind, "apply", while_there_is_room(kind.apply))
        with pytest.raises(HostFailed):
            carry_out(schedule.plan(schedule.read(wanted), wanted), wanted)


def test_a_crontab_is_written_and_removed(host):
    wanted = Schedule(host, "cron", (Job("collect", ("collect",), "*:0/5"),))
    carry_out(schedule.plan(schedule.read(wanted), wanted), wanted)
    assert not schedule.plan(schedule.read(wanted), wanted).plan
    assert os.stat(host.crontab).st_mode & 0o777 == 0o644
    other = Schedule(replace(host, instance="a-b"), "none")
    assert not schedule.plan(schedule.read(other), other).plan
    gone = Schedule(host, "none")
    carry_out(schedule.plan(schedule.read(gone), gone), gone)
    assert os.listdir(os.path.dirname(host.crontab)) == []


def test_the_record_of_a_job_goes_with_the_job(tmp_path):
    layout = Layout("main", str(tmp_path))
    for folder in (layout.state, layout.inspection):
        os.makedirs(folder)
    for job in ("collect", "queries", "catalogue"):
        records.note(layout, job, 1000.0, 1.0, 1)
    kept = the_one(declared(backend="none", prefix=str(tmp_path)))
    schedule.apply(schedule.HostPlan(((SchedulePlan(), kept),)))
    assert set(records.known(layout)) == {"collect"}


def test_two_instances_never_have_one_file():
    one = the_one(declared(instance="a", jobs=[{**COLLECT, "name": "b-c"}]))
    other = the_one(declared(instance="a-b", jobs=[{**COLLECT, "name": "c"}]))
    with pytest.raises(Conflict, match="would belong to the instances a and a-b"):
        schedule.plan_all([EMPTY, EMPTY], [one, other])


def test_units_are_roots_and_hold_the_job():
    wanted = the_one(declared())
    written = {change.path: change.entry for change in schedule.plan(EMPTY, wanted).written}
    base = "/etc/systemd/system/pgops-main-collect"
    service, timer = written[f"{base}.service"], written[f"{base}.timer"]
    assert {(one.owner, one.group, one.mode) for one in (service, timer)} == {("root", "root", 0o644)}
    command = ["/usr/local/lib/pgops/current/bin/pgops", "--instance", "main", "--scheduled", "collect"]
    limits = systemd.Limits(50, ["/var/lib/pgops/main"])
    assert service.content == systemd.service("main", "collect", "pgops", command, limits)
    assert timer.content == systemd.timer("main", "collect", "minutely", 20)
    assert written["/etc/systemd/system/timers.target.wants/pgops-main-collect.timer"].to == f"{base}.timer"


def test_a_job_in_the_background_gets_little_and_may_have_no_network():
    usual = systemd.service("main", "x", "pgops", ["/bin/x"], systemd.Limits(60, [])).decode()
    assert "CPUWeight" not in usual
    assert "\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n" in usual
    wanted = the_one(declared(jobs=[{**COLLECT, "background": True, "network": False}]))
    (content,) = [
        change.entry.content.decode()
        for change in schedule.plan(EMPTY, wanted).written
        if change.path.endswith(".service")
    ]
    assert "\nCPUWeight=20\nIOWeight=20\nMemoryHigh=25%\n" in content
    assert "\nRestrictAddressFamilies=AF_UNIX AF_NETLINK\nIPAddressDeny=any\n" in content


def test_a_service_may_write_to_the_paths_of_its_job():
    wanted = the_one(declared(jobs=[{**COLLECT, "writable": ["/srv/repository"]}]))
    (content,) = [
        change.entry.content for change in schedule.plan(EMPTY, wanted).written if change.path.endswith(".service")
    ]
    assert b"\nReadWritePaths=-/var/lib/pgops/main\nReadWritePaths=-/srv/repository\n" in content


def test_a_crontab_holds_the_job_with_a_delay_of_its_own():
    wanted = the_one(declared(backend="cron", jobs=[COLLECT, {**COLLECT, "name": "other", "user": "postgres"}]))
    (change,) = schedule.plan(EMPTY, wanted).written
    assert (change.path, change.entry.mode) == ("/etc/cron.d/pgops-main", 0o644)
    first, second = change.entry.content.decode().splitlines()[-2:]
    command = "timeout --kill-after=30 50 /usr/local/lib/pgops/current/bin/pgops --instance main --scheduled collect"
    delays = [crontab.delay(20, "db1", "main", name) for name in ("collect", "other")]
    assert first == f"* * * * * pgops {{ sleep {delays[0]}; {command}; }} 2>&1 | logger -t pgops"
    assert second == f"* * * * * postgres {{ sleep {delays[1]}; {command}; }} 2>&1 | logger -t pgops"


def test_what_names_a_unit_goes_before_it():
    jobs = [{**COLLECT, "name": name} for name in ("a", "b")]
    there = present(the_one(declared(jobs=jobs)))
    removed = [change.path for change in schedule.plan(there, the_one(declared(state="absent"))).removed]
    units = "/etc/systemd/system"
    assert removed == [
        f"{units}/timers.target.wants/pgops-main-a.timer",
        f"{units}/timers.target.wants/pgops-main-b.timer",
        f"{units}/pgops-main-a.timer",
        f"{units}/pgops-main-b.timer",
        f"{units}/pgops-main-a.service",
        f"{units}/pgops-main-b.service",
    ]


def test_a_unit_whose_file_was_changed_and_put_back_is_reloaded():
    wanted = the_one(declared())
    there = present(wanted)
    units = [f"pgops-main-collect.{suffix}" for suffix in ("service", "timer")]
    stale = replace(there, states={unit: systemd.State("active", outdated=True) for unit in units})
    made = schedule.plan(stale, wanted)
    assert [(one.line, one.before, one.after) for one in made.plan] == [
        (f"update unit {unit}", "not reloaded since its file changed", "loaded") for unit in units
    ]


def test_a_directory_that_instances_share_is_created_once():
    both = [the_one(declared(instance=name)) for name in ("a", "b")]
    bare = replace(EMPTY, found={})
    lines = [change.line for change in schedule.plan_all([bare, bare], both).plan]
    units = [f"pgops-{name}-collect.{suffix}" for name in ("a", "b") for suffix in ("service", "timer")]
    assert sorted(lines) == sorted(
        [
            "create directory /etc/systemd/system/timers.target.wants",
            *(f"create file /etc/systemd/system/{unit}" for unit in units),
            *(
                f"create link /etc/systemd/system/timers.target.wants/pgops-{name}-collect.timer"
                for name in ("a", "b")
            ),
            *(f"create timer pgops-{name}-collect.timer" for name in ("a", "b")),
        ]
    )


def test_the_record_of_another_user_that_is_none_is_left(tmp_path):
    layout = Layout("main", str(tmp_path))
    os.makedirs(f"{layout.state}/job.queries.json/deep")
    os.makedirs(layout.inspection)
    (tmp_path / "precious").write_text("x")
    os.symlink(tmp_path / "precious", f"{layout.inspection}/job.catalogue.json")
    kept = the_one(declared(backend="none", prefix=str(tmp_path)))
    schedule.apply(schedule.HostPlan(((SchedulePlan(), kept),)))
    assert os.path.isdir(f"{layout.state}/job.queries.json/deep")
    assert (tmp_path / "precious").read_text() == "x"
    assert os.listdir(layout.inspection) == []
