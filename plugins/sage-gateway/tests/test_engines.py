"""`sage engines` against a running gateway, and what a changed sage.toml does to it."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Callable
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner
from sage_gateway.command_line import GatewayError
from sage_gateway.engines import engines, lasting
from sage_gateway.testing import Running

from sage_core import ConfigError, Host
from sage_core.serving import Config, parse_config

Serve = Callable[..., Running]
TWO = {"echo": {"backend": "fake", "engines": [{"source": "a"}, {"source": "b"}]}}
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


class App:
    """The command line's own objects, for commands that only need sage.toml."""

    host = Host({})
    config = Config()


def sage(running: Running, *arguments: str) -> str:
    done = CliRunner().invoke(engines, [*arguments, "--url", running.url], obj=App())
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def rows(running: Running) -> dict[str, dict[str, Any]]:
    return {f"{row['model']}/{row['member']}": row for row in json.loads(sage(running, "list", "--json"))}


def states(running: Running) -> dict[str, str]:
    return {name: row["state"] for name, row in rows(running).items()}


def post(running: Running) -> int:
    return httpx.post(f"{running.url}/v1/chat/completions", json=CHAT, timeout=20).status_code


def eventually(running: Running, wanted: dict[str, str]) -> None:
    for _ in range(200):
        if states(running) == wanted:
            return
        threading.Event().wait(0.02)
    assert states(running) == wanted


class TestCommands:
    def test_they_are_listed(self, serve: Serve) -> None:
        running = serve(TWO)
        eventually(running, {"echo/0": "up", "echo/1": "up"})
        head, first, second = sage(running, "list").splitlines()
        assert head.split() == ["model", "engine", "state", "backend", "where", "says"]
        assert first.split()[0::2] == ["echo/0", "up", "a"]
        assert second.split()[3:] == ["fake", "b"]

    def test_what_an_engine_says_of_itself_is_shown(self, serve: Serve) -> None:
        running = serve(TWO)
        eventually(running, {"echo/0": "up", "echo/1": "up"})
        figures = {"running": 3.0, "kv_usage": 0.254, "prefix_queries": 200.0, "prefix_hits": 50.0}
        engine = running.gateway.driver.pools.engine(rows(running)["echo/1"]["engine"])
        running.call(lambda: setattr(engine, "figures", figures))
        assert {name: row["figures"] for name, row in rows(running).items()} == {"echo/0": {}, "echo/1": figures}
        _, first, second = sage(running, "list").splitlines()
        assert first.endswith("  a")
        assert second.endswith("  b      3 running, 0 waiting, cache 25% full, 25% of prompts found in it")

    def test_one_is_added_to_those_that_serve(self, serve: Serve) -> None:
        running = serve(TWO)
        eventually(running, {"echo/0": "up", "echo/1": "up"})
        before = rows(running)
        sage(running, "add", "echo", "source=c")
        eventually(running, {"echo/0": "up", "echo/1": "up", "echo/2": "up"})
        assert [rows(running)[name]["engine"] for name in before] == [row["engine"] for row in before.values()]
        with pytest.raises(GatewayError, match="has this engine already"):
            sage(running, "add", "echo", "source=c")

    def test_a_model_is_added(self, serve: Serve) -> None:
        running = serve({})
        with pytest.raises(GatewayError, match="a new one needs a backend"):
            sage(running, "add", "echo", "source=c")
        sage(running, "add", "echo", "backend=fake", "sequences=3")
        assert post(running) == 200
        assert running.engine("echo").options.sequences == 3

    def test_one_is_removed_without_losing_what_it_holds(self, serve: Serve) -> None:
        running = serve({"echo": {**TWO["echo"], "sequences": 1, "ttft": 0.3}})
        eventually(running, {"echo/0": "up", "echo/1": "up"})
        codes: list[int] = []
        threads = [threading.Thread(target=lambda: codes.append(post(running))) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert "removed" in sage(running, "remove", "echo/0")
        for thread in threads:
            thread.join(20)
        assert codes == [200] * 4
        eventually(running, {"echo/1": "up"})
        with pytest.raises(GatewayError, match="last one"):
            sage(running, "remove", "echo/1")

    def test_one_is_drained_and_another_opened_in_its_place(self, serve: Serve) -> None:
        running = serve(TWO)
        eventually(running, {"echo/0": "up", "echo/1": "up"})
        engine = rows(running)["echo/0"]["engine"]
        assert json.loads(sage(running, "drain", engine, "--json"))["state"] == "draining"
        eventually(running, {"echo/0": "up", "echo/1": "up"})
        assert rows(running)["echo/0"]["engine"] != engine

    def test_an_engine_that_is_not_there(self, serve: Serve) -> None:
        running = serve(TWO)
        with pytest.raises(GatewayError, match="no engine is named 'echo/7'"):
            sage(running, "drain", "echo/7")

    def test_a_gateway_that_is_not_there(self) -> None:
        done = CliRunner().invoke(engines, ["list", "--url", "http://127.0.0.1:9"], obj=App())
        assert isinstance(done.exception, GatewayError)
        assert "sage serve" in str(done.exception)

    @pytest.mark.parametrize("name", ["list", "add", "drain", "remove"])
    def test_every_command_shows_examples(self, name: str) -> None:
        command = engines.commands[name]
        assert isinstance(command, click.Command)
        assert "Examples:" in (command.help or "")


class TestReload:
    def config(self, **models: Any) -> Config:
        lines = []
        for name, sources in models.items():
            lines.append(f'[models.{name}]\nbackend = "fake"\n')
            lines += [f'[[models.{name}.engines]]\nsource = "{source}"\n' for source in sources]
        return parse_config("".join(lines), "sage.toml")

    def test_engines_that_stay_in_the_file_stay_open(self, serve: Serve) -> None:
        running = serve(TWO)
        eventually(running, {"echo/0": "up", "echo/1": "up"})
        before = rows(running)
        assert running.call(lambda: running.gateway.reload(self.config(echo="bc"))) == "echo changed"
        eventually(running, {"echo/1": "up", "echo/2": "up"})
        assert rows(running)["echo/1"]["engine"] == before["echo/1"]["engine"]
        assert post(running) == 200

    def test_models_come_and_go(self, serve: Serve) -> None:
        running = serve(TWO)
        told = running.call(lambda: running.gateway.reload(self.config(other="x")))
        assert told == "echo is served no more, other is served"
        assert [model["id"] for model in httpx.get(f"{running.url}/v1/models").json()["data"]] == ["other"]
        assert post(running) == 404
        running.call(lambda: running.gateway.reload(self.config(echo="ab")))
        assert post(running) == 200

    def test_what_is_wrong_changes_nothing(self, serve: Serve) -> None:
        running = serve(TWO)
        wrong = parse_config('[models.echo]\nbackend = "fake"\nidle = "soon"\n', "sage.toml")
        with pytest.raises(ConfigError):
            running.call(lambda: running.gateway.reload(wrong))
        assert post(running) == 200

    def test_a_policy(self, serve: Serve) -> None:
        running = serve(TWO)
        config = parse_config('[scheduler]\nrequests = "priority"\n[models.echo]\nbackend = "fake"\n', "sage.toml")
        assert running.call(lambda: running.gateway.reload(config)).startswith("policy priority")

    def test_service_classes(self, serve: Serve) -> None:
        running = serve(TWO)
        text = '[classes.interactive]\nttft = "2s"\n[models.echo]\nbackend = "fake"\n'
        config = parse_config(text, "sage.toml")
        assert running.call(lambda: running.gateway.reload(config)).startswith("classes, ")
        assert running.call(lambda: running.gateway.reload(config)) == ""
        wrong = parse_config(text.replace("2s", "soon"), "sage.toml")
        with pytest.raises(ConfigError, match="interactive"):
            running.call(lambda: running.gateway.reload(wrong))
        assert post(running) == 200


def test_what_keeps_an_added_engine_is_told(serve: Serve) -> None:
    running = serve(TWO)
    said = sage(running, "add", "echo", "source=c d", "sequences=4")
    kept = parse_config(said.split("write in sage.toml:\n\n")[1], "told").models["echo"]
    assert kept == {"engines": [{"source": "c d", "sequences": 4}]}
    said = sage(running, "add", "another one", "backend=fake", 'needs={"memory": "1GiB"}')
    kept = parse_config(said.split("write in sage.toml:\n\n")[1], "told").models["another one"]
    assert kept == {"backend": "fake", "needs": {"memory": "1GiB"}}


@pytest.mark.parametrize(
    "table",
    [
        {"backend": "fake", "source": 'a "quoted" \\ path', "n": 1, "share": 0.5, "on": True},
        {"a list": [1, "two", {"three": [], "none": {}}], "ümlaut": "ü"},
    ],
)
def test_what_is_told_is_toml(table: dict[str, Any]) -> None:
    assert tomllib.loads(lasting("m.1", table, others=False))["models"]["m.1"] == table
    assert tomllib.loads(lasting("m.1", table, others=True))["models"]["m.1"] == {"engines": [table]}
