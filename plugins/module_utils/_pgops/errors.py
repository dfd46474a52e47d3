# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One tree of errors. The library raises them; only the entry points (modules and the command line) report them."""

from __future__ import annotations


class PgOpsError(Exception):
    """An error that a user must act upon.

    ``message`` is what is wrong, ``hint`` what to do, ``code`` a stable word for programs.
    """

    code = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidInput(PgOpsError):
    """A parameter has a value that cannot be used."""

    code = "invalid_input"


class ToolMissing(InvalidInput):
    """A program that the work needs is not on the host, or of another version."""


class DriverMissing(PgOpsError):
    """The Python that runs this has no psycopg 3."""

    code = "driver_missing"


class Unreachable(PgOpsError):
    """No session with the server could be opened."""

    code = "unreachable"


class LoginRefused(Unreachable):
    """The server answers, but refuses the role, the password or the database. ``password_used``: it asked for the
    password and got it. ``full``: all its connections that are not reserved are taken, as its words say."""

    code = "login_refused"

    def __init__(self, message: str, hint: str = "", password_used: bool = False, full: bool = False) -> None:
        super().__init__(message, hint)
        self.password_used = password_used
        self.full = full


class Unsupported(PgOpsError):
    """This version does not support the server, pooler or host."""

    code = "unsupported"


class TooOld(Unsupported):
    """A server, or backups, of a ``major`` version that is no longer supported."""

    def __init__(self, message: str, hint: str, major: int) -> None:
        super().__init__(message, hint)
        self.major = major


class PermissionMissing(PgOpsError):
    """The role lacks a right that the work needs."""

    code = "permission_missing"


class Conflict(PgOpsError):
    """An existing thing belongs to another owner, or was changed by hand so that undoing it is not safe."""

    code = "conflict"


class Busy(PgOpsError):
    """Another run holds the lock; nothing was changed."""

    code = "busy"


class QueryFailed(PgOpsError):
    """The server refused a statement. ``sqlstate`` is PostgreSQL's five-character code."""

    code = "query_failed"

    def __init__(self, message: str, hint: str = "", sqlstate: str | None = None) -> None:
        super().__init__(message, hint)
        self.sqlstate = sqlstate


class HostFailed(PgOpsError):
    """The operating system reports an error: no space, no permission, no such command."""

    code = "host_failed"


class TooLittleSpace(HostFailed):
    """A file system has less room than the work will take; nothing was written."""


class ProgramFailed(HostFailed):
    """A program ended otherwise than well. ``status`` is its exit code; negative, it was ended by that signal."""

    def __init__(self, message: str, hint: str = "", status: int = 1) -> None:
        super().__init__(message, hint)
        self.status = status


class Managed(PgOpsError):
    """Another manager (Patroni, a managed service) controls what would have to change."""

    code = "managed"


class NotDelivered(PgOpsError):
    """What a standby measures does not arrive in the ops database of its cluster."""

    code = "not_delivered"


class SettingsRefused(PgOpsError):
    """The server would not start with its new settings, did not come up with them, or rejected them. The message says
    what is in force."""

    code = "settings_refused"
