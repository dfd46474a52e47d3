# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Those who are told of alerts, on loopback: a web server, which takes webhooks of any kind, and a mail server."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from servers import free_port


@dataclass(frozen=True)
class Received:
    """What arrived: ``place`` is the path or the recipient."""

    place: str
    text: str


@dataclass
class Receiver:
    """``mood`` is how it answers: well; refusing; hanging, it never does; or dropping, it has taken the message and
    closes the connection."""

    mood: str = "well"
    port: int = field(default_factory=free_port)
    received: list[Received] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def texts(self) -> list[str]:
        """What has arrived."""
        return [one.text for one in self.received]


@dataclass
class Webhook(Receiver):
    """A web server that takes JSON."""

    _server: ThreadingHTTPServer | None = None

    def url(self, scheme: str, path: str) -> str:
        """An address of Apprise, or with http a usual one."""
        return f"{scheme}://127.0.0.1:{self.port}/{path}"

    def address(self, secret: str) -> str:
        """An address of Apprise with a secret in it."""
        return self.url("json", secret)

    def start(self) -> Webhook:
        """Listen."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, *_arguments: Any) -> None:
                """Nobody reads it."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_arguments: Any) -> None:
                """Who was hung up on is gone."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.close_connection = True
        if self.mood == "refusing":
            handler.send_response(403)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        self.received.append(Received(handler.path, _text(json.loads(body))))
        if self.mood == "hanging":
            self.released.wait(60)
        if self.mood == "well":
            handler.send_response(200)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    def stop(self) -> None:
        """Nobody listens any more."""
        self.released.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _text(body: Any) -> str:
    """What people read of a webhook: its text, Slack's and Mattermost's field, or all of it."""
    if "alerts" in body:  # Alertmanager's own
        return " ".join(f"{one['status']} {one['labels']['alertname']}" for one in body["alerts"])
    return str(body.get("text") or f"{body.get('title')}\n{body.get('message')}")


@dataclass
class Mail(Receiver):
    """A mail server."""

    _controller: Controller | None = None

    @property
    def url(self) -> str:
        """Its address of Apprise, with a recipient."""
        return f"mailto://127.0.0.1:{self.port}/?from=pgops@example.com&to=dba@example.com"

    def address(self, secret: str) -> str:
        """An address of Apprise with a secret in it."""
        return f"{self.url}&name={secret}"

    def start(self) -> Mail:
        """Listen."""
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()
        return self

    async def handle_DATA(self, server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """One message."""
        if self.mood == "refusing":
            return "550 nobody here wants that"
        message = message_from_bytes(envelope.content, policy=policy.default)
        body = message.get_body(("plain", "html"))
        text = f"{message['subject']}\n{body.get_content() if body else ''}"
        self.received.append(Received(envelope.rcpt_tos[0], text))
        if self.mood == "hanging":
            await asyncio.to_thread(self.released.wait, 60)
        if self.mood == "dropping":
            server.transport.abort()
        return "250 taken"

    def stop(self) -> None:
        """Nobody listens any more."""
        self.released.set()
        if self._controller:
            self._controller.stop()
            self._controller = None
