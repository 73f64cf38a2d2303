"""sage.toml: where it is found, what it means, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_core.common.config import Config, load_config, parse_config
from sage_core.common.errors import ConfigError

FULL = """
[store]
url = "sqlite:///jobs.db"
synchronous = "FULL"

[scheduler]
requests = "edf"
selector = "spread"

[selectors.spread]
filters = ["fits"]
scorers = { least_loaded = 2, affinity = 0.5 }

[workers]
count = 4
lease = 5

[ports]
gateway = 9000

[models.minilm]
backend = "onnx"
"""


def test_every_table_is_read() -> None:
    config = parse_config(FULL, "sage.toml")
    assert (config.store.url, config.store.synchronous) == ("sqlite:///jobs.db", "FULL")
    assert (config.scheduler.requests, config.scheduler.jobs) == ("edf", "priority")
    assert config.selectors["spread"].scorers == {"least_loaded": 2.0, "affinity": 0.5}
    assert config.selectors["spread"].picker == ""
    assert (config.workers.count, config.workers.lease) == (4, 5.0)
    assert (config.ports, config.models) == ({"gateway": 9000}, {"minilm": {"backend": "onnx"}})


def test_the_nearest_file_above_wins(tmp_path: Path, sage_home: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "sage.toml").write_text("[workers]\ncount = 7\n")
    assert load_config(inner).workers.count == 7
    (tmp_path / "a" / "sage.toml").write_text("[workers]\ncount = 3\n")
    assert load_config(inner).workers.count == 3


def test_no_file_means_the_defaults(tmp_path: Path, sage_home: Path) -> None:
    assert load_config(tmp_path) == Config()


def test_a_named_file_goes_first(tmp_path: Path, sage_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sage.toml").write_text("[workers]\ncount = 7\n")
    (tmp_path / "other.toml").write_text("[workers]\ncount = 5\n")
    monkeypatch.setenv("SAGE_CONFIG", str(tmp_path / "other.toml"))
    assert load_config(tmp_path).workers.count == 5
    monkeypatch.setenv("SAGE_CONFIG", "/nowhere/sage.toml")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == "SAGE_CONFIG: /nowhere/sage.toml is not a file\n  help: unset it, or name a file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stor = 1", "f: top level: unknown key 'stor'\n  help: Did you mean 'store'?"),
        ("[store]\nurll = 'x'", "f: [store]: unknown key 'urll'\n  help: Did you mean 'url'?"),
        ("[store]\nzzz = 'x'", "f: [store]: unknown key 'zzz'\n  help: known keys: url, synchronous"),
        ("[selectors.a]\npick = 'x'", "f: [selectors.NAME]: unknown key 'pick'\n  help: Did you mean 'picker'?"),
        ("[workers]\ncount = 'x'", "f: workers.count: expected int, got str"),
        ("[workers]\ncount = 0", "f: workers.count: expected int >= 1"),
        ("[workers]\nlease = 0", "f: workers.lease: expected float > 0.0"),
        ("[ports]\ngateway = 'x'", "f: ports.NAME: expected int, got str"),
        ("store = 1", "f: store: expected object, got int"),
        (
            "[classes.interactiv]\nttft = '1s'",
            "f: [classes.interactiv]: there is no 'interactiv'. Did you mean 'interactive'?"
            "\n  help: known: interactive, standard, batch",
        ),
        ("[classes.batch]\nttf = '1s'", "f: [classes.NAME]: unknown key 'ttf'\n  help: Did you mean 'ttft'?"),
        ("[store]\n\nurl = ", "f: not valid TOML: Invalid value (at end of document)"),
        ("[store]\n\nurl = 'a' 'b'\n", "(at line 3, column 11)"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "f")
    assert str(caught.value).endswith(message)


def test_a_file_that_is_no_text_is_named(tmp_path: Path, sage_home: Path) -> None:
    path = tmp_path / "sage.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path)
    assert str(caught.value) == f"{path}: not UTF-8: byte 8 cannot be read\n  help: TOML files are UTF-8"


@pytest.mark.parametrize("named", [False, True], ids=["found", "SAGE_CONFIG"])
def test_a_relative_store_lies_beside_the_file_that_names_it(
    tmp_path: Path, sage_home: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sage.toml").write_text('[store]\nurl = "sqlite:///data/jobs.db"\n')
    if named:
        monkeypatch.setenv("SAGE_CONFIG", str(tmp_path / "sub" / ".." / "sage.toml"))
    for folder in (tmp_path, tmp_path / "sub"):
        monkeypatch.chdir(folder)
        assert load_config(Path.cwd()).store.url == f"sqlite:///{tmp_path}/data/jobs.db"
    # What is no place in a folder stays as it is, to be refused where it is opened.
    for url in ("sqlite:////srv/jobs.db", "sqlite:///:memory:", "sqlite:///", "postgresql://db/jobs", "nonsense"):
        (tmp_path / "sage.toml").write_text(f'[store]\nurl = "{url}"\n')
        assert load_config(Path.cwd()).store.url == url
