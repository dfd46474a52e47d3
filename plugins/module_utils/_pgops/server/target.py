# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where a server is, and how to log in to it. Pure except for the checks which socket exists, and which password the
client library would find by itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

SOCKET_DIRECTORIES = ("/var/run/postgresql", "/run/postgresql", "/tmp")  # noqa: S108 - PostgreSQL's own default
DRIVER_HINT = "Install psycopg 3 for it (Debian: python3-psycopg; PyPI: psycopg[binary]>=3.1)."


@dataclass(frozen=True)
class Target:
    """How to reach a server.

    ``host`` is a host name, several separated by commas, or a socket directory; empty means the local
    socket of ``port``. ``user`` empty means the owner of that socket, which is the operating system's
    user that runs the server; ``role`` is set after login; ``os_user`` is the user as which root opens a
    local socket, empty for its owner. ``database`` may have bytes that are not UTF-8 (see encoding). ``sslmode`` and
    ``channel_binding`` are libpq's; empty means what ``protection`` says. ``as_users``: names are looked up and
    statements planned as in a session of anybody;
    ``as_is``: the server's settings can be read in it. ``triggers_at_login``: whether it is known that the server
    cannot be told to run no event trigger in the session, as it is too old, or the role no superuser; None until
    a session shows it. ``major`` is the server's version, 0 until it is known: what only later versions have is then
    pinned from the session's first moment on. ``cut_short``: a default of the server's has ended such a session
    before it could pin anything, so that all that ends sessions is pinned from that moment on, ``as_is`` too. Times
    are in seconds.
    """

    host: str = ""
    port: str = "5432"
    user: str = ""
    role: str = ""
    os_user: str = ""
    password: str | None = field(default=None, repr=False)
    database: str = "postgres"
    sslmode: str = ""
    sslrootcert: str = ""
    passfile: str = ""
    channel_binding: str = ""
    target_session_attrs: str = "any"
    application_name: str = "pgops"
    connect_timeout: int = 10
    statement_timeout: float = 60.0
    lock_timeout: float = 10.0
    as_users: bool = False
    as_is: bool = False
    triggers_at_login: bool | None = None
    major: int = 0
    cut_short: bool = False

    @property
    def local(self) -> bool:
        """Whether this is a Unix socket of this host."""
        return not self.host or self.host.startswith("/")

    @property
    def socket_path(self) -> str:
        """The path of the Unix socket; where no directory is named, that of a server, which has a lock file beside
        it, or else the first that exists."""
        directories = [self.host] if self.host else list(SOCKET_DIRECTORIES)
        paths = [os.path.join(directory, f".s.PGSQL.{self.port}") for directory in directories]
        found = [path for path in paths if os.path.exists(path)]
        return next((path for path in found if os.path.exists(f"{path}.lock")), [*found, paths[0]][0])

    @property
    def protection(self) -> tuple[str, str]:
        """libpq's ``sslmode`` and ``channel_binding``, where they are not given those that let nobody but the server
        have a password: whoever answers in its place may ask for it in plain text. Empty for a local socket."""
        if self.local:
            return "", self.channel_binding
        safe = ("verify-full" if self.sslrootcert else "require") if self._with_password else "prefer"
        encrypted = self.sslmode or safe
        return encrypted, self.channel_binding or (binding(encrypted) if self._with_password else "prefer")

    @property
    def _with_password(self) -> bool:
        """Whether libpq has a password that it would send."""
        if self.password is not None or self.passfile or os.environ.get("PGPASSWORD"):
            return True
        return os.path.exists(os.environ.get("PGPASSFILE") or os.path.expanduser("~/.pgpass"))


def binding(sslmode: str) -> str:
    """The channel binding that goes with a TLS mode: where no authority vouches for the server's name, the server has
    to prove that it knows the password."""
    return {"disable": "disable", "verify-full": "prefer"}.get(sslmode, "require")
