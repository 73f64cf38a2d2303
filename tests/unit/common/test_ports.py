"""SagePorts: defaults, overrides, and the proof that a port is free, with real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from sage_core.common.errors import ConfigError, PortTaken, UnknownName
from sage_core.common.ports import DEFAULTS, SagePorts, port_holder

LISTEN = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


def test_every_default_has_a_port_of_its_own() -> None:
    assert len(set(DEFAULTS.values())) == len(DEFAULTS)
    assert {name: SagePorts({}, {})[name] for name in DEFAULTS} == DEFAULTS


def test_the_environment_goes_before_the_file() -> None:
    assert SagePorts({"gateway": 9001}, {})["gateway"] == 9001
    assert SagePorts({"gateway": 9001}, {"SAGE_PORT_GATEWAY": "9002"})["gateway"] == 9002


def test_variables_that_kubernetes_sets_for_a_service_named_sage_are_not_ours() -> None:
    environ = {"SAGE_PORT": "tcp://10.0.0.1:80", "SAGE_PORT_8700_TCP": "tcp://10.0.0.1:8700"}
    assert SagePorts({}, environ)["gateway"] == DEFAULTS["gateway"]


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "", "80.5"])
def test_what_is_no_port_is_named(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SagePorts({}, {"SAGE_PORT_GATEWAY": value})
    expected = f"SAGE_PORT_GATEWAY: {value!r} is not a port\n  help: a port is a number from 1 to 65535"
    assert str(caught.value) == expected


def test_a_misspelt_port_is_suggested() -> None:
    with pytest.raises(UnknownName, match=r"No port is named 'gateways'\. Did you mean 'gateway'\?"):
        SagePorts({"gateways": 1}, {})
    with pytest.raises(UnknownName, match="No port is named 'gateways'"):
        SagePorts({}, {})["gateways"]


def test_a_free_port_can_be_claimed_and_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    claimed = SagePorts({"gateway": port}, {}).claim("gateway")
    with socket.create_server(("127.0.0.1", claimed)):
        assert claimed == port


def test_the_holder_of_a_port_is_named() -> None:
    with subprocess.Popen([sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        with pytest.raises(PortTaken) as caught:
            SagePorts({"gateway": port}, {}).claim("gateway")
        holder.communicate()
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"port {port} (gateway) is taken by process {holder.pid} (")
    assert second == "  help: stop it, or set [ports] gateway = N in sage.toml or SAGE_PORT_GATEWAY=N"


def test_a_port_of_ones_own_and_one_of_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_holder(port).startswith(f"process {os.getpid()} (")
    assert port_holder(port) == "another process"


def test_an_address_that_is_not_this_machines_is_no_taken_port() -> None:
    with pytest.raises(ConfigError, match=r"port 8700 \(gateway\): cannot be bound on 203\.0\.113\.1: "):
        SagePorts({}, {}).claim("gateway", "203.0.113.1")
