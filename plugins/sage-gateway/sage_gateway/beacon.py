"""How processes of this machine find the gateway and prove that they belong to it: one private file of the project."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from sage_core import Paths
from sage_gateway.keys import write_private

#: How a token begins that a gateway made for its own jobs; the id of the key that they work for follows the secret.
INTERNAL = "sage-internal."


class Beacon(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway that runs now is, and the secret of its jobs."""

    url: str
    secret: str

    def token(self, key: str) -> str:
        """The bearer token of a job that works for a key."""
        return f"{INTERNAL}{self.secret}.{key}"


def beacon_path(paths: Paths) -> Path:
    """Where a project's gateway writes it."""
    return paths.project / "gateway.json"


def light(path: Path, url: str) -> Beacon:
    """Say where this gateway is; jobs of one that died find it here."""
    beacon = Beacon(url=url, secret=secrets.token_urlsafe(32))
    write_private(path, msgspec.json.encode(beacon))
    return beacon


def put_out(path: Path) -> None:
    """Take it away: whoever gets the port next must not be sent what was meant for the gateway."""
    path.unlink(missing_ok=True)


def seen(path: Path) -> Beacon | None:
    """The gateway that was started last, or None."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Beacon)
    except (OSError, msgspec.MsgspecError):
        return None
