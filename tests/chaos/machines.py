"""Machines as far as processes can be: a host name, a SAGE_HOME, a sage.toml, processes, maybe a network of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.chaos.processes import ROOT

SAGE = Path(sys.executable).with_name("sage")
CONFIG = """
[store]
url = "{url}"

[workers]
count = 1
lease = {lease}

[cluster]
node = "{name}"
labels = ["{name}"]
silence = {silence}
"""


class Machine:
    """Runs `sage` in a UTS namespace of its own, so that the others cannot look whether its processes live."""

    def __init__(self, place: Path, name: str, url: str, *, lease: float, network: str = "") -> None:
        self.name = name
        self._network = network
        self.folder = place / name
        self.folder.mkdir()
        (self.folder / "sage.toml").write_text(CONFIG.format(url=url, name=name, lease=lease, silence=2 * lease))
        self._worker: subprocess.Popen[str] | None = None
        plugin = place / "plugin" / "chaos_plugin-1.0.dist-info"
        plugin.mkdir(parents=True, exist_ok=True)
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos-plugin\nVersion: 1.0\n")
        (plugin / "entry_points.txt").write_text("[sage]\nchaos = tests.chaos.operators\n")
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SAGE_")}
        path = os.pathsep.join([str(ROOT), str(plugin.parent)])
        self._environ = {**clean, "SAGE_HOME": str(self.folder / "home"), "PYTHONPATH": path}

    def _command(self, *arguments: str) -> list[str]:
        # Root needs no user namespace, in which it could not reach a socket that another user owns.
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        named = ["unshare", *user, "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        inside = ["ip", "netns", "exec", self._network] if self._network else []
        return [*inside, *named, str(SAGE), *arguments]

    def sage(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and read what it prints."""
        done = subprocess.run(
            self._command(*arguments, "--json"),
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def serve(self, *arguments: str) -> None:
        """Start `sage worker`."""
        self._worker = subprocess.Popen(
            self._command("worker", *arguments),
            cwd=self.folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to everything on the machine."""
        assert self._worker is not None
        os.killpg(self._worker.pid, number)

    def kill(self) -> None:
        """End everything on the machine at once, as a power cut does."""
        assert self._worker is not None
        self.send(signal.SIGKILL)
        self._worker.communicate()
        self._worker = None

    def leave(self) -> None:
        """Ask its supervisor to leave, and see that it does."""
        assert self._worker is not None
        self._worker.terminate()
        self.left()

    def left(self, code: int = 0) -> str:
        """Wait until its supervisor has left, and return what it said."""
        assert self._worker is not None
        said, _ = self._worker.communicate(timeout=60)
        assert self._worker.returncode == code, said
        self._worker = None
        return said

    def close(self) -> None:
        """Leave nothing running, whatever has happened."""
        if self._worker is not None:
            self.kill()
