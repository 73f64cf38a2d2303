"""What the commands of one process share: the plugin host, the folders and sage.toml, each made when asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sage_core.common.config import Config
    from sage_core.common.host import Host
    from sage_core.common.paths import Paths


class App:
    """The composition root of the command line; `main` makes one, commands receive it through `pass_app`."""

    # The imports wait inside the methods because `sage --version` and `sage COMMAND --help` need none of them.

    def __init__(self, host: Host | None = None) -> None:
        self._host = host

    @cached_property
    def host(self) -> Host:
        """The host given, else the installed plugins on top of the defaults."""
        if self._host is not None:
            return self._host
        from sage_core.builtins import default_host  # noqa: PLC0415 - see above

        return default_host()

    @cached_property
    def paths(self) -> Paths:
        """The folders of the project that the current one belongs to."""
        from sage_core.common.paths import find_paths  # noqa: PLC0415 - see above

        return find_paths(Path.cwd())

    @cached_property
    def config(self) -> Config:
        """The sage.toml that applies to the current folder."""
        from sage_core.common.config import load_config  # noqa: PLC0415 - see above

        return load_config(Path.cwd())


pass_app = click.make_pass_decorator(App, ensure=True)
