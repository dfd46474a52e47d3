# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of backups, put back into a data directory and its tablespaces: copied, unpacked, combined, verified.

All as the server's user. What goes on below a directory that is being made is kept in SCRATCH there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..errors import HostFailed, ToolMissing
from ..host import commands, files, streams
from ..repository import archiver, backups
from ..repository.backups import Kept

SCRATCH = "pgops-scratch"
MARKER = "pgops-restoring.json"
"""The file that a data directory has while it is restored."""
INSIDE = "before-restore-"
"""Of the name of a directory that has the old content of the one in which it is."""
NOT_OURS = ("lost+found", ".snapshot", ".zfs")
"""What file systems have at their top by themselves."""
THREADS = 4
LONGEST = 7 * 86400.0
"""Seconds that a program may take for a backup."""
TABLESPACE_MAP = "tablespace_map"
BACKUP_MANIFEST = "backup_manifest"
LINKS = "pg_tblspc"


def check_manifest(path: str, kept: Kept) -> None:
    """Compare the backup_manifest in the directory of a backup with what the backup's own manifest says.

    Raises HostFailed.
    """
    place = os.path.join(path, backups.DATA, BACKUP_MANIFEST)
    try:
        digest = hashlib.sha256(files.contents(place)).hexdigest()
    except OSError as error:
        raise files.failure(error, f"{place} cannot be read") from error
    if digest != kept.manifest.checksum:
        raise HostFailed(
            f"{place} is damaged: its checksum is not that in the backup's {backups.MANIFEST}.",
            "Restore it from a copy of the repository, or recover from another backup.",
        )


def size_of(path: str) -> int:
    """The bytes of all files below a directory. Raises OSError."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_size for folder, _folders, names in os.walk(path) for name in names
    )


# --- plain


def copy_tree(source: str, target: str, threads: int = THREADS) -> None:
    """Copy a directory with its modes into one that exists; links stay as they are.

    Raises HostFailed.
    """
    try:
        with ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(_copy, *pair) for pair in _made(source, target)]
            for one in waiting:
                one.result()
    except archiver.Failure as error:
        raise HostFailed(f"{error}.") from error
    except OSError as error:
        raise files.failure(error, f"{source} cannot be copied to {target}") from error


def _made(source: str, target: str) -> Iterator[tuple[str, str]]:
    """Make the directories and links; the files that are left."""
    for folder, folders, names in os.walk(source):
        here = os.path.normpath(os.path.join(target, os.path.relpath(folder, source)))
        os.makedirs(here, exist_ok=True)
        os.chmod(here, stat.S_IMODE(os.stat(folder).st_mode) if here != os.path.normpath(target) else 0o700)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in [*links, *names]:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                os.symlink(os.readlink(path), os.path.join(here, name))
            else:
                yield path, os.path.join(here, name)


def _copy(source: str, target: str) -> None:
    status = os.stat(source)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        archiver.copy(source, descriptor)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    finally:
        os.close(descriptor)


# --- tar


def extract(path: str, target: str, spaces: Mapping[int, str]) -> None:
    """Unpack the tar files of a backup's data directory; those of tablespaces go where ``spaces`` says, by their
    OIDs.

    Raises HostFailed.
    """
    places = {"base": target, **{str(oid): place for oid, place in spaces.items()}}
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            waiting = [pool.submit(_extract, os.path.join(path, name), places[oid]) for name, oid in _tars(path)]
            for one in waiting:
                one.result()
        shutil.copyfile(os.path.join(path, BACKUP_MANIFEST), os.path.join(target, BACKUP_MANIFEST))
    except (tarfile.TarError, EOFError, archiver.Failure) as error:
        raise HostFailed(f"{path} is damaged: {error}.") from error
    except OSError as error:
        raise files.failure(error, f"{path} cannot be unpacked to {target}") from error


def _tars(path: str) -> list[tuple[str, str]]:
    """The tar files, and what each is: base, or the OID of a tablespace. Raises OSError."""
    found = [(name, name.partition(".")[0]) for name in sorted(os.listdir(path)) if ".tar" in name]
    if "base" not in [what for _name, what in found]:
        raise archiver.Failure(f"{path} has no base.tar")
    return found


def _extract(path: str, target: str) -> None:
    ending = os.path.splitext(path)[1]
    compression = next((one for one, known in archiver.ENDINGS.items() if known == ending), "none")
    with contextlib.closing(archiver.unpacked(path, compression)) as content:
        try:
            with streams.opened(streams.stream(content)) as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # of millions nothing is kept
                    _member(tar, member, target)
        except tarfile.TarError:
            _end(content)  # what unpacks it may know what is wrong
            raise
        _end(content)


def _end(content: Iterator[bytes]) -> None:
    """Read what is behind the tar: a compressed file ends with its checksum. Raises archiver.Failure."""
    for _chunk in content:
        pass


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    """One file or directory; nothing of an archive gets outside of ``target``, and links are made by us."""
    name = os.path.normpath(member.name)
    if os.path.isabs(name) or name.split(os.sep)[0] == "..":
        raise archiver.Failure(f"it has a file {member.name!r} outside of its directory")
    path = os.path.join(target, name)
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        os.chmod(path, member.mode & 0o770 if name != "." else 0o700)
    elif member.isfile():
        content = tar.extractfile(member)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if content is not None:
                shutil.copyfileobj(content, file, archiver.CHUNK)
            os.fchmod(file.fileno(), member.mode & 0o660)
    elif not (member.issym() and name.split(os.sep)[0] == LINKS):
        raise archiver.Failure(f"it has {member.name!r}, which is neither a file nor a directory")


# --- a backup, however it is stored


def put(place: str, kept: Kept, target: str, spaces: Mapping[int, str]) -> None:
    """Put a backup that is whole by itself into an empty directory, its tablespaces where ``spaces`` says by their
    OIDs, with links to them.

    Raises HostFailed.
    """
    path = os.path.join(place, kept.name)
    for where in spaces.values():
        os.makedirs(where, 0o700, exist_ok=True)
    if kept.manifest.layout == "tar":
        extract(os.path.join(path, backups.DATA), target, spaces)
    else:
        copy_tree(os.path.join(path, backups.DATA), target)
        for oid, where in spaces.items():
            copy_tree(os.path.join(path, backups.TABLESPACES, str(oid)), where)
    link(target, spaces)


def link(target: str, spaces: Mapping[int, str]) -> None:
    """Let a data directory name its tablespaces. Raises HostFailed."""
    folder = os.path.join(target, LINKS)
    try:
        for oid, where in spaces.items():
            path = os.path.join(folder, str(oid))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.symlink(where, path)
    except OSError as error:
        raise files.failure(error, f"{folder} cannot be written") from error


def remap(target: str, spaces: Mapping[int, str]) -> None:
    """Have the server, which makes the links anew as tablespace_map says, make the ones that are wanted.

    Raises HostFailed.
    """
    path = os.path.join(target, TABLESPACE_MAP)
    if os.path.exists(path):
        # As in PostgreSQL, do_pg_backup_start: what would end a line is escaped.
        escaped = {oid: where.replace("\\", "\\\\").replace("\n", "\\\n") for oid, where in spaces.items()}
        text = "".join(f"{oid} {where}\n" for oid, where in escaped.items())
        files.apply([files.File(path, text.encode(), 0o600)])


def combine(place: str, chain: Sequence[Kept], target: str, spaces: Mapping[int, str], directory: str) -> None:
    """Make one data directory of a full backup and what was taken on top of it, by pg_combinebackup of
    ``directory``.

    Raises HostFailed.
    """
    scratch = os.path.join(target, SCRATCH)
    made = os.path.join(scratch, "combined")
    inputs = [_input(place, kept, os.path.join(scratch, str(number))) for number, kept in enumerate(chain)]
    inputs[-1], maps = _linked(chain[-1], inputs[-1], os.path.join(scratch, "last"), spaces)
    for one in inputs:
        verify(one, directory)
    program = os.path.join(directory, "pg_combinebackup")
    words = [program, "--no-sync", "-o", made, *maps, *inputs]
    commands.run(words, LONGEST)
    try:
        for name in os.listdir(made):
            os.rename(os.path.join(made, name), os.path.join(target, name))
        shutil.rmtree(scratch)
    except OSError as error:
        raise files.failure(error, f"{target} cannot be written") from error


def _input(place: str, kept: Kept, scratch: str) -> str:
    """A backup as a directory that pg_combinebackup reads: in the repository, or unpacked."""
    if kept.manifest.layout == "plain":
        return os.path.join(place, kept.name, backups.DATA)
    data = os.path.join(scratch, backups.DATA)
    os.makedirs(data, 0o700)
    spaces = {one.oid: os.path.join(scratch, backups.TABLESPACES, str(one.oid)) for one in kept.manifest.tablespaces}
    put(place, kept, data, spaces)
    return data


def _linked(kept: Kept, data: str, scratch: str, spaces: Mapping[int, str]) -> tuple[str, list[str]]:
    """The last backup with absolute links to its tablespaces, which is all that pg_combinebackup accepts, and the
    options that say where they go."""
    if not spaces:
        return data, []
    folder = os.path.join(os.path.dirname(data), backups.TABLESPACES)
    if kept.manifest.layout == "plain":
        os.makedirs(scratch, 0o700)
        copy_tree(data, scratch)
        link(scratch, {oid: os.path.join(folder, str(oid)) for oid in spaces})
        data = scratch
    for where in spaces.values():
        os.makedirs(where, 0o700, exist_ok=True)
    maps = [f"-T{_escaped(os.path.join(folder, str(oid)))}={_escaped(where)}" for oid, where in spaces.items()]
    return data, maps


def _escaped(path: str) -> str:
    return path.replace("=", "\\=")


def verify(data: str, directory: str) -> None:
    """Compare every file with backup_manifest, by pg_verifybackup of ``directory``.

    Raises HostFailed.
    """
    program = os.path.join(directory, "pg_verifybackup")
    besides = [name for name in os.listdir(data) if name.startswith(INSIDE)]
    ignored = [f"--ignore={name}" for name in (MARKER, SCRATCH, *NOT_OURS, *besides)]
    words = [program, "-n", "-q", *ignored, data]
    try:
        commands.run(words, LONGEST)
    except HostFailed as error:
        raise HostFailed(
            f"The backup is damaged: {error.message}",
            "Recover from another backup, or restore its files from a copy of the repository.",
        ) from error


def check_tools(directory: str, chain: Sequence[Kept]) -> None:
    """Raises ToolMissing if a program that the backup needs is missing."""
    needed = ["pg_verifybackup"] + ["pg_combinebackup"] * (len(chain) > 1)
    lacking = [name for name in needed if not os.access(os.path.join(directory, name), os.X_OK)]
    if lacking:
        raise ToolMissing(
            f"{directory} has no {' and no '.join(lacking)}.",
            "Set bin_directory to the programs of the server's version.",
        )
