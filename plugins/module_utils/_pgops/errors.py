# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One tree of errors. The library raises them; only doors (modules and the command line) report them."""

from __future__ import annotations


class PgOpsError(Exception):
    """Something a person has to act upon.

    ``message`` says what is wrong, ``hint`` what to do about it, ``code`` is a stable word for programs.
    """

    code = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidInput(PgOpsError):
    """A parameter cannot be used as given."""

    code = "invalid_input"


class DriverMissing(PgOpsError):
    """psycopg 3 is not there for the Python that runs this."""

    code = "driver_missing"


class Unreachable(PgOpsError):
    """No session with the server could be opened."""

    code = "unreachable"


class LoginRefused(Unreachable):
    """The server answers, and refuses the role, the password or the database. ``password_used``: it has asked for
    the password and got it."""

    code = "login_refused"

    def __init__(self, message: str, hint: str = "", password_used: bool = False) -> None:
        super().__init__(message, hint)
        self.password_used = password_used


class Unsupported(PgOpsError):
    """The server, pooler or host is none this version can work with."""

    code = "unsupported"


class PermissionMissing(PgOpsError):
    """The role lacks a right that the work needs."""

    code = "permission_missing"


class Conflict(PgOpsError):
    """What is there belongs to somebody else, or was changed by hand where that is not safe to undo."""

    code = "conflict"


class Busy(PgOpsError):
    """Somebody else holds the lock; nothing was changed."""

    code = "busy"


class QueryFailed(PgOpsError):
    """The server refused a statement. ``sqlstate`` is PostgreSQL's five-character code."""

    code = "query_failed"

    def __init__(self, message: str, hint: str = "", sqlstate: str | None = None) -> None:
        super().__init__(message, hint)
        self.sqlstate = sqlstate


class HostFailed(PgOpsError):
    """The operating system refused: no space, no permission, no such command."""

    code = "host_failed"


class Managed(PgOpsError):
    """Another manager (Patroni, a managed service) owns what would have to be changed."""

    code = "managed"


class SettingsRefused(PgOpsError):
    """The server did not come up with its new settings, or did not take them; the former ones are back."""

    code = "settings_refused"
