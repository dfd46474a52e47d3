# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a module connects to a server, documented once."""

from __future__ import annotations


class ModuleDocFragment:
    """The arguments of arguments.CONNECTION."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Host name or address of the server, or the directory of its Unix socket.
      - Empty means the local socket of O(login_port). As root, the module opens it as the operating system user that
        runs the server, so peer authentication works without C(become_user).
      - The socket must be the server's own, with its lock file beside it; that of a connection pooler is refused.
    type: str
    default: ""
  login_port:
    description: Port of the server.
    type: int
    default: 5432
  login_user:
    description: Database role. Empty means the role named like the owner of the local socket, usually V(postgres).
    type: str
    default: ""
  login_password:
    description: Password of O(login_user).
    type: str
  login_db:
    description: Database to log in to for work that is not specific to a database.
    type: str
    default: postgres
  ssl_mode:
    description:
      - TLS mode for TCP connections, as libpq's C(sslmode).
      - By default V(verify-full) with O(ca_cert) and else V(require) if there is a password to send, in
        O(login_password) or where libpq looks for one (C(PGPASSWORD), C(~/.pgpass)); V(prefer) if there is none. The
        password of a server without TLS can be read by everybody on the way, so O(ssl_mode=disable) has to be set.
    type: str
    choices: [allow, disable, prefer, require, verify-ca, verify-full]
  ca_cert:
    description: File with the certificate of the authority, for V(verify-ca) and V(verify-full).
    type: path
  channel_binding:
    description:
      - Whether O(login_password) is bound to the TLS connection, as libpq's C(channel_binding). With V(require), only
        a server that knows the password is accepted, whatever its certificate. It has to be stored as
        C(scram-sha-256).
      - By default V(require) if there is a password to send, but V(prefer) with O(ssl_mode=verify-full), which proves
        the server in another way, and V(disable) with O(ssl_mode=disable).
    type: str
    choices: [disable, prefer, require]
  connect_timeout:
    description: Seconds to wait for a connection.
    type: int
    default: 10
requirements:
  - psycopg 3.1 or newer for the Python that Ansible uses on the host (Debian's C(python3-psycopg))
  - PostgreSQL 15 or newer, up to the newest that upstream has released
"""
