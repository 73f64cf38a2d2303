"""The beacon: found by jobs of this project, and by nobody else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from sage_gateway.beacon import INTERNAL, light, seen
from sage_gateway.errors import ApiError
from sage_gateway.keyed import KeyedAccounts
from sage_gateway.keys import KeyFile


def test_the_last_gateway_is_found(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    assert seen(path) is None
    first = light(path, "http://127.0.0.1:1")
    second = light(path, "http://127.0.0.1:2")
    assert seen(path) == second
    assert first.secret != second.secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("{")
    assert seen(path) is None


def test_a_job_works_for_a_key_with_its_models_and_budget_alone(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    _, key = file.add(tenant="search", admin=True, requests_per_minute=1, concurrency=1, models=("echo",), budget=1.0)
    accounts = KeyedAccounts(file, spending=tmp_path / "spending.json")
    beacon = light(tmp_path / "gateway.json", "http://127.0.0.1:1")
    with pytest.raises(ApiError, match="not known"):
        accounts.known(beacon.token(key.id))
    accounts.trust(beacon.secret)
    job = accounts.known(beacon.token(key.id))
    assert (job.tenant, job.admin, job.trusted, job.service_class) == ("search", False, False, "batch")
    for _ in range(3):
        accounts.admit(job, "echo", 1)
    with pytest.raises(ApiError, match="may not use the model"):
        accounts.admit(job, "other", 1)
    with pytest.raises(ApiError, match="may spend 1"):
        accounts.admit(job, "echo", 2_000_000)
    for wrong in (beacon.token("none"), beacon.token(""), f"{INTERNAL}x.{key.id}", INTERNAL, f"{INTERNAL}.{key.id}"):
        with pytest.raises(ApiError, match="not known"):
            accounts.known(wrong)
