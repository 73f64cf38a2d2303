"""Where SAGE keeps things: XDG folders for the user, `.sage/` for a project, `SAGE_HOME` to move everything."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import msgspec


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """Every folder SAGE writes to. Nothing is created until it is needed."""

    #: Runs, jobs and artifacts of one project.
    project: Path
    #: Models and what else outlives projects.
    data: Path
    #: Sockets, locks and process ids: gone after a reboot.
    runtime: Path

    @property
    def database(self) -> Path:
        """The default SQLite job store."""
        return self.project / "sage.db"

    @property
    def artifacts(self) -> Path:
        """Content-addressed results."""
        return self.project / "artifacts"

    @property
    def logs(self) -> Path:
        """The decision log and the output of child processes."""
        return self.project / "logs"

    @property
    def models(self) -> Path:
        """Models added with `sage models add`."""
        return self.data / "models"

    @property
    def socket(self) -> Path:
        """Where the engine-host process listens."""
        return self.runtime / "engines.sock"


def find_paths(start: Path) -> Paths:
    """Resolve the folders for a command that works on `start` (a workflow's folder or the current one).

    ``SAGE_HOME`` moves everything. Otherwise the project is the nearest folder at or above `start` that holds
    ``sage.toml`` or ``.sage``, else `start` itself; data and runtime follow the XDG base directories.
    """
    home = os.environ.get("SAGE_HOME")
    if home:
        root = Path(home).expanduser().absolute()
        return Paths(project=root / "project", data=root / "data", runtime=root / "run")
    import platformdirs  # noqa: PLC0415 - a command under SAGE_HOME does not need it

    # Path.absolute keeps "..", and what lies above "here/../there" is not "here".
    start = Path(os.path.abspath(start))
    marked = (
        folder for folder in (start, *start.parents) if (folder / "sage.toml").exists() or (folder / ".sage").is_dir()
    )
    project = next(marked, start) / ".sage"
    with warnings.catch_warnings():
        # Without a login session there is no XDG_RUNTIME_DIR; the fallback below /tmp serves as well.
        warnings.simplefilter("ignore", UserWarning)
        # Socket paths are limited to about 100 bytes, so a deep project folder cannot hold one.
        runtime = Path(platformdirs.user_runtime_dir("sage", ensure_exists=False))
    return Paths(project=project, data=Path(platformdirs.user_data_dir("sage")), runtime=runtime)
