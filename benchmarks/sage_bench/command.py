"""`sage bench`: list suites, run one, report results."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click


class _Suites(click.Group):
    """``sage bench SUITE`` is short for ``sage bench run SUITE``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            return "run", self.commands["run"], args
        return super().resolve_command(ctx, args)


@click.group(cls=_Suites)
def bench() -> None:
    """Measure SAGE: run suites, one process a case, one JSON line a result.

    \b
    Examples:
      sage bench list
      sage bench overhead --out results.jsonl
      sage bench retrieval --cranfield PATH --squad_xquad_en PATH
      sage bench report results.jsonl
    """


@bench.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def list_suites(as_json: bool) -> None:
    """Show the bundled suites, their cases, and the data they need.

    \b
    Examples:
      sage bench list
      sage bench list --json
    """
    import msgspec  # noqa: PLC0415 - `sage bench --help` needs none of it

    from sage_bench.suite import bundled, load  # noqa: PLC0415 - see above

    suites = [(file, load(file)) for file in bundled().values()]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode([suite for _, suite in suites])).decode())
        return
    for file, suite in suites:
        click.echo(f"{suite.suite}: {suite.title}\n  {file}")
        for name, case in suite.cases.items():
            click.echo(f"  {name}" + (f"  (needs --{case.data} PATH)" if case.data else ""))


@bench.command("run")
@click.argument("suite")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder that holds data sets in folders of their names.",
)
@click.option("--cranfield", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The Cranfield set.")
@click.option(
    "--squad",
    "--squad_xquad_en",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The English questions of XQuAD.",
)
@click.option("--case", "only", multiple=True, metavar="NAME", help="Run this case only; repeatable.")
@click.option("--store", type=click.Choice(["sqlite", "postgres", "both"]), help="Of cases on a store: which.")
@click.option("--batches", metavar="N,N", help="Of cases that drain queues: jobs a claim.")
@click.option("--workers", metavar="N,N", help="Of cases that drain queues: worker processes.")
@click.option("--postgres", metavar="URL", help="A running PostgreSQL, instead of one of the pgserver wheel.")
@click.option("--peers", is_flag=True, help="Run the cases that compare with other software, which uv installs.")
@click.option("--repeat", type=click.IntRange(1), help="Measure each figure N times.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples and generated data.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Append one JSON line a case to a file.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON lines instead of a table.")
def run(
    suite: str,
    data: Path | None,
    cranfield: Path | None,
    squad: Path | None,
    only: tuple[str, ...],
    store: str | None,
    batches: str | None,
    workers: str | None,
    postgres: str | None,
    peers: bool,
    repeat: int | None,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run SUITE, a file or the name of a bundled suite.

    Exit code 1 when a case could not be measured.

    \b
    Examples:
      sage bench run overhead --out results.jsonl
      sage bench run retrieval --cranfield PATH --case cranfield --repeat 5
      sage bench run ./mine.toml --json
      sage bench run jobs --store sqlite --batches 1,16 --workers 1,2
    """
    from sage_bench import report, runner  # noqa: PLC0415 - `sage bench --help` needs none of it
    from sage_bench.results import encode  # noqa: PLC0415 - see above
    from sage_bench.suite import find, load  # noqa: PLC0415 - see above

    loaded = load(find(suite))
    folders = {case.data: data / case.data for case in loaded.cases.values() if case.data} if data is not None else {}
    folders |= {name: folder for name, folder in (("cranfield", cranfield), ("squad_xquad_en", squad)) if folder}
    plan = runner.Plan(
        suite=loaded,
        named=suite,
        seed=seed,
        repeat=repeat or 0,
        data={name: folder for name, folder in folders.items() if folder.is_dir()},
        only=only,
        optional=peers,
        store=store if store != "both" else None,
        given={
            **({"batches": _numbers(batches)} if batches else {}),
            **({"workers": _numbers(workers)} if workers else {}),
            **({"postgres": postgres} if postgres else {}),
        },
    )
    lines = []
    for line in runner.run(plan, _watch):
        lines.append(line)
        if out is not None:
            with out.open("ab") as file:
                file.write(encode(line) + b"\n")
        if as_json:
            click.echo(encode(line).decode())
    if not as_json:
        click.echo(report.text(lines, width=_width()), nl=False)
    if any(line.error for line in lines):
        raise click.exceptions.Exit(1)


@bench.command("report")
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a table for a page of documentation.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON lines instead of a table.")
def report_results(results: Path, as_markdown: bool, as_json: bool) -> None:
    """Show the figures of RESULTS, a file written with --out.

    Of a case measured twice, the last.

    \b
    Examples:
      sage bench report results.jsonl
      sage bench report results.jsonl --markdown
    """
    from sage_bench import report  # noqa: PLC0415 - `sage bench --help` needs none of it
    from sage_bench.results import encode, read_lines  # noqa: PLC0415 - see above

    last = {(line.suite, line.case): line for line in read_lines(results)}
    lines = list(last.values())
    if as_json:
        click.echo("".join(encode(line).decode() + "\n" for line in lines), nl=False)
    else:
        click.echo(report.markdown(lines) if as_markdown else report.text(lines, width=_width()), nl=False)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,16,128")
    return numbers


def _watch(number: int, of: int, name: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"[{number}/{of}] {name} …", err=True)


def _width() -> int | None:
    """A terminal's own width; a pipe gets whole lines."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
