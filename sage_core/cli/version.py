"""`sage version`: what to quote in a report."""

from __future__ import annotations

import platform
import sqlite3
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

import click

from sage_core import __version__
from sage_core.cli.app import App, pass_app
from sage_core.cli.output import json_option, print_json
from sage_core.kernel.control_plane.packing import KERNELS

#: Dependencies whose version decides results or stored formats.
LIBRARIES = ("pluggy", "msgspec", "sqlalchemy", "alembic", "pyarrow", "numpy")


@click.command()
@json_option
@pass_app
def version(app: App, as_json: bool) -> None:
    """Print the versions that matter in a report.

    \b
    Examples:
      sage version
      sage version --json
    """
    found = versions()
    plugins = {info.name: info.version for info in app.host.plugins() if info.version}
    if as_json:
        print_json({"sage": __version__, **found, "plugins": plugins})
        return
    click.echo(f"sage {__version__}")
    for name, value in {**found, **plugins}.items():
        click.echo(f"  {name} {value}")


def versions() -> dict[str, str]:
    """Versions of Python, the platform, SQLite and the libraries; ``missing`` for one that is not installed.

    Last, what computes the kernels that `sage-native` has compiled.
    """
    found = {"python": platform.python_version(), "platform": platform.platform(), "sqlite": sqlite3.sqlite_version}
    for name in LIBRARIES:
        try:
            found[name] = installed_version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    found["kernels"] = KERNELS
    return found
