"""GPUs by name, as far as files say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from sage_vllm.gpus import Gpus

from sage_core import ModelError


def machine(root: Path, count: int) -> Path:
    (root / "dev").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in range(count))):
        (root / "dev" / name).touch()
    return root


def test_devices_are_counted_by_their_numbers(tmp_path: Path) -> None:
    assert Gpus(machine(tmp_path, 12), {}).all() == [str(number) for number in range(12)]
    assert Gpus(tmp_path / "nothing", {}).all() == []


def test_the_environment_may_leave_some_out(tmp_path: Path) -> None:
    machine(tmp_path, 4)
    assert Gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": "3, GPU-8a1b"}).all() == ["3", "GPU-8a1b"]
    assert Gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}).all() == []
    assert Gpus(tmp_path, {"CUDA_VISIBLE_DEVICES": "-1"}).all() == []


def test_nobody_gets_what_another_holds(tmp_path: Path) -> None:
    gpus = Gpus(machine(tmp_path, 3), {})
    first = gpus.take("a", 2)
    assert (first, gpus.free()) == (("0", "1"), ["2"])
    with pytest.raises(ModelError, match="model 'b': it needs 2 GPUs; 1 of 3 here are free\n  help: close an engine"):
        gpus.take("b", 2)
    with pytest.raises(ModelError, match="it needs 1 GPU; 1 of 3"):
        gpus.take("b", 1, ("0",))
    gpus.give_back(first)
    assert gpus.take("b", 1, ("1",)) == ("1",)
    assert gpus.take("c", 0) == ()
