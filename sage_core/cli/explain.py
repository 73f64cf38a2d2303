"""`sage explain`: what the control plane decided about a request, from the decision logs of this project."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from sage_core.cli.app import App, pass_app
from sage_core.cli.group import Group
from sage_core.cli.output import json_option, print_json, print_table
from sage_core.common.errors import UsageError

_Line = dict[str, Any]


@click.group(cls=Group)
def explain() -> None:
    """Tell what the control plane decided, and why.

    \b
    Examples:
      sage explain request 4f9c2a
    """


@explain.command()
@click.argument("request_id", metavar="REQUEST")
@json_option
@pass_app
def request(app: App, request_id: str, as_json: bool) -> None:
    """Tell the life of a request that has ended: when, where, why there, and how good the estimates were.

    REQUEST may be cut short as long as only one request of the log starts with it. Its id is the `x-sage-request-id` of
    the answer. The log is the project's: of `sage serve`, the project it was started in.

    \b
    Examples:
      sage explain request 4f9c2a
      sage explain request 4f9c2a --json
    """
    from sage_core.kernel.control_plane.decisions import lines_of, log_files  # noqa: PLC0415 - `--help` needs none of it

    found: dict[str, list[_Line]] = {}
    for line in lines_of(log_files(app.paths.logs), request_id):
        found.setdefault(line["request"], []).append(line)
    if request_id in found:
        found = {request_id: found[request_id]}
    if not found:
        raise UsageError(
            f"no request {request_id!r} is in the decision logs of {app.paths.project}",
            "one that is still live is told by GET /sage/v1/requests/ID of the server; old ones leave with their log",
        )
    if len(found) > 1:
        raise UsageError(f"{len(found)} requests begin with {request_id!r}", f"such as {', '.join(list(found)[:3])}")
    ((whole, lines),) = found.items()
    if as_json:
        print_json({"request": whole, "decisions": lines})
        return
    _say_head(whole, lines)
    for line in lines:
        _say_life(line)
        _say_estimates(line)
        _say_candidates(line)


def _say_head(request: str, lines: list[_Line]) -> None:
    last = lines[-1]
    click.echo(f"request {request}: {last['outcome']}{': ' + last['reason'] if last['reason'] else ''}")
    click.echo(f"  {last['kind']} by model {last['model']!r}, tenant {last['tenant']}, class {last['service_class']}")
    if last["run"]:
        click.echo(f"  run {last['run']}, step {last['step'] or '-'}")
    asked = {"deadline": last.get("deadline"), "between tokens": last.get("tpot")}
    limits = [f"{name} {_ns(value)}" for name, value in asked.items() if value is not None]
    if limits:
        click.echo(f"  asked for: {', '.join(limits)}")
    if len(lines) > 1:
        click.echo(f"  {len(lines)} parts, each in a batch")


def _say_life(line: _Line) -> None:
    began = line["at"] - line.get("total", 0)
    steps = [("arrived", 0)]
    if line["engine"]:
        where = f"sent to {line['engine']}" + (f", dispatch {line['batch']}" if line["batch"] else "")
        steps.append((where, line["wait"]))
        if line.get("ttft"):
            steps.append(("first token", line["wait"] + round(line["ttft"] * 1e9)))
    steps.append((line["outcome"], line.get("total", 0)))
    click.echo("")
    for what, after in steps:
        moment = datetime.fromtimestamp((began + after) / 1e9, UTC)
        click.echo(f"  {moment:%Y-%m-%d %H:%M:%S.%f}Z  +{_ns(after):<9} {what}")
    if line.get("attempts"):
        click.echo(f"  after {line['attempts']} failed attempts")


def _say_estimates(line: _Line) -> None:
    rows = [
        ["tokens in", line.get("tokens_in") or "", line.get("counted_in") or ""],
        ["tokens out", line.get("tokens_out") or "", line.get("counted_out") or ""],
        ["cached tokens", "", line.get("cached") or ""],
        ["first token", _s(line.get("predicted_ttft")), _s(line.get("ttft"))],
        ["in the engine", _s(line["predicted"]), _s(line["actual"])],
        ["charged", _s(line.get("cost")), ""],
    ]
    shown = [row for row in rows if any(row[1:])]
    if shown:
        click.echo("")
        print_table(["  what", "estimated", "actual"], [[f"  {row[0]}", *row[1:]] for row in shown])


def _say_candidates(line: _Line) -> None:
    places: list[_Line] = line.get("candidates") or []
    if not places:
        return
    count = max(line.get("open", 0), len(places))
    policy = line.get("policy") or "the policy"
    among = "1 place" if count == 1 else f"{count} places"
    click.echo(f"\n  {policy} chose among {among}: {line.get('why') or 'it says nothing about it'}")
    scores = [f"{score:.3f}" for score in line.get("scores", ())] or [""] * len(places)
    names = ["  engine", "score", "running", "load", "prompt tokens", "context", "between tokens", "price"]
    rows = [
        [
            ("* " if number == 0 else "  ") + place["engine"],
            scores[number],
            place["running"],
            _s(place["load"]),
            place["prefill"] or "",
            place["context"] or "",
            _s(place["itl"]),
            place["price"],
        ]
        for number, place in enumerate(places)
    ]
    print_table(names, rows)


def _s(seconds: float | None) -> str:
    return _ns(round(seconds * 1e9)) if seconds else ""


def _ns(value: int) -> str:
    if value < 1_000_000_000:
        return f"{value / 1e6:.1f}ms"
    return f"{value / 1e9:.2f}s"
