"""What the commands of this plugin share: the command line's own objects, and how to ask a running gateway."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Protocol

from sage_core import SageError, UsageError

if TYPE_CHECKING:
    from sage_core import Host, Paths
    from sage_core.serving import Config

#: Seconds to wait for an answer.
PATIENCE = 30.0


class CommandLine(Protocol):
    """What the `sage` command hands to each of its commands."""

    @property
    def host(self) -> Host: ...
    @property
    def paths(self) -> Paths: ...
    @property
    def config(self) -> Config: ...


class GatewayError(SageError):
    """The gateway cannot be reached, or refuses; says why."""

    def __init__(self, url: str, problem: str, help: str = "") -> None:
        super().__init__(url, problem, help)

    def __str__(self) -> str:
        url, problem, help = self.args
        return f"gateway {url}: {problem}" + (f"\n  help: {help}" if help else "")


def url_of(app: CommandLine, url: str = "") -> str:
    """Where the gateway of this project is."""
    from sage_core.serving import SagePorts  # noqa: PLC0415 - `--help` needs none of it

    table = app.config.gateway
    host = str(table.get("host", "127.0.0.1"))
    shown = f"[{host}]" if ":" in host else host
    given = url or os.environ.get("SAGE_GATEWAY_URL", "") or str(table.get("url", ""))
    found = given or f"http://{shown}:{SagePorts(app.config.ports)['gateway']}"
    if not found.startswith(("http://", "https://")):
        raise UsageError(f"{found!r} is no address of a gateway", "write http://HOST:PORT")
    return found.rstrip("/").removesuffix("/v1")


def ask(app: CommandLine, url: str, method: str, path: str, body: object = None) -> Any:
    """Ask the gateway; raises `GatewayError` with its own words."""
    import urllib.error  # noqa: PLC0415 - `--help` needs none of it
    import urllib.parse  # noqa: PLC0415 - as above
    import urllib.request  # noqa: PLC0415 - as above

    base = url_of(app, url)
    headers = {"content-type": "application/json"}
    if key := os.environ.get("SAGE_GATEWAY_KEY"):
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + urllib.parse.quote(path), data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            problem = json.load(error)["error"]["message"]
        except (ValueError, LookupError, TypeError):
            problem = f"status {error.code}"
        help = "set SAGE_GATEWAY_KEY to an admin key: sage keys add --admin" if error.code in (401, 403) else ""
        raise GatewayError(base, problem, help) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise GatewayError(base, f"cannot be reached: {reason}", "start it with: sage serve") from None
    except ValueError as error:
        raise GatewayError(base, f"its answer is no JSON: {error}", "is something else listening there?") from None
