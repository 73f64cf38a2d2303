from __future__ import annotations

import socket
import threading

import pytest
from sage_gateway.command_line import GatewayError, ask, url_of

from sage_core import Host, Paths, UsageError
from sage_core.serving import parse_config


class App:
    def __init__(self, toml: str = "") -> None:
        self.config = parse_config(toml, "sage.toml")
        self.host = Host({})

    @property
    def paths(self) -> Paths:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("toml", "given", "url"),
    [
        ("", "", "http://127.0.0.1:8700"),
        ("[ports]\ngateway = 9000\n", "", "http://127.0.0.1:9000"),
        ('[gateway]\nhost = "::1"\n', "", "http://[::1]:8700"),
        ('[gateway]\nurl = "https://llm.example/v1"\n', "", "https://llm.example"),
        ('[gateway]\nurl = "https://llm.example"\n', "http://other:1/v1/", "http://other:1"),
    ],
)
def test_where_the_gateway_is(toml: str, given: str, url: str) -> None:
    assert url_of(App(toml), given) == url


def test_what_is_no_address() -> None:
    with pytest.raises(UsageError, match="no address of a gateway"):
        url_of(App(), "file:///etc/passwd")


def test_something_else_that_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(GatewayError, match="its answer is no JSON"):
            ask(App(), f"http://127.0.0.1:{server.getsockname()[1]}", "GET", "/x")
        thread.join(10)
