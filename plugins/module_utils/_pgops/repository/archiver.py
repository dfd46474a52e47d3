# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What archive_command and restore_command run: one WAL file into a repository, or back out of it.

Stands alone, and imports as little as possible (re or subprocess would double its start time), since it is started
for every segment.

    archiver push REPOSITORY GENERATION COMPRESSION PATH      PATH is %p
    archiver fetch REPOSITORY GENERATION NAME PATH            NAME is %f
    archiver check REPOSITORY GENERATION COMPRESSION DATA     DATA is the server's data directory
    archiver check                                            whether this program runs at all

A generation is the system identifier and the major version, 7412345678901234567-17. Nothing is written into a
directory without its identity file, so a mount point without its file system is never filled by accident. Nothing is
pushed but by the servers of this host that are registered for the repository: a copy of a data directory has the
archive_command of its original.

check tries, as the user who runs it, what a push needs, and leaves nothing behind.

push ends with 0 once the file is complete and on disk in the repository, and with 1 for every failure: for anything
above 125 PostgreSQL restarts its archiver without counting a failure. fetch ends with 1 if the file is not in the
repository. For every other failure it ends with 126 in a recovery, since PostgreSQL takes 1 to 125 for the end of the
WAL, and would lose what comes behind. For a standby it ends with 1: above 125 the standby would shut down, not start,
or fail its promotion, while it could stream the same WAL; and it does not wait for a repository that does not answer.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

HEXADECIMAL = frozenset("0123456789ABCDEF")
IDENTITY = "generation.json"
NODES = "etc/pgops"
"""Below the prefix of this program: a directory for each instance of this host."""
REGISTRATION = "archiving"
"""In that directory, line by line: the instance's data directory, and the repositories that it may archive into."""
ENDINGS = {"none": "", "zstd": ".zst", "lz4": ".lz4", "gzip": ".gz"}
COMPRESS = {"zstd": ["zstd", "-q", "-c", "--single-thread", "--check"], "lz4": ["lz4", "-q", "-c", "--content-size"]}
DECOMPRESS = {"zstd": ["zstd", "-q", "-d", "-c"], "lz4": ["lz4", "-q", "-d", "-c"]}
GZIP_LEVEL = 3
"""More takes longer, and makes WAL hardly smaller."""
GZIP = 31
"""zlib's number for the format of gzip with the largest window."""
CHUNK = 1 << 20
PIPE_SIZE = 1031
"""F_SETPIPE_SZ of fcntl(2), which Python names from 3.10 on."""
LONG_HEADER = struct.Struct("=HHIQIxxxxQII")
"""Of a segment's first page (PostgreSQL, src/include/access/xlog_internal.h, XLogLongPageHeaderData): magic, info,
timeline, page address, remaining length, system identifier, segment size, block size."""
XLP_LONG_HEADER = 2
FETCHING = ".pgops-fetch"
"""Of the name of a file that is being fetched."""
SIGNALS = ("postmaster.pid", "recovery.signal", "standby.signal")
"""Of a data directory, in which PostgreSQL runs restore_command."""
PATIENCE = 30.0
"""Seconds in which something of a file has to arrive for a standby."""
PAUSE = 0.5
"""Seconds between two looks at what has arrived."""


class Failure(Exception):
    """A message for standard error, which PostgreSQL writes into its log."""


class Damaged(Failure):
    """A stored file cannot be unpacked."""


class Absent(Exception):
    """The file is not in the repository."""


def kind(name: str) -> str:
    """The kind of a file of pg_wal: segment, partial, backup, history, or '' for any other file."""
    stem, _dot, rest = name.partition(".")
    if not HEXADECIMAL.issuperset(stem):
        return ""
    if len(stem) == 8:
        return "history" if rest == "history" else ""
    if len(stem) != 24:
        return ""
    if rest in ("", "partial"):
        return rest or ("" if _dot else "segment")
    start, _dot, ending = rest.partition(".")
    return "backup" if len(start) == 8 and HEXADECIMAL.issuperset(start) and ending == "backup" else ""


def place(repository: str, generation: str, name: str) -> str:
    """The path of a file in the repository, without the ending of its compression."""
    wal = os.path.join(repository, generation, "wal")
    return os.path.join(wal, name) if name.endswith(".history") else os.path.join(wal, name[:16], name)


def stored(path: str) -> tuple[str, str] | None:
    """The path of a stored file and its compression; None if it is not stored.

    Raises OSError where that cannot be seen, as in a directory on a broken disk.
    """
    for compression, ending in ENDINGS.items():
        try:
            os.lstat(path + ending)
        except FileNotFoundError:
            continue
        return path + ending, compression
    return None


def check_identity(repository: str, generation: str) -> None:
    """Raises Failure if this is not a generation of a repository."""
    path = os.path.join(repository, generation, IDENTITY)
    if not os.path.isfile(path):
        raise Failure(f"{path} does not exist: is the repository mounted? Only pg_ops_archiving creates a repository")


def check_node(repository: str, data: str) -> None:
    """Raises Failure unless a data directory is that of an instance of this host that may archive into the
    repository."""
    here = os.stat(data)
    for registered in nodes(repository):
        try:
            if os.path.samestat(os.stat(registered), here):
                return
        except OSError:
            pass
    raise Failure(
        f"{os.path.realpath(data)} is not the data directory of a node that archives into {repository} on this host. "
        "If this server is a copy, set archive_mode = off here; if its directory was moved, run site.yml "
        "(docs/archiving.md, Copies)"
    )


def nodes(repository: str) -> list[str]:
    """The data directories of this host's instances that may archive into the repository, as pg_ops_agent registered
    them."""
    prefix = os.path.abspath(__file__)
    for _part in ("usr", "local", "lib", "pgops", "archiver"):
        prefix = os.path.dirname(prefix)
    folder = os.path.join(prefix, NODES)
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, name, REGISTRATION), encoding="utf-8", errors="surrogateescape") as file:
                data, *repositories = file.read().split("\n")
        except OSError:
            continue
        if repository in repositories:
            found.append(data)
    return found


def check_segment(path: str, name: str, generation: str) -> None:
    """Raises Failure for a segment that is incomplete, or belongs to another cluster."""
    if kind(name) not in ("segment", "partial"):
        return
    with open(path, "rb") as file:
        header = file.read(LONG_HEADER.size)
        size = os.fstat(file.fileno()).st_size
    if len(header) < LONG_HEADER.size:
        raise Failure(f"{name} is not a WAL segment: its size is {size} bytes")
    _magic, info, _timeline, address, _length, identifier, segment, _block = LONG_HEADER.unpack(header)
    if not info & XLP_LONG_HEADER or size != segment:
        raise Failure(f"{name} is an incomplete WAL segment: it has {size} bytes, and its header says {segment}")
    if str(identifier) != generation.partition("-")[0]:
        raise Failure(f"{name} belongs to system identifier {identifier}, but this is generation {generation}")
    number = int(name[8:16], 16) * ((1 << 32) // segment) + int(name[16:24], 16)
    if address != number * segment:
        raise Failure(f"{name} contains another segment: its header says {address:X}")


# --- push


def push(repository: str, generation: str, compression: str, path: str) -> None:
    """Store a file of pg_wal in the repository, complete and on disk.

    Raises Failure and OSError.
    """
    name = os.path.basename(path)
    if not kind(name):
        raise Failure(f"{name} is not the name of a WAL file")
    check_identity(repository, generation)
    check_node(repository, ".")
    check_segment(path, name, generation)
    target = place(repository, generation, name)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        make_directory(folder)
    if not sweep(folder):
        # Perhaps who made it was killed before it was on disk.
        sync(os.path.dirname(folder))
    present = stored(target)
    if present is None:
        present = (target + ENDINGS[compression], compression)
        if publish(path, present[0], compression):
            return
    keep(path, *present)


def make_directory(folder: str) -> None:
    """Create a directory, and sync its parent, which must exist."""
    try:
        os.mkdir(folder, 0o750)
    except FileExistsError:
        return
    sync(os.path.dirname(folder))


def sweep(folder: str) -> bool:
    """Remove temporary files of killed archivers on this host, and of any host after a day. One that cannot be
    removed keeps nothing from being archived. Returns whether anything is stored there."""
    host, used = os.uname().nodename, False
    for entry in os.scandir(folder):
        if not entry.name.startswith(".~"):
            used = True
            continue
        _empty, _name, whose, process = [*entry.name.split("~"), "", "", ""][:4]
        gone = whose == host and process.isdigit() and not os.path.exists(f"/proc/{process}")
        try:
            if gone or entry.stat().st_mtime < os.stat(folder).st_mtime - 86400:
                os.unlink(entry.path)
        except OSError:
            pass
    return used


def publish(path: str, target: str, compression: str) -> bool:
    """Write a temporary file, sync it, and link it to its name; False if that name exists already."""
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".~{name}~{os.uname().nodename}~{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        try:
            pack(path, descriptor, compression)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        sync(folder)
        return True
    finally:
        os.unlink(temporary)


def pack(path: str, descriptor: int, compression: str) -> None:
    """Write a file's content, compressed."""
    if compression == "none":
        copy(path, descriptor)
    elif compression == "gzip":
        import zlib

        packing = zlib.compressobj(GZIP_LEVEL, wbits=GZIP)
        for chunk in chunks(path):
            write(descriptor, packing.compress(chunk))
        write(descriptor, packing.flush())
    else:
        filtered(COMPRESS[compression], path, descriptor)


def copy(path: str, descriptor: int) -> None:
    """Copy a file's content, by the kernel where it can."""
    with open(path, "rb", buffering=0) as source:
        size = os.fstat(source.fileno()).st_size
        done = 0
        while done < size:
            count = _copy_range(source.fileno(), descriptor, size - done)
            if count == 0:
                raise Failure(f"{path} ended after {done} of {size} bytes")
            done += count


def _copy_range(source: int, target: int, size: int) -> int:
    try:
        return os.copy_file_range(source, target, size)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
            raise
    content = os.read(source, min(size, CHUNK))
    write(target, content)
    return len(content)


def filtered(command: list[str], path: str, descriptor: int) -> None:
    """Run a program that reads a file and writes to the descriptor; its errors go to our standard error."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        process = _started(command, source, descriptor)
    finally:
        os.close(source)
    code = _exit_code(process)
    if code:
        about = os.fstatvfs(descriptor)
        full = about.f_bavail * about.f_frsize < CHUNK
        raise Failure(f"{command[0]} ended with {code}{f': {os.strerror(errno.ENOSPC)}' if full else ''}")


def _started(command: list[str], source: int, target: int) -> int:
    streams = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, target, 1)]
    try:
        return os.posix_spawnp(  # pylint: disable=ansible-bad-function
            command[0], command, os.environ, file_actions=streams
        )
    except FileNotFoundError as error:
        raise Failure(f"{command[0]} is not on this host") from error


def _exit_code(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def write(descriptor: int, content: bytes) -> None:
    """Write all of it."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def keep(path: str, target: str, compression: str) -> None:
    """Accept a file that is in the repository already, if its content is the same, and sync it to disk.

    Raises Failure if the content differs; a file is never overwritten.
    """
    if not same(path, target, compression):
        raise Failure(
            f"{target} exists with different content and is not overwritten. "
            "Does another server write into this repository? (docs/archiving.md, Copies)"
        )
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync(os.path.dirname(target))


def same(path: str, target: str, compression: str) -> bool:
    """Whether a stored file has the content of another."""
    if compression == "none" and os.path.getsize(path) != os.path.getsize(target):
        return False
    try:
        with open(path, "rb") as one:
            equal = all(one.read(len(chunk)) == chunk for chunk in unpacked(target, compression))
            return equal and not one.read(1)
    except Damaged:
        return False


def chunks(path: str) -> Iterator[bytes]:
    """A file's content, in chunks."""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def unpacked(path: str, compression: str) -> Generator[bytes, None, None]:
    """The content of a stored file, in chunks.

    Raises Damaged.
    """
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield from decompressed(source, compression, path)
    finally:
        os.close(source)


def decompressed(source: int, compression: str, path: str) -> Generator[bytes, None, None]:
    """The content of what a descriptor has stored, in chunks; ``path`` is what it is called.

    Raises Damaged.
    """
    if compression == "none":
        while chunk := os.read(source, CHUNK):
            yield chunk
    elif compression == "gzip":
        yield from _unzipped(source, path)
    else:
        reading, writing = os.pipe()
        _widen(writing)
        try:
            process = _started(DECOMPRESS[compression], source, writing)
        except Failure:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            with open(reading, "rb", buffering=0) as stream:
                while chunk := stream.read(CHUNK):
                    yield chunk
        finally:
            code = _exit_code(process)
        if code < 0:
            raise Failure(f"{DECOMPRESS[compression][0]} was ended by signal {-code}")
        if code:
            raise Damaged(f"{path} is damaged: {DECOMPRESS[compression][0]} ended with {code}")


def _widen(pipe: int) -> None:
    """Let a pipe hold a chunk: else its ends wait for each other at each 64 kB."""
    import fcntl

    try:
        fcntl.fcntl(pipe, PIPE_SIZE, CHUNK)
    except OSError:
        return  # of all its pipes, a user may have so many bytes only


def _unzipped(source: int, path: str) -> Iterator[bytes]:
    import zlib

    unpacking = zlib.decompressobj(GZIP)
    try:
        while chunk := os.read(source, CHUNK):
            yield unpacking.decompress(chunk)
    except zlib.error as error:
        raise Damaged(f"{path} is damaged: {error}") from error
    if not unpacking.eof:
        raise Damaged(f"{path} is damaged: it ends too early")


def sync(folder: str) -> None:
    """Sync the names in a directory to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- fetch


def fetch(repository: str, generation: str, name: str, path: str) -> None:
    """Copy a file of the repository to a path. A partial segment is never used in place of its segment.

    Raises Absent, Failure and OSError.
    """
    sweep_fetched(os.path.dirname(path))
    check_identity(repository, generation)
    if not kind(name):
        raise Absent(name)
    present = stored(place(repository, generation, name))
    if present is None:
        raise Absent(name)
    temporary = fetching(path, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            unpack(*present, descriptor)
        finally:
            os.close(descriptor)
        check_segment(temporary, name, generation)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def fetching(path: str, process: int) -> str:
    """Where a process writes what it fetches."""
    return f"{path}.{process}{FETCHING}"


def sweep_fetched(folder: str) -> None:
    """Remove what killed fetches have left: PostgreSQL leaves files alone whose names it does not know."""
    for name in os.listdir(folder or "."):
        process = name[: -len(FETCHING)].rpartition(".")[2]
        if name.endswith(FETCHING) and not os.path.exists(f"/proc/{process}"):
            os.unlink(os.path.join(folder, name))


def for_standby() -> bool:
    """Whether the server that runs this in its data directory is a standby. At the end of a promotion, when the
    histories of timelines are asked for, it has no signal file any more; neither has the end of a recovery, which has
    them in pg_wal by then."""
    running, recovering, standby = map(os.path.exists, SIGNALS)
    return standby or (running and not recovering)


def fetch_for_standby(arguments: list[str]) -> int:
    """Fetch in a process of its own, which is given up where nothing arrives for a while: a promotion waits for this
    program, and a process that waits for a file server cannot be ended. Returns the exit code, 0 or 1."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        os._exit(attempt("fetch", arguments, 1))
    os.close(writing)
    path = fetching(arguments[-1], child)
    size, left = -1, PATIENCE
    # At its end the child closes the pipe.
    while left > 0 and not select.select([reading], [], [], PAUSE)[0]:
        now = arrived(path)
        size, left = (size, left - PAUSE) if now == size else (now, PATIENCE)
    if left > 0:
        return 0 if os.waitpid(child, 0)[1] == 0 else 1
    # It does nothing more, however long its present call takes.
    os.kill(child, 9)
    if arrived(path) >= 0:
        os.unlink(path)
    sys.stderr.write(f"pgops archiver: {arguments[0]} does not answer; {arguments[2]} is left to streaming\n")
    return 1


def arrived(path: str) -> int:
    """The bytes of a file that have been written by now, -1 for none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def unpack(path: str, compression: str, descriptor: int) -> None:
    """Write the content of a stored file."""
    if compression == "none":
        copy(path, descriptor)
    elif compression == "gzip":
        for chunk in unpacked(path, compression):
            write(descriptor, chunk)
    else:
        filtered(DECOMPRESS[compression], path, descriptor)


# --- check


def check(repository: str, generation: str, compression: str, data: str) -> None:
    """Try what a push of the server with this data directory needs; nothing is left behind.

    Raises Failure and OSError.
    """
    check_identity(repository, generation)
    check_node(repository, data)
    wal = os.path.join(repository, generation, "wal")
    newest = max((name for name in os.listdir(wal) if kind(name + "00000000") == "segment"), default="")
    for folder in sorted({wal, os.path.join(wal, newest)}):
        # By its name, a push removes what a killed check leaves.
        target = os.path.join(folder, f".~check~{os.uname().nodename}~{os.getpid()}")
        publish(__file__, target, compression)
        try:
            if not same(__file__, target, compression):
                raise Failure(f"what was written into {folder} reads otherwise")
        finally:
            os.unlink(target)


# --- the command


def main(arguments: list[str]) -> int:
    """The exit code."""
    if arguments == ["check"]:
        return 0
    command, rest = arguments[:1], arguments[1:]
    if command != ["fetch"]:
        return attempt("".join(command), rest, 1)
    if len(rest) == 4 and for_standby():
        return fetch_for_standby(rest)
    return attempt("fetch", rest, 126)


def attempt(command: str, arguments: list[str], failed: int) -> int:
    """The exit code of a command, where ``failed`` is that of a failure."""
    try:
        repository, generation, third, path = arguments
        {"push": push, "fetch": fetch, "check": check}[command](repository, generation, third, path)
    except Absent:
        return 1
    except (ValueError, KeyError):
        words = " ".join([command, *arguments])
        sys.stderr.write(f"pgops archiver: invalid arguments {words}; see the head of this file\n")
        return failed
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - Python's own exit code is 1: the end of the WAL
        sys.stderr.write(f"pgops archiver: {str(error) or type(error).__name__}\n")
        return failed
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
