"""Structured logs carry a machine name and fields, and no secrets."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from sage_core.common.errors import ConfigError
from sage_core.common.telemetry import JsonLines, log, log_to_stderr, redacted


def test_a_record_has_its_action_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sage"):
        log("run_finished", run="r1", rows=3)
        log("silent", level=logging.DEBUG)
    (record,) = caplog.records
    assert record.getMessage() == "run_finished run=r1 rows=3"
    assert vars(record)["action"] == "run_finished"
    assert vars(record)["sage"] == {"run": "r1", "rows": 3}


def test_an_action_may_stand_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sage"):
        log("stopped", level=logging.WARNING)
    assert caplog.records[0].getMessage() == "stopped"


def test_a_text_with_a_percent_sign_is_logged_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sage"):
        log("job_failed", error="100 % of %s")
    assert caplog.records[0].getMessage() == "job_failed error=100 % of %s"


def test_a_json_line_is_one_object(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="sage"):
        log("job_failed", job=7, error=ValueError("two\nlines: é"), seconds=0.5, late=None)
    line = JsonLines().format(caplog.records[0])
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert isinstance(found.pop("process"), int)
    assert found == {
        "level": "info",
        "action": "job_failed",
        "job": 7,
        "error": "two\nlines: é",
        "seconds": 0.5,
        "late": None,
    }


def test_what_libraries_log_is_an_object_too() -> None:
    try:
        raise KeyError("gone")
    except KeyError:
        record = logging.LogRecord("lib", logging.ERROR, "f.py", 1, "no %s", ("way",), sys.exc_info())
    found = json.loads(JsonLines().format(record))
    assert (found["level"], found["action"], found["logger"], found["message"]) == ("error", "message", "lib", "no way")
    assert found["traceback"].endswith("KeyError: 'gone'")


def test_secrets_are_replaced() -> None:
    environ = {
        "OPENAI_API_KEY": "sk-12345",
        "MY_TOKEN": "abcdef",
        "SAGE_PARAM_DOOR": "sesame",
        "PASSWORD": "a",
        "HOME": "/home/ada",
    }
    assert redacted(
        {
            "error": "401 for sk-12345 at postgresql://ada:pw@db/x, said abcdef and sesame in /home/ada",
            "api_key": "anything",
            "tokens": 12,
            "url": ValueError("postgres://ada:long-password@db"),
        },
        environ,
    ) == {
        "error": "401 for *** at postgresql://ada:***@db/x, said *** and *** in /home/ada",
        "api_key": "***",
        "tokens": 12,
        "url": "postgres://ada:***@db",
    }


SCRIPT = """
import logging
from sage_core.common.telemetry import log, log_to_stderr
log_to_stderr()
log("run_finished", run="r1", door="sesame")
logging.getLogger("lib").warning("careful with sesame")
"""


@pytest.mark.parametrize("chosen", ["", "text", "json"])
def test_the_environment_chooses_the_form(chosen: str) -> None:
    environ = {"SAGE_LOG": chosen, "DOOR_SECRET": "sesame"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environ, capture_output=True, text=True, check=True)
    ours, other = done.stderr.splitlines()
    if chosen == "json":
        assert json.loads(ours)["door"] == "***"
        assert json.loads(other)["message"] == "careful with ***"
    else:
        assert ours.endswith(" run_finished run=r1 door=***")
        assert other.endswith(" careful with sesame")


def test_another_form_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        log_to_stderr({"SAGE_LOG": "xml"})
    assert str(caught.value) == "SAGE_LOG: 'xml' is no format of logs\n  help: use one of: text, json"
