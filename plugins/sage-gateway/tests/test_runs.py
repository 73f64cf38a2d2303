"""Runs under ``/sage/v1``: whose they are, and who may stop them."""

from __future__ import annotations

import importlib

import sage_gateway.testing as gateways
from openai import OpenAI
from sage_gateway.keys import KeyFile
from sage_gateway.testing_project import ASK, SLOW, ProjectFolder, asked

from sage_core.serving import default_host


def test_a_tenant_stops_its_own_runs_with_its_own_key(project: ProjectFolder) -> None:
    project.deploy(SLOW)
    file = KeyFile(project.folder / "project" / "keys.json")
    mine, other = (file.add(tenant=name)[0] for name in ("mine", "other"))
    admin, _ = file.add(tenant="ops", admin=True)
    host = default_host({"samples": importlib.import_module("sage_samples")})
    with gateways.serving(project.folder, host, {}, {"queues": {"default": {"idle": 1, "max": 1}}}) as running:

        def as_(key: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {key}"}

        for key in (mine, admin):
            url = asked(running, "/slow", {"question": "why?"}, **as_(mine))[1]["url"]
            assert asked(running, f"{url}/cancel", {}, **as_(other))[0] == 404
            status, told = asked(running, f"{url}/cancel", {}, **as_(key))
            assert (status, told["cancelled"]) == (200, True)
            # A second time finds nothing to stop.
            assert asked(running, f"{url}/cancel", {}, **as_(key))[1]["cancelled"] is False
            assert asked(running, url, **as_(mine))[1]["status"] == "cancelled"


def test_a_tenant_sees_its_own_runs_and_those_of_nobody_else(project: ProjectFolder) -> None:
    project.deploy(ASK)
    file = KeyFile(project.folder / "project" / "keys.json")
    mine, _ = file.add(tenant="mine")
    other, _ = file.add(tenant="other")
    bound, _ = file.add(tenant="bound", models=("echo",))
    admin, _ = file.add(tenant="ops", admin=True)
    host = default_host({"samples": importlib.import_module("sage_samples")})
    with gateways.serving(project.folder, host, {}, {"queues": {"default": {"idle": 1, "max": 1}}}) as running:

        def as_(key: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {key}"}

        status, begun = asked(running, "/ask", {"question": "why?"}, **as_(mine))
        assert status == 202
        assert asked(running, begun["url"], **as_(mine))[0] == 200
        assert asked(running, begun["url"], **as_(other))[0] == 404
        assert asked(running, begun["url"], **as_(admin))[1]["tenant"] == "mine"
        assert asked(running, "/sage/v1/runs", **as_(other))[1]["data"] == []
        assert len(asked(running, "/sage/v1/runs", **as_(mine))[1]["data"]) == 1
        assert asked(running, f"{begun['url']}/cancel", {}, **as_(other))[0] == 404
        assert asked(running, f"{begun['url']}/cancel", {})[0] == 401
        assert asked(running, "/ask", {"question": "why?"}, **as_(bound))[0] == 403
        assert asked(running, "/sage/v1/runs")[0] == 401
        with OpenAI(base_url=f"{running.url}/v1", api_key=bound, max_retries=0) as client:
            assert list(client.models.list()) == []
