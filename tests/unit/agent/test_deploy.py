# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent, installed for real below a directory: versions, the switch, collectors, and what goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import artifact
import pytest
from disks import fill

from pgops import sources
from pgops.agent import deploy as agent
from pgops.agent import removal
from pgops.agent.declared import Desired
from pgops.agent.deploy import NewOwner
from pgops.agent.present import _misowned
from pgops.errors import Conflict, HostFailed, InvalidInput
from pgops.host import files as files_of_host
from pgops.instance.layout import Layout
from pgops.server import session
from pgops.server.programs import Use
from pgops.settings import originals

BUNDLE = sources.shipped(str(artifact.LIBRARY))
LIBRARY_PARENT = str(Path(agent.__file__).parents[2])
MINE = "-- collector: mine\n-- metric: my_metric\nSELECT 1 AS my_metric\n"
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pgops.agent import deploy
deploy.converge(json.load(sys.stdin), False)
"""

pytestmark = pytest.mark.skipif(bool(session.IMPORT_ERROR), reason="the agent needs psycopg")


OF_AN_INSTANCE: dict[str, Any] = {
    "name": "main",
    "cluster": "shop",
    "node": "db1/main",
    "host": "",
    "port": 5432,
    "socket_directory": "",
    "database": "pgops",
    "peers": [],
    "ssl_mode": "require",
    "ca_cert": None,
    "password": None,
    "owner": "postgres",
    "superuser": "",
    "repository": "",
    "capabilities": {},
}


def params(prefix: Path, *names: str, **other: Any) -> dict[str, Any]:
    """The module's arguments, for the instance main or those of some names; ``other`` may be of each instance."""
    own = {name: other.pop(name) for name in OF_AN_INSTANCE if name in other}
    return {
        "state": "present",
        "instances": [{**OF_AN_INSTANCE, **own, "name": name} for name in names or ("main",)],
        "user": "pgops",
        "collectors": [],
        "validate": False,
        "textfile_directory": None,
        "retired": [],
        "python": "",
        "prefix": str(prefix),
        "sources": BUNDLE,
        **other,
    }


def configured(collector: str, differing: Any) -> dict[str, Any]:
    """The option that configures a collector."""
    return {"metrics": {"collectors": {collector: differing}}}


def files(prefix: Path) -> set[str]:
    """All paths below a directory."""
    return {str(path.relative_to(prefix)) for path in prefix.rglob("*")}


def installed(prefix: Path) -> str:
    """The version that the command says it has, run as people run it."""
    command = Layout("main", str(prefix)).command
    return subprocess.run([command, "version"], check=True, capture_output=True, text=True).stdout.strip()


def test_prediction_run_and_second_run(tmp_path: Path) -> None:
    predicted = agent.converge(params(tmp_path), True)
    assert files(tmp_path) == set()
    done = agent.converge(params(tmp_path), False)
    assert done == predicted
    assert installed(tmp_path) in done["version"]
    assert not agent.converge(params(tmp_path), False)["changed"]


@pytest.mark.parametrize("wish", [{"user": "root"}, {"owner": "root"}])
def test_neither_the_agent_nor_a_server_runs_as_root(tmp_path: Path, wish: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="runs as root"):
        agent.converge(params(tmp_path, **wish), True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_with_other_names_is_not_given_to_the_agent(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.touch()
    os.link(secret, folder / "linked")
    (folder / "way").symlink_to(secret)
    (folder / "left").touch()
    assert _misowned(str(folder), "nobody") == [str(folder / "left")]
    for name in ("linked", "left"):
        NewOwner("owner", None, None, str(folder / name), "nobody", "nogroup").apply()
    assert [path.stat().st_uid for path in (secret, folder / "left")] == [0, 65534]


def test_several_instances_are_one_prediction_and_one_run(tmp_path: Path) -> None:
    names = ["main", "other", "third"]
    newer = {"sources": {**BUNDLE, "version.py": 'VERSION = "9"\n'}}
    for wish in ({}, newer, {"state": "absent"}):
        predicted = agent.converge(params(tmp_path, *names, **wish), True)
        assert predicted["changed"]
        assert agent.converge(params(tmp_path, *names, **wish), False) == predicted
        assert not agent.converge(params(tmp_path, *names, **wish), False)["changed"]
    left = {"usr", "usr/local", "usr/local/bin", "usr/local/lib", "etc", "var", "var/lib", "pgops.lock"}
    assert files(tmp_path) == left


def test_the_agent_goes_with_the_last_instance(tmp_path: Path) -> None:
    agent.converge(params(tmp_path, "main", "other"), False)
    # One of those to be removed was never installed.
    for names, program in ((("main", "third"), True), (("other",), False)):
        predicted = agent.converge(params(tmp_path, *names, state="absent"), True)
        assert agent.converge(params(tmp_path, *names, state="absent"), False) == predicted
        assert os.path.lexists(Layout("main", str(tmp_path)).command) == program


def test_the_program_that_archives_stays_for_a_server_that_names_it(tmp_path: Path) -> None:
    agent.converge(params(tmp_path, repository="/srv/repository/shop"), False)
    layout, shared = Layout("main", str(tmp_path)), Layout("any", str(tmp_path))
    remains = removal.read([layout], shared, "pgops", (Use("17-copy", "/srv/copy", ("restore_command",)),))
    planned = removal.plan([layout], shared, remains, "pgops")
    for change in planned:
        change.apply()
    assert [path.name for path in Path(shared.library).iterdir()] == ["archiver"]
    assert not os.path.lexists(shared.command)
    (warning,) = planned.warnings
    assert "restore_command of 17-copy (in /srv/copy)" in warning


def test_no_instance_is_no_reason_to_remove_what_they_share(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    nothing = {**params(tmp_path, state="absent"), "instances": []}
    assert agent.converge(nothing, False)["changes"] == []
    assert installed(tmp_path)


def test_a_record_of_original_settings_keeps_its_directory_and_lets_others_go(tmp_path: Path) -> None:
    agent.converge(params(tmp_path, "main", "other"), False)
    kept, gone = Layout("main", str(tmp_path)), Layout("other", str(tmp_path))
    originals.write(kept.before, "settings", {"work_mem": originals.Original(None, "8MB")})
    with pytest.raises(Conflict, match="records the original server settings"):
        agent.converge(params(tmp_path, "main", "other", state="absent"), False)
    assert not os.path.exists(gone.configuration)
    assert os.path.exists(kept.before)
    # As of a host that has settings of ours, and no agent.
    shutil.rmtree(kept.configurations)
    agent.converge(params(tmp_path, "other", state="absent"), False)
    assert os.path.exists(kept.before)


def test_instances_that_are_not_named_stay_as_they_are(tmp_path: Path) -> None:
    agent.converge(params(tmp_path, "main", "other"), False)
    before = Path(Layout("other", str(tmp_path)).agent_file).read_text()
    done = agent.converge(params(tmp_path, "main", cluster="another"), False)
    assert done["changes"] == [f"update file {Layout('main', str(tmp_path)).agent_file}"]
    assert Path(Layout("other", str(tmp_path)).agent_file).read_text() == before


def test_one_instance_declared_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Instance main is declared more than once"):
        agent.converge(params(tmp_path, "main", "main"), True)


def test_an_error_names_the_instance(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Instance other: cluster and node are required"):
        agent.converge(params(tmp_path, "other", cluster=""), True)


def test_the_program_that_archives_is_there_where_an_instance_has_a_repository(tmp_path: Path) -> None:
    program = Path(Layout("main", str(tmp_path)).archiver)
    agent.converge(params(tmp_path), False)
    assert not program.exists()
    done = agent.converge(params(tmp_path, repository="/srv/repository/shop"), False)
    assert f"create file {program}" in done["changes"]
    assert subprocess.run([program], capture_output=True, check=False).returncode in range(1, 126)
    # A server may still name it.
    agent.converge(params(tmp_path), False)
    assert program.exists()


def test_a_new_version_is_switched_to_and_one_old_kept(tmp_path: Path) -> None:
    versions = []
    for number in range(4):
        bundle = {**BUNDLE, "version.py": f'VERSION = "9.{number}"\n'}
        versions.append(agent.converge(params(tmp_path, sources=bundle), False)["version"])
        assert installed(tmp_path) == f"9.{number}"
        assert not agent.converge(params(tmp_path, sources=bundle), False)["changed"]
    folder = Path(Layout("main", str(tmp_path)).library) / "versions"
    assert sorted(os.listdir(folder)) == sorted(versions[-2:])


def test_a_version_that_does_not_start_is_never_switched_to(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    before = files(tmp_path)
    bundle = {**BUNDLE, "version.py": "raise SystemExit(3)\n"}
    with pytest.raises(HostFailed):
        agent.converge(params(tmp_path, sources=bundle), False)
    assert installed(tmp_path)
    assert files(tmp_path) == before


def test_an_edited_file_is_seen_and_put_back(tmp_path: Path) -> None:
    version = agent.converge(params(tmp_path), False)["version"]
    path = Path(Layout("main", str(tmp_path)).library) / "versions" / version / "pgops" / "plan.py"
    path.write_text(path.read_text() + "# mine\n")
    assert agent.converge(params(tmp_path), False)["changes"] == [f"update agent {version}"]
    assert "# mine" not in path.read_text()


@pytest.mark.parametrize("tampered", ["bin/pgops", "pgops", ""])
def test_a_mode_that_somebody_changed_is_put_back(tmp_path: Path, tampered: str) -> None:
    version = agent.converge(params(tmp_path), False)["version"]
    path = Path(Layout("main", str(tmp_path)).versions) / version / tampered
    path.chmod(0o700)
    assert agent.converge(params(tmp_path), False)["changes"] == [f"update agent {version}"]
    assert path.stat().st_mode & 0o777 == 0o755


def test_the_version_that_was_in_use_is_kept_also_after_going_back_to_it(tmp_path: Path) -> None:
    bundles = [{**BUNDLE, "version.py": f'VERSION = "9.{number}"\n'} for number in (0, 1, 0, 2)]
    used = [agent.converge(params(tmp_path, sources=bundle), False)["version"] for bundle in bundles]
    assert sorted(os.listdir(Layout("main", str(tmp_path)).versions)) == sorted({used[-2], used[-1]})


def test_what_killed_runs_left_is_cleared_away(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    layout = Layout("main", str(tmp_path))
    (Path(layout.versions) / ".new-killed" / "pgops").mkdir(parents=True)
    (Path(layout.configuration) / ".agent.json.pgops-new").write_text("half")
    assert agent.converge(params(tmp_path), False)["changes"] == ["remove agent .new-killed"]
    other = agent.converge(params(tmp_path, cluster="other"), False)
    assert other["changes"] == [f"update file {layout.agent_file}"]
    assert [path for path in tmp_path.rglob(".*") if path.name != ".lock"] == []


def test_a_command_of_somebody_elses_stays(tmp_path: Path) -> None:
    mine = Path(Layout("main", str(tmp_path)).command)
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(Conflict, match="was not created by"):
        agent.converge(params(tmp_path), False)
    agent.converge(params(tmp_path, state="absent"), False)
    assert mine.read_text() == "mine"


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/pgops").symlink_to(tmp_path / "srv")
    with pytest.raises(Conflict, match="is a link, but must be a directory"):
        agent.converge(params(tmp_path), False)


def test_an_editors_lock_among_the_collectors_does_no_harm(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    (Path(Layout("main", str(tmp_path)).collectors) / ".#mine.sql").symlink_to("me@db1.1234")
    agent.converge(params(tmp_path, collectors=[MINE]), False)
    assert sorted(sources.gather(Layout("main", str(tmp_path)).collectors, (".sql",))) == ["mine.sql"]


@pytest.mark.parametrize("python", ["python3", "/opt/my python/bin/python"])
def test_a_python_that_cannot_stand_in_a_script_is_refused(tmp_path: Path, python: str) -> None:
    with pytest.raises(InvalidInput, match="absolute path without spaces"):
        agent.converge(params(tmp_path, python=python), True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_user_gets_all_that_was_the_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout("main", str(tmp_path))
    agent.converge(params(tmp_path, password="correct horse"), False)
    (Path(layout.state) / "collect.lock").touch()
    # Owners are kept only below /, where the tests leave nothing.
    monkeypatch.setattr(Desired, "owners", property(lambda desired: ("root", desired.user, desired.group)))
    # Nor can others reach this directory, or the Python of these tests.
    monkeypatch.setattr(Desired, "runners", ())
    predicted = agent.converge(params(tmp_path, user="nobody"), True)
    assert agent.converge(params(tmp_path, user="nobody"), False) == predicted
    assert not agent.converge(params(tmp_path, user="nobody"), False)["changed"]
    for path in (layout.passfile, f"{layout.state}/collect.lock", layout.state):
        assert Path(path).owner() == "nobody"


def test_collectors_come_and_go_and_must_be_right(tmp_path: Path) -> None:
    agent.converge(params(tmp_path, collectors=[MINE]), False)
    path = Path(Layout("main", str(tmp_path)).collectors) / "mine.sql"
    assert path.read_text() == MINE
    agent.converge(params(tmp_path), False)
    assert not path.exists()
    for wrong in (MINE.replace("my_metric", "deadlocks"), MINE.replace("mine", "locks"), "SELECT 1"):
        with pytest.raises(InvalidInput):
            agent.converge(params(tmp_path, collectors=[wrong]), False)
    with pytest.raises(InvalidInput, match="nonsense"):
        agent.converge(
            params(tmp_path, capabilities={"metrics": {"collectors": {"nonsense": {"interval": 5}}}}), False
        )


@pytest.mark.parametrize(
    "settings", [{"interval": 0}, {"interval": 0.5}, {"timeout": 0}, {"timeout": "inf"}, {"enabled": "perhaps"}, 5]
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(InvalidInput, match="settings of collector locks"):
        agent.converge(params(tmp_path, capabilities={"metrics": {"collectors": {"locks": settings}}}), False)


def test_settings_are_understood_as_ansible_writes_them(tmp_path: Path) -> None:
    settings = {"locks": {"enabled": "false", "interval": "120", "timeout": "2.5"}}
    agent.converge(params(tmp_path, capabilities={"metrics": {"collectors": settings}}), False)
    held = json.loads(Path(Layout("main", str(tmp_path)).agent_file).read_text())["parts"]["metrics"]["collectors"]
    assert held == {"locks": {"enabled": False, "interval": 120, "timeout": 2.5}}


def test_the_password_is_in_one_file_and_in_no_diff(tmp_path: Path) -> None:
    done = agent.converge(params(tmp_path, password="correct horse"), False)
    assert "correct horse" not in str(done)
    path = Path(Layout("main", str(tmp_path)).passfile)
    assert path.read_text() == "*:*:pgops:pgops:correct horse\n"
    assert path.stat().st_mode & 0o777 == 0o600
    other = agent.converge(params(tmp_path, password="battery staple"), False)
    assert "staple" not in str(other)
    assert other["changed"]
    assert not agent.converge(params(tmp_path), False)["changed"]


def test_absent_takes_its_instance_and_the_last_takes_all(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    agent.converge(params(tmp_path, "other"), False)
    predicted = agent.converge(params(tmp_path, "other", state="absent"), True)
    assert agent.converge(params(tmp_path, "other", state="absent"), False) == predicted
    assert installed(tmp_path)
    agent.converge(params(tmp_path, state="absent"), False)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "pgops.lock"] == []
    assert not agent.converge(params(tmp_path, state="absent"), False)["changed"]


def test_a_server_that_is_down_or_not_mounted_is_not_gone(tmp_path: Path) -> None:
    layout = Layout("17-main", str(tmp_path))
    assert not removal.server_gone(layout)  # nothing is known of it
    agent.converge(params(tmp_path, "17-main"), False)
    assert not removal.server_gone(layout)
    data = tmp_path / "data"
    found = json.loads(Path(layout.agent_file).read_text())
    found["real_paths"] = {str(path): str(path) for path in (data, data / "pg_wal")}
    Path(layout.agent_file).write_text(json.dumps(found))
    assert removal.server_gone(layout, str(tmp_path))
    cluster = tmp_path / "etc/postgresql/17/main"
    cluster.mkdir(parents=True)
    (cluster / "postgresql.conf").write_text(f"data_directory = '{data}'\n")
    assert not removal.server_gone(layout, str(tmp_path))
    (cluster / "postgresql.conf").unlink()
    data.mkdir()
    assert not removal.server_gone(layout, str(tmp_path))


def test_node_exporter_gets_a_link_to_a_file_that_keeps_its_content(tmp_path: Path) -> None:
    layout, folder = Layout("main", str(tmp_path)), tmp_path / "textfile"
    folder.mkdir()
    wish = params(tmp_path, textfile_directory=str(folder))
    predicted = agent.converge(wish, True)
    assert list(folder.iterdir()) == []
    assert agent.converge(wish, False) == predicted
    link = folder / "pgops_main.prom"
    assert (link.is_symlink(), link.read_bytes()) == (True, b"")
    assert Path(layout.exported).stat().st_mode & 0o777 == 0o644
    Path(layout.exported).write_text("pgops_x 1\n")
    assert not agent.converge(wish, False)["changed"]
    assert link.read_text() == "pgops_x 1\n"


@pytest.mark.parametrize("other", [None, "elsewhere"])
def test_the_link_goes_when_node_exporter_reads_elsewhere_or_nowhere(tmp_path: Path, other: str | None) -> None:
    for name in ("textfile", "elsewhere"):
        (tmp_path / name).mkdir()
    agent.converge(params(tmp_path, textfile_directory=str(tmp_path / "textfile")), False)
    wish = params(tmp_path, textfile_directory=str(tmp_path / other) if other else None)
    predicted = agent.converge(wish, True)
    assert agent.converge(wish, False) == predicted
    assert not agent.converge(wish, False)["changed"]
    assert list((tmp_path / "textfile").iterdir()) == []
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == (["pgops_main.prom"] if other else [])


def test_absent_takes_the_link_first(tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    agent.converge(params(tmp_path, textfile_directory=str(folder)), False)
    gone = agent.converge(params(tmp_path, state="absent"), True)
    assert gone["changes"][0] == f"remove link {folder}/pgops_main.prom"
    assert agent.converge(params(tmp_path, state="absent"), False) == gone
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_file_or_link_of_somebody_elses_for_node_exporter_stays(tmp_path: Path, state: str) -> None:
    mine = tmp_path / "textfile" / "pgops_main.prom"
    mine.parent.mkdir()
    wish = params(tmp_path, textfile_directory=str(mine.parent))
    agent.converge(wish, False)
    mine.unlink()
    mine.symlink_to("/mine")
    if state == "present":
        with pytest.raises(Conflict, match="was not created by"):
            agent.converge(wish, False)
    else:
        agent.converge({**wish, "state": "absent"}, False)
    assert os.readlink(mine) == "/mine"


def test_a_textfile_directory_has_to_be_absolute_and_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="must be an absolute path"):
        agent.converge(params(tmp_path, textfile_directory="here"), True)
    with pytest.raises(HostFailed, match=r"nowhere/pgops_main\.prom cannot be written: No such file"):
        agent.converge(params(tmp_path, textfile_directory=str(tmp_path / "nowhere")), False)


def test_a_run_killed_at_any_moment_leaves_an_agent_that_works(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    for number in range(6):
        bundle = {**BUNDLE, "version.py": f'VERSION = "9.{number}"\n'}
        argument = json.dumps(params(tmp_path, sources=bundle))
        with subprocess.Popen([sys.executable, "-c", RUN, LIBRARY_PARENT], stdin=subprocess.PIPE, text=True) as run:
            killer = threading.Timer(random.uniform(0.1, 1.2), run.send_signal, [signal.SIGKILL])
            killer.start()
            with contextlib.suppress(BrokenPipeError):
                run.communicate(argument)
            killer.cancel()
        assert installed(tmp_path)
    agent.converge(params(tmp_path), False)
    assert not agent.converge(params(tmp_path), False)["changed"]


LATE = """
import os, sys
sys.stdin.read()
os.makedirs(sys.argv[1] + "/__pycache__", exist_ok=True)
"""
"""Who goes on to write into a directory after the run that started it was killed."""


def test_what_a_killed_run_still_compiles_is_not_left_behind(tmp_path: Path) -> None:
    wish = params(tmp_path)
    agent.converge(wish, False)
    leftover = Path(Layout("main", str(tmp_path)).versions) / ".new-abc"
    leftover.mkdir()
    with files_of_host.occupied(str(leftover)) as held:
        command = [sys.executable, "-c", LATE, str(leftover)]
        late = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[held])
    with late, ThreadPoolExecutor(1) as beside:
        run = beside.submit(agent.converge, wish, False)
        assert late.stdin
        late.stdin.close()
        assert run.result()["changes"] == ["remove agent .new-abc"]
        assert late.wait() == 0
    assert not leftover.exists()


def test_a_full_disk_changes_nothing_and_says_so(small_disk: Path) -> None:
    agent.converge(params(small_disk), False)
    before = files(small_disk)
    fill(small_disk)
    bundle = {**BUNDLE, "version.py": 'VERSION = "9.9"\n'}
    with pytest.raises(HostFailed, match=r"No space left.*Free space"):
        agent.converge(params(small_disk, sources=bundle), False)
    assert files(small_disk) == {*before, "filler"}
    assert installed(small_disk)
