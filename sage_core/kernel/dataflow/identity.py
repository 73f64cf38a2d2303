"""What names an operator's code in reuse keys: it changes with every edit that may change results, and only then.

`inspect.getsource` would miss the helpers an operator calls, so the unit is the distribution or the whole package.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sage_core.common.errors import BadSignature
from sage_core.common.operators import MARK, OperatorInfo

_CODE = (".py", ".so", ".pyd", ".dylib")


def code_key(target: Any, seen: MutableMapping[str, str] | None = None) -> str:
    """Return the key of a marked operator's code; `seen` shares what was read between operators of one package.

    ``version:…`` when the decorator names one, ``wheel:…`` by the digests an installed wheel's RECORD holds,
    ``source:…`` by the content of the package's files, ``file:…`` for a module that is one file.
    """
    info: OperatorInfo = getattr(target, MARK)
    if info.version is not None:
        return f"version:{info.version}"
    module = _module_name(target)
    package = _package(info, module)
    place = str(package.__file__)
    found = seen if seen is not None else {}
    if place not in found:
        found[place] = _key(info, package)
    return found[place]


def _module_name(target: Any) -> str:
    name: str = target.__module__
    if name == "__main__":
        # `python -m package.module` keeps its real name in the spec; a script has none.
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        return spec.name if spec is not None else name
    return name


def _package(info: OperatorInfo, module: str) -> ModuleType:
    """The outermost package that has an ``__init__.py``, or the module; other folders are shared by distributions."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        found = sys.modules.get(".".join(parts[:count]))
        if found is not None and getattr(found, "__file__", None):
            return found
    raise BadSignature(
        info.name,
        f"its module {module!r} has no file, so that its code cannot be told apart from another version's",
        "put the operator into a file, or set version= in @operator",
    )


def _key(info: OperatorInfo, package: ModuleType) -> str:
    path = Path(str(package.__file__))
    try:
        if not hasattr(package, "__path__"):
            return f"file:{_digest([(path.name, path.read_bytes())])}"
        return _wheel(path.parent, package.__name__) or _source(path.parent)
    except OSError as error:
        raise BadSignature(info.name, f"its code cannot be read: {error}", "set version= in @operator") from error


def _source(folder: Path) -> str:
    names = sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.endswith(_CODE) and os.path.basename(parent) != "__pycache__"
    )
    entries = ((os.path.relpath(name, folder).replace(os.sep, "/"), Path(name).read_bytes()) for name in names)
    return f"source:{folder.name}:{_digest(entries)}"


def _wheel(folder: Path, package: str) -> str:
    """The key by RECORD when a distribution beside the package lists the package's files; else empty."""
    root = folder.parents[package.count(".")]
    inside = f"{package.replace('.', '/')}/".encode()
    infos = [name for name in os.listdir(root) if name.endswith(".dist-info")]
    # The distribution is mostly named like the package: look there first, RECORDs can be large.
    for name in sorted(infos, key=lambda name: (not _alike(name, package), name)):
        try:
            record = (root / name / "RECORD").read_bytes()
        except OSError:
            continue
        if record.startswith(inside) or b"\n" + inside in record:
            return f"wheel:{name.removesuffix('.dist-info')}:{_digest([('RECORD', _results(record))])}"
    return ""


def _alike(info: str, package: str) -> bool:
    return info.partition("-")[0].lower().replace(".", "_") == package.lower().replace(".", "_")


def _results(record: bytes) -> bytes:
    # Byte code, scripts and the installer's own notes differ between machines with the same code.
    lines = (line for line in record.splitlines() if b".dist-info/" not in line and not line.startswith(b".."))
    return b"\n".join(sorted(line for line in lines if b".pyc," not in line))


def _digest(entries: Iterable[tuple[str, bytes]]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for name, content in entries:
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
