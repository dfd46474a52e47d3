"""A superuser, who is the server's user on its host, gains nothing of root's, in check mode neither.

Each test is an attack: as that user one puts programs, links, pipes and functions where root will meet them.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import binaries
import pytest
from deploying import target
from servers import Server
from waiting import until

from pgops.errors import Conflict, HostFailed, PgOpsError, QueryFailed, Unreachable, Unsupported
from pgops.facts import gathering
from pgops.host import files
from pgops.opsdb import access, hba
from pgops.repository import generations
from pgops.repository.generations import Generation, Wanted
from pgops.server import discovery, managers, postmaster, service
from pgops.server.service import Service
from pgops.server.session import connect
from pgops.settings import carried, present, transaction
from pgops.settings import deploy as settings

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")
BLOCK = f"{access.BEGIN}\nlocal all pgops peer\n{access.END}\n"

# Whatever a module asks, the answer is the superuser's: the planner inlines functions in SQL, built-in ones as well.
REPLACED = """
SET allow_system_table_mods = on;
CREATE OR REPLACE FUNCTION pg_catalog.pg_config(OUT name text, OUT setting text) RETURNS SETOF record
    LANGUAGE sql STABLE AS $$ VALUES ('BINDIR', '{directory}'), ('PKGLIBDIR', '{directory}') $$;
CREATE OR REPLACE FUNCTION pg_catalog.pg_is_in_recovery() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';
CREATE OR REPLACE VIEW pg_catalog.pg_settings AS
SELECT s.name, CASE s.name WHEN 'data_directory' THEN '{directory}' ELSE s.setting END AS setting, s.unit,
    s.category, s.short_desc, s.extra_desc, s.context, s.vartype, s.source, s.min_val, s.max_val, s.enumvals,
    s.boot_val, s.reset_val, s.sourcefile, s.sourceline, s.pending_restart
FROM pg_catalog.pg_show_all_settings() AS s;
CREATE OR REPLACE FUNCTION pg_catalog.current_setting(text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE $1 WHEN 'data_directory' THEN '{directory}' WHEN 'hba_file' THEN '{directory}/pg_hba.conf'
        ELSE pg_catalog.current_setting($1, false) END
$$;
"""
PROGRAM = "#!/bin/sh\nid -u >> {directory}/ran\necho 'max_connections setting: 1'\n"


@pytest.fixture(name="running")
def _running(new_server: Callable[..., Server]) -> Server:
    return new_server(binaries.majors()[-1]).start()


@pytest.fixture(name="ours")
def _ours(tmp_path: Path) -> Iterator[Path]:
    """A directory of root's, with what nobody else may change."""
    folder = Path(tempfile.mkdtemp(prefix="ours-"))
    for name in ("pg_hba.conf", "postgresql.auto.conf", "repository.json"):
        (folder / name).write_text("of root\n")
    before = _state(folder)
    yield folder
    assert _state(folder) == before
    shutil.rmtree(folder)


def _state(folder: Path) -> list[object]:
    found = [(path.name, os.lstat(path), path.read_text()) for path in sorted(folder.iterdir())]
    whole = os.stat(folder)
    return [whole.st_mode, whole.st_uid, *((name, at.st_mode, at.st_uid, text) for name, at, text in found)]


def _theirs(server: Server, *names: str) -> Path:
    """A directory of the server's user, below the server's own."""
    folder = server.directory.joinpath(*names)
    folder.mkdir(parents=True)
    for one in (folder, *folder.parents):
        if server.directory in one.parents:
            os.chown(one, NOBODY, NOBODY)
    return folder


def _apply(
    server: Server, check: bool, place: dict[str, str] | None = None, state: str = "present", **values: Any
) -> dict[str, Any]:
    arguments = {"state": state, "lists": "merge", "restart": "if_required", "after_primary": False}
    given = {**(place or {"instance": "", "prefix": "/"}), "settings": values}
    return settings.converge(target(server), {**arguments, **given}, check)


# --- what the server answers


@pytest.mark.parametrize("check", [True, False])
def test_root_runs_nothing_that_the_server_names(running: Server, check: bool) -> None:
    evil = _theirs(running, "evil")
    for name in ("pg_controldata", "pg_ctl", "postgres"):
        running.write(evil / name, PROGRAM.format(directory=evil), 0o755)
    running.write(evil / "postmaster.pid", (running.data_dir / "postmaster.pid").read_text())
    running.psql(REPLACED.format(directory=evil))
    with connect(target(running)) as session:
        assert session.in_recovery  # the lie is believed, and harmless
        found = postmaster.of(session)
        assert (found.data_directory, found.bin_directory) == (str(running.data_dir), str(running.bin_dir))
        assert service.of(session).data_directory == str(running.data_dir)
    done = _apply(running, check, max_connections=60)
    assert done["changed"]
    assert not (evil / "ran").exists()


def test_a_program_of_the_server_s_runs_as_the_server_s_user(running: Server) -> None:
    evil = _theirs(running, "evil")
    running.write(evil / "pg_controldata", PROGRAM.format(directory=evil), 0o755)
    with connect(target(running)) as session:
        found = postmaster.of(session)
    forged = postmaster.Postmaster(found.process, found.owner, str(evil), found.data_directory)
    assert settings.controldata.read(forged) == {"max_connections": 1}
    assert (evil / "ran").read_text() == f"{NOBODY}\n"
    with pytest.raises(HostFailed, match="never runs as root"):
        settings.controldata.read(postmaster.Postmaster(1, 0, str(evil), "/"))


def test_the_manager_is_not_looked_for_where_the_server_says(running: Server) -> None:
    evil = _theirs(running, "evil")
    os.mkfifo(evil / "postmaster.opts")
    running.write(evil / "patroni.dynamic.json", "{}")
    running.psql(REPLACED.format(directory=evil))
    os.mkfifo(running.data_dir / "patroni.dynamic.json")
    (running.data_dir / "postmaster.opts").unlink()
    os.mkfifo(running.data_dir / "postmaster.opts")
    with connect(target(running)) as session:
        assert managers.manager(session) == ""


# --- access files


@pytest.fixture(name="elsewhere")
def _elsewhere(new_server: Callable[..., Server]) -> Server:
    """A server whose access file is in a directory of its user's."""
    server = new_server(binaries.majors()[-1])
    folder = _theirs(server, "conf", "access")
    server.write(folder / "pg_hba.conf", "local all all trust\n")
    server.configure({"hba_file": str(folder / "pg_hba.conf")})
    return server.start()


def test_a_parent_swapped_for_a_link_does_not_lead_root_elsewhere(elsewhere: Server, ours: Path) -> None:
    folder = elsewhere.directory / "conf/access"
    with connect(target(elsewhere)) as session:
        changes = access.plan(access.read(session), BLOCK, "")
        folder.rename(folder.with_name("aside"))
        folder.symlink_to(ours)
        with pytest.raises(PgOpsError):
            access.apply(session, changes)
    with connect(target(elsewhere)) as session, pytest.raises(HostFailed, match="Permission denied") as caught:
        access.read(session)
    assert "User nobody must have access" in caught.value.hint


def test_root_s_files_are_not_the_server_s(running: Server, ours: Path) -> None:
    running.psql(REPLACED.format(directory=ours))
    ours.chmod(0o755)  # they may be read
    with connect(target(running)) as session, pytest.raises(Conflict, match="server's user may not write") as caught:
        access.plan(access.read(session), BLOCK, "")
    ours.chmod(0o700)
    assert BLOCK in caught.value.hint


def test_what_was_changed_since_it_was_read_is_not_overwritten(elsewhere: Server) -> None:
    path = elsewhere.directory / "conf/access/pg_hba.conf"
    with connect(target(elsewhere)) as session:
        changes = access.plan(access.read(session), BLOCK, "")
        elsewhere.write(path, "local all all trust\n# by hand\n")
        with pytest.raises(Conflict, match="changed by somebody else"):
            access.apply(session, changes)
        assert "by hand" in path.read_text()
        access.apply(session, access.plan(access.read(session), BLOCK, ""))
    assert path.read_text() == f"{BLOCK}local all all trust\n# by hand\n"
    assert os.stat(path).st_uid == NOBODY


@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
def test_an_access_file_that_cannot_be_read_is_refused(elsewhere: Server, kind: str) -> None:
    path = elsewhere.directory / "conf/access/pg_hba.conf"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    with connect(target(elsewhere)) as session, pytest.raises(PgOpsError, match=r"must be a file|has more than"):
        access.read(session)


def test_a_server_that_hangs_in_a_pipe_is_not_waited_for(elsewhere: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = elsewhere.directory / "conf/access/pipe"
    os.mkfifo(pipe)
    os.chown(pipe, NOBODY, NOBODY)
    elsewhere.write(elsewhere.directory / "conf/access/pg_hba.conf", "local all all trust\nlocal all @pipe trust\n")
    monkeypatch.setattr(access, "READS_FILES", 0.2)
    monkeypatch.setattr(hba, "READS_FILES", 0.2)
    for read in (access.read, hba.read):
        with (
            connect(target(elsewhere)) as session,
            pytest.raises(QueryFailed, match="did not answer within") as caught,
        ):
            read(session)
        assert "pipe" in caught.value.hint


@pytest.mark.parametrize("check", [True, False])
def test_nor_is_one_that_hangs_in_its_settings(running: Server, check: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(running.data_dir / "pipe.conf")
    os.chown(running.data_dir / "pipe.conf", NOBODY, NOBODY)
    with (running.data_dir / "postgresql.conf").open("a") as file:
        file.write("include 'pipe.conf'\n")
    monkeypatch.setattr(present, "READS_FILES", 0.2)
    with pytest.raises(QueryFailed, match="did not answer within"):
        _apply(running, check, work_mem="8MB")


def _record(server: Server) -> Path:
    return server.data_dir / carried.NAME


@pytest.mark.parametrize("check", [True, False])
def test_nor_is_one_that_hangs_in_the_record_of_its_original_settings(
    running: Server, tmp_path: Path, check: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(_record(running))
    os.chown(_record(running), NOBODY, NOBODY)
    monkeypatch.setattr(carried, "READS_FILES", 0.2)
    with pytest.raises(QueryFailed, match="did not answer within"):
        _apply(running, check, work_mem="8MB", place={"instance": "main", "prefix": str(tmp_path)})


@pytest.mark.parametrize(
    "record",
    ['{"work_mem": {"before": 5, "ours": [7]}}', '{"work_mem": {"before": null}}', "[[1]]", "5", "[" * 100_000],
    ids=["no text", "not whole", "no mapping", "a number", "too deep"],
)
def test_a_record_that_somebody_else_has_written_is_none(running: Server, tmp_path: Path, record: str) -> None:
    running.write(_record(running), f'{{"format": 1, "settings": {{"settings": {record}}}}}')
    place = {"instance": "main", "prefix": str(tmp_path)}
    assert not _apply(running, True, place=place, state="absent")["changed"]
    assert _apply(running, False, place=place, work_mem="8MB")["changed"]
    assert _apply(running, False, place=place, state="absent")["changed"]
    assert running.value("SHOW work_mem") == "4MB"


# --- settings that are put back


def test_settings_are_put_back_in_no_file_of_root_s(running: Server, ours: Path) -> None:
    with connect(target(running)) as session:
        found = service.of(session)
    link = running.directory / "data.link"
    link.symlink_to(ours)
    path = running.data_dir / "postgresql.auto.conf"
    path.unlink()
    path.symlink_to(ours / "postgresql.auto.conf")
    for place in (str(link), found.data_directory):
        with pytest.raises(PgOpsError):
            transaction.restore(Service(place, found.bin_directory, found.owner), {"work_mem": "8MB"})


def test_a_lock_file_of_the_server_s_user_says_nothing_of_root_s(running: Server, ours: Path) -> None:
    pid = running.data_dir / "postmaster.pid"
    text = pid.read_text()
    try:
        pid.unlink()
        os.mkfifo(pid)
        assert service.discovery.postmaster(str(running.data_dir), NOBODY) is None
        pid.unlink()
        running.write(pid, "1\n")
        assert service.discovery.postmaster(str(running.data_dir), NOBODY) is None
    finally:
        pid.unlink()
        running.write(pid, text)
    assert ours


# --- the repository


def _wanted(path: Path) -> Wanted:
    return Wanted(str(path), "shop", Generation("7", 17, 1 << 24), "nobody", "nogroup")


def test_a_repository_swapped_for_a_link_does_not_lead_root_elsewhere(running: Server, ours: Path) -> None:
    wanted = _wanted(_theirs(running, "backups") / "shop")
    planned = generations.plan(wanted, generations.read(wanted))
    Path(wanted.path).symlink_to(ours)
    with pytest.raises(PgOpsError):
        generations.apply(wanted, planned)
    Path(wanted.path).unlink()
    generations.apply(wanted, planned)
    made = generations.read(wanted)
    assert (made.cluster, generations.plan(wanted, made)) == ("shop", ())
    # and of one that is there
    os.chmod(wanted.path, 0o700)
    planned = generations.plan(wanted, generations.read(wanted))
    Path(wanted.path).rename(f"{wanted.path}.aside")
    Path(wanted.path).symlink_to(ours)
    with pytest.raises(PgOpsError):
        generations.apply(wanted, planned)


def test_what_is_in_a_repository_is_read_as_the_server_s_user(running: Server, ours: Path) -> None:
    wanted = _wanted(_theirs(running, "backups") / "shop")
    generations.apply(wanted, generations.plan(wanted, generations.read(wanted)))
    (Path(wanted.path) / "7-17").rename(Path(wanted.path) / "aside")
    (Path(wanted.path) / "7-17").symlink_to(ours)
    shutil.copy(ours / "repository.json", running.directory / "unused")
    with pytest.raises(PgOpsError):
        generations.apply(wanted, generations.plan(wanted, generations.read(wanted)))


def test_a_directory_of_root_s_is_not_given_away(running: Server) -> None:
    wanted = _wanted(_theirs(running, "backups") / "shop")
    planned = generations.plan(wanted, generations.read(wanted))
    secrets = Path(wanted.path)
    secrets.mkdir()
    for mode in (0o755, 0o700):
        secrets.chmod(mode)
        with pytest.raises(Conflict, match="belongs to user root"):
            generations.plan(wanted, generations.read(wanted))
        with pytest.raises(PgOpsError):
            generations.apply(wanted, planned)
        assert secrets.stat().st_uid == 0


def test_root_makes_none_below_a_directory_of_the_server_s_user(running: Server) -> None:
    folder = _theirs(running, "backups") / "ours"
    folder.mkdir(mode=0o755)
    wanted = _wanted(folder / "shop")
    with pytest.raises(Conflict, match="nobody cannot make"):
        generations.plan(wanted, generations.read(wanted))
    Path(wanted.path).mkdir()
    os.chown(wanted.path, NOBODY, NOBODY)
    generations.apply(wanted, generations.plan(wanted, generations.read(wanted)))
    assert generations.read(wanted).cluster == "shop"


def test_root_makes_a_repository_where_only_root_may(running: Server) -> None:
    with tempfile.TemporaryDirectory() as base:
        os.chmod(base, 0o755)  # noqa: S103
        wanted = _wanted(Path(base) / "shop")
        generations.apply(wanted, generations.plan(wanted, generations.read(wanted)))
        found = files.read(wanted.path)
        assert found is not None
        assert (found.owner, found.mode, generations.read(wanted).cluster) == ("nobody", 0o750, "shop")


@pytest.mark.parametrize("swapped", ["the parent", "the directory"])
def test_a_third_user_whose_directory_it_is_made_in_gives_away_nothing_of_root_s(
    monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """Who owns the directory above can put another of root's in the place of what root has just made."""
    with tempfile.TemporaryDirectory() as top:
        base, other, private = (Path(top, name) for name in ("base", "other", "private"))
        for folder in (base, other, private):
            folder.mkdir()
        (private / "secret").write_text("of root")
        private.chmod(0o700)
        os.chmod(top, 0o755)  # noqa: S103
        wanted = _wanted(base / "shop")
        made = os.mkdir

        def swap(*names: Any, **places: Any) -> None:
            made(*names, **places)
            monkeypatch.setattr(os, "mkdir", made)
            if swapped == "the parent":
                private.rename(other / "shop")
                base.rename(Path(top, "aside"))
                other.rename(base)
            else:
                (base / "shop").rename(base / "aside")
                private.rename(base / "shop")

        planned = generations.plan(wanted, generations.read(wanted))
        monkeypatch.setattr(os, "mkdir", swap)
        with pytest.raises(PgOpsError):
            generations.apply(wanted, planned)
        assert (base / "shop" / "secret").read_text() == "of root"
        assert ((base / "shop").stat().st_uid, (base / "shop").stat().st_mode & 0o777) == (0, 0o700)


# --- sockets


def test_another_user_s_server_is_let_in_where_its_cluster_is_known(
    running: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.socket_dir.chmod(0o775)
    os.chown(running.socket_dir, 1, NOBODY)
    known = discovery.Instance("18-main", running.port, str(running.socket_dir), socket=True, version="18")
    with pytest.raises(Unreachable, match="where others can create a socket"):
        connect(target(running, user="postgres"))
    monkeypatch.setattr(discovery, "instances", lambda: [replace(known, owner="nobody")])
    connect(target(running, user="postgres")).close()


def _fact(at: Server, **changed: Any) -> dict[str, Any]:
    parameters = {"gather_subset": ["min"], "database": "pgops", "database_sizes": False, "max_bytes": 65536}
    found = gathering.gather(target(at, **changed), {**parameters, "prefix": "/"})
    (instance,) = found["ansible_facts"]["pg_ops"]["instances"]
    return dict(instance)


def test_a_pooler_is_told_as_such(running: Server) -> None:
    lock = running.socket_dir / f".s.PGSQL.{running.port}.lock"
    lock.rename(running.socket_dir / "aside")
    try:
        with pytest.raises(Unsupported, match="connection pooler"):
            connect(target(running))
        found = _fact(running)
        assert (found["error"]["code"], found["error"]["message"].count("pooler")) == ("unsupported", 1)
    finally:
        (running.socket_dir / "aside").rename(lock)


def test_a_process_of_somebody_else_behind_a_socket_is_found_out(running: Server) -> None:
    """A relay of another user's, which passes on all that root says."""
    folder = _theirs(running, "relay")
    path = folder / ".s.PGSQL.5432"
    running.write(folder / ".s.PGSQL.5432.lock", "1\n")
    with socket.socket(socket.AF_UNIX) as relay:
        relay.bind(str(path))
        relay.listen()
        os.chown(path, NOBODY, NOBODY)
        passing = threading.Thread(target=_pass_on, args=(relay, f"{running.socket_dir}/.s.PGSQL.{running.port}"))
        passing.start()
        with pytest.raises(Unreachable, match="belongs to user nobody, but user root listens"):
            connect(target(running, host=str(folder), port="5432"))
        passing.join()


def _pass_on(relay: socket.socket, to: str) -> None:
    client, _ = relay.accept()
    server = socket.socket(socket.AF_UNIX)
    server.connect(to)
    back = threading.Thread(target=_copy, args=(server, client))
    back.start()
    _copy(client, server)
    back.join()
    client.close()
    server.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    while read := source.recv(65536):
        sink.sendall(read)
    sink.shutdown(socket.SHUT_WR)


def test_a_server_that_ends_is_found_out(running: Server) -> None:
    with connect(target(running)) as session:
        found = postmaster.of(session)
        running.kill()
        until(lambda: not os.path.exists(f"/proc/{found.process}"), "ended")
        with pytest.raises(HostFailed, match="cannot be looked at"):
            postmaster.of(session)
