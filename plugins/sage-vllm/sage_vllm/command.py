"""`sage vllm`: install vLLM's own environment, and say which ones are there."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def vllm() -> None:
    """Install vLLM in an environment of its own, and list what is installed.

    \b
    Examples:
      sage vllm install --cpu
      sage vllm list
    """


@vllm.command()
@click.option("--cpu", "build", flag_value="cpu", help="The build for processors with AVX2 (3.5 GB).")
@click.option("--cuda", "build", flag_value="cuda", help="The build for NVIDIA GPUs (about 10 GB).")
@click.option("--torch-backend", default="", metavar="NAME", help="uv's name of a PyTorch build: cpu, cu128, auto, …")
@click.option("--again", is_flag=True, help="Make it anew though it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def install(build: str | None, torch_backend: str, again: bool, as_json: bool) -> None:
    """Make the environment that `backend = "vllm"` starts its servers in, below SAGE's data folder.

    \b
    Examples:
      sage vllm install --cpu
      sage vllm install --cuda --torch-backend auto
      sage vllm install --cpu --json
    """
    import msgspec  # noqa: PLC0415 - `sage vllm --help` needs none of it

    from sage_core import UsageError, find_paths  # noqa: PLC0415 - see above
    from sage_vllm.environment import install as make  # noqa: PLC0415 - see above

    if build not in ("cpu", "cuda"):
        raise UsageError("which build of vLLM?", "--cpu or --cuda")
    made = make("cuda" if build == "cuda" else "cpu", find_paths(Path.cwd()), torch_backend=torch_backend, again=again)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(made)).decode())
        return
    click.echo(f"{made.package} {made.version} is in {made.folder} ({made.megabytes} MB, made in {made.seconds:g} s)")


@vllm.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def list_environments(as_json: bool) -> None:
    """Show the builds that this plugin knows, and where they are installed.

    \b
    Examples:
      sage vllm list
      sage vllm list --json
    """
    import msgspec  # noqa: PLC0415 - `sage vllm --help` needs none of it

    from sage_core import find_paths  # noqa: PLC0415 - see above
    from sage_vllm.environment import RELEASES, find_made  # noqa: PLC0415 - see above

    paths = find_paths(Path.cwd())
    rows = []
    for build, release in RELEASES.items():
        made = find_made(build, paths)
        folder = made.folder if made else ""
        rows.append({"build": build, "package": release.package, "version": release.version, "folder": folder})
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return
    for row in rows:
        where = row["folder"] or f"not installed: sage vllm install --{row['build']}"
        click.echo(f"{row['build']}: {row['package']} {row['version']}  {where}")
