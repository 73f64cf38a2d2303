"""What a machine is found to offer, from files as a system has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sage_core.common.config import ClusterConfig, Config
from sage_core.kernel.scheduler.node import this_node

PLAIN = Config()
GIB = 1 << 30


def system(root: Path, files: dict[str, str]) -> Path:
    """A machine's files below `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_has_a_name_cores_and_memory() -> None:
    node = this_node(PLAIN)
    assert node.name == os.uname().nodename
    assert 0 < node.cpu <= (os.cpu_count() or 1)
    assert 0 < node.memory <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_machine_without_limits_and_devices_is_a_node_of_its_cores(tmp_path: Path) -> None:
    node = this_node(PLAIN, root=tmp_path, environ={})
    assert (node.cpu, node.gpu, node.labels) == (len(os.sched_getaffinity(0)), 0, ())


@pytest.mark.parametrize(
    "files",
    [
        {
            "proc/self/cgroup": "0::/a.slice/b.scope\n",
            "sys/fs/cgroup/a.slice/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a.slice/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/a.slice/b.scope/memory.max": "max\n",
        },
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n1:name=systemd:/docker/x\n",
            # Only the top is mounted in the container.
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
        },
    ],
    ids=["version 2, in a group above", "version 1, in a container"],
)
def test_a_control_group_is_all_there_is(tmp_path: Path, files: dict[str, str]) -> None:
    node = this_node(PLAIN, root=system(tmp_path, files), environ={})
    assert (node.cpu, node.memory) == (0.5, GIB)


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "2:cpu:/\n1:memory:/\n0::/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    limited, free = this_node(PLAIN, root=system(tmp_path, files), environ={}), this_node(PLAIN, root=tmp_path / "no")
    assert (limited.cpu, limited.memory) == (free.cpu, free.memory)


CARDS = {
    **{f"dev/nvidia{name}": "" for name in (0, 1, "ctl", "-uvm")},
    **{f"proc/driver/nvidia/gpus/0000:0{n}/information": "Model: \t\t NVIDIA H200 \nIRQ: 1\n" for n in (1, 2)},
}


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 2),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 2),
    ],
)
def test_gpus_are_counted_by_their_devices_and_named_by_a_label(
    tmp_path: Path, environ: dict[str, str], count: int
) -> None:
    node = this_node(PLAIN, root=system(tmp_path, CARDS), environ=environ)
    assert (node.gpu, node.labels) == (count, ("gpu", "nvidia-h200") if count else ())


def test_amds_gpus_are_counted_too_and_a_processor_is_none(tmp_path: Path) -> None:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    root = system(tmp_path, {f"{nodes}/0/gpu_id": "0\n", f"{nodes}/1/gpu_id": "51234\n"})
    node = this_node(PLAIN, root=root, environ={})
    assert (node.gpu, node.labels) == (1, ("amd", "gpu"))


def test_what_the_cluster_section_says_wins(tmp_path: Path) -> None:
    said = ClusterConfig(node="left", cpu=1.5, memory=7, gpu=0, labels=("ssd", "fast"))
    node = this_node(Config(cluster=said), root=system(tmp_path, CARDS), environ={})
    assert (node.name, node.cpu, node.memory, node.gpu) == ("left", 1.5, 7, 0)
    assert node.labels == ("fast", "ssd")


def test_the_memory_of_gpus_is_what_the_cluster_section_says_where_there_are_any(tmp_path: Path) -> None:
    said = Config(cluster=ClusterConfig(gpu_memory=80 << 30))
    assert this_node(said, root=system(tmp_path, CARDS), environ={}).gpu_memory == 80 << 30
    assert this_node(said, root=tmp_path / "bare", environ={}).gpu_memory == 0
