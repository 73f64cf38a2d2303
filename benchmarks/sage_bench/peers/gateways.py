"""The gateways that the suite `gateway` compares: what each is called, installed from and started by."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from sage_bench.home import clean_environment, sage_command
from sage_bench.peers.environments import environment
from sage_core import SageError

#: What each is installed from; the others run in this environment.
PACKAGES = {"litellm": ["litellm[proxy]==1.106.*"], "vllm-router": ["vllm-router"]}
#: What the figures call it.
TITLES = {
    "bare": "bare Starlette proxy",
    "sage": "SAGE",
    "sage-granian": "SAGE on Granian",
    "litellm": "LiteLLM",
    "vllm-router": "vllm-router (Rust)",
}
SAGE = """\
[gateway]
server = "{server}"
[models.bench]
backend = "openai"
base_url = "{url}/v1"
sequences = 4096
"""
LITELLM_CONFIG = """\
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: {url}/v1
      api_key: none
litellm_settings:
  set_verbose: false
  drop_params: true
  request_timeout: 600
"""


def command_of(
    name: str, folder: Path, upstream: int, *, cache: Path
) -> tuple[Callable[[int], list[str]], dict[str, str], str]:
    """How it is started on a port, with what in its environment, and what it calls the model."""
    url = f"http://127.0.0.1:{upstream}"
    environ = clean_environment()
    if name == "bare":
        return (
            lambda port: [sys.executable, "-m", "sage_bench.peers.starlette_proxy", str(port), url],
            environ,
            "bench",
        )
    if name in ("sage", "sage-granian"):
        server = "granian" if name == "sage-granian" else "hypercorn"
        (folder / "sage.toml").write_text(SAGE.format(url=url, server=server), encoding="utf-8")
        environ["SAGE_HOME"] = str(folder / "home")
        return lambda port: sage_command(["serve", "--port", str(port)]), environ, "bench"
    if name not in PACKAGES:
        raise SageError(f"no gateway is called {name!r}; known: {', '.join(TITLES)}")
    tools = environment(cache, name, PACKAGES[name]).parent
    if name == "litellm":
        config = folder / "config.yaml"
        config.write_text(LITELLM_CONFIG.format(url=url), encoding="utf-8")
        # What its documentation names for speed (docs/proxy/prod): errors only, one process a core.
        # Like SAGE's here it asks for no key.
        environ["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
        environ |= {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        start = [str(tools / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--num_workers", "1"]
        return lambda port: [*start, "--port", str(port)], environ, "bench"
    start = [str(tools / "vllm-router"), "--worker-urls", url, "--policy", "round_robin", "--host", "127.0.0.1"]
    return lambda port: [*start, "--port", str(port), "--log-level", "error"], environ, "bench"
