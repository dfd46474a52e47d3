# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The marked blocks in pg_hba.conf and pg_ident.conf that let the agents in, and nobody else.

A file that Patroni writes is not changed: a warning says what to add to Patroni's configuration.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, InvalidInput
from ..host import files
from ..host.identity import as_user
from ..plan import HostChange, difference
from ..server import postmaster
from ..server.names import AGENT, BACKUP, EXPLAINER, OPTIONAL
from ..server.session import READS_FILES, Session
from . import hba
from .hba import ALL, REPLICATION, Rule

BEGIN, END = "# BEGIN pgops.fleet", "# END pgops.fleet"
MAP = "pgops"
PATRONI_HEADER = "# It will be overwritten by Patroni!"
"""The second line of the files that Patroni writes (patroni/postgresql/config.py, ConfigWriter)."""

WORD = re.compile(r'"(?:[^"]|"")*"|[^\s"]+')


FILES = """
SELECT current_setting('hba_file') AS hba, current_setting('ident_file') AS ident,
       current_setting('ssl')::boolean AS ssl,
       extract(epoch FROM pg_conf_load_time())::float8 AS loaded_at
"""
ERRORS = """
SELECT line_number, error FROM pg_hba_file_rules
WHERE error IS NOT NULL AND (type IS DISTINCT FROM 'hostssl' OR current_setting('ssl')::boolean)
ORDER BY 1
"""
"""A rule for TLS on a server without is listed with an error, though PostgreSQL takes it (hba.c), with all its parts;
of one that it cannot read it lists the line and the error alone."""


@dataclass(frozen=True)
class Access:
    """Who is let in: the operating system's user of the agent on this host, by peer, and the agents on other
    nodes, from their addresses (IP addresses, networks or host names), by TLS and password.

    ``keeper`` is the operating system's user that runs the server, if this is its host: its jobs write what they have
    measured as the agent's role. ``explain``: this host's agent is let in as the role that plans statements, too.
    ``backup``: ``keeper`` is let in for replication as the role that backs the server up."""

    @property
    def loggers_in(self) -> tuple[str, ...]:
        """The operating system's users who are let in as the agent's role."""
        return tuple(dict.fromkeys(user for user in (self.os_user, self.keeper) if user))

    os_user: str = "pgops"
    peers: tuple[str, ...] = ()
    explain: bool = False
    backup: bool = False
    keeper: str = ""


@dataclass(frozen=True)
class AccessFiles:
    """The server's two files as they are now. ``outdated``: they have changed since the server loaded them, as after
    a run that was killed before the reload. ``owner`` is the uid of the server's user, as whom they are written, and
    ``user`` that user's name; ``fixed`` are those that this user may not replace."""

    hba_path: str
    hba: str
    ident_path: str
    ident: str
    ssl: bool = True
    outdated: bool = False
    owner: int = 0
    fixed: tuple[str, ...] = ()
    user: str = ""


def read(session: Session) -> AccessFiles:
    """The files that the server names; needs a superuser and this host's file system.

    Raises HostFailed, or Conflict if pg_hba.conf already has an error, so that a reload would not load it.
    """
    paths = session.rows(FILES)[0]
    owner = postmaster.of(session).owner
    # The server only says where they are. Whatever that is, it is the server's user who reads and writes there.
    found, ident = as_user(owner, lambda: [_look(paths["hba"]), _look(paths["ident"])])
    broken = errors(session)
    if broken:
        raise Conflict(
            f"{paths['hba']} already has an error: {broken}.",
            "Correct that line first: PostgreSQL does not load the file until then.",
        )
    newest = max(found["changed_at"], ident["changed_at"])
    # a file from the future, as after a clock was set back, would stay newer whatever is done
    outdated = paths["loaded_at"] < newest <= time.time()
    fixed = tuple(one["path"] for one in (found, ident) if not one["writable"])
    return AccessFiles(
        *(found["path"], found["text"], ident["path"], ident["text"]),
        ssl=paths["ssl"],
        outdated=outdated,
        owner=owner,
        fixed=fixed,
        user=files.user_name(owner),
    )


def _look(named: str) -> dict[str, Any]:
    """A file: its ``path`` without links, ``text``, whether it can be replaced, and when it was changed, in s."""
    path = os.path.realpath(named)
    found = files.read(path)
    if found and found.kind != "file":
        raise Conflict(f"{path} is a {found.kind}, but must be a file.", "Replace it, then retry.")
    return {
        "path": path,
        "text": found.content.decode("utf-8", "surrogateescape") if found else "",
        "writable": os.access(os.path.dirname(path), os.W_OK | os.X_OK),
        "changed_at": os.stat(path).st_mtime if found else 0.0,
    }


def errors(session: Session) -> str:
    """The errors that pg_hba_file_rules shows for the file on disk; empty for none."""
    with session.answering(READS_FILES):
        rows = session.rows(ERRORS)
    return "; ".join(f"line {row['line_number']}: {row['error']}" for row in rows)


def resolve(peers: Sequence[str]) -> list[tuple[str, str]]:
    """(peer, network) of every address of the peers, in the form of pg_hba.conf.

    Raises InvalidInput for a name that does not resolve on this host.
    """
    found: list[tuple[str, str]] = []
    for peer in peers:
        try:
            found.append((peer, str(ipaddress.ip_network(peer, strict=False))))
            continue
        except ValueError:
            pass
        try:
            addresses = {str(info[4][0]) for info in socket.getaddrinfo(peer, None, type=socket.SOCK_STREAM)}
        except OSError as error:
            raise InvalidInput(
                f"The address of the node {peer} cannot be resolved on this host: {error}.",
                "Set its IP address (pgops_address), or make the name resolvable on this host.",
            ) from error
        found += [(peer, str(ipaddress.ip_network(address.partition("%")[0]))) for address in sorted(addresses)]
    return found


def wanted(access: Access, database: str, networks: Sequence[tuple[str, str]]) -> dict[str, Rule]:
    """The rules that let the agents in, by their lines in pg_hba.conf."""
    role = quoted(AGENT)
    options = (f"map={MAP}",) if access.loggers_in != (AGENT,) else ()
    line = " ".join([f"local all {role} peer", *options])
    found = {line: Rule("local", (ALL,), (AGENT,), "", "peer", options)}
    if access.explain:
        found[f"local all {quoted(EXPLAINER)} peer map={MAP}"] = Rule(
            "local", (ALL,), (EXPLAINER,), "", "peer", (f"map={MAP}",)
        )
    if access.backup:
        found[f"local {REPLICATION} {quoted(BACKUP)} peer map={MAP}"] = Rule(
            "local", (REPLICATION,), (BACKUP,), "", "peer", (f"map={MAP}",)
        )
    for _peer, network in networks:
        line = f"hostssl {quoted(database)} {role} {network} scram-sha-256"
        found[line] = Rule("hostssl", (database,), (AGENT,), network, "scram-sha-256")
    return found


def lines(access: Access, database: str, networks: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The blocks' texts for pg_hba.conf and pg_ident.conf; the latter is empty where names are the same."""
    mapping = mappings(access)
    return _block(list(wanted(access, database, networks))), _block(mapping) if mapping else ""


def mappings(access: Access) -> list[str]:
    """The lines of pg_ident.conf that map operating system users to the roles that they log in as."""
    wanted = [(user, AGENT) for user in access.loggers_in] if access.loggers_in != (AGENT,) else []
    wanted += [(access.os_user, EXPLAINER)] if access.explain else []
    wanted += [(access.keeper, BACKUP)] if access.backup else []
    return [f"{MAP} {quoted(user)} {quoted(role)}" for user, role in wanted]


def _block(rules: Sequence[str]) -> str:
    return "\n".join([BEGIN, *rules, END, ""])


def quoted(name: str) -> str:
    """A name as pg_hba.conf takes it literally, also where it is a keyword there.

    Raises InvalidInput for a name that the file's format cannot hold.
    """
    if any(ord(character) < 32 for character in name) or not name:
        raise InvalidInput(f"The name {name!r} cannot be used in pg_hba.conf.", "Choose one without line breaks.")
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def split(text: str) -> tuple[str, str, str]:
    """(before, block, after) of a file; an empty block where there is none.

    Raises Conflict for a block without its last line.
    """
    start = text.find(BEGIN)
    if start < 0:
        return "", "", text
    end = text.find(END, start)
    if end < 0:
        raise Conflict(f"The line '{BEGIN}' has no matching '{END}'.", "Restore that line, or remove the block.")
    end += len(END)
    end += text[end : end + 1] == "\n"
    return text[:start], text[start:end], text[end:]


def replaced(text: str, block: str) -> str:
    """The text with this block in it; a new one comes at the top, since the first matching line decides."""
    before, _old, after = split(text)
    return before + block + after


@dataclass(frozen=True)
class Rewritten:
    """A file's text, as it was read and as it will be; ``owner`` is the uid of the user who writes it."""

    path: str
    old: str
    new: str
    owner: int = 0


@dataclass(frozen=True)
class AccessChange(HostChange):
    """A file is rewritten, and after the last one the server is reloaded. Without a file it is only reloaded."""

    file: Rewritten | None = field(default=None, repr=False, compare=False)

    def apply(self) -> None:
        """Write the file."""
        if self.file:
            _rewrite(self.file, self.file.old, self.file.new)

    def restore(self) -> None:
        """Write it as it was."""
        if self.file:
            _rewrite(self.file, self.file.new, self.file.old)


def plan(current: AccessFiles, hba_block: str, ident_block: str, patroni: bool = False) -> tuple[AccessChange, ...]:
    """What gives both blocks these texts; an empty text removes a block.

    ``patroni``: whether Patroni manages the server; a file that it writes is not changed.

    Raises Conflict for a file that the server's user may not replace.
    """
    changes: tuple[AccessChange, ...] = ()
    for path, text, block in (
        (current.ident_path, current.ident, ident_block),
        (current.hba_path, current.hba, hba_block),
    ):
        if patroni and by_patroni(text):
            continue
        present = split(text)[1]
        rewritten = Rewritten(path, text, replaced(text, block), current.owner)
        change = difference(AccessChange(f"block in {path}", present or None, block or None, rewritten))
        if change and path in current.fixed:
            raise _not_replaceable(path, block)
        changes += change
    if current.outdated and not changes:
        return (AccessChange("access rules of the server", "not reloaded since the files changed", "loaded"),)
    return changes


def _not_replaceable(path: str, block: str) -> Conflict:
    asked = f"Put this block at its top, then retry:\n{block}" if block else f"Remove the block '{BEGIN}' from it."
    return Conflict(f"{path} is where the server's user may not write, and only as that user is it written.", asked)


def by_patroni(text: str) -> bool:
    """Whether a file was written by Patroni, which would remove our block again."""
    return PATRONI_HEADER in text[:400]


def asked_of_patroni(
    current: AccessFiles, present: Sequence[Rule], rules_wanted: Mapping[str, Rule], mapping: Sequence[str]
) -> tuple[str, ...]:
    """The lines that must be added to Patroni's configuration."""
    asked: tuple[str, ...] = ()
    missing = [line for line, rule in rules_wanted.items() if not hba.admit(present, rule)]
    if missing and by_patroni(current.hba):
        asked += (_request("pg_hba", "Add at the top of", missing),)
    present_mappings = [_words(line) for line in current.ident.splitlines()]
    missing = [line for line in mapping if _words(line) not in present_mappings]
    if missing and by_patroni(current.ident):
        asked += (_request("pg_ident", "Add to", missing),)
    return asked


def left_to_patroni(current: AccessFiles, names: Sequence[str] = (AGENT, *OPTIONAL)) -> tuple[str, ...]:
    """The lines for the agent's roles that must be removed from Patroni's configuration."""
    asked: tuple[str, ...] = ()
    for name, text in (("pg_hba", current.hba), ("pg_ident", current.ident)):
        # the role is the third word in both
        left = [line for line in text.splitlines() if not {*_words(line)[2:3]}.isdisjoint(names)]
        if left and by_patroni(text):
            asked += (_request(name, "Remove from", left),)
    return asked


def _request(name: str, what: str, found: Sequence[str]) -> str:
    return (
        f"Patroni writes {name}.conf. {what} the list postgresql.{name} with 'patronictl edit-config', or in "
        f"Patroni's own configuration file if the list is there: {'; '.join(found)}"
    )


def _words(line: str) -> list[str]:
    return [word.strip('"') for word in WORD.findall(line)]


def apply(session: Session, changes: Sequence[AccessChange]) -> None:
    """Write the files, let the server check them, and reload; restore the old text if it finds an error."""
    for change in changes:
        change.apply()
    broken = errors(session)
    if broken:
        for change in changes:
            change.restore()
        raise Conflict(f"PostgreSQL rejects the access rules ({broken}); the old file was restored.")
    session.value("SELECT pg_reload_conf()")


def _rewrite(file: Rewritten, old: str, new: str) -> None:
    before, after = (text.encode("utf-8", "surrogateescape") for text in (old, new))
    as_user(file.owner, lambda: _replace(file.path, before, after))


def _replace(path: str, old: bytes, new: bytes) -> None:
    if not os.path.lexists(path):
        raise Conflict(f"{path} does not exist.", "Create it, owned by the server's user, then retry.")
    files.rewrite(path, old, new)
