"""SagePorts: one name per default TCP port, overridable, probed before use, with the holder named when taken."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from sage_core.common.errors import ConfigError, PortTaken, UnknownName

#: Every default port. Overrides: ``[ports]`` in sage.toml, then ``SAGE_PORT_<NAME>`` in the environment.
DEFAULTS: Mapping[str, int] = {"gateway": 8700}


class SagePorts:
    """Answers which port a service uses, and proves that it is free."""

    def __init__(self, overrides: Mapping[str, int] | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._ports = dict(DEFAULTS)
        environ = os.environ if environ is None else environ
        for name, port in (overrides or {}).items():
            self._set(f"[ports] {name}", name, port)
        for name in DEFAULTS:
            value = environ.get(f"SAGE_PORT_{name.upper()}")
            if value is not None:
                self._set(f"SAGE_PORT_{name.upper()}", name, value)

    def __getitem__(self, name: str) -> int:
        try:
            return self._ports[name]
        except KeyError:
            raise UnknownName("port", name, tuple(self._ports)) from None

    def claim(self, name: str, host: str = "127.0.0.1") -> int:
        """Return the port after binding it once for proof; raises `PortTaken` naming the holder."""
        port = self[name]
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortTaken(name, port, port_holder(port)) from None
                # Below 1024 without the right to it, or an address this machine does not have.
                raise ConfigError(f"port {port} ({name})", f"cannot be bound on {host}: {error.strerror}") from None
        return port

    def _set(self, where: str, name: str, port: int | str) -> None:
        if name not in DEFAULTS:
            raise UnknownName("port", name, tuple(DEFAULTS))
        if not str(port).isdecimal() or not 0 < int(port) < 65_536:
            raise ConfigError(where, f"{port!r} is not a port", "a port is a number from 1 to 65535")
        self._ports[name] = int(port)


def port_holder(port: int) -> str:
    """Name the process that listens on a local TCP port, from /proc; ``another process`` where that cannot be read."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {process.name} ({' '.join(command.split())[:60]})"
        except OSError:
            continue
    return "another process"
