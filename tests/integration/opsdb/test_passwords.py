# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A password over the network goes to the server only, unless somebody says otherwise."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from deploying import target
from majors import make_server
from servers import Server

from pgops.errors import LoginRefused
from pgops.server.session import connect
from pgops.server.target import Target

PASSWORD = "hunter2"
CLEARTEXT = struct.pack("!cii", b"R", 8, 3)
"""AuthenticationCleartextPassword."""
TLS = "hostssl all all 127.0.0.1/32 {}\n"


@dataclass
class Impostor:
    """Something that answers where a server is expected, and asks for the password in plain text."""

    port: int
    heard: list[bytes] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _address = listener.accept()
            except OSError:
                return
            with contextlib.closing(client):
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error):
            first = client.recv(8)
            if first != struct.pack("!ii", 8, 80877103):
                self._ask(client, first)
            elif self.tls is None:
                client.sendall(b"N")
                self._ask(client, client.recv(8))
            else:
                client.sendall(b"S")
                with self.tls.wrap_socket(client, server_side=True) as encrypted:
                    self._ask(encrypted, encrypted.recv(8))

    def _ask(self, client: socket.socket, first: bytes) -> None:
        client.recv(struct.unpack("!i", first[:4])[0] - 8)
        client.sendall(CLEARTEXT)
        self.heard.append(client.recv(1024))


@pytest.fixture(name="impostor", params=["without TLS", "with a certificate of its own"])
def _impostor(request: pytest.FixtureRequest) -> Iterator[Impostor]:
    listener = socket.create_server(("127.0.0.1", 0))
    impostor = Impostor(listener.getsockname()[1])
    if request.param != "without TLS":
        impostor.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(impostor.tls)
    thread = threading.Thread(target=impostor.serve, args=(listener,), daemon=True)
    thread.start()
    yield impostor
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_who_answers_in_the_servers_place_gets_no_password(impostor: Impostor) -> None:
    with pytest.raises(LoginRefused) as caught:
        connect(Target(host="127.0.0.1", port=str(impostor.port), user="admin", password=PASSWORD))
    assert "ssl_mode" in caught.value.hint
    assert not any(PASSWORD.encode() in heard for heard in impostor.heard)


def test_nor_one_that_libpq_finds_by_itself(
    impostor: Impostor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at = Target(host="127.0.0.1", port=str(impostor.port), user="admin")
    with monkeypatch.context() as patched:
        patched.setenv("PGPASSWORD", PASSWORD)
        with pytest.raises(LoginRefused):
            connect(at)
    kept = tmp_path / "pgpass"
    kept.write_text(f"*:*:*:*:{PASSWORD}\n")
    kept.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(kept))
    with pytest.raises(LoginRefused):
        connect(at)
    assert not any(PASSWORD.encode() in heard for heard in impostor.heard)


def test_only_who_says_so_sends_it_to_whoever_asks(impostor: Impostor) -> None:
    mode = "require" if impostor.tls else "disable"
    at = Target(host="127.0.0.1", port=str(impostor.port), user="admin", password=PASSWORD, sslmode=mode)
    with pytest.raises(LoginRefused):
        connect(Target(**{**vars(at), "channel_binding": "disable"}))
    assert any(PASSWORD.encode() in heard for heard in impostor.heard)


@pytest.fixture(name="own", scope="module")
def _own() -> Iterator[Server]:
    with make_server(18) as running:
        authority = running.enable_tls()
        assert authority.exists()
        running.reload()
        yield running


@pytest.mark.parametrize(("stored", "asked"), [("md5", "md5"), ("scram-sha-256", "password")])
def test_a_server_that_asks_in_another_way_has_to_be_known(own: Server, stored: str, asked: str) -> None:
    own.value(f"SET password_encryption = '{stored}'; ALTER ROLE postgres PASSWORD '{PASSWORD}'")
    own.write_hba(f"local all all trust\n{TLS.format(asked)}")
    own.reload()
    over_tcp = {"host": "127.0.0.1", "password": PASSWORD}
    with pytest.raises(LoginRefused, match="scram-sha-256") as caught:
        connect(target(own, **over_tcp))
    assert "set ssl_mode=verify-full and ca_cert" in caught.value.hint
    connect(target(own, **over_tcp, sslrootcert=str(own.directory / "ca.crt"))).close()
    connect(target(own, **over_tcp, channel_binding="disable")).close()


def test_what_debian_has_from_the_start_needs_nothing(own: Server) -> None:
    own.value(f"SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD '{PASSWORD}'")
    own.write_hba(f"local all all trust\n{TLS.format('scram-sha-256')}")
    own.reload()
    with connect(target(own, host="127.0.0.1", password=PASSWORD)) as session:
        assert session.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    with pytest.raises(LoginRefused, match="password which was used"):
        connect(target(own, host="127.0.0.1", password="wrong"))


def test_without_tls_it_has_to_be_said(new_server: Callable[..., Server]) -> None:
    server = new_server(18, auth="scram-sha-256").start()
    over_tcp = {"host": "127.0.0.1", "password": "wrong"}
    with pytest.raises(LoginRefused, match="has no TLS") as caught:
        connect(target(server, **over_tcp))
    assert "set ssl_mode=disable" in caught.value.hint
    with pytest.raises(LoginRefused, match="password which was used"):
        connect(target(server, **over_tcp, sslmode="disable"))


def test_without_a_password_nothing_is_asked(own: Server) -> None:
    own.write_hba("local all all trust\nhost all all 127.0.0.1/32 trust\n")
    own.reload()
    connect(target(own, host="127.0.0.1")).close()
    connect(target(own, host="127.0.0.1", sslmode="require")).close()
    connect(target(own, password=PASSWORD)).close()
