"""Keys: kept as digests, found by their text, and gone when they are revoked."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sage_gateway.keys import ANYBODY, LOOK, KeyFile, Keyring

from sage_core import ConfigError, UsageError


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / ".sage" / "keys.json")


def test_a_key_is_kept_as_a_digest_that_only_its_owner_reads(file: KeyFile) -> None:
    text, key = file.add(tenant="search")
    kept = file.path.read_text()
    assert text not in kept
    assert text.removeprefix("sk-sage-") not in kept
    assert key.digest in kept
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.read() == (key,)


def test_a_ring_finds_a_key_by_its_text_alone(file: KeyFile) -> None:
    text, key = file.add(tenant="search", models=("chat", "workflow/*"))
    ring = Keyring(file)
    assert ring.find(text, 0.0) == key
    assert ring.find(text[:-1], 0.0) is None
    assert ring.find(key.digest, 0.0) is None
    assert ring.find("", 0.0) is None
    assert not ring.open_to_all(0.0)
    assert [key.allows(model) for model in ("chat", "workflow/ask", "other")] == [True, True, False]


def test_without_keys_everybody_is_let_in(file: KeyFile) -> None:
    ring = Keyring(file)
    assert ring.open_to_all(0.0)
    assert ring.find("anything", 0.0) is ANYBODY


def test_a_change_is_seen_after_the_next_look_and_the_last_revoked_key_opens_nothing(file: KeyFile) -> None:
    first, _ = file.add(tenant="a")
    ring = Keyring(file)
    assert ring.find(first, 0.0) is not None
    second, other = file.add(tenant="b")
    assert ring.find(second, LOOK / 2) is None
    assert ring.find(second, LOOK) == other
    for key in file.read():
        file.revoke(key.id)
    assert ring.find(second, 2 * LOOK) is None
    assert not ring.open_to_all(2 * LOOK)
    file.path.unlink()
    assert ring.find(first, 3 * LOOK) is None


def test_a_file_that_is_not_one_of_keys_is_refused_by_name(file: KeyFile) -> None:
    file.add(tenant="a")
    file.path.write_text('{"keys": [{"id": 3}]}')
    with pytest.raises(ConfigError, match=r"keys\.json: not a file of API keys"):
        Keyring(file).find("x", 0.0)


def test_an_id_that_names_no_single_key_is_refused(file: KeyFile) -> None:
    _, key = file.add(tenant="a")
    with pytest.raises(UsageError, match=rf"no key has the id 'zz'\n  help: known: {key.id}"):
        file.revoke("zz")
    with pytest.raises(UsageError, match="no key has the id ''"):
        file.revoke("")


def test_of_changes_at_once_none_is_lost(file: KeyFile) -> None:
    _, old = file.add(tenant="old")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: file.add(tenant=f"t{number}")[1], range(24)))
        pool.submit(file.revoke, old.id).result()
        made += pool.map(lambda number: file.add(tenant=f"u{number}")[1], range(8))
    assert {key.id for key in file.read()} == {key.id for key in made}


def test_a_file_that_breaks_while_it_serves_leaves_the_keys_as_they_were(file: KeyFile) -> None:
    told: list[ConfigError] = []
    text, key = file.add(tenant="a")
    ring = Keyring(file, told.append)
    assert ring.find(text, 0.0) == key
    whole = file.path.read_bytes()
    file.path.write_text("{")
    assert ring.find(text, LOOK) == ring.find(text, 2 * LOOK) == key
    assert ring.find("sk-sage-other", 3 * LOOK) is None
    assert len(told) == 1
    file.path.write_bytes(whole)
    file.revoke(key.id)
    assert ring.find(text, 4 * LOOK) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"budget": float("nan")},
        {"budget": float("inf")},
        {"ttft": float("inf")},
        {"tpot": float("nan")},
        {"end_to_end": 0.0},
        {"concurrency": -1},
        {"tenant": "a\r\nx-sage-class: interactive"},
        {"tenant": "t" * 129},
    ],
)
def test_what_cannot_be_counted_or_written_makes_no_key(file: KeyFile, fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no such key can be made"):
        file.add(**{"tenant": "t", **fields})
    assert file.read() == ()
