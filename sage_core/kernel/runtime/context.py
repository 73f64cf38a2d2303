"""What a running step may ask of SAGE: the `Context` behind an operator's ``ctx``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sage_core.common.contracts import InferenceClient
from sage_core.common.operators import Artifact
from sage_core.platform.artifacts import ArtifactStore, digest_file
from sage_core.platform.records import FileDigest
from sage_core.platform.store import JobStore

T = TypeVar("T")


class Opened:
    """Artifacts that a process has loaded, by digest: opened once, whatever the number of rows that use them."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._loaded: dict[tuple[str, str], object] = {}

    def get(self, artifact: Artifact, load: Callable[[Path], T]) -> T:
        """Return what `load` makes of the artifact's folder; raises `CorruptArtifact` when its content changed."""
        key = (artifact.digest, f"{load.__module__}:{load.__qualname__}")
        if key not in self._loaded:
            self._artifacts.verify(artifact.digest)
            self._loaded[key] = load(artifact.path)
        return self._loaded[key]  # type: ignore[return-value] # `load` names the type in the key


class StepContext:
    """Implements `Context` for one step of one run."""

    def __init__(
        self,
        *,
        run_id: str,
        step: str,
        base: Path,
        client: InferenceClient,
        artifacts: ArtifactStore,
        opened: Opened,
        store: JobStore,
        warn: Callable[[str], None],
    ) -> None:
        self.run_id = run_id
        self.step = step
        self.base = base
        self.client = client
        self._artifacts = artifacts
        self._opened = opened
        self._store = store
        self._warn = warn

    def new_artifact(self) -> NewArtifact:
        return NewArtifact(self._artifacts)

    def open_once(self, artifact: Artifact, load: Callable[[Path], T]) -> T:
        return self._opened.get(artifact, load)

    def digest_files(self, paths: Sequence[Path]) -> list[str]:
        names = [str(path.absolute()) for path in paths]
        known = self._store.file_digests(names)
        digests, fresh = [], []
        for name in names:
            stat = os.stat(name)
            row = known.get(name)
            if row is None or (row.size, row.mtime_ns, row.inode) != (stat.st_size, stat.st_mtime_ns, stat.st_ino):
                row = FileDigest(
                    path=name,
                    size=stat.st_size,
                    mtime_ns=stat.st_mtime_ns,
                    inode=stat.st_ino,
                    digest=digest_file(Path(name)),
                )
                fresh.append(row)
            digests.append(row.digest)
        if fresh:
            self._store.file_digest_put(fresh)
        return digests

    def warn(self, message: str) -> None:
        self._warn(message)


class NewArtifact:
    """Implements `ArtifactDir`."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._folder = artifacts.new_dir()

    @property
    def path(self) -> Path:
        return self._folder.path

    def publish(self, kind: type[T]) -> T:
        digest = self._folder.seal()
        return kind(self._artifacts.path(digest), digest)  # type: ignore[call-arg] # `kind` is an Artifact class
