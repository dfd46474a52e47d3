"""A fleet of real hosts to test on: systemd containers with PostgreSQL, reached by SSH.

    python3 tests/fleet/fleet.py up [HOST ...]      what is missing or unhealthy is made, the rest is left alone
    python3 tests/fleet/fleet.py reset [HOST ...]   as they were when made, and the standbys of what is reset
    python3 tests/fleet/fleet.py down [--images]    hosts and network removed, on request the images too

Hosts: pg15 (Debian 12), pg17 (Debian 13), its streaming standby pg17b, and pg18 (Debian testing). Each has its own
system identifier, SSH host keys, certificate and machine id. Primaries carry the databases of the `*.sql` files here.
Root on Debian is all it needs: packages come from the machine's own mirror, images are built by mmdebstrap and kept
in podman's store under a hash of their recipe. A cluster's hosts are kept as images too, once they are ready: that is
what a reset starts. There is one fleet a machine: the last checkout to say `up` has it.

`build/fleet/` gets `inventory.yml`, `id_ed25519` and `known_hosts`. Addresses stay the same until `down`.

Files: `image.sh` is the last step of an image's build, `first_boot.sh` a new host's first process,
`host_state.sh` tells how a host is.

Exit status: 0, 1 for a failure, 2 for wrong usage, 3 where this machine cannot run a fleet at all.

Unlike real machines, the hosts cannot raise limits above 4096 files and processes, lower an OOM score, mount block
devices or set the clock, and on a machine with the old cgroup hierarchies MemoryMax=, TasksMax= and CPUQuota= do
nothing. They share the machine's kernel, disk and load average.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import ipaddress
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workshop"))
import debian

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "fleet"
KEY = BUILD / "id_ed25519"
KNOWN_HOSTS = BUILD / "known_hosts"
INVENTORY = BUILD / "inventory.yml"
LOCK = Path("/run/lock/pgops-fleet.lock")

NAME = "pgops-fleet"  # of the network, the images and the containers' label
KEPT = f"localhost/{NAME}-kept"
SHARED = "/srv/shared"  # the same directory on all hosts
PODMAN = ("podman", "--runtime", "runc")  # crun refuses a hybrid cgroup hierarchy
MACHINE_PACKAGES = (
    "podman",
    "runc",
    "netavark",
    "aardvark-dns",
    "iptables",
    "mmdebstrap",
    "openssh-client",
    "debian-archive-keyring",
)
HOST_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-apt",
    "python3-psycopg",
    "sudo",
    "openssh-server",
    "postgresql",
    "postgresql-client",
    "postgresql-contrib",
    "prometheus-postgres-exporter",  # what metrics are compared with; never a service of the hosts
    "ssl-cert",
    "cron",
    "iproute2",
    "procps",
    "locales",
    "lz4",
    "zstd",
)
# What root has on any machine and units' settings rely on: without SYS_ADMIN systemd silently ignores every
# sandbox, without NET_ADMIN a private network.
CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SYS_NICE", "SYS_PTRACE", "DAC_READ_SEARCH", "AUDIT_WRITE")
DATABASES = ("accounts.sql", "shop.sql", "weird.sql")
READY_WITHIN = 120.0  # seconds


@dataclass(frozen=True)
class Host:
    """A host of the fleet. `number` is the last part of its address."""

    name: str
    suite: str
    cluster: str
    number: int
    primary: str = ""

    @property
    def role(self) -> str:
        return "standby" if self.primary else "primary"

    @property
    def mac_address(self) -> str:
        """Always the same, or neighbours go on talking to a host's predecessor for half a minute."""
        return f"02:70:67:6f:70:{self.number:02x}"


HOSTS = (
    Host("pg15", "bookworm", "billing", 15),
    Host("pg17", "trixie", "shop", 17),
    Host("pg17b", "trixie", "shop", 27, primary="pg17"),
    Host("pg18", "forky", "search", 18),
)


class FleetError(Exception):
    """Something failed; the message is for the user."""


class UnsupportedError(FleetError):
    """This machine cannot run a fleet; the message says why in one sentence."""


# --- Running programs ---------------------------------------------------------------------------------------------

T = TypeVar("T")
S = TypeVar("S")


def run(command: Sequence[str], text: str | None = None, timeout: float = 600) -> str:
    """Run a program with `text` as its input and return its output; raise FleetError with its last words."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            input=text or "",
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(f"{command[0]}: {error}") from error
    if done.returncode:
        words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise FleetError(f"{' '.join(command[:6])} ... ended with {done.returncode}:\n{words}")
    return done.stdout


def podman(*arguments: str, timeout: float = 600) -> str:
    return run([*PODMAN, *arguments], timeout=timeout)


def succeeds(action: Callable[[], object]) -> bool:
    try:
        action()
    except FleetError:
        return False
    return True


def exists(kind: str, name: str) -> bool:
    return succeeds(lambda: podman(kind, "exists", name))


def in_parallel(action: Callable[[S], T], items: Iterable[S], workers: int = 8) -> list[T]:
    """Results in the items' order; the first failure is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(action, items))


def say(message: str) -> None:
    print(message, flush=True)


def write_if_different(path: Path, content: str) -> None:
    """Replace the file in one step, and only where that changes anything."""
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(content, encoding="utf-8")
    draft.replace(path)


# --- The machine --------------------------------------------------------------------------------------------------


def require_machine() -> None:
    """Make sure that containers can run here, installing what is missing."""
    if os.geteuid() != 0:
        raise UnsupportedError("the fleet needs root, to run containers with systemd inside")
    if not is_debian():
        raise UnsupportedError("the fleet needs Debian, whose packages its hosts are made of")
    missing = missing_packages()
    if missing:
        install(missing)
    try:
        podman("info")
    except FleetError as error:
        raise UnsupportedError(f"the fleet needs podman, which does not work here: {error}") from error


def is_debian() -> bool:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return "ID=debian" in lines


def missing_packages() -> list[str]:
    known = run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n"]).splitlines()
    return [package for package in MACHINE_PACKAGES if f"{package} installed" not in known]


def install(packages: list[str]) -> None:
    say(f"installing {' '.join(packages)}")
    try:
        debian.install(packages)
    except debian.MissingError as error:
        raise UnsupportedError(f"the fleet needs {', '.join(packages)}, which apt cannot install: {error}") from error


def debian_packages() -> tuple[str, list[str]]:
    """The address of this machine's Debian mirror, and its options for reaching it."""
    try:
        return debian.mirror(), debian.options()
    except debian.MissingError as error:
        raise UnsupportedError(f"the fleet needs Debian's packages: {error}") from error


# --- Images -------------------------------------------------------------------------------------------------------


def image_recipe(suite: str, mirror: str, options: Iterable[str]) -> list[str]:
    """The command that builds a suite's root file system; the output file and the mirror come last."""
    packages = [*HOST_PACKAGES, *(["ca-certificates"] if mirror.startswith("https:") else [])]
    # Testing's index is valid for a week only, and mirrors of snapshots keep it longer.
    apt = dict.fromkeys([*options, *(['Acquire::Check-Valid-Until "false";'] if suite == "forky" else [])])
    unread = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")
    clusters = '"$1/etc/postgresql-common/createcluster.d"'
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        *(f"--aptopt={option}" for option in apt),
        *(f"--dpkgopt=path-exclude={path}" for path in unread),
        "--dpkgopt=path-include=/usr/share/locale/de/*",  # the language of a server in the tests
        f"--essential-hook=mkdir -p {clusters} && echo create_main_cluster=false > {clusters}/image.conf",
        "--skip=cleanup/reproducible/machine-id",
        suite,
        "-",
        mirror,
    ]


def image_name(suite: str, recipe: Iterable[str]) -> str:
    text = "\0".join([*recipe, (HERE / "image.sh").read_text(encoding="utf-8")])
    return f"localhost/{NAME}:{suite}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def build_image(suite: str, image: str, recipe: Sequence[str]) -> None:
    started = time.monotonic()
    say(f"building the image of {suite}")
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-") as scratch:
        archive = f"{scratch}/{suite}.tar"
        finish = f"--customize-hook=sh '{HERE}/image.sh' \"$1\""
        run([*recipe[:-3], finish, suite, archive, recipe[-1]], timeout=1800)
        podman("import", "--quiet", archive, image)
    say(f"built the image of {suite} in {time.monotonic() - started:.0f} s")


def ensure_images(hosts: Iterable[Host]) -> dict[str, str]:
    """Build what is missing, and return each suite's image."""
    mirror, options = debian_packages()
    recipes = {host.suite: image_recipe(host.suite, mirror, options) for host in hosts}
    images = {suite: image_name(suite, recipe) for suite, recipe in recipes.items()}
    missing = [suite for suite, image in images.items() if not exists("image", image)]
    in_parallel(lambda suite: build_image(suite, images[suite], recipes[suite]), missing, os.cpu_count() or 1)
    return images


# --- Hosts --------------------------------------------------------------------------------------------------------


def ensure_network() -> ipaddress.IPv4Network:
    if not exists("network", NAME):
        podman("network", "create", NAME)
    described = json.loads(podman("network", "inspect", NAME))
    return ipaddress.IPv4Network(described[0]["subnets"][0]["subnet"])


def ensure_key() -> str:
    """Make the key that the hosts let in, unless it is there; return the public half."""
    public = KEY.with_suffix(".pub")
    if not (KEY.exists() and public.exists()):
        BUILD.mkdir(parents=True, exist_ok=True)
        KEY.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", str(KEY)])
    return public.read_text(encoding="utf-8").strip()


@dataclass(frozen=True)
class Fleet:
    """What every host is made with."""

    images: dict[str, str]
    network: ipaddress.IPv4Network
    public_key: str

    def address(self, host: Host) -> str:
        return str(self.network[host.number])

    def version(self, host: Host) -> str:
        """Differs when the host would be made differently today."""
        files = ("first_boot.sh", "replication.sql", *DATABASES)
        parts = [self.images[host.suite], self.address(host), self.public_key, SHARED]
        parts += [(HERE / name).read_text(encoding="utf-8") for name in files]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    def kept(self, host: Host) -> str:
        """The image of the host as it was when it was made."""
        return f"{KEPT}:{host.name}-{self.version(host)}"


def containers() -> dict[str, str]:
    """The running hosts' names, with the version each was made with."""
    listed = json.loads(podman("ps", "--filter", f"label={NAME}", "--format", "json") or "[]")
    return {container["Names"][0]: container["Labels"][NAME] for container in listed}


def shared() -> Path:
    """The directory that all hosts see at the same place, as they would a network's file system; it outlives them."""
    folder = BUILD / "shared"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def start(fleet: Fleet, host: Host, image: str) -> None:
    """Put a new container in the host's place."""
    podman("rm", "--force", "--ignore", "--volumes", "--time", "0", host.name)
    podman(
        *("run", "--detach", "--name", host.name, "--hostname", host.name),
        *("--label", f"{NAME}={fleet.version(host)}", "--systemd=always"),
        *("--network", NAME, "--ip", fleet.address(host), "--mac-address", host.mac_address),
        *("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--shm-size", "256m"),
        *("--cap-add", ",".join(CAPABILITIES)),
        *("--volume", f"{shared()}:{SHARED}"),
        image,
        *("sh", "-c", (HERE / "first_boot.sh").read_text(encoding="utf-8"), "first_boot", fleet.public_key),
        *([host.primary] if host.primary else []),
    )


def on_host(fleet: Fleet, host: Host, command: str, text: str) -> str:
    """Run a command over SSH, as Ansible will."""
    options = (
        f'UserKnownHostsFile="{KNOWN_HOSTS}"',
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "ConnectTimeout=3",
    )
    flags = [word for option in options for word in ("-o", option)]
    return run(["ssh", "-F", "none", "-i", str(KEY), *flags, f"admin@{fleet.address(host)}", command], text, 120)


def state(fleet: Fleet, host: Host) -> str:
    """Three words, as `host_state.sh` prints them; `unreachable` where SSH does not answer."""
    try:
        script = (HERE / "host_state.sh").read_text(encoding="utf-8")
        return on_host(fleet, host, "sudo sh -s", script).strip()
    except FleetError:
        return "unreachable"


def healthy_states(host: Host) -> tuple[str, ...]:
    """A unit that a test left failed does not make a host unhealthy."""
    return tuple(f"{system} {host.role} ready" for system in ("running", "degraded"))


def wait_until(host: Host, holds: Callable[[], bool], what: str, every: float) -> None:
    """Ask `every` so many seconds until it holds; raise FleetError with the host's last words if it does not."""
    started = time.monotonic()
    checked = started
    while not holds():
        now = time.monotonic()
        gone = now - checked > 2 and host.name not in containers()
        if gone or now - started > READY_WITHIN:
            log = podman("logs", "--tail", "15", host.name)
            raise FleetError(f"{host.name}: {what} within {now - started:.0f} s\n{log}")
        checked = now if now - checked > 2 else checked
        time.sleep(every)


def ssh_answers(fleet: Fleet, host: Host) -> bool:
    with suppress(OSError), socket.create_connection((fleet.address(host), 22), timeout=1):
        return True
    return False


def learn_host_keys(fleet: Fleet, hosts: Iterable[Host]) -> None:
    """Take the host keys out of the containers, which beats trusting the first answer on the network."""

    def host_key(host: Host) -> tuple[str, str]:
        wait_until(host, lambda: ssh_answers(fleet, host), "SSH did not answer", every=0.1)
        key = podman("exec", host.name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        return fleet.address(host), " ".join(key.split()[:2])

    lines = KNOWN_HOSTS.read_text(encoding="utf-8").splitlines() if KNOWN_HOSTS.exists() else []
    keys = {address: key for address, _, key in (line.partition(" ") for line in lines)}
    keys.update(in_parallel(host_key, hosts))
    write_if_different(KNOWN_HOSTS, "".join(f"{address} {key}\n" for address, key in sorted(keys.items())))


def fill(fleet: Fleet, host: Host) -> None:
    """Make the users' databases, and let the host's standbys in."""
    standbys = ",".join(other.name for other in HOSTS if other.primary == host.name)
    files = (HERE / name for name in (*DATABASES, "replication.sql"))
    script = "".join(file.read_text(encoding="utf-8") for file in files)
    psql = f"psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -v standbys={standbys} -d postgres -f -"
    steps = f"cd /; until pg_isready -q; do sleep 0.1; done; PGOPTIONS=--synchronous_commit=off exec {psql}"
    on_host(fleet, host, f"sudo -u postgres sh -c {shlex.quote(steps)}", script)


def make(fleet: Fleet, hosts: Sequence[Host]) -> None:
    """Make hosts anew, all at once: from what was kept of them where it was, and then of whole clusters only, since a
    standby follows the primary that it was cloned from."""
    started = time.monotonic()
    again = [host for host in hosts if all(exists("image", fleet.kept(node)) for node in cluster(host))]
    again = [host for host in again if set(cluster(host)) <= set(hosts)]
    new = [host for host in hosts if host not in again]
    images = {host: fleet.kept(host) if host in again else fleet.images[host.suite] for host in hosts}
    in_parallel(lambda host: start(fleet, host, images[host]), hosts)
    fill_all(fleet, new)
    learn_host_keys(fleet, hosts)
    await_all(fleet, hosts, started)
    whole = [host for host in new if set(cluster(host)) <= set(new)]
    if whole:
        keep(fleet, whole)
        await_all(fleet, whole, started)


def cluster(host: Host) -> list[Host]:
    """A host's cluster, the primary first."""
    return [node for node in HOSTS if node.cluster == host.cluster]


def fill_all(fleet: Fleet, hosts: Sequence[Host]) -> None:
    """Give new primaries what is in them; their standbys prepare themselves, and wait for it."""
    primaries = [host for host in hosts if not host.primary]
    learn_host_keys(fleet, primaries)
    in_parallel(lambda host: fill(fleet, host), primaries)
    standbys = [host for host in hosts if host.primary]
    in_parallel(lambda host: podman("exec", host.name, "touch", "/run/primary-is-ready"), standbys)


def await_all(fleet: Fleet, hosts: Sequence[Host], started: float) -> None:
    """Wait until the hosts are healthy."""

    def await_health(host: Host) -> None:
        wanted = healthy_states(host)[0]
        wait_until(host, lambda: state(fleet, host) == wanted, f"was not '{wanted}'", every=0.5)
        say(f"{host.name} is ready after {time.monotonic() - started:.1f} s")

    in_parallel(await_health, hosts)


def keep(fleet: Fleet, hosts: Sequence[Host]) -> None:
    """Keep the hosts as they are, shut down. Standbys stop first: they must not be ahead of their primaries."""
    for some in ([host for host in hosts if host.primary], [host for host in hosts if not host.primary]):
        in_parallel(lambda host: podman("stop", "--time", "30", host.name), some)
    images = podman("images", "--format", "{{.Repository}}:{{.Tag}}", KEPT).split()
    outdated = [image for host in hosts for image in images if image.startswith(f"{KEPT}:{host.name}-")]
    if outdated:
        podman("rmi", "--force", *outdated)
    in_parallel(lambda host: podman("commit", "--quiet", host.name, fleet.kept(host)), hosts)
    for host in sorted(hosts, key=lambda host: host.primary):
        podman("start", host.name)


# --- The inventory ------------------------------------------------------------------------------------------------


def inventory(fleet: Fleet, hosts: Sequence[Host]) -> str:
    lines = [
        "# Written by tests/fleet/fleet.py.",
        "all:",
        "  vars:",
        "    ansible_user: admin",
        f"    ansible_ssh_private_key_file: {json.dumps(str(KEY))}",
        f"    ansible_ssh_common_args: {json.dumps(ssh_arguments())}",
        "    ansible_python_interpreter: /usr/bin/python3",
        "  children:",
    ]
    for cluster in dict.fromkeys(host.cluster for host in hosts):
        lines += [f"    {cluster}:", "      vars:", f"        pgops_cluster: {cluster}", "      hosts:"]
        for host in hosts:
            if host.cluster == cluster:
                lines += [f"        {host.name}:", f"          ansible_host: {fleet.address(host)}"]
    return "\n".join(lines) + "\n"


def ssh_arguments() -> str:
    options = (
        f"UserKnownHostsFile='\"{KNOWN_HOSTS}\"'",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "ControlMaster=auto",
        "ControlPersist=60s",
    )
    return " ".join(f"-o {option}" for option in options)


# --- Commands -----------------------------------------------------------------------------------------------------


def chosen(names: Sequence[str]) -> list[Host]:
    return [host for host in HOSTS if not names or host.name in names]


def with_primaries(hosts: Sequence[Host]) -> list[Host]:
    needed = {host.primary for host in hosts} | {host.name for host in hosts}
    return [host for host in HOSTS if host.name in needed]


def with_standbys(hosts: Sequence[Host]) -> list[Host]:
    names = {host.name for host in hosts}
    return [host for host in HOSTS if host.name in names or host.primary in names]


def prepare(hosts: Sequence[Host]) -> Fleet:
    public_key = ensure_key()
    return Fleet(ensure_images(hosts), ensure_network(), public_key)


def unhealthy(fleet: Fleet, hosts: Sequence[Host]) -> list[Host]:
    """The hosts that have to be made (again); says why where it makes a difference."""
    running = containers()

    def complaint(host: Host) -> str:
        if host.name not in running:
            return "is not there"
        if running[host.name] != fleet.version(host):
            return "was made by another recipe or for another checkout"
        seen = state(fleet, host)
        return "" if seen in healthy_states(host) else f"is not healthy ({seen})"

    complaints = dict(zip(hosts, in_parallel(complaint, hosts)))
    for host, text in complaints.items():
        if text:
            say(f"{host.name} {text}: making it")
    return [host for host in hosts if complaints[host]]


def up(names: Sequence[str]) -> None:
    hosts = with_primaries(chosen(names))
    fleet = prepare(hosts)
    bad = unhealthy(fleet, hosts)
    if bad:
        make(fleet, [host for host in with_standbys(bad) if host in hosts or host.name in containers()])
    describe(fleet)


def reset(names: Sequence[str]) -> None:
    hosts = with_standbys(chosen(names))
    fleet = prepare(with_primaries(hosts))
    if not names:
        for left in shared().iterdir():
            shutil.rmtree(left)
    primaries = [host for host in with_primaries(hosts) if host not in hosts]
    make(fleet, with_standbys([*hosts, *unhealthy(fleet, primaries)]))
    describe(fleet)


def describe(fleet: Fleet) -> None:
    running = containers()
    write_if_different(INVENTORY, inventory(fleet, [host for host in HOSTS if host.name in running]))
    say(f"the fleet is up: {' '.join(sorted(running))} in {INVENTORY}")


def down(images: bool) -> None:
    names = podman("ps", "--all", "--filter", f"label={NAME}", "--format", "{{.Names}}").split()
    if names:
        podman("rm", "--force", "--volumes", "--time", "0", *names)
    if exists("network", NAME):
        podman("network", "rm", NAME)
    INVENTORY.unlink(missing_ok=True)
    KNOWN_HOSTS.unlink(missing_ok=True)
    if images:
        for name in (KEPT, f"localhost/{NAME}"):
            built = podman("images", "--format", "{{.Repository}}:{{.Tag}}", name).split()
            if built:
                podman("rmi", *built)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Real hosts to test on.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "reset"):
        command = commands.add_parser(name)
        command.add_argument("hosts", nargs="*", metavar="HOST", help=" ".join(host.name for host in HOSTS))
    commands.add_parser("down").add_argument("--images", action="store_true", help="remove the images too")
    parsed = parser.parse_args(arguments)
    unknown = set(getattr(parsed, "hosts", ())) - {host.name for host in HOSTS}
    if unknown:
        parser.error(f"no such host: {' '.join(sorted(unknown))}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parse(arguments)
    try:
        require_machine()
        with LOCK.open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if parsed.command == "down":
                down(parsed.images)
            else:
                {"up": up, "reset": reset}[parsed.command](parsed.hosts)
    except UnsupportedError as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 3
    except FleetError as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
