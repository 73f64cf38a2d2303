from __future__ import annotations

from click.testing import CliRunner
from sage_gateway.serve import serve


def test_the_help_needs_no_server() -> None:
    done = CliRunner().invoke(serve, ["--help"])
    assert done.exit_code == 0
    for option in ("--host", "--port", "--config", "--record", "Examples:"):
        assert option in done.output
