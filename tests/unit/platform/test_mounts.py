from __future__ import annotations

from pathlib import Path

import pytest

from sage_core.platform.mounts import MOUNTS, file_system, network_file_system

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw,nosuid shared:2 - proc proc rw
40 22 0:45 / /home rw,relatime shared:20 - nfs4 nas:/export/home rw,vers=4.2
41 40 0:46 / /home/me/disk rw shared:21 master:3 - xfs /dev/sdb1 rw
42 22 0:47 / /mnt/my\\040share rw - cifs //nas/share rw
43 22 0:48 / /over rw - tmpfs tmpfs rw
44 43 0:49 / /over rw - fuse.sshfs me@host:/ rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/var/lib/sage", "ext4"),
        ("/home/me/.sage/sage.db", "nfs4"),
        ("/home/me/disk/sage.db", "xfs"),
        ("/homely/sage.db", "ext4"),
        ("/mnt/my share/sage.db", "cifs"),
        ("/over/sage.db", "fuse.sshfs"),
        ("/", "ext4"),
    ],
)
def test_the_innermost_and_latest_mount_holds_a_path(path: str, expected: str) -> None:
    assert file_system(Path(path), MOUNTINFO) == expected


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path) -> None:
    assert file_system(Path("/x"), "") == ""
    assert network_file_system(tmp_path, tmp_path / "missing") == ""


def test_only_a_network_file_system_is_named(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    for kind, named in (("nfs4", "nfs4"), ("9p", "9p"), ("ext4", ""), ("tmpfs", "")):
        mounts.write_text(f"22 1 8:1 / / rw - {kind} x rw\n", encoding="utf-8")
        assert network_file_system(tmp_path, mounts) == named


@pytest.mark.skipif(not MOUNTS.exists(), reason="this system lists no mounts")
def test_this_machines_own_mounts_are_read() -> None:
    assert file_system(Path("/proc/self"), MOUNTS.read_text(encoding="utf-8")) == "proc"
