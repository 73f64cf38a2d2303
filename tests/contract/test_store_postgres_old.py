"""A PostgreSQL server that is too old: told by its version, before anything is asked of it."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sage_core.common.errors import StoreError, StoreUnavailable
from sage_core.platform.store import JobStore

#: What a client may ask before it says who it is: to encrypt the connection.
SSL, GSS = 80877103, 80877104


class Session(socketserver.StreamRequestHandler):
    """A connection of a server that greets as a real one does, and knows none of the settings it is sent."""

    def handle(self) -> None:
        while self._startup() in (SSL, GSS):
            self.wfile.write(b"N")
        version = self.server.version  # type: ignore[attr-defined]
        self._say(b"R", struct.pack("!i", 0))
        for name, value in (("server_version", version), ("client_encoding", "UTF8")):
            self._say(b"S", name.encode() + b"\0" + value.encode() + b"\0")
        self._say(b"K", struct.pack("!ii", 1, 1))
        self._say(b"Z", b"I")
        while (kind := self.rfile.read(1)) not in (b"", b"X"):
            (size,) = struct.unpack("!i", self.rfile.read(4))
            asked = self.rfile.read(size - 4)
            self.server.asked.append(kind + asked)  # type: ignore[attr-defined]
            self._say(b"E", b"SERROR\0C42704\0Munrecognized configuration parameter\0\0")
            self._say(b"Z", b"I")

    def _startup(self) -> int:
        size, code = struct.unpack("!ii", self.rfile.read(8))
        self.rfile.read(size - 8)
        return int(code)

    def _say(self, kind: bytes, body: bytes) -> None:
        self.wfile.write(kind + struct.pack("!i", len(body) + 4) + body)


class Greeter(socketserver.ThreadingTCPServer):
    """Listens on a port of its own and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, version: str) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.version = version
        self.asked: list[bytes] = []

    @property
    def url(self) -> str:
        """How a client names it."""
        return f"postgresql://me:hunter2@127.0.0.1:{self.server_address[1]}/sage"


@contextmanager
def greeter(version: str) -> Iterator[Greeter]:
    """A server of a version, until the block ends."""
    with Greeter(version) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("version", ["13.4", "13.23 (Debian 13.23-0+deb11u1)", "11.22", "9.5.25"])
def test_an_old_server_is_refused_for_good_and_asked_nothing(version: str) -> None:
    with greeter(version) as server:
        with pytest.raises(StoreError) as caught:
            JobStore.open(server.url)
        assert str(caught.value) == (
            f"store postgresql://me:***@127.0.0.1:{server.server_address[1]}/sage: PostgreSQL {version} is too old\n"
            "  help: SAGE needs 14 or later"
        )
        # Waiting does not make it newer.
        assert not isinstance(caught.value, StoreUnavailable)
        assert server.asked == []


def test_a_port_of_something_else_is_no_postgresql() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(StoreError, match="cannot be reached or is busy"):
            JobStore.open(f"postgresql://me@127.0.0.1:{listener.getsockname()[1]}/sage?gssencmode=disable")
