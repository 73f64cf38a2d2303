from __future__ import annotations

import socket

import pytest
from sage_gateway.server import bound, server_config
from sage_gateway.settings import read_settings


def test_what_a_client_can_hold_is_bounded() -> None:
    config = server_config(read_settings({"idle": "7s", "grace": "3s"}), fd=0)
    assert (config.keep_alive_timeout, config.graceful_timeout) == (7.0, 3.0)
    assert config.h11_max_incomplete_size == config.h2_max_header_list_size == 32 * 1024
    # A client waits in silence for its answer, so silence is no reason to end a connection.
    assert config.read_timeout is None


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
def test_a_client_that_reads_nothing_is_ended_by_the_system() -> None:
    with bound("127.0.0.1", 0, unread=1.5) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1_500
