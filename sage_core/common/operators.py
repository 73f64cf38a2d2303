"""What an operator author writes with: the `operator` decorator and the types that give a signature its meaning.

Positional parameters are ports (`in`, vary per row); keyword-only ones are options (`with`, fixed per run); a
keyword-only parameter named ``ctx`` receives the `Context`. The return annotation says what the step does to rows:
a record names its columns, ``Iterator[T]`` opens a child grain, ``Keep`` filters, ``None`` is a sink.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, TypeVar

import msgspec

from sage_core.common.contracts import InferenceClient

if TYPE_CHECKING:
    import numpy.typing

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any] | type)

#: Attribute under which `operator` leaves an `OperatorInfo` on the function or class.
MARK = "__sage_operator__"


class Batch(list[T]):
    """Many rows in one call: ``Batch[T] -> Batch[U]`` takes n rows and returns n rows, in the same order."""


class Dataset(list[T]):
    """All rows of a group at once, in row order: a port of this type makes the step a collect."""


class Keep(msgspec.Struct, frozen=True):
    """A filter's verdict: a step that returns it re-emits its input ports on the rows where `keep` is true."""

    keep: bool


if TYPE_CHECKING:
    Vector: TypeAlias = numpy.typing.NDArray[numpy.float32]
    Vectors: TypeAlias = numpy.typing.NDArray[numpy.float32]
else:

    class Vector:
        """One float32 embedding of shape ``(d,)``; ``Vector[384]`` fixes d. A ``list[float]`` is no vector."""

        def __class_getitem__(cls, dim: int) -> Any:
            return Annotated[cls, dim]

    class Vectors:
        """``Batch[Vector]`` as one float32 block of shape ``(n, d)``: no per-row objects on the way."""


class RowError(msgspec.Struct, frozen=True):
    """What a batch operator returns in a row's place when that row failed and the others did not."""

    message: str
    kind: str = "user"


class Artifact:
    """A value that is a directory of files, named by the digest of their content.

    Subclass it to say what the files are; open what is inside with `path`. Only the digest enters reuse keys.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self.digest = digest


class ArtifactDir(Protocol):
    """A fresh directory that becomes an artifact when the step returns it through `publish`."""

    @property
    def path(self) -> Path:
        """Where to write; empty at first, private to this attempt."""

    def publish(self, kind: type[T]) -> T:
        """Digest the written files and return them as an artifact of class `kind` (a subclass of `Artifact`)."""


class Context(Protocol):
    """What a running step may ask of SAGE; injected into a keyword-only parameter named ``ctx``."""

    @property
    def run_id(self) -> str:
        """The run this call belongs to."""

    @property
    def step(self) -> str:
        """The step's name in the workflow."""

    @property
    def client(self) -> InferenceClient:
        """The one way to a model; every call through it is scheduled and logged."""

    @property
    def base(self) -> Path:
        """The folder of the workflow file: relative paths in options have been joined to it already."""

    def new_artifact(self) -> ArtifactDir:
        """Return an empty directory to fill and publish."""

    def open_once(self, artifact: Artifact, load: Callable[[Path], T]) -> T:
        """Load an artifact once per worker and digest; later calls return the same object."""

    def digest_files(self, paths: Sequence[Path]) -> list[str]:
        """Content digests, one per path, read again only where size, mtime or inode changed."""

    def warn(self, message: str) -> None:
        """Report something the user should see, once per distinct message and run."""


class OperatorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the decorator was told; the signature itself is read from the annotations."""

    name: str
    #: Name of the single column when the return is not a record; None means ``value``.
    returns: str | None = None
    #: Same inputs, same outputs, always: results are reused between runs. False: within a run only.
    pure: bool = True
    #: Rows are remembered one by one across runs, below the job: for model calls.
    memo: bool = False
    #: Replaces the code digest in reuse keys when set; the author then bumps it with every change that matters.
    version: str | None = None
    #: Options that name a model; `sage check` looks them up among `[models]`, keys include the model's identity.
    models: tuple[str, ...] = ()
    #: Options and ports that are file system paths (relative ones start at the workflow's folder).
    paths: tuple[str, ...] = ()
    #: The column that is, word for word, what the call's one generation wrote: it may be shown while it is written.
    streamed: str = ""


def operator(
    name: str,
    *,
    returns: str | None = None,
    pure: bool = True,
    memo: bool = False,
    version: str | None = None,
    models: Sequence[str] = (),
    paths: Sequence[str] = (),
    streamed: str = "",
) -> Callable[[F], F]:
    """Make an operator of a typed function or class; the object itself stays what it was, and testable as such."""
    info = OperatorInfo(
        name=name, returns=returns, pure=pure, memo=memo, version=version, models=tuple(models), paths=tuple(paths),
        streamed=streamed,
    )  # fmt: skip

    def mark(target: F) -> F:
        setattr(target, MARK, info)
        return target

    return mark
