"""Which file system a path lies on: SQLite's locks and its shared memory do not hold where machines share the files."""

from __future__ import annotations

import re
from pathlib import Path

#: Where Linux lists what this process sees mounted; elsewhere nothing is known.
MOUNTS = Path("/proc/self/mountinfo")
#: File systems whose files another machine may have open.
NETWORK = frozenset(
    "9p afs beegfs ceph cifs fuse.gcsfuse fuse.glusterfs fuse.rclone fuse.s3fs fuse.sshfs"  # noqa: SIM905 - many words
    " gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 smb3 smbfs".split()
)


def file_system(path: Path, mountinfo: str) -> str:
    """Type of the file system that holds an absolute path, from the text of a mountinfo; empty where unknown."""
    found, deepest = "", -1
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if len(fields.split(" ")) < 5 or not rest:
            continue
        # Blanks in it are written as octal numbers.
        at = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields.split(" ")[4]))
        # Of two mounts on one place the later hides the earlier.
        if path.is_relative_to(at) and len(at.parts) >= deepest:
            found, deepest = rest.split(" ")[0], len(at.parts)
    return found


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Type of the network file system that a path lies on; empty where it lies on none, or nothing is known."""
    try:
        found = file_system(path.resolve(), mounts.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found if found in NETWORK else ""
